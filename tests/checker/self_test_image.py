"""Shows that the image checker can be trusted: it passes clean drawings and fails them under a changed caption.

Draws pictures of the grammar with deploy/models/train/scenes_images.py (NumPy only), one with a single thing for each
three with two. Each is checked against its own caption, against the same picture described from its other thing, and
against the caption with one of its words changed to another. Prints the figures; exit code 1 below the thresholds.

--blur and --noise soften and disturb the drawings first, to see how far the checker follows a generated picture.
"""
import argparse
import pathlib
import sys

import numpy as np

import check_image
import self_test

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar_images as grammar    # noqa: E402
import scenes_images                # noqa: E402

TABLES = {"colour": grammar.COLOURS, "shape": grammar.SHAPES, "relation": grammar.RELATIONS,
          "other_colour": grammar.COLOURS, "other_shape": grammar.SHAPES, "background": grammar.BACKGROUNDS}


def pick(every, alone, count, rng):
    """Scenes, a quarter of them of one thing; the first `alone` of all are those."""
    single = rng.random(count) < 0.25
    return [every[rng.integers(alone) if one else rng.integers(alone, len(every))] for one in single]


def changed(scene, rng):
    """The scene with one word changed; two things keep different colours."""
    slots = [slot for slot in TABLES if getattr(scene, slot)]
    while True:
        slot = str(rng.choice(slots))
        words = [word for word in TABLES[slot] if word != getattr(scene, slot)]
        other = scene._replace(**{slot: str(rng.choice(words))})
        if other.colour != other.other_colour:
            return other


def same_tables():
    """The name of the first table in which the checker and the training differ, or None."""
    for name in ("COLOURS", "SHAPES", "RELATIONS", "BACKGROUNDS"):
        if getattr(grammar, name) != getattr(check_image, name):
            return name
    return None


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pictures", type=int, default=2000, help="clean drawings (default %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="width of the pictures (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (default %(default)s)")
    parser.add_argument("--blur", type=int, default=0, help="rounds of a 3x3 filter (default %(default)s)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of noise (default %(default)s)")
    parser.add_argument("--pass-least", type=float, default=99.0, help="percent of drawings that must pass")
    parser.add_argument("--fail-least", type=float, default=97.0, help="percent of changed captions that must fail")
    return parser.parse_args()


def main():
    """Draw, check, print, compare with the thresholds."""
    args = parse()
    if name := same_tables():
        print(f"self_test_image: {name} of the checker and of the training differ")
        return 1
    rng = np.random.default_rng(args.seed)
    every = grammar.scenes()
    right = {slot: 0 for slot in check_image.SLOTS}
    passed = failed = 0
    misses = []
    for begin in range(0, args.pictures, 25):
        chosen = pick(every, len(grammar.alone_groups()), min(25, args.pictures - begin), rng)
        pictures = scenes_images.draw_uint8(chosen, args.size, rng)
        if args.blur or args.noise:
            pictures = self_test.soften(pictures[None], args.blur, args.noise, rng)[0]
        for scene, picture in zip(chosen, pictures):
            verdict = check_image.check(picture)
            result = verdict.right(grammar.caption(scene))
            for slot in right:
                right[slot] += result[slot]
            good = all(result.values())
            if scene.relation:
                good = good and all(verdict.right(grammar.caption(grammar.other_way_round(scene))).values())
            other = changed(scene, rng)
            wrong = not all(verdict.right(grammar.caption(other)).values())
            passed += good
            failed += wrong
            if not good:
                misses.append(f"{grammar.caption(scene)}: {verdict}")
            if not wrong:
                misses.append(f"{grammar.caption(scene)} passed as {grammar.caption(other)}: {verdict}")
    for miss in misses[:10]:
        print("  " + miss)
    for slot, count in right.items():
        print(f"{slot:10} right in {100 * count / args.pictures:6.2f}% of {args.pictures} drawings")
    print(f"all        right in {100 * passed / args.pictures:6.2f}% (at least {args.pass_least}%)")
    print(f"one word changed: fails {100 * failed / args.pictures:6.2f}% (at least {args.fail_least}%)")
    good = 100 * passed >= args.pass_least * args.pictures and 100 * failed >= args.fail_least * args.pictures
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
