"""tokenizer.json files of Gemma's kind, made here: a small one, files that differ from it, and one of Gemma's size.

A file has Gemma's layout: <pad> <eos> <bos> <unk>, further added tokens (unused ones, turns, runs of newlines and of
U+2581, tags), the 256 bytes, pieces by rank, characters by frequency; merges are all the ways in which a piece is two
others. """

import collections
import copy
import inspect
import json
import pathlib
import re
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import clip_strings

HERE = pathlib.Path(__file__).parent
MARK = "\u2581"
TAGS = """table caption thead tbody tfoot tr th td h1 h2 h3 h4 h5 h6 blockquote strong em b i u s sub sup code""".split()
PHRASES = """a red circle moving right on a navy background. a cat sleeping in the warm sun, highly detailed; the quick
brown fox jumps over a lazy dog and runs towards the old lighthouse at the edge of the sea while rain is falling on the
harbour""".split()
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def added(token, number, special=False, normalized=False):
    return {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def template(vocab, before, after=()):
    item = lambda t: {"SpecialToken": {"id": t, "type_id": 0}}
    a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    single = [*map(item, before), a, *map(item, after)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + [b],
        "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in sorted({*before, *after})},
    }


def pieces_of(words, count, alphabet):
    """Pieces of two characters and more by rank, and the characters, most frequent first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    tokenizer.train_from_iterator(
        list(words),
        trainers.BpeTrainer(
            vocab_size=count + alphabet, limit_alphabet=alphabet, max_token_length=24, show_progress=False
        ),
    )
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    ranked = sorted(vocab, key=vocab.get)
    often = collections.Counter("".join(words))
    return [p for p in ranked if len(p) > 1][:count], sorted(
        (p for p in ranked if len(p) == 1), key=lambda c: (-often[c], c)
    )


def merges_of(vocab, pieces):
    out = []
    for piece in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        out += sorted(cuts, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return [list(pair) for pair in out]


def document(first, pieces, characters, runs, fixed=None, size=0):
    """`first`: added tokens by id. `fixed`: {id: text} that come before anything else that would have that id or
    text."""
    fixed = fixed or {}
    vocab, taken = {}, set(fixed.values())
    names = iter([*first, *(f"<0x{b:02X}>" for b in range(256)), *(p for p in pieces if p not in taken)])
    tail = iter([c for c in characters if c not in taken])
    middle = max((i for i, t in fixed.items() if len(t) > 1 and i > len(first)), default=0)
    number = 0
    while True:
        text = fixed.get(number) or next(names, None)
        if text is None and number <= middle:
            text = f"<filler{number}>"
        if text is None:
            text = next(tail, None)
        if text is None and number < size:
            text = f"<filler{number}>"
        if text is None:
            break
        if text not in vocab:
            vocab[text] = number
            number += 1
    special = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"}
    ranked = sorted(
        (p for p in vocab if len(p) > 1 and p not in set(first) and not p.startswith(("<0x", "<filler"))), key=vocab.get
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(t, vocab[t], t in special) for t in first],
        "normalizer": REPLACE,
        "pre_tokenizer": SPLIT,
        "post_processor": template(vocab, ["<bos>"]),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges_of(vocab, [*runs, *ranked]),
        },
    }


def first_tokens(unused, run):
    newlines, marks = ["\n" * n for n in range(1, run + 1)], [MARK * n for n in range(2, run + 1)]
    tags = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]"] + [
        f"<unused{i}>" for i in range(unused)
    ]
    return [*head, "<start_of_turn>", "<end_of_turn>", *newlines, *marks, *tags], newlines[1:] + marks


def small():
    words = (
        [MARK + w for w in PHRASES] * 3
        + [MARK + w for w in clip_strings.WORDS]
        + ["\t\t", MARK + "ha" * 8]
    )
    first, runs = first_tokens(3, 8)
    return document(first, *pieces_of(words, 260, 300), runs)


def styles(whole):
    """What each style changes: {"": keys of the file, "model": keys of its model}; the first changes nothing."""
    vocab = whole["model"]["vocab"]
    texts = [" ".join(pair) for pair in whole["model"]["merges"] if " " not in "".join(pair)][:120]
    some = {
        t: i
        for i, t in enumerate(
            ["<pad>", "<unk>", "<bos>", *"abc d", "ab", "<0xC3>", "<0xA9>", "<0xE6>", "<unk>a", "cab", MARK]
        )
    }
    head = [added("<pad>", 0, True), added("<unk>", 1, True), added("<bos>", 2, True)]
    tiny = {"vocab": some, "merges": [["a", "b"], ["<unk>", "a"], ["c", "ab"]]}
    plain = {"": {"post_processor": None, "pre_tokenizer": None, "added_tokens": head, "normalizer": None}}
    both = template(vocab, ["<bos>", "<mask>"], ["<eos>"])
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, REPLACE]}
    tokens = [t for t in whole["added_tokens"] if t["content"] not in ("<2mass>", "<h1>")]
    number = len(vocab)
    for text, normalized in (
        ("<2mass>", True),
        ("<h1>", True),
        ("two words", True),
        ("red circle", False),
        ("\u00e9", False),
        ("the", True),
        ("\u4e00\u4e8c", False),
        (MARK + "lamp", True),
    ):
        tokens.append(added(text, vocab.get(text, number), normalized=normalized))
        number += text not in vocab
    return {
        "gemma": {},
        "texts": {"model": {"merges": texts}},
        "nothing around": {"": {"post_processor": None, "pre_tokenizer": None}},
        "three around": {"": {"post_processor": both}},
        "prepend": {"": {"normalizer": prepend, "pre_tokenizer": None}},
        "normalised tokens": {"": {"added_tokens": tokens}},
        "prepend, normalised tokens": {"": {"added_tokens": tokens, "normalizer": prepend}},
        "spaces kept": {"": {"normalizer": None, "pre_tokenizer": None}},
        "split": {"": {"normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": SPLIT}},
        "replaced twice": {
            "": {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [
                        {"type": "Replace", "pattern": {"String": "aa"}, "content": " b "},
                        REPLACE,
                        {"type": "Replace", "pattern": {"String": MARK + "b"}, "content": ""},
                    ],
                }
            }
        },
        "no bytes": {"model": {"byte_fallback": False}},
        "no bytes, not fused": {"model": {"byte_fallback": False, "fuse_unk": False}},
        "no unknown": {"model": {"byte_fallback": False, "unk_token": None}},
        "some bytes": {**plain, "model": {**tiny, "fuse_unk": True}},
        "some bytes, not fused": {**plain, "model": {**tiny, "fuse_unk": False}},
    }


def apply(whole, style):
    out = copy.deepcopy(whole)
    out.update(style.get("", {}))
    out["model"].update(style.get("model", {}))
    return out


# ---- Gemma's size ----


def instruction():
    """The instruction of Sana's image pipelines, and its ids in Gemma's vocabulary as worker/tokenizers has them."""
    from diffusers import SanaPipeline

    default = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    source = (HERE.parent.parent / "worker" / "tokenizers" / "gemma_prompt.c").read_text()
    ids = [
        int(i) for i in re.search(r"image_instruction\[\] = \{(.*?)\}", source, re.S).group(1).replace(",", " ").split()
    ]
    return "\n".join(default), ids


def spelling(text, ids):
    """Texts for ids such that they spell `text`: one that is used twice has one text, and none is used for two ids."""
    text = text.replace(" ", MARK)
    known = {ids[0]: "<bos>", 108: "\n", 235248: MARK}
    sys.setrecursionlimit(10000)

    def rest(i, at):
        if i == len(ids):
            return at == len(text)
        if ids[i] in known:
            return text.startswith(known[ids[i]], at) and rest(i + 1, at + len(known[ids[i]]))
        end = at + 1
        while end < len(text) and text[end] not in MARK + "\n" and end - at < 24:
            end += 1
        for stop in range(end, at, -1):  # characters have the highest ids
            if (stop - at == 1) != (ids[i] >= 235248) or text[at:stop] in known.values():
                continue
            known[ids[i]] = text[at:stop]
            if rest(i + 1, stop):
                return True
            del known[ids[i]]
        return False

    assert rest(1, 0)
    return known


def large(size=256000):
    """As many entries and about as many merges as Gemma's; words from the sources of transformers."""
    import transformers

    words = set()
    for path in sorted(pathlib.Path(transformers.__file__).parent.glob("**/*.py")):
        words.update(
            re.findall(f"{MARK}*[^{MARK}\\s]+", path.read_text(encoding="utf-8", errors="ignore").replace(" ", MARK))
        )
    words.update(MARK + w for w in clip_strings.WORDS)
    text, ids = instruction()
    first, runs = first_tokens(99, 31)
    assert len(first) == 217
    fixed = spelling(text, ids)
    words.update(re.findall(f"{MARK}?[^{MARK}\n]+", text.replace(" ", MARK)))
    return document(first, *pieces_of(sorted(words), 215000, 3000), runs, fixed, size)


def write(folder, whole, indent=2):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, indent=indent), encoding="utf-8")
    return folder
