"""Makes the seeds of tests/fuzz/fuzz_gemma_bpe.c: sound files of each kind, and files with one fault each.

python make_gemma_bpe_seeds.py      (writes tests/fuzz/corpus/gemma_bpe)
"""

import json
import pathlib
import struct

MARK = "\u2581"
HEAD = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\n\n", MARK * 2, "<h1>"]
TOKENS = [
    *HEAD,
    *(f"<0x{b:02X}>" for b in (0x41, 0xC3, 0xA9, 0xE6, 0xBC, 0xA2, 0xF0, 0x9F, 0x98, 0x80)),
    "ab",
    "abab",
    MARK + "a",
    "cat",
    MARK + "cat",
    "ca",
    MARK,
    *"abcdeht",
    "\t",
]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
PAIRS = [["a", "b"], ["ab", "ab"], [MARK, "a"], ["c", "a"], ["ca", "t"], [MARK, "cat"], ["\n", "\n"], [MARK, MARK]]
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PREPEND = {"type": "Prepend", "prepend": MARK}
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
PROMPTS = {
    "words": "A Cat  hat, ababab\n\n\n!",
    "specials": "a<bos>b <h1> <eos",
    "unicode": "\u0130 \u0391\u03a3 \u00e9 \u6f22 \U0001f600 \u3000x\x1f",
}


def token(text, normalized=False, **more):
    return {
        "id": VOCAB.get(text, len(VOCAB)),
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": text.startswith("<"),
        **more,
    }


def template(before=("<bos>",), after=()):
    single = [
        *({"SpecialToken": {"id": t}} for t in before),
        {"Sequence": {"id": "A"}},
        *({"SpecialToken": {"id": t}} for t in after),
    ]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "special_tokens": {t: {"id": t, "ids": [VOCAB.get(t, 99)], "tokens": [t]} for t in (*before, *after)},
    }


def document(**changes):
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": VOCAB,
        "merges": PAIRS,
    }
    model.update(changes.pop("model", {}))
    return {
        "added_tokens": [token(t) for t in HEAD],
        "normalizer": REPLACE,
        "pre_tokenizer": SPLIT,
        "post_processor": template(),
        **changes,
        "model": model,
    }


def pack(parts, prompt):
    out = b""
    for content in parts:
        out += b"\xff\xff" if content is None else struct.pack("<H", len(content)) + content
    return out + prompt


def main():
    folder = pathlib.Path(__file__).parent.parent / "fuzz" / "corpus" / "gemma_bpe"
    folder.mkdir(parents=True, exist_ok=True)
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    words = PROMPTS["words"].encode()
    sound, seeds = dump(document()), {}
    for name, prompt in PROMPTS.items():
        seeds["prompt-" + name] = pack([sound, None, None, b"Say more: "], prompt.encode())
    for name, prompt in (
        ("cut", b"ab\xc3"),
        ("nul", b"a\0b"),
        ("long", b"ab " * 600),
        ("empty", b""),
        ("half", b"\xed\xa0\x80"),
    ):
        seeds["prompt-" + name] = pack([sound, None, None, None], prompt)
    seeds["instruction-empty"] = pack([sound, None, None, b""], words)
    seeds["instruction-long"] = pack([sound, None, None, b"a" * 1200], words)
    last = document(
        normalizer={"type": "Sequence", "normalizers": [PREPEND, REPLACE]},
        pre_tokenizer=None,
        added_tokens=[*map(token, HEAD), token("cat", True), token("red " + MARK, True), token("new")][:-1],
    )
    last["added_tokens"][-1]["id"] = len(VOCAB)
    kinds = {
        "texts": document(model={"merges": [" ".join(p) for p in PAIRS]}),
        "prepend": last,
        "kept": document(normalizer=None),
        "around": document(post_processor=template(["<bos>", "<mask>"], ["<eos>"])),
        "bare": document(post_processor=None, pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]}),
        "unknown": document(model={"byte_fallback": False}),
        "each": document(model={"byte_fallback": False, "fuse_unk": False}),
        "nothing": document(model={"byte_fallback": False, "unk_token": None}),
        "escapes": document(model={"vocab": {**VOCAB, '\U0001f642"\\\b\f\r\0': 60}}),
    }
    for name, whole in kinds.items():
        text = json.dumps(whole, indent=1).encode() if name in ("escapes", "texts") else dump(whole)
        seeds["sound-" + name] = pack([text, None, None, None], PROMPTS["specials"].encode())
    seeds["sound-config"] = pack(
        [
            sound,
            dump(
                {
                    "add_bos_token": True,
                    "add_eos_token": False,
                    "pad_token": "<pad>",
                    "padding_side": "left",
                    "bos_token": {"content": "<bos>"},
                    "additional_special_tokens": ["<h1>"],
                    "extra_special_tokens": {"x": "<h1>"},
                    "model_max_length": 10**30,
                    "added_tokens_decoder": {"0": {"content": "<pad>"}},
                }
            ),
            None,
            None,
        ],
        words,
    )
    seeds["sound-map"] = pack(
        [sound, b"{}", dump({"pad_token": {"content": "<eos>"}, "unk_token": "<unk>"}), None], words
    )
    bad = {
        "type": document(model={"type": "Unigram"}),
        "dropout": document(model={"dropout": 0.5}),
        "merge": document(model={"merges": [["a"]]}),
        "left": document(model={"merges": ["q b"]}),
        "joined": document(model={"merges": ["b a"]}),
        "space": document(model={"merges": ["a  b"]}),
        "merges": document(model={"merges": 3}),
        "vocab": document(model={"vocab": 3}),
        "empty": document(model={"vocab": {}}),
        "id": document(model={"vocab": {"a": -1}}),
        "unk": document(model={"unk_token": "q"}),
        "flag": document(model={"fuse_unk": 1}),
        "prefix": document(model={"continuing_subword_prefix": "##"}),
        "suffix": document(model={"end_of_word_suffix": "</w>"}),
        "ignore": document(model={"ignore_merges": True}),
        "normalizer": document(normalizer={"type": "NFKC"}),
        "regex": document(normalizer={**REPLACE, "pattern": {"Regex": " "}}),
        "steps": document(normalizer={"type": "Sequence", "normalizers": [PREPEND] * 9}),
        "step": document(normalizer={**REPLACE, "content": "x" * 33}),
        "sequence": document(normalizer={"type": "Sequence"}),
        "split": document(pre_tokenizer={**SPLIT, "pattern": {"String": "a"}}),
        "invert": document(pre_tokenizer={**SPLIT, "invert": True}),
        "isolated": document(normalizer=None, pre_tokenizer={**SPLIT, "behavior": "Isolated"}),
        "metaspace": document(pre_tokenizer={"type": "Metaspace"}),
        "post": document(post_processor={"type": "ByteLevel"}),
        "single": document(post_processor={"type": "TemplateProcessing", "single": []}),
        "lacks": document(post_processor=template(["<gone>"])),
        "around": document(post_processor=template(["<bos>"] * 9)),
        "added": document(added_tokens=3),
        "content": document(added_tokens=[{}]),
        "word": document(added_tokens=[token("<pad>", single_word=True)]),
        "twice": document(added_tokens=[token("<pad>"), token("<pad>")]),
        "other": document(added_tokens=[token("a", id=0)]),
        "pad": document(added_tokens=[], model={"vocab": {"a": 0, "<unk>": 1, "<bos>": 2}, "merges": []}),
        "nothing": document(
            normalizer={**REPLACE, "content": ""},
            added_tokens=[*map(token, HEAD), {**token(" ", True), "id": len(VOCAB)}],
        ),
    }
    for name, whole in bad.items():
        seeds["bad-" + name] = pack([dump(whole), None, None, None], words)
    for name, cut in (
        ("text", sound[:700]),
        ("middle", sound[: len(sound) // 2]),
        ("escape", sound.replace(b'"cat"', b'"\\ud83dcat"')),
        ("twice", sound.replace(b'"cat":', b'"cat":9,"cat":')),
        ("long", sound.replace(b'"cat":', b'"' + b"q" * 1025 + b'":9,"cat":')),
        ("utf8", sound.replace(b'"cat":', b'"\xff":9,"cat":')),
        ("hex", sound.replace(b'"cat":', b'"\\u00g0":9,"cat":')),
    ):
        seeds["bad-cut-" + name] = pack([cut, None, None, None], words)
    seeds["bad-missing"] = pack([None, None, None, None], words)
    for name, config in (
        ("side", {"truncation_side": "left"}),
        ("specials", {"split_special_tokens": True}),
        ("bos", {"add_bos_token": False}),
        ("eos", {"add_eos_token": True}),
        ("token", {"pad_token": 3}),
        ("pad", {"pad_token": {}}),
        ("new", {"mask_token": "<new>"}),
        ("strip", {"mask_token": {"content": "<mask>", "lstrip": True}}),
        ("decoder", {"added_tokens_decoder": {"7": {"content": "<pad>"}}}),
        ("null", {"pad_token": None}),
    ):
        seeds["config-bad-" + name] = pack([sound, dump(config), None, None], words)
    for name, seed in seeds.items():
        (folder / name).write_bytes(seed)
    print(len(seeds), "seeds,", sum(map(len, seeds.values())), "bytes, at most", max(map(len, seeds.values())))


main()
