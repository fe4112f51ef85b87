"""Throw-away PostgreSQL servers, and processes that end with the benchmark."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

import account

HERE = os.path.dirname(os.path.abspath(__file__))
DATABASE = "bench"
TEMPLATE = "bench_template"
SCALE = 10
# Without what the caller's environment tells libpq or pgshadow.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PG", "PGSHADOW__")) and name not in ("RUST_LOG", "LD_PRELOAD")
}
ENVIRONMENT = {**CLEAN, "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"}


class Failure(Exception):
    """Something that the benchmark needs does not work."""


def unprivileged():
    """The account that servers run as when this is root: they refuse to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise Failure("root needs an account 'postgres' or 'nobody' to run servers as")


ACCOUNT = unprivileged()


def as_account(ends_by="TERM", other=True):
    """Words before a command: another account for root, and a signal for it when the benchmark dies."""
    if not shutil.which("setpriv"):
        if ACCOUNT and other:
            raise Failure("root needs setpriv (util-linux) to run servers as another account")
        return []
    words = ["setpriv", f"--pdeathsig={ends_by}"]
    if ACCOUNT and other:
        words += [f"--reuid={ACCOUNT.pw_uid}", f"--regid={ACCOUNT.pw_gid}", "--clear-groups"]
    return words + ["--"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, seconds, ready, process=None):
    """Returns what `ready` gives as soon as that is true; it may raise OSError or Failure until then."""
    deadline = time.monotonic() + seconds
    reason = None
    while time.monotonic() < deadline:
        if process and process.poll() is not None:
            raise Failure(f"{what}: it ended with {process.returncode}")
        try:
            value = ready()
            if value:
                return value
        except (OSError, Failure) as error:
            reason = error
        time.sleep(0.02)
    raise Failure(f"{what}: not within {seconds} s: {reason}")


def end(process, by=signal.SIGTERM, seconds=30):
    """Ends an own process."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(by)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Psql:
    """psql against one port."""

    def __init__(self, bindir, port):
        self.program = os.path.join(bindir, "psql")
        self.port = port

    def start(self, sql, database=DATABASE, user="postgres"):
        words = [self.program, "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        process = subprocess.Popen(
            [*words, "-U", user, "-d", database, "-f", "-"],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        process.stdin.write(sql)
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process, seconds=300):
        out, err = process.communicate(timeout=seconds)
        if process.returncode != 0:
            raise Failure(f"psql on port {self.port}: {err.strip()}")
        return out.strip()

    def run(self, sql, database=DATABASE, user="postgres", seconds=300):
        return self.finish(self.start(sql, database, user), seconds)


def reset(*clusters):
    """`bench` as it was at first, on all of them at a time."""
    running = [(cluster, cluster.start_reset()) for cluster in clusters]
    for cluster, process in running:
        if process:
            cluster.psql.finish(process)
            cluster.dirty = False


class Cluster:
    """A server with its own data directory below `work`."""

    def __init__(self, name, bindir, tools, work, settings):
        self.name, self.bindir, self.tools, self.settings = name, bindir, tools, settings
        self.directory = os.path.join(work, name)
        self.data = os.path.join(self.directory, "data")
        self.log = os.path.join(self.directory, "postgresql.log")
        self.port = free_port()
        self.psql = Psql(tools, self.port)
        self.process = None
        # Whether `bench` may differ from its template.
        self.dirty = True
        version = subprocess.run([os.path.join(bindir, "postgres"), "--version"], capture_output=True, text=True)
        self.version = re.search(r"\d[\w.]*", version.stdout).group()
        self.major = int(re.match(r"\d+", self.version).group())

    def create(self):
        os.makedirs(self.directory)
        if ACCOUNT:
            os.chown(self.directory, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        initdb = [os.path.join(self.bindir, "initdb"), "-D", self.data, "-U", "postgres", "-E", "UTF8"]
        initdb += ["--locale=C.UTF-8", "--auth=trust", "--no-sync"]
        environment = ENVIRONMENT | {"HOME": "/tmp"}
        done = subprocess.run(
            as_account() + initdb, env=environment, cwd=self.directory, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Failure(f"initdb: {done.stderr.strip()}")
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a", encoding="utf-8") as file:
            for name, value in self.settings.items():
                file.write(f"{name} = '{value}'\n")
        self.start()
        roles = "CREATE ROLE app LOGIN; CREATE ROLE pgshadow LOGIN; GRANT app, pg_monitor TO pgshadow;"
        if self.major >= 15:
            roles += "GRANT SET ON PARAMETER session_replication_role TO pgshadow;"
        self.psql.run(roles, "postgres")
        self.psql.run(f"CREATE DATABASE {TEMPLATE} OWNER app;", "postgres")
        pgbench = [os.path.join(self.tools, "pgbench"), "-i", "-q", "-s", str(SCALE), "-h", "127.0.0.1"]
        pgbench += ["-p", str(self.port), "-U", "app", TEMPLATE]
        done = subprocess.run(pgbench, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"pgbench -i: {done.stderr.strip()}")
        with open(os.path.join(HERE, "schema.sql"), encoding="utf-8") as file:
            self.psql.run(file.read(), TEMPLATE, "app")
        self.psql.run("VACUUM (FREEZE, ANALYZE);", TEMPLATE)

    def start(self):
        postgres = [os.path.join(self.bindir, "postgres"), "-D", self.data, "-p", str(self.port)]
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                as_account("INT") + postgres, env=ENVIRONMENT | {"HOME": "/tmp"}, cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        ready = lambda: self.psql.run("SHOW data_directory", "postgres") == self.data
        try:
            wait_for(f"PostgreSQL {self.version}", 60, ready, self.process)
        except Failure as failure:
            raise Failure(f"{failure}\n{tail(self.log)}") from None

    def stop(self):
        self.thaw()
        end(self.process, signal.SIGINT)

    def start_reset(self):
        """Makes `bench` again as it was at first; a psql to be waited for, or nothing where it is so already."""
        if not self.dirty:
            return None
        copy = " STRATEGY file_copy" if self.major >= 15 else ""
        return self.psql.start(
            f"SET client_min_messages = error; DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE);\n"
            f"CREATE DATABASE {DATABASE} OWNER app TEMPLATE {TEMPLATE}{copy};\n"
            f"GRANT CREATE ON DATABASE {DATABASE} TO pgshadow;\n"
            f"\\connect {DATABASE}\n"
            # Into memory.
            "SELECT sum(abalance) FROM pgbench_accounts; SET enable_seqscan = off;"
            "SELECT count(*) FROM pgbench_accounts WHERE aid > 0;",
            "postgres",
        )

    def _signal(self, name):
        postmaster = self.process.pid
        for pid in account.tree(postmaster):
            try:
                os.kill(pid, name)
            except ProcessLookupError:
                pass

    def freeze(self):
        """As a machine that hangs: connections stay open, nothing answers."""
        os.kill(self.process.pid, signal.SIGSTOP)
        self._signal(signal.SIGSTOP)

    def thaw(self):
        if self.process and self.process.poll() is None:
            self._signal(signal.SIGCONT)

    def kill(self):
        """As a crash."""
        self._signal(signal.SIGKILL)
        self.process.wait()


def tail(path, lines=20):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""
