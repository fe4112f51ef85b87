#!/bin/sh
# A large database under load: is it equal in the end, what does the application feel, and how long is the applier held? Results go to target/large/large.log; a part that
# stands there as done with the same program and size is not run again (LARGE_AGAIN=1 runs all; PARTS=equal:2 runs one, with 2 GB).
set -eu
cd "$(dirname "$0")/.."
: "${PGSHADOW_BIN:?}"
log=target/large/large.log
mkdir -p target/large
[ "${LARGE_AGAIN:-}" != 1 ] || rm -f "$log"
touch "$log"
program=$(cksum < "$PGSHADOW_BIN" | tr ' ' -)
failed=0
for part in ${PARTS:-equal:"${LARGE_GB:-10}" felt:"${FELT_GB:-2}" held:"${FELT_GB:-2}"}; do
    if grep -q "^done $program $part\$" "$log"; then
        echo "$part GB: done before"
        continue
    fi
    rm -f target/large/felt.lines
    # 10 GB by what a tenth leaves on two cores, where the load runs as well, would take more than an hour
    rise='"10%"'
    [ "${part%:*}" = felt ] || rise="\"${LARGE_RISE:-100%}\""
    if GB=${part#*:} ./target/debug/stage --set "backfill.latency_rise_max=$rise" --set "verify.latency_rise_max=$rise" -- bash "$PWD/scripts/large/${part%:*}.sh" > target/large/last.out 2> target/large/last.err; then
        result='done'
    else
        result=FAILED failed=1
    fi
    { echo "$part GB"; cat target/large/last.out; echo "$result $program $part"; } | tee -a "$log"
done
exit $failed
