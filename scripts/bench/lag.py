"""`make lag`: does apply keep up with a source that works as fast as it can?

pgbench and the source share one core, pgshadow and the target another; TPC-B at full speed. The lag is asked for each second.
A run passes if the lag at the end of the load is under 2 s and does not grow over the load's second half.

    python3 scripts/bench/lag.py

Read from the environment:
  SECONDS=60  CLIENTS=64  SCALE=10     PROTOCOLS="prepared simple"     LANES="1 4"   (empty: the default number of lanes)
  DURABILITY=fsync                     CORES="0 1"
  PGSHADOW_PG_OLD_BINDIR, PGSHADOW_PG_NEW_BINDIR   source and target; `make lag` sets them

Results are appended to target/bench/lag.jsonl, one object a run.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import account
import equal
import load as pgbench
import machine
import servers
import ways
from servers import DATABASE, Cluster, Failure, reset

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAG_MS_MAX = 2000
# Milliseconds of lag that a second of load may add, over its second half: what the samples' noise gives.
GROWTH_MAX = 10.0
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


@contextlib.contextmanager
def core(number):
    """What is started meanwhile stays on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Site:
    """The two servers, each on its core, and the programs."""

    def __init__(self, environment):
        try:
            old, new = environment["PGSHADOW_PG_OLD_BINDIR"], environment["PGSHADOW_PG_NEW_BINDIR"]
        except KeyError as missing:
            raise Failure(f"{missing} is not set: run `make lag`") from None
        self.cores = [int(word) for word in environment.get("CORES", "0 1").split()]
        if not set(self.cores) <= os.sched_getaffinity(0):
            raise Failure(f"cores {self.cores} are not there: set CORES")
        self.tools = new
        self.pgshadow = environment.get("PGSHADOW_BIN") or os.path.join(ROOT, "target/release/pgshadow")
        self.work = tempfile.mkdtemp(prefix="pgshadow-lag-")
        os.chmod(self.work, 0o755)
        self.source = Cluster("source", old, self.tools, self.work, SETTINGS)
        self.target = Cluster("target", new, self.tools, self.work, SETTINGS)

    def open(self):
        for cluster, number in zip((self.source, self.target), self.cores):
            with core(number):
                cluster.create()

    def close(self):
        for cluster in (self.source, self.target):
            cluster.stop()
        shutil.rmtree(self.work, ignore_errors=True)


class Way(ways.Pgshadow):
    """pgshadow with so many lanes."""

    def __init__(self, site, durability, lanes):
        super().__init__(site, "lag", "pgshadow", True, durability)
        self.lanes = lanes

    def _spawn(self, words, directory, other=False):
        if self.lanes:
            with open(words[-1], "a", encoding="utf-8") as file:
                file.write(f"[apply]\nlanes = {self.lanes}\n")
        with core(self.site.cores[1]):
            return super()._spawn(words, directory, other)


def slope(samples):
    """What each second adds, by least squares."""
    n = len(samples)
    if n < 2:
        return 0.0
    mean_x, mean_y = (sum(sample[i] for sample in samples) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


def measure(site, way, protocol, clients, seconds):
    reset(site.source, site.target)
    site.source.dirty = site.target.dirty = True
    directory = tempfile.mkdtemp(prefix="run-", dir=site.work)
    os.chmod(directory, 0o755)
    way.start(directory)
    try:
        processes = {"pgshadow": way.process.pid, "source": site.source.process.pid, "target": site.target.process.pid}
        before = {name: account.cpu_us(pid) for name, pid in processes.items()}
        begun, busy, bench = time.monotonic(), account.busy_us(), account.own_us()
        with core(site.cores[0]):
            running = pgbench.start(site.tools, way.port, "tpcb", protocol, clients, seconds, directory)
        samples = []
        while running.poll() is None:
            time.sleep(1)
            if running.poll() is None:
                lag = way.lag()
                samples.append((round(time.monotonic() - begun, 2), lag["ms"], lag["entries"]))
        record = pgbench.finish(running, seconds)
        at_end = way.lag()
        loaded = {name: account.cpu_us(pid) for name, pid in processes.items()}
        drain = ways.drained_in(way, 600)
        after = {name: account.cpu_us(pid) for name, pid in processes.items()}
        busy, taken = account.busy_us() - busy, time.monotonic() - begun
        own = sum(after.values()) - sum(before.values()) + account.own_us() - bench
        half = [(x, ms) for x, ms, _ in samples if x >= seconds / 2]
        record |= {
            "lag_ms_end": at_end["ms"], "lag_entries_end": at_end["entries"],
            "lag_ms_max": max((ms for _, ms, _ in samples), default=0),
            "lag_ms_per_s": round(slope(half), 2), "drain_s": round(drain, 3), "samples": samples,
            "foreign_share": round(max(0, busy - own) / (taken * 1e6 * os.cpu_count()), 3),
        }
        for name in processes:
            record[f"{name}_us"] = round((after[name] - before[name]) / max(record["transactions"], 1), 1)
            record[f"{name}_core"] = round((loaded[name] - before[name]) / 1e6 / seconds, 3)
        record |= way.facts()
        record["differences"], _ = equal.differences(site.source, site.target, DATABASE)
        record["passes"] = (
            record["lag_ms_end"] < LAG_MS_MAX and record["lag_ms_per_s"] < GROWTH_MAX and not record["differences"]
            and not record["suspect_tables"] and not record["findings_open"] and not record["healed_rows"]
        )
        return record
    finally:
        way.stop()
        shutil.rmtree(directory, ignore_errors=True)


def line(record):
    return (
        f"{record['protocol']}, {record['clients']} clients, lanes {record['lanes'] or 'default'}, {record['durability']}: "
        f"{record['tps']:.0f} tps; lag at the end {record['lag_ms_end']} ms ({record['lag_entries_end']} tx), "
        f"{record['lag_ms_per_s']:+.1f} ms a second, at most {record['lag_ms_max']} ms, drained in {record['drain_s']} s; "
        f"us a tx: pgshadow {record['pgshadow_us']}, target {record['target_us']}, source {record['source_us']}; "
        f"others used {record['foreign_share']:.0%} of the machine; {'passes' if record['passes'] else 'FAILS'}"
    )


def main():
    environment = os.environ
    seconds, clients = int(environment.get("SECONDS", "60")), int(environment.get("CLIENTS", "64"))
    servers.SCALE = int(environment.get("SCALE", "10"))
    durability = environment.get("DURABILITY", "fsync")
    output = os.path.join(ROOT, "target", "bench", "lag.jsonl")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    site, passes = Site(environment), True
    try:
        site.open()
        for protocol in environment.get("PROTOCOLS", "prepared simple").split():
            for lanes in environment.get("LANES", "").split() or [None]:
                record = {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "protocol": protocol, "clients": clients,
                    "lanes": lanes, "scale": servers.SCALE, "seconds": seconds, "durability": durability,
                    "build": machine.build_of(site.pgshadow),
                }
                record |= measure(site, Way(site, durability, lanes), protocol, clients, seconds)
                with open(output, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(line(record), flush=True)
                passes = passes and record["passes"]
    finally:
        site.close()
    return 0 if passes else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"lag: {failure}")
