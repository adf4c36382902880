#!/bin/sh
# compute-sanitizer over every own kernel of the device cuda:  tests/kernels/sanitize.sh BUILD_DIR [TOOL...]
#
# Tools are memcheck, racecheck, synccheck (default: these three) and initcheck; each looks at all that test_cuda and
# test_cuda_bf16 launch, the libraries' kernels too, since memory that is too small for those would be our fault.
# racecheck and initcheck, which are slow, run the tests every_* alone, in parts side by side. racecheck cannot be told to
# look at ours alone (cuBLASLt's kernels break under it then), so what it says of cuBLASLt's is printed, and no fault.
# Ends with 1 if a tool finds anything, a test fails, or a kernel of ours (each instance of a template is one) is launched
# by neither program; with 77 where there is no GPU or no compute-sanitizer, of which $SANITIZER names another.
set -u
export LC_ALL=C
build=$1
shift
sanitizer=${SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
if ! "$sanitizer" --version >/dev/null 2>&1; then
    echo "skipped: there is no $sanitizer" >&2
    exit 77
fi
jobs=$(nproc)
parts=8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
faults=0

# Is there a GPU, and what kernels are in the programs?
for program in test_cuda test_cuda_bf16; do
    WEIR_KERNELS_SEEN=$work/names "$build/bin/$program" none >"$work/log" 2>&1
    code=$?
    if [ $code -ne 0 ]; then
        tail -1 "$work/log" >&2
        exit $code
    fi
done
cut -d' ' -f2 "$work/names" | sort -u >"$work/own"

# races LOG: for each access of a race, the kernel it is in, without template and operands
races() {
    sed -n 's/^=========.* access at \(void \)\{0,1\}\([A-Za-z_0-9:]*\).*/\2/p' "$1"
}
# are_theirs LOG: whether all that was found, and there is something, are races in kernels of cuBLASLt's. Whatever has no
# name of theirs is ours.
are_theirs() {
    [ "$(grep -c '^=========.*Race reported between .* access at ' "$1")" = \
        "$(sed -n 's/.*RACECHECK SUMMARY: \([0-9]*\) hazard.*/\1/p' "$1")" ] &&
        races "$1" | grep -q . && ! races "$1" | grep -qv '^nvjet_' &&
        grep -q 'PASSED' "$1" && ! grep -q -e 'FAILED' -e 'terminate successfully' "$1"
}

# look TOOL PROGRAM ARGUMENTS...: one run, whose log is $work/TOOL/PROGRAM-PART
look() {
    tool=$1 program=$2
    shift 2
    log=$work/$tool/$program-${2:-all}
    [ "$tool" = memcheck ] && options="--padding 1024 --leak-check full" || options=
    # shellcheck disable=SC2086
    WEIR_KERNELS_SEEN=$log.seen "$sanitizer" --tool "$tool" $options --error-exitcode 9 "$build/bin/$program" "$@" \
        >"$log" 2>&1
    echo $? >"$log.code"
}

for tool in ${*:-memcheck racecheck synccheck}; do
    mkdir "$work/$tool"
    start=$(date +%s)
    case $tool in
    memcheck | synccheck)
        look "$tool" test_cuda '*' &
        look "$tool" test_cuda_bf16 '*' &
        ;;
    *)
        running=0
        for part in $(seq 0 $((parts - 1))); do
            for program in test_cuda test_cuda_bf16; do
                look "$tool" $program 'every_*' "$part" $parts &
                running=$((running + 1))
                [ $((running % jobs)) -ne 0 ] || wait
            done
        done
        ;;
    esac
    wait
    for code in "$work/$tool"/*.code; do
        log=${code%.code}
        # What it calls a warning alone may leave the exit code 0.
        if [ "$tool" = racecheck ] && grep -qx -e 0 -e 9 "$code" && are_theirs "$log"; then
            races "$log" | sort | uniq -c | sed "s/^/racecheck ${log##*/}, a kernel of cuBLASLt, not ours: /"
            continue
        fi
        # A tool that did not run has no summary.
        if [ "$(cat "$code")" != 0 ] || ! grep -q 'SUMMARY: ' "$log" || grep -q 'SUMMARY: [1-9]' "$log"; then
            faults=$((faults + 1))
            echo "$tool ${log##*/}: exit code $(cat "$code")"
            grep '^=========' "$log" | head -60
            grep -v '^=========' "$log" | tail -20
        fi
    done
    sed -n 's/^launched //p' "$work/$tool"/*.seen | sort -u >"$work/launched"
    runs=$(find "$work/$tool" -name '*.code' | wc -l)
    found=$(sed -n 's/.*SUMMARY: \([0-9]*\).*/\1/p' "$work/$tool"/* | awk '{ n += $1 } END { print n + 0 }')
    echo "$tool: $found findings in $runs runs, $(wc -l <"$work/launched") of $(wc -l <"$work/own") own kernels launched," \
        "$(($(date +%s) - start)) s"
    if ! cmp -s "$work/launched" "$work/own"; then
        faults=$((faults + 1))
        comm -13 "$work/launched" "$work/own" | sed 's/^/    never launched: /'
    fi
done
[ $faults -eq 0 ]
