#!/bin/sh
# Images through the whole road, and `weir verify`: every format with its receipt, the same bytes however the work is
# shared, and a word for every file that is not what it was.
#   test_images.sh BUILD_DIR SOURCE_DIR
set -eu
# shellcheck source=tests/integration/cluster.sh
. "$(dirname "$0")/cluster.sh"

made() { weir_ends 0 run "a red circle" --model "$tiny" --steps 2 --seed 5 -q "$@"; }
# verify_ends CODE PATTERN FILE OPTIONS...: the exit code, and what is printed: on stdout below 64, else one line on stderr
verify_ends() {
    code=$1 pattern=$2
    shift 2
    weir_ends "$code" verify "$@" -q
    spoken=$work/words silent=$work/stdout
    [ "$code" -ge 64 ] || spoken=$work/stdout silent=$work/words
    [ "$(wc -l <"$spoken")" = 1 ] || fail "weir verify $*: not one line"
    [ ! -s "$silent" ] || fail "weir verify $*: words on the other side, too"
    grep -q -e "$pattern" "$spoken" || fail "weir verify $*: no '$pattern' in $(cat "$spoken")"
}
run_refused() {
    code=$1 pattern=$2
    shift 2
    refused "$code" "$pattern" run "a red circle" --model "$tiny" --steps 2 -q "$@"
}
cd "$work/out"

# ---- every format, what it says it is, what it holds
for kind in png:png jpg:jpeg webp:webp; do
    file=a.${kind%:*} format=${kind#*:}
    made --frames 1 -o "$file"
    [ "$(cat "$work/stdout")" = "$file" ] || fail "the path of $file is not printed"
    "$encode" probe "$file" >"$work/facts"
    grep -q "{\"format\":\"$format\",.*\"frames\":1," "$work/facts" || fail "$file is no $format: $(cat "$work/facts")"
    "$encode" probe --receipt "$file" >"$work/receipt"
    grep -q '^{"encoder":"lib[^"]*","model_digest":"[0-9a-f]*","numerics_class":"[^"]*","spec":{.*"image":true,.*"seed":5,' \
        "$work/receipt" || fail "$file: receipt: $(cat "$work/receipt")"
    verified "$file" --model "$tiny"
done
"$encode" probe --raw a.png >"$work/png"
"$encode" probe --raw a.webp | cmp -s - "$work/png" || fail "PNG and WebP hold other pixels"
made --frames 1 -o frames/
"$encode" probe --raw frames | cmp -s - "$work/png" || fail "a folder of one frame holds another picture"
[ "$(ls frames)" = 00000.png ] || fail "a final / made no folder of one frame: $(ls frames)"

# ---- names, formats by flag, several, JSON
made --frames 1 --format jpeg
[ -f a-red-circle-5.jpg ] || fail "no name from the prompt: $(ls)"
cmp -s a-red-circle-5.jpg a.jpg || fail "another name, other bytes"
made --frames 1 -o n.png --n 2
cmp -s n-000-000.png a.png || fail "item 0 of two is another image than the one made alone"
"$encode" probe --receipt n-000-001.png | grep -q '"n":1,.*"seed":6,' || fail "item 1 does not have the next seed"
verified n-000-001.png --model "$tiny"
made --frames 1 --json -o j.png
grep -q '"stage":"decode"' "$work/stdout" || fail "--json shows no tasks"
grep -q '"stage":"assemble"' "$work/stdout" && fail "an image was assembled"
grep -q '"name":"image.png",.*"media_type":"image/png"' "$work/stdout" || fail "--json: $(cat "$work/stdout")"
grep -q '"receipt":{' "$work/stdout" || fail "--json shows no receipt"

# ---- the same bytes however the work is shared
for kind in png jpg webp; do
    made --frames 1 -o "s.$kind" --workers text=1,denoise=1,decode=1 --threads 1
    cmp -s "a.$kind" "s.$kind" || fail "split stages and one thread made another $kind"
done
made --frames 1 -o s.png --workers 3
cmp -s a.png s.png || fail "three workers made another image"
verified a.png --model "$tiny" --workers text=1,denoise=1,decode=1

# ---- models that make pictures without a word about it
for model in tiny-sana-a tiny-sana-b; do
    tiny=$golden/$model
    made --seed 7 -o $model.png
    "$encode" probe --receipt $model.png | grep -q '"fps":1,.*"frames":1,.*"image":true,' || fail "$model: $(cat "$work/words")"
    made --seed 7 -o s.png --workers text=1,denoise=1,decode=1 --threads 1
    cmp -s $model.png s.png || fail "$model: split stages and one thread made another picture"
    verified $model.png --model "$tiny"
    run_refused 64 '--frames is 2; this model makes pictures' --frames 2 -o x.png
done
"$encode" probe tiny-sana-a.png | grep -q '"width":72,"height":56' || fail "not resized: $("$encode" probe tiny-sana-a.png)"
made --seed 3 --n 2 -o pictures/
[ "$(ls pictures)" = "a-red-circle-3.png
a-red-circle-4.png" ] || fail "a final / and pictures: $(ls pictures)"
run_refused 64 '--negative: model tiny-sana-b takes none' --negative "a blue star" -o x.png
run_refused 64 'takes: scm' --sampler ddim -o x.png
tiny=$golden/tiny-a

# ---- the shipped model of two steps, whose folder shares parts with another's, by its name and with its defaults
"$weir" models >"$work/words"
grep -q '^shapes-sana-sprint .*SanaSprintPipeline: .*, 256x256, 2 steps, guidance 4.5, sampler scm$' "$work/words" ||
    fail "weir models does not list shapes-sana-sprint"
weir_ends 0 run "a red circle left of a blue star on a gray background" --model shapes-sana-sprint --seed 1 -q -o sprint.png
"$encode" probe sprint.png | grep -q '"width":256,"height":256' || fail "shapes-sana-sprint: $("$encode" probe sprint.png)"
"$encode" probe --receipt sprint.png | grep -q '"model":"shapes-sana-sprint",.*"sampler":"scm",.*"steps":2,' ||
    fail "shapes-sana-sprint: receipt: $("$encode" probe --receipt sprint.png)"
verified sprint.png
# ---- in bf16: cpu where the processor has it, else ref, whose every product is rounded in the same way
device="--device cpu"
if ! "$weir" run "a red circle" --model "$tiny" --steps 1 --frames 1 --size 32x32 --precision bf16 -q -o x.png \
    >"$work/stdout" 2>"$work/words"; then
    said '--precision bf16: this processor has neither AMX nor AVX512-BF16; f32 is offered'
    device="--device ref"
fi
rm -f x.png
for model in tiny-a tiny-sana-a; do
    tiny=$golden/$model
    made --frames 1 -o f32.png $device
    made --frames 1 -o bf16.png --precision bf16 $device
    cmp -s f32.png bf16.png && fail "$model: bf16 is f32"
    "$encode" probe --receipt bf16.png | grep -q '"numerics_class":"[^"]*-bf16.*"precision":"bf16"' ||
        fail "$model: the receipt does not say bf16"
    verified bf16.png --model "$tiny"
    made --frames 1 -o s.png --precision bf16 --workers text=1,denoise=1,decode=1 --threads 1 $device
    cmp -s bf16.png s.png || fail "$model in bf16: split stages and one thread made another picture"
done
tiny=$golden/tiny-a
if [ "$device" = "--device cpu" ]; then
    export ONEDNN_MAX_CPU_ISA=AVX512_CORE # a processor without
    run_refused 64 '--precision bf16: this processor has neither AMX nor AVX512-BF16; f32 is offered' --precision bf16 -o x.png
    verify_ends 2 '^made on cpu-.*-bf16-.*, cannot be replayed here: .*--precision bf16: this processor has' bf16.png --model "$tiny"
    unset ONEDNN_MAX_CPU_ISA
fi
run_refused 64 '--precision' --precision f16 -o x.png

# ---- films and folders are verified, too
made --frames 20 -o f.mp4
made --frames 2 -o f.gif
made --frames 2 -o two.png # of more frames than one it is a folder, as ever
for film in f.mp4 f.gif two.png frames; do verified $film --model "$tiny"; done

# ---- what is not what it was
flip() { # flip FILE OFFSET: another byte there
    cp a."$1" t."$1"
    byte=$(dd if=t."$1" bs=1 skip="$2" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of=t."$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
for kind in png jpg webp; do
    size=$(stat -c %s "a.$kind")
    case $kind in webp) at=2000 ;; *) at=$((size - 1000)) ;; esac # of WebP the pixels come first
    flip "$kind" $at
    verify_ends 1 '^differs$' "t.$kind" --model "$tiny"
done
rm -rf cut && cp -r two.png cut && rm cut/00001.png
verify_ends 1 '^differs$' cut --model "$tiny"
sed 's/"seed":5,/"seed":6,/' a.jpg >t.jpg # a receipt that claims another seed; a COM segment has no checksum
verify_ends 1 '^differs$' t.jpg --model "$tiny"
sed 's/"numerics_class":"cpu/"numerics_class":"gpu/' a.jpg >t.jpg
verify_ends 2 '^made on gpu-.*, cannot be replayed here: this is cpu-' t.jpg --model "$tiny"
verify_ends 2 '^made on cpu-.*, cannot be replayed here: this is ref-' a.jpg --model "$tiny" --device ref
sed 's/"encoder":"libjpeg-turbo 2/"encoder":"libjpeg-turbo 1/; s/"encoder":"libjpeg-turbo 3/"encoder":"libjpeg-turbo 1/' a.jpg >t.jpg
verify_ends 2 '^made on libjpeg-turbo 1.*cannot be replayed here: this is libjpeg-turbo' t.jpg --model "$tiny"
cp -r "$tiny" other
verify_ends 2 'called tiny-a, cannot be replayed here: it is called other' a.png --model other
mkdir renamed && cp -r "$golden/tiny-b" renamed/tiny-a
verify_ends 2 'cannot be replayed here: .*another digest' a.png --model renamed/tiny-a
sed 's/"weir":1}/"weir":2}/' a.jpg >t.jpg
verify_ends 74 't.jpg: its receipt is none that this build can replay: weir' t.jpg --model "$tiny"
sed 's/"model":"tiny-a"/"model":"..\/tin"/' a.jpg >t.jpg # as many bytes
verify_ends 74 'no name' t.jpg
head -c 300 a.png >t.png
verify_ends 74 't.png: PNG: ' t.png --model "$tiny"
echo "not a picture at all, and no film" >t.png
verify_ends 74 't.png: neither MP4, WebM, GIF nor a picture' t.png
head -c 12288 /dev/zero | "$encode" image --width 64 --height 64 --format png -o bare.png
verify_ends 74 'bare.png: carries no receipt' bare.png
verify_ends 74 'absent.png: No such file' absent.png
verify_ends 74 'tiny-a.*not found' a.png
verify_ends 64 '2 files' a.png a.jpg

# ---- a contact sheet: each picture in its cell, made smaller by averaging, never larger
solid() { head -c $(($1 * $2 * 3)) /dev/zero | tr '\000' "$3" | "$encode" image --width "$1" --height "$2" --format "$4" -o "$5"; }
solid 320 160 '\100' png wide.png
solid 100 160 '\200' webp high.webp
solid 30 30 '\300' jpeg small.jpg
"$encode" sheet -o sheet.png wide.png high.webp small.jpg
"$encode" probe sheet.png | grep -q '"width":332,"height":332' || fail "the sheet is $("$encode" probe sheet.png)"
"$encode" probe --raw sheet.png >"$work/raw"
bytes_of() { tr -cd "$1" <"$work/raw" | wc -c; }
[ "$(bytes_of '\100')" = 38400 ] && [ "$(bytes_of '\200')" = 48000 ] && [ "$(bytes_of '\300')" = 2700 ] ||
    fail "the sheet has $(bytes_of '\100'), $(bytes_of '\200') and $(bytes_of '\300') bytes of the three"
[ "$(head -c $(((4 * 332 + 4) * 3)) "$work/raw" | tr -d '\377' | wc -c)" = 0 ] || fail "its border is not white"
if "$encode" sheet -o no.png wide.png absent.png 2>"$work/words"; then fail "a sheet of a picture that is not there"; fi
grep -q 'absent.png: No such file' "$work/words" && [ ! -e no.png ] || fail "absent.png: words"
if "$encode" sheet -o no.png t.png 2>"$work/words"; then fail "a sheet of what is no picture"; fi
[ ! -e no.png ] || fail "a sheet was left"

# ---- what cannot be asked for
run_refused 64 '--frames 3: a jpeg image holds 1' --frames 3 -o x.jpg
run_refused 64 '--frames [0-9]*: a webp image holds 1' -o x.webp # as many as the model makes by itself
run_refused 64 'contradicts' --frames 1 --format webp -o x.png
run_refused 64 '--codec vp9: webp has none' --frames 1 --codec vp9 -o x.webp
run_refused 64 '--format' --format bmp

# ---- a cluster that stays: submit, wait, fetch; several images of one job
start "$work/serve" --model "$tiny" --workers text=1,denoise=1,decode=1
job=$("$weir" submit "a red circle" --steps 2 --seed 5 --n 3 --frames 1 --format webp --dir "$work/serve") || fail "submit"
"$weir" wait --dir "$work/serve" "$job" >"$work/stdout" || fail "job $job: $(cat "$work/stdout")"
"$weir" fetch --dir "$work/serve" "$job" -o fetched >"$work/stdout"
[ "$(ls fetched)" = "$job-000.webp
$job-001.webp
$job-002.webp" ] || fail "fetched: $(ls fetched)"
cmp -s "fetched/$job-000.webp" a.webp || fail "a cluster made another image"
"$weir" show --dir "$work/serve" "$job" | grep -q '^image     64x64, 2 steps' || fail "show does not call it an image"
stop
nothing_left "serve"

echo "test_images: passed"
