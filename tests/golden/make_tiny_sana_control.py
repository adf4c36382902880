"""Makes tests/golden/tiny-sana-control* (small random SanaTransformer2DModel and SanaControlNetModel that fit each other)
and tests/golden/tiny-sana-control*.safetensors (what the transformer makes with the ControlNet's residuals, fp32 on a
CPU). tiny-sana-control is a whole SanaControlNetPipeline, whose text encoder, tokenizer and autoencoder are links to
those of tiny-sana-a; of it tests/golden/tiny-sana-control-pictures.safetensors has pictures.

    python3 tests/golden/make_tiny_sana_control.py

The three cover: fewer control blocks than the transformer has, as released, and more than it can use; biases, norms of
queries and keys in the transformer alone, positions in both; bf16, f32 and fp16 files. The prompts and calls are in
tests/nets/test_sana_control.c too.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SanaControlNetModel,
                       SanaControlNetPipeline, SanaTransformer2DModel)
from diffusers.utils import logging as diffusers_logging
from make_tiny_folders import randomise
from make_tiny_sana import mask_of
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
PROMPT = "A red Circle left of a blue star"
INSTRUCTION = "say more:\n- of a\nprompt: "

TINY = {
    "tiny-sana-control": dict(
        both=dict(in_channels=4, out_channels=4, num_attention_heads=5, attention_head_dim=2,
                  num_cross_attention_heads=2, cross_attention_head_dim=6, cross_attention_dim=10, caption_channels=24,
                  sample_size=16),
        transformer=dict(num_layers=4), controlnet=dict(num_layers=2), dtype=torch.bfloat16,
        shapes=[(2, 5, 7, 9, [3, 9], 0.75), (1, 3, 4, 5, [1], 1.0)], seed=51),
    "tiny-sana-control-b": dict(
        both=dict(in_channels=3, out_channels=3, num_attention_heads=2, attention_head_dim=3,
                  num_cross_attention_heads=3, cross_attention_head_dim=2, cross_attention_dim=6, caption_channels=7,
                  sample_size=6, mlp_ratio=1.7, attention_bias=True, norm_eps=3e-5),
        transformer=dict(num_layers=2, qk_norm="rms_norm_across_heads"), controlnet=dict(num_layers=3),
        dtype=torch.float32, shapes=[(2, 6, 5, 4, [4, 2], 2.5), (1, 1, 1, 2, [1], 0.0)], seed=52),
    "tiny-sana-control-c": dict(
        both=dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=4,
                  num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=6,
                  sample_size=16, interpolation_scale=2.0),
        transformer=dict(num_layers=3), controlnet=dict(num_layers=1), dtype=torch.float16,
        shapes=[(1, 16, 16, 3, [2], 1.0), (2, 9, 2, 3, [3, 1], 0.5)], seed=53),
}
PICTURES = dict(
    dpm=dict(negative_prompt="blue square", num_inference_steps=8, guidance_scale=4.5),
    euler=dict(negative_prompt="", num_inference_steps=6, guidance_scale=2.0, controlnet_conditioning_scale=0.6,
               sampler=FlowMatchEulerDiscreteScheduler(shift=3.0)),
    plain=dict(num_inference_steps=4, guidance_scale=1.0))


def build(name, config):
    folder, variant = HERE / name, "fp16" if config["dtype"] == torch.float16 else None
    generator = torch.Generator().manual_seed(config["seed"])
    read = []
    for kind, part in ((SanaTransformer2DModel, "transformer"), (SanaControlNetModel, "controlnet")):
        net = kind(**config["both"], **config[part]).eval()
        randomise(net, generator, config["dtype"])
        net.to(config["dtype"]).save_pretrained(folder / part, variant=variant)
        # What is judged is what a reader of the folder gets.
        read.append(kind.from_pretrained(folder / part, torch_dtype=torch.float32, variant=variant))
    return *read, generator


def golden(name, config, transformer, controlnet, generator):
    tensors = {}
    for i, (rows, h, w, tokens, lengths, scale) in enumerate(config["shapes"]):
        channels, caption = config["both"]["in_channels"], config["both"]["caption_channels"]
        x, control = torch.randn((2, rows, channels, h, w), generator=generator)
        text = torch.randn((rows, tokens, caption), generator=generator)
        t, mask = torch.tensor([981.0, 7.25][:rows]), mask_of(lengths, tokens)
        residuals = controlnet(x, text, t, control, scale, encoder_attention_mask=mask, return_dict=False)[0]
        y = transformer(x, text, t, encoder_attention_mask=mask, controlnet_block_samples=tuple(residuals)).sample
        without = transformer(x, text, t, encoder_attention_mask=mask).sample
        print(f"{name} {i}: {list(y.shape)}, std {y.std():.3f}, without control apart "
              f"{(y - without).norm() / y.norm():.3f}")
        for key, value in dict(x=x, control=control, text=text, t=t, y=y,
                               lengths=torch.tensor(lengths, dtype=torch.int32), scale=torch.tensor([scale])).items():
            tensors[f"sana.{i}.{key}"] = value.contiguous()
    return tensors


def complete(folder):
    scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    scheduler.save_pretrained(folder / "scheduler")
    for part in ("text_encoder", "tokenizer", "vae"):
        (folder / part).symlink_to(f"../tiny-sana-a/{part}")
    index = {"_class_name": "SanaControlNetPipeline", "_diffusers_version": "0.42.1",
             "controlnet": ["diffusers", "SanaControlNetModel"], "scheduler": ["diffusers", type(scheduler).__name__],
             "text_encoder": ["transformers", "Gemma2Model"], "tokenizer": ["transformers", "GemmaTokenizerFast"],
             "transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "weir.json").write_text(json.dumps(dict(instruction=INSTRUCTION, steps=8, width=72, height=56), indent=2) +
                                      "\n")
    pipeline = SanaControlNetPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.text_encoder.config._attn_implementation = "eager"
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, scheduler


def control_picture():
    """Of another size and shape than what is made."""
    y, x = np.mgrid[0:33, 0:47]
    ring = np.abs(np.hypot(x - 20, y - 15) - 9) < 2
    return Image.fromarray(np.stack([ring * 255, ring * 200 + x, 255 - y * 7], -1).astype(np.uint8))


def pictures(folder):
    tensors, (pipeline, scheduler) = {}, complete(folder)
    decode, control = pipeline.vae.decode, control_picture()

    def spy(z, *args, **kwargs):
        tensors[f"{label}.latents"] = (z * pipeline.vae.config.scaling_factor).flatten()[:256].clone()
        return decode(z, *args, **kwargs)

    pipeline.vae.decode = spy
    tensors["control"] = torch.from_numpy(np.array(control).copy())
    for label, call in PICTURES.items():
        call = dict(call)
        pipeline.scheduler = call.pop("sampler", scheduler)
        picture = pipeline(PROMPT, height=56, width=72, control_image=control, complex_human_instruction=[INSTRUCTION],
                           generator=torch.Generator("cpu").manual_seed(61), **call).images[0]
        rgb = torch.from_numpy(np.array(picture).copy())
        tensors[f"{label}.rgb"] = rgb
        print(f"pictures {label}: {list(rgb.shape)} mean {rgb.float().mean():.1f} std {rgb.float().std():.1f}, at 0 "
              f"{(rgb == 0).float().mean():.3f}, at 255 {(rgb == 255).float().mean():.3f}")
    return tensors


def main():
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name, config in TINY.items():
        if (HERE / name).exists():
            sys.exit(f"{HERE / name} is already there; remove it first")
        save_file(golden(name, config, *build(name, config)), HERE / f"{name}.safetensors")
    save_file(pictures(HERE / "tiny-sana-control"), HERE / "tiny-sana-control-pictures.safetensors")


main()
