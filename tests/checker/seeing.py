"""What both checkers see with: colours, connected pieces, outlines and the shape that an outline has. NumPy only.

The tables of words are the checkers' own on purpose; self_test.py compares them with those of the training.
"""
import sys
from typing import NamedTuple

import numpy as np

COLOURS = {
    "red": (220, 40, 40), "green": (40, 190, 70), "blue": (50, 90, 230), "yellow": (240, 210, 40),
    "purple": (150, 60, 200), "orange": (245, 140, 30), "white": (245, 245, 245), "cyan": (40, 210, 220),
}
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = {"black": (10, 10, 12), "gray": (110, 110, 115), "navy": (18, 24, 70), "brown": (90, 60, 40)}

COLOUR_TOLERANCE = 60.0         # RGB distance; the nearest two colours, orange and yellow, are 71 apart
BACKGROUND_TOLERANCE = 40.0     # black and navy are 60 apart
DIFFERS = 40.0                  # RGB distance from the background of a pixel that may belong to the thing

CORNERS = {"triangle": 3, "square": 4, "star": 5}
# Strength |c_k| / c_0 of a plain shape's own harmonic (a star's depends on its inner radius), the share of it that is
# enough, and the most that any harmonic of a circle may have.
STRENGTH = {"triangle": 0.137, "square": 0.069, "star": 0.165}
STRENGTH_LEAST = 0.35
CIRCLE_CEILING = 0.022
LOPSIDED = 0.12                 # the second harmonic of a thing that is too long for any of the shapes


def nearest(table, rgb, tolerance):
    """The name of the nearest colour, None when it is farther than the tolerance."""
    names = list(table)
    gaps = np.linalg.norm(np.array(list(table.values()), dtype=float) - rgb, axis=1)
    return names[int(gaps.argmin())] if gaps.min() <= tolerance else None


def border_colour(frames):
    """The median colour along the border of all frames."""
    edge = max(1, frames.shape[1] // 32)
    parts = [frames[:, :edge], frames[:, -edge:], frames[:, :, :edge], frames[:, :, -edge:]]
    return np.median(np.concatenate([part.reshape(-1, 3) for part in parts]), axis=0)


def largest_piece(mask):
    """The connected piece (sides touch) of a frame that holds the most pixels; mask and result are bool [H, W]."""
    out = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return out
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    mask = np.pad(mask[box], 1)
    label = np.where(mask, np.arange(mask.size, dtype=np.int32).reshape(mask.shape), 0)
    inner = mask[1:-1, 1:-1]
    while True:                 # each pixel takes the highest number beside it, then the number that one's pixel has
        best = label.copy()
        best[1:-1, 1:-1] = np.maximum.reduce([label[1:-1, 1:-1], label[2:, 1:-1], label[:-2, 1:-1], label[1:-1, 2:],
                                              label[1:-1, :-2]]) * inner
        best = best.ravel()[best]
        if np.array_equal(best, label):
            break
        label = best
    counts = np.bincount(label[label > 0])
    out[box] = (label == counts.argmax())[1:-1, 1:-1]
    return out


def grow(mask, rounds):
    """The mask with its neighbours, `rounds` times."""
    for _ in range(rounds):
        padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
        mask = (mask | padded[:, 2:, 1:-1] | padded[:, :-2, 1:-1] | padded[:, 1:-1, 2:] | padded[:, 1:-1, :-2])
    return mask


def core_of(piece, gap):
    """The pixels of each frame's piece that differ most from the background, bool [T, H, W]; gap is how far they do."""
    most = [np.percentile(g[p], 85) if p.any() else 0.0 for g, p in zip(gap, piece)]
    return piece & (gap > 0.8 * np.array(most)[:, None, None])


def share_of(pixels, back, thing):
    """Share of each pixel that belongs to a thing of that colour, 0 at the background's and 1 at its own."""
    axis = thing - back
    share = (pixels - back) @ axis / max(float(axis @ axis), 1.0)
    return np.clip(2.0 * share - 0.5, 0.0, 1.0)             # steeper, so that soft edges and noise count less


def outline(share, centre, rays=96):
    """Distance of the outline from the centre in each direction: the share of the thing, summed along each ray."""
    height, width = share.shape
    rows, columns = np.nonzero(share)
    reach = np.arange(0.25, np.hypot(columns - centre[0], rows - centre[1]).max() + 1.5, 0.5)
    turn = 2 * np.pi * np.arange(rays) / rays           # clockwise from straight up
    x = centre[0] + np.sin(turn)[:, None] * reach
    y = centre[1] - np.cos(turn)[:, None] * reach
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, low = x - left, y - top
    inside = (left >= 0) & (top >= 0) & (left < width - 1) & (top < height - 1)
    left, top = np.clip(left, 0, width - 2), np.clip(top, 0, height - 2)
    value = ((1 - low) * ((1 - right) * share[top, left] + right * share[top, left + 1])
             + low * ((1 - right) * share[top + 1, left] + right * share[top + 1, left + 1]))
    return (value * inside).sum(axis=1) * 0.5


class Measured(NamedTuple):
    """The thing in the frames where it was seen: frame numbers, centre [n, 2], area [n] and Fourier series [n, 9]."""
    frames: np.ndarray
    centre: np.ndarray
    area: np.ndarray
    series: np.ndarray


def measure(share):
    """Centre, area and outline of the thing in each frame with at least 12 pixels of it; share is [T, H, W]."""
    rows = []
    for index, frame in enumerate(share):
        area = frame.sum()
        if area < 12:
            continue
        y, x = np.indices(frame.shape)
        centre = np.array([(frame * x).sum(), (frame * y).sum()]) / area
        series = np.fft.rfft(outline(frame, centre))[:9]
        rows.append((index, centre, area, series / max(series[0].real, 1e-9)))
    if not rows:
        return None
    return Measured(*(np.array(column) for column in zip(*rows)))


def shape_of(seen):
    """(name or None, note) from the mean strength of the harmonics."""
    strength = np.abs(seen.series).mean(axis=0)
    if strength[2] > LOPSIDED:
        return None, f"lopsided {strength[2]:.2f}"
    own = {name: strength[corners] / STRENGTH[name] for name, corners in CORNERS.items()}
    note = " ".join(f"{name} {value:.2f}" for name, value in own.items())
    if max(strength[3], strength[4], strength[5]) <= CIRCLE_CEILING:
        return "circle", note
    best = max(own, key=own.get)
    return (best if own[best] >= STRENGTH_LEAST else None), note


def read_raw(path, width, height):
    """Raw RGB frames of a file or of `-`."""
    data = sys.stdin.buffer.read() if path == "-" else open(path, "rb").read()
    frame = width * height * 3
    if not data or len(data) % frame:
        raise ValueError(f"{path}: {len(data)} bytes are no whole number of {width}x{height} RGB frames")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, height, width, 3)
