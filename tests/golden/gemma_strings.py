"""Texts to try Gemma's tokenizer with, the same for the same seed: those for CLIP, and runs, added tokens, pieces of
them."""

import random

import clip_strings

MARK = "\u2581"
TOKENS = [
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<2mass>",
    "[@BOS@]",
    "<unused0>",
    "<unused97>",
    "<h1>",
    "</h1>",
    "<table>",
    "</code>",
    "<H1>",
    "<bos",
    "bos>",
    "<<bos>>",
    "</",
    "<0x41>",
    "<0x0A>",
    "<0xFF>",
    "two words",
    "two  words",
    "red circle",
    "\u00e9",
    "the",
]
RUNS = [
    " ",
    "\n",
    MARK,
    "\t",
    " " + MARK,
    "\n ",
    " \n",
    "\r\n",
    "a ",
    " a",
    "ha",
    "\u00a0",
    "\u3000",
    "0",
    "!",
    "\U0001f642",
    "aa",
]
FIXED = [
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "a",
    " a",
    "a ",
    MARK,
    MARK * 2,
    MARK + "a",
    "a" + MARK,
    " " + MARK + " ",
    "\n" * 31,
    "\n" * 32,
    "\n" * 70,
    " " * 31,
    " " * 32,
    " " * 100,
    MARK * 31,
    MARK * 40,
    "\u0130",
    "\u03a3",
    "\ufeff",
    "\u200b",
    "<bos>",
    "<bos><eos>",
    " <bos> ",
    "<bos>a<eos>",
    "<h1>title</h1>",
    "User Prompt: ",
    "A  double  space\n\n\nnew",
    " lead",
    "a cat",
]
LONG = [
    (" ", 10240),
    ("\n", 10240),
    (MARK, 3413),
    ("ha", 5120),
    ("<bos>", 2048),
    ("a b ", 2560),
    ("\U0001f469\u200d\U0001f680", 900),
    (" \n", 5120),
    ("\u00e9", 5120),
    ("<", 10240),
    ("the ", 2560),
    ("\U00012345", 2560),
]


def strings(count, seed):
    rng = random.Random(seed)
    known = clip_strings.strings(count, seed)[len(clip_strings.FIXED) + len(clip_strings.LONG) :]
    out = FIXED + clip_strings.FIXED + [unit * times for unit, times in LONG + clip_strings.LONG]
    while len(out) < count:
        text = known[rng.randrange(len(known))]
        parts = []
        for word in text.split(" ") if rng.random() < 0.8 else [text]:
            kind = rng.random()
            parts.append(
                rng.choice(TOKENS) if kind < 0.12 else rng.choice(RUNS) * rng.randint(1, 40) if kind < 0.22 else word
            )
            parts.append(rng.choice(["", "\n", MARK, "  ", " "]) if rng.random() < 0.2 else " ")
        out.append("".join(parts[: rng.randint(0, len(parts))] if rng.random() < 0.2 else parts))
    return out[:count]
