#!/usr/bin/env bash
# All tests, two programs of them at a time: most wait for servers more than they compute. What fails is printed, whole.
# Called by `make test`, which builds everything first.
set -euo pipefail
cd "$(dirname "$0")/.."
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

# What was built, a line each: name, directory of its package, program. Started without cargo, which takes a second to see
# that nothing has to be built. (All of the workspace, or cargo would build its crates once more, with fewer features.)
cargo test --workspace --no-run --message-format=json 2>"$output/built.log" >"$output/built" || {
    cat "$output/built.log"
    exit 1
}
artifact='"manifest_path":"\([^"]*\)/Cargo.toml","target":{"kind":\[[^]]*\],"crate_types":\[[^]]*\],"name":"\([^"]*\)"'
sed -n 's|.*'"$artifact"'.*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*|\2\t\1\t\3|p' "$output/built" | sort >"$output/all"
[ "$(wc -l <"$output/all")" -gt 50 ] || {
    echo "cargo tells of too few tests: $(cat "$output/all")"
    exit 1
}
tab=$'\t'
# The longest ones first, so that none is left alone at the end.
{
    for name in exactness transparency verify backfill bounded torture certificates flip left_out flip_gates shadow planted large; do
        grep "^$name$tab" "$output/all"
    done
    cat "$output/all"
    printf 'doc\t.\tdoc\n'
} | awk '!seen[$0]++' >"$output/programs"

run() {
    local name package program command log begun=$SECONDS
    IFS=$'\t' read -r name package program <<<"$2"
    log=$1/${program##*/}.log
    command=("$program")
    [ "$name" != doc ] || command=(cargo test --workspace --doc)
    if (cd "$package" && "${command[@]}") >"$log" 2>&1; then
        echo "ok: $name: $(grep -c ' \.\.\. ok$' "$log") tests, $((SECONDS - begun)) s"
    else
        cat "$log"
        echo "FAILED: $name"
        return 1
    fi
}
export -f run
# shellcheck disable=SC2016 # expanded by the shell that is called
tr '\n' '\0' <"$output/programs" | xargs -0 -P "${TEST_JOBS:-2}" -I '{}' bash -c 'run "$0" "$1"' "$output" '{}'
