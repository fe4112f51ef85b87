#!/usr/bin/env bash
# Under a load of half of its maximum: backfill, drained, verify; then, with the load stopped, both databases are compared without pgshadow.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
writes() { on_source -c "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables ORDER BY 1"; }
make_tables
load_at_half
sleep 5
writes > "$out/before"
begun=$SECONDS
pgshadow backfill --create-schema --json > "$out/backfill.json" 2> "$out/backfill.err"
say "backfill: $((SECONDS - begun)) s"
begun=$SECONDS
pgshadow wait drained --timeout 20min
say "drained: after $((SECONDS - begun)) s more"
few() { join -t '|' "$out/before" <(writes) | awk -F '|' '$3 > $2 && $3 - $2 < 10000 { printf "%s %d ", $1, $3 - $2 }'; }
for _ in $(seq 120); do [ -n "$(few)" ] || break; sleep 5; done
say "written meanwhile: $(join -t '|' "$out/before" <(writes) | awk -F '|' '$3 > $2 { printf "%s %d, ", $1, $3 - $2 }')"
[ "$(join -t '|' "$out/before" <(writes) | awk -F '|' '$3 > $2' | wc -l)" -ge 12 ] || { say "FAILED: the load doesn't write"; exit 1; }
left=$(few)
[ -z "$left" ] || { say "FAILED: written less than 10,000 times: $left"; exit 1; }
begun=$SECONDS
pgshadow verify > "$out/verify.out"
say "verify, under load: $((SECONDS - begun)) s. $(tail -1 "$out/verify.out")"
stop
wait "$load" || true
pgshadow wait drained --timeout 10min
pgshadow status | grep -E 'certificate|findings|suspect'
failed=0
for table in $(on_source -c "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"); do
    sums="SET TimeZone = 'UTC'; SELECT count(*), sum(hashtextextended(t::text, 0)::numeric), sum(hashtextextended(t::text, 7)::numeric) FROM ONLY $table t"
    here_sums=$(on_source -c "$sums") there_sums=$(on_target -c "$sums")
    if [ "$here_sums" = "$there_sums" ]; then
        echo "  equal: $table, ${here_sums%%|*} rows"
    else
        echo "  DIFFERS: $table, $here_sums, $there_sums"
        failed=1
    fi
done
exit "$failed"
