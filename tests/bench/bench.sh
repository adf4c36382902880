#!/bin/sh
# Weir's rows and PyTorch's on the same device, one after the other, as one table:
#   tests/bench/bench.sh BUILD_DIR [OUT_DIR]
# Wants a python3 with torch, diffusers and transformers (PYTHON names another).
set -eu
here=$(dirname "$0")
build=$1
out=${2:-$build}
"$build/bin/weir-bench" --json >"$out/weir.json"
"${PYTHON:-python3}" "$here/torch_rows.py" --out "$out/torch.json" --weir "$out/weir.json"
