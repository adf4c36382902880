#!/bin/sh
# Runs the fuzz targets: tests/fuzz/run.sh [SECONDS] [TARGET...]   (default: 10 seconds each, all of tests/fuzz/targets)
#
# Each target starts from its committed seeds, runs SECONDS under ASan and UBSan, and must then have covered 85% of the
# lines of its parser's files; what it executed is printed. At the end a copy of the safetensors parser with one check
# left out must be caught within 60 seconds, starting from sound files alone.
# Build folder: $WEIR_FUZZ_BUILD, default build/fuzz. A crashing input stays there, and its path is printed.
set -eu
cd "$(dirname "$0")/../.."
source_folder=$PWD
build=${WEIR_FUZZ_BUILD:-$source_folder/build/fuzz}
coverage_wanted=85
planted_seconds=60

seconds=10
if [ $# -gt 0 ]; then
    case $1 in
    '') shift ;;
    *[!0-9]*) ;;
    *) seconds=$1; shift ;;
    esac
fi
targets_file=$source_folder/tests/fuzz/targets
wanted=${*:-$(sed -n 's/^\([a-z_0-9]\{1,\}\) .*/\1/p' "$targets_file") planted}

fail()
{
    echo "fuzz: $*" >&2
    exit 1
}

# llvm-cov wants the version that clang has.
version=$(clang --version | sed -n 's/.*version \([0-9]*\).*/\1/p' | head -n 1)
tool()
{
    command -v "$1-$version" || command -v "$1" || fail "$1 is not installed (Debian package llvm)"
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

mkdir -p "$build"
cmake --preset fuzz -B "$build" >"$build/configure.log" 2>&1 ||
    { tail -n 20 "$build/configure.log" >&2; fail "the fuzz preset does not configure"; }
programs=
for target in $wanted; do programs="$programs fuzz_$target"; done
# shellcheck disable=SC2086
cmake --build "$build" --target $programs >"$build/build.log" 2>&1 ||
    { tail -n 20 "$build/build.log" >&2; fail "the targets do not build"; }

export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1

# Runs a target on a fresh working folder; leaves its log in $work/log. Status as the program's.
fuzz()
{
    target=$1 limit=$2 bytes=$3 seeds=$4
    work=$build/work/$target
    rm -rf "$work"
    mkdir -p "$work/found"
    words=$target
    if [ "$target" = planted ]; then words=safetensors; fi
    dictionary=
    if [ -f "tests/fuzz/$words.dict" ]; then dictionary=-dict=tests/fuzz/$words.dict; fi
    LLVM_PROFILE_FILE=$work/run.profraw "$build/bin/fuzz_$target" -max_total_time="$limit" -max_len="$bytes" \
        -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$work/" ${dictionary:+"$dictionary"} \
        "$work/found" "$seeds" >"$work/log" 2>&1
}

run_target()
{
    line=$(grep "^$1 " "$targets_file") || fail "$1 is not in tests/fuzz/targets"
    # shellcheck disable=SC2086
    set -- $line
    name=$1 bytes_max=$2
    shift 2
    [ -d "tests/fuzz/corpus/$name" ] || fail "$name has no seeds in tests/fuzz/corpus/$name"
    if ! fuzz "$name" "$seconds" "$bytes_max" "tests/fuzz/corpus/$name"; then
        grep -E 'ERROR|SUMMARY|runtime error|Test unit written' "$work/log" >&2 || tail -n 20 "$work/log" >&2
        fail "$name: a fault was found, see $work/log"
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
    "$profdata" merge -sparse "$work/run.profraw" -o "$work/run.profdata"
    lines=0 missed=0
    : >"$work/coverage"
    for part in "$@"; do
        file=${part%%:*}
        functions=${part#"$file"}
        "$cov" report "$build/bin/fuzz_$name" -instr-profile="$work/run.profdata" -show-functions "$file" \
            >"$work/functions"
        # name, lines and missed lines of each function that counts; then their sums, and how many there were
        awk -v names="${functions#:}" '
            BEGIN { wanted = split(names, list, ","); for (i in list) chosen[list[i]] = 1 }
            NF == 10 && $1 != "Name" && $1 != "TOTAL" {
                sub(/.*:/, "", $1)
                if (wanted && !($1 in chosen)) next
                print $1, $5, $6
                lines += $5; missed += $6; found++
            }
            END { print "sum", lines, missed, (wanted && found != wanted) ? "incomplete" : found }
        ' "$work/functions" >"$work/counted"
        cat "$work/counted" >>"$work/coverage"
        sums=$(sed -n 's/^sum //p' "$work/counted")
        case $sums in
        *incomplete | " ") fail "$name: $part does not name functions that are there, see $work/functions" ;;
        esac
        lines=$((lines + $(echo "$sums" | cut -d' ' -f1)))
        missed=$((missed + $(echo "$sums" | cut -d' ' -f2)))
    done
    if [ -z "$executed" ] || [ "$lines" -eq 0 ]; then fail "$name: no figures came out, see $work"; fi
    covered=$((1000 * (lines - missed) / lines))
    printf 'fuzz: %-12s %9d executions in %d s, %d.%d%% of %d lines covered\n' "$name" "$executed" "$seconds" \
        $((covered / 10)) $((covered % 10)) "$lines"
    [ "$covered" -ge $((10 * coverage_wanted)) ] || {
        awk '$1 != "sum" && $3 > 0 { print "  " $1 ": " $3 " of " $2 " lines never ran" }' "$work/coverage" >&2
        fail "$name: line coverage below $coverage_wanted%"
    }
}

# The sound seeds are run once without mutation: none may fail, so that what is found then was found by fuzzing.
run_planted()
{
    sound=$build/work/planted-seeds
    rm -rf "$sound"
    mkdir -p "$sound"
    cp tests/fuzz/corpus/safetensors/sound-* "$sound"
    LLVM_PROFILE_FILE=/dev/null "$build/bin/fuzz_planted" -runs=0 "$sound" >"$build/work/planted-log" 2>&1 ||
        fail "planted: a seed fails before any mutation, see $build/work/planted-log"
    started=$(date +%s)
    if fuzz planted "$planted_seconds" 4096 "$sound"; then
        fail "planted: the overflow was not found in $planted_seconds s"
    fi
    grep -q 'AddressSanitizer: heap-buffer-overflow' "$work/log" || {
        tail -n 20 "$work/log" >&2
        fail "planted: it ended, but not with the overflow, see $work/log"
    }
    printf 'fuzz: %-12s the overflow was found after %d s\n' planted $(($(date +%s) - started))
}

# Two at a time: a target is one thread.
failed=0 running=
ended() { for pid in $running; do wait "$pid" || failed=1; done; running=; }
for target in $wanted; do
    if [ "$target" = planted ]; then run_planted & else run_target "$target" & fi
    if [ -n "$running" ]; then running="$running $!"; ended; else running=$!; fi
done
ended
exit "$failed"
