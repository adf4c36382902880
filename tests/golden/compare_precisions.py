"""Sets whole runs of pipeline_tool in bf16 beside the same runs in f32: embedding, latents and 8-bit pictures.

    python3 tests/golden/compare_precisions.py MODEL --tool BUILD/bin/pipeline_tool [--prompt TEXT]... [WISH...]

WISH is pipeline_tool's: steps=20, seed=3, ... Prints a line a prompt: distances ||a - b|| / ||b||, the mean and the largest
difference of values of the pictures, of 255, and how many differ by more than 8; and the processor time of both.
"""
import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np


def run(args, prompt, precision, folder):
    out = Path(folder) / precision
    done = subprocess.run([args.tool, "film", args.model, args.device, out, prompt, args.negative, *args.wish,
                           f"precision={precision}"], check=True, capture_output=True, text=True)
    seconds = float(re.search(r"^class=.* processor_seconds=(\S+)", done.stdout, re.M)[1])
    return [np.fromfile(f"{out}.{name}", kind) for name, kind in
            (("embedding", np.float32), ("latents", np.float32), ("rgb", np.uint8))], seconds


def distance(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model")
    parser.add_argument("--tool", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", action="append")
    parser.add_argument("--negative", default="")
    parser.add_argument("wish", nargs="*")
    args = parser.parse_intermixed_args()
    for prompt in args.prompt or ["a red circle"]:
        with tempfile.TemporaryDirectory() as folder:
            (plain, plain_seconds), (rounded, seconds) = (run(args, prompt, p, folder) for p in ("f32", "bf16"))
        apart = np.abs(plain[2].astype(int) - rounded[2].astype(int))
        print(f"{prompt!r}: embedding {distance(rounded[0], plain[0]):.1e} latents {distance(rounded[1], plain[1]):.1e} "
              f"values mean {apart.mean():.2f} largest {apart.max()} over 8: {100 * (apart > 8).mean():.2f}% "
              f"processor {plain_seconds:.2f} {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
