#!/bin/sh
# Files that a request names, through the whole road: LoRAs, a control image, a picture to begin from. Each changes what
# comes out, is in the receipt by its digest, and `weir verify` makes the same bytes when it is given again.
#   test_files.sh BUILD_DIR SOURCE_DIR
set -eu
weir=$1/bin/weir
encode=$1/bin/weir-encode
golden=$2/tests/golden
work=$(mktemp -d)
mkdir "$work/tmp" "$work/out"
export TMPDIR="$work/tmp"
trap 'rm -rf "$work"' EXIT INT TERM
fail() {
    echo "test_files: $*" >&2
    [ ! -f "$work/words" ] || sed 's/^/    /' "$work/words" >&2
    exit 1
}
# weir_ends CODE ARGUMENTS...
weir_ends() {
    code=$1
    shift
    got=0
    "$weir" "$@" -q >"$work/stdout" 2>"$work/words" || got=$?
    [ "$got" = "$code" ] || fail "weir $*: exit code $got, not $code: $(cat "$work/stdout")"
    [ -z "$(ls -A "$work/tmp")" ] || fail "weir $* left $(ls -A "$work/tmp")"
}
said() { grep -q -e "$1" "$work/words" || fail "no '$1' in"; }
digest_of() { sha256sum "$1" | cut -d' ' -f1; }
cd "$work/out"

# ---- LoRAs, in an order that does not matter to who gives them again
one=$golden/loras/tiny-a-one.safetensors two=$golden/loras/tiny-a-two.safetensors
options="--model $golden/tiny-a --frames 1 --steps 2 --seed 5 --format png"
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" $options -o plain.png
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" $options --lora "$one:0.7" --lora "$two" -o lora.png
cmp -s plain.png lora.png && fail "LoRAs change nothing"
"$encode" probe --receipt lora.png |
    grep -q "\"loras\":\[{\"file\":\"$(digest_of "$one")\",\"weight\":0.[67][0-9]*},{\"file\":\"$(digest_of "$two")\",\"weight\":1.0}\]" ||
    fail "its receipt is $("$encode" probe --receipt lora.png)"
weir_ends 0 verify lora.png --model "$golden/tiny-a" --lora "$two" --lora "$one"
[ "$(cat "$work/stdout")" = "same bytes" ] || fail "verify says $(cat "$work/stdout")"
weir_ends 64 verify lora.png --model "$golden/tiny-a" --lora "$two"
said "the LoRA of digest $(digest_of "$one"): --lora FILE gives it again"
weir_ends 64 verify plain.png --model "$golden/tiny-a" --lora "$two"
said "the receipt names none of its digest $(digest_of "$two")"
# shellcheck disable=SC2086
weir_ends 74 run "a red circle" $options --lora "$work/none" -o none.png
said "LoRA $work/none: No such file"

# ---- a control image
head -c 12288 /dev/zero | tr '\000' '\200' | "$encode" image --width 64 --height 64 --format png -o gray.png
model=$golden/tiny-sana-control
weir_ends 0 run "a red circle" --model "$model" --seed 5 --control gray.png:0.5 -o control.png
weir_ends 0 run "a red circle" --model "$model" --seed 5 --control gray.png:1 -o more.png
cmp -s control.png more.png && fail "the scale of a control image changes nothing"
"$encode" probe --receipt control.png | grep -q "\"control\":\"$(digest_of gray.png)\",\"control_scale\":0.5," ||
    fail "its receipt is $("$encode" probe --receipt control.png)"
weir_ends 0 verify control.png --model "$model" --control gray.png
[ "$(cat "$work/stdout")" = "same bytes" ] || fail "verify says $(cat "$work/stdout")"
weir_ends 64 verify control.png --model "$model"
said "the control image of digest $(digest_of gray.png): --control FILE gives it again"

# ---- a picture to begin from
model=$golden/tiny-sana-b
weir_ends 0 run "a red circle" --model "$model" --seed 5 --image gray.png --strength 0.5 -o start.png
weir_ends 0 run "a red circle" --model "$model" --seed 5 -o plain.png
cmp -s start.png plain.png && fail "a picture to begin from changes nothing"
"$encode" probe --receipt start.png | grep -q "\"start_image\":\"$(digest_of gray.png)\",.*\"strength\":0.5," ||
    fail "its receipt is $("$encode" probe --receipt start.png)"
weir_ends 0 verify start.png --model "$model" --image gray.png
[ "$(cat "$work/stdout")" = "same bytes" ] || fail "verify says $(cat "$work/stdout")"
echo "no picture" >x
weir_ends 64 verify start.png --model "$model" --image x
said '--image x: the receipt names none of its digest'

echo "test_files: passed"
