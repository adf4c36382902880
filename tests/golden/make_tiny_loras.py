"""Makes tests/golden/loras/FOLDER-one.safetensors and -two (small random LoRA files for tiny-sana-a, -b, -c and tiny-a)
and tests/golden/loras/vectors.safetensors: what diffusers and PEFT compute with both at once, fp32 on a CPU.

    python3 tests/golden/make_tiny_loras.py [FOLDER]

For the two Sana pipelines the files are written by save_lora_weights and read back by load_lora_weights, weights set by
set_adapters. tiny-sana-c has no pipeline, and UNet3DConditionModel no loader in this diffusers: there PEFT holds the
adapters itself. Between them the files cover ranks that differ inside one file, alpha as metadata, as a pattern, as
tensors and not at all, rank-stabilised scales, older names, linears before an activation, 1x1 convolutions, f32, f16
and bf16. The weights, sizes and steps are in tests/nets/test_lora.c too.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import SanaPipeline, SanaSprintPipeline, SanaTransformer2DModel, TextToVideoSDPipeline
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
WEIGHTS = {"one": 0.7, "two": -0.3}
PROMPT = "A red Circle left of a blue star"
FILM_PROMPT = "a red circle moving right on a blue background"

ADAPTERS = {
    "tiny-sana-a": dict(
        one=dict(config=dict(r=4, lora_alpha=8,
                             target_modules=r".*blocks\.0.*(to_[qkv]|to_out\.0|conv_inverted|conv_point)"),
                 dtype=torch.bfloat16, metadata=True),
        two=dict(config=dict(r=2, lora_alpha=2, target_modules=r"(patch_embed\.proj|time_embed\.linear|proj_out|"
                                                               r".*linear_1|.*0\.attn1\.to_k|.*1\.attn2\.to_v)"),
                 dtype=torch.float32)),
    "tiny-sana-b": dict(
        one=dict(config=dict(r=3, lora_alpha=6, target_modules=["to_q", "to_k", "to_v"],
                             rank_pattern={"to_v": 5}, alpha_pattern={"attn1.to_q": 1}),
                 dtype=torch.float16, metadata=True),
        two=dict(config=dict(r=2, lora_alpha=2, target_modules=r"(.*guidance_embedder\.linear_[12]|.*attn2\.to_k)"),
                 dtype=torch.float32)),
    "tiny-sana-c": dict(
        one=dict(config=dict(r=2, lora_alpha=3, use_rslora=True,
                             target_modules=r".*blocks\.2.*attn[12]\.to_(q|v|out\.0)"),
                 dtype=torch.float16, metadata=True),
        two=dict(config=dict(r=1, lora_alpha=0.5, target_modules=r"(.*1\.attn1\.to_k|.*0\.ff\.conv_inverted|proj_out)"),
                 dtype=torch.float32, old=True)),
    "tiny-a": dict(
        one=dict(config=dict(r=2, lora_alpha=3, target_modules=r"(transformer_in|mid_block\.attentions).*(1\.to_[qkv]|"
                                                               r"2\.to_k|net\.0\.proj|net\.2|proj_in)"),
                 dtype=torch.float16, metadata=True),
        two=dict(config=dict(r=3, lora_alpha=6, target_modules=r"(time_embedding\.linear_[12]|mid.*0\.time_emb_proj|"
                                                               r"up_blocks\.3\..*attentions\.0.*attn2\.to_k)"),
                 dtype=torch.float32, old=True)),
}


def randomise(network, name, generator, dtype):
    """Both halves drawn; together as large as a tenth of a weight."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, LoraLayer) and name in module.lora_A:
                a, b = module.lora_A[name].weight, module.lora_B[name].weight
                for p, scale in ((a, 1 / a[0].numel() ** 0.5), (b, 0.3 / b.shape[1] ** 0.5)):
                    p.copy_((torch.randn(p.shape, generator=generator) * scale).to(dtype).float())


def metadata_of(prefix, config):
    kept = {f"{prefix}.{k}": v for k, v in config.to_dict().items()
            if k in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias")}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(kept, indent=2, sort_keys=True)}


def old_names(state, config):
    """As older files have it: lora.down and lora.up, and alpha as a tensor."""
    out = {}
    for key, value in state.items():
        module = key.split(".lora_")[0]
        out[f"{module}.lora.{'down' if 'lora_A' in key else 'up'}.weight"] = value
        out[f"{module}.alpha"] = torch.tensor(float(config.lora_alpha))
    return out


def write(folder, name, prefix, network, adapters, generator):
    """Adds both adapters to the network and writes each to its file."""
    for label, adapter in adapters.items():
        config = LoraConfig(init_lora_weights=False, **adapter["config"])
        inject_adapter_in_model(config, network, adapter_name=label)
        randomise(network, label, generator, adapter["dtype"])
        state = {k: v.to(adapter["dtype"]).contiguous()
                 for k, v in get_peft_model_state_dict(network, adapter_name=label).items()}
        path = folder / f"{name}-{label}.safetensors"
        if prefix == "transformer" and not adapter.get("old"):
            meta = {"transformer_lora_adapter_metadata": config.to_dict()} if adapter.get("metadata") else {}
            if meta:  # what matters of it
                meta["transformer_lora_adapter_metadata"] = {
                    k: v for k, v in meta["transformer_lora_adapter_metadata"].items()
                    if k in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules")}
                modules = meta["transformer_lora_adapter_metadata"]["target_modules"]
                if not isinstance(modules, str):
                    meta["transformer_lora_adapter_metadata"]["target_modules"] = sorted(modules)
            SanaPipeline.save_lora_weights(folder, transformer_lora_layers=state, weight_name=path.name, **meta)
        else:
            if adapter.get("old"):
                state = old_names(state, config)
            save_file({f"{prefix}.{k}": v for k, v in state.items()}, path,
                      metadata_of(prefix, config) if adapter.get("metadata") else {"format": "pt"})
        print(f"{path.name}: {path.stat().st_size} bytes, {len(state)} tensors")


def use_both(network):
    """PEFT's own: what set_adapters of a pipeline does."""
    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(list(WEIGHTS))
            for label, weight in WEIGHTS.items():
                if label in module.lora_A:
                    module.set_scale(label, weight)


def mask_of(lengths, tokens):
    return (torch.arange(tokens)[None] < lengths[:, None]).long()


def golden_sana(name, transformer, keep):
    v = load_file(HERE / f"{name}.safetensors")
    call = {"guidance": v["sana.0.guidance"]} if "sana.0.guidance" in v else {}
    text = v["sana.0.text"]
    y = transformer(v["sana.0.x"], text, v["sana.0.t"],
                    encoder_attention_mask=mask_of(v["sana.0.lengths"], text.shape[1]), **call).sample
    keep(f"{name}.y", y)
    print(f"{name}: y moved by {(y - v['sana.0.y']).norm() / v['sana.0.y'].norm():.3f}")


def golden_pictures(name, pipeline, keep, **call):
    decode = pipeline.vae.decode

    def spy(z, *args, **kwargs):
        keep(f"{name}.latents", (z * pipeline.vae.config.scaling_factor).flatten()[:256].clone())
        return decode(z, *args, **kwargs)

    pipeline.vae.decode = spy
    picture = pipeline(PROMPT, generator=torch.Generator("cpu").manual_seed(51), **call).images[0]
    keep(f"{name}.rgb", torch.from_numpy(np.array(picture)))


def main():
    out = (Path(sys.argv[1]) if len(sys.argv) > 1 else HERE) / "loras"
    out.mkdir(exist_ok=True)
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    tensors = {}

    def keep(key, value):
        tensors[key] = value.contiguous()

    pictures = {"tiny-sana-a": dict(kind=SanaPipeline, height=32, width=40, num_inference_steps=6, guidance_scale=4.5,
                                    negative_prompt="blue square", complex_human_instruction=None),
                "tiny-sana-b": dict(kind=SanaSprintPipeline, height=32, width=32, num_inference_steps=2,
                                    guidance_scale=4.5, use_resolution_binning=False, complex_human_instruction=None)}
    for number, (name, adapters) in enumerate(ADAPTERS.items()):
        generator = torch.Generator().manual_seed(70 + number)
        if name in pictures:
            call = dict(pictures[name])
            kind = call.pop("kind")
            pipeline = kind.from_pretrained(HERE / name, torch_dtype=torch.float32)
            write(out, name, "transformer", pipeline.transformer, adapters, generator)
            # What is judged is what a reader of the files gets.
            pipeline = kind.from_pretrained(HERE / name, torch_dtype=torch.float32)
            pipeline.text_encoder.config._attn_implementation = "eager"
            pipeline.set_progress_bar_config(disable=True)
            for label in adapters:
                pipeline.load_lora_weights(out, weight_name=f"{name}-{label}.safetensors", adapter_name=label)
            pipeline.set_adapters(list(WEIGHTS), list(WEIGHTS.values()))
            if name == "tiny-sana-a":
                call["complex_human_instruction"] = [json.loads((HERE / name / "weir.json").read_text())["instruction"]]
            golden_sana(name, pipeline.transformer, keep)
            golden_pictures(name, pipeline, keep, **call)
        elif name == "tiny-sana-c":
            transformer = SanaTransformer2DModel.from_pretrained(HERE / name / "transformer", variant="fp16",
                                                                 torch_dtype=torch.float32)
            write(out, name, "transformer", transformer, adapters, generator)
            use_both(transformer)
            golden_sana(name, transformer, keep)
        else:
            pipeline = TextToVideoSDPipeline.from_pretrained(HERE / name, torch_dtype=torch.float32)
            pipeline.set_progress_bar_config(disable=True)
            write(out, name, "unet", pipeline.unet, adapters, generator)
            use_both(pipeline.unet)
            v = load_file(HERE / f"{name}.safetensors")
            y = pipeline.unet(v["unet.1.x"], v["unet.1.t"], v["unet.1.text"]).sample
            print(f"{name}: y moved by {(y - v['unet.1.y']).norm() / v['unet.1.y'].norm():.3f}")
            keep(f"{name}.y", y)
            call = dict(prompt=FILM_PROMPT, negative_prompt="blue square", height=24, width=32, num_frames=2,
                        guidance_scale=5.0, num_inference_steps=6)
            g = lambda: torch.Generator("cpu").manual_seed(51)
            latents = pipeline(generator=g(), output_type="latent", **call).frames
            keep(f"{name}.latents", latents.flatten()[:256].clone())
            film = pipeline(generator=g(), output_type="np", **call).frames[0]
            keep(f"{name}.rgb", torch.from_numpy((film * 255).astype(np.uint8)))
    for key, value in tensors.items():
        if key.endswith("rgb"):
            print(f"{key}: {list(value.shape)} mean {value.float().mean():.1f} std {value.float().std():.1f}")
    save_file(tensors, out / "vectors.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    print(f"loras: {sum(f.stat().st_size for f in out.iterdir()) / 1024:.0f} KiB")


main()
