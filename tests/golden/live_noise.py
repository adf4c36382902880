"""Sets the generator beside torch, bit for bit: many seeds, many sizes.

    python live_noise.py --binary BUILD/bin/sampler_tool [--seeds 200]
"""
import argparse
import random
import subprocess

import numpy as np
import torch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seeds", type=int, default=200)
    args = parser.parse_args()
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    rng = random.Random(5)
    numbers = wrong = 0
    for i in range(args.seeds):
        seed = rng.choice([i, rng.getrandbits(32), rng.getrandbits(63)])
        counts = [rng.choice([rng.randint(1, 40), rng.randint(1, 3000), 16 * rng.randint(1, 200)])
                  for _ in range(rng.randint(1, 6))]
        if i % 20 == 0:
            counts.append(1_000_000 + i)
        for kind, dtype in (("f32", torch.float32), ("f16", torch.float16)):
            command = [args.binary, "noise", str(seed), kind] + [str(count) for count in counts]
            got = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint32)
            generator = torch.Generator("cpu").manual_seed(seed)
            want = torch.cat([torch.randn(n, generator=generator, dtype=dtype) for n in counts]).float().numpy()
            differing = int((got != want.view(np.uint32)).sum()) if len(got) == len(want) else len(want)
            if differing:
                print(f"seed {seed} {kind} {counts}: {differing} numbers differ")
            wrong += differing
            numbers += len(want)
    print(f"torch {torch.__version__}: {wrong} of {numbers} numbers differ")
    raise SystemExit(wrong > 0)


main()
