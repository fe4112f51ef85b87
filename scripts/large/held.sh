#!/usr/bin/env bash
# How long no lane applies for the two snapshots of a verify: of one small table, over and over, under a load of half of its maximum, right after a
# backfill of all, while both servers still write what it left.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
make_tables
load_at_half
pgshadow backfill --create-schema > /dev/null 2> "$out/backfill.err"
pgshadow wait drained --timeout 20min
for _ in $(seq "${VERIFIES:-50}"); do
    pgshadow verify --again --table public.settings --json
done > "$out/held.json"
grep -A 1 '"held_ms"' "$out/held.json" | grep -oE '[0-9]+\.[0-9]+' | sort -n |
    awk '{ all[NR] = $1 } END { printf "applier held, ms: p50 %.0f, max %.0f, of %d\n", all[int((NR + 1) / 2)], all[NR], NR }'
