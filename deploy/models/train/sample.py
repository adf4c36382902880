"""Films of a model folder made with diffusers, scored with the film checker: what the weights can do, without Weir.

    python sample.py ../shapes-modelscope --seen 30 --held-out 10 --sheet sheet.png
"""
import argparse
import json
import pathlib
import sys
import time

import numpy as np
import torch
from diffusers import TextToVideoSDPipeline
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "checker"))
import check_film   # noqa: E402
import score_films  # noqa: E402
import scoring      # noqa: E402


def make(pipeline, captions, seeds, options):
    """uint8 films [N, T, H, W, 3] of the captions, each from its own seed."""
    result = pipeline(captions, num_inference_steps=options["steps"], guidance_scale=options["guidance"],
                      num_frames=options["frames"], width=options["width"], height=options["height"],
                      generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds], output_type="np")
    return np.rint(np.asarray(result.frames) * 255).astype(np.uint8)


def contact_sheet(films, path, shown=6):
    """A picture with a row a film: `shown` of its frames from first to last."""
    chosen = [np.linspace(0, len(film) - 1, shown).round().astype(int) for film in films]
    rows = [np.concatenate(list(film[frames]), axis=1) for film, frames in zip(films, chosen)]
    Image.fromarray(np.concatenate(rows)).save(path)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="model folder")
    parser.add_argument("--seen", type=int, default=30, help="prompts whose triples training saw")
    parser.add_argument("--held-out", type=int, default=10, help="prompts whose triples it did not")
    parser.add_argument("--seed", type=int, default=2026, help="of the prompts; film i is made with seed + i")
    parser.add_argument("--batch", type=int, default=10, help="films at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: torch's choice")
    parser.add_argument("--sheet", type=pathlib.Path, help="write a contact sheet of the first 16 films")
    parser.add_argument("--scores", type=pathlib.Path, help="write the percentages as JSON")
    for name, kind in (("size", int), ("steps", int), ("guidance", float)):
        parser.add_argument(f"--{name}", type=kind, help="instead of the one in weir.json")
    return parser.parse_args()


def main():
    """Make, judge, print."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = json.loads((args.folder / "weir.json").read_text())
    options.update({name: getattr(args, name) for name in ("steps", "guidance") if getattr(args, name) is not None})
    if args.size:
        options.update(width=args.size, height=args.size)
    pipeline = TextToVideoSDPipeline.from_pretrained(args.folder, torch_dtype=torch.float32).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    wanted = score_films.prompts(args.seen, args.held_out, args.seed)
    results, films, begin = [], [], time.monotonic()
    for first in range(0, len(wanted), args.batch):
        part = wanted[first:first + args.batch]
        seeds = range(args.seed + first, args.seed + first + len(part))
        made = make(pipeline, [text for _, text in part], seeds, options)
        for index, ((group, caption), film) in enumerate(zip(part, made), start=first):
            verdict = check_film.check(film)
            results.append((group, verdict.right(caption)))
            print(scoring.row(index, group, caption, results[-1][1], verdict,
                                  (time.monotonic() - begin) / (index + 1)), flush=True)
        films.extend(made)
        if args.sheet:
            contact_sheet(films[:16], args.sheet)
    figures = scoring.percentages(results)
    for (group, slot), value in figures.items():
        print(f"{group:8} {slot:10} {value:6.1f}%")
    if args.scores:
        named = {f"{group} {slot}": round(value, 1) for (group, slot), value in figures.items()}
        args.scores.write_text(json.dumps(named, indent=2) + "\n")


if __name__ == "__main__":
    main()
