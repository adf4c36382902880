"""A vocabulary of our own in the file format of Gemma's tokenizer (tokenizer.json).

The four special tokens, the 256 byte tokens, the mark of a space, the letters, and just the merges that make each word
of the grammar one token, with and without a space before it. Everything else falls apart into letters and bytes, so
every text has ids. Gemma's real table of 256,000 tokens would be many times larger than the model.
"""
import json
import pathlib
import string

import grammar_images as grammar
from vocabulary import learn_merges

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")      # ids 0 to 3, as Gemma has them
PAD, BOS = 0, 2
SPACE = "\u2581"


def table():
    """(vocabulary: token to id, merges in rank order); the merges with a space come last, after those inside words."""
    words = grammar.words()
    merges = learn_merges([[*word] for word in words]) + [(SPACE, word) for word in words]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *string.ascii_lowercase]
    tokens += ["".join(pair) for pair in merges if "".join(pair) not in tokens]
    return {token: index for index, token in enumerate(tokens)}, merges


def write(folder, window):
    """Write the files of a Gemma tokenizer whose sequences have at most `window` ids."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = table()

    def dump(name, value):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    dump("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for index, token in enumerate(SPECIAL)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocabulary, "merges": [list(pair) for pair in merges]}})
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    dump("special_tokens_map.json", special)
    dump("tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, **special, "mask_token": "<unk>",
        "clean_up_tokenization_spaces": False, "model_max_length": window, "padding_side": "right",
        "tokenizer_class": "GemmaTokenizer"})


class WordTokenizer:
    """Ids for captions of the grammar alone, padded on the right: what training needs, without a tokenizer library."""

    def __init__(self, window):
        self.window = window
        self.ids, _ = table()

    def __call__(self, text):
        words = text.replace(" ", f" {SPACE}").split()
        ids = [BOS, *(self.ids[word] for word in words)]
        return ids + [PAD] * (self.window - len(ids))
