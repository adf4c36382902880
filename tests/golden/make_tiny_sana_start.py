"""Makes tests/golden/tiny-sana-b-starts.safetensors: what SanaSprintImg2ImgPipeline makes of tests/golden/tiny-sana-b from a
picture, fp32 on a CPU. The calls are in tests/nets/test_sana_control.c too.

    python3 tests/golden/make_tiny_sana_start.py
"""
from pathlib import Path

import numpy as np
import torch
from diffusers import SanaSprintImg2ImgPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
PROMPT = "A red Circle left of a blue star"
STARTS = dict(  # steps, strength: two steps of two, one of two, one of two again, three of four, one of one
    both=(2, 0.6), second=(2, 0.5), little=(2, 0.1), three=(4, 0.6), whole=(1, 1.0))


def main():
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    pipeline = SanaSprintImg2ImgPipeline.from_pretrained(HERE / "tiny-sana-b", torch_dtype=torch.float32)
    pipeline.text_encoder.config._attn_implementation = "eager"
    pipeline.set_progress_bar_config(disable=True)
    y, x = np.mgrid[0:50, 0:41]
    image = Image.fromarray(np.stack([x * 6, 255 - y * 5, (np.hypot(x - 20, y - 20) < 12) * 220], -1).astype(np.uint8))
    tensors, decode = {"image": torch.from_numpy(np.array(image).copy())}, pipeline.vae.decode

    def spy(z, *args, **kwargs):
        tensors[f"{label}.latents"] = (z * pipeline.vae.config.scaling_factor).flatten()[:256].clone()
        return decode(z, *args, **kwargs)

    pipeline.vae.decode = spy
    for label, (steps, strength) in STARTS.items():
        picture = pipeline(PROMPT, image=image, strength=strength, num_inference_steps=steps, height=64, width=32,
                           intermediate_timesteps=1.3 if steps == 2 else None, use_resolution_binning=False,
                           complex_human_instruction=None,
                           generator=torch.Generator("cpu").manual_seed(43)).images[0]
        rgb = torch.from_numpy(np.array(picture).copy())
        tensors[f"{label}.rgb"] = rgb
        print(f"{label}: {list(rgb.shape)} mean {rgb.float().mean():.1f} std {rgb.float().std():.1f}")
    save_file(tensors, HERE / "tiny-sana-b-starts.safetensors")


main()
