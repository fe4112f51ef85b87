#!/bin/sh
# PostgreSQL's isolation suite: several sessions whose steps are interleaved on purpose. It takes each session's process id
# from BackendKeyData, so it passes through a proxy only if that hands on the real one.
# usage: isolation.sh HOST PORT USER DATABASE          more: suite.sh
. "$(dirname "$0")/suite.sh"
"$suites/sources.sh"
input=$WORK/pgsrc/src/test/isolation
output=$WORK/out/isolation-$port
rm -rf "$output"
mkdir -p "$output"
chmod 777 "$output"
recreate_database "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
for setting in "lc_messages TO 'C'" "bytea_output TO 'hex'"; do
    on_servers "$database" "ALTER DATABASE \"$database\" SET $setting"
done
cd "$output"
selection=${TESTS:---schedule=$input/isolation_schedule}
# shellcheck disable=SC2086 # a list of tests
PGISOLATIONTIMEOUT=${PGISOLATIONTIMEOUT:-15} LC_ALL=C "$tools/isolation/pg_isolation_regress" --bindir="$PGBINDIR" \
    --dlpath="$WORK/pglib" --inputdir="$input" --outputdir="$output" --launcher= \
    --host="$host" --port="$port" --user="$user" --use-existing --dbname="$database" $selection >"$output/log" 2>&1 </dev/null || true
summary "$output/log"
