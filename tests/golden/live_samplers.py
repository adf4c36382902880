"""Sets the samplers beside diffusers: timesteps at every step count, x after each step to 2e-6, and to the
bit once torch's log, sqrt and the like are rounded. Over a flow and for scm, at 1 to 50 steps.

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

from samplers_upstream import CONFIGS, kind_of, rounded_functions, run, scheduler, set_timesteps, steps_of

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


def timesteps_apart(kind, got, want):
    """For scm they come from a sine and a cosine, which torch does not round: 3 units in the last place at most."""
    if len(got) != len(want):
        return True
    return (np.abs(got - want) > (3e-7 if kind == "scm" else 0) * want).any()


class Compared:
    def __init__(self):
        self.worst, self.same, self.seen = 0.0, 0, 0

    def add(self, got, want):
        self.worst = max(self.worst, (np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)).max())
        self.same += int((got == want).sum())
        self.seen += got.size

    def merge(self, other):
        self.worst = max(self.worst, other.worst)
        self.same += other.same
        self.seen += other.seen

    def __str__(self):
        return f"{self.worst:.2e}, {self.same / max(self.seen, 1):.4%} the same bits"


def upstream(config, kind, steps):
    try:
        timesteps, want = run(config, kind, steps, N)
    except IndexError:  # its first timestep is there twice and it starts at the second
        return None, None
    return timesteps, want if np.isfinite(want).all() else None


def compare(binary, path, name, config, kind):
    """As torch is, and with its functions rounded; how many step counts are wrong."""
    torchs, rounded, wrong = Compared(), Compared(), 0
    known = kind_of(config, kind)
    for steps in steps_of(config, kind) if known in ("ddim", "dpm++") else range(1, 51):
        timesteps, want = upstream(config, kind, steps)
        got_timesteps, got = ours(binary, path, kind, steps, N, steps)
        if got is None or want is None:
            print(f"  {name} steps={steps}: ours {'runs' if got is not None else got_timesteps}; "
                  f"diffusers {'runs' if want is not None else 'cannot'}")
            wrong += (got is None) != (want is None)
            continue
        if timesteps_apart(known, got_timesteps, timesteps):
            print(f"  {name} steps={steps}: timesteps {got_timesteps} want {timesteps}")
            wrong += 1
            continue
        torchs.add(got, want)
        with rounded_functions():
            rounded.add(got, upstream(config, kind, steps)[1])
    print(f"{name}: {torchs}; with functions rounded {rounded}")
    return torchs, rounded, wrong


def every_timestep(binary, path, name, config, kind):
    wrong, twice = 0, 0
    for steps in range(1, 1001):
        want = set_timesteps(scheduler(config, kind), steps).numpy()
        got, rows = ours(binary, path, kind, steps, 16, 0)
        if rows is None and (want[1:] == want[0]).any():
            twice += 1  # neither can
        elif rows is None:
            print(f"  {name} steps={steps}: {got}; wanted {want[:2].tolist()}..., {len(want)}")
        elif timesteps_apart(kind_of(config, kind), got, want):
            off = np.abs(got - want)
            print(f"  {name} steps={steps}: {(off > 0).sum()} timesteps differ, by {off.max()} at most")
            # Karras' levels are looked up by numpy's f32 logarithm, which is not correctly rounded
            wrong += not config.get("use_karras_sigmas") or off.sum() > 1
    if twice:
        print(f"  {name}: the first timestep is there twice at {twice} of the step counts")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--full", action="store_true", help="timesteps at every step count from 1 to 1000")
    args = parser.parse_args()
    print("torch", torch.__version__, "diffusers", diffusers.__version__)
    torchs, rounded, wrong = Compared(), Compared(), 0
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "scheduler_config.json"))
        for name, (config, kind) in CONFIGS.items():
            pathlib.Path(path).write_text(json.dumps(config))
            a, b, apart = compare(args.binary, path, name, config, kind)
            torchs.merge(a)
            rounded.merge(b)
            wrong += apart
            if args.full:
                wrong += every_timestep(args.binary, path, name, config, kind)
    print(f"worst {torchs}; with functions rounded {rounded}; of {torchs.seen} values; {wrong} wrong")
    raise SystemExit(torchs.worst > TOLERANCE or rounded.same < rounded.seen or wrong > 0)


main()
