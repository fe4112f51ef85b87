#!/bin/sh
# PostgreSQL's own regression suite: psql and its scripts against HOST:PORT, the sources those of the server's version.
# Needs a superuser, and a server on this machine, since the suite reads and writes files there.
# usage: regression.sh HOST PORT USER DATABASE          more: suite.sh
. "$(dirname "$0")/suite.sh"
"$suites/sources.sh"
input=$WORK/pgsrc/src/test/regress
output=$WORK/out/regression-$port
rm -rf "$output"
mkdir -p "$output/results" "$output/testtablespace"
chmod -R 777 "$output"
recreate_database "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" \
    "bytea_output TO 'hex'" "timezone_abbreviations TO 'Default'"; do
    on_servers "$database" "ALTER DATABASE \"$database\" SET $setting"
done
cd "$output"
umask 000
selection=${TESTS:---schedule=$input/parallel_schedule}
# shellcheck disable=SC2086 # a list of tests
LC_ALL=C "$tools/regress/pg_regress" --bindir="$PGBINDIR" --dlpath="$WORK/pglib" --inputdir="$input" --outputdir="$output" \
    --host="$host" --port="$port" --user="$user" --use-existing --dbname="$database" $selection >"$output/log" 2>&1 </dev/null || true
summary "$output/log"
