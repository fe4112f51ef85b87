"""The target frozen, or killed and started again, under load: clients must not notice, and then it catches up."""

import shutil
import tempfile
import time

import cell
import equal
import load as pgbench
import ways
from servers import DATABASE, Failure, reset

LOAD, PROTOCOL, CLIENTS = "tpcb", "prepared", 8
VARIANTS = ("healthy", "frozen", "killed")
# Shares of the load's time: from when to when the target is away.
FROZEN = (0.1, 1.0)
KILLED = (0.25, 0.5)
CATCH_UP_SECONDS = 600


def measure(site, way, variant, seconds):
    cell.quiet(site)
    reset(way.source, way.target)
    directory = tempfile.mkdtemp(prefix="frozen-", dir=site.work)
    try:
        way.source.dirty = way.target.dirty = True
        way.start(directory)
        try:
            return _run(site, way, variant, seconds, directory)
        finally:
            way.target.thaw()
            if way.target.process.poll() is not None:
                way.target.start()
            way.stop()
    except Failure as failure:
        return {"error": str(failure)}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(site, way, variant, seconds, directory):
    running = pgbench.start(site.tools, way.port, LOAD, PROTOCOL, CLIENTS, seconds, directory)
    start = time.monotonic()

    def sleep_until(share):
        time.sleep(max(0, start + share * seconds - time.monotonic()))

    if variant == "frozen":
        sleep_until(FROZEN[0])
        way.target.freeze()
    elif variant == "killed":
        sleep_until(KILLED[0])
        way.target.kill()
        sleep_until(KILLED[1])
        way.target.start()
    record = pgbench.finish(running, seconds)
    record["lag"] = way.lag()
    way.target.thaw()
    record["catch_up_s"] = round(ways.drained_in(way, CATCH_UP_SECONDS), 3)
    record["peak_kib"] = way.peak_memory_kib()
    record.update(way.facts())
    record.update(pgbench.latencies(directory))
    record["differences"], record["rows_compared"] = equal.differences(way.source, way.target, DATABASE)
    record["equal"] = not record["differences"]
    return record
