"""The caption grammar of the shapes films: `a|an COLOUR SHAPE MOTION on a BACKGROUND background`.

Pure Python: the drawing (scenes.py), the vocabulary and the prompts of a trial all take their words from here. The
film checker in tests/checker has a table of its own on purpose; its self test compares the two.
"""
import hashlib
import itertools
from typing import NamedTuple

COLOURS = {
    "red": (220, 40, 40), "green": (40, 190, 70), "blue": (50, 90, 230), "yellow": (240, 210, 40),
    "purple": (150, 60, 200), "orange": (245, 140, 30), "white": (245, 245, 245), "cyan": (40, 210, 220),
}
SHAPES = ("circle", "square", "triangle", "star")
MOTIONS = ("moving left", "moving right", "moving up", "moving down", "growing", "shrinking", "spinning",
           "standing still")
BACKGROUNDS = {"black": (10, 10, 12), "gray": (110, 110, 115), "navy": (18, 24, 70), "brown": (90, 60, 40)}

HELD_OUT_SEED = "shapes-1"
HELD_OUT_SHARE = 0.10


class Scene(NamedTuple):
    """What one film shows; the four slots of a caption."""
    colour: str
    shape: str
    motion: str
    background: str


def words():
    """Every word of the grammar, sorted."""
    phrases = [*COLOURS, *SHAPES, *MOTIONS, *BACKGROUNDS, "a an on background"]
    return sorted(set(" ".join(phrases).split()))


def caption(scene, article=None):
    """The caption of a scene; the article is the English one unless given."""
    if article is None:
        article = "an" if scene.colour[0] in "aeiou" else "a"
    return f"{article} {scene.colour} {scene.shape} {scene.motion} on a {scene.background} background"


def triples():
    """All (colour, shape, motion) triples, in the order of the tables."""
    return list(itertools.product(COLOURS, SHAPES, MOTIONS))


def held_out():
    """The triples that training never sees: the tenth with the smallest SHA-256 of `SEED/colour/shape/motion`.

    A rule without a random generator gives the same set in every version of every library.
    """
    def rank(triple):
        return hashlib.sha256("/".join((HELD_OUT_SEED, *triple)).encode()).hexdigest()

    every = triples()
    return frozenset(sorted(every, key=rank)[:round(len(every) * HELD_OUT_SHARE)])


def scenes(seen=None):
    """All scenes; seen=True only those of training, seen=False only those held out."""
    hidden = held_out()
    return [Scene(*triple, background) for triple in triples() for background in BACKGROUNDS
            if seen is None or seen == (triple not in hidden)]
