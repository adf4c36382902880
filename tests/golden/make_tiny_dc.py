"""Makes tests/golden/tiny-sana-*/vae (small random AutoencoderDC) and tests/golden/tiny-dc-*.safetensors (what diffusers
computes with them, fp32 on a CPU).

    python3 tests/golden/make_tiny_dc.py [OUT_FOLDER]

Between them the three cover what configs may say: 6, 3 and 4 stages, both kinds of block, given as a list and as one
for all, further projections of none, one and two sizes, both ways up and both ways down, ratios of channels from 1 to
6, heads that fill their channels and heads that do not, a first stage without blocks, shortcuts at the ends or none,
bf16, f32 and fp16 files; and latents from one cell on, of which the small ones take diffusers' quadratic branch of the
attention.
"""
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderDC
from diffusers.utils import logging as diffusers_logging
from make_tiny_folders import randomise
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
R, V = "ResBlock", "EfficientViTBlock"

TINY = {
    # Sana's shape in small: six stages, the deeper half with attention.
    "tiny-dc-a": dict(
        vae=dict(latent_channels=4, attention_head_dim=4,
                 encoder_block_types=[R, R, R, V, V, V], decoder_block_types=[R, R, R, V, V, V],
                 encoder_block_out_channels=[4, 4, 8, 8, 8, 16], decoder_block_out_channels=[4, 4, 8, 8, 8, 16],
                 encoder_layers_per_block=[1, 1, 1, 2, 1, 1], decoder_layers_per_block=[2, 1, 1, 1, 1, 1],
                 encoder_qkv_multiscales=[[], [], [], [5], [5], [5]],
                 decoder_qkv_multiscales=[[], [], [], [5], [5], [5]],
                 upsample_block_type="interpolate", downsample_block_type="Conv",
                 decoder_norm_types=["rms_norm"] * 6, decoder_act_fns=["silu"] * 6, scaling_factor=0.41407),
        dtype=torch.bfloat16, latents=[(2, 1, 1), (1, 3, 2)], pictures=[(1, 1, 1), (1, 5, 1)], seed=21),
    # The class's ways up and down, heads that leave channels over (12 = 2 x 5 + 2), no shortcuts at the ends.
    "tiny-dc-b": dict(
        vae=dict(latent_channels=5, attention_head_dim=5,
                 encoder_block_types=[R, V, V], decoder_block_types=[V, R, V],
                 encoder_block_out_channels=[6, 12, 8], decoder_block_out_channels=[6, 12, 8],
                 encoder_layers_per_block=[1, 1, 1], decoder_layers_per_block=[2, 1, 1],
                 encoder_qkv_multiscales=[[], [3, 5], []], decoder_qkv_multiscales=[[7], [], []],
                 decoder_act_fns=["silu", "gelu", "relu"], encoder_out_shortcut=False, decoder_in_shortcut=False,
                 decoder_conv_act_fn="silu"),
        dtype=torch.float32, latents=[(2, 5, 7), (1, 1, 1)], pictures=[(2, 3, 5), (1, 1, 1)], seed=22),
    # A first stage without blocks: the picture is halved by conv_in, and doubled by conv_out.
    "tiny-dc-c": dict(
        vae=dict(latent_channels=4, attention_head_dim=4,
                 encoder_block_types=[R, R, V, R], decoder_block_types=V,
                 encoder_block_out_channels=[5, 12, 8, 16], decoder_block_out_channels=[7, 9, 6, 12],
                 encoder_layers_per_block=[0, 1, 1, 2], decoder_layers_per_block=[0, 1, 2, 1],
                 encoder_qkv_multiscales=[[], [], [5], []], decoder_qkv_multiscales=[[], [3], [], [5, 3]],
                 upsample_block_type="interpolate", downsample_block_type="pixel_unshuffle",
                 decoder_conv_act_fn="gelu", scaling_factor=0.7),
        dtype=torch.float16, latents=[(2, 3, 5), (1, 2, 2)], pictures=[(2, 1, 3), (1, 5, 2)], seed=23),
}


def folder_of(name, out):
    """Beside the networks that use its latents, which make_tiny_sana.py makes."""
    return out / name.replace("-dc-", "-sana-") / "vae"


def build(name, out):
    config = TINY[name]
    folder = folder_of(name, out)
    generator = torch.Generator().manual_seed(config["seed"])
    vae = AutoencoderDC(**config["vae"]).eval()
    randomise(vae, generator, config["dtype"])
    # Pictures that are neither flat nor all clipped, so that a comparison of pixels means something.
    last = vae.decoder.conv_out
    last = getattr(last, "conv", last)
    with torch.no_grad():
        z = torch.randn((1, config["vae"]["latent_channels"], 3, 3), generator=generator) / vae.config.scaling_factor
        last.weight.mul_(0.4 / vae.decode(z).sample.std())
        last.weight.copy_(last.weight.to(config["dtype"]).float())
    variant = "fp16" if config["dtype"] == torch.float16 else None
    vae.to(config["dtype"]).save_pretrained(folder, variant=variant)
    # What is judged is what a reader of the folder gets.
    return AutoencoderDC.from_pretrained(folder, torch_dtype=torch.float32, variant=variant), generator


def golden(name, vae, generator):
    tensors = {}
    factor, latent = vae.spatial_compression_ratio, vae.config.latent_channels
    with torch.no_grad():
        for i, (rows, h, w) in enumerate(TINY[name]["latents"]):
            z = torch.randn((rows, latent, h, w), generator=generator) / vae.config.scaling_factor
            tensors[f"decode.{i}.z"] = z
            tensors[f"decode.{i}.y"] = vae.decode(z).sample.contiguous()
        for i, (rows, h, w) in enumerate(TINY[name]["pictures"]):
            x = 2 * torch.rand((rows, 3, h * factor, w * factor), generator=generator) - 1
            tensors[f"encode.{i}.x"] = x
            tensors[f"encode.{i}.y"] = vae.encode(x).latent.contiguous()
    for key, value in tensors.items():
        print(f"{name} {key}: {list(value.shape)}, mean {value.mean():.3f}, std {value.std():.3f}")
    return tensors


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name in TINY:
        folder = folder_of(name, out)
        if folder.exists():
            sys.exit(f"{folder} is already there; remove it first")
        vae, generator = build(name, out)
        vectors = out / f"{name}.safetensors"
        save_file(golden(name, vae, generator), vectors)
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        count = [sum(p.numel() for p in half.parameters()) for half in (vae.encoder, vae.decoder)]
        print(f"{name}: folder {size / 1024:.0f} KiB, vectors {vectors.stat().st_size / 1024:.0f} KiB, "
              f"encoder {count[0]} parameters, decoder {count[1]}")


main()
