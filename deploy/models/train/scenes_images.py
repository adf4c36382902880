"""Draws the pictures of the grammar, anti-aliased, many at a time, with NumPy or wholly on a torch device.

Lengths are shares of the picture's width; x points right, y down. Everything stands upright (see scenes.distance).

- One thing: radius 13-20%, its centre at most 17% from the middle, each way.
- Two things: radius 10.5-15%; their centres are 37-46% apart along the relation's axis and at most 8% across it.
- Everything stays at least 2% of the width away from the border, and two things at least 7% from one another.
"""
import functools
from typing import NamedTuple

import numpy as np

import grammar_images as grammar
import scenes

RADIUS_ALONE = (0.13, 0.20)
RADIUS_PAIR = (0.105, 0.15)
JITTER_ALONE = 0.17
APART = (0.37, 0.46)
ACROSS = 0.08
MARGIN = 0.02
UNIFORMS = 8                    # random numbers that place one picture

TABLES = (list(grammar.COLOURS), list(grammar.SHAPES), [*grammar.RELATIONS, grammar.ALONE], list(grammar.COLOURS),
          list(grammar.SHAPES), list(grammar.BACKGROUNDS))
ALONE = TABLES[2].index(grammar.ALONE)


class Things(NamedTuple):
    """N pictures of two things in numbers: [N, 2] each, integers for colour and shape; the background is [N].
    Radius 0: there is no such thing."""
    colour: object
    shape: object
    background: object
    x: object
    y: object
    radius: object


CONSTANTS = {name: np.array(list(values), dtype=np.float32) for name, values in (
    ("directions", [*grammar.RELATIONS.values(), (0, 0)]), ("colours", grammar.COLOURS.values()),
    ("backgrounds", grammar.BACKGROUNDS.values()))}


@functools.cache
def on_device(name, device):
    """One of CONSTANTS as a torch tensor that stays on its device."""
    import torch
    return torch.from_numpy(CONSTANTS[name]).to(device)


def table(name, xp, like):
    """One of CONSTANTS, where the array `like` is."""
    return CONSTANTS[name] if xp is np else on_device(name, like.device)


def labels(every):
    """Scenes as rows of six indexes into TABLES, int64 [N, 6]; empty slots are 0."""
    return np.array([[words.index(word) if word in words else 0 for words, word in zip(TABLES, scene)]
                     for scene in every], dtype=np.int64)


def place(rows, uniform, xp=np):
    """Things of label rows [N, 6], placed by UNIFORMS numbers in 0..1 each, [N, UNIFORMS]; xp is numpy or torch."""
    def within(limits, share):
        return limits[0] + (limits[1] - limits[0]) * share

    relation = rows[:, 2]
    alone = relation == ALONE
    directions = table("directions", xp, rows)[relation]
    first = xp.where(alone, within(RADIUS_ALONE, uniform[:, 0]), within(RADIUS_PAIR, uniform[:, 0]))
    second = xp.where(alone, 0.0 * first, within(RADIUS_PAIR, uniform[:, 1]))
    apart, across = within(APART, uniform[:, 2]), ACROSS * (2.0 * uniform[:, 3] - 1.0)
    room = 0.5 - MARGIN - xp.maximum(first, second)     # of a centre around the middle of the picture
    centres = []
    for axis in range(2):
        along = directions[:, axis]
        step = along * apart + (1.0 - along * along) * across       # from the second thing to the first
        step = xp.where(alone, 0.0 * step, step)
        slack = room - 0.5 * xp.abs(step)
        slack = xp.where(alone & (slack > JITTER_ALONE), 0.0 * slack + JITTER_ALONE, slack)
        middle = 0.5 + slack * (2.0 * uniform[:, 4 + axis] - 1.0)
        centres.append(xp.stack([middle + 0.5 * step, middle - 0.5 * step], 1))
    return Things(rows[:, 0:4:3], rows[:, 1:5:3], rows[:, 5], *centres, xp.stack([first, second], 1))


def coverage(things, size, xp=np):
    """Share of each pixel that each thing covers, [N, 2, size, size]. Nothing here waits for the device."""
    middles = (xp.arange(size, dtype=xp.float32) + 0.5) / size if xp is np else \
        (xp.arange(size, dtype=xp.float32, device=things.x.device) + 0.5) / size
    x, y, radius, shape = (part[..., None, None] for part in (things.x, things.y, things.radius, things.shape))
    u, v = middles[None, None, None, :] - x, middles[None, None, :, None] - y
    gap = None
    for index, name in enumerate(grammar.SHAPES):
        one = scenes.distance(xp, name, u, v, radius)
        gap = one if gap is None else xp.where(shape == index, one, gap)
    return xp.clip(0.5 - gap * size, 0.0, 1.0) * (radius > 0.0)


def colours(things, xp=np):
    """(colours [N, 2, 3] of the things, [N, 3] of the background), f32 in 0..255."""
    return table("colours", xp, things.x)[things.colour], table("backgrounds", xp, things.x)[things.background]


def draw_uint8(every, size, rng):
    """Pictures of scenes as uint8 [N, size, size, 3] with NumPy, placed by its generator `rng`."""
    things = place(labels(every), rng.random((len(every), UNIFORMS), dtype=np.float32))
    cover = coverage(things, size)
    fore, back = colours(things)
    back = back[:, None, None, :]
    picture = back + sum((fore[:, thing, None, None, :] - back) * cover[:, thing, :, :, None] for thing in range(2))
    return np.rint(picture).astype(np.uint8)


def draw(things, size, cover=None):
    """Pictures as float32 [N, 3, size, size] in -1..1 on the device of the things; cover: their coverage, if known."""
    import torch
    cover = coverage(things, size, torch) if cover is None else cover
    fore, back = (part / 127.5 - 1.0 for part in colours(things, torch))
    gap = fore - back[:, None]
    return back[:, :, None, None] + torch.einsum("ntc,nthw->nchw", gap, cover)
