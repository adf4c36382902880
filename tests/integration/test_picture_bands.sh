#!/bin/sh
# A picture in bands, each of which may be another worker's: the same bytes as by one worker, as by one task, after kill -9
# of a worker in a band and where they are joined, and by `weir verify`. The model is tiny; its weir.json makes that
# pictures over 1 MiB of values are cut.
#   test_picture_bands.sh BUILD_DIR SOURCE_DIR KILL_PRELOAD
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"

# Two models: one whose pictures are made at a size of their own and resized, one whose are made as wished.
resized=$work/resized/tiny-sana-a
model=$work/tiny-sana-a
mkdir "$work/resized"
for copy in "$resized" "$model"; do
    cp -r "$golden/tiny-sana-a" "$copy"
    chmod -R u+w "$copy"
    sed -i 's/"steps": 8/"decode_whole_mib": 1, "steps": 8/' "$copy/weir.json"
    grep -q decode_whole_mib "$copy/weir.json" || fail "weir.json has no line of steps any more"
done
sed -i 's/"sample_size": *[0-9]*/"sample_size": 8/' "$model/transformer/config.json"

cd "$work"
made() { weir_ends 0 run "a red circle" --seed 7 -q "$@"; }
pixels() { "$encode" probe --raw "$1" | sha256sum; }

# ---- what a job of it is, and the pixels of the undivided picture
made --model "$resized" --json -o bands.png
[ "$(grep -o '"stage":"decode","index":[01],"state":"done"' stdout | wc -l)" = 2 ] || fail "not two bands: $(cat stdout)"
grep -q '"stage":"assemble","index":0,"state":"done"' stdout || fail "nothing was assembled: $(cat stdout)"
grep -q '"name":"image.png",.*"media_type":"image/png"' stdout || fail "--json: $(cat stdout)"
made --model "$golden/tiny-sana-a" --json -o whole.png
grep -q '"stage":"assemble"' stdout && fail "an undivided picture was assembled"
[ "$(pixels bands.png)" = "$(pixels whole.png)" ] || fail "bands make other pixels than an undivided decode"
"$encode" probe --receipt bands.png >receipt
grep -q bands receipt && fail "the receipt tells how the work was shared: $(cat receipt)"
verified bands.png --model "$resized"
verified bands.png --model "$resized" --workers 2
for kind in jpg webp; do
    made --model "$resized" -o "bands.$kind"
    verified "bands.$kind" --model "$resized" --workers text=1,denoise=1,decode=2,assemble=1
done
echo "same pixels, and the same bytes again"

# ---- the file is the one that a single task makes: of a list whose other picture is too small for bands nothing is shared
made --model "$model" --size 256x256 --json -o alone.png
grep -q '"stage":"assemble"' stdout || fail "256x256 is not in bands: $(cat stdout)"
cat >list.jsonl <<END
{"prompt": "a red circle", "seed": 7, "size": "256x256"}
{"prompt": "a red circle", "seed": 7, "size": "64x64"}
END
weir_ends 0 run --prompts list.jsonl --model "$model" -q --json -o list/
grep -q '"stage":"assemble"' stdout && fail "a list of two sizes is in bands: $(cat stdout)"
cmp -s alone.png list/1-0.png || fail "bands make another file than one task: $(ls list)"
verified list/1-0.png --model "$model"
sed 's/64x64/288x256/' list.jsonl >two.jsonl
weir_ends 0 run --prompts two.jsonl --model "$model" -q --workers 3 -o two/
cmp -s alone.png two/1-0.png || fail "a list in bands makes another file"
echo "the same file as one task's"

# ---- a cluster of four, of which one is killed at exact moments
start "$work/dir" --model "$model" --workers 4 --threads 1
# sha OPTIONS...: of the last item of a job of these
sha() {
    job=$("$weir" submit "a red circle" --size 256x256 --dir "$work/dir" "$@" 2>"$work/words") || fail "submit $*"
    "$weir" wait --json --dir "$work/dir" "$job" >"$work/job" 2>"$work/words" || fail "job $job: $(cat "$work/job")"
    "$weir" fetch --dir "$work/dir" "$job" -o "$work/out" >"$work/fetched" || fail "fetch $job"
    sha256sum "$work/out/$job"*.png | tail -1 | cut -d' ' -f1
}
want=$(sha256sum alone.png | cut -d' ' -f1)
[ "$(sha --seed 7)" = "$want" ] || fail "four workers make another file"
[ "$(sha --seed 5 --n 3)" = "$want" ] || fail "item 2 of seed 5 is another file"
for task in decode-0 decode-1 assemble-0; do
    for moment in before after; do
        echo "$task $moment" >"$work/kill"
        got=$(sha --seed 7)
        [ ! -e "$work/kill" ] || fail "$task $moment: nobody was killed"
        [ "$got" = "$want" ] || fail "after kill -9 in $task, $moment its output has a name: another file: $got, not $want"
        index=${task#*-}
        job=$(basename "$(ls -t "$work"/out/*.png | head -1)" | cut -c1-32)
        "$weir" show --json --dir "$work/dir" "$job" >"$work/job"
        grep -q "\"stage\":\"${task%-*}\",\"index\":$index,[^}]*\"attempt\":2" "$work/job" ||
            fail "$task $moment: not a second attempt: $(cat "$work/job")"
        echo "same after kill -9 in $task, $moment its output has a name"
    done
done
stop

nothing_left "the test"
echo "test_picture_bands: passed"
