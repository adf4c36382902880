"""Makes tests/fuzz/corpus/lora: LoRA files for the small network of tests/fuzz/fuzz_lora.c, sound ones in every style and
bad ones with one fault each.

    python3 tests/golden/make_lora_seeds.py [FOLDER]
"""
import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4}


def file(tensors, metadata=None):
    """tensors: name -> (dtype, shape) with bytes that are small numbers, or (dtype, shape, bytes)."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = {"format": "pt", "lora_adapter_metadata": metadata}
    for name, (dtype, shape, *raw) in tensors.items():
        count = 1
        for side in shape:
            count *= side
        values = raw[0] if raw else (b"\x00\x3c" * count if SIZES[dtype] == 2 else struct.pack("<f", 0.5) * count)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def pair(prefix, a="lora_A", b="lora_B", dtype="F16", rank=2, more=()):
    return {f"{prefix}.{a}.weight": (dtype, [rank, 6, *more]), f"{prefix}.{b}.weight": (dtype, [4, rank, *more])}


OUT, Q = "transformer.proj_out", "unet.blocks.0.attn1.to_q"
NAN = struct.pack("<f", float("nan"))
SEEDS = {
    "sound-diffusers": file({**pair(OUT), **pair("transformer.blocks.0.attn1.to_k", dtype="BF16", rank=1)}),
    "sound-peft": file(pair("base_model.model.proj_out", dtype="F32")),
    "sound-old": file({**pair(Q, "lora.down", "lora.up"), Q + ".alpha": ("F32", [])}),
    "sound-older": file({**pair("unet.blocks.0.attn1.to_out.0", "lora_linear_layer.down", "lora_linear_layer.up"),
                         "unet.blocks.0.attn1.processor.to_k_lora.down.weight": ("F16", [1, 6]),
                         "unet.blocks.0.attn1.processor.to_k_lora.up.weight": ("F16", [4, 1])}),
    "sound-processor-out": file({"unet.blocks.0.attn1.processor.to_out_lora.down.weight": ("F16", [1, 6]),
                                 "unet.blocks.0.attn1.processor.to_out_lora.up.weight": ("F16", [4, 1])}),
    "sound-conv": file(pair(OUT, more=(1, 1))),
    "sound-metadata": file(pair(OUT), json.dumps({"transformer.lora_alpha": 4, "transformer.r": 2,
                                                  "transformer.alpha_pattern": {"^proj_out": 3, "to_q": 1}})),
    "sound-rslora": file(pair(Q), json.dumps({"unet.lora_alpha": 4, "unet.use_rslora": True})),
    "bad-name": file({**pair(OUT), "transformer.proj_out.other": ("F16", [4])}),
    "bad-text": file(pair("text_encoder.proj_out")),
    "bad-dora": file({**pair(OUT), OUT + ".lora_magnitude_vector": ("F16", [4])}),
    "bad-bias": file({**pair(OUT), OUT + ".lora_B.bias": ("F16", [4])}),
    "bad-module": file(pair("transformer.proj_in")),
    "bad-kind": file(pair("transformer.conv_in")),
    "bad-half": file({OUT + ".lora_A.weight": ("F16", [2, 6])}),
    "bad-other-half": file({OUT + ".lora_B.weight": ("F16", [4, 2])}),
    "bad-alpha-alone": file({OUT + ".alpha": ("F32", [1])}),
    "bad-alpha": file({**pair(OUT), OUT + ".alpha": ("F32", [2])}),
    "bad-alpha-nan": file({**pair(OUT), OUT + ".alpha": ("F32", [], NAN)}),
    "bad-alpha-type": file({**pair(OUT), OUT + ".alpha": ("I32", [])}),
    "bad-twice": file({**pair(OUT), "proj_out.lora_A.weight": ("F16", [2, 6])}),
    "bad-a": file({OUT + ".lora_A.weight": ("F16", [2, 5]), OUT + ".lora_B.weight": ("F16", [4, 2])}),
    "bad-b": file({OUT + ".lora_A.weight": ("F16", [2, 6]), OUT + ".lora_B.weight": ("F16", [4, 3])}),
    "bad-rank": file({OUT + ".lora_A.weight": ("F16", [0, 6]), OUT + ".lora_B.weight": ("F16", [4, 0])}),
    "bad-nan": file({OUT + ".lora_A.weight": ("F32", [1, 6], NAN * 6), OUT + ".lora_B.weight": ("F32", [4, 1])}),
    "bad-type": file(pair(OUT, dtype="I32")),
    "bad-empty": file({}),
    "bad-metadata": file(pair(OUT), "[1"),
    "bad-metadata-alpha": file(pair(OUT), json.dumps({"lora_alpha": "four"})),
    "bad-metadata-huge": file(pair(OUT), json.dumps({"lora_alpha": 1e300})),
    "bad-metadata-dora": file(pair(OUT), json.dumps({"transformer.use_dora": True})),
    "bad-metadata-list": file(pair(OUT), json.dumps({"alpha_pattern": [1]})),
    "bad-metadata-pattern": file(pair(OUT), json.dumps({"alpha_pattern": {"a.*": 1}})),
    "bad-metadata-value": file(pair(OUT), json.dumps({"alpha_pattern": {"to_q": None}})),
}


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "fuzz" / "corpus" / "lora"
    out.mkdir(parents=True, exist_ok=True)
    for name, content in SEEDS.items():
        (out / name).write_bytes(content)
    print(f"{len(SEEDS)} seeds, {sum(map(len, SEEDS.values()))} bytes")


main()
