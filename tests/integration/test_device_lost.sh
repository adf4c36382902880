#!/bin/sh
# A worker whose device reports a fault ends with exit code 71: another takes its place and the film is the same; where
# the fault comes back time after time, the cluster ends with the words.
#   test_device_lost.sh BUILD_DIR SOURCE_DIR
set -eu
bin=$1/bin
model=$2/tests/golden/tiny-a
work=$(mktemp -d)
serve=""
cleanup() {
    [ -z "$serve" ] || { kill "$serve" 2>/dev/null || :; wait "$serve" || :; }
    rm -rf "$work"
}
trap cleanup EXIT INT TERM
fail() {
    echo "test_device_lost: $*" >&2
    [ ! -f "$work/log" ] || tail -30 "$work/log" | sed 's/^/    /' >&2
    exit 1
}

# The programs, of which the worker is the one that breaks.
mkdir "$work/bin"
for program in weir weir-broker weir-encode; do cp "$bin/$program" "$work/bin/$program"; done
cp "$bin/weir-worker-faulty" "$work/bin/weir-worker"
weir=$work/bin/weir
export WEIR_TEST_FAULT="$work/fault"
make() {
    "$weir" run "a red circle" --model "$model" --device cpu --steps 3 --frames 2 --size 32x32 --seed 3 -q "$@"
}

make -o "$work/sound.mp4" || fail "a sound worker made no film"

# ---- once: replaced, and nothing is lost
echo once >"$work/fault"
make -o "$work/once.mp4" || fail "no film after a fault"
[ ! -e "$work/fault" ] || fail "the fault did not happen"
cmp -s "$work/sound.mp4" "$work/once.mp4" || fail "another film after a fault"

# ---- the same in a cluster that lives on, which says what happened
echo once >"$work/fault"
"$weir" serve --dir "$work/dir" --model "$model" --device cpu --test-timers >"$work/log" 2>&1 &
serve=$!
tries=0
until "$weir" ls --dir "$work/dir" >/dev/null 2>&1; do
    kill -0 "$serve" 2>/dev/null || fail "serve ended"
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || fail "serve does not answer"
    sleep 0.1
done
job=$("$weir" submit --dir "$work/dir" "a red circle" --steps 3 --frames 2 --size 32x32 --seed 3) || fail "submit"
"$weir" wait --dir "$work/dir" "$job" >/dev/null || fail "the job failed"
grep -q 'device lost name=cpu words=' "$work/log" || fail "the worker does not say that its device is lost"
grep -q 'worker pid=[0-9]* ended (exit code 71); starting another' "$work/log" || fail "it was not replaced"

# ---- the same where nothing fails, but its driver calls it unfit
echo unwell >"$work/fault"
tries=0
until grep -q 'device lost name=cpu words="it was said to be unwell"' "$work/log"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || fail "the worker does not notice that its device is unwell"
    sleep 0.1
done
job=$("$weir" submit --dir "$work/dir" "a red circle" --steps 3 --frames 2 --size 32x32 --seed 3) || fail "submit"
"$weir" wait --dir "$work/dir" "$job" >/dev/null || fail "the job failed after the device was unwell"
[ "$(grep -c 'ended (exit code 71); starting another' "$work/log")" = 2 ] || fail "the unwell one was not replaced"
kill "$serve" && wait "$serve" || :
serve=""

# ---- always: an end, with the reason
echo always >"$work/fault"
code=0
make -o "$work/never.mp4" 2>"$work/words" || code=$?
[ "$code" = 71 ] || fail "exit code $code where the device never works"
grep -q 'device cpu reported a fault' "$work/words" || fail "no reason: $(cat "$work/words")"
[ ! -e "$work/never.mp4" ] || fail "a film was made"
