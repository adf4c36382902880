#!/bin/sh
# Whole requests through broker and worker, from Submit to the file on disk, on one GPU with models of full size:
#   tests/bench/requests.sh BUILD_DIR MODELS_DIR
# Folders with random weights are made in MODELS_DIR (15 GB) where they are missing. Prints, for each: one request at a
# time, many in flight, and the cold start; then the steps alone (weir-bench), whose share of the denoise stage's time is
# how busy the GPU was in its loop. WEIR_DEVICE names another device than cuda.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 BUILD_DIR MODELS_DIR" >&2; exit 64; }
here=$(dirname "$0")
build=$1
models=$2
device=${WEIR_DEVICE:-cuda}
work=$(mktemp -d)
serve=
stop() {
    [ -z "$serve" ] || kill "$serve" 2>/dev/null || true
    [ -z "$serve" ] || wait "$serve" 2>/dev/null || true
    serve=
}
trap 'stop; rm -rf "$work"' EXIT

[ -d "$models/sana16" ] || python3 "$here/../golden/make_sana16_random.py" "$models/sana16" >/dev/null
[ -d "$models/sprint16" ] ||
    python3 "$here/../golden/make_sana16_random.py" "$models/sprint16" --sprint "$models/sana16" >/dev/null
[ -d "$models/ms17b" ] || python3 "$here/../golden/make_ms17b_random.py" "$models/ms17b" >/dev/null
sync # 15 GB that are still on their way to the disk make every fsync wait

start() { # MODEL
    stop
    begin=$(date +%s.%N)
    "$build/bin/weir" serve --dir "$work/$1" --model "$models/$1" --device "$device" --precision bf16 >"$work/$1.log" 2>&1 &
    serve=$!
    until grep -q " welcome " "$work/$1.log"; do
        kill -0 "$serve" || { cat "$work/$1.log"; exit 1; }
        sleep 0.05
    done
}
requests() { # LABEL MODEL FLAGS...
    label=$1 model=$2
    shift 2
    echo "-- $label"
    "$build/bin/weir-requests" --dir "$work/$model" -o "$work/files" "$@"
}
first() { # MODEL FLAGS...: from the start of the cluster to the first file
    model=$1
    shift
    requests "$model: the first request" "$model" --requests 1 --warm 0 "$@"
    echo "from the start of the cluster: $(date +%s.%N | awk -v b="$begin" "{ printf \"%.2f\", \$1 - b }") s"
}

start sana16
set -- --size 1024x1024 --steps 20 --guidance 4.5 --format jpeg
first sana16 "$@"
requests "Sana-1.6B 1024x1024, 20 steps, guided, JPEG" sana16 --requests 20 "$@"
requests "the same, 32 in flight" sana16 --requests 160 --in-flight 32 "$@"
start sprint16
set -- --size 1024x1024 --steps 2 --format jpeg
first sprint16 "$@"
requests "Sprint-1.6B 1024x1024, 2 steps, JPEG" sprint16 --requests 40 "$@"
requests "the same, 32 in flight" sprint16 --requests 320 --in-flight 32 "$@"
start ms17b
set -- --size 256x256 --frames 16 --steps 25 --format mp4
first ms17b "$@"
requests "ms-1.7b 16x256x256, 25 steps, MP4" ms17b --requests 10 "$@"
requests "the same, 8 in flight" ms17b --requests 24 --in-flight 8 "$@"
stop
cp "$work"/*.log "$models/" 2>/dev/null || true
echo "-- the steps alone"
"$build/bin/weir-bench" --row sana-1024-2 --row sprint-1024-1 --row unet-16x256-2
