"""The tables, made from the file of results."""

import os
import statistics

import frozen
import load as pgbench
from cell import FOREIGN_MAX
from servers import HERE, SCALE

TITLES = {
    "direct": "direct",
    "forwarder": "TCP forwarder",
    "pgbouncer": "PgBouncer (session)",
    "logical": "direct + logical replication",
    "off": "pgshadow, mirroring off",
    "os": "pgshadow, `os`",
    "images": "pgshadow, `fsync`, `statements = 0`",
    "fsync": "pgshadow, `fsync`",
}
MIRRORED = ("logical", "os", "images", "fsync")


def one_line(record):
    """A cell, for the log."""
    if "error" in record:
        return f"FAILED: {record['error']}"
    words = [f"{record['tps']:.0f} tps, p99 {record['p99_ms']:.1f} ms"]
    if record.get("proxy_us"):
        words.append(f"proxy {record['proxy_us']:.0f} us")
    if "source_us" in record:
        words.append(f"source {record['source_us']:.0f} us, target {record['target_us']:.0f} us")
    if "drain_s" in record:
        words.append(f"drained in {record['drain_s']:.1f} s")
    if "catch_up_s" in record:
        words.append(f"caught up in {record['catch_up_s']:.1f} s")
    if "equal" in record:
        words.append("equal" if record["equal"] else f"DIFFERS: {'; '.join(record['differences'])}")
    words += _blemishes(record)
    if record.get("foreign_share", 0) > 0.05:
        words.append(f"others used {record['foreign_share']:.0%} of the machine")
    return ", ".join(words)


def _blemishes(record):
    found = []
    for name in ("findings_open", "healed_rows", "failed"):
        if record.get(name):
            found.append(f"{name} {record[name]}")
    if record.get("suspect_tables"):
        found.append(f"suspect {len(record['suspect_tables'])}")
    if record.get("mirroring") is False and record.get("way") != "off":
        found.append("mirroring stopped")
    return found


def failures(results):
    """Cells that did not end as they should."""
    found = []
    for record in results.cells() + results.frozen():
        if "error" in record or record.get("equal") is False or _blemishes(record):
            found.append(record)
    return found


# ---- numbers --------------------------------------------------------------------------------------------------------


def _groups(results, kinds=False):
    """{(load, protocol, clients): {way: {repeat: record}}} in the order of the loads; those of one statement, or the others."""
    groups = {}
    for record in results.cells():
        if "tps" in record and (record["load"] in pgbench.KINDS) == kinds:
            group = groups.setdefault((record["load"], record["protocol"], record["clients"]), {})
            group.setdefault(record["way"], {})[record["repeat"]] = record
    protocols, loads = list(pgbench.PROTOCOLS), list(pgbench.LOADS)
    order = lambda item: (loads.index(item[0][0]), protocols.index(item[0][1]), item[0][2])
    return dict(sorted(groups.items(), key=order))


def _median(records, name):
    """Of the repeats that others did not disturb, if there are any."""
    records = [record for record in records if not disturbed(record)] or list(records)
    values = [record[name] for record in records if record.get(name) is not None]
    return statistics.median(values) if values else None


def _ratios(group, way, figure=lambda record: record["tps"]):
    """A figure as ratios to direct's in the same repeat, and whether others disturbed all of them.

    Repeats that were disturbed count only where there are no others.
    """
    base = group.get("direct", {})
    pairs = [(record, base[repeat]) for repeat, record in group.get(way, {}).items() if repeat in base]
    clean = [pair for pair in pairs if not any(map(disturbed, pair))]
    return [figure(record) / figure(direct) for record, direct in clean or pairs], not clean


def disturbed(record):
    """Whether others used so much of the machine that throughput says little."""
    return record.get("foreign_share", 0) > FOREIGN_MAX


def _ratio_text(ratios, doubtful=False):
    if not ratios:
        return "–"
    middle = f"{'~' if doubtful else ''}{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"


def _number(value, digits=0):
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


# ---- sections -------------------------------------------------------------------------------------------------------


def summary(results):
    """Throughput as a ratio to direct, all groups in one table."""
    groups = _groups(results)
    ways = [way for way in TITLES if way != "direct" and any(way in group for group in groups.values())]
    rows = []
    for (load, protocol, clients), group in groups.items():
        direct = _number(_median(group.get("direct", {}).values(), "tps"))
        row = [pgbench.LOADS[load].title, protocol, str(clients), direct]
        for way in ways:
            row.append(_ratio_text(*_ratios(group, way)))
        rows.append(row)
    head = ["load", "protocol", "clients", "direct, tps"] + [TITLES[way] for way in ways]
    return _table(head, rows)


def _total_us(record):
    """CPU of both servers and of the proxy."""
    return record["source_us"] + record["proxy_us"] + record["target_us"]


def _total_cost(results):
    """CPU of all but pgbench as a multiple of direct's, all groups in one table."""
    groups = _groups(results)
    ways = [way for way in TITLES if way != "direct" and any(way in group for group in groups.values())]
    rows = []
    for (load, protocol, clients), group in groups.items():
        base = group.get("direct", {})
        row = [pgbench.LOADS[load].title, protocol, str(clients)]
        row.append(_number(statistics.median(map(_total_us, base.values())) if base else None))
        for way in ways:
            row.append(_ratio_text(*_ratios(group, way, _total_us)))
        rows.append(row)
    return _table(["load", "protocol", "clients", "direct, µs"] + [TITLES[way] for way in ways], rows)


def _proxy_cost(results):
    """CPU of the proxy and of both servers, all groups in one table."""
    groups = _groups(results)
    rows = []
    for (load, protocol, clients), group in groups.items():
        row = [pgbench.LOADS[load].title, protocol, str(clients)]
        for way in ("forwarder", "pgbouncer", "off", "os", "images", "fsync"):
            row.append(_number(_median(group.get(way, {}).values(), "proxy_us")))
        for way in ("direct", "logical", "off", "fsync"):
            row.append(_number(_median(group.get(way, {}).values(), "source_us")))
        for way in ("logical", "os", "images", "fsync"):
            row.append(_number(_median(group.get(way, {}).values(), "target_us")))
        rows.append(row)
    head = ["load", "protocol", "clients"]
    head += [f"proxy: {name}" for name in ("forwarder", "PgBouncer", "off", "`os`", "`statements = 0`", "`fsync`")]
    head += [f"source: {name}" for name in ("direct", "logical", "off", "`fsync`")]
    head += [f"target: {name}" for name in ("logical", "`os`", "`statements = 0`", "`fsync`")]
    return _table(head, rows)


def _kinds(results):
    """What capture costs, by kind of statement."""
    groups = _groups(results, kinds=True)
    if not groups:
        return ""
    rows = []
    for (load, protocol, _), group in groups.items():
        row = [pgbench.LOADS[load].title, protocol, _number(_median(group.get("direct", {}).values(), "tps"))]
        row += [_ratio_text(*_ratios(group, way)) for way in pgbench.KIND_WAYS[1:]]
        row += [_number(_median(group.get(way, {}).values(), "source_us")) for way in pgbench.KIND_WAYS[:-1]]
        row.append(_ratio_text(*_ratios(group, "images", lambda record: record["source_us"])))
        row += [_number(_median(group.get(way, {}).values(), "proxy_us")) for way in ("off", "images")]
        rows.append(row)
    head = ["statement", "protocol", "direct, tps", "tps: off", "tps: `statements = 0`", "tps: `fsync`"]
    head += ["source, µs: direct", "source: off", "source: capture", "source: capture to direct"]
    head += ["proxy, µs: off", "proxy: capture"]
    return f"""## What capture costs, by kind of statement

8 clients, each statement a transaction of its own. *capture*: mirroring with `statements = 0`, durability `fsync`. Rates are
ratios to direct; CPU is microseconds a transaction.

{_table(head, rows)}

"""


def _lag_text(records):
    entries = [record["lag"].get("entries") for record in records if record.get("lag")]
    late = [record["lag"].get("ms") for record in records if record.get("lag")]
    size = [record["lag"].get("bytes") for record in records if record.get("lag")]
    if not late:
        return "–"
    if entries[0] is None:
        amount = f"{statistics.median(size) / 1024:.0f} KiB"
    else:
        amount = f"{statistics.median(entries):.0f} tx"
    return f"{amount}, {statistics.median(late):.0f} ms"


def _equal_text(records):
    told = [record["equal"] for record in records if "equal" in record]
    if not told:
        return "–"
    return f"{sum(told)} of {len(told)}"


def _detail(results):
    parts = []
    for (load, protocol, clients), group in _groups(results).items():
        rows = []
        for way in TITLES:
            if way not in group:
                continue
            records = list(group[way].values())
            peak = _median(records, "peak_kib")
            rows.append([
                TITLES[way],
                _number(_median(records, "tps")),
                "1" if way == "direct" else _ratio_text(*_ratios(group, way)),
                _number(_median(records, "latency_ms"), 2),
                _number(_median(records, "p99_ms"), 1),
                _number(_median(records, "proxy_us")) if peak is not None else "–",
                _number(_median(records, "source_us")),
                _number(_median(records, "target_us")) if way in MIRRORED else "–",
                "–" if peak is None else f"{peak / 1024:.0f}",
                _lag_text(records),
                _number(_median(records, "drain_s"), 1),
                _number(_median(records, "apply_per_s")),
                _equal_text(records),
            ])
        head = ["", "tps", "ratio", "average, ms", "p99, ms", "proxy, µs", "source, µs", "target, µs", "peak, MiB"]
        head += ["lag at the end", "drained, s", "applied/s", "equal"]
        title = f"### {pgbench.LOADS[load].title}, {protocol}, {clients} client{'s' if clients > 1 else ''}"
        parts.append(f"{title}\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _catch_up_rate(records):
    """Transactions a second when only the applier is at work; where there was something to catch up."""
    rates = [record["lag"]["entries"] / record["catch_up_s"] for record in records if record["catch_up_s"] > 0.5]
    return f"{statistics.median(rates):.0f}" if rates else "–"


def _frozen(results):
    by = {}
    for record in results.frozen():
        by.setdefault(record["variant"], {})[record["repeat"]] = record
    if not by:
        return ""
    rows = []
    for variant in frozen.VARIANTS:
        records = {repeat: record for repeat, record in by.get(variant, {}).items() if "tps" in record}
        failed = len(by.get(variant, {})) - len(records)
        healthy = by.get("healthy", {})
        ratios = [r["tps"] / healthy[n]["tps"] for n, r in records.items() if "tps" in healthy.get(n, ())]
        values = list(records.values())
        rows.append([
            variant, str(len(values)), str(failed), _number(_median(values, "tps")),
            "1" if variant == "healthy" else _ratio_text(ratios), _number(_median(values, "p99_ms"), 1),
            _lag_text(values), _number(_median(values, "catch_up_s"), 1), _catch_up_rate(values),
            f"{max((value['peak_kib'] for value in values), default=0) / 1024:.0f}", _equal_text(values),
        ])
    head = ["target", "runs", "client errors", "tps", "ratio to healthy", "p99, ms", "behind at the end",
            "caught up in, s", "applied/s then", "peak, MiB", "equal"]
    return (
        "## The target away\n\n"
        "TPC-B, prepared, 8 clients, 20 s, durability `fsync`, the three in turn. *Frozen*: all of the target's\n"
        f"processes are stopped (SIGSTOP) from {frozen.FROZEN[0]:.0%} of the time to the end of the load. *Killed*:\n"
        f"killed with -9 at {frozen.KILLED[0]:.0%} and started again at {frozen.KILLED[1]:.0%}. A frozen or dead\n"
        "target leaves its CPU to the rest, so ratios above 1 are no gain.\n\n" + _table(head, rows) + "\n"
    )


def _trust(results):
    cells = [record for record in results.cells() if "tps" in record]
    if not cells:
        return ""
    foreign = [record["foreign_share"] for record in cells]
    steal = [record["steal_share"] for record in cells]
    spread = []
    for group in _groups(results).values():
        base = [record["tps"] for record in group.get("direct", {}).values()]
        if len(base) > 1:
            spread.append((max(base) - min(base)) / statistics.median(base))
    lines = [
        f"- Others used {statistics.median(foreign):.1%} of the machine in the median cell, {max(foreign):.1%} in the\n"
        f"  worst; {sum(share > FOREIGN_MAX for share in foreign)} of {len(foreign)} cells had more than "
        f"{FOREIGN_MAX:.0%} at their last attempt. The\n"
        f"  hypervisor took {statistics.median(steal):.1%} (median), {max(steal):.1%} (worst)."
    ]
    if spread:
        lines.append(
            f"- Between repeats the throughput of `direct` itself varies by {statistics.median(spread):.0%} of its\n"
            f"  median (worst group {max(spread):.0%}): a single ratio is not better than that, the median of pairs is."
        )
    return "\n".join(lines)


def _failed(results):
    found = failures(results)
    if not found:
        return (
            "No cell failed; all tables were equal after each mirrored cell, with no finding, healed row or suspect\n"
            "table.\n"
        )
    lines = []
    for record in found:
        name = record.get("variant") or f"{record['load']}/{record['protocol']}/{record['clients']}/{record['way']}"
        lines.append(f"- {name}, repeat {record['repeat'] + 1}: {one_line(record)}")
    return f"{len(found)} of {len(results.records)} did not end as they should:\n\n" + "\n".join(lines) + "\n"


def _costs():
    path = os.path.join(HERE, "costs.md")
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read().strip() + "\n\n"


def markdown(results):
    """docs/performance.md"""
    here = results.machine
    bouncer = here["pgbouncer"] or "no PgBouncer"
    count = len([record for record in results.cells() if "tps" in record])
    return f"""\
<!-- Made by `make bench` from performance.jsonl and scripts/bench/costs.md; changes here are lost. -->
# Performance

What pgshadow costs, held against what else could stand in its place. `make bench` measures it again on your machine.

**How to read it.** Everything shares {here['cpus']} CPUs: pgbench, the proxy and both servers. Throughput ratios
therefore show the total CPU that a way takes, mirroring and the target's work included, not only the proxy's delay;
with more CPUs, or servers on machines of their own, ratios are nearer to 1. CPU microseconds a transaction are the
figure that can be taken to another machine.

## Throughput, as a ratio to direct

Median of the repeats (lowest–highest), each against `direct` of the same repeat. With a ~ in front: others used more
than {FOREIGN_MAX:.0%} of the machine in every repeat, so that it says little.

{summary(results)}

{_failed(results)}
## CPU, microseconds a transaction

User and system time of all processes, from the start of the load until the target has everything. *source: logical*
is a server with `wal_level = logical`.

{_proxy_cost(results)}

Both servers and the proxy together, as a multiple of `direct` in the same repeat:

{_total_cost(results)}

{_kinds(results)}{_costs()}{_frozen(results)}
## What was measured

- Machine: {here['cpu']}, {here['cpus']} CPUs, {here['memory_gib']} GiB, {here['system']}, Linux {here['kernel']};
  a write of 8 KiB and its sync take {here['sync_us']} µs (median, {here['file_system']}).
- Source PostgreSQL {here['source']}, target {here['target']}, {here['pgbench']}, {bouncer};
  pgshadow {here['commit']}, release build. Loopback TCP, no TLS, no passwords.
- Servers: `fsync = {here['fsync']}`, `synchronous_commit` on, `shared_buffers` 512MB, autovacuum off, no checkpoint
  within a cell, `wal_level = replica` but for logical replication.
- Loads: pgbench's TPC-B (7 round trips a transaction), `-N` (5) and `-S` (1) at scale {SCALE}; `order` (4):
  `BEGIN; UPDATE hot SET v = (v * 31 + x) % 1000003 WHERE id = ...` on 50 rows, `INSERT` into a table with a serial
  key, `COMMIT`. Unlike TPC-B's sums it does not commute: applied in another order, the rows differ.
- Ways: `direct`; a TCP forwarder (tokio, `copy_bidirectional`); PgBouncer in session mode; `direct` with PostgreSQL's
  logical replication to the same target; pgshadow with `mirror.enabled = false`, and with `mirror_log.durability`
  `os` and `fsync`.
- {count} cells of {here['seconds']} s. A repeat measures all ways of a load one after the other, in another order each
  time. Before each cell both databases are copied anew from a template and read into memory; the proxy is started anew.
- p99 from pgbench's log of all transactions (`-S`: a tenth). Peak memory is the proxy's VmHWM. Lag is asked for right
  after the load's end; then the time until the target has everything is measured (*drained*). *Applied/s* is
  transactions by load and drain time together, so at least what the applier can. CPU is counted until then.
- After each mirrored cell rows and checksums of all tables are compared on both servers by SQL, without pgshadow.
- Every repeat: [performance.jsonl](performance.jsonl).

## What to trust

{_trust(results)}
- A cell is measured once more if others used more than {FOREIGN_MAX:.0%} of the machine (not with `PATIENCE=0`).
  Differences below 0.05 are noise.
- Ten seconds show no checkpoint, no vacuum, no growth over hours.

## All figures

Medians of the repeats that others did not disturb, of all where there are none.

{_detail(results)}
"""
