"""A vocabulary of our own in CLIP's file format.

All 256 bytes as symbols, the same with the end-of-word mark, and just the merges that make each word of the grammar
one token. Other words fall apart into bytes, so every text has ids. CLIP's real table would be larger than the model.
"""
import collections
import json
import pathlib

import grammar

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def byte_symbols():
    """The printable character that stands for each byte, in byte order of the table (CLIP's and GPT-2's mapping)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(rest))]


def learn_merges(split):
    """Byte pair merges, most frequent pair first (ties: alphabetical), until each list of symbols is one symbol."""
    merges = []
    while any(len(symbols) > 1 for symbols in split):
        pairs = collections.Counter(pair for symbols in split for pair in zip(symbols, symbols[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [join(symbols, best) for symbols in split]
    return merges


def join(symbols, pair):
    """The symbols with each occurrence of the pair made one, left to right."""
    out, index = [], 0
    while index < len(symbols):
        if tuple(symbols[index:index + 2]) == pair:
            out.append("".join(pair))
            index += 2
        else:
            out.append(symbols[index])
            index += 1
    return out


def table():
    """(vocabulary: token to id, merges in rank order)."""
    merges = learn_merges([[*word[:-1], word[-1] + END_OF_WORD] for word in grammar.words()])
    alphabet = byte_symbols()
    tokens = alphabet + [symbol + END_OF_WORD for symbol in alphabet]
    tokens += ["".join(pair) for pair in merges if "".join(pair) not in tokens]
    tokens += [BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}, merges


def write(folder, window):
    """Write the four files of a CLIP tokenizer whose sequences have `window` ids."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = table()

    def dump(name, value):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    dump("special_tokens_map.json", {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS})
    dump("tokenizer_config.json", {
        "add_prefix_space": False, "bos_token": BOS, "do_lower_case": True, "eos_token": EOS, "errors": "replace",
        "model_max_length": window, "pad_token": EOS, "tokenizer_class": "CLIPTokenizer", "unk_token": EOS})


class WordTokenizer:
    """Ids for captions of the grammar alone: what training needs, without the tokenizer library."""

    def __init__(self, window):
        vocabulary, _ = table()
        self.window = window
        self.bos, self.eos = vocabulary[BOS], vocabulary[EOS]
        self.ids = {word: vocabulary[word + END_OF_WORD] for word in grammar.words()}

    def __call__(self, text):
        ids = [self.bos, *(self.ids[word] for word in text.split()), self.eos]
        return ids + [self.eos] * (self.window - len(ids))
