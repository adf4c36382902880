"""Makes tests/golden/tiny-sana-*/{text_encoder,transformer} (small random Gemma2Model and SanaTransformer2DModel) and
tests/golden/tiny-sana-*.safetensors (what transformers, with eager attention, and diffusers compute with them, fp32 on
a CPU).

    python3 tests/golden/make_tiny_sana.py [OUT_FOLDER]

Between them the three cover what configs may say: heads of the text that share keys and values and heads that do not, a
soft cap, a strong one and none, windows on some layers in turn and as a list says, both spellings of a config and of
tensor names; a transformer plain, with norms of queries and keys and an embedded guidance (Sprint), and with positions,
biases and heads for the text that are narrower than it; bf16, f32 and fp16 files.
"""
import json
import sys
from pathlib import Path

import torch
from diffusers import SanaTransformer2DModel
from diffusers.utils import logging as diffusers_logging
from make_tiny_folders import randomise
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2Model

HERE = Path(__file__).resolve().parent

TINY = {
    # Sana's shape in small: two queries a key, alternate windows; neither norms of queries nor positions.
    "tiny-sana-a": dict(
        text=dict(vocab_size=64, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8),
        transformer=dict(in_channels=4, out_channels=4, num_layers=2, num_attention_heads=6, attention_head_dim=4,
                         num_cross_attention_heads=3, cross_attention_head_dim=8, cross_attention_dim=24,
                         caption_channels=24, sample_size=16),
        dtype=torch.bfloat16, t=[981.0, 7.25, 500.0], shapes=[(2, 5, 7, 9, [3, 9]), (1, 3, 4, 5, [1])], seed=31),
    # Sprint's: norms of queries and keys, guidance inside; one key for all heads, no cap, odd heads. What the
    # transformer's norms are given is small, so that every norm's eps shows in what comes out.
    "tiny-sana-b": dict(
        text=dict(vocab_size=77, hidden_size=20, intermediate_size=34, num_hidden_layers=3, num_attention_heads=5,
                  num_key_value_heads=1, head_dim=6, query_pre_attn_scalar=11, attn_logit_softcapping=None,
                  rope_parameters=dict(rope_type="default", rope_theta=500.0),
                  layer_types=["full_attention", "full_attention", "sliding_attention"]),
        transformer=dict(in_channels=5, out_channels=5, num_layers=2, num_attention_heads=4, attention_head_dim=5,
                         num_cross_attention_heads=2, cross_attention_head_dim=10, cross_attention_dim=20,
                         caption_channels=20, sample_size=6, qk_norm="rms_norm_across_heads", guidance_embeds=True,
                         norm_eps=3e-5),
        quiet=["patch_embed.", ".to_q.", ".to_k.", ".to_out.", ".conv_point."],
        dtype=torch.float32, t=[1.0000037, 0.21, 0.5], guidance=[0.45, 0.1, 0.3],
        shapes=[(2, 5, 7, 9, [9, 2]), (1, 1, 1, 1, [1])], seed=32),
    # 4K's positions, biases, 3 x 6 channels of attention to the text in 4 x 7, hidden channels that do not come out
    # even; the second shape has the size of sample_size, for which the class keeps a table.
    "tiny-sana-c": dict(
        text=dict(vocab_size=70, hidden_size=18, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3,
                  num_key_value_heads=3, head_dim=10, query_pre_attn_scalar=7, attn_logit_softcapping=2.0,
                  rms_norm_eps=1e-4, rope_parameters=dict(rope_type="default", rope_theta=70.0)),
        transformer=dict(in_channels=4, out_channels=None, num_layers=3, num_attention_heads=4, attention_head_dim=7,
                         num_cross_attention_heads=3, cross_attention_head_dim=6, cross_attention_dim=28,
                         caption_channels=18, mlp_ratio=1.7, attention_bias=True, sample_size=16, norm_eps=1e-4,
                         interpolation_scale=2.0),
        dtype=torch.float16, t=[981.0, 7.25, 500.0], shapes=[(2, 6, 5, 7, [7, 4]), (1, 16, 16, 5, [4])],
        old_spelling=True, seed=33),
}


def rewrite_as_old(folder, variant):
    """As transformers 4 saved a language model: rope_theta by itself, no layer_types, names that begin with model."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["hidden_act"] = config["hidden_activation"]
    del config["layer_types"]
    path.write_text(json.dumps(config, indent=2) + "\n")
    path = folder / ("model.safetensors" if variant is None else f"model.{variant}.safetensors")
    save_file({"model." + name: tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def build(name, out):
    config = TINY[name]
    dtype, folder = config["dtype"], out / name
    generator = torch.Generator().manual_seed(config["seed"])
    text = Gemma2Model(Gemma2Config(**config["text"])).eval()
    transformer = SanaTransformer2DModel(**config["transformer"]).eval()
    for module in (text, transformer):
        randomise(module, generator, dtype)
    with torch.no_grad():
        for parameter_name, parameter in transformer.named_parameters():
            if any(part in parameter_name for part in config.get("quiet", [])):
                parameter.copy_((0.04 * parameter).to(dtype).float())
    variant = "fp16" if dtype == torch.float16 else None
    text.to(dtype).save_pretrained(folder / "text_encoder", variant=variant)
    transformer.to(dtype).save_pretrained(folder / "transformer", variant=variant)
    if config.get("old_spelling"):
        rewrite_as_old(folder / "text_encoder", variant)
    # What is judged is what a reader of the folder gets.
    text, info = Gemma2Model.from_pretrained(folder / "text_encoder", dtype=torch.float32, variant=variant,
                                             attn_implementation="eager", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for key, value in config["text"].items():
        assert getattr(text.config, key) == value, key
    transformer = SanaTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32,
                                                         variant=variant)
    return text, transformer, generator


def mask_of(lengths, tokens):
    return (torch.arange(tokens)[None] < torch.tensor(lengths)[:, None]).long()


def golden_text(text, generator, keep):
    vocabulary = text.config.vocab_size
    ids = torch.randint(vocabulary, (3, 11), generator=generator)
    keep("text.0.ids", ids.int())
    keep("text.0.y", text(input_ids=ids).last_hidden_state)
    # Padded on the right, and masked: what real tokens give must not depend on it.
    lengths, tokens = [40, 1, 23], 40
    mask = mask_of(lengths, tokens)
    ids = torch.randint(vocabulary, (len(lengths), tokens), generator=generator) * mask
    keep("text.1.ids", ids.int())
    keep("text.1.lengths", torch.tensor(lengths, dtype=torch.int32))
    keep("text.1.y", text(input_ids=ids, attention_mask=mask).last_hidden_state)


def golden_transformer(config, transformer, generator, keep):
    for i, (rows, h, w, tokens, lengths) in enumerate(config["shapes"]):
        x = torch.randn((rows, config["transformer"]["in_channels"], h, w), generator=generator)
        text = torch.randn((rows, tokens, transformer.config.caption_channels), generator=generator)
        t = torch.tensor(config["t"][:rows] if i == 0 else config["t"][2:])
        call = {}
        keep(f"sana.{i}.x", x), keep(f"sana.{i}.text", text), keep(f"sana.{i}.t", t)
        keep(f"sana.{i}.lengths", torch.tensor(lengths, dtype=torch.int32))
        if "guidance" in config:
            call["guidance"] = torch.tensor(config["guidance"][:rows] if i == 0 else config["guidance"][2:])
            keep(f"sana.{i}.guidance", call["guidance"])
        keep(f"sana.{i}.y", transformer(x, text, t, encoder_attention_mask=mask_of(lengths, tokens), **call).sample)


def golden(name, text, transformer, generator):
    tensors = {}

    def keep(key, value):
        tensors[key] = value.contiguous()
        if key.endswith(".y"):
            print(f"{name} {key}: {list(value.shape)}, mean {value.mean():.3f}, std {value.std():.3f}")

    with torch.no_grad():
        golden_text(text, generator, keep)
        golden_transformer(TINY[name], transformer, generator, keep)
    return tensors


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    diffusers_logging.disable_progress_bar(), diffusers_logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    for name in TINY:
        if (out / name / "transformer").exists():
            sys.exit(f"{out / name}/transformer is already there; remove it first")
        text, transformer, generator = build(name, out)
        vectors = out / f"{name}.safetensors"
        save_file(golden(name, text, transformer, generator), vectors)
        size = sum(f.stat().st_size for f in (out / name).rglob("*") if f.is_file())
        count = [sum(p.numel() for p in module.parameters()) for module in (text, transformer)]
        print(f"{name}: folder {size / 1024:.0f} KiB, vectors {vectors.stat().st_size / 1024:.0f} KiB, "
              f"text {count[0]} parameters, transformer {count[1]}")


if __name__ == "__main__":
    main()
