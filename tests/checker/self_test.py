"""Shows that the film checker can be trusted: it passes clean drawings and fails them under a changed caption.

Draws films of the grammar with deploy/models/train/scenes.py (NumPy only), checks each against its own caption and
against the caption with one slot (colour, shape, motion or background) changed to another word; changes that leave the
meaning alone are not made (a spinning circle stands still). Prints the figures; exit code 1 below the thresholds.

--blur and --noise soften and disturb the drawings first, to see how far the checker follows a generated film.
"""
import argparse
import pathlib
import sys

import numpy as np

import check_film

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar  # noqa: E402
import scenes   # noqa: E402

TABLES = {"colour": grammar.COLOURS, "shape": grammar.SHAPES, "motion": grammar.MOTIONS,
          "background": grammar.BACKGROUNDS}


def meaning(scene):
    """The scene, with one name for what looks the same."""
    if scene.shape == "circle" and scene.motion == "spinning":
        return scene._replace(motion="standing still")
    return scene


def changed(scene, rng):
    """The scene with one slot changed so that it means something else."""
    while True:
        slot = str(rng.choice(check_film.SLOTS))
        words = [word for word in TABLES[slot] if word != getattr(scene, slot)]
        other = scene._replace(**{slot: str(rng.choice(words))})
        if meaning(other) != meaning(scene):
            return slot, other


def soften(films, blur, noise, rng):
    """The films after `blur` rounds of a 3x3 binomial filter and with Gaussian noise of that standard deviation."""
    films = films.astype(np.float32)
    for _ in range(blur):
        for axis in (2, 3):
            films = (np.roll(films, 1, axis) + 2 * films + np.roll(films, -1, axis)) / 4
    return np.clip(np.rint(films + noise * rng.standard_normal(films.shape, dtype=np.float32)), 0, 255).astype(np.uint8)


def main():
    """Draw, check, print, compare with the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--films", type=int, default=2000, help="clean drawings (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width of the films (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (default %(default)s)")
    parser.add_argument("--blur", type=int, default=0, help="rounds of a 3x3 filter (default %(default)s)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of noise (default %(default)s)")
    parser.add_argument("--pass-least", type=float, default=99.0, help="percent of drawings that must pass")
    parser.add_argument("--fail-least", type=float, default=97.0, help="percent of changed captions that must fail")
    args = parser.parse_args()

    for name in ("COLOURS", "SHAPES", "MOTIONS", "BACKGROUNDS"):
        if getattr(grammar, name) != getattr(check_film, name):
            print(f"self_test: {name} of the checker and of the training differ")
            return 1
    rng = np.random.default_rng(args.seed)
    every = grammar.scenes()
    right = {slot: 0 for slot in check_film.SLOTS}
    passed = failed = 0
    misses = []
    for begin in range(0, args.films, 25):
        count = min(25, args.films - begin)
        chosen = [every[index] for index in rng.integers(len(every), size=count)]
        films = scenes.draw_uint8(scenes.sample_tracks(chosen, rng), args.size)
        if args.blur or args.noise:
            films = soften(films, args.blur, args.noise, rng)
        for scene, film in zip(chosen, films):
            verdict = check_film.check(film)
            caption = grammar.caption(scene)
            result = verdict.right(caption)
            for slot in right:
                right[slot] += result[slot]
            passed += all(result.values())
            if not all(result.values()):
                misses.append(f"{caption}: {verdict}")
            slot, other = changed(scene, rng)
            wrong = not all(verdict.right(grammar.caption(other)).values())
            failed += wrong
            if not wrong:
                misses.append(f"{caption} passed as {grammar.caption(other)}: {verdict}")
    for miss in misses[:10]:
        print("  " + miss)
    for slot, count in right.items():
        print(f"{slot:10} right in {100 * count / args.films:6.2f}% of {args.films} drawings")
    print(f"all        right in {100 * passed / args.films:6.2f}% (at least {args.pass_least}%)")
    print(f"one word changed: fails {100 * failed / args.films:6.2f}% (at least {args.fail_least}%)")
    good = 100 * passed >= args.pass_least * args.films and 100 * failed >= args.fail_least * args.films
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
