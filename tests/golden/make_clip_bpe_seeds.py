"""Makes the seeds of tests/fuzz/fuzz_clip_bpe.c: sound folders in each style, and folders with one fault each.

    python make_clip_bpe_seeds.py      (writes tests/fuzz/corpus/clip_bpe)
"""
import json
import pathlib
import struct

import clip_folders

HERE = pathlib.Path(__file__).parent
LETTERS = "abcdeht"
MERGES = ["a b", "ab ab", "c a", "ca t</w>", "t h", "th e</w>", "h a", "ha ha", "haha haha"]
TOKENS = ([*LETTERS] + [c + "</w>" for c in LETTERS] + ["!", "!</w>", "'", "'</w>", "1</w>"]
          + ["".join(m.split()) for m in MERGES] + ["<|startoftext|>", "<|endoftext|>"])
VOCAB = {token: i for i, token in enumerate(TOKENS)}
PROMPTS = {
    "words": "The cat's hat, abababab hahahahaha!",
    "specials": "a<|startoftext|>b <|ENDOFTEXT|> ! cat <Mark> dog",
    "unicode": "İ A\u0301\u0334\u3000\u00a0 é 漢字 😀 ١ Ⅷ \U00010d50 \u1c89 \ua7dc \U00010d40 \u105c0 \U00016ea0 \U0002ebf0",
}


def pack(files, prompt):
    out = b""
    for content in files:
        out += b"\xff\xff" if content is None else struct.pack("<H", len(content)) + content
    return out + prompt


def main():
    folder = HERE.parent / "fuzz" / "corpus" / "clip_bpe"
    folder.mkdir(parents=True, exist_ok=True)
    dump = lambda value: None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    vocab, merges = dump(VOCAB), ("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode()
    words = PROMPTS["words"].encode()
    seeds = {}
    for style, (special, config) in clip_folders.STYLES.items():
        seeds["sound-" + style] = pack([vocab, merges, dump(special), dump(config), None], PROMPTS["specials"].encode())
    for name, prompt in PROMPTS.items():
        seeds["prompt-" + name] = pack([vocab, merges, None, None, None], prompt.encode())
    for name, prompt in (("cut", b"ab\xc3"), ("nul", b"a\0b"), ("long", b"ha" * 900), ("empty", b""), ("half", b"\xed\xa0\x80")):
        seeds["prompt-" + name] = pack([vocab, merges, None, None, None], prompt)
    model = {"type": "BPE", "vocab": VOCAB, "merges": [m.split() for m in MERGES]}
    added = [{"id": VOCAB["cat</w>"], "content": "cat", "single_word": True, "lstrip": True, "rstrip": True,
              "normalized": True, "special": False}, {"id": 3, "content": "!", "special": True, "normalized": False}]
    seeds["json-pairs"] = pack([None, None, None, None, dump({"model": model, "added_tokens": added})], b"a cat hat! cat ")
    seeds["json-texts"] = pack([None, None, None, None, dump({"model": {**model, "merges": MERGES}})], words)
    for name, whole in (("type", {"model": {**model, "type": "Unigram"}}), ("vocab", {"model": {"vocab": 3}}),
                        ("merges", {"model": {**model, "merges": 3}}), ("merge", {"model": {**model, "merges": [["a"]]}}),
                        ("added", {"model": model, "added_tokens": 1})):
        seeds["json-bad-" + name] = pack([None, None, None, None, dump(whole)], words)
    for name, bad in (("empty", {}), ("id", {"a": -1}), ("wide", {"a": 524288}), ("text", {"a": "b"}), ("long", {"a" * 1025: 1}),
                      ("unknown", {"a": 1})):
        seeds["vocab-bad-" + name] = pack([dump(bad), merges, None, None, None], words)
    seeds["vocab-none"] = pack([None, merges, None, None, None], words)
    seeds["merges-none"] = pack([vocab, None, None, None, None], words)
    for name, bad in (("one", b"a\n"), ("three", b"a b c\n"), ("left", b"q b\n"), ("joined", b"b a\n"), ("crlf", b"a b\r\n"),
                      ("long", b"a" * 1025 + b" b\n"), ("right", b"a q")):
        seeds["merges-bad-" + name] = pack([vocab, bad, None, None, None], words)
    for name, special, config in (
            ("token", {"bos_token": 3}, None), ("empty", {"eos_token": ""}, None), ("flag", {"eos_token": {"content": "x", "lstrip": 1}}, None),
            ("null", None, {"pad_token": None}), ("decoder", None, {"added_tokens_decoder": {"1": "x"}}),
            ("decoders", None, {"added_tokens_decoder": 3}), ("side", None, {"padding_side": "left"}),
            ("split", None, {"split_special_tokens": True}), ("many", {"additional_special_tokens": [f"<{i}>" for i in range(300)]}, None),
            ("long", {"mask_token": "q" * 1025}, None)):
        seeds["special-bad-" + name] = pack([vocab, merges, dump(special), dump(config), None], words)
    seeds["special-object"] = pack([vocab, merges, None, dump({"extra_special_tokens": {"x": "cat", "y": {"content": "the"}},
                                                               "z_token": "hat"}), None], b"the cat hat")
    for name, seed in seeds.items():
        (folder / name).write_bytes(seed)
    print(len(seeds), "seeds,", sum(map(len, seeds.values())), "bytes")


main()
