"""Sets whole runs of pipeline_tool beside diffusers' SanaPipeline or SanaSprintPipeline: embedding, latents and 8-bit
pictures, f32 on a CPU, from the same folder, prompts and seeds.

    python3 tests/golden/live_compare_sana.py MODEL --tool BUILD/bin/pipeline_tool [--prompts N] [--samplers a,b] ...

Where the transformer's sample_size has a table of sizes, ours makes pictures at those, and diffusers is told to. Give
--instruction what weir.json has, its line breaks as they are; without it the prompt is read as it is. Prints a line
a run; exit status 1 when a pixel differs by more than 1 of 255.
"""
import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaSprintPipeline,
                       SCMScheduler)
from diffusers.utils import logging

PROMPTS = ["a red circle left of a blue star on a gray background", "a green square on a black background",
           "an orange star above a cyan circle on a navy background", "words that no grammar knows, \u2014 \U0001F600",
           ""]
NEGATIVES = ["", "a blue square"]
KINDS = {"flow-dpm++": DPMSolverMultistepScheduler, "flow-euler": FlowMatchEulerDiscreteScheduler, "scm": SCMScheduler}
BINNED = {SanaPipeline: (16, 32, 64, 128), SanaSprintPipeline: (32,)}


def distance(a, b):
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return np.linalg.norm(a - b) / np.linalg.norm(b), np.abs(a - b).max() / np.abs(b).max()


def scheduler_of(own, sampler):
    """The shift is the network's and has a name of its own in either class: carried over, as ours does."""
    kind = KINDS[sampler]
    if isinstance(own, kind):
        return own
    shift = own.config.get("flow_shift", own.config.get("shift", 1.0))
    if sampler == "flow-euler":
        return kind.from_config(own.config, shift=shift)
    return kind.from_config(own.config, flow_shift=shift, use_flow_sigmas=True, prediction_type="flow_prediction")


def upstream(pipeline, own, sampler, prompt, negative, call, seed):
    """The real rows of the embedding, the latents as they are decoded, and the picture."""
    pipeline.scheduler = scheduler_of(own, sampler)
    sprint = isinstance(pipeline, SanaSprintPipeline)
    kept = {}
    encode, decode = pipeline.encode_prompt, pipeline.vae.decode

    def spy_encode(*args, **kwargs):
        kept["text"] = encode(*args, **kwargs)
        return kept["text"]

    def spy_decode(z, *args, **kwargs):
        kept["latents"] = z * pipeline.vae.config.scaling_factor
        return decode(z, *args, **kwargs)

    if sprint:
        call = dict(call)
        if call["num_inference_steps"] != 2:
            call["intermediate_timesteps"] = None
    else:
        call = dict(call, negative_prompt=negative)
    pipeline.encode_prompt, pipeline.vae.decode = spy_encode, spy_decode
    try:
        picture = pipeline(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]
    finally:
        pipeline.encode_prompt, pipeline.vae.decode = encode, decode
    embeddings, masks = kept["text"][0::2], kept["text"][1::2]
    rows = [e[0][m[0].bool()].numpy() for e, m in zip(embeddings, masks) if e is not None]
    return rows[::-1], kept["latents"].numpy(), np.asarray(picture)  # the negative first, as ours


def ours(arguments, prompt, negative, sampler, call, seed):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture"
        command = [arguments.tool, "film", arguments.model, arguments.device, str(out), prompt, negative,
                   f"width={call['width']}", f"height={call['height']}", f"steps={call['num_inference_steps']}",
                   f"guidance={call['guidance_scale']}", f"sampler={sampler}", f"seed={seed}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (np.fromfile(f"{out}.embedding", np.float32), np.fromfile(f"{out}.latents", np.float32),
                np.fromfile(f"{out}.rgb", np.uint8))


def real_rows(flat, channels):
    """The last of 301 rows begins with how many are real."""
    return [text[:int(text[300, 0])] for text in flat.reshape(-1, 301, channels)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--tool", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--steps", help="numbers with commas; default: 20, or 1,2,4 of Sprint")
    parser.add_argument("--size", help="WxH")
    parser.add_argument("--guidance", type=float, default=4.5)
    parser.add_argument("--samplers", help="default: flow-dpm++,flow-euler, or scm of Sprint")
    parser.add_argument("--instruction", help="what stands before the prompt")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    if arguments.model.count("/") == 0:
        arguments.model = "./" + arguments.model
    logging.set_verbosity_error(), logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)

    index = json.loads(Path(arguments.model, "model_index.json").read_text())
    kind = {"SanaPipeline": SanaPipeline, "SanaSprintPipeline": SanaSprintPipeline}[index["_class_name"]]
    sprint = kind is SanaSprintPipeline
    variants = [f.name for f in Path(arguments.model, "transformer").glob("*.fp16.safetensors")]
    plain = Path(arguments.model, "transformer", "diffusion_pytorch_model.safetensors").exists()
    pipeline = kind.from_pretrained(arguments.model, torch_dtype=torch.float32,
                                    variant="fp16" if variants and not plain else None)
    pipeline.text_encoder.config._attn_implementation = "eager"  # the others leave the cap of scores out
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler
    sample = pipeline.transformer.config.sample_size
    binned = sample in BINNED[kind]
    side = sample * pipeline.vae_scale_factor
    width, height = (int(n) for n in arguments.size.split("x")) if arguments.size else (side, side)
    call = dict(width=width, height=height, guidance_scale=arguments.guidance, use_resolution_binning=binned,
                complex_human_instruction=[arguments.instruction] if arguments.instruction else None)
    assert set(call) < set(inspect.signature(kind.__call__).parameters)
    worst = 0
    for i, prompt in enumerate(PROMPTS[:arguments.prompts]):
        for sampler in (arguments.samplers or ("scm" if sprint else "flow-dpm++,flow-euler")).split(","):
            for steps in (arguments.steps or ("1,2,4" if sprint else "20")).split(","):
                call["num_inference_steps"] = int(steps)
                negative, seed = "" if sprint else NEGATIVES[i % 2], 100 + i
                begin = time.monotonic()
                rows, z, rgb = upstream(pipeline, own, sampler, prompt, negative, call, seed)
                middle = time.monotonic()
                e2, z2, rgb2 = ours(arguments, prompt, negative, sampler, call, seed)
                rows2 = real_rows(e2, rows[0].shape[1])
                assert [len(r) for r in rows] == [len(r) for r in rows2]
                apart = np.abs(rgb.ravel().astype(int) - rgb2.astype(int))
                worst = max(worst, apart.max())
                text = max(distance(a, b)[0] for a, b in zip(rows2, rows))
                print(f"prompt={i} sampler={sampler} steps={steps} embedding={text:.1e} "
                      f"latents={distance(z2, z)[0]:.1e},{distance(z2, z)[1]:.1e} "
                      f"pixels_apart={(apart > 0).sum()}/{apart.size} largest={apart.max()} "
                      f"diffusers_s={middle - begin:.1f} weir_s={time.monotonic() - middle:.1f}", flush=True)
    print(f"worst pixel {worst} of 255")
    sys.exit(int(worst > 1))


if __name__ == "__main__":
    main()
