"""Sets the tokenizers beside upstream's: ids of 10,000 texts, in every style of folder; CLIP's, with --gemma Gemma's.

    pip download --no-deps clip-anytorch
    python live_tokenizer.py --binary BUILD/bin/tokenizer_tool --wheel clip_anytorch-2.6.0-py3-none-any.whl
    python live_tokenizer.py --binary BUILD/bin/tokenizer_tool --folder MODEL/tokenizer
    ... --unicode        every code point instead of the texts
    python live_tokenizer.py --gemma --binary BUILD/bin/tokenizer_tool [--folder MODEL/tokenizer]      see live_gemma.py
"""
import argparse
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import tokenizers
import transformers

import clip_folders
from clip_strings import strings

WINDOW = 4096
BATCH = 500


def ours(binary, folder, texts, window):
    records = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    raw = subprocess.run([binary, str(folder), str(window)], input=records, capture_output=True, check=True).stdout
    out, at = [], 0
    for _ in texts:
        real, whole = struct.unpack_from("<II", raw, at)
        at += 8
        if real == 0:
            out.append(("refused", whole, None))
            continue
        out.append((real, whole, np.frombuffer(raw, np.int32, window, at).tolist()))
        at += 4 * window
    return out


def compare(binary, folder, texts, window, label):
    upstream = transformers.CLIPTokenizer.from_pretrained(folder)
    wrong = 0
    answers = (a for i in range(0, len(texts), BATCH) for a in ours(binary, folder, texts[i : i + BATCH], window))
    for text, (real, whole, ids) in zip(texts, answers):
        want = upstream(text, padding="max_length", max_length=window, truncation=True)
        whole_want = len(upstream(text).input_ids)
        if ids != want.input_ids or whole != whole_want or real != min(whole_want, window):
            wrong += 1
            if wrong <= 5:
                print(f"  {label}: {text[:60]!r}: {real} {whole} {ids[:24] if ids else ids}; want {want.input_ids[:24]}")
    print(f"{label}, window {window}: {wrong} of {len(texts)} texts differ", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--wheel")
    parser.add_argument("--folder")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unicode", action="store_true")
    parser.add_argument("--gemma", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
    if args.gemma:
        import live_gemma  # needs diffusers, too

        sys.exit(live_gemma.run(args.binary, args.folder and pathlib.Path(args.folder), args.count, args.seed) > 0)
    if args.unicode:  # alone, between letters, after a letter with marks that are put in order
        codes = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
        texts = ["".join(f"{chr(c)} x{chr(c)}y {chr(c)}{chr(c)} a\u0334{chr(c)} a{chr(c)}\u0334\u0345 " for c in codes[i : i + 100])
                 for i in range(0, len(codes), 100)]
    else:
        texts = strings(args.count, args.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        if args.folder:
            folders = [(args.folder, pathlib.Path(args.folder))]
        else:
            merges = clip_folders.real_merges(args.wheel)
            styles = ["sd2"] if args.unicode else clip_folders.STYLES
            folders = [(s, clip_folders.write(pathlib.Path(scratch, s), merges, s)) for s in styles]
            if not args.unicode:
                for style in ("sd2", "strips"):
                    saved = pathlib.Path(scratch, style + "_saved")
                    transformers.CLIPTokenizer.from_pretrained(pathlib.Path(scratch, style)).save_pretrained(saved)
                    folders.append((style + " as saved", saved))
        for i, (label, folder) in enumerate(folders):
            some = texts if i == 0 or label == "sd2" else texts[:2000]
            wrong += compare(args.binary, folder, some, WINDOW if args.unicode else 77, label)
            if label == "sd2" and not args.unicode:
                wrong += compare(args.binary, folder, texts[:200], WINDOW, label)
                wrong += compare(args.binary, folder, texts[:200], 2, label)
    sys.exit(wrong > 0)


main()
