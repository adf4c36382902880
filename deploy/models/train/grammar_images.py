"""The caption grammar of the shapes pictures: one thing, or two and where the first of them is.

    a|an COLOUR SHAPE on a BACKGROUND background
    a|an COLOUR SHAPE RELATION a|an COLOUR SHAPE on a BACKGROUND background

Colours, shapes and backgrounds are those of grammar.py; the two things have different colours. Pure Python. The checker
in tests/checker has a table of relations of its own on purpose; its self test compares the two.
"""
import hashlib
import itertools
from typing import NamedTuple

from grammar import BACKGROUNDS, COLOURS, HELD_OUT_SHARE, SHAPES

# What the first thing is to the second: (x, y) points from the second to the first, x right and y down.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
ALONE = ""                      # instead of a relation where there is one thing
HELD_OUT_SEED = "shapes-images-1"


class Scene(NamedTuple):
    """What one picture shows; without a second thing the three slots in the middle are empty."""
    colour: str
    shape: str
    relation: str
    other_colour: str
    other_shape: str
    background: str


def words():
    """Every word of the grammar, sorted."""
    phrases = [*COLOURS, *SHAPES, *RELATIONS, *BACKGROUNDS, "a an on background"]
    return sorted(set(" ".join(phrases).split()))


def article(colour):
    """The English article before a colour."""
    return "an" if colour[0] in "aeiou" else "a"


def caption(scene, articles=None):
    """The caption of a scene; the articles of its things are the English ones unless given."""
    first, second = articles or (article(scene.colour), article(scene.other_colour or "red"))
    text = f"{first} {scene.colour} {scene.shape}"
    if scene.relation:
        text += f" {scene.relation} {second} {scene.other_colour} {scene.other_shape}"
    return f"{text} on a {scene.background} background"


def other_way_round(scene):
    """The same picture, described from its other thing."""
    return Scene(scene.other_colour, scene.other_shape, OPPOSITE[scene.relation], scene.colour, scene.shape,
                 scene.background)


def group(scene):
    """What is held out together: (colour, shape, background) of one thing; of two (colour, shape, relation, shape) seen
    from the thing that is left of or above the other, so that a picture is hidden however it is described."""
    if not scene.relation:
        return scene.colour, scene.shape, scene.background
    if scene.relation in ("right of", "below"):
        scene = other_way_round(scene)
    return scene.colour, scene.shape, scene.relation, scene.other_shape


def alone_groups():
    """All groups of one thing, in the order of the tables."""
    return list(itertools.product(COLOURS, SHAPES, BACKGROUNDS))


def pair_groups():
    """All groups of two things, in the order of the tables."""
    return list(itertools.product(COLOURS, SHAPES, ("left of", "above"), SHAPES))


def held_out():
    """The groups that training never sees: of each kind the tenth with the smallest SHA-256 of `SEED/word/word/...`."""
    def rank(names):
        return hashlib.sha256("/".join((HELD_OUT_SEED, *names)).encode()).hexdigest()

    return frozenset(names for every in (alone_groups(), pair_groups())
                     for names in sorted(every, key=rank)[:round(len(every) * HELD_OUT_SHARE)])


def scenes(seen=None):
    """All scenes; seen=True only those of training, seen=False only those held out. One thing alone comes first."""
    hidden = held_out()
    every = [Scene(colour, shape, ALONE, "", "", background) for colour, shape, background in alone_groups()]
    every += [Scene(*names) for names in itertools.product(COLOURS, SHAPES, RELATIONS, COLOURS, SHAPES, BACKGROUNDS)
              if names[0] != names[3]]
    return [scene for scene in every if seen is None or seen == (group(scene) not in hidden)]
