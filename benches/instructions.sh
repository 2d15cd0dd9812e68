#!/usr/bin/env bash
# Instructions per request of the scenarios in benches/scenarios, counted by valgrind: what else the machine does has no
# part in it. Two runs of each scenario differ in their number of requests; the difference of their counts, over the
# difference of their requests, leaves the start of the program out.
#
#   cargo build --release && benches/instructions.sh [PART-OF-A-NAME]
#
# FORERUN: the binary (default target/release/forerun). FORERUN_SHARED: the folder with the Mooncake trace, if at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
forerun=${FORERUN:-${CARGO_TARGET_DIR:-target}/release/forerun}
few=4000 many=12000
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 1; }
[ -x "$forerun" ] || { echo "$forerun is not there: run \`cargo build --release\`, or set FORERUN" >&2; exit 1; }

# Instructions of one run of `forerun simulate` with the given arguments.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$forerun" simulate "$@" --format json 2>&1 >/dev/null |
        awk '/Collected :/ {print $NF}'
}

printf '| %-22s | %16s | %16s |\n' scenario "start, millions" instructions/req
echo '|---|---:|---:|'
for file in benches/scenarios/*"${1:-}"*.yaml; do
    name=$(basename "$file" .yaml)
    trace=()
    if [ "$name" = mooncake ]; then
        log=${FORERUN_SHARED:-}/traces/mooncake/conversation_trace.jsonl.gz
        [ -f "$log" ] || { echo "mooncake: left out, no $log" >&2; continue; }
        trace=(--trace "$log")
    fi
    a=$(count "$file" "${trace[@]}" --set workload.requests=$few)
    b=$(count "$file" "${trace[@]}" --set workload.requests=$many)
    awk -v name="$name" -v a="$a" -v b="$b" -v few="$few" -v many="$many" 'BEGIN {
        each = (b - a) / (many - few)
        printf "| %-22s | %16.1f | %16.0f |\n", name, (a - few * each) / 1e6, each
    }'
done
