"""`make proof`: how fast `verify` compares, set beside md5(t::text) over the same rows in the same run.

Nothing else runs. Rows a second and core are rows of both sides by the CPU time of both servers (and of pgshadow).

    python3 scripts/bench/proof.py

Read from the environment:
  NARROW=4000000  WIDE=1000000  REPEATS=3
  PGSHADOW_PG_OLD_BINDIR, PGSHADOW_PG_NEW_BINDIR   source and target; `make proof` sets them

Results are appended to target/bench/proof.jsonl, one object a run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import account
import lag
import machine
import ways
from servers import Failure, Psql, reset

TABLES = {
    "narrow": "CREATE TABLE narrow (id int PRIMARY KEY, v int); INSERT INTO narrow SELECT g, g % 1000 FROM generate_series(1, {rows}) g",
    "wide": """CREATE TABLE wide (id bigint PRIMARY KEY, at timestamptz, name text, email text, amount numeric(12, 2), state text, data jsonb);
        INSERT INTO wide SELECT g, '2026-01-01'::timestamptz + g * interval '1 s', 'customer ' || g, 'c' || g || '@example.com', g * 1.13,
        'open', jsonb_build_object('city', 'Lima', 'points', g % 100) FROM generate_series(1, {rows}) g""",
}


def cpu(processes):
    return {name: account.cpu_us(pid) for name, pid in processes.items()}


def measured(processes, work):
    before, begun = cpu(processes), time.monotonic()
    result = work()
    seconds, after = time.monotonic() - begun, cpu(processes)
    return result, seconds, {name: (after[name] - before[name]) / 1e6 for name in processes}


def verify(site, config, table):
    words = [site.pgshadow, "verify", "--json", "--table", f"public.{table}", "-c", config]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise Failure(f"verify ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    return json.loads(done.stdout)


def by_md5(site, table):
    sides = [Psql(site.tools, cluster.port) for cluster in (site.source, site.target)]
    running = [(side, side.start(f"SET max_parallel_workers_per_gather = 0; SELECT count(md5(t::text)) FROM {table} t")) for side in sides]
    return [side.finish(process) for side, process in running]


def line(record):
    return (
        f"{record['table']}, {record['rows']:,} rows on each side: verify {record['verify_s']:.2f} s, "
        f"{record['verify_rows_core']:,.0f} rows a second and core; md5(t::text) {record['md5_s']:.2f} s, "
        f"{record['md5_rows_core']:,.0f}; ratio {record['ratio']:.2f}; applier held {record['held_ms']:.0f} ms"
    )


def main():
    environment = os.environ
    output = os.path.join(lag.ROOT, "target", "bench", "proof.jsonl")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    site = lag.Site(environment)
    try:
        site.source.create()
        site.target.create()
        reset(site.source, site.target)
        rows = {"narrow": int(environment.get("NARROW", "4000000")), "wide": int(environment.get("WIDE", "1000000"))}
        for cluster in (site.source, site.target):
            for table, sql in TABLES.items():
                Psql(site.tools, cluster.port).run(sql.format(rows=rows[table]) + f"; VACUUM ANALYZE {table}; GRANT ALL ON {table} TO PUBLIC")
        way = ways.Pgshadow(site, "proof", "pgshadow", True)
        directory = tempfile.mkdtemp(prefix="run-", dir=site.work)
        os.chmod(directory, 0o755)
        way.start(directory)
        try:
            config = os.path.join(directory, "pgshadow.toml")
            processes = {"pgshadow": way.process.pid, "source": site.source.process.pid, "target": site.target.process.pid}
            for _ in range(int(environment.get("REPEATS", "3"))):
                for table in TABLES:
                    report, seconds, used = measured(processes, lambda: verify(site, config, table))
                    _, md5_seconds, md5_used = measured(processes, lambda: by_md5(site, table))
                    both = 2 * rows[table]
                    record = {
                        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "build": machine.build_of(site.pgshadow),
                        "table": table, "rows": rows[table], "verify_s": round(seconds, 3), "md5_s": round(md5_seconds, 3),
                        "verify_cpu_s": used, "md5_cpu_s": md5_used, "verify_rows_core": both / sum(used.values()),
                        "md5_rows_core": both / sum(md5_used.values()), "held_ms": max(report["held_ms"]),
                    }
                    record["ratio"] = record["verify_rows_core"] / record["md5_rows_core"]
                    with open(output, "a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                    print(line(record), flush=True)
        finally:
            way.stop()
    finally:
        site.close()
        shutil.rmtree(site.work, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"proof: {failure}")
