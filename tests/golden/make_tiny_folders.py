"""Makes tests/golden/tiny-*/ (small random TextToVideoSDPipeline folders) and tests/golden/tiny-*.safetensors (what
diffusers and transformers compute with them, fp32 on a CPU).

    python3 tests/golden/make_tiny_folders.py [OUT_FOLDER]

Between them the three cover what configs may say: 2, 3 and 4 levels, one and two layers a block, blocks without
attention first and last, heads that fill their channels and heads that do not, group counts, both roundings of a
downsample, GELU and quick GELU, a decoder with and without attention and post_quant_conv, 77 and fewer tokens, f32, fp16
and bf16 files; and sizes that no power of two divides.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, TextToVideoSDPipeline,
                       UNet3DConditionModel)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).resolve().parent
C, D = "CrossAttnDownBlock3D", "DownBlock3D"
UP = {C: "CrossAttnUpBlock3D", D: "UpBlock3D"}
WORDS = "a an the red blue green circle square star moving left right up down on background spinning".split()

TINY = {
    # ms-1.7b's shape in small: four levels, the last without attention, head size 4, 77 tokens, f32 on disk.
    "tiny-a": dict(
        unet=dict(sample_size=8, block_out_channels=[4, 8, 8, 12], down=[C, C, C, D], layers_per_block=1,
                  attention_head_dim=4, cross_attention_dim=24, norm_num_groups=2),
        vae=dict(block_out_channels=[4, 4, 8, 8], layers_per_block=1, norm_num_groups=2),
        text=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, hidden_act="gelu",
                  max_position_embeddings=77, projection_dim=24),
        scheduler=dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                       clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        dtype=torch.float32, shapes=[(2, 3, 9, 13), (1, 1, 8, 8)], film=(3, 40, 56), seed=11),
    # Two levels, two layers a block, head size 2, fp16 on disk.
    "tiny-b": dict(
        unet=dict(sample_size=6, block_out_channels=[8, 12], down=[C, C], layers_per_block=2,
                  attention_head_dim=2, cross_attention_dim=20, norm_num_groups=2, act_fn="silu"),
        vae=dict(block_out_channels=[6, 6, 8, 10], layers_per_block=2, norm_num_groups=2, scaling_factor=0.25,
                 mid_block_add_attention=False),
        text=dict(hidden_size=20, intermediate_size=52, num_hidden_layers=3, num_attention_heads=5,
                  hidden_act="quick_gelu", max_position_embeddings=16, projection_dim=20),
        scheduler=dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear",
                       clip_sample=True, clip_sample_range=4.0, prediction_type="v_prediction",
                       timestep_spacing="trailing", rescale_betas_zero_snr=False),
        dtype=torch.float16, shapes=[(2, 5, 7, 5), (1, 16, 4, 6)], film=(5, 40, 56), seed=12),
    # Three levels, the first without attention, heads that leave channels over (12 = 2 x 5 + 2), bf16 on disk.
    "tiny-c": dict(
        unet=dict(sample_size=10, block_out_channels=[8, 12, 16], down=[D, C, C], layers_per_block=1,
                  attention_head_dim=5, cross_attention_dim=18, norm_num_groups=2, norm_eps=1e-4,
                  downsample_padding=0),
        vae=dict(block_out_channels=[6, 10, 14], layers_per_block=1, norm_num_groups=2, use_post_quant_conv=False),
        text=dict(hidden_size=18, intermediate_size=30, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu",
                  max_position_embeddings=21, projection_dim=18),
        scheduler=dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                       clip_sample=False, set_alpha_to_one=True),
        dtype=torch.bfloat16, shapes=[(2, 2, 10, 10), (1, 7, 5, 11)], film=(2, 40, 72), seed=13),
}
PROMPTS = ["a red circle moving right on a blue background", "", "STAR, star; 3 stars\u2026 \u2728 " + 40 * "the star up "]
NEGATIVE = "blue square"


def byte_letters():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder, window):
    folder.mkdir(parents=True)
    letters = byte_letters()
    tokens = letters + [c + "</w>" for c in letters]
    merges = []
    for word in WORDS:
        parts = list(word[:-1]) + [word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
                tokens.append(parts[0] + parts[1])
            parts[:2] = [parts[0] + parts[1]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    specials = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!",
                "unk_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        dict(specials, tokenizer_class="CLIPTokenizer", model_max_length=window, do_lower_case=True)))
    return len(tokens)


def randomise(module, generator, dtype):
    """Every parameter drawn: the constructors leave some at zero, which would hide mistakes. Values are those that the
    file's dtype can hold, so that the f32 reference computes with what is on disk."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                fan_in = p[0].numel() if "embedding.weight" not in name else 4
                p.copy_(noise / fan_in ** 0.5)
            elif name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.2 * noise)
            p.copy_(p.to(dtype).float())


def build(name, out):
    config = TINY[name]
    folder = out / name
    generator = torch.Generator().manual_seed(config["seed"])
    unet = dict(config["unet"])
    down = unet.pop("down")
    unet = UNet3DConditionModel(in_channels=4, out_channels=4, down_block_types=down,
                                up_block_types=[UP[t] for t in reversed(down)], **unet).eval()
    levels = len(config["vae"]["block_out_channels"])
    vae = AutoencoderKL(latent_channels=4, down_block_types=["DownEncoderBlock2D"] * levels,
                        up_block_types=["UpDecoderBlock2D"] * levels, **config["vae"]).eval()
    write_tokenizer(folder / "tokenizer", config["text"]["max_position_embeddings"])
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **config["text"])).eval()
    for module in (unet, vae, text):
        randomise(module, generator, config["dtype"])
    # Pictures that are neither flat nor all clipped, so that a comparison of pixels means something.
    with torch.no_grad():
        spread = vae.decode(torch.randn((1, 4, 8, 8), generator=generator)).sample.std()
        vae.decoder.conv_out.weight.mul_(0.4 / spread)
        vae.decoder.conv_out.weight.copy_(vae.decoder.conv_out.weight.to(config["dtype"]).float())
    pipeline = TextToVideoSDPipeline(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
                                     scheduler=DDIMScheduler(**config["scheduler"]))
    pipeline.to(dtype=config["dtype"]).save_pretrained(
        folder, variant="fp16" if config["dtype"] == torch.float16 else None)
    (folder / "tokenizer" / "tokenizer.json").unlink()  # says again what vocab.json and merges.txt say
    # What is judged is what a reader of the folder gets. It matters: a scheduler made from another's config carries over
    # the keys that were in a file, and drops those that were only defaults in memory.
    pipeline = TextToVideoSDPipeline.from_pretrained(folder, torch_dtype=torch.float32,
                                                     variant="fp16" if config["dtype"] == torch.float16 else None)
    return pipeline, generator


def golden(name, pipeline, generator):
    config = TINY[name]
    tensors = {}

    def keep(key, value):
        tensors[key] = torch.as_tensor(value).contiguous()

    width, window = config["text"]["hidden_size"], config["text"]["max_position_embeddings"]
    ids = pipeline.tokenizer(PROMPTS, padding="max_length", max_length=window, truncation=True,
                             return_tensors="pt").input_ids
    keep("text.ids", ids.int())
    with torch.no_grad():
        keep("text.embedding", pipeline.text_encoder(ids)[0])
        for i, (rows, frames, h, w) in enumerate(config["shapes"]):
            x = torch.randn((rows, 4, frames, h, w), generator=generator)
            t = torch.tensor([981.0, 7.0][:rows] if i == 0 else [500.0])
            e = torch.randn((rows, window, width), generator=generator)
            keep(f"unet.{i}.x", x), keep(f"unet.{i}.t", t), keep(f"unet.{i}.text", e)
            keep(f"unet.{i}.y", pipeline.unet(x, t, e).sample)
        for i, (h, w) in enumerate([(3, 2), (5, 7)]):
            z = 3 * torch.randn((2 - i, 4, h, w), generator=generator)
            keep(f"vae.{i}.z", z)
            keep(f"vae.{i}.y", pipeline.vae.decode(z).sample)
    frames, height, width = config["film"]
    ddim = pipeline.scheduler
    for label, scheduler, guidance, prompt, negative in (
            ("ddim", ddim, 5.0, PROMPTS[0], NEGATIVE),
            ("dpm", DPMSolverMultistepScheduler.from_config(ddim.config), 5.0, PROMPTS[0], None),
            ("plain", ddim, 1.0, PROMPTS[2], None))[:3 if name == "tiny-b" else 2]:
        pipeline.scheduler = scheduler
        pipeline.set_progress_bar_config(disable=True)
        call = dict(prompt=prompt, negative_prompt=negative, height=height, width=width, num_frames=frames,
                    guidance_scale=guidance, num_inference_steps=25)
        g = lambda: torch.Generator("cpu").manual_seed(1000 + config["seed"])
        keep(f"film.{label}.latents", pipeline(generator=g(), output_type="latent", **call).frames)
        film = pipeline(generator=g(), output_type="np", **call).frames[0]
        rgb = (film * 255).astype(np.uint8)
        print(f"{name} {label}: latents std {tensors[f'film.{label}.latents'].std():.3f}, pixels at 0 "
              f"{(rgb == 0).mean():.3f}, at 255 {(rgb == 255).mean():.3f}, std {rgb.std():.1f}")
        keep(f"film.{label}.rgb", rgb)
    return tensors


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name in TINY:
        if (out / name).exists():
            sys.exit(f"{out / name} is already there; remove it first")
        pipeline, generator = build(name, out)
        tensors = golden(name, pipeline, generator)
        save_file(tensors, out / f"{name}.safetensors")
        size = sum(f.stat().st_size for f in (out / name).rglob("*") if f.is_file())
        print(f"{name}: folder {size / 1024:.0f} KiB, vectors {(out / (name + '.safetensors')).stat().st_size / 1024:.0f} KiB, "
              f"unet {sum(p.numel() for p in pipeline.unet.parameters())} parameters")


if __name__ == "__main__":
    main()
