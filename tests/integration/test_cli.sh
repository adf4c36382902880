#!/bin/sh
# `weir` as a person meets it: films in every format, and every wrong input answered with one clear line, the right exit
# code, and nothing left behind: no file, no process, no temporary directory.
#   test_cli.sh BUILD_DIR SOURCE_DIR
set -eu
weir=$1/bin/weir
encode=$1/bin/weir-encode
tiny=$2/tests/golden/tiny-a
work=$(mktemp -d)
mkdir "$work/tmp" "$work/out"
export TMPDIR="$work/tmp"
mounted=""
cleanup() {
    [ -z "$mounted" ] || umount "$mounted" || :
    rm -rf "$work"
}
trap cleanup EXIT INT TERM
fail() {
    echo "test_cli: $*" >&2
    [ ! -f "$work/words" ] || sed 's/^/    /' "$work/words" >&2
    exit 1
}

nothing_left() {
    [ -z "$(ls -A "$work/tmp")" ] || fail "$1 left $(ls -A "$work/tmp")"
    # The brackets keep pgrep from finding itself where /proc counts processes otherwise than we do.
    if pgrep -f "[w]eir-.* $work/tmp/" >/dev/null || pgrep -f "[w]eir-.*ipc://$work/tmp/" >/dev/null; then fail "$1 left processes"; fi
}

# refused CODE PATTERN ARGUMENTS...: exactly one line on stderr, matching, and that exit code
refused() {
    code=$1 pattern=$2
    shift 2
    got=0
    "$weir" "$@" >"$work/stdout" 2>"$work/words" || got=$?
    [ "$got" = "$code" ] || fail "weir $*: exit code $got, not $code"
    [ "$(wc -l <"$work/words")" = 1 ] || fail "weir $*: not one line"
    grep -q -e "$pattern" "$work/words" || fail "weir $*: no '$pattern' in"
    [ ! -s "$work/stdout" ] || fail "weir $*: something on stdout"
    nothing_left "weir $*"
    [ -z "$(ls -A "$work/out")" ] || fail "weir $* left $(ls -A "$work/out")"
}
run_refused() {
    code=$1 pattern=$2
    shift 2
    refused "$code" "$pattern" run "a prompt" --model "$tiny" -q -o "$work/out/x.mp4" "$@"
}

# ---- flags, said before any work
refused 64 'PROMPT\|prompts' run
refused 64 '--steps 0' run x --steps 0
refused 64 '--steps -3' run x --steps -3
refused 64 '--frames' run x --frames 999999999
refused 64 '--size 12' run x --size 12
refused 64 '--guidance nan' run x --guidance nan
refused 64 '--workers 0' run x --workers 0
refused 64 'nobody would do the stage denoise' run x --workers text=1,decode=1
refused 64 '/nowhere' run x -o /nowhere/x.mp4
refused 64 'contradicts' run x -o x.gif --format mp4
refused 64 '--wrong' run x --wrong
refused 64 'no such command' paint
refused 64 'not UTF-8' run "$(printf 'a\377')" --model "$tiny" -q

# ---- what the model does not allow, said at admission with the limit
run_refused 64 '--steps 1000 with --sampler ddim' --steps 1000
run_refused 64 'multiple of 8' --size 100x100
run_refused 64 '16384' --size 60000x8
run_refused 64 'h264' --format webm -o "$work/out/x.webm" --codec h264
run_refused 64 'cuda' --device cuda
run_refused 64 'pixels' --size 4096x4096 --frames 4096

# ---- model folders
refused 74 '/nowhere' run x --model /nowhere -q
refused 74 'nosuchname' run x --model nosuchname -q
refused 74 'model_index.json' run x --model "$work" -q
mkdir "$work/other"
echo '{"_class_name": "StableDiffusionPipeline"}' >"$work/other/model_index.json"
refused 64 'StableDiffusionPipeline' run x --model "$work/other" -q
broken() {
    rm -rf "$work/broken"
    cp -r "$tiny" "$work/broken"
}
broken
truncate -s 1000 "$work/broken/unet/diffusion_pytorch_model.safetensors"
refused 74 'cut short' run x --model "$work/broken" -q
broken
rm "$work/broken/vae/config.json"
refused 74 'vae/config.json' run x --model "$work/broken" -q
broken
sed -i 's/"in_channels": 4/"in_channels": "four"/' "$work/broken/unet/config.json"
refused 74 'in_channels is "four"' run x --model "$work/broken" -q
broken
echo '{' >"$work/broken/tokenizer/vocab.json"
refused 74 'vocab.json' run x --model "$work/broken" -q

mkdir "$work/models"
cp -r "$tiny" "$work/models/good"
mv "$work/broken" "$work/models/bad"
WEIR_MODELS=$work/models "$weir" models --verify >"$work/words"
grep -q '^good .*TextToVideoSDPipeline.*64x64' "$work/words" || fail "weir models does not explain the good folder"
grep -q '^bad .*unusable: .*vocab.json' "$work/words" || fail "weir models does not say what is wrong with the bad folder"
[ "$(WEIR_MODELS=$work/models "$weir" run x --model good --steps 1 -q -o "$work/out/x.gif")" = "$work/out/x.gif" ] ||
    fail "a model is not found by its name"
rm "$work/out/x.gif"

# ---- disks
if [ "$(id -u)" = 0 ] && mkdir "$work/disk" && mount -t tmpfs -o size=64k none "$work/disk" 2>/dev/null; then
    mounted=$work/disk
    dd if=/dev/zero of="$work/disk/fill" bs=1k count=56 2>/dev/null
    refused 75 'No space left' run x --model "$tiny" --steps 1 -q -o "$work/disk/x.mp4"
    [ "$(ls -A "$work/disk")" = fill ] || fail "a full disk left $(ls -A "$work/disk")"
else
    echo "test_cli: full disk skipped: no tmpfs can be mounted here"
fi

# ---- films
made() {
    "$weir" run "a red circle" --model "$tiny" --steps 2 --seed 5 -q "$@" >"$work/stdout" 2>"$work/words" ||
        fail "weir run $* failed"
    nothing_left "weir run $*"
}
made -o "$work/out/a.mp4"
made -o "$work/out/a.webm"
made -o "$work/out/a.gif"
made -o "$work/out/frames/"
made -o "$work/out/b.mp4" --n 2
for film in a.mp4 a.webm a.gif b-000-000.mp4 b-000-001.mp4; do
    "$encode" probe "$work/out/$film" | grep -q '"frames": *16' || fail "$film does not hold 16 frames"
done
[ "$(ls "$work/out/frames" | wc -l)" = 16 ] || fail "no 16 PNGs"
cmp -s "$work/out/a.mp4" "$work/out/b-000-000.mp4" || fail "item 0 of two is another film than the one made alone"
made -o "$work/out/c.mp4" --json --workers text=1,denoise=1,decode=1 --threads 1
cmp -s "$work/out/a.mp4" "$work/out/c.mp4" || fail "split stages and one thread made another film"
grep -q '"receipt":{' "$work/stdout" || fail "--json shows no receipt"
made -o "$work/out/d.gif" --verbose
for phase in 'cluster started' 'device name=.* ms=' 'model name=.* ms=' 'opened stage=text .*loaded_ms=' \
    'opened stage=denoise' 'opened stage=decode' 'job ended ms=' 'on disk ms='; do
    grep -q -e "$phase" "$work/words" || fail "--verbose does not say $phase"
done
"$encode" probe "$work/out/a.mp4" | grep -q 'model_digest' || fail "the film carries no receipt"
rm -r "$work/out"/*

# ---- Ctrl-C
"$weir" run "a red circle" --model "$tiny" --steps 900 -o "$work/out/x.mp4" >"$work/stdout" 2>"$work/words" &
child=$!
tries=0
until grep -q '^denoise' "$work/words"; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || fail "no denoise step within 60 s"
    sleep 0.1
done
kill -INT "$child"
got=0
wait "$child" || got=$?
[ "$got" = 130 ] || fail "after Ctrl-C: exit code $got, not 130"
nothing_left "Ctrl-C"
[ -z "$(ls -A "$work/out")" ] || fail "Ctrl-C left $(ls -A "$work/out")"

echo "test_cli: passed"
