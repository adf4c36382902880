"""Makes a folder with the whole configuration of Sana 1.6B for pictures of 1024x1024, and random weights.

    python3 tests/golden/make_sana16_random.py FOLDER [--check]
    python3 tests/golden/make_sana16_random.py FOLDER --sprint BASE

The second makes a folder of Sana-Sprint 1.6B: a transformer of its own, and links into BASE, which the first made.

1.60 G parameters of SanaTransformer2DModel in fp16, 2.61 G of Gemma-2-2B in bf16 and two shards, 312 M of AutoencoderDC
(f32c32) in fp16: 9.1 GB on disk. Needs nothing but Python; it shows that the real architecture runs, in what memory;
its pictures are noise. --check needs torch, diffusers and transformers: names and shapes of all tensors are those of
the classes that these configs make. The tokenizer is that of deploy/models/shapes-sana, since Gemma's vocabulary is not
ours to ship, and the instruction has as many tokens, 208, as the one of SanaPipeline has in Gemma's.
"""
import json
import math
import os
import shutil
import struct
import sys
from pathlib import Path

from make_ms17b_random import Tensors, start_folder, write

ROOT = Path(__file__).resolve().parents[2]
CHANNELS, BLOCKS, CAPTION, LATENTS = 70 * 32, 20, 2304, 32
INSTRUCTION = " ".join(["a red circle on a blue background"] * 29 + ["a red circle"]) + " "
SHARD_BYTES = 5 * 10 ** 9
TEXT = {"hidden_size": CAPTION, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "query_pre_attn_scalar": 256}
VAE_CHANNELS, ENCODER_LAYERS, DECODER_LAYERS = [128, 256, 512, 512, 1024, 1024], [2, 2, 2, 3, 3, 3], [3] * 6
ATTENDS_FROM = 3  # the first stage of EfficientViT blocks


def glumb(t, name, c, wide):
    t.layer(name + ".conv_inverted", 2 * wide, c, 1, 1)
    t.layer(name + ".conv_depth", 2 * wide, 1, 3, 3)
    t.layer(name + ".conv_point", c, wide, 1, 1, bias=False)


def transformer(sprint=False):
    t, c = Tensors(), CHANNELS
    t.shapes["scale_shift_table"] = (2, c)
    t.layer("patch_embed.proj", c, LATENTS, 1, 1)
    embedders = ["timestep_embedder", "guidance_embedder"] if sprint else ["emb.timestep_embedder"]
    for name in embedders:
        t.layer(f"time_embed.{name}.linear_1", c, 256)
        t.layer(f"time_embed.{name}.linear_2", c, c)
    t.layer("time_embed.linear", 6 * c, c)
    t.layer("caption_projection.linear_1", c, CAPTION)
    t.layer("caption_projection.linear_2", c, c)
    t.norm("caption_norm", c, bias=False)
    for n in range(BLOCKS):
        block = f"transformer_blocks.{n}"
        t.shapes[block + ".scale_shift_table"] = (6, c)
        for attention, bias in (("attn1", False), ("attn2", True)):
            for name in ("to_q", "to_k", "to_v"):
                t.layer(f"{block}.{attention}.{name}", c, c, bias=bias)
            for name in ("norm_q", "norm_k") if sprint else ():
                t.norm(f"{block}.{attention}.{name}", c, bias=False)
            t.layer(f"{block}.{attention}.to_out.0", c, c)
        glumb(t, block + ".ff", c, 5 * c // 2)
    t.layer("proj_out", LATENTS, c)
    return t


def text():
    t, c, wide = Tensors(), TEXT["hidden_size"], TEXT["intermediate_size"]
    inner, kv_inner = (TEXT["head_dim"] * TEXT[key] for key in ("num_attention_heads", "num_key_value_heads"))
    t.layer("embed_tokens", TEXT["vocab_size"], c, bias=False)
    for n in range(TEXT["num_hidden_layers"]):
        layer = f"layers.{n}"
        for name, o, i in (("self_attn.q_proj", inner, c), ("self_attn.k_proj", kv_inner, c),
                           ("self_attn.v_proj", kv_inner, c), ("self_attn.o_proj", c, inner),
                           ("mlp.gate_proj", wide, c), ("mlp.up_proj", wide, c), ("mlp.down_proj", c, wide)):
            t.layer(f"{layer}.{name}", o, i, bias=False)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            t.norm(f"{layer}.{name}_layernorm", c, bias=False)
    t.norm("norm", c, bias=False)
    return t


def vae_block(t, name, c, attends):
    if not attends:
        t.layer(name + ".conv1", c, c, 3, 3)
        t.layer(name + ".conv2", c, c, 3, 3, bias=False)
        t.norm(name + ".norm", c)
        return
    for part in ("to_q", "to_k", "to_v"):
        t.layer(f"{name}.attn.{part}", c, c, bias=False)
    t.layer(name + ".attn.to_qkv_multiscale.0.proj_in", 3 * c, 1, 5, 5, bias=False)
    t.layer(name + ".attn.to_qkv_multiscale.0.proj_out", 3 * c, 32, 1, 1, bias=False)
    t.layer(name + ".attn.to_out", c, 2 * c, bias=False)
    t.norm(name + ".attn.norm_out", c)
    glumb(t, name + ".conv_out", c, 4 * c)
    t.norm(name + ".conv_out.norm", c)


def vae():
    t, first, last = Tensors(), VAE_CHANNELS[0], VAE_CHANNELS[-1]
    t.layer("encoder.conv_in", first, 3, 3, 3)
    for stage, c in enumerate(VAE_CHANNELS):
        name, layers = f"encoder.down_blocks.{stage}", ENCODER_LAYERS[stage]
        for n in range(layers):
            vae_block(t, f"{name}.{n}", c, stage >= ATTENDS_FROM)
        if stage < 5:
            t.layer(f"{name}.{layers}.conv", VAE_CHANNELS[stage + 1], c, 3, 3)
    t.layer("encoder.conv_out", LATENTS, last, 3, 3)
    t.layer("decoder.conv_in", last, LATENTS, 3, 3)
    for stage, c in enumerate(VAE_CHANNELS):
        name, doubles = f"decoder.up_blocks.{stage}", stage < 5
        if doubles:
            t.layer(f"{name}.0.conv", c, VAE_CHANNELS[stage + 1], 3, 3)
        for n in range(DECODER_LAYERS[stage]):
            vae_block(t, f"{name}.{n + doubles}", c, stage >= ATTENDS_FROM)
    t.norm("decoder.norm_out", first)
    t.layer("decoder.conv_out", 3, first, 3, 3)
    return t


def spread_of(name, shape):
    """None: all ones, which a norm's weight is. Else the standard deviation of the values."""
    if len(shape) == 1:
        return None if name.endswith("weight") else 0.01
    return 1 / math.sqrt(math.prod(shape[1:]))


def spread_of_text(name, shape):
    return 0.01 if len(shape) == 1 else spread_of(name, shape)  # Gemma's norms keep their weights less one


def write_shards(folder, shapes):
    """As transformers cuts: tensors in order, a new file where the next would not fit."""
    shards, room = [{}], SHARD_BYTES
    for name, shape in shapes.items():
        count = 2 * math.prod(shape)
        if count > room:
            shards, room = [*shards, {}], SHARD_BYTES
        shards[-1][name] = shape
        room -= count
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards):
        write(folder / file, shard, "BF16", spread_of_text)
    index = {"metadata": {"total_size": sum(2 * math.prod(shape) for shape in shapes.values())},
             "weight_map": {name: file for file, shard in zip(files, shards) for name in shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def check(out):
    """What lies in the files beside the classes that the configs make, which have no weights here."""
    import torch
    from diffusers import AutoencoderDC, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    for folder in ("text_encoder", "transformer", "vae"):
        config = json.loads((out / folder / "config.json").read_text())
        with torch.device("meta"):
            if folder == "text_encoder":
                module = Gemma2Model(Gemma2Config(**config))
            else:
                module = {"transformer": SanaTransformer2DModel, "vae": AutoencoderDC}[folder].from_config(config)
        wanted = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        found = {}
        for path in (out / folder).glob("*.safetensors"):
            with open(path, "rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            found.update({name: facts["shape"] for name, facts in header.items() if name != "__metadata__"})
        apart = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        if apart:
            sys.exit(f"{folder}: not as in {type(module).__name__}: {', '.join(sorted(apart)[:9])}")
        print(f"{folder}: {len(found)} tensors, {sum(map(math.prod, found.values()))} parameters, all those of "
              f"{type(module).__name__}")


def index(pipeline, scheduler):
    return {"_class_name": pipeline, "_diffusers_version": "0.32.0", "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "Gemma2Model"], "tokenizer": ["transformers", "GemmaTokenizerFast"],
            "transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"]}


def transformer_config(**more):
    return {"_class_name": "SanaTransformer2DModel", "in_channels": LATENTS, "out_channels": LATENTS, "sample_size": 32,
            "num_layers": BLOCKS, "num_attention_heads": 70, "attention_head_dim": 32, "num_cross_attention_heads": 20,
            "cross_attention_head_dim": 112, "cross_attention_dim": CHANNELS, "caption_channels": CAPTION,
            "mlp_ratio": 2.5, "patch_size": 1, "attention_bias": False, "norm_elementwise_affine": False,
            "norm_eps": 1e-6, "interpolation_scale": None, "dropout": 0.0, **more}


def make_sprint(base):
    out, say = start_folder()
    say("model_index.json", index("SanaSprintPipeline", "SCMScheduler"))
    say("weir.json", {"instruction": INSTRUCTION, "steps": 2, "width": 1024, "height": 1024})
    say("scheduler/scheduler_config.json", {"_class_name": "SCMScheduler", "num_train_timesteps": 1000,
                                            "prediction_type": "trigflow", "sigma_data": 0.5})
    say("transformer/config.json", transformer_config(
        guidance_embeds=True, guidance_embeds_scale=0.1, qk_norm="rms_norm_across_heads", timestep_scale=1.0))
    write(out / "transformer" / "diffusion_pytorch_model.safetensors", transformer(sprint=True).shapes,
          spread_of=spread_of)
    for part in ("text_encoder", "tokenizer", "vae"):
        (out / part).symlink_to(os.path.relpath(base / part, out))


def main():
    if len(sys.argv) == 4 and sys.argv[2] == "--sprint":
        return make_sprint(Path(sys.argv[3]))
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--check"]):
        sys.exit(__doc__)
    out, say = start_folder()
    say("model_index.json", index("SanaPipeline", "DPMSolverMultistepScheduler"))
    say("weir.json", {"instruction": INSTRUCTION})
    say("scheduler/scheduler_config.json", {
        "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "flow_shift": 3.0,
        "num_train_timesteps": 1000, "prediction_type": "flow_prediction", "solver_order": 2,
        "solver_type": "midpoint", "use_flow_sigmas": True})
    say("transformer/config.json", transformer_config())
    say("text_encoder/config.json", {
        "architectures": ["Gemma2Model"], "model_type": "gemma2", **TEXT, "attention_bias": False,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096, "max_position_embeddings": 8192,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "bfloat16"})
    kinds, scales = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3, [[]] * 3 + [[5]] * 3
    say("vae/config.json", {
        "_class_name": "AutoencoderDC", "in_channels": 3, "latent_channels": LATENTS, "attention_head_dim": 32,
        "encoder_block_types": kinds, "decoder_block_types": kinds, "encoder_block_out_channels": VAE_CHANNELS,
        "decoder_block_out_channels": VAE_CHANNELS, "encoder_layers_per_block": ENCODER_LAYERS,
        "decoder_layers_per_block": DECODER_LAYERS, "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales, "downsample_block_type": "Conv", "upsample_block_type": "interpolate",
        "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu", "encoder_out_shortcut": True,
        "decoder_in_shortcut": True, "scaling_factor": 0.41407})
    shutil.copytree(ROOT / "deploy" / "models" / "shapes-sana" / "tokenizer", out / "tokenizer")
    write_shards(out / "text_encoder", text().shapes)
    write(out / "transformer" / "diffusion_pytorch_model.safetensors", transformer().shapes, spread_of=spread_of)
    write(out / "vae" / "diffusion_pytorch_model.safetensors", vae().shapes, spread_of=spread_of)
    if len(sys.argv) == 3:
        check(out)


if __name__ == "__main__":
    main()
