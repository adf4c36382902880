"""What trials of both models share: choosing prompts, running programs, the table and the percentages."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np


def choose(scenes, key, count, rng):
    """`count` of the scenes: one of every group of equal key before a group comes a second time."""
    groups = {}
    for scene in scenes:
        groups.setdefault(key(scene), []).append(scene)
    for group in groups.values():
        rng.shuffle(group)
    chosen = []
    while len(chosen) < count and any(groups.values()):
        keys = [name for name, group in groups.items() if group]
        rng.shuffle(keys)
        chosen += [groups[tuple(name)].pop() for name in keys[:count - len(chosen)]]
    return chosen


def run(command):
    """Standard output of a command; a failure ends the program with the command's own words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}: "
                 f"{done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def row(index, group, caption, right, verdict, seconds):
    """One line of the table: `right` is {slot: whether it is}."""
    marks = " ".join("ok" if good else "--" for good in right.values())
    note = "" if all(right.values()) else f"   [{verdict.note}]"
    return f"{index:4} {group:8} {marks} {seconds:6.1f} s  {caption}{note}"


def percentages(results):
    """{(group, slot): percent right}, and (group, 'all'), of results [(group, {slot: right})]."""
    out = {}
    for group in sorted({group for group, _ in results}, reverse=True):
        rows = [right for name, right in results if name == group]
        for slot in rows[0]:
            out[group, slot] = 100.0 * sum(right[slot] for right in rows) / len(rows)
        out[group, "all"] = 100.0 * sum(all(right.values()) for right in rows) / len(rows)
    return out


def parser(description, model, limits):
    """The command line of a trial by `weir run`; limits: {(group, slot): percent that must be right}."""
    out = argparse.ArgumentParser(description=description.split("\n", maxsplit=1)[0],
                                  formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    out.add_argument("--weir", type=pathlib.Path, help="the weir program")
    out.add_argument("--encode", type=pathlib.Path, help="the weir-encode program")
    out.add_argument("--list", action="store_true", help="print the seeds and prompts alone, for pipeline_tool list")
    out.add_argument("--raw", type=pathlib.Path, help="judge what pipeline_tool list wrote, instead of running weir")
    out.add_argument("--size", default="1x256x256", help="frames x height x width of a result in --raw")
    out.add_argument("--model", default=model, help="model folder or name for weir run")
    out.add_argument("--seen", type=int, default=200, help="prompts that training could have seen")
    out.add_argument("--held-out", type=int, default=60, help="prompts that it could not")
    out.add_argument("--limit", type=int, help="so many in all, a quarter of them held out")
    out.add_argument("--seed", type=int, default=2026, help="of the prompts; result i is made with seed + i")
    out.add_argument("--keep", type=pathlib.Path, help="folder to leave the results in")
    for (group, slot), least in limits.items():
        out.add_argument(f"--{group}-{slot}", type=float, default=least, dest=f"{group}/{slot}",
                         help="percent that must be right")
    out.add_argument("rest", nargs="*", help="after --: further arguments for weir run, --steps 10 say")
    return out


def made_by_weir(args, index, caption, path):
    """RGB frames [T, H, W, 3] that `weir run` makes, by way of a file."""
    run([args.weir, "run", caption, "--seed", str(args.seed + index), "-o", path, "--model", args.model, *args.rest])
    facts = json.loads(run([args.encode, "probe", path]))
    raw = np.frombuffer(run([args.encode, "probe", "--raw", path]), dtype=np.uint8)
    return raw.reshape(-1, facts["height"], facts["width"], 3)


def trial(args, prompts, ending, check, head):
    """Makes, judges, prints, compares with the limits: 0, or 1 when one is missed. prompts(seen, held_out, seed) gives
    [(group, caption)]; check(RGB frames [T, H, W, 3]) a verdict."""
    if args.limit is not None:
        args.held_out = args.limit // 4
        args.seen = args.limit - args.held_out
    wanted = prompts(args.seen, args.held_out, args.seed)
    if args.list:
        for index, (_, caption) in enumerate(wanted):
            print(args.seed + index, caption)
        return 0
    if not args.raw and not (args.weir and args.encode):
        sys.exit("either --raw, or --weir and --encode are needed")
    raw = args.raw and np.memmap(args.raw, mode="r").reshape(len(wanted), *map(int, args.size.split("x")), 3)
    results = []
    with tempfile.TemporaryDirectory(prefix="weir-score-") as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"   # group    {head}   made in  caption")
        for index, (group, caption) in enumerate(wanted):
            begin = time.monotonic()
            frames = raw[index] if args.raw else made_by_weir(args, index, caption, folder / f"{index:03}{ending}")
            seconds = time.monotonic() - begin
            verdict = check(frames)
            results.append((group, verdict.right(caption)))
            print(row(index, group, caption, results[-1][1], verdict, seconds), flush=True)
    good = True
    for (group, slot), value in percentages(results).items():
        least = vars(args).get(f"{group}/{slot}")
        enough = least is None or value >= least
        good = good and enough
        print(f"{group:8} {slot:10} {value:6.1f}%" + ("" if least is None else f" (at least {least}%)")
              + ("" if enough else "  TOO FEW"))
    return 0 if good else 1
