"""The ways from pgbench to the database that are held against each other.

Each is started before a cell, says where to connect, knows its process, and can wait until the target has everything.
"""

import http.client
import json
import os
import shutil
import subprocess
import time

import account
from servers import CLEAN, DATABASE, Failure, Psql, as_account, end, free_port, tail, wait_for


class Way:
    """Straight to the source."""

    name = "direct"
    title = "direct"
    # Whether the target gets the writes.
    mirrored = False
    missing = None

    def __init__(self, site):
        self.site = site
        self.process = None

    @property
    def source(self):
        return self.site.source

    @property
    def target(self):
        return self.site.target

    @property
    def port(self):
        return self.source.port

    def start(self, directory):
        """Makes it ready; `directory` is empty and goes afterwards."""

    def stop(self):
        end(self.process)

    def cpu_us(self):
        return account.cpu_us(self.process.pid) if self.process else 0

    def peak_memory_kib(self):
        return account.peak_memory_kib(self.process.pid) if self.process else None

    def lag(self):
        """How far the target is behind, right after the load."""
        return {}

    def drain(self, seconds):
        """Waits until the target has all."""

    def facts(self):
        """What else it says of itself after the cell."""
        return {}

    def _spawn(self, words, directory, other=False):
        log = os.path.join(directory, "log")
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                as_account(other=other) + words, env=CLEAN, cwd=directory, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )
        return log


class Forwarder(Way):
    """Two copies of bytes, nothing else."""

    name = "forwarder"
    title = "TCP forwarder"
    port = 0

    def start(self, directory):
        self.port = free_port()
        words = [self.site.forwarder, f"127.0.0.1:{self.port}", f"127.0.0.1:{self.source.port}"]
        log = self._spawn(words, directory)
        _wait_for_queries(self, log)


class PgBouncer(Way):
    """Session mode, so that clients may do what they may do directly."""

    name = "pgbouncer"
    title = "PgBouncer, session mode"
    port = 0

    def start(self, directory):
        self.port = free_port()
        config = os.path.join(directory, "pgbouncer.ini")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                # With auth_type any the user is that of the connection string.
                f"[databases]\n{DATABASE} = host=127.0.0.1 port={self.source.port} user=app\n"
                f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
                "auth_type = any\npool_mode = session\ndefault_pool_size = 100\nmax_client_conn = 200\n"
                "log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n"
                "ignore_startup_parameters = extra_float_digits\n"
            )
        os.chmod(config, 0o644)
        log = self._spawn([self.site.pgbouncer, config], directory, other=True)
        _wait_for_queries(self, log)


class LogicalReplication(Way):
    """Directly, and PostgreSQL's own logical replication to the same target: what else a user would take."""

    name = "logical"
    title = "direct, logical replication"
    mirrored = True

    @property
    def source(self):
        return self.site.logical_source

    @property
    def port(self):
        return self.source.port

    def start(self, directory):
        self.source.psql.run("CREATE PUBLICATION bench FOR ALL TABLES;")
        connection = f"host=127.0.0.1 port={self.source.port} user=postgres dbname={DATABASE}"
        # Both sides start equal: nothing has to be copied.
        self.target.psql.run(
            "SET client_min_messages = error;"
            f"CREATE SUBSCRIPTION bench CONNECTION '{connection}' PUBLICATION bench WITH (copy_data = false);"
        )
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_for("logical replication", 30, lambda: self.source.psql.run(streaming) == "1")

    def stop(self):
        self.target.psql.run("SET client_min_messages = error; DROP SUBSCRIPTION IF EXISTS bench;")

    def lag(self):
        answer = self.source.psql.run(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), "
            "coalesce(extract(epoch FROM replay_lag) * 1000, 0) FROM pg_stat_replication"
        )
        behind, delay = answer.split("|")
        return {"bytes": int(float(behind)), "ms": round(float(delay))}

    def drain(self, seconds):
        self.source.psql.run(
            "DO $$ DECLARE wanted pg_lsn := pg_current_wal_lsn(); BEGIN "
            f"FOR i IN 1..{seconds * 100} LOOP "
            "IF (SELECT replay_lsn >= wanted FROM pg_stat_replication) THEN RETURN; END IF; "
            "PERFORM pg_sleep(0.01); END LOOP; RAISE EXCEPTION 'the subscription does not catch up'; END $$;",
            seconds=seconds + 30,
        )


class Pgshadow(Way):
    """pgshadow between the source and the target."""

    def __init__(self, site, name, title, mirror, durability="fsync", statements=1.0):
        super().__init__(site)
        self.name, self.title, self.mirrored, self.durability = name, title, mirror, durability
        self.statements = statements
        self.listen = self.admin = 0
        self.log = None

    @property
    def port(self):
        return self.listen

    def start(self, directory):
        self.listen, self.admin = free_port(), free_port()
        config = os.path.join(directory, "pgshadow.toml")
        url = "postgres://pgshadow@127.0.0.1:{}/" + DATABASE
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f'[listen]\naddress = "127.0.0.1:{self.listen}"\n'
                f'[admin]\naddress = "127.0.0.1:{self.admin}"\n'
                f'[source]\nurl = "{url.format(self.source.port)}"\n'
                f'[target]\nurl = "{url.format(self.target.port)}"\n'
                f'[mirror]\nenabled = {str(self.mirrored).lower()}\n'
                f'[mirror_log]\ndirectory = "data"\ndurability = "{self.durability}"\n'
                f'[compare]\nstatements = {self.statements}\n'
            )
        self.log = self._spawn([self.site.pgshadow, "run", "-c", config], directory)
        try:
            wait_for("pgshadow", 30, lambda: self._get("/readyz")[0] == 200, self.process)
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.log)}") from None

    def stop(self):
        end(self.process)
        if self.process and self.process.returncode not in (0, None):
            raise Failure(f"pgshadow ended with {self.process.returncode}\n{tail(self.log)}")

    def _get(self, path, seconds=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self):
        return json.loads(self._get("/api/status")[1])

    def lag(self):
        return self.status()["lag"] if self.mirrored else {}

    def drain(self, seconds):
        if not self.mirrored:
            return
        code, body = self._get(f"/api/wait/drained?timeout_ms={seconds * 1000}", seconds + 10)
        if code != 200:
            raise Failure(f"not drained within {seconds} s: {body}\n{tail(self.log)}")

    def facts(self):
        status = self.status()
        complaints = []
        with open(self.log, encoding="utf-8", errors="replace") as file:
            for line in file:
                if " WARN" in line or " ERROR" in line or "panicked at" in line:
                    complaints.append(line.strip())
        return {
            "findings_open": status["findings_open"],
            "healed_rows": status["healed_rows"],
            "suspect_tables": status["suspect_tables"],
            "mirroring": status["mirroring"],
            "counters": status.get("counters"),
            "complaints": len(complaints),
            "first_complaints": complaints[:3],
            "metrics": self._metrics(),
        }

    def _metrics(self):
        """Counters and the sums of histograms, over all labels."""
        wanted = ("log_fsyncs_total", "log_appends_total", "log_appended_bytes_total", "log_fsync_seconds_sum",
                  "log_append_wait_seconds_sum", "log_append_wait_seconds_count", "apply_batch_seconds_sum",
                  "apply_batch_seconds_count", "apply_batch_entries_sum", "transactions_applied_total",
                  "rows_applied_total", "statements_rewritten_total", "apply_retries_total", "mirror_delay_seconds_sum",
                  "mirror_delay_seconds_count", "transactions_in_doubt_total")
        found = {}
        for line in self._get("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].removeprefix("pgshadow_")
            if name in wanted:
                found[name] = round(found.get(name, 0) + float(value), 6)
        return found


def _wait_for_queries(way, log):
    psql = Psql(way.site.tools, way.port)
    try:
        wait_for(way.title, 30, lambda: psql.run("SELECT 1", DATABASE, "app") == "1", way.process)
    except Failure as failure:
        raise Failure(f"{failure}\n{tail(log)}") from None


def all_ways(site):
    """In the order of the tables."""
    ways = [
        Way(site),
        Forwarder(site),
        PgBouncer(site),
        LogicalReplication(site),
        Pgshadow(site, "off", "pgshadow, mirroring off", False),
        Pgshadow(site, "os", "pgshadow, durability os", True, "os"),
        Pgshadow(site, "images", "pgshadow, durability fsync, statements = 0", True, "fsync", 0.0),
        Pgshadow(site, "fsync", "pgshadow, durability fsync", True, "fsync"),
    ]
    if not site.pgbouncer:
        ways[2].missing = "PgBouncer is not installed"
    return ways


def find_pgbouncer(root, work):
    """The program, where the servers' account can run it."""
    for path in (shutil.which("pgbouncer"), "/usr/sbin/pgbouncer", os.path.join(root, ".deps/pgbouncer/pgbouncer")):
        if not path or not os.path.exists(path):
            continue
        if _runs(path):
            return path
        copy = os.path.join(work, "pgbouncer")
        shutil.copytree(os.path.dirname(path), copy) if ".deps" in path else None
        if _runs(os.path.join(copy, "pgbouncer")):
            return os.path.join(copy, "pgbouncer")
    return None


def _runs(path):
    try:
        done = subprocess.run(as_account() + [path, "--version"], capture_output=True, text=True, env=CLEAN, cwd="/")
    except OSError:
        return False
    return done.returncode == 0


def drained_in(way, seconds):
    """Seconds until the target had all."""
    start = time.monotonic()
    way.drain(seconds)
    return time.monotonic() - start
