"""Judges a picture of the demo models: are its colours, shapes, relation and background those of its caption?

    check_image.py CAPTION PICTURE.rgb --size 256x256      (raw RGB)

Knows the caption grammar and nothing else: neither the network nor how the training pictures were drawn. NumPy only.

How it looks at a picture:
1. The background is the median of the pixels along the border, which nothing touches.
2. The things are the connected pieces that differ from it: one or two, which must hold nearly all that differs.
3. Of each, colour is the median over its core, shape the nearest template of its outline's Fourier series (seeing.py).
4. The relation is where the first thing's centre lies from the second's: mostly along one axis, and far enough.
Which thing of a caption is which in the picture, their colours say.
"""
import argparse
import sys
from typing import NamedTuple

import numpy as np

from seeing import (BACKGROUND_TOLERANCE, BACKGROUNDS, COLOUR_TOLERANCE, COLOURS, DIFFERS, SHAPES, border_colour,
                    core_of, grow, largest_piece, measure, nearest, read_raw, shape_of, share_of)

RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
SLOTS = ("colour", "shape", "relation", "background")

SECOND_LEAST = 0.06             # of the first piece's pixels: what counts as a second thing; the grammar's have 0.18
ALL_THINGS = 0.7                # share of the differing pixels that the things must hold
THING_LEAST = 0.002             # of the picture
APART_LEAST = 0.2               # of the width, along the relation's axis; the grammar's are 0.37 apart
STRAIGHT = 1.7                  # how many times farther apart along the axis than across it


class Thing(NamedTuple):
    """One thing that was seen; None: nothing of the grammar. The centre is in shares of the width."""
    colour: str
    shape: str
    centre: tuple


class Verdict(NamedTuple):
    """What was seen, and words on why."""
    things: tuple
    background: str
    note: str

    def right(self, caption):
        """{slot: seen is what the caption says}, for the order of the things that fits the caption best."""
        wanted = parse_caption(caption)
        names = wanted["things"]
        orders = [self.things] if len(self.things) < 2 else [self.things, self.things[::-1]]
        results = []
        for things in orders:
            same = len(things) == len(names)
            relation = relation_of(*things) if len(things) == 2 else None
            results.append({
                "colour": same and all(thing.colour == colour for thing, (colour, _) in zip(things, names)),
                "shape": same and all(thing.shape == shape for thing, (_, shape) in zip(things, names)),
                "relation": same and relation == wanted["relation"],
                "background": self.background == wanted["background"]})
        return max(results, key=lambda right: (right["colour"], right["shape"], right["relation"]))


def parse_caption(caption):
    """{"things": [(colour, shape)], "relation": word or None, "background": word}; ValueError names what is wrong."""
    form = "'a|an COLOUR SHAPE [RELATION a|an COLOUR SHAPE] on a BACKGROUND background'"
    words = caption.split()
    if len(words) < 7 or words[-1] != "background" or words[-4:-2] != ["on", "a"]:
        raise ValueError(f"not of the form {form}: {caption!r}")
    middle, relation = words[:-4], None
    if len(middle) > 3:
        relation = " ".join(middle[3:-3])
        if relation not in RELATIONS:
            raise ValueError(f"relation {relation!r} is none of {', '.join(RELATIONS)}: {caption!r}")
    things = [middle[:3]] + ([middle[-3:]] if relation else [])
    for article, colour, shape in things:
        if article not in ("a", "an"):
            raise ValueError(f"not of the form {form}: {caption!r}")
        for slot, word, table in (("colour", colour, COLOURS), ("shape", shape, SHAPES)):
            if word not in table:
                raise ValueError(f"{slot} {word!r} is none of {', '.join(table)}: {caption!r}")
    if words[-2] not in BACKGROUNDS:
        raise ValueError(f"background {words[-2]!r} is none of {', '.join(BACKGROUNDS)}: {caption!r}")
    return {"things": [tuple(thing[1:]) for thing in things], "relation": relation, "background": words[-2]}


def relation_of(first, second):
    """What the first thing is to the second, None when that is not clear."""
    gap = np.subtract(first.centre, second.centre)
    for name, direction in RELATIONS.items():
        along, across = float(gap @ np.array(direction)), float(abs(gap @ np.array(direction[::-1])))
        if along >= APART_LEAST and along >= STRAIGHT * across:
            return name
    return None


def look_at(pixels, gap, piece, back):
    """The Thing that a connected piece is, and words on it."""
    width = pixels.shape[1]
    core = core_of(piece[None], gap[None])[0]
    rgb = np.median(pixels[core], axis=0)
    share = share_of(pixels, back, rgb) * grow(piece[None], 2)[0]
    seen = measure(share[None])
    if seen is None:
        return Thing(nearest(COLOURS, rgb, COLOUR_TOLERANCE), None, (0.0, 0.0)), "too little of it is seen"
    shape, note = shape_of(seen)
    centre = tuple(float(value) / width for value in seen.centre[0])
    return (Thing(nearest(COLOURS, rgb, COLOUR_TOLERANCE), shape, centre),
            f"rgb {' '.join(f'{value:.0f}' for value in rgb)} at {centre[0]:.2f} {centre[1]:.2f} {note}")


def check(image):
    """Judge a uint8 RGB picture [H, W, 3]."""
    pixels = np.asarray(image).astype(np.float32)
    back = border_colour(pixels[None])
    background = nearest(BACKGROUNDS, back, BACKGROUND_TOLERANCE)
    gap = np.sqrt(((pixels - back) ** 2).sum(axis=-1))
    differs = gap > DIFFERS
    pieces, left = [], differs
    while len(pieces) < 3:
        piece = largest_piece(left)
        least = SECOND_LEAST * pieces[0].sum() if pieces else THING_LEAST * differs.size
        if piece.sum() < max(least, 12):
            break
        pieces.append(piece)
        left = left & ~piece
    held = sum(int(piece.sum()) for piece in pieces) / max(int(differs.sum()), 1)
    if not pieces or len(pieces) > 2 or held < ALL_THINGS:
        return Verdict((), background, f"{len(pieces)} things, which hold {held:.2f} of what differs")
    seen = [look_at(pixels, gap, piece, back) for piece in pieces]
    return Verdict(tuple(thing for thing, _ in seen), background, "; ".join(note for _, note in seen))


def main():
    """Check one picture; exit code 0 when every slot is right, 1 when not, 2 when there is no judging it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("caption")
    parser.add_argument("picture", help="file of raw RGB pixels, - for standard input")
    parser.add_argument("--size", default="256x256", help="width x height of the picture (default %(default)s)")
    args = parser.parse_args()
    try:
        width, height = (int(part) for part in args.size.split("x"))
        pictures = read_raw(args.picture, width, height)
        if len(pictures) != 1:
            raise ValueError(f"{args.picture}: {len(pictures)} pictures of {width}x{height}, wanted one")
        verdict = check(pictures[0])
        right = verdict.right(args.caption)
    except (OSError, ValueError) as error:
        print(f"check_image: {error}", file=sys.stderr)
        return 2
    for slot in SLOTS:
        print(f"{slot:10} {'right' if right[slot] else 'WRONG'}")
    print(f"seen: {', '.join(f'{thing.colour} {thing.shape}' for thing in verdict.things) or 'nothing'} on "
          f"{verdict.background}; {verdict.note}")
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
