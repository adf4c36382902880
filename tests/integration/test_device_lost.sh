#!/bin/sh
# A worker whose device reports a fault ends with exit code 71: another takes its place and the film is the same; where
# the fault comes back time after time, the cluster ends with the words.
#   test_device_lost.sh BUILD_DIR SOURCE_DIR
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"

# The programs, of which the worker is the one that breaks.
mkdir "$work/bin"
for program in weir weir-broker weir-encode weir-encode-film; do cp "$1/bin/$program" "$work/bin/$program"; done
cp "$1/bin/weir-worker-faulty" "$work/bin/weir-worker"
weir=$work/bin/weir
export WEIR_TEST_FAULT="$work/fault"
# run_ends CODE OPTIONS...
run_ends() {
    code=$1
    shift
    weir_ends "$code" run "a red circle" --model "$tiny" --device cpu --steps 3 --frames 2 --size 32x32 --seed 3 -q "$@"
}

run_ends 0 -o "$work/sound.mp4"

# ---- once: replaced, and nothing is lost
echo once >"$work/fault"
run_ends 0 -o "$work/once.mp4"
[ ! -e "$work/fault" ] || fail "the fault did not happen"
cmp -s "$work/sound.mp4" "$work/once.mp4" || fail "another film after a fault"

# ---- the same in a cluster that lives on, which says what happened
echo once >"$work/fault"
start "$work/dir" --model "$tiny" --device cpu
job=$("$weir" submit --dir "$work/dir" "a red circle" --steps 3 --frames 2 --size 32x32 --seed 3) || fail "submit"
"$weir" wait --dir "$work/dir" "$job" >/dev/null || fail "the job failed"
grep -q 'device lost name=cpu words=' "$work/log" || fail "the worker does not say that its device is lost"
grep -q 'worker pid=[0-9]* ended (exit code 71); starting another' "$work/log" || fail "it was not replaced"

# ---- the same where nothing fails, but its driver calls it unfit
echo unwell >"$work/fault"
eventually 30 "the worker does not notice that its device is unwell" \
    grep -q 'device lost name=cpu words="it was said to be unwell"' "$work/log"
job=$("$weir" submit --dir "$work/dir" "a red circle" --steps 3 --frames 2 --size 32x32 --seed 3) || fail "submit"
"$weir" wait --dir "$work/dir" "$job" >/dev/null || fail "the job failed after the device was unwell"
[ "$(grep -c 'ended (exit code 71); starting another' "$work/log")" = 2 ] || fail "the unwell one was not replaced"
stop

# ---- always: an end, with the reason
echo always >"$work/fault"
run_ends 71 -o "$work/never.mp4"
said 'device cpu reported a fault'
[ ! -e "$work/never.mp4" ] || fail "a film was made"
