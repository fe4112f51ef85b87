"""`make bench`: pgbench through everything that pgshadow can be held against. See docs/performance.md for the method.

    python3 scripts/bench            measures what is not measured yet, then writes the tables
    python3 scripts/bench report     writes the tables only

Read from the environment:
  FULL=1       all loads, protocols and numbers of clients       QUICK=1  a few, about 5 minutes
  FRESH=1      forgets earlier results
  AGAIN=1      measures groups again in which others used much of the machine
  ONLY=REGEX   only cells such as tpcb/prepared/8/fsync, frozen/killed
  REPEATS, SECONDS                     instead of those of the set
  FSYNC=off    servers that don't sync (recorded)
  PATIENCE=N   seconds to wait before each cell for a machine that does nothing else (30); with 0 no cell that was
               disturbed is measured again
  KEEP=1       goes on although the earlier results are of another build of pgshadow
  PGSHADOW_PG_OLD_BINDIR, PGSHADOW_PG_NEW_BINDIR   source and target; `make bench` sets them
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cell
import equal
import frozen
import load as pgbench
import machine
import report
import ways
from results import Results, key
from servers import TEMPLATE, Cluster, Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUTPUT = os.path.join(ROOT, "target", "bench")
# The same for all servers. No checkpoint and no vacuum comes in between by chance.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "512MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "log_checkpoints": "off",
}


def is_set(environment, name):
    return environment.get(name, "") not in ("", "0")


class Plan:
    """What is asked for."""

    def __init__(self, environment):
        quick, full, self.again = (is_set(environment, name) for name in ("QUICK", "FULL", "AGAIN"))
        self.quick = quick
        self.seconds = int(environment.get("SECONDS") or (5 if quick else 10))
        self.repeats = int(environment.get("REPEATS") or (2 if quick else 3))
        self.only = re.compile(environment.get("ONLY", ""))
        self.frozen_pairs, self.frozen_seconds = (0, 0) if quick and not environment.get("ONLY") else (5, 20)
        loads = [load for load in pgbench.LOADS if load not in pgbench.KINDS]
        if quick:
            self.groups = [("tpcb", "prepared", 8), ("tpcb", "simple", 8), ("order", "prepared", 8)]
        elif full:
            self.groups = [(l, p, c) for l in loads for p in pgbench.PROTOCOLS for c in pgbench.CLIENTS]
        else:
            self.groups = [("tpcb", p, c) for p in pgbench.PROTOCOLS for c in pgbench.CLIENTS]
            self.groups += [(load, "prepared", 8) for load in loads if load != "tpcb"]
        if not quick or self.only.pattern:
            protocols = pgbench.PROTOCOLS if full else ("prepared",)
            self.groups += [(kind, p, 8) for kind in pgbench.KINDS for p in protocols]

    def of(self, all_ways):
        """[(repeat, group, ways in their order)], each group's ways following each other."""
        planned = []
        for repeat in range(self.repeats):
            for group in self.groups:
                # Another order each time, so that no way is always the first after a reset.
                turned = all_ways[repeat % len(all_ways):] + all_ways[: repeat % len(all_ways)]
                wanted = pgbench.KIND_WAYS if group[0] in pgbench.KINDS else [way.name for way in turned]
                there = [way for way in turned if not way.missing and way.name in wanted]
                chosen = [way for way in there if self.only.search(name_of(group, way.name))]
                if chosen:
                    planned.append((repeat, group, chosen))
        return planned

    def of_frozen(self):
        variants = [variant for variant in frozen.VARIANTS if self.only.search(f"frozen/{variant}")]
        return [(repeat, variants) for repeat in range(self.frozen_pairs) if variants]


class Site:
    """The servers and programs that cells use."""

    def __init__(self, environment):
        try:
            self.old, self.new = environment["PGSHADOW_PG_OLD_BINDIR"], environment["PGSHADOW_PG_NEW_BINDIR"]
        except KeyError as missing:
            raise Failure(f"{missing} is not set: run `make bench`") from None
        self.root = ROOT
        self.tools = self.new
        self.patience = float(environment.get("PATIENCE", "30"))
        self.fsync = environment.get("FSYNC", "on")
        self.pgshadow = environment.get("PGSHADOW_BIN") or os.path.join(ROOT, "target/release/pgshadow")
        self.forwarder = os.path.join(ROOT, "target/release/examples/forwarder")
        self.build = machine.build_of(self.pgshadow)
        self.work = tempfile.mkdtemp(prefix="pgshadow-bench-")
        os.chmod(self.work, 0o755)
        self.pgbouncer = ways.find_pgbouncer(ROOT, self.work)
        settings = SETTINGS | {"fsync": self.fsync}
        self.source = Cluster("source", self.old, self.tools, self.work, settings)
        # Logical replication needs more in the WAL; the others shall not pay for it.
        logical = settings | {"wal_level": "logical"}
        self.logical_source = Cluster("logical", self.old, self.tools, self.work, logical)
        self.target = Cluster("target", self.new, self.tools, self.work, settings)
        self.clusters = [self.source, self.logical_source, self.target]

    def open(self):
        for cluster in self.clusters:
            say(f"starting PostgreSQL {cluster.version} ({cluster.name})")
            cluster.create()
        found, _ = equal.differences(self.source, self.target, TEMPLATE)
        if found:
            raise Failure(f"the two sides don't start equal: {found}")

    def close(self):
        for cluster in self.clusters:
            cluster.stop()
        shutil.rmtree(self.work, ignore_errors=True)


def name_of(group, way):
    load, protocol, clients = group
    return f"{load}/{protocol}/{clients}/{way}"


def say(text):
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    with open(os.path.join(OUTPUT, "bench.log"), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def open_results(plan, site, environment):
    path = os.path.join(OUTPUT, "quick.jsonl" if plan.quick else "results.jsonl")
    if is_set(environment, "FRESH") and os.path.exists(path):
        os.unlink(path)
    results = Results(path)
    here = machine.describe(site)
    same = ("build", "cpu", "cpus", "source", "target", "fsync")
    if results.machine and any(results.machine[name] != here[name] for name in same):
        if not is_set(environment, "KEEP"):
            aside = f"{path}.{results.machine['build']}"
            os.replace(path, aside)
            say(f"earlier results are of another build or machine: now in {os.path.basename(aside)}")
            results = Results(path)
    results.append({"kind": "machine", "seconds": plan.seconds, "repeats": plan.repeats} | here)
    return results


def run_cells(plan, site, results):
    planned = plan.of(ways.all_ways(site))
    total = sum(len(chosen) for _, _, chosen in planned)
    done = measured = 0
    began = time.monotonic()
    for repeat, group, chosen in planned:
        load, protocol, clients = group
        records = [
            {"kind": "cell", "load": load, "protocol": protocol, "clients": clients, "way": way.name, "repeat": repeat}
            for way in chosen
        ]
        done += len(chosen)
        # Ratios are within a group: one that was interrupted is measured again as a whole.
        known = [results.records.get(key(record), {}) for record in records]
        if all("tps" in record for record in known) and not (plan.again and any(map(report.disturbed, known))):
            continue
        for number, (way, record) in enumerate(zip(chosen, records)):
            record["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            record |= cell.measure(site, way, load, protocol, clients, plan.seconds)
            results.append(record)
            measured += 1
            left = (time.monotonic() - began) / measured * (total - done + len(chosen) - number - 1)
            at = f"{done - len(chosen) + number + 1}/{total}"
            name = f"{at} {name_of(group, way.name)} repeat {repeat + 1}"
            say(f"{name}: {report.one_line(record)}; {left / 60:.0f} min left")


def run_frozen(plan, site, results):
    way = next(way for way in ways.all_ways(site) if way.name == "fsync")
    for repeat, variants in plan.of_frozen():
        records = [{"kind": "frozen", "variant": variant, "repeat": repeat} for variant in variants]
        if all("tps" in results.records.get(key(record), ()) for record in records):
            continue
        for record in records:
            record["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            record |= frozen.measure(site, way, record["variant"], plan.frozen_seconds)
            results.append(record)
            say(f"target {record['variant']} {repeat + 1}/{plan.frozen_pairs}: {report.one_line(record)}")


def write_report(results, plan):
    text = report.markdown(results)
    if plan.quick:
        paths = [os.path.join(OUTPUT, "quick.md")]
    else:
        paths = [os.path.join(OUTPUT, "performance.md"), os.path.join(ROOT, "docs", "performance.md")]
        os.makedirs(os.path.join(ROOT, "docs"), exist_ok=True)
        results.write_to(os.path.join(ROOT, "docs", "performance.jsonl"))
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    say(f"written: {', '.join(os.path.relpath(path, ROOT) for path in paths)}")
    print(report.summary(results))


def main():
    if not os.path.exists("/proc/self/stat"):
        raise Failure("CPU time is read from /proc, which this system does not have")
    os.makedirs(OUTPUT, exist_ok=True)
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended; `make bench` goes on from here"))
    plan = Plan(os.environ)
    if sys.argv[1:] == ["report"]:
        path = os.path.join(OUTPUT, "quick.jsonl" if plan.quick else "results.jsonl")
        write_report(Results(path), plan)
        return 0
    site = Site(os.environ)
    try:
        site.open()
        results = open_results(plan, site, os.environ)
        for way in ways.all_ways(site):
            if way.missing:
                say(f"without {way.title}: {way.missing}")
        run_cells(plan, site, results)
        run_frozen(plan, site, results)
    finally:
        site.close()
    write_report(results, plan)
    return 1 if report.failures(results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench: ended; `make bench` goes on from here")
