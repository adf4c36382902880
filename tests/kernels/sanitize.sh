#!/bin/sh
# compute-sanitizer over every own kernel of the device cuda:  tests/kernels/sanitize.sh BUILD_DIR [TOOL...]
#
# Tools are memcheck, racecheck, synccheck (default: these three) and initcheck. Each runs test_cuda and test_cuda_bf16,
# of which racecheck and initcheck only the test that runs every op over all shapes. memcheck looks at the libraries' kernels as well,
# since memory that is too small for them would be our fault; the others at our own alone.
# Ends with 1 if a tool finds anything or a test fails, or if a kernel of ours is launched by neither program; with 77
# where there is no GPU. $SANITIZER names another compute-sanitizer.
set -u
export LC_ALL=C
build=$1
shift
sanitizer=${SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
faults=0

# What each program has, and whether there is a GPU at all.
for program in test_cuda test_cuda_bf16; do
    WEIR_KERNELS_SEEN=$work/names "$build/bin/$program" 'none' >"$work/log" 2>&1
    code=$?
    if [ $code -ne 0 ]; then
        tail -1 "$work/log" >&2
        exit $code
    fi
done
cut -d' ' -f2 "$work/names" | sort -u >"$work/own"
only_own=$(sed 's/^/--kernel-name=kne=/' "$work/own")

for tool in ${*:-memcheck racecheck synccheck}; do
    rm -f "$work/seen"
    for program in test_cuda test_cuda_bf16; do
        case $tool in
        memcheck) options="--padding 1024 --leak-check full" which='*' ;;
        synccheck) options=$only_own which='*' ;;
        *) options=$only_own which='every_op_*' ;;
        esac
        start=$(date +%s)
        # shellcheck disable=SC2086
        WEIR_KERNELS_SEEN=$work/seen "$sanitizer" --tool "$tool" $options --error-exitcode 9 \
            "$build/bin/$program" "$which" >"$work/log" 2>&1
        code=$?
        summary=$(sed -n 's/^========= \(.*SUMMARY: .*\)/\1/p' "$work/log" | tr '\n' ' ')
        tests=$(sed -n 's/^\[  PASSED  \] //p' "$work/log")
        echo "$tool $program: exit code $code, $((  $(date +%s) - start )) s, $tests $(grep '^kernels=' "$work/log"); $summary"
        # A tool that did not run has no summary.
        if [ $code -ne 0 ] || [ -z "$summary" ] || echo "$summary" | grep -q 'SUMMARY: [1-9]'; then
            faults=$((faults + 1))
            grep '^=========' "$work/log" | head -60
            grep -v '^=========' "$work/log" | tail -20
        fi
    done
    launched=$(sed -n 's/^launched //p' "$work/seen" 2>/dev/null | sort -u | tee "$work/launched" | wc -l)
    echo "$tool: $launched of $(wc -l <"$work/own") own kernels launched"
    if ! cmp -s "$work/launched" "$work/own"; then
        faults=$((faults + 1))
        comm -13 "$work/launched" "$work/own" | sed 's/^/    never launched: /'
    fi
done
[ $faults -eq 0 ]
