"""Sets whole runs of Weir beside diffusers', for any TextToVideoSDPipeline folder.

    python3 tests/golden/live_compare.py MODEL --tool BUILD/bin/pipeline_tool [--device cpu] [--prompts 10] [--steps 25]
        [--size WxH] [--frames N] [--guidance G] [--samplers ddim,dpm++] [--threads N]

Each prompt is run with each sampler. Printed for each: the distance of embeddings and latents, and how many pixels of the
frames before encoding differ and by how much. Ends with status 1 when a pixel differs by more than 1 of 255.
"""
import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, TextToVideoSDPipeline
from diffusers.utils import logging

PROMPTS = ["a red circle moving right on a navy background", "a green square growing on a black background",
           "an orange star spinning on a gray background", "a blue triangle moving up on a brown background",
           "a white circle standing still on a black background", "a purple square moving left on a navy background",
           "a cyan star shrinking on a brown background", "a yellow triangle moving down on a gray background",
           "words that no grammar knows, \u2014 and an emoji \U0001F600", ""]
NEGATIVES = ["", "a blue square"]
KINDS = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}


def distance(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return np.linalg.norm(a - b) / np.linalg.norm(b), np.abs(a - b).max() / np.abs(b).max()


def upstream(pipeline, own, sampler, prompt, negative, call, seed):
    kind = KINDS[sampler]
    pipeline.scheduler = own if isinstance(own, kind) else kind.from_config(own.config)
    embeddings = {}
    encode = pipeline.encode_prompt

    def spy(*args, **kwargs):
        positive, negatives = encode(*args, **kwargs)
        embeddings["all"] = torch.cat([e for e in (negatives, positive) if e is not None])
        return positive, negatives

    pipeline.encode_prompt = spy
    try:
        latents = pipeline(prompt=prompt, negative_prompt=negative, output_type="latent",
                           generator=torch.Generator("cpu").manual_seed(seed), **call).frames
    finally:
        pipeline.encode_prompt = encode
    # One frame at a time, as pipelines do to save memory; and the same as all at once but for rounding.
    pipeline.vae.enable_slicing()
    video = pipeline.decode_latents(latents)
    film = pipeline.video_processor.postprocess_video(video=video, output_type="np")[0]
    return embeddings["all"].numpy(), latents.numpy(), (film * 255).astype(np.uint8)


def ours(arguments, prompt, negative, sampler, call, seed):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "film"
        command = [arguments.tool, "film", arguments.model, arguments.device, str(out), prompt, negative,
                   f"width={call['width']}", f"height={call['height']}", f"frames={call['num_frames']}",
                   f"steps={call['num_inference_steps']}", f"guidance={call['guidance_scale']}", f"sampler={sampler}",
                   f"seed={seed}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (np.fromfile(f"{out}.embedding", np.float32), np.fromfile(f"{out}.latents", np.float32),
                np.fromfile(f"{out}.rgb", np.uint8))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--tool", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", help="WxH")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--samplers", default="ddim,dpm++")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    if arguments.model.count("/") == 0:
        arguments.model = "./" + arguments.model
    logging.set_verbosity_error(), logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)

    variants = [f.name for f in Path(arguments.model, "unet").glob("*.fp16.safetensors")]
    plain = Path(arguments.model, "unet", "diffusion_pytorch_model.safetensors").exists()
    pipeline = TextToVideoSDPipeline.from_pretrained(arguments.model, torch_dtype=torch.float32,
                                                     variant="fp16" if variants and not plain else None)
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    width, height = (int(n) for n in arguments.size.split("x")) if arguments.size else (side, side)
    call = dict(width=width, height=height, num_frames=arguments.frames, num_inference_steps=arguments.steps,
                guidance_scale=arguments.guidance)
    worst = 0
    for i, prompt in enumerate(PROMPTS[:arguments.prompts]):
        for sampler in arguments.samplers.split(","):
            negative, seed = NEGATIVES[i % 2], 100 + i
            begin = time.monotonic()
            e, z, rgb = upstream(pipeline, own, sampler, prompt, negative, call, seed)
            middle = time.monotonic()
            e2, z2, rgb2 = ours(arguments, prompt, negative, sampler, call, seed)
            apart = np.abs(rgb.ravel().astype(int) - rgb2.astype(int))
            worst = max(worst, apart.max())
            print(f"prompt={i} sampler={sampler} embedding={distance(e2, e)[0]:.1e} "
                  f"latents={distance(z2, z)[0]:.1e},{distance(z2, z)[1]:.1e} "
                  f"pixels_apart={(apart > 0).sum()}/{apart.size} largest={apart.max()} "
                  f"diffusers_s={middle - begin:.1f} weir_s={time.monotonic() - middle:.1f}", flush=True)
    print(f"worst pixel {worst} of 255")
    sys.exit(worst > 1)


main()
