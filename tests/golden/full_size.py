"""Sets every network at its real size, with random weights, beside diffusers and transformers on the same device.

    python3 tests/golden/full_size.py --tool BUILD/bin/net_tool [--only NAME]... [--device cuda] [--out FILE]
    python3 tests/golden/full_size.py --tool BUILD/bin/net_tool --tiny --device cpu

For each: makes the network on the device, writes it as a diffusers folder in f32, runs net_tool on that in f32 and in
bf16, and the network itself in f32 (TF32 off everywhere) and, by .to(bfloat16), in bf16; same weights, same inputs.
Limits: in f32 ||ours - theirs|| / ||theirs|| <= 2e-5; in bf16 our distance from their f32 is at most 1.5 times the
distance that their own bf16 has from it. Then the check is checked: with noise as large as its spread on one tensor, or
with one wrong setting, theirs must be farther from ours than the limit of f32; that is asked of one tensor in each of
--doubts places drawn by lot, and of every setting. Prints a line a network, as soon as it is known; exit status 1 when
one misses a limit or cannot be run.

A folder at a time lies in --scratch (up to 19 GB, in /dev/shm where that has room). --tiny: small configurations of the
same classes, to see that all of this works; their bf16 has no limit, since few numbers say little about errors.
"""
import argparse
import contextlib
import gc
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Callable, NamedTuple

import torch
from diffusers import AutoencoderDC, AutoencoderKL, SanaTransformer2DModel, UNet3DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, Gemma2Config, Gemma2Model
from transformers.activations import ACT2FN

# Sums of f32 in another order leave the networks some 4e-6 apart, where their random weights are not chaotic.
F32_LIMIT, BF16_LIMIT = 2e-5, 1.5
BF16 = torch.bfloat16

CLIP = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, vocab_size=49408,
            max_position_embeddings=77, hidden_act="gelu", layer_norm_eps=1e-5, projection_dim=512)
GEMMA = dict(vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
             num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256, sliding_window=4096)
UNET = dict(sample_size=32, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2, attention_head_dim=64, cross_attention_dim=1024)
KL = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
          block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512)
SANA = dict(in_channels=32, out_channels=32, num_layers=20, num_attention_heads=70, attention_head_dim=32,
            num_cross_attention_heads=20, cross_attention_head_dim=112, cross_attention_dim=2240,
            caption_channels=2304, sample_size=32)
NORMS, GUIDED = dict(qk_norm="rms_norm_across_heads"), dict(guidance_embeds=True)
DC_SIDE = dict(block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
               block_out_channels=(128, 256, 512, 512, 1024, 1024), qkv_multiscales=((), (), (), (5,), (5,), (5,)))
DC = dict(latent_channels=32, encoder_layers_per_block=(2, 2, 2, 3, 3, 3), decoder_layers_per_block=(3,) * 6,
          downsample_block_type="Conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
          decoder_act_fns="silu", scaling_factor=0.41407,
          **{f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in DC_SIDE.items()})

TINY_SANA = dict(in_channels=4, out_channels=4, num_layers=3, num_attention_heads=6, attention_head_dim=8,
                 num_cross_attention_heads=3, cross_attention_head_dim=16, cross_attention_dim=48, caption_channels=24)
TINY_DC = dict(latent_channels=4, attention_head_dim=8, encoder_block_out_channels=(8, 8, 8, 16, 16, 16),
               decoder_block_out_channels=(8, 8, 8, 16, 16, 16))


class Network(NamedTuple):
    kind: str                  # net_tool's
    component: str
    make: Callable             # of the config
    config: dict
    tiny: dict                 # what is other in the tiny one
    inputs: Callable           # (draw, config, tiny) -> what net_tool reads
    call: Callable             # (model, inputs as given to it) -> output
    wrong: Callable = None     # (model, inputs) -> {words: (a context that makes it wrong, inputs)}
    louder: dict = {}          # {part of a name: factor}: what would else hardly show, or make chaos of rounding
    blind: str = "^$"          # names of tensors that change nothing: what softmax is given may be shifted


# --- inputs, calls and wrong settings ---------------------------------------------------------------------------------

def ids(rows, tokens, vocabulary):
    def inputs(draw, config, tiny):
        lengths = [tokens, max(1, tokens // 8)][:rows] if not tiny else [13, 5]
        shape = (rows, tokens) if not tiny else (2, 13)
        return {"ids": torch.randint(3, config[vocabulary], shape, generator=draw.generator, device=draw.device).int(),
                "lengths": torch.tensor(lengths, dtype=torch.int32, device=draw.device)}
    return inputs


def film(draw, config, tiny):
    frames, side, tokens = (16, 32, 77) if not tiny else (3, 9, 7)
    return {"x": draw(2, 4, frames, side, side), "t": torch.full((2,), 500.0, device=draw.device),
            "text": draw(2, tokens, config["cross_attention_dim"])}


def picture(t, guidance=None):
    def inputs(draw, config, tiny):
        side, tokens, lengths = (32, 300, [300, 41]) if not tiny else (7, 9, [9, 4])
        out = {"x": draw(2, config["in_channels"], side, side), "t": torch.tensor(t, device=draw.device),
               "text": draw(2, tokens, config["caption_channels"]),
               "lengths": torch.tensor(lengths, dtype=torch.int32, device=draw.device)}
        return {**out, "guidance": torch.full((2,), guidance, device=draw.device)} if guidance else out
    return inputs


def latents(rows, channels, side, spread):
    return lambda draw, config, tiny: {"x": spread * draw(*(rows, channels, side, side) if not tiny else (2, 4, 3, 5))}


def pixels(draw, config, tiny):
    side = 1024 if not tiny else 96
    return {"x": 2 * torch.rand((1, 3, side, side), generator=draw.generator, device=draw.device) - 1}


def mask(lengths, tokens):
    return (torch.arange(tokens, device=lengths.device)[None] < lengths[:, None]).long()


def real(y, lengths):
    return torch.cat([row[:n] for row, n in zip(y, lengths.tolist())])


def call_clip(model, given):
    return model(input_ids=given["ids"].long()).last_hidden_state


def call_gemma(model, given):
    ids, lengths = given["ids"].long(), given["lengths"]
    return model(input_ids=ids, attention_mask=mask(lengths, ids.shape[1]), use_cache=False).last_hidden_state


def call_unet(model, given):
    return model(given["x"], given["t"], given["text"]).sample


def call_sana(model, given):
    more = {"guidance": given["guidance"]} if "guidance" in given else {}
    return model(given["x"], given["text"], given["t"],
                 encoder_attention_mask=mask(given["lengths"], given["text"].shape[1]), **more).sample


@contextlib.contextmanager
def setting(thing, name, value):
    kept = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, kept)


@contextlib.contextmanager
def together(*contexts):
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def as_given(**changes):
    """Nothing is wrong but inputs."""
    return lambda given: (contextlib.nullcontext(), {**given, **{k: f(given[k]) for k, f in changes.items()}})


def wrong_clip(model, given):
    layers = [m for m in model.modules() if type(m).__name__ == "CLIPMLP"]
    return {"quick GELU": (together(*(setting(m, "activation_fn", ACT2FN["quick_gelu"]) for m in layers)), given)}


def wrong_gemma(model, given):
    layers = [m for m in model.modules() if type(m).__name__ == "Gemma2Attention"]
    return {"no soft cap": (together(*(setting(m, "attn_logit_softcapping", None) for m in layers)), given),
            "other angles": (setting(model.rotary_emb, "inv_freq", 1.01 * model.rotary_emb.inv_freq), given)}


def wrong_unet(model, given):
    return {"a later timestep": as_given(t=lambda t: t + 1)(given),
            "a text token less": as_given(text=lambda x: x[:, :-1])(given)}


def wrong_sana(model, given):
    out = {"a later timestep": as_given(t=lambda t: t * 1.05)(given),
           "a text token more": as_given(lengths=lambda n: torch.tensor([n[0], n[1] + 1], device=n.device))(given),
           "frames swapped": as_given(x=lambda x: x.transpose(2, 3))(given)}
    if "guidance" in given:
        out["another guidance"] = as_given(guidance=lambda g: 1.02 * g)(given)
    return out


def sana(t, guidance=None, blind="^$", **more):
    louder = {"scale_shift_table": 10, "to_out.0.weight": 4}
    if "qk_norm" not in more:
        louder["attn2.to_q.weight"] = 0.3  # of what grows from block to block, and no norm is before it
    return Network("sana", "transformer", lambda **c: SanaTransformer2DModel(**c), {**SANA, **more}, TINY_SANA,
                   picture(t, guidance), call_sana, wrong_sana, louder=louder, blind=blind)


NETWORKS = {
    "clip-h": Network(
        "clip_text", "text_encoder", lambda **c: CLIPTextModel(CLIPTextConfig(**c)), CLIP,
        dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, vocab_size=70),
        ids(2, 77, "vocab_size"), call_clip, wrong_clip, blind=r"k_proj\.bias"),
    "unet3d": Network(
        "unet3d", "unet", lambda **c: UNet3DConditionModel(**c), UNET,
        dict(block_out_channels=(8, 8, 16, 16), attention_head_dim=4, cross_attention_dim=24, norm_num_groups=2),
        film, call_unet, wrong_unet),
    "kl-decoder": Network(
        "kl_decoder", "vae", lambda **c: AutoencoderKL(**c), KL, dict(block_out_channels=(8, 8, 16, 16),
                                                                      norm_num_groups=2),
        latents(4, 4, 32, 3), lambda model, given: model.decode(given["x"]).sample, blind=r"to_k\.bias"),
    "dc-decoder": Network(
        "dc_decoder", "vae", lambda **c: AutoencoderDC(**c), DC, TINY_DC, latents(1, 32, 32, 1 / 0.41407),
        lambda model, given: model.decode(given["x"]).sample),
    "dc-encoder": Network(
        "dc_encoder", "vae", lambda **c: AutoencoderDC(**c), DC, TINY_DC, pixels,
        lambda model, given: model.encode(given["x"]).latent),
    "gemma-2-2b": Network(
        "gemma2", "text_encoder", lambda **c: Gemma2Model(Gemma2Config(**c, attn_implementation="eager")), GEMMA,
        dict(vocab_size=64, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8),
        ids(2, 300, "vocab_size"), call_gemma, wrong_gemma, louder={"q_proj": 1.5}),
    "sana-1.6b": sana([817.0, 345.0], blind=r"attn2\.to_k\.bias"),
    "sprint-1.6b": sana([1.2, 0.7], guidance=0.45, **NORMS, **GUIDED),
    "sana-1.5-4.8b": sana([817.0, 345.0], num_layers=60, **NORMS),
}


# --- weights ----------------------------------------------------------------------------------------------------------

class Draw:
    def __init__(self, device, seed):
        self.device, self.generator = device, torch.Generator(device).manual_seed(seed)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator, device=self.device)


def randomise(network, model, draw):
    """Every parameter drawn, for the constructors leave some at zero, which would hide mistakes: what goes through a
    layer keeps its size."""
    for name, p in model.named_parameters():
        noise = draw(*p.shape)
        if p.dim() > 1:
            noise /= p[0].numel() ** 0.5
        elif name.endswith("weight") and "Gemma2" not in type(model).__name__:
            noise = 1 + 0.2 * noise
        else:
            noise *= 0.2
        for part, factor in network.louder.items():
            if part in name:
                noise *= factor
        p.copy_(noise)


def make(network, config, given, draw):
    with torch.device(draw.device):
        model = network.make(**config).eval().requires_grad_(False)
    randomise(network, model, draw)
    if network.component == "vae":  # pictures that are neither flat nor far outside of -1..1
        last = model.decoder.conv_out
        getattr(last, "conv", last).weight.mul_(0.4 / network.call(model, given).std())
    return model


def save(network, model, folder):
    """As save_pretrained() would, in one file and without a second copy of all of it in memory."""
    at = folder / network.component
    at.mkdir(parents=True)
    model.save_config(at) if hasattr(model, "save_config") else model.config.save_pretrained(at)
    header, end, tensors = {"__metadata__": {"format": "pt"}}, 0, model.state_dict()
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + 4 * tensor.numel()]}
        end += 4 * tensor.numel()
    words = json.dumps(header, separators=(",", ":")).encode()
    stem = "model" if network.component == "text_encoder" else "diffusion_pytorch_model"
    with open(at / f"{stem}.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for tensor in tensors.values():
            file.write(tensor.contiguous().cpu().numpy().data)
    return end


# --- one network ------------------------------------------------------------------------------------------------------

def apart(a, b):
    """(||a - b|| / ||b||, max |a - b| / max |b|)"""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm()), float((a - b).abs().max() / b.abs().max())


class Ours:
    """net_tool at work on a folder."""

    def __init__(self, args, network, folder, precision):
        self.out = folder / f"{precision}.safetensors"
        self.process = subprocess.Popen(
            [args.tool, network.kind, folder, network.component, args.device, precision, folder / "in.safetensors",
             self.out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=args.environment)

    def output(self, like):
        words, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(words.strip())
        self.words = words.split()
        return load_file(self.out)["y"].reshape(like.shape).to(like.device)


class Judged(NamedTuple):
    f32: tuple
    bf16: tuple
    theirs: tuple
    least: tuple   # (distance, words) of the doubt that showed least
    spread: float  # of their f32


def run_theirs(network, model, given, dtype=torch.float32):
    """t, guidance and lengths stay what they are, as in the pipelines."""
    y = network.call(model, {k: v.to(dtype) if k in ("x", "text") else v for k, v in given.items()}).float()
    return real(y, given["lengths"]) if network.kind == "gemma2" else y


def doubts(network, model, given, ours, draw, count):
    """[(distance of theirs with something wrong from ours, what)]"""
    out = []
    for words, (context, inputs) in (network.wrong(model, given) if network.wrong else {}).items():
        with context:
            out.append((apart(run_theirs(network, model, inputs), ours)[0], words))
    part = {"kl_decoder": r"(decoder|post_quant_conv)\.", "dc_decoder": r"decoder\.",
            "dc_encoder": r"encoder\."}.get(network.kind, "")
    places = {}
    for name, p in model.named_parameters():
        if re.match(part, name) and not re.search(network.blind, name):
            places.setdefault(re.sub(r"\.\d+\.", ".N.", name), []).append((name, p))
    order = torch.randperm(len(places), generator=draw.generator, device=draw.device).tolist()[:count]
    for n in order:
        place = list(places.values())[n]
        name, p = place[int(torch.randint(len(place), (1,), generator=draw.generator, device=draw.device))]
        kept = p.clone()
        p.add_(p.std() * draw(*p.shape))
        out.append((apart(run_theirs(network, model, given), ours)[0], name))
        p.copy_(kept)
    return out


def judge(args, network, draw, folder, times):
    def lap(name):
        torch.cuda.synchronize() if args.device == "cuda" else None
        times[name] = time.monotonic() - sum(times.values()) - args.begin

    config = {**network.config, **(network.tiny if args.tiny else {})}
    given = network.inputs(draw, config, args.tiny)
    model = make(network, config, given, draw)
    lap("make")
    save_file({k: v.contiguous() for k, v in given.items()}, folder / "in.safetensors")
    save(network, model, folder)
    lap("save")
    ours = [Ours(args, network, folder, precision) for precision in ("f32", "bf16")]
    y = run_theirs(network, model, given)
    like = network.call(model, given)
    lap("theirs")
    ours = [o.output(like) for o in ours]
    if network.kind == "gemma2":
        ours = [real(o, given["lengths"]) for o in ours]
    lap("ours")
    least = min(doubts(network, model, given, ours[0], draw, args.doubts))
    lap("doubts")
    rounded = run_theirs(network, model.to(BF16), given, BF16)
    lap("bf16")
    return Judged(apart(ours[0], y), apart(ours[1], y), apart(rounded, y), least, float(y.std())), model


def say(args, name, judged, model, times):
    """Whether it is within its limits; one line to stdout, one to the file."""
    ratio = judged.bf16[0] / judged.theirs[0]
    faults = [words for words, bad in (
        ("f32", not judged.f32[0] <= F32_LIMIT), ("bf16", not args.tiny and not ratio <= BF16_LIMIT),
        ("blind", not judged.least[0] > F32_LIMIT), ("weights", not 1e-2 < judged.spread < 1e2)) if bad]
    words = (f"net={name} parameters={sum(p.numel() for p in model.parameters())} f32={judged.f32[0]:.2e} "
             f"(max {judged.f32[1]:.1e}) bf16={judged.bf16[0]:.2e} (max {judged.bf16[1]:.1e}) "
             f"theirs={judged.theirs[0]:.2e} (max {judged.theirs[1]:.1e}) ratio={ratio:.2f} "
             f"least={judged.least[0]:.1e} ({judged.least[1]}) "
             f"spread={judged.spread:.2g} {'FAILED: ' + ', '.join(faults) if faults else 'ok'} "
             + " ".join(f"{key}={value:.1f}s" for key, value in times.items()))
    print(words, flush=True)
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(words + "\n")
    return not faults


def try_network(args, name):
    args.begin, times = time.monotonic(), {}
    folder = Path(tempfile.mkdtemp(prefix="weir-full-", dir=args.scratch))
    try:
        judged, model = judge(args, NETWORKS[name], Draw(args.device, args.seed), folder, times)
        return say(args, name, judged, model, times)
    except Exception:  # the others are still to be judged
        print(f"net={name} FAILED: {traceback.format_exc()}", flush=True)
        return False
    finally:
        shutil.rmtree(folder)
        gc.collect()
        torch.cuda.empty_cache() if args.device == "cuda" else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tool", required=True, type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", choices=NETWORKS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--doubts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--library-path", help="LD_LIBRARY_PATH of the tool")
    args = parser.parse_args()
    shm = Path("/dev/shm")
    if not args.scratch and shm.exists() and shutil.disk_usage(shm).free > 40e9:
        args.scratch = shm
    args.environment = {**os.environ, **({"LD_LIBRARY_PATH": args.library_path} if args.library_path else {})}
    args.tool = args.tool.absolute()
    diffusers_logging.set_verbosity_error(), diffusers_logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if args.device == 'cuda' else args.device}, "
          f"folders in {args.scratch or tempfile.gettempdir()}", flush=True)
    good = [try_network(args, name) for name in args.only or NETWORKS]
    print(f"{sum(good)} of {len(good)} networks are within their limits", flush=True)
    sys.exit(int(not all(good)))


if __name__ == "__main__":
    main()
