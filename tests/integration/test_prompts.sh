#!/bin/sh
# Files of prompts through the whole road: what each line says, the same bytes as one by one, broken lines that cost
# themselves, a batch of several jobs by one id, a fetch that goes on, a manifest and a contact sheet.
#   test_prompts.sh BUILD_DIR SOURCE_DIR
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"
cd "$work/out"
options="--model $tiny --frames 1 --format png --steps 2 -q"

# ---- every form of file, the same pictures, and those of one prompt alone
cat >p.jsonl <<END
{"prompt": "a red circle", "seed": 5}
{"prompt": "a blue star", "seed": 6, "size": "96x64"}

{"prompt": "a red circle", "seed": 7, "steps": 3, "guidance": 2.5, "negative": "a green square"}
END
cat >p.csv <<END
prompt,seed,size,steps,guidance,negative
a red circle,5,,,,

"a blue star",6,96x64,,,
a red circle,7,,3,2.5,"a green square"
END
# shellcheck disable=SC2086
weir_ends 0 run --prompts p.jsonl --n 2 $options -o json/
[ "$(ls json)" = "1-0.png
1-1.png
2-0.png
2-1.png
4-0.png
4-1.png
contact-sheet.png
manifest.json" ] || fail "of p.jsonl came $(ls json)"
# shellcheck disable=SC2086
weir_ends 0 run --prompts p.csv $options -o csv/
cmp -s json/1-0.png csv/2-0.png && cmp -s json/2-0.png csv/4-0.png && cmp -s json/4-0.png csv/5-0.png ||
    fail "p.csv makes other pictures than p.jsonl"
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" --seed 6 $options -o alone.png
cmp -s alone.png json/1-1.png || fail "item 1 of line 1 is another picture than the one made alone"
# shellcheck disable=SC2086
weir_ends 0 run "a red circle" --seed 7 --model "$tiny" --frames 1 --steps 3 --guidance 2.5 --negative "a green square" \
    --format png -q -o alone.png
cmp -s alone.png json/4-0.png || fail "line 4 is another picture than the one made alone"
"$encode" probe json/2-1.png | grep -q '"width":96,"height":64' || fail "line 2 is not 96x64: $("$encode" probe json/2-1.png)"
printf '# pictures\na red circle\n\na blue star\n' >p.txt
# shellcheck disable=SC2086
weir_ends 0 run --prompts p.txt --seed 5 $options -o txt/
cmp -s txt/2-0.png json/1-0.png || fail "p.txt makes another picture"

# ---- what stands in the manifest, the sheet, the receipts
"${PYTHON:-/usr/bin/python3}" - json/manifest.json <<'END' || fail "the manifest is not what it should be"
import hashlib, json, os, sys
path = sys.argv[1]
items = json.load(open(path))["items"]
assert [(i["line"], i["index"], i["seed"]) for i in items] == [(1, 0, 5), (1, 1, 6), (2, 0, 6), (2, 1, 7), (4, 0, 7), (4, 1, 8)]
for item in items:
    data = open(os.path.join(os.path.dirname(path), item["file"]), "rb").read()
    assert len(data) == item["bytes"] and hashlib.sha256(data).hexdigest() == item["sha256"]
assert items[2]["prompt"] == "a blue star"
END
"$encode" probe json/contact-sheet.png | grep -q '"format":"png"' || fail "no contact sheet"
weir_ends 0 verify json/4-1.png --model "$tiny" -q
echo "no picture" >x
weir_ends 64 verify json/4-1.png --model "$tiny" --lora x -q
said '--lora x: the receipt names none of its digest [0-9a-f]*'

# ---- broken lines cost themselves
cat >bad.jsonl <<END
{"prompt": "a red circle", "seed": 5}
{"prompt": "a red circle", "size": "33x33"}
{"prompt": "a red circle", "steps": 0}
nothing
{"prompt": "a blue star", "seed": 6, "size": "96x64"}
END
# shellcheck disable=SC2086
weir_ends 3 run --prompts bad.jsonl $options -o bad/
said '^bad.jsonl:2: --size: .*33.*multiple of 8'
said '^bad.jsonl:3: steps 0: a whole number from 1 to 1000 is wanted$'
said '^bad.jsonl:4: not a JSON object'
cmp -s bad/1-0.png json/1-0.png && cmp -s bad/5-0.png json/2-0.png || fail "the other lines are not there"
[ ! -e bad/2-0.png ] || fail "a refused line was made"
printf '{"prompt": "x", "size": "33x33"}\n' >bad.jsonl
# shellcheck disable=SC2086
weir_ends 64 run --prompts bad.jsonl $options -o none/
said '^bad.jsonl:1: --size: .*33'
[ ! -e none ] || fail "what was refused left a folder"

# ---- films
# shellcheck disable=SC2086
weir_ends 0 run --prompts p.txt --seed 5 --model "$tiny" --frames 4 --steps 2 -q --format gif -o films/
[ "$(ls films)" = "2-0.gif
4-0.gif
manifest.json" ] || fail "of films came $(ls films)"

# ---- a cluster that stays
start "$work/serve" --model "$tiny" --workers text=1,denoise=1,decode=1
weir_ends 0 submit --prompts p.jsonl --n 2 --frames 1 --format png --steps 2 --key mine --dir "$work/serve"
job=$(cat "$work/stdout")
weir_ends 0 submit --prompts p.jsonl --n 2 --frames 1 --format png --steps 2 --key mine --dir "$work/serve"
[ "$(cat "$work/stdout")" = "$job" ] || fail "the same key and file made another job"
weir_ends 0 wait --dir "$work/serve" "$job"
grep -q "^$job succeeded, 6 of 6 images$" "$work/stdout" || fail "wait says $(cat "$work/stdout")"
weir_ends 0 fetch --dir "$work/serve" "$job" -o fetched/
for picture in 1-0 1-1 2-0 2-1 4-0 4-1; do
    cmp -s "fetched/$picture.png" "json/$picture.png" || fail "a cluster made another $picture.png"
done
inode=$(stat -c %i fetched/1-0.png)
rm fetched/4-1.png
echo broken >fetched/2-0.png
weir_ends 0 fetch --dir "$work/serve" "$job" -o fetched/
cmp -s fetched/4-1.png json/4-1.png && cmp -s fetched/2-0.png json/2-0.png || fail "a fetch did not go on"
[ "$(stat -c %i fetched/1-0.png)" = "$inode" ] || fail "a fetch wrote again what was there"

# ---- a batch of two jobs: 260 items of each line
printf 'a red circle\na blue star\n' >many.txt
weir_ends 0 submit --prompts many.txt --n 260 --frames 1 --steps 1 --size 32x32 --format jpeg --dir "$work/serve"
batch=$(cat "$work/stdout")
weir_ends 0 ls --dir "$work/serve"
[ "$(grep -c "batch $batch [12]/2" "$work/stdout")" = 2 ] || fail "weir ls does not mark the batch: $(cat "$work/stdout")"
weir_ends 0 wait --dir "$work/serve" "$batch"
grep -q "^$batch succeeded, 520 of 520 images$" "$work/stdout" || fail "wait says $(cat "$work/stdout")"
weir_ends 0 fetch --dir "$work/serve" "$batch" -o many/
[ "$(ls many | wc -l)" = 522 ] && [ -f many/1-000.jpg ] && [ -f many/2-259.jpg ] || fail "of the batch came $(ls many | wc -l)"
weir_ends 0 submit --prompts many.txt --n 260 --frames 1 --format png --steps 500 --dir "$work/serve"
batch=$(cat "$work/stdout")
weir_ends 0 cancel --dir "$work/serve" "$batch"
grep -q 'cancelled, 2 of 2 jobs' "$work/stdout" || fail "cancel says $(cat "$work/stdout")"
weir_ends 74 wait --dir "$work/serve" "$batch"
stop
nothing_left "serve"

echo "test_prompts: passed"
