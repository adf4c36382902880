"""Makes noise.json: what torch's CPU generator draws.

    python make_noise.py      (torch on an x86-64 CPU with AVX2; its version goes into the file)

A case is one generator and the calls of randn that were made with it, one after the other. `head` holds the bits of the
first 4 numbers of each call as f32, `sha256` is over the f32 bytes of all calls.
"""
import hashlib
import json
import pathlib

import torch

# (seed, type, counts): both paths, a spare carried from one call to the next, tails of every kind, real sizes
CASES = [(seed, kind, counts) for kind in ("f32", "f16") for seed, counts in (
    (0, [16]), (42, [1]), (42, [5]), (42, [20]), (1, [3, 5, 7]), (1, [5, 32, 2]), (7, [15, 16, 17]), (7, [31, 32, 33]),
    (2**32 - 1, [65]), (2**32 + 7, [64]), (2**63 + 5, [1, 1, 1]), (123456789, [624, 623, 625]), (3, [100003]),
    (2024, [4 * 16 * 16 * 16]), (2025, [4 * 16 * 32 * 32]))]


def main():
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    cases = []
    for seed, kind, counts in CASES:
        generator = torch.Generator("cpu").manual_seed(seed)
        dtype = {"f32": torch.float32, "f16": torch.float16}[kind]
        calls = [torch.randn(count, generator=generator, dtype=dtype).float().numpy() for count in counts]
        digest = hashlib.sha256(b"".join(call.tobytes() for call in calls)).hexdigest()
        head = ["".join(f"{bits:08x}" for bits in call[:4].view("uint32")) for call in calls]
        cases.append({"seed": str(seed), "type": kind, "counts": counts, "head": head, "sha256": digest})
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps({"made_by": "make_noise.py", "torch": torch.__version__})[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    pathlib.Path(__file__).with_name("noise.json").write_text(text)
    print(len(cases), "cases,", len(text), "bytes")


main()
