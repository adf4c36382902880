"""Judges a film of the demo model: are colour, shape, motion and background those of its caption?

    check_film.py CAPTION FRAMES.rgb --size 128x128      (raw RGB frames, as `weir-encode probe --raw` writes them)

Knows the caption grammar and nothing else: neither the network nor how the training films were drawn. Needs NumPy only.

How it looks at a film of T frames:
1. The background is the median of the pixels along the border, which nothing touches.
2. The thing is what differs from it; each pixel's share of it comes from where its colour lies between the background
   and the thing's core, so soft edges count in part. Only the largest connected piece of a frame counts.
3. From each frame come area, centre, and the outline's distance from the centre in each direction; of that the Fourier
   series. A circle has no harmonics; a triangle a strong third, a square a fourth, a star a fifth.
4. Colour is the median over the core of all frames, shape the nearest template of the mean harmonics, motion what
   straight lines through centre, area and turning angle over time say. Frames that disagree fail.
"""
import argparse
import sys
from typing import NamedTuple

import numpy as np

from seeing import (BACKGROUND_TOLERANCE, BACKGROUNDS, COLOUR_TOLERANCE, COLOURS, CORNERS, DIFFERS, SHAPES,
                    border_colour, core_of, grow, largest_piece, measure, nearest, read_raw, shape_of, share_of)

MOTIONS = ("moving left", "moving right", "moving up", "moving down", "growing", "shrinking", "spinning",
           "standing still")
SLOTS = ("colour", "shape", "motion", "background")

AGREE = 0.8                     # share of the frames that must show the colour, and of which one thing must be seen
ONE_THING = 0.7                 # share of a frame's differing pixels that the largest piece must hold

MOVE_LEAST = 0.32               # of the width, over the whole film; the grammar's moves cover 0.45
STAY_MOST = 0.14
GROW_LEAST = 1.9                # area; the grammar's factor is 3
KEEP_MOST = 1.5
SPIN_LEAST, TURN_MOST = 70.0, 35.0      # degrees
WOBBLE_MOST = 0.05              # of the width: mean distance of the centres from a straight, even path


class Verdict(NamedTuple):
    """What was seen in each slot (None: nothing of the grammar), and words on why."""
    colour: str
    shape: str
    motion: str
    background: str
    note: str

    def right(self, caption):
        """{slot: seen is what the caption says}; a circle's spinning is standing still."""
        wanted = parse_caption(caption)
        seen = dict(zip(SLOTS, self[:4]))
        if wanted["shape"] == "circle" and wanted["motion"] == "spinning":
            wanted["motion"] = "standing still"
        return {slot: seen[slot] == wanted[slot] for slot in SLOTS}


def parse_caption(caption):
    """{slot: word} of a caption of the grammar; ValueError names what is wrong with another."""
    words = caption.split()
    if len(words) < 7 or words[0] not in ("a", "an") or words[-1] != "background" or words[-4:-2] != ["on", "a"]:
        raise ValueError(f"not of the form 'a|an COLOUR SHAPE MOTION on a BACKGROUND background': {caption!r}")
    found = {"colour": words[1], "shape": words[2], "motion": " ".join(words[3:-4]), "background": words[-2]}
    for slot, table in zip(SLOTS, (COLOURS, SHAPES, MOTIONS, BACKGROUNDS)):
        if found[slot] not in table:
            raise ValueError(f"{slot} {found[slot]!r} is none of {', '.join(table)}: {caption!r}")
    return found


def line(time, values):
    """(change over the whole film, mean distance) of a robust straight line: Theil and Sen's median of slopes."""
    first, second = np.triu_indices(len(time), k=3)
    slope = np.median((values[second] - values[first]) / (time[second] - time[first]))
    start = np.median(values - slope * time)
    return slope, np.abs(values - start - slope * time).mean()


def turning(seen, time, shape):
    """Degrees that the shape turns in the whole film, from the phase of its own harmonic; 0 for a circle."""
    corners = CORNERS.get(shape)
    if corners is None:
        return 0.0
    phase = np.unwrap(np.angle(seen.series[:, corners]))
    return float(np.degrees(-line(time, phase)[0]) / corners)


def motion_of(seen, shape, count, width):
    """(name or None, note) from lines through centres, areas and angles over the film."""
    time = seen.frames / max(count - 1, 1)
    (right, wobble_x), (down, wobble_y) = (line(time, seen.centre[:, axis] / width) for axis in range(2))
    factor = float(np.exp(line(time, np.log(seen.area))[0]))
    turn = turning(seen, time, shape)
    note = f"right {right:+.2f} down {down:+.2f} area x{factor:.2f} turn {turn:+.0f}"
    far, near = max(abs(right), abs(down)), min(abs(right), abs(down))
    if max(wobble_x, wobble_y) > WOBBLE_MOST:
        return None, note + f" wobble {max(wobble_x, wobble_y):.2f}"
    same_size = 1 / KEEP_MOST <= factor <= KEEP_MOST
    if far >= MOVE_LEAST and near <= STAY_MOST and same_size:
        if far == abs(right):
            return ("moving right" if right > 0 else "moving left"), note
        return ("moving down" if down > 0 else "moving up"), note
    if far > STAY_MOST:
        return None, note
    if factor >= GROW_LEAST or factor <= 1 / GROW_LEAST:
        return ("growing" if factor > 1 else "shrinking"), note
    if not same_size:
        return None, note
    if abs(turn) >= SPIN_LEAST:
        return "spinning", note
    return ("standing still" if abs(turn) <= TURN_MOST else None), note


def check(frames):
    """Judge uint8 RGB frames [T, H, W, 3]."""
    frames = np.asarray(frames)
    count, _, width, _ = frames.shape
    pixels = frames.astype(np.float32)
    back = border_colour(pixels)
    background = nearest(BACKGROUNDS, back, BACKGROUND_TOLERANCE)
    gap = np.sqrt(((pixels - back) ** 2).sum(axis=-1))
    differs = gap > DIFFERS
    piece = np.stack([largest_piece(frame) for frame in differs])
    sizes, alone = piece.sum((1, 2)), piece.sum((1, 2)) / np.maximum(differs.sum((1, 2)), 1)
    shown = (sizes >= 12) & (alone >= ONE_THING)
    if shown.mean() < AGREE:
        return Verdict(None, None, None, background, f"one thing in {shown.sum()} of {count} frames")
    core = core_of(piece, gap)
    thing = np.median(pixels[core], axis=0)
    colour = nearest(COLOURS, thing, COLOUR_TOLERANCE)
    agree = np.mean([nearest(COLOURS, np.median(p[c], axis=0), 1.5 * COLOUR_TOLERANCE) == colour if c.any() else False
                     for p, c in zip(pixels, core)])
    if agree < AGREE:
        colour = None
    seen = measure(share_of(pixels, back, thing) * (grow(piece, 2) & shown[:, None, None]))
    if seen is None or len(seen.frames) < AGREE * count or len(seen.frames) < 4:
        return Verdict(colour, None, None, background, "too little of it is seen")
    shape, shape_note = shape_of(seen)
    motion, motion_note = motion_of(seen, shape, count, width)
    return Verdict(colour, shape, motion, background,
                   f"rgb {' '.join(f'{v:.0f}' for v in thing)}; {shape_note}; {motion_note}")


def main():
    """Check one film; exit code 0 when every slot is right, 1 when not, 2 when there is no judging it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("caption")
    parser.add_argument("frames", help="file of raw RGB frames, - for standard input")
    parser.add_argument("--size", default="128x128", help="width x height of the frames (default %(default)s)")
    args = parser.parse_args()
    try:
        width, height = (int(part) for part in args.size.split("x"))
        verdict = check(read_raw(args.frames, width, height))
        right = verdict.right(args.caption)
    except (OSError, ValueError) as error:
        print(f"check_film: {error}", file=sys.stderr)
        return 2
    for slot in SLOTS:
        print(f"{slot:10} {'right' if right[slot] else 'WRONG':5} seen: {getattr(verdict, slot)}")
    print(verdict.note)
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
