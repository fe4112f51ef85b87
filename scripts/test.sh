#!/usr/bin/env bash
# All tests, two programs of them at a time: most wait for servers more than they compute. What fails is printed, whole.
# Called by `make test`, which builds everything first.
set -euo pipefail
cd "$(dirname "$0")/.."
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

# The longest ones first, so that none is left alone at the end. All of the workspace each time, or cargo would build its
# crates once more, with fewer of their features.
{
    printf '%s\n' --test\ {exactness,transparency,verify,backfill,bounded,torture,certificates,shadow,planted,left_out,large} '--lib --bins'
    for program in integration-tests/tests/*.rs crates/*/tests/*.rs; do basename "$program" .rs; done | sort | sed 's/^/--test /'
    for program in integration-tests/tests/*/main.rs crates/*/tests/*/main.rs; do
        [ ! -e "$program" ] || basename "$(dirname "$program")"
    done | sort | sed 's/^/--test /'
    echo --doc
} | awk '!seen[$0]++ { print "--workspace " $0 }' >"$output/programs"

run() {
    local log begun=$SECONDS
    log=$1/$(tr -dc '[:alnum:]_' <<<"$2").log
    # shellcheck disable=SC2086 # arguments
    if cargo test $2 >"$log" 2>&1; then
        echo "ok: cargo test $2: $(grep -c ' \.\.\. ok$' "$log") tests, $((SECONDS - begun)) s"
    else
        cat "$log"
        echo "FAILED: cargo test $2"
        return 1
    fi
}
export -f run
# shellcheck disable=SC2016 # expanded by the shell that is called
tr '\n' '\0' <"$output/programs" | xargs -0 -P "${TEST_JOBS:-2}" -I '{}' bash -c 'run "$0" "$1"' "$output" '{}'
