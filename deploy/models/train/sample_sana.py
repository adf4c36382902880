"""Pictures of a model folder made with diffusers, scored with the image checker: what the weights can do, without Weir.

    python sample_sana.py ../shapes-sana --seen 200 --held-out 60 --sheet sheet.png
    python sample_sana.py ../shapes-sana-sprint --seen 200 --held-out 60

Prompts: --seen scenes that training could draw and --held-out ones that it could not, one of every group (see
grammar_images.group) before a group comes a second time, one in four of a single thing; chosen by --seed.
"""
import argparse
import json
import pathlib
import sys
import time

import diffusers
import numpy as np
import torch
from PIL import Image
from transformers import Gemma2Model

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "checker"))
import check_image   # noqa: E402
import score_images  # noqa: E402
import scoring       # noqa: E402

SHEET_COLUMNS, SHEET_SHOWN = 8, 64


def load(folder, device):
    """The pipeline of a folder in f32, with the attention that knows Gemma's soft cap."""
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    text_encoder = Gemma2Model.from_pretrained(folder / "text_encoder", dtype=torch.float32,
                                               attn_implementation="eager")
    pipeline = getattr(diffusers, kind).from_pretrained(folder, text_encoder=text_encoder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def make(pipeline, captions, seeds, options):
    """uint8 pictures [N, H, W, 3] of the captions, each from its own seed."""
    result = pipeline(captions, num_inference_steps=options["steps"], guidance_scale=options["guidance"],
                      width=options["width"], height=options["height"], complex_human_instruction=None,
                      use_resolution_binning=False, output_type="np",
                      generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds])
    return np.rint(np.asarray(result.images) * 255).astype(np.uint8)


def contact_sheet(pictures, path):
    """A picture of the first pictures, half as large, in rows."""
    shown = [np.asarray(Image.fromarray(picture).resize((picture.shape[1] // 2, picture.shape[0] // 2)))
             for picture in pictures[:SHEET_SHOWN]]
    shown += [np.zeros_like(shown[0])] * (-len(shown) % SHEET_COLUMNS)
    rows = [np.concatenate(shown[first:first + SHEET_COLUMNS], axis=1)
            for first in range(0, len(shown), SHEET_COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(path)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="model folder")
    parser.add_argument("--seen", type=int, default=30, help="prompts of scenes that training could draw")
    parser.add_argument("--held-out", type=int, default=10, help="prompts of scenes that it could not")
    parser.add_argument("--seed", type=int, default=2026, help="of the prompts; picture i is made with seed + i")
    parser.add_argument("--batch", type=int, default=10, help="pictures at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--sheet", type=pathlib.Path, help=f"write a contact sheet of the first {SHEET_SHOWN}")
    parser.add_argument("--scores", type=pathlib.Path, help="write the percentages as JSON")
    for name, kind in (("steps", int), ("guidance", float)):
        parser.add_argument(f"--{name}", type=kind, help="instead of the one in weir.json")
    return parser.parse_args()


def main():
    """Make, judge, print."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = json.loads((args.folder / "weir.json").read_text())
    options.update({name: getattr(args, name) for name in ("steps", "guidance") if getattr(args, name) is not None})
    pipeline = load(args.folder, args.device)
    wanted = score_images.prompts(args.seen, args.held_out, args.seed)
    results, pictures, begin = [], [], time.monotonic()
    for first in range(0, len(wanted), args.batch):
        part = wanted[first:first + args.batch]
        seeds = range(args.seed + first, args.seed + first + len(part))
        made = make(pipeline, [text for _, text in part], seeds, options)
        for index, ((group, caption), picture) in enumerate(zip(part, made), start=first):
            verdict = check_image.check(picture)
            results.append((group, verdict.right(caption)))
            print(scoring.row(index, group, caption, results[-1][1], verdict,
                              (time.monotonic() - begin) / (index + 1)), flush=True)
        pictures.extend(made)
        if args.sheet:      # some of each kind of prompt
            contact_sheet(pictures[::max(1, len(wanted) // SHEET_SHOWN)], args.sheet)
    figures = scoring.percentages(results)
    for (group, slot), value in figures.items():
        print(f"{group:8} {slot:10} {value:6.1f}%")
    if args.scores:
        named = {f"{group} {slot}": round(value, 1) for (group, slot), value in figures.items()}
        args.scores.write_text(json.dumps(named, indent=2) + "\n")


if __name__ == "__main__":
    main()
