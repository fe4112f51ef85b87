"""Measures one cell: one load, protocol and number of clients, one way."""

import os
import shutil
import tempfile
import time

import account
import equal
import load as pgbench
import ways
from servers import DATABASE, Failure, reset

DRAIN_SECONDS = 300
# Of the machine, by others than us: more than this and the cell is measured again.
FOREIGN_MAX = 0.10


def measure(site, way, load, protocol, clients, seconds):
    """The record of a cell. What went wrong is in it, under `error`."""
    for attempt in range(2 if site.patience > 0 else 1):
        quiet(site)
        try:
            record = _once(site, way, load, protocol, clients, seconds)
        except Failure as failure:
            return {"error": str(failure)}
        record["attempt"] = attempt + 1
        if record["foreign_share"] <= FOREIGN_MAX:
            break
    return record


def quiet(site):
    """Waits a while for a machine that does nothing else."""
    deadline = time.monotonic() + site.patience
    while time.monotonic() < deadline:
        start, busy = time.monotonic(), account.busy_us()
        time.sleep(0.5)
        if (account.busy_us() - busy) / 1e6 / (time.monotonic() - start) / os.cpu_count() < FOREIGN_MAX:
            return


def _once(site, way, load, protocol, clients, seconds):
    writes = pgbench.LOADS[load].writes
    reset(*([way.source, way.target] if way.mirrored else [way.source]))
    directory = tempfile.mkdtemp(prefix="cell-", dir=site.work)
    os.chmod(directory, 0o755)
    try:
        way.source.dirty = way.source.dirty or writes
        way.target.dirty = way.target.dirty or way.mirrored
        way.start(directory)
        try:
            return _run(site, way, load, protocol, clients, seconds, directory)
        finally:
            way.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(site, way, load, protocol, clients, seconds, directory):
    before = _costs(way)
    running = pgbench.start(site.tools, way.port, load, protocol, clients, seconds, directory)
    record = pgbench.finish(running, seconds)
    record.update(_after(way, before, record["transactions"], seconds))
    record.update(pgbench.latencies(directory))
    return record


def _costs(way):
    return {
        "time": time.monotonic(),
        "busy": account.busy_us(),
        "steal": account.steal_us(),
        "bench": account.own_us(),
        "proxy": way.cpu_us(),
        "source": account.cpu_us(way.source.process.pid),
        "target": account.cpu_us(way.target.process.pid),
    }


def _after(way, before, transactions, seconds):
    """What the load cost, its mirroring included; whether both sides are equal."""
    lag = way.lag()
    after = _costs(way)
    record = {}
    if way.mirrored:
        drain = ways.drained_in(way, DRAIN_SECONDS)
        loaded, after = after, _costs(way)
        record["lag"] = lag
        record["drain_s"] = round(drain, 3)
        record["apply_per_s"] = round(transactions / (seconds + drain), 1)
        # While clients were there; the rest was done while draining.
        for name in ("proxy", "source", "target"):
            record[f"{name}_us_at_end"] = round((loaded[name] - before[name]) / max(transactions, 1), 2)
    for name in ("proxy", "source", "target", "bench"):
        record[f"{name}_us"] = round((after[name] - before[name]) / max(transactions, 1), 2)
    machine = (after["time"] - before["time"]) * 1e6 * os.cpu_count()
    own = sum(after[name] - before[name] for name in ("proxy", "source", "target", "bench"))
    record["foreign_share"] = round(max(0, after["busy"] - before["busy"] - own) / machine, 4)
    record["busy_share"] = round((after["busy"] - before["busy"]) / machine, 4)
    record["steal_share"] = round((after["steal"] - before["steal"]) / machine, 4)
    record["peak_kib"] = way.peak_memory_kib()
    record.update(way.facts())
    if way.mirrored:
        record["differences"], record["rows_compared"] = equal.differences(way.source, way.target, DATABASE)
        record["equal"] = not record["differences"]
    return record
