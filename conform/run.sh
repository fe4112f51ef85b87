#!/bin/sh
# One of PostgreSQL's suites, directly and through pgshadow: the same tests must pass, but for differences/,
# and pgshadow's own counters must show that they went through it; what became suspect and what was found is listed. Called by
# all.sh inside `stage`, with CONFORM_SUITE (regression, isolation) and CONFORM_MIRRORING (off, on).
set -eu
cd "$(dirname "$0")/.."

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
direct=$WORK/out/$suite-$SOURCE_PORT
failed=0
# First: pgshadow declares what is made past it.
if [ -n "${PROXY_PORT:-}" ]; then
    proxied=$WORK/out/$suite-$PROXY_PORT
    echo "== $suite, through pgshadow, mirroring $mirroring"
    before=$(frames)
    "conform/$suite.sh" 127.0.0.1 "$PROXY_PORT" postgres "$STAGE_DATABASE" || true
    after=$(frames)
    echo "frames through pgshadow: $((after - before))"
    if [ "$after" -le "$before" ]; then
        echo "$suite: pgshadow forwarded nothing"
        failed=1
    fi
    if [ "$mirroring" = on ]; then
        metrics "http://127.0.0.1:$ADMIN_PORT/api/status" >"$proxied/status.json"
        metrics "http://127.0.0.1:$ADMIN_PORT/api/report" >"$proxied/report.json"
        "${PGSHADOW_PYTHON:-python3}" conform/declared.py "$proxied/status.json" "$proxied/report.json"
    fi
    cp "$(dirname "$PGSHADOW_CONFIG")/pgshadow.log" "$proxied/" || true
fi

echo "== $suite, directly"
"conform/$suite.sh" 127.0.0.1 "$SOURCE_PORT" postgres "$STAGE_DATABASE" || echo "(not all pass on the server itself)"
if [ -z "${PROXY_PORT:-}" ]; then exit; fi

# How the output of a test through pgshadow differs from that directly, wherever in it.
difference() {
    diff "$direct/results/$1.out" "$proxied/results/$1.out" | grep '^[<>]' || true
}
for test in $(comm -23 "$direct/log.passed" "$proxied/log.passed"); do
    # Its reason, and the difference itself.
    expected=conform/differences/$suite/$test
    difference "$test" >"$proxied/$test.difference"
    if [ "$mirroring" = on ] && [ -e "$expected" ] && grep -v '^#' "$expected" | cmp -s - "$proxied/$test.difference"; then
        echo "$test differs as expected: $(sed -n 's/^# //p' "$expected" | tr '\n' ' ')"
    else
        echo "$test passes only directly (<), through pgshadow (>) it differs:"
        head -n 40 "$proxied/$test.difference"
        failed=1
    fi
done
for test in $(comm -13 "$direct/log.passed" "$proxied/log.passed"); do
    echo "$test passes only through pgshadow"
    failed=1
done
exit "$failed"
