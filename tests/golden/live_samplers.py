"""Sets the samplers beside diffusers: timesteps at every step count, x after each step to 2e-6.

    python live_samplers.py --binary BUILD/bin/sampler_tool [--full]
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import diffusers
import numpy as np
import torch

from samplers_upstream import CONFIGS, STEPS, run, scheduler

TOLERANCE = 2e-6
N = 1024


def ours(binary, path, kind, steps, n, seed):
    done = subprocess.run([binary, "run", path, kind or "-", str(steps), str(n), str(seed)], capture_output=True)
    if done.returncode != 0:
        return done.stderr.decode().strip(), None
    raw = done.stdout
    count = int(np.frombuffer(raw[:4], np.uint32)[0])
    timesteps = np.frombuffer(raw[4 : 4 + 8 * count], np.float64)
    return timesteps, np.frombuffer(raw[4 + 8 * count :], np.float32).reshape(count, n)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--full", action="store_true", help="timesteps at every step count from 1 to 1000")
    args = parser.parse_args()
    print("torch", torch.__version__, "diffusers", diffusers.__version__)
    worst, wrong, equal, compared = 0.0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "scheduler_config.json"))
        for name, (config, kind) in CONFIGS.items():
            pathlib.Path(path).write_text(json.dumps(config))
            here = 0.0
            for steps in STEPS:
                x = torch.randn(N, generator=torch.Generator("cpu").manual_seed(steps))
                try:
                    timesteps, want = run(config, kind, steps, x)
                    usable = np.isfinite(want).all()
                except IndexError:  # its first timestep is there twice and it starts at the second
                    usable = False
                got_timesteps, got = ours(args.binary, path, kind, steps, N, steps)
                if got is None or not usable:
                    print(f"  {name} steps={steps}: ours {'runs' if got is not None else got_timesteps}; "
                          f"diffusers {'runs' if usable else 'cannot'}")
                    wrong += (got is not None) != usable
                    continue
                if not np.array_equal(timesteps, got_timesteps):
                    print(f"  {name} steps={steps}: timesteps {got_timesteps} want {timesteps}")
                    wrong += 1
                    continue
                error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
                here = max(here, error.max())
                equal += int((got == want).sum())
                compared += got.size
            print(f"{name}: {here:.2e}")
            worst = max(worst, here)
            if args.full:
                for steps in range(1, 1001):
                    s = scheduler(config, kind)
                    s.set_timesteps(steps)
                    got, rows = ours(args.binary, path, kind, steps, 16, 0)
                    if rows is None:
                        print(f"  {name} steps={steps}: {got}; wanted {s.timesteps[:2].tolist()}..., {len(s.timesteps)}")
                    elif not np.array_equal(got, s.timesteps.numpy()):
                        off = np.abs(got - s.timesteps.numpy())
                        print(f"  {name} steps={steps}: {(off > 0).sum()} timesteps differ, by {off.max()} at most")
                        # Karras' levels are looked up by numpy's f32 logarithm, which is not correctly rounded
                        wrong += not config.get("use_karras_sigmas") or off.sum() > 1
    print(f"worst {worst:.2e}, {equal / compared:.2%} of {compared} values the same bits, {wrong} wrong")
    raise SystemExit(worst > TOLERANCE or wrong > 0)


main()
