#!/bin/sh
# Passes the tests, from nothing:  sh check.sh [--full]
#   without   20 minutes at most on two cores: every test, also under ASan+UBSan; threads under TSan; ten seconds of
#             each fuzz target; a few films of the demo model, looked at by the checker
#   --full    60 minutes at most: longer simulation, longer fuzzing, more films
set -eu
cd "$(dirname "$0")"
full=""
case "${1:-}" in
"") ;;
--full) full=1 ;;
*) sed -n '2,5p' "$0" >&2; exit 64 ;;
esac
begin=$(date +%s)
say() { printf '\n== %s (%d s)\n' "$*" "$(($(date +%s) - begin))"; }

# The leak checker finds its own threads by their numbers under /proc. In a container whose /proc belongs to another
# process namespace it cannot, and says so at the end of every program.
if [ "$(sh -c 'echo $$; exec readlink /proc/self' | uniq | wc -l)" != 1 ]; then
    echo "check.sh: leak detection skipped: /proc does not count our processes"
    export LSAN_OPTIONS=detect_leaks=0
fi

say "packages"
sh deploy/packages.sh test

build() {
    cmake --preset "$1" >build.log 2>&1 && cmake --build --preset "$1" >>build.log 2>&1 || { grep -E -A6 'error|Error|FAILED' build.log | head -60; rm -f build.log; echo "check.sh: preset $1 does not build" >&2; exit 1; }
    rm -f build.log
}

say "dev: every test"
build dev
ctest --preset dev -j 2
if [ -n "$full" ]; then
    say "simulation: 20,000 seeds, and the ledgers against each other"
    build/dev/bin/sim --seeds 20000
    build/dev/bin/sim_sabotaged --sabotage all --seeds 20000
    build/dev/bin/model --sequences 100000
fi

say "asan: every test under AddressSanitizer and UndefinedBehaviorSanitizer"
build asan
ctest --preset asan -j 2

say "tsan: what has threads"
build tsan
ctest --preset tsan -j 2 -L threads

say "films and pictures: the checkers on drawings, then on a few of the demo models"
python=/usr/bin/python3
$python tests/checker/self_test.py --films "${full:+20}50"
$python tests/checker/self_test_image.py --pictures "${full:+20}50"
$python tests/checker/score_films.py --weir build/dev/bin/weir --encode build/dev/bin/weir-encode --limit "${full:+4}8"
$python tests/checker/score_images.py --weir build/dev/bin/weir --encode build/dev/bin/weir-encode --model shapes-sana \
    --limit "${full:+4}8"
$python tests/checker/score_images.py --weir build/dev/bin/weir --encode build/dev/bin/weir-encode --model shapes-sana-sprint \
    --limit "${full:+4}4" --seen-all 88 --held-out-all 88

say "fuzz"
sh tests/fuzz/run.sh "${full:+60}"

if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    say "cuda: it builds; what needs a GPU is skipped where there is none"
    build cuda
    ctest --preset cuda -j 2 -L cuda
else
    say "cuda: skipped, there is no toolkit"
fi

say "done"
