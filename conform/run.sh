#!/bin/sh
# PostgreSQL's suites, directly and through pgshadow, with mirroring off and on: the same tests must pass, and pgshadow's own
# counters must show that they went through it; what became suspect is listed. Called by `make conform`.
# usage: run.sh [stage's options]
set -eu
cd "$(dirname "$0")/.."

if [ -z "${CONFORM_SUITE:-}" ]; then
    failed=0
    for CONFORM_SUITE in regression isolation; do
        export CONFORM_SUITE
        # Each suite names its database in its expected results.
        case $CONFORM_SUITE in
        regression) database=regression ;;
        isolation) database=isolation_regression ;;
        esac
        # Starts the servers and pgshadow, and then this script again.
        for CONFORM_MIRRORING in off on; do
            export CONFORM_MIRRORING
            cargo run --quiet -p integration-tests --bin stage -- --mirroring "$CONFORM_MIRRORING" \
                --superuser --database "$database" "$@" -- conform/run.sh || failed=1
        done
    done
    exit "$failed"
fi

suite=$CONFORM_SUITE
PGBINDIR=$SOURCE_BINDIR
WORK=${WORK:-${TMPDIR:-/tmp}/pgshadow-conform-$(id -u)}
PREP=127.0.0.1:$SOURCE_PORT
export PGBINDIR WORK PREP

metrics() {
    if command -v curl >/dev/null 2>&1; then curl -sf "$1"; else wget -qO- "$1"; fi
}
frames() { # all that pgshadow has forwarded
    metrics "http://127.0.0.1:$ADMIN_PORT/metrics" |
        awk '{ split($1, part, "{") } part[1] == "pgshadow_frames_total" { sum += $2 } END { printf "%.0f\n", sum }'
}

mirroring=${CONFORM_MIRRORING:-off}
echo "== $suite, directly"
"conform/$suite.sh" 127.0.0.1 "$SOURCE_PORT" postgres "$STAGE_DATABASE" || echo "(not all pass on the server itself)"
if [ -z "${PROXY_PORT:-}" ]; then exit; fi

echo "== $suite, through pgshadow, mirroring $mirroring"
before=$(frames)
"conform/$suite.sh" 127.0.0.1 "$PROXY_PORT" postgres "$STAGE_DATABASE" || true
after=$(frames)
echo "frames through pgshadow: $((after - before))"
if ! diff "$WORK/out/$suite-$SOURCE_PORT/log.passed" "$WORK/out/$suite-$PROXY_PORT/log.passed"; then
    echo "$suite: not the same tests pass (<: only directly, >: only through pgshadow)"
    exit 1
fi
if [ "$after" -le "$before" ]; then
    echo "$suite: pgshadow forwarded nothing"
    exit 1
fi
if [ "$mirroring" = on ]; then
    echo "tables that became suspect, by reason:"
    metrics "http://127.0.0.1:$ADMIN_PORT/api/status" | "${PGSHADOW_PYTHON:-python3}" -c '
import collections, json, sys
reasons = collections.Counter(suspect["reason"] for suspect in json.load(sys.stdin)["suspect_tables"])
for reason, count in reasons.most_common():
    print(f"{count:6} {reason}")'
fi
