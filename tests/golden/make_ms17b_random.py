"""Makes a folder with the whole configuration of the ModelScope 1.7B text-to-video model and random fp16 weights.

    python3 tests/golden/make_ms17b_random.py FOLDER

1.41 G parameters of UNet3D, 340 M of CLIP text, 84 M of AutoencoderKL: 3.7 GB on disk, in half a minute. Needs nothing
but Python. It shows that the real architecture runs, in what memory; its films are noise. The tokenizer is that of
tests/golden/tiny-a, since CLIP's own vocabulary is not ours to ship.
"""
import json
import math
import random
import shutil
import struct
import sys
from pathlib import Path

CHANNELS, LAYERS, HEAD, CROSS, TIME = [320, 640, 1280, 1280], 2, 64, 1024, 1280
VAE_CHANNELS, VAE_LAYERS = [128, 256, 512, 512], 2
TEXT = dict(width=1024, wide=4096, layers=23, vocabulary=49408, positions=77)
BLOCK = 65537  # random values of each spread, laid end to end; a prime, so that no two rows of a matrix are equal


class Tensors:
    """Names and shapes, in the order of the file."""

    def __init__(self):
        self.shapes = {}

    def layer(self, name, *shape, bias=True):
        self.shapes[name + ".weight"] = shape
        if bias:
            self.shapes[name + ".bias"] = shape[:1]

    norm = layer


def resnet(t, name, i, o, time):
    t.norm(name + ".norm1", i)
    t.layer(name + ".conv1", o, i, 3, 3)
    if time:
        t.layer(name + ".time_emb_proj", o, time)
    t.norm(name + ".norm2", o)
    t.layer(name + ".conv2", o, o, 3, 3)
    if i != o:
        t.layer(name + ".conv_shortcut", o, i, 1, 1)


def temporal_conv(t, name, c):
    for stage, (norm, conv) in enumerate([(0, 2), (0, 3), (0, 3), (0, 3)], 1):
        t.norm(f"{name}.conv{stage}.{norm}", c)
        t.layer(f"{name}.conv{stage}.{conv}", c, c, 3, 1, 1)


def transformer(t, name, c, inner, cross):
    t.norm(name + ".norm", c)
    t.layer(name + ".proj_in", inner, c)
    block = name + ".transformer_blocks.0"
    for n, context in ((1, inner), (2, cross or inner)):
        t.norm(f"{block}.norm{n}", inner)
        t.layer(f"{block}.attn{n}.to_q", inner, inner, bias=False)
        t.layer(f"{block}.attn{n}.to_k", inner, context, bias=False)
        t.layer(f"{block}.attn{n}.to_v", inner, context, bias=False)
        t.layer(f"{block}.attn{n}.to_out.0", inner, inner)
    t.norm(block + ".norm3", inner)
    t.layer(block + ".ff.net.0.proj", 8 * inner, inner)
    t.layer(block + ".ff.net.2", inner, 4 * inner)
    t.layer(name + ".proj_out", c, inner)


def both(t, block, n, i, o, attends):
    resnet(t, f"{block}.resnets.{n}", i, o, TIME)
    temporal_conv(t, f"{block}.temp_convs.{n}", o)
    if attends:
        transformer(t, f"{block}.attentions.{n}", o, o, CROSS)
        transformer(t, f"{block}.temp_attentions.{n}", o, o, None)


def unet():
    t, first, skips = Tensors(), CHANNELS[0], [CHANNELS[0]]
    t.layer("conv_in", first, 4, 3, 3)
    t.layer("time_embedding.linear_1", TIME, first)
    t.layer("time_embedding.linear_2", TIME, TIME)
    transformer(t, "transformer_in", first, 8 * HEAD, None)
    i = first
    for level, c in enumerate(CHANNELS):
        for n in range(LAYERS):
            both(t, f"down_blocks.{level}", n, i, c, level < 3)
            i = c
            skips.append(c)
        if level < 3:
            t.layer(f"down_blocks.{level}.downsamplers.0.conv", c, c, 3, 3)
            skips.append(c)
    both(t, "mid_block", 0, i, i, True)
    both(t, "mid_block", 1, i, i, False)
    for level, c in enumerate(reversed(CHANNELS)):
        for n in range(LAYERS + 1):
            both(t, f"up_blocks.{level}", n, i + skips.pop(), c, level > 0)
            i = c
        if level < 3:
            t.layer(f"up_blocks.{level}.upsamplers.0.conv", c, c, 3, 3)
    t.norm("conv_norm_out", first)
    t.layer("conv_out", 4, first, 3, 3)
    return t


def vae_middle(t, part, c):
    for n in (0, 1):
        resnet(t, f"{part}.mid_block.resnets.{n}", c, c, None)
    t.norm(f"{part}.mid_block.attentions.0.group_norm", c)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        t.layer(f"{part}.mid_block.attentions.0.{name}", c, c)


def vae():
    t, last = Tensors(), VAE_CHANNELS[-1]
    t.layer("encoder.conv_in", VAE_CHANNELS[0], 3, 3, 3)
    i = VAE_CHANNELS[0]
    for level, c in enumerate(VAE_CHANNELS):
        for n in range(VAE_LAYERS):
            resnet(t, f"encoder.down_blocks.{level}.resnets.{n}", i, c, None)
            i = c
        if level < 3:
            t.layer(f"encoder.down_blocks.{level}.downsamplers.0.conv", c, c, 3, 3)
    vae_middle(t, "encoder", last)
    t.norm("encoder.conv_norm_out", last)
    t.layer("encoder.conv_out", 8, last, 3, 3)
    t.layer("quant_conv", 8, 8, 1, 1)
    t.layer("post_quant_conv", 4, 4, 1, 1)
    t.layer("decoder.conv_in", last, 4, 3, 3)
    vae_middle(t, "decoder", last)
    for level, c in enumerate(reversed(VAE_CHANNELS)):
        for n in range(VAE_LAYERS + 1):
            resnet(t, f"decoder.up_blocks.{level}.resnets.{n}", i, c, None)
            i = c
        if level < 3:
            t.layer(f"decoder.up_blocks.{level}.upsamplers.0.conv", c, c, 3, 3)
    t.norm("decoder.conv_norm_out", i)
    t.layer("decoder.conv_out", 3, i, 3, 3)
    return t


def text():
    t, w = Tensors(), TEXT["width"]
    root = "text_model."
    t.layer(root + "embeddings.token_embedding", TEXT["vocabulary"], w, bias=False)
    t.layer(root + "embeddings.position_embedding", TEXT["positions"], w, bias=False)
    for n in range(TEXT["layers"]):
        layer = f"{root}encoder.layers.{n}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            t.layer(f"{layer}.self_attn.{name}", w, w)
        t.norm(layer + ".layer_norm1", w)
        t.layer(layer + ".mlp.fc1", TEXT["wide"], w)
        t.layer(layer + ".mlp.fc2", w, TEXT["wide"])
        t.norm(layer + ".layer_norm2", w)
    t.norm(root + "final_layer_norm", w)
    return t


def pack(dtype, values):
    if dtype == "BF16":  # the upper half of f32
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}e", *values)


def spread_of(name, shape):
    """None: a norm's weight, all ones. Else the standard deviation of the values."""
    if len(shape) == 1:
        is_norm = "norm" in name or ".conv" in name and name.split(".")[-2] == "0"
        return None if is_norm and name.endswith("weight") else 0.01
    if "embedding." in name and "time_" not in name:
        return 1.0
    last = 0.15 if name == "decoder.conv_out.weight" else 1  # so that a film has the bytes of one of real things
    return last / math.sqrt(math.prod(shape[1:]))


def write(path, shapes, dtype="F16", spread_of=spread_of):
    """A safetensors file of random values; `shapes` maps names, `dtype` is F16 or BF16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        count = 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    blocks, generator = {}, random.Random(path.name)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for name, shape in shapes.items():
            spread, left = spread_of(name, shape), 2 * math.prod(shape)
            if spread not in blocks:
                blocks[spread] = pack(dtype, [1.0] * BLOCK if spread is None
                                      else [generator.gauss(0, spread) for _ in range(BLOCK)])
            begin = 2 * generator.randrange(BLOCK)  # so that equal shapes do not get equal values
            block = blocks[spread][begin:] + blocks[spread][:begin]
            while left > 0:
                left -= file.write(block[:left])
    print(f"{path}: {end // 2} parameters, {end} bytes", flush=True)


def start_folder():
    """(the folder named on the command line, made; how to put a config into it)"""
    out = Path(sys.argv[1])
    out.mkdir(parents=True)

    def say(name, config):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(json.dumps(config, indent=2) + "\n")

    return out, say


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out, say = start_folder()
    cross, up = "CrossAttnDownBlock3D", "CrossAttnUpBlock3D"
    say("model_index.json", {
        "_class_name": "TextToVideoSDPipeline", "_diffusers_version": "0.15.0",
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"]})
    say("scheduler/scheduler_config.json", {
        "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "num_train_timesteps": 1000})
    say("unet/config.json", {
        "_class_name": "UNet3DConditionModel", "sample_size": 32, "in_channels": 4, "out_channels": 4,
        "block_out_channels": CHANNELS, "down_block_types": [cross] * 3 + ["DownBlock3D"],
        "up_block_types": ["UpBlock3D"] + [up] * 3, "layers_per_block": LAYERS, "attention_head_dim": HEAD,
        "cross_attention_dim": CROSS, "norm_num_groups": 32, "norm_eps": 1e-5, "act_fn": "silu",
        "downsample_padding": 1, "mid_block_scale_factor": 1})
    say("vae/config.json", {
        "_class_name": "AutoencoderKL", "block_out_channels": VAE_CHANNELS, "layers_per_block": VAE_LAYERS,
        "latent_channels": 4, "norm_num_groups": 32, "act_fn": "silu", "scaling_factor": 0.18215, "sample_size": 512,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4})
    say("text_encoder/config.json", {
        "architectures": ["CLIPTextModel"], "hidden_size": TEXT["width"], "intermediate_size": TEXT["wide"],
        "num_hidden_layers": TEXT["layers"], "num_attention_heads": 16, "vocab_size": TEXT["vocabulary"],
        "max_position_embeddings": TEXT["positions"], "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "projection_dim": 512, "model_type": "clip_text_model"})
    shutil.copytree(Path(__file__).resolve().parent / "tiny-a" / "tokenizer", out / "tokenizer")
    write(out / "text_encoder" / "model.safetensors", text().shapes)
    write(out / "unet" / "diffusion_pytorch_model.safetensors", unet().shapes)
    write(out / "vae" / "diffusion_pytorch_model.safetensors", vae().shapes)


if __name__ == "__main__":
    main()
