#!/usr/bin/env bash
# All of `make conform`, one part after the other. It takes hours, so what is done is kept: called again on the same commit it goes
# on with the part where it was. FRESH=1 begins anew. The log of each part is in target/conform.
# shellcheck disable=SC2329 # `part` calls them
set -euo pipefail
cd "$(dirname "$0")/.."
log=target/conform
commit=$(git rev-parse HEAD)$(git diff HEAD | cksum | tr ' ' -)
if [ -n "${FRESH:-}" ] || [ "$(cat "$log/commit" 2>/dev/null)" != "$commit" ]; then
    rm -rf "$log"
fi
mkdir -p "$log"
echo "$commit" >"$log/commit"

failed=0
part() {
    local name=$1 begun=$SECONDS
    shift
    if [ -e "$log/$name.ok" ]; then
        echo "$name: done before"
        return
    fi
    if "$@" >"$log/$name.log" 2>&1; then
        touch "$log/$name.ok"
        echo "$name: ok, $((SECONDS - begun)) s"
    else
        failed=1
        tail -n 60 "$log/$name.log"
        echo "$name: FAILED, $((SECONDS - begun)) s; whole: $log/$name.log"
    fi
}

suite() {
    local database=regression
    [ "$1" = regression ] || database=isolation_regression
    CONFORM_SUITE=$1 CONFORM_MIRRORING=$2 cargo run --quiet -p integration-tests --bin stage -- \
        --mirroring "$2" --superuser --database "$database" -- conform/run.sh
}
for suite in regression isolation; do
    for mirroring in off on; do part "$suite-$mirroring" suite "$suite" "$mirroring"; done
done

repeated() {
    PGSHADOW_REPEATS=20 cargo test -p integration-tests --test "$1" -- --include-ignored --test-threads=1
}
for program in integration-tests/tests/*.rs integration-tests/tests/*/main.rs; do
    name=$(basename "$program" .rs)
    [ "$name" != main ] || name=$(basename "$(dirname "$program")")
    part "tests-$name" repeated "$name"
done

on_12() {
    PGSHADOW_PG_OLD_BINDIR=$(printf '%s\n' "$PGSHADOW_PG_SERVERS" | sed -n 's/^12=//p') \
        PGSHADOW_REPEATS=2 cargo test -p integration-tests --test transparency
}
part transparency-on-12 on_12
exit "$failed"
