"""Gemma's part of live_tokenizer.py. Without a folder: every style of a small file, and one of Gemma's size, made here.

ids          of texts, against the library tokenizers, and transformers' GemmaTokenizer for a file of Gemma's kind
prompts      what SanaPipeline.encode_prompt of diffusers gives its text encoder, and the positions that it keeps
lower case   every code point that this Python knows, alone and around a capital sigma, against str.lower().strip()
"""

import json
import pathlib
import struct
import subprocess
import tempfile
import unicodedata

import numpy as np
import tokenizers
import torch
import transformers
from diffusers import SanaPipeline

import gemma_folders
from gemma_strings import strings

WINDOW, BATCH = 4096, 500
INSTRUCTION = ["Say more about what is asked for.", "- A Cat: a small cat", "Prompt: "]


def answers(binary, mode, folder, last, texts, read):
    """What the tool prints for each text, as `read(raw, at)` takes it: a value and where the next one begins."""
    for i in range(0, len(texts), BATCH):
        batch = [t.encode() for t in texts[i : i + BATCH]]
        records = b"".join(struct.pack("<I", len(t)) + t for t in batch)
        raw = subprocess.run(
            [binary, mode, str(folder), str(last)], input=records, stdout=subprocess.PIPE, check=True
        ).stdout
        at = 0
        for _ in batch:
            value, at = read(raw, at)
            yield value
        assert at == len(raw)


def read_ids(window):
    def read(raw, at):
        real, whole = struct.unpack_from("<II", raw, at)
        if real == 0 and whole != 0:
            return ("refused", whole, None), at + 8
        return (real, whole, np.frombuffer(raw, np.int32, window, at + 8).tolist()), at + 8 + 4 * window

    return read


def read_prompt(raw, at):
    count, whole, first, kept = struct.unpack_from("<IIII", raw, at)
    ids = np.frombuffer(raw, np.int32, count, at + 16).tolist()
    return (ids, whole, [0] + list(range(first, first + kept - 1))), at + 16 + 4 * count


def report(label, texts, pairs):
    """`pairs` are what was got and what was wanted."""
    wrong = 0
    for text, (got, want) in zip(texts, pairs):
        if got != want:
            wrong += 1
            if wrong <= 5:
                print(f"  {label}: {text[:60]!r}: {str(got)[:120]}; want {str(want)[:120]}")
    print(f"{label}: {wrong} of {len(texts)} texts differ", flush=True)
    return wrong


def compare_ids(binary, folder, texts, window, label):
    judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    judge.no_padding()
    judge.no_truncation()
    whole = [len(e.ids) for e in judge.encode_batch(texts)]
    judge.enable_truncation(window)
    ids = [e.ids for e in judge.encode_batch(texts)]
    want = ((len(i), w, i + [0] * (window - len(i))) for i, w in zip(ids, whole))
    return report(
        f"{label}, window {window}",
        texts,
        zip(answers(binary, "--gemma", folder, window, texts, read_ids(window)), want),
    )


def compare_transformers(folder, texts, label):
    """That both judges agree where both can be asked."""
    judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    second = transformers.GemmaTokenizer.from_pretrained(folder)
    return report(
        f"{label}, transformers beside tokenizers", texts, ((judge.encode(t).ids, second(t).input_ids) for t in texts)
    )


class Spy(SanaPipeline):
    """encode_prompt of the pipeline, with a text encoder that gives each position its number."""

    def __init__(self, tokenizer):
        self.tokenizer, self.text_encoder, self.transformer, self.dtype_ = tokenizer, self.encode, None, torch.float64
        self.asked = []

    _execution_device = torch.device("cpu")

    def encode(self, ids, attention_mask):
        self.asked.append((ids, attention_mask))
        return [torch.arange(ids.shape[1], dtype=torch.float32).reshape(1, -1, 1)]

    encode.dtype = torch.float32

    def wanted(self, prompt, instruction, negative):
        self.asked.clear()
        out = self.encode_prompt(
            prompt="" if negative else prompt,
            negative_prompt=prompt if negative else "",
            device=torch.device("cpu"),
            do_classifier_free_guidance=negative,
            complex_human_instruction=instruction,
        )
        (ids, mask), embeds, kept = self.asked[-1], out[2 if negative else 0], out[3 if negative else 1]
        positions = embeds.reshape(-1)[kept.reshape(-1) == 1].to(torch.int64).tolist()
        return ids[0][mask[0] == 1].tolist(), positions


def compare_prompts(binary, folder, texts, instruction, label):
    spy = Spy(transformers.GemmaTokenizer.from_pretrained(folder))
    text = "\n".join(instruction)
    wrong = 0
    for negative in (False, True):
        said = "" if text == gemma_folders.instruction()[0] else text  # the tokenizer knows the default by itself
        got = answers(binary, "--negative" if negative else "--prompt", folder, said, texts, read_prompt)
        pairs = (((ids, kept), spy.wanted(t, instruction, negative)) for t, (ids, _, kept) in zip(texts, got))
        wrong += report(f"{label}, {'negative ' if negative else ''}prompts as diffusers", texts, pairs)
    return wrong


def compare_lower(binary, folder):
    judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    codes = [c for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]
    around = lambda c: f"{c} \u0391{c}\u03a3 \u03a3{c}\u0391 \u0391\u03a3{c} "
    texts = ["".join(around(chr(c)) for c in codes[i : i + 8]) for i in range(0, len(codes), 8)]
    texts += [f"{chr(c)}a{chr(c)}" for c in codes if c < 0x3100 or c >= 0xFE00 and c < 0x10000]
    want = [e.ids for e in judge.encode_batch([t.lower().strip() for t in texts])]
    assert max(map(len, want)) <= 300
    got = answers(binary, "--negative", folder, "x ", texts, read_prompt)
    return report("lower case and white space", texts, ((ids, w) for (ids, _, _), w in zip(got, want)))


def run(binary, folder, count, seed):
    texts = strings(count, seed)
    print(
        "diffusers",
        __import__("diffusers").__version__,
        "texts",
        len(texts),
        "bytes",
        sum(len(t.encode()) for t in texts),
        flush=True,
    )
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        if not folder:
            small = gemma_folders.small()
            for i, (name, style) in enumerate(gemma_folders.styles(small).items()):
                where = gemma_folders.write(pathlib.Path(scratch, str(i)), gemma_folders.apply(small, style))
                wrong += compare_ids(
                    binary, where, texts if i == 0 else texts[:2000], WINDOW if i == 0 else 77, f"small, {name}"
                )
            where = pathlib.Path(scratch, "0")
            transformers.GemmaTokenizer.from_pretrained(where).save_pretrained(pathlib.Path(scratch, "saved"))
            wrong += compare_ids(
                binary, pathlib.Path(scratch, "saved"), texts[:2000], 77, "small, as transformers saves it"
            )
            wrong += compare_lower(binary, where)
            wrong += compare_prompts(binary, where, texts[:1000], INSTRUCTION, "small")
            folder = gemma_folders.write(pathlib.Path(scratch, "large"), gemma_folders.large())
        model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        print("vocabulary", len(model["vocab"]), "merges", len(model["merges"]), flush=True)
        print(
            subprocess.run(
                [binary, "--time", str(folder), (gemma_folders.instruction()[0] * 2)[:2000]],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip(),
            flush=True,
        )
        wrong += compare_ids(binary, folder, texts, WINDOW, "of Gemma's size")
        wrong += compare_ids(binary, folder, texts[:2000], 77, "of Gemma's size")
        wrong += compare_transformers(folder, texts, "of Gemma's size")
        wrong += compare_prompts(
            binary, folder, texts[:1000], gemma_folders.instruction()[0].split("\n"), "of Gemma's size"
        )
    return wrong
