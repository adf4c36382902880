"""Makes pictures of a demo model with `weir run` and scores them with the picture checker.

    score_images.py --weir build/dev/bin/weir --encode build/dev/bin/weir-encode --model shapes-sana
    score_images.py ... --limit 8                               a few, for check.sh

Prompts: --seen scenes that training could draw and --held-out ones that it could not, one of every group (see
grammar_images.group) before a group comes a second time, one in four of a single thing; chosen by --seed. Prints a line a
picture and the percentages; exit code 1 when one is below its threshold.
"""
import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import check_image
from scoring import choose, percentages, row, run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar_images as grammar  # noqa: E402


def prompts(seen, held_out, seed):
    """[(group, caption)]: the captions to be judged, the same for equal arguments."""
    rng = np.random.default_rng(seed)
    out = []
    for name, known, count in (("seen", True, seen), ("held-out", False, held_out)):
        every = grammar.scenes(seen=known)
        for alone, part in ((True, count // 4), (False, count - count // 4)):
            some = [scene for scene in every if alone != bool(scene.relation)]
            chosen = choose(some, grammar.group, part, rng)
            out += [(name, grammar.caption(grammar.Scene(*scene))) for scene in chosen]
    return out


def pixels_of(picture, encode):
    """The decoded RGB pixels of a picture, [H, W, 3]."""
    facts = json.loads(run([encode, "probe", picture]))
    raw = run([encode, "probe", "--raw", picture])
    return np.frombuffer(raw, dtype=np.uint8).reshape(facts["height"], facts["width"], 3)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--weir", type=pathlib.Path, required=True, help="the weir program")
    parser.add_argument("--encode", type=pathlib.Path, required=True, help="the weir-encode program")
    parser.add_argument("--model", required=True, help="model folder or name for weir run")
    parser.add_argument("--seen", type=int, default=200, help="prompts of scenes that training could draw")
    parser.add_argument("--held-out", type=int, default=60, help="prompts of scenes that it could not")
    parser.add_argument("--limit", type=int, help="so many pictures in all, a quarter of them held out")
    parser.add_argument("--seed", type=int, default=2026, help="of the prompts; picture i is made with seed + i")
    parser.add_argument("--keep", type=pathlib.Path, help="folder to leave the pictures in")
    for group, least in (("seen", 92.0), ("held-out", 85.0)):
        parser.add_argument(f"--{group}-all", type=float, default=least, dest=f"{group}/all",
                            help="percent of the pictures of which all must be right")
    parser.add_argument("rest", nargs="*", help="after --: further arguments for weir run, --steps 10 say")
    args = parser.parse_args()
    if args.limit is not None:
        args.held_out = args.limit // 4
        args.seen = args.limit - args.held_out
    return args


def main():
    """Make, judge, print, compare with the thresholds."""
    args = parse()
    results = []
    with tempfile.TemporaryDirectory(prefix="weir-score-") as temporary:
        folder = args.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("   # group    co sh re ba   made in  caption")
        for index, (group, caption) in enumerate(prompts(args.seen, args.held_out, args.seed)):
            picture = folder / f"{index:03}.png"
            begin = time.monotonic()
            run([args.weir, "run", caption, "--seed", str(args.seed + index), "-o", picture, "--model", args.model,
                 *args.rest])
            seconds = time.monotonic() - begin
            verdict = check_image.check(pixels_of(picture, args.encode))
            right = verdict.right(caption)
            results.append((group, right))
            print(row(index, group, caption, right, verdict, seconds), flush=True)
    good = True
    for (group, slot), value in percentages(results).items():
        least = vars(args).get(f"{group}/{slot}")
        enough = least is None or value >= least
        good = good and enough
        print(f"{group:8} {slot:10} {value:6.1f}%" + ("" if least is None else f" (at least {least}%)")
              + ("" if enough else "  TOO FEW"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
