#!/bin/sh
# Files that a request names, through the whole road: LoRAs, a control image, a picture to begin from. Each changes what
# comes out, is in the receipt by its digest, and `weir verify` makes the same bytes when it is given again.
#   test_files.sh BUILD_DIR SOURCE_DIR
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"
digest_of() { sha256sum "$1" | cut -d' ' -f1; }
cd "$work/out"

# ---- LoRAs, in an order that does not matter to who gives them again
one=$golden/loras/tiny-a-one.safetensors two=$golden/loras/tiny-a-two.safetensors
options="-q --model $golden/tiny-a --frames 1 --steps 2 --seed 5 --format png"
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" $options -o plain.png
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" $options --lora "$one:0.7" --lora "$two" -o lora.png
cmp -s plain.png lora.png && fail "LoRAs change nothing"
"$encode" probe --receipt lora.png |
    grep -q "\"loras\":\[{\"file\":\"$(digest_of "$one")\",\"weight\":0.[67][0-9]*},{\"file\":\"$(digest_of "$two")\",\"weight\":1.0}\]" ||
    fail "its receipt is $("$encode" probe --receipt lora.png)"
verified lora.png --model "$golden/tiny-a" --lora "$two" --lora "$one"
weir_ends 64 verify lora.png --model "$golden/tiny-a" --lora "$two" -q
said "the LoRA of digest $(digest_of "$one"): --lora FILE gives it again"
weir_ends 64 verify plain.png --model "$golden/tiny-a" --lora "$two" -q
said "the receipt names none of its digest $(digest_of "$two")"
cat >loras.jsonl <<END
{"prompt": "a red circle", "seed": 5}
{"prompt": "a red circle", "seed": 5, "loras": [{"file": "$one", "weight": 0.7}, {"file": "$two"}]}
END
# shellcheck disable=SC2086
weir_ends 0 run --prompts loras.jsonl $options -o loras/
cmp -s loras/1*.png plain.png || fail "line 1 of loras.jsonl is another picture than the one without LoRAs"
cmp -s loras/2*.png lora.png || fail "line 2 of loras.jsonl is another picture than the one with the same LoRAs"
# shellcheck disable=SC2086
weir_ends 74 run "a red circle" $options --lora "$work/none" -o none.png
said "LoRA $work/none: No such file"

# ---- a control image
head -c 12288 /dev/zero | tr '\000' '\200' | "$encode" image --width 64 --height 64 --format png -o gray.png
model=$golden/tiny-sana-control
weir_ends 0 run "a red circle" --model "$model" --seed 5 --control gray.png:0.5 -o control.png -q
weir_ends 0 run "a red circle" --model "$model" --seed 5 --control gray.png:1 -o more.png -q
cmp -s control.png more.png && fail "the scale of a control image changes nothing"
"$encode" probe --receipt control.png | grep -q "\"control\":\"$(digest_of gray.png)\",\"control_scale\":0.5," ||
    fail "its receipt is $("$encode" probe --receipt control.png)"
verified control.png --model "$model" --control gray.png
weir_ends 64 verify control.png --model "$model" -q
said "the control image of digest $(digest_of gray.png): --control FILE gives it again"

# ---- a picture to begin from
model=$golden/tiny-sana-b
weir_ends 0 run "a red circle" --model "$model" --seed 5 --image gray.png --strength 0.5 -o start.png -q
weir_ends 0 run "a red circle" --model "$model" --seed 5 -o plain.png -q
cmp -s start.png plain.png && fail "a picture to begin from changes nothing"
"$encode" probe --receipt start.png | grep -q "\"start_image\":\"$(digest_of gray.png)\",.*\"strength\":0.5," ||
    fail "its receipt is $("$encode" probe --receipt start.png)"
verified start.png --model "$model" --image gray.png
echo "no picture" >x
weir_ends 64 verify start.png --model "$model" --image x -q
said '--image x: the receipt names none of its digest'

echo "test_files: passed"
