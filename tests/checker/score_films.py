"""Makes films of the demo model with `weir run` and scores them with the film checker.

    score_films.py --weir build/dev/client/weir --encode build/dev/worker/weir-encode
    score_films.py --weir ... --encode ... --limit 8            a few, for check.sh

Prompts: --seen of the (colour, shape, motion) triples that training saw and --held-out of those it did not, each with a
background, chosen by --seed. Prints a line a film and the percentages; exit code 1 when one is below its threshold.
"""
import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

import check_film
from scoring import choose, percentages, row, run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar  # noqa: E402


def prompts(seen, held_out, seed):
    """[(group, caption)]: the captions to be judged, the same for equal arguments."""
    rng = np.random.default_rng(seed)
    groups = (("seen", True, seen), ("held-out", False, held_out))
    return [(group, grammar.caption(grammar.Scene(*scene))) for group, known, count in groups
            for scene in choose(grammar.scenes(seen=known), lambda scene: tuple(scene[:3]), count, rng)]


def frames_of(film, encode):
    """The decoded RGB frames of a film, [T, H, W, 3]."""
    facts = json.loads(run([encode, "probe", film]))
    raw = run([encode, "probe", "--raw", film])
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, facts["height"], facts["width"], 3)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--weir", type=pathlib.Path, required=True, help="the weir program")
    parser.add_argument("--encode", type=pathlib.Path, required=True, help="the weir-encode program")
    parser.add_argument("--model", help="model folder or name for weir run; its own default unless given")
    parser.add_argument("--seen", type=int, default=200, help="prompts whose triples training saw")
    parser.add_argument("--held-out", type=int, default=60, help="prompts whose triples it did not")
    parser.add_argument("--limit", type=int, help="so many films in all, a quarter of them held out")
    parser.add_argument("--seed", type=int, default=2026, help="of the prompts; film i is made with seed + i")
    parser.add_argument("--keep", type=pathlib.Path, help="folder to leave the films in")
    for group, limits in (("seen", (97.0, 90.0, 95.0)), ("held-out", (90.0, 80.0, 85.0))):
        for slot, least in zip(("colour", "shape", "motion"), limits):
            parser.add_argument(f"--{group}-{slot}", type=float, default=least, dest=f"{group}/{slot}",
                                help="percent of the films that must have it right")
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
        print("   # group    co sh mo ba   made in  caption")
        for index, (group, caption) in enumerate(prompts(args.seen, args.held_out, args.seed)):
            film = folder / f"{index:03}.mp4"
            begin = time.monotonic()
            run([args.weir, "run", caption, "--seed", str(args.seed + index), "-o", film,
                 *(["--model", args.model] if args.model else []), *args.rest])
            seconds = time.monotonic() - begin
            verdict = check_film.check(frames_of(film, args.encode))
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
