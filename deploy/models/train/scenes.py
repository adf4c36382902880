"""Draws the films of the grammar, anti-aliased, many at a time, with NumPy or on a torch device.

Lengths are shares of the picture's width; x points right, y down, angles turn clockwise from straight up.

- The radius is that of the circle through a shape's corners (a star's tips): 12-18% of the width at rest.
- Moves are straight and even and cover 46-58% of the width (or height). Growing and shrinking change the area 3.2 to
  4.2 times, from or to 0.85 of the radius at rest.
- A thing that spins turns clockwise by 120-170 degrees in all; every other thing stays upright: a corner of the
  triangle or the star points up, the square lies on a side. So a still square, triangle or star differs from a spinning
  one by its orientation over time alone. A circle looks the same either way: a spinning circle stands still.
- Whatever moves, everything stays at least 2% of the width away from the border.
"""
import math
from typing import NamedTuple

import numpy as np

import grammar

RADIUS = (0.12, 0.18)
TRAVEL = (0.46, 0.58)
AREA_FACTOR = (3.2, 4.2)
SMALL_END = 0.85                # of the radius at rest, where growing starts and shrinking ends
SPIN_DEGREES = (120.0, 170.0)
MARGIN = 0.02
JITTER = 0.14                   # of a centre around the middle, each way
STAR_INNER = 0.42               # inner radius of a star over its outer one

DIRECTIONS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}


class Tracks(NamedTuple):
    """N films of T frames in numbers: indexes [N] into the tables of the grammar, and float32 [N, T]."""
    colour: np.ndarray
    shape: np.ndarray
    background: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray

    def pick(self, films, frames):
        """The tracks of single frames: film films[i] at frame frames[i], as films of one frame."""
        still = [part[films] for part in self[:3]]
        return Tracks(*still, *(part[films, frames][:, None] for part in self[3:]))

    def rows(self, films):
        """The tracks of some of the films."""
        return Tracks(*(part[films] for part in self))


def sample_tracks(scenes, rng, frames=16):
    """Draw sizes, places and speeds for each scene from the NumPy generator `rng`."""
    tables = [list(grammar.COLOURS), list(grammar.SHAPES), list(grammar.BACKGROUNDS)]
    count = len(scenes)
    names = [[scene.colour for scene in scenes], [scene.shape for scene in scenes], [s.background for s in scenes]]
    indexes = [np.array([table.index(name) for name in column]) for table, column in zip(tables, names)]
    motion = np.array([scene.motion for scene in scenes])
    time = np.linspace(0.0, 1.0, frames)[None, :]

    rest = rng.uniform(*RADIUS, (count, 1))
    factor = np.sqrt(rng.uniform(*AREA_FACTOR, (count, 1)))
    small, large = rest * SMALL_END, rest * SMALL_END * factor
    grow, shrink = ((motion == name)[:, None] for name in ("growing", "shrinking"))
    radius = np.where(grow, small + (large - small) * time, rest + 0.0 * time)
    radius = np.where(shrink, large + (small - large) * time, radius)

    spin = np.radians(rng.uniform(*SPIN_DEGREES, (count, 1))) * (motion == "spinning")[:, None]
    travel = rng.uniform(*TRAVEL, (count, 1))
    direction = np.array([DIRECTIONS.get(name, (0, 0)) for name in motion], dtype=float)
    room = 0.5 - radius.max(axis=1, keepdims=True) - MARGIN
    centres = []
    for axis in range(2):
        along = direction[:, axis:axis + 1]
        slack = np.minimum(JITTER, room - np.abs(along) * travel / 2)
        middle = 0.5 + slack * rng.uniform(-1.0, 1.0, (count, 1))
        centres.append(middle + along * travel * (time - 0.5))
    return Tracks(*indexes, *(part.astype(np.float32) for part in (*centres, radius, spin * time)))


def distance(xp, shape, u, v, radius):
    """Signed distance from the outline of an upright shape at the origin, negative inside (exact near the edges)."""
    rho = xp.sqrt(u * u + v * v)
    if shape == "circle":
        return rho - radius
    corners = {"triangle": 3, "square": 4, "star": 5}[shape]
    period = 2 * math.pi / corners
    first = math.pi / 4 if shape == "square" else 0.0
    fold = xp.abs(xp.remainder(xp.arctan2(u, -v) - first + period / 2, period) - period / 2)   # 0 at a corner
    if shape != "star":
        return rho * xp.cos(fold - period / 2) - radius * math.cos(period / 2)
    edge = (STAR_INNER * math.cos(period / 2) - 1.0, STAR_INNER * math.sin(period / 2))      # from a tip inwards
    length = math.hypot(*edge)
    return (edge[1] * (rho * xp.cos(fold) - radius) - edge[0] * rho * xp.sin(fold)) / length


def coverage(tracks, size, device=None):
    """Share of each pixel that the thing covers, [N, T, size, size]; a torch tensor when a device is given."""
    if device is None:
        xp, convert = np, np.asarray
        out = np.zeros((*tracks.x.shape, size, size), dtype=np.float32)
        middles = (np.arange(size, dtype=np.float32) + 0.5) / size
    else:
        import torch as xp

        def convert(array):
            return xp.as_tensor(array, device=device)
        out = xp.zeros((*tracks.x.shape, size, size), device=device)
        middles = (xp.arange(size, device=device, dtype=xp.float32) + 0.5) / size
    for index, shape in enumerate(grammar.SHAPES):
        films = np.flatnonzero(tracks.shape == index)
        if not len(films):
            continue
        x, y, radius, angle = (convert(part)[..., None, None] for part in tracks.rows(films)[3:])
        dx, dy = middles[None, None, None, :] - x, middles[None, None, :, None] - y
        cos, sin = xp.cos(angle), xp.sin(angle)
        gap = distance(xp, shape, cos * dx + sin * dy, cos * dy - sin * dx, radius)
        out[films] = xp.clip(0.5 - gap * size, 0.0, 1.0)
    return out


def draw_uint8(tracks, size):
    """Films as uint8 [N, T, size, size, 3] with NumPy."""
    cover = coverage(tracks, size)[..., None]
    colour, background = (np.array(list(table.values()), dtype=np.float32)
                          for table in (grammar.COLOURS, grammar.BACKGROUNDS))
    fore, back = (table[index][:, None, None, None, :]
                  for table, index in ((colour, tracks.colour), (background, tracks.background)))
    return np.rint(back + (fore - back) * cover).astype(np.uint8)


def draw(tracks, size, device):
    """Films as float32 [N, T, 3, size, size] in -1..1 on a torch device."""
    import torch
    cover = coverage(tracks, size, device)[:, :, None]
    colour, background = (torch.tensor(list(table.values()), device=device, dtype=torch.float32) / 127.5 - 1.0
                          for table in (grammar.COLOURS, grammar.BACKGROUNDS))
    fore, back = (table[torch.as_tensor(index, device=device)][:, None, :, None, None]
                  for table, index in ((colour, tracks.colour), (background, tracks.background)))
    return back + (fore - back) * cover
