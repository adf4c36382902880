#!/bin/sh
# The same film, and the same picture, byte for byte: alone and in company, with one worker, four, or one a stage, one thread or two, on a fresh
# cluster, and after kill -9 of a worker at every stage, before and after its output is in the store, and of the broker.
#   test_same_bytes.sh BUILD_DIR SOURCE_DIR KILL_PRELOAD
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"
model=$tiny
ending=mp4
dir=$work/dir

serve_model() { # OPTIONS...: a cluster of the model, on the directory
    start "$dir" --model "$model" "$@"
}
# 20 frames are two segments; 23 steps have four checkpoints
submit() {
    "$weir" submit "a red circle moving right" --frames 20 --size 64x48 --steps 23 --sampler dpm++ --dir "$dir" "$@" ||
        fail "submit $*"
}
# sha JOB: waits, fetches, and prints the film's digest; of a job of several, of the last item
sha() {
    "$weir" wait --json --dir "$dir" "$1" >"$work/job" || fail "job $1: $(cat "$work/job")"
    "$weir" fetch --dir "$dir" "$1" -o "$work/out" >"$work/fetched" || fail "fetch $1"
    sha256sum "$work/out/$1"*."$ending" | tail -1 | cut -d' ' -f1
}
same() { # same WHAT SHA
    [ "$2" = "$want" ] || fail "$1: another film: $2, not $want"
    echo "same $1"
}

serve_model
job=$(submit --seed 7)
want=$(sha "$job")
[ ${#want} = 64 ] || fail "no digest: $want"
same "again, not from memory" "$(sha "$(submit --seed 7)")"
other=$(sha "$(submit --seed 8)")
[ "$other" != "$want" ] || fail "another seed, the same film"
same "item 1 of seed 6" "$(sha "$(submit --seed 6 --n 2)")"

for stage in text denoise decode assemble; do
    for moment in before after; do
        echo "$stage-0 $moment" >"$work/kill"
        job=$(submit --seed 7)
        same "after kill -9 in $stage, $moment its output has a name" "$(sha "$job")"
        [ ! -e "$work/kill" ] || fail "$stage $moment: nobody was killed"
        "$weir" show --json --dir "$dir" "$job" >"$work/job"
        grep -q "\"stage\":\"$stage\",\"index\":0,[^}]*\"attempt\":2" "$work/job" ||
            fail "$stage $moment: not a second attempt: $(cat "$work/job")"
    done
done
[ "$(find "$dir/run" -name 'task-*' | wc -l)" -le 1 ] || fail "scratch was left: $(ls "$dir/run")" # of the worker killed last

# the broker, while a job denoises: serve ends with one line; started again, the job goes on
has_checkpoint() { [ -n "$(find "$dir/store" -path "*/$1/denoise-0/ckpt/*")" ]; }
checkpoint_of() { eventually 60 "no checkpoint" has_checkpoint "$1"; }
job=$(submit --seed 7)
checkpoint_of "$job"
broker=$(sed -n 's/.* weir-broker\[\([0-9]*\)\].*/\1/p' "$work/log" | tail -1)
kill -9 "$broker" || fail "no broker to kill"
wait "$serve" && fail "serve did not notice that its broker was gone"
serve=""
serve_model
same "after kill -9 of the broker" "$(sha "$job")"

# all of it, in order: the worker gives its task back behind a checkpoint
job=$(submit --seed 7)
checkpoint_of "$job"
stop
serve_model
same "after serve was ended and started again" "$(sha "$job")"
"$weir" show --dir "$dir" "$job" | grep -q 'denoise-0 done, .* steps from [1-9]' || fail "it began anew"
stop

serve_model --workers 4 --threads 1
jobs=""
for seed in 1 2 3 4 5 6 8; do jobs="$jobs $(submit --seed $seed)"; done
same "beside 7 other jobs on 4 workers" "$(sha "$(submit --seed 7)")"
for job in $jobs; do sha "$job" >/dev/null; done

# frozen past its lease: another worker goes on from the checkpoint; thawed, its late words change nothing
job=$(submit --seed 7)
checkpoint_of "$job"
frozen=$("$weir" show --dir "$dir" "$job" | sed -n 's/.*denoise-0 .* worker \([0-9]*\).*/\1/p')
kill -STOP "$frozen"
same "after a worker froze" "$(sha "$job")"
kill -CONT "$frozen"
same "with it back" "$(sha "$(submit --seed 7)")"
stop

dir=$work/split
serve_model --workers text=1,denoise=2,decode=1,assemble=1 --threads 2
same "one worker a stage, 2 threads, another cluster" "$(sha "$(submit --seed 7)")"
stop
# pictures: three stages, of which the last makes what is fetched
model=$golden/tiny-sana-a
ending=png
dir=$work/pictures
submit() {
    "$weir" submit "a red circle above a blue star" --size 96x64 --steps 23 --dir "$dir" "$@" || fail "submit $*"
}
serve_model
want=$(sha "$(submit --seed 7)")
[ ${#want} = 64 ] || fail "no digest: $want"
for stage in text denoise decode; do
    for moment in before after; do
        echo "$stage-0 $moment" >"$work/kill"
        job=$(submit --seed 7)
        same "picture after kill -9 in $stage, $moment its output has a name" "$(sha "$job")"
        [ ! -e "$work/kill" ] || fail "$stage $moment: nobody was killed"
    done
done
stop
dir=$work/pictures-split
serve_model --workers text=1,denoise=2,decode=1 --threads 2
same "picture by one worker a stage, item 1 of seed 6" "$(sha "$(submit --seed 6 --n 2)")"
stop

nothing_left "the test"
