"""`make loads`: how fast a backfill loads a target, beside pg_dump | pg_restore -j2 and, where it is there, pgcopydb. Nothing else runs.

Each way makes schema, rows, indexes and keys in an empty database of the same target server; the source is read from memory where that is
large enough. The ways take turns; a ratio is the other way's time by pgshadow's, of the same round.

    python3 scripts/bench/loads.py

Read from the environment:
  SCALE=60  REPEATS=3        pgbench's scale (15 MB each); rounds
  PGSHADOW_PG_OLD_BINDIR, PGSHADOW_PG_NEW_BINDIR   source and target; `make loads` sets them

Results are appended to target/bench/loads.jsonl, one object a run.
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
from servers import DATABASE, ENVIRONMENT, Failure, Psql

# Beside pgbench's: text, jsonb, numbers and times, with indexes and a foreign key.
MORE = """
CREATE TABLE customers (id bigint PRIMARY KEY, at timestamptz, name text, email text UNIQUE, amount numeric(12, 2), state text, data jsonb);
INSERT INTO customers SELECT g, '2026-01-01'::timestamptz + g * interval '1 s', 'customer ' || g, 'c' || g || '@example.com', g * 1.13,
  'open', jsonb_build_object('city', 'Lima', 'points', g % 100) FROM generate_series(1, {rows}) g;
CREATE TABLE visits (id bigserial PRIMARY KEY, customer bigint REFERENCES customers, page text, seconds int);
INSERT INTO visits (customer, page, seconds) SELECT 1 + g % {rows}, '/page/' || g % 1000, g % 600 FROM generate_series(1, {rows} * 4) g;
CREATE INDEX ON visits (customer);
CREATE INDEX ON customers (state, at);
"""


def run(words, seconds=3600):
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise Failure(f"{words[0]} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-1000:]}")
    return done


def empty(site):
    site.target.psql.run(
        f"SET client_min_messages = error; DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE);\nCREATE DATABASE {DATABASE} OWNER app;\n"
        f"GRANT CREATE ON DATABASE {DATABASE} TO pgshadow;\n\\connect {DATABASE}\nGRANT CREATE ON SCHEMA public TO app;\nCHECKPOINT",
        "postgres",
    )


def by_pgshadow(site):
    way = Backfill(site)
    directory = tempfile.mkdtemp(prefix="run-", dir=site.work)
    os.chmod(directory, 0o755)
    way.start(directory)
    try:
        config = os.path.join(directory, "pgshadow.toml")
        begun = time.monotonic()
        run([site.pgshadow, "backfill", "--create-schema", "--json", "-c", config])
        return time.monotonic() - begun, way.cpu() / 1e6
    finally:
        way.stop()


def uri(cluster):
    return f"postgres://postgres@127.0.0.1:{cluster.port}/{DATABASE}"


def by_pg_dump(site):
    directory = tempfile.mkdtemp(prefix="dump-", dir=site.work)
    begun = time.monotonic()
    tool = lambda name: os.path.join(site.tools, name)
    run([tool("pg_dump"), "-Fd", "-j2", "--compress=0", "-f", os.path.join(directory, "d"), "-d", uri(site.source)])
    run([tool("pg_restore"), "-j2", "-d", uri(site.target), os.path.join(directory, "d")])
    run([tool("vacuumdb"), "--analyze-only", "-q", "-j2", "-d", uri(site.target)])
    seconds = time.monotonic() - begun
    shutil.rmtree(directory)
    return seconds, 0.0


def by_pgcopydb(site):
    directory = tempfile.mkdtemp(prefix="pgcopydb-", dir=site.work)
    environment = ENVIRONMENT | {"PATH": site.tools + ":" + ENVIRONMENT["PATH"], "TMPDIR": directory, "XDG_DATA_HOME": directory}
    words = ["pgcopydb", "clone", "--source", uri(site.source), "--target", uri(site.target), "--table-jobs", "2", "--index-jobs", "2"]
    begun = time.monotonic()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    seconds = time.monotonic() - begun
    shutil.rmtree(directory, ignore_errors=True)
    if done.returncode != 0:
        raise Failure(f"pgcopydb: {done.stderr[-1500:]}")
    return seconds, 0.0


class Backfill(ways.Pgshadow):
    def __init__(self, site):
        super().__init__(site, "loads", "pgshadow", True)

    def _spawn(self, words, directory, other=False):
        with open(words[-1], "a", encoding="utf-8") as file:
            file.write(f'[backfill]\nbindir = "{self.site.tools}"\n')
        return super()._spawn(words, directory, other)

    def cpu(self):
        return account.cpu_us(self.process.pid)


def main():
    environment = os.environ
    output = os.path.join(lag.ROOT, "target", "bench", "loads.jsonl")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    scale = int(environment.get("SCALE", "60"))
    site = lag.Site(environment)
    try:
        site.source.create()
        site.target.create()
        site.source.psql.run(f"CREATE DATABASE {DATABASE} OWNER app", "postgres")
        pgbench = os.path.join(site.tools, "pgbench")
        run([pgbench, "-i", "-q", "-s", str(scale), "--foreign-keys", "-h", "127.0.0.1", "-p", str(site.source.port), "-U", "app", DATABASE])
        more = Psql(site.tools, site.source.port)
        more.run(MORE.format(rows=scale * 10_000), user="app", seconds=3600)
        more.run("VACUUM (FREEZE, ANALYZE)", seconds=3600)
        size = int(more.run(f"SELECT pg_database_size('{DATABASE}')"))
        kinds = {"pgshadow": by_pgshadow, "pg_dump": by_pg_dump}
        if shutil.which("pgcopydb"):
            kinds["pgcopydb"] = by_pgcopydb
        for number in range(int(environment.get("REPEATS", "3"))):
            record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "build": machine.build_of(site.pgshadow), "bytes": size}
            order = list(kinds)
            for name in order[number % len(order):] + order[:number % len(order)]:
                empty(site)
                seconds, used = kinds[name](site)
                record[f"{name}_s"] = round(seconds, 2)
                if used:
                    record[f"{name}_cpu_s"] = round(used, 2)
                rows = Psql(site.tools, site.target.port).run("SELECT count(*) FROM visits")
                if int(rows) != scale * 40_000:
                    raise Failure(f"{name} left {rows} visits")
            for name in order[1:]:
                record[f"{name}_ratio"] = round(record[f"{name}_s"] / record["pgshadow_s"], 2)
            with open(output, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            others = ", ".join(f"{name} {record[f'{name}_s']:.1f} s (ratio {record[f'{name}_ratio']:.2f})" for name in order[1:])
            print(f"{size / 1e6:,.0f} MB: pgshadow {record['pgshadow_s']:.1f} s ({record['pgshadow_cpu_s']:.1f} s of its CPU); {others}", flush=True)
    finally:
        site.close()
        shutil.rmtree(site.work, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"loads: {failure}")
