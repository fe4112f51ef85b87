#!/usr/bin/env bash
# What a running application feels of a backfill and of a verify, from their first second on: 20 s alone and 20 s with it, in turn.
# Its own first five seconds, in which it connects and prepares its statements, count for neither.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
pairs=${PAIRS:-9}
percentiles() {
    cat "$out"/latencies/pgbench_log* | awk -v from="$counted" '$5 + $6 / 1000000 >= from { print $3 }' | sort -n |
        awk '{ all[NR] = $1 } END { printf "%d %.2f %.2f\n", NR, all[int(NR * .5)] / 1000, all[int(NR * .99)] / 1000 }'
}
# Of two lines of percentiles the second by the first.
ratios() { awk 'NR == 1 { a = $1; b = $2; c = $3 } NR == 2 { printf "%.2f %.2f %.2f\n", $1 / a, $2 / b, $3 / c }'; }
make_tables
rate=$(half)
say "at $rate; each line: transactions, p50 and p99 in ms, alone and with it, and the ratios"
pgshadow backfill --create-schema > /dev/null 2>&1
for what in 'backfill --again' 'verify --again'; do
    for _ in $(seq "$pairs"); do
        sleep 2
        work -R "$rate" -T 25 -l > "$out/pgbench.out" 2>&1 &
        load=$!
        sleep 5
        counted=$(date +%s.%N)
        wait "$load"
        alone=$(percentiles)
        work -R "$rate" -T 25 -l > "$out/pgbench.out" 2>&1 &
        load=$!
        sleep 5
        counted=$(date +%s.%N)
        # shellcheck disable=SC2086 # arguments
        (while :; do pgshadow $what > "$out/felt.out" 2>&1 || sleep 1; done) &
        beside=$!
        wait "$load"
        with=$(percentiles)
        kill "$beside"
        pgshadow "${what%% *}" --stop > /dev/null 2>&1 || true
        wait "$beside" 2> /dev/null || true
        say "${what%% *}: $alone | $with | $(printf '%s\n%s\n' "$alone" "$with" | ratios)" | tee -a "$out/felt.lines"
    done
done
for what in backfill verify; do
    for column in 1 2 3; do
        grep " $what: " "$out/felt.lines" | sed 's/.*| //' | cut -d ' ' -f "$column" | sort -n |
            awk -v of="$what" -v column="$column" 'BEGIN { split("throughput,p50,p99", name, ",") }
                { all[NR] = $1 } END { printf "%s, %s with it by alone: median %s, from %s to %s\n", of, name[column], all[int((NR + 1) / 2)], all[1], all[NR] }'
    done
done
