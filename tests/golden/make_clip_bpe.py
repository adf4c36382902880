"""Makes clip_bpe/ (a cut-down vocabulary of CLIP) and clip_bpe.json: the ids that transformers' fast tokenizer gives.

    pip download --no-deps clip-anytorch
    python make_clip_bpe.py clip_anytorch-2.6.0-py3-none-any.whl

The first merges of CLIP's table are kept. A case is a text, how often it is repeated, the ids in a window of 77 up to the
padding, and how many there would be without the window. `styles` are the files that stand beside the vocabulary; the
style "saved" is a folder that transformers 5 wrote: tokenizer.json and no vocabulary.
"""
import json
import pathlib
import sys
import tempfile

import tokenizers
import transformers

import clip_folders
from clip_strings import FIXED, LONG, strings

MERGES, SAVED_MERGES, WINDOW = 3000, 60, 77
CASES = {"sd2": 200, "saved": 40}


def main():
    transformers.logging.set_verbosity_error()
    here = pathlib.Path(__file__).parent
    merges = clip_folders.real_merges(sys.argv[1])
    generated = [t for t in strings(4000, 7)[len(FIXED) + len(LONG) :] if len(t.encode()) < 240]
    styles, cases = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        for style in [*clip_folders.STYLES, "saved"]:
            folder = pathlib.Path(scratch, style)
            if style == "saved":
                clip_folders.write(pathlib.Path(scratch, "short"), merges[:SAVED_MERGES], "strips")
                transformers.CLIPTokenizer.from_pretrained(pathlib.Path(scratch, "short")).save_pretrained(folder)
            else:
                clip_folders.write(folder, merges[:MERGES], style)
            names = ["special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"]
            texts = {n: json.loads((folder / n).read_text(encoding="utf-8")) for n in names if (folder / n).exists()}
            styles[style] = {n: json.dumps(t, ensure_ascii=False, separators=(",", ":")) for n, t in texts.items()}
            upstream = transformers.CLIPTokenizer.from_pretrained(folder)
            chosen = [(t, 1) for t in FIXED] + LONG if style == "sd2" else []
            chosen += [(t, 1) for t in generated[: CASES.get(style, 20)]]
            generated = generated[CASES.get(style, 20) :]
            for text, times in chosen:
                ids = upstream(text * times, max_length=WINDOW, truncation=True).input_ids
                cases.append({"style": style, "text": text, "times": times, "pad": upstream.pad_token_id, "ids": ids,
                              "whole": len(upstream(text * times).input_ids)})
    (here / "clip_bpe").mkdir(exist_ok=True)
    for name, text in (("vocab.json", json.dumps(clip_folders.vocabulary(merges[:MERGES]), ensure_ascii=False)),
                       ("merges.txt", "#version: 0.2\n" + "\n".join(merges[:MERGES]) + "\n")):
        (here / "clip_bpe" / name).write_text(text, encoding="utf-8")
    head = {"made_by": "make_clip_bpe.py", "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__, "window": WINDOW, "styles": styles}
    lines = ",\n".join(json.dumps(case, separators=(",", ":"), ensure_ascii=False) for case in cases)
    text = json.dumps(head, ensure_ascii=False)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    (here / "clip_bpe.json").write_text(text, encoding="utf-8")
    print(len(cases), "cases,", len(text), "bytes; vocabulary",
          [(p.name, p.stat().st_size) for p in sorted((here / "clip_bpe").iterdir())])


main()
