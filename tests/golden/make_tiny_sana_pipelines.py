"""Makes whole pipelines of tests/golden/tiny-sana-a and -b: beside the networks of make_tiny_sana.py and make_tiny_dc.py a
model_index.json, a scheduler, a tokenizer and where it is wanted a weir.json; and
tests/golden/tiny-sana-*-pictures.safetensors: what SanaPipeline and SanaSprintPipeline make with them, fp32 on a CPU.

    python3 tests/golden/make_tiny_sana_pipelines.py [FOLDER]

tiny-sana-a is Sana with an instruction before the prompt and pictures made at the sizes of sample_size 16, then resized
and cropped; tiny-sana-b is Sprint, whose sample_size has no table. The prompts are in
tests/nets/test_sana_pipelines.c too. (tiny-sana-c leaves out_channels to the class, with which SanaPipeline fails.)
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaSprintPipeline,
                       SCMScheduler)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
PROMPT = "A red Circle left of a blue star"
LONG = "the star above the square " * 40 + "STAR"
INSTRUCTION = "say more:\n- of a\nprompt: "
MERGES = ("a n|r e|re d|▁ a|▁ s|i r|c ir|cir c|circ l|circl e|l e|le f|lef t|o f|▁ of|b l|bl u|blu e|s t|st a|sta r|"
          "▁s t").split("|")

TINY = {
    "tiny-sana-a": dict(
        kind=SanaPipeline, weir=dict(instruction=INSTRUCTION, steps=8, width=72, height=56),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        pictures=dict(
            dpm=dict(prompt=PROMPT, negative_prompt="blue square", num_inference_steps=8, guidance_scale=4.5),
            euler=dict(prompt=PROMPT, negative_prompt="", num_inference_steps=6, guidance_scale=2.0,
                       sampler=FlowMatchEulerDiscreteScheduler(shift=3.0)),
            plain=dict(prompt=LONG, num_inference_steps=20, guidance_scale=1.0)),
        size=(56, 72), binned=True, seed=41),
    "tiny-sana-b": dict(
        kind=SanaSprintPipeline, weir=None, scheduler=SCMScheduler(),
        pictures=dict(
            one=dict(prompt=PROMPT, num_inference_steps=1, intermediate_timesteps=None, guidance_scale=4.5),
            two=dict(prompt=PROMPT, num_inference_steps=2, guidance_scale=4.5),
            four=dict(prompt=LONG, num_inference_steps=4, intermediate_timesteps=None, guidance_scale=1.0)),
        size=(64, 32), binned=False, seed=42),
}


def write_tokenizer(folder):
    """Gemma's in small: no pieces of bytes, so that what is not a letter is unknown."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", "\n", ":", "-"] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    for merge in MERGES:
        if merge.replace(" ", "") not in pieces:
            pieces.append(merge.replace(" ", ""))
    assert len(pieces) <= 64
    names = ["<pad>", "<eos>", "<bos>", "<unk>"]
    added = [dict(id=i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, name in enumerate(names)]
    bos, text = {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer = dict(
        version="1.0", truncation=None, padding=None, added_tokens=added,
        normalizer=dict(type="Replace", pattern={"String": " "}, content="▁"),
        pre_tokenizer=dict(type="Split", pattern={"String": " "}, behavior="MergedWithPrevious", invert=False),
        post_processor=dict(type="TemplateProcessing", single=[bos, text], pair=[bos, text],
                            special_tokens={"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}),
        decoder=None,
        model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None,
                   end_of_word_suffix=None, fuse_unk=True, byte_fallback=True, ignore_merges=False,
                   vocab={piece: i for i, piece in enumerate(pieces)}, merges=[m.split(" ") for m in MERGES]))
    config = dict(add_bos_token=True, add_eos_token=False, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
                  unk_token="<unk>", clean_up_tokenization_spaces=False, model_max_length=300, padding_side="right",
                  tokenizer_class="GemmaTokenizer")
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def build(folder, tiny):
    """What is judged is what a reader of the folder gets."""
    scheduler = tiny["scheduler"]
    scheduler.save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    index = {"_class_name": tiny["kind"].__name__, "_diffusers_version": "0.42.1",
             "scheduler": ["diffusers", type(scheduler).__name__], "text_encoder": ["transformers", "Gemma2Model"],
             "tokenizer": ["transformers", "GemmaTokenizerFast"],
             "transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if tiny["weir"]:
        (folder / "weir.json").write_text(json.dumps(tiny["weir"], indent=2) + "\n")
    pipeline = tiny["kind"].from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.text_encoder.config._attn_implementation = "eager"
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def golden(name, tiny, pipeline):
    tensors, decode, encode = {}, pipeline.vae.decode, pipeline.encode_prompt
    height, width = tiny["size"]
    instruction = [tiny["weir"]["instruction"]] if tiny["weir"] else None

    def spy(z, *args, **kwargs):
        tensors[f"{label}.latents"] = (z * pipeline.vae.config.scaling_factor).contiguous()
        return decode(z, *args, **kwargs)

    def spy_text(*args, **kwargs):
        encoded = encode(*args, **kwargs)
        tensors[f"{label}.tokens"] = encoded[1].sum().float().reshape(1)  # of the prompt: those that are not masked
        return encoded

    pipeline.vae.decode, pipeline.encode_prompt = spy, spy_text
    for label, call in tiny["pictures"].items():
        call = dict(call)
        pipeline.scheduler = call.pop("sampler", tiny["scheduler"])
        picture = pipeline(height=height, width=width, use_resolution_binning=tiny["binned"],
                           complex_human_instruction=instruction,
                           generator=torch.Generator("cpu").manual_seed(tiny["seed"]), **call).images[0]
        rgb = torch.from_numpy(np.array(picture))
        tensors[f"{label}.rgb"] = rgb
        # Only some of the latents: enough to see where two runs part.
        z = tensors[f"{label}.latents"]
        tensors[f"{label}.latents"] = z.flatten()[:256].clone()
        print(f"{name} {label}: latents {list(z.shape)} std {z.std():.3f}, picture {list(rgb.shape)} mean "
              f"{rgb.float().mean():.1f} std {rgb.float().std():.1f}, at 0 {(rgb == 0).float().mean():.3f}, at 255 "
              f"{(rgb == 255).float().mean():.3f}, tokens {tensors[f'{label}.tokens'].item():.0f}")
    return tensors


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name, tiny in TINY.items():
        pipeline = build(out / name, tiny)
        path = out / f"{name}-pictures.safetensors"
        save_file(golden(name, tiny, pipeline), path)
        print(f"{name}: vectors {path.stat().st_size / 1024:.0f} KiB")


main()
