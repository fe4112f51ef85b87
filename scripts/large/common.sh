#!/usr/bin/env bash
# What both parts share; read by them, in a stage. GB: the size of the database.
set -euo pipefail
here=$(dirname "$0")
out=$PWD/target/large
export PGPASSWORD=app PATH="$SOURCE_BINDIR:$PATH"
say() { echo "$(date +%T) $*"; }
on() { local port=$1 && shift && psql -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U app "$@" app; }
on_source() { on "$SOURCE_PORT" "$@"; }
on_target() { on "$TARGET_PORT" "$@"; }
pgshadow() { "$PGSHADOW_BIN" -c "$PGSHADOW_CONFIG" "$@"; }
# The load, through pgshadow; its own log of latencies goes to a directory of its own.
work() {
    rm -rf "$out/latencies" && mkdir -p "$out/latencies"
    (cd "$out/latencies" && exec pgbench -n -h 127.0.0.1 -p "$PROXY_PORT" -U app -M prepared -c 8 -j 2 \
        -D warehouses=$((GB * 66 / 10)) -D documents=$((GB * 200000)) -f "$here/work.sql" "$@" app)
}
make_tables() {
    on_source -v gb="$GB" -f "$here/schema.sql"
    say "size and tables: $(on_source -c "SELECT pg_size_pretty(pg_database_size('app')), count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")"
}
# Half of the scripts a second that it can do.
half() {
    local most
    most=$(work -T 15 2>&1 | sed -n 's/^tps = \([0-9]*\).*/\1/p')
    say "at its maximum $most scripts a second" >&2
    echo $((most / 2))
}
# The load at half of its maximum, until `stop`.
load_at_half() {
    local rate
    rate=$(half)
    say "at $rate"
    work -R "$rate" -T 20000 > "$out/pgbench.out" 2>&1 &
    load=$!
    trap stop EXIT
}
stop() { pkill -TERM -P "$load" 2> /dev/null || true; }
