"""Makes gemma_bpe.json: a small tokenizer.json of Gemma's kind, what other styles of file change in it, and the ids
that the library tokenizers gives; where transformers' GemmaTokenizer reads the style, it must agree.

    python make_gemma_bpe.py

A case is a text, how often it is repeated, the ids in a window of 77 up to the padding, and how many there would be
without the window. The style "saved" is a file that transformers wrote. `lowered` are texts and Python's
str.lower().strip() of them; `prompts` are prompts with an instruction or none and the positions that Sana's pipelines
keep of them. """

import json
import pathlib
import sys
import tempfile

import tokenizers
import transformers

import gemma_folders
from gemma_strings import FIXED, LONG, strings

WINDOW, KEPT = 77, 300
INSTRUCTION = "Say more about what is asked for.\n- A Cat: a small cat\nPrompt: "
LOWERED = [
    "",
    " ",
    "A",
    " \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000A B\x1f ",
    "\u200bA\ufeff",
    "\u0130",
    "\u0130STANBUL",
    "I\u0307",
    "\u03a3",
    "\u0391\u03a3",
    "\u0391\u03a3\u0391",
    "\u0391\u03a3.",
    "\u0391\u03a3.\u0391",
    "\u0391\u03a3'\u0391",
    "\u0391\u0301\u03a3\u0301",
    "\u03a3\u03a3",
    "A\u03a3 B",
    "STRASSE \u1e9e",
    "\u01c4\u01c5",
    "\u1f88",
    "\u2126\u212a\u212b",
    "\u023a\u023e",
    "\U00010400\U000118a0",
    "\u0345\u03a3",
    "\u02b0\u03a3\u02b0",
    "\u00ad\u03a3\u00ad",
    "\u13a0\uab70",
    "\u10a0\u1c90",
    "\U0001d400\u2160\u24b6",
]
PROMPTS = ["", "a cat", " A Cat ", "<bos>", "<eos>A", "\u2581x", "x" * 700, "word " * 400, "\u0130\n\n", "the the"]


def keep(tokenizer, instruction, prompt):
    """The ids that _get_gemma_prompt_embeds of diffusers lays out, without padding, and the positions kept of them."""
    text = instruction + prompt.lower().strip()
    longest = len(tokenizer.encode(instruction).ids) + KEPT - 2 if instruction else KEPT
    ids = tokenizer.encode(text).ids
    kept = [0] + list(range(longest - KEPT + 1, longest)) if instruction else list(range(longest))
    return {
        "instruction": instruction,
        "text": prompt,
        "ids": ids[:longest],
        "whole": len(ids),
        "kept": [i for i in kept if i < min(len(ids), longest)],
    }


def main():
    transformers.logging.set_verbosity_error()
    here = pathlib.Path(__file__).parent
    whole = gemma_folders.small()
    styles = gemma_folders.styles(whole)
    generated = [t for t in strings(4000, 11)[len(FIXED) + 60 :] if len(t.encode()) < 200]
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        cut = {**whole, "model": {**whole["model"], "merges": whole["model"]["merges"][:80]}}
        folder = gemma_folders.write(pathlib.Path(scratch, "cut"), cut)
        transformers.GemmaTokenizer.from_pretrained(folder).save_pretrained(pathlib.Path(scratch, "saved"))
        saved = json.loads(pathlib.Path(scratch, "saved", "tokenizer.json").read_text(encoding="utf-8"))
        changed = {k: v for k, v in saved["model"].items() if v != whole["model"][k]}
        styles["saved"] = {"": {k: v for k, v in saved.items() if k != "model"}, "model": changed}
        for name, style in styles.items():
            document = gemma_folders.apply(whole, style)
            judge = tokenizers.Tokenizer.from_str(json.dumps(document))
            second = None
            if name in ("gemma", "saved"):
                second = transformers.GemmaTokenizer.from_pretrained(
                    gemma_folders.write(pathlib.Path(scratch, "second"), document)
                )
            chosen = [(t, 1) for t in FIXED] + LONG if name == "gemma" else []
            chosen += [(t, 1) for t in generated[: 150 if name == "gemma" else 25]]
            generated = generated[150 if name == "gemma" else 25 :]
            for text, times in chosen:
                judge.no_truncation()
                count = len(judge.encode(text * times).ids)
                judge.enable_truncation(WINDOW)
                ids = judge.encode(text * times).ids
                assert second is None or second(text * times, max_length=WINDOW, truncation=True).input_ids == ids, text
                cases.append({"style": name, "text": text, "times": times, "ids": ids, "whole": count})
    judge = tokenizers.Tokenizer.from_str(json.dumps(whole))
    prompts = [keep(judge, i, p) for i in ("", INSTRUCTION) for p in PROMPTS]
    head = {
        "made_by": "make_gemma_bpe.py",
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "python": sys.version.split()[0],
        "window": WINDOW,
        "pad": 0,
        "file": whole,
        "styles": styles,
        "lowered": [[t, t.lower().strip()] for t in LOWERED],
        "prompts": prompts,
    }
    lines = ",\n".join(json.dumps(case, separators=(",", ":"), ensure_ascii=False) for case in cases)
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    (here / "gemma_bpe.json").write_text(text, encoding="utf-8")
    print(
        len(cases),
        "cases,",
        len(text),
        "bytes; vocabulary",
        len(whole["model"]["vocab"]),
        "merges",
        len(whole["model"]["merges"]),
    )


main()
