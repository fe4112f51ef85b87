"""One run of pgbench."""

import collections
import glob
import os
import re
import subprocess

from servers import DATABASE, ENVIRONMENT, HERE, Failure, as_account

Load = collections.namedtuple("Load", "name title words writes")


def _kind(name, title):
    return Load(name, title, ["-f", os.path.join(HERE, "kinds", name + ".sql")], True)


# One statement a transaction, but for those that would come to an end: two.
KINDS = {
    load.name: load
    for load in (
        _kind("insert", "INSERT of a row"),
        _kind("insert-wide", "INSERT of a row of 2 KiB"),
        _kind("insert-10", "INSERT of 10 rows"),
        _kind("insert-select-100", "INSERT ... SELECT of 100 rows"),
        _kind("insert-child", "INSERT of a row that refers to another"),
        _kind("upsert", "INSERT ... ON CONFLICT DO UPDATE"),
        _kind("update", "UPDATE of a row"),
        _kind("update-100", "UPDATE of 100 rows"),
        _kind("update-join", "UPDATE by a join"),
        _kind("update-key", "UPDATE of a key, and back"),
        _kind("update-keyless", "UPDATE without a key"),
        _kind("update-trigger", "UPDATE with a BEFORE trigger"),
        _kind("update-partition", "UPDATE of a partitioned table"),
        _kind("queue", "UPDATE of what FOR UPDATE SKIP LOCKED finds"),
        _kind("delete-insert", "DELETE of a row, and INSERT"),
    )
}
# What capture costs is told by these.
KIND_WAYS = ("direct", "off", "images", "fsync")

LOADS = {
    load.name: load
    for load in (
        Load("tpcb", "TPC-B", ["-b", "tpcb-like"], True),
        Load("order", "order", ["-f", os.path.join(HERE, "order.sql")], True),
        Load("simple-update", "-N", ["-b", "simple-update"], True),
        Load("select", "-S", ["-b", "select-only"], False),
    )
} | KINDS
PROTOCOLS = ("prepared", "extended", "simple")
CLIENTS = (1, 8, 64)


def words(tools, port, load, protocol, clients, seconds):
    return [
        os.path.join(tools, "pgbench"), "-n", "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)),
        "-T", str(seconds), "-h", "127.0.0.1", "-p", str(port), "-U", "app", *LOADS[load].words, DATABASE,
    ]


def start(tools, port, load, protocol, clients, seconds, directory):
    """Starts pgbench; its log of transactions goes to `directory`."""
    # Every transaction of a writing load is logged; of reads, of which there are tens of thousands a second, a share.
    rate = [] if LOADS[load].writes else ["--sampling-rate=0.1"]
    command = words(tools, port, load, protocol, clients, seconds)
    command[1:1] = ["-l", *rate, "--log-prefix", os.path.join(directory, "transactions")]
    return subprocess.Popen(
        as_account(other=False) + command, env=ENVIRONMENT, cwd=directory, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )


def finish(process, seconds):
    """What pgbench says at its end. Fails where a client got an error."""
    try:
        out, err = process.communicate(timeout=seconds * 3 + 120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failure(f"pgbench hangs: not done after {seconds * 3 + 120} s") from None
    if process.returncode != 0:
        raise Failure(f"pgbench ended with {process.returncode}: {' / '.join(err.strip().splitlines()[-6:])}")
    return {
        "tps": _number(out, r"^tps = ([\d.]+)"),
        "transactions": int(_number(out, r"^number of transactions actually processed: (\d+)")),
        "failed": int(_number(out, r"^number of failed transactions: (\d+)") or 0),
        "latency_ms": _number(out, r"^latency average = ([\d.]+) ms"),
    }


def latencies(directory):
    """From pgbench's log. Read when nothing is measured any more."""
    ordered = sorted(_latencies_us(directory))
    return {
        "p50_ms": _share(ordered, 0.50),
        "p99_ms": _share(ordered, 0.99),
        "max_ms": _share(ordered, 1.0),
        "latencies": len(ordered),
    }


def _number(text, pattern):
    found = re.search(pattern, text, re.MULTILINE)
    return float(found.group(1)) if found else None


def _latencies_us(directory):
    for path in glob.glob(os.path.join(directory, "transactions.*")):
        with open(path, encoding="ascii") as file:
            for line in file:
                # client, transaction, microseconds, script, time
                word = line.split(" ", 3)[2]
                if word.isdigit():
                    yield int(word)


def _share(ordered, share):
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000
