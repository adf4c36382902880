"""Sets one run of pipeline_tool beside diffusers' SanaPipeline where the whole of it, in f32, and a run of ours do not
fit into memory together: the run has been made before, and the text encoder is gone before the rest is opened.

    BUILD/bin/pipeline_tool film MODEL cpu OUT PROMPT NEGATIVE steps=1 seed=1
    python3 tests/golden/live_compare_sana_large.py MODEL OUT PROMPT NEGATIVE --steps 1 --seed 1

Size, guidance and sampler are the folder's; the instruction is that of its weir.json. Exit status 1 when a pixel
differs by more than 1 of 255.
"""
import argparse
import gc
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import SanaPipeline
from diffusers.utils import logging
from live_compare_sana import BINNED, distance, real_rows


def texts(model, prompt, negative):
    """What SanaPipeline makes of both texts: embedding and mask of the prompt, then of the negative one."""
    weir = Path(model, "weir.json")
    instruction = json.loads(weir.read_text()).get("instruction") if weir.exists() else None
    pipeline = SanaPipeline.from_pretrained(model, transformer=None, vae=None, torch_dtype=torch.float32)
    pipeline.text_encoder.config._attn_implementation = "eager"  # the others leave the cap of scores out
    return pipeline.encode_prompt(prompt, True, negative, complex_human_instruction=[instruction] if instruction else
                                  None)


def picture(model, encoded, steps, seed):
    """(latents as they are decoded, 8-bit picture)"""
    pipeline = SanaPipeline.from_pretrained(model, text_encoder=None, tokenizer=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    kept, decode = {}, pipeline.vae.decode

    def spy(z, *args, **kwargs):
        kept["latents"] = z * pipeline.vae.config.scaling_factor
        return decode(z, *args, **kwargs)

    pipeline.vae.decode = spy
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    side = pipeline.transformer.config.sample_size * pipeline.vae_scale_factor
    rgb = pipeline(negative_prompt=None, num_inference_steps=steps, generator=torch.Generator("cpu").manual_seed(seed),
                   width=side, height=side,
                   use_resolution_binning=pipeline.transformer.config.sample_size in BINNED[SanaPipeline],
                   **dict(zip(names, encoded))).images[0]
    return kept["latents"].numpy(), np.asarray(rgb)


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "out", "prompt", "negative"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    logging.set_verbosity_error(), logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)

    encoded = texts(arguments.model, arguments.prompt, arguments.negative)
    gc.collect()
    rows2 = real_rows(np.fromfile(f"{arguments.out}.embedding", np.float32), encoded[0].shape[2])
    for name, rows, (e, mask) in zip(("negative", "prompt"), rows2, (encoded[2:], encoded[:2])):
        wanted = e[0][mask[0].bool()].numpy()
        assert len(rows) == len(wanted), f"{name}: {len(rows)} tokens, but {len(wanted)} of diffusers"
        print(f"{name}: {len(rows)} tokens, embedding {distance(rows, wanted)[0]:.1e}", flush=True)
    z, rgb = picture(arguments.model, encoded, arguments.steps, arguments.seed)
    apart_z = distance(np.fromfile(f"{arguments.out}.latents", np.float32), z)
    apart = np.abs(rgb.ravel().astype(int) - np.fromfile(f"{arguments.out}.rgb", np.uint8).astype(int))
    print(f"picture {list(rgb.shape)}: latents {apart_z[0]:.1e},{apart_z[1]:.1e}, pixels apart {(apart > 0).sum()} of "
          f"{apart.size}, largest {apart.max()}")
    sys.exit(int(apart.max() > 1))


if __name__ == "__main__":
    main()
