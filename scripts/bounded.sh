#!/bin/sh
# pgshadow's memory in five large cases, one after the other. Results go to target/bounded/bounded.log; cases that stand there as
# sound with the same program are not run again (BOUNDED_AGAIN=1 runs all).
set -eu
cd "$(dirname "$0")/.."
: "${PGSHADOW_BIN:?}"
log=target/bounded/bounded.log
mkdir -p target/bounded
[ "${BOUNDED_AGAIN:-}" != 1 ] || rm -f "$log"
touch "$log"
program=$(cksum < "$PGSHADOW_BIN" | tr ' ' -)
failed=0
for case in a_transaction_of_many_rows a_large_copy a_client_that_does_not_read many_idle_connections a_target_that_is_away; do
    if grep -q "^sound $program $case\$" "$log"; then
        echo "$case: sound before"
        continue
    fi
    echo "$case: $(date -u '+%H:%M:%S')" | tee -a "$log"
    if PGSHADOW_BOUNDED=full cargo test -q -p integration-tests --test bounded -- --exact "$case" --nocapture > target/bounded/last.out 2>&1; then
        result=sound
    else
        result=FAILED failed=1
    fi
    grep -E 'MiB|KiB|drained|written|transactions' target/bounded/last.out | tee -a "$log"
    cp target/bounded/last.out "target/bounded/$case.out"
    echo "$result $program $case" | tee -a "$log"
done
exit $failed
