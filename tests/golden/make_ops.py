"""Makes ops.safetensors: what blocks of diffusers and transformers compute that need the ops of the Sana family.

    python3 tests/golden/make_ops.py      (torch, diffusers, transformers; fp32 on a CPU)

A block's weights keep its names behind the case's ("glumb.conv_depth.weight"). Activations are channels-last, [rows,
frames, height, width, channels]; ids and lengths are whole numbers in f32. Sizes are odd wherever the blocks allow it.
"""
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers.models.attention_processor import (Attention, SanaLinearAttnProcessor2_0,
                                                  SanaMultiscaleLinearAttention)
from diffusers.models.autoencoders.autoencoder_dc import DCDownBlock2d, DCUpBlock2d
from diffusers.models.transformers.sana_transformer import GLUMBConv, SanaModulatedNorm
from safetensors.torch import save_file
from transformers import Gemma2Config
from transformers.models.gemma2.modeling_gemma2 import (Gemma2Attention, Gemma2MLP, Gemma2RMSNorm,
                                                        Gemma2RotaryEmbedding)

ROWS = 2
tensors = {}


def put(name, value):
    assert name not in tensors
    tensors[name] = value.detach().float().contiguous().clone()


def tokens(value):
    """[R, L, C] as [R, 1, 1, L, C]."""
    return value.reshape(value.shape[0], 1, 1, value.shape[1], value.shape[2])


def pixels(value):
    """[R, C, H, W] as [R, 1, H, W, C]."""
    return value.movedim(1, -1).unsqueeze(1)


def randomize(case, module):
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, std=1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 1)
        put(f"{case}.{name}", parameter)
    return module.eval()


def gated_linear():
    layer = randomize("gated", torch.nn.Linear(5, 9))
    x, residual, gates = torch.randn(ROWS, 7, 5), torch.randn(ROWS, 7, 9), torch.randn(ROWS, 6, 9)
    put("gated.x", tokens(x))
    put("gated.residual", tokens(residual))
    put("gated.gates", tokens(gates))
    put("gated.y", tokens(residual + gates[:, 2:3] * torch.nn.functional.silu(layer(x))))


def adaln():
    """A table of six vectors beside an embedding that holds six, as in a block; and the norm at the network's end."""
    table, embedding = torch.randn(6, 11), torch.randn(ROWS, 6 * 11)
    put("adaln.table", table)
    put("adaln.embedding", tokens(embedding[:, None]))
    put("adaln.m", tokens(table[None] + embedding.reshape(ROWS, 6, 11)))
    table, embedding, x = torch.randn(2, 11), torch.randn(ROWS, 11), torch.randn(ROWS, 7, 11) * 3 + 1
    put("norm_out.table", table)
    put("norm_out.embedding", tokens(embedding[:, None]))
    put("norm_out.x", tokens(x))
    put("norm_out.y", tokens(SanaModulatedNorm(11)(x, embedding, table)))


def glumb():
    block = randomize("glumb", GLUMBConv(6, 6, expand_ratio=2.5, norm_type="rms_norm"))
    x = torch.randn(ROWS, 6, 5, 3)
    put("glumb.x", pixels(x))
    put("glumb.y", pixels(block(x)))


def attentions():
    block = randomize("sana", Attention(query_dim=15, heads=3, dim_head=5, bias=False, out_bias=True,
                                        processor=SanaLinearAttnProcessor2_0()))
    x = torch.randn(ROWS, 13, 15)
    put("sana.x", tokens(x))
    put("sana.y", tokens(block(x)))
    block = randomize("dcae", SanaMultiscaleLinearAttention(14, 14, num_attention_heads=2, attention_head_dim=4,
                                                            norm_type="rms_norm", kernel_sizes=(5,),
                                                            residual_connection=True))
    for name, height, width in (("large", 3, 5), ("small", 1, 3)):  # as S, and by every pair of pixels
        x = torch.randn(ROWS, 14, height, width)
        put(f"dcae.{name}.x", pixels(x))
        put(f"dcae.{name}.y", pixels(block(x)))


def gemma():
    config = Gemma2Config(hidden_size=20, intermediate_size=22, num_attention_heads=4, num_key_value_heads=2,
                          head_dim=6, query_pre_attn_scalar=10, attn_logit_softcapping=1.5, num_hidden_layers=1,
                          vocab_size=30, max_position_embeddings=64, hidden_activation="gelu_pytorch_tanh",
                          attn_implementation="eager")
    length, lengths = 19, torch.tensor([19, 8])
    table = torch.randn(30, 20)
    ids = torch.randint(30, (ROWS, length))
    put("gemma.embed", table)
    put("gemma.ids", tokens(ids[..., None]))
    x = table[ids] * torch.tensor(20**0.5)
    put("gemma.embedded", tokens(x))
    x = randomize("gemma.norm", Gemma2RMSNorm(20, eps=1e-6))(x)
    put("gemma.normed", tokens(x))
    position = torch.arange(length)
    seen = (position[None, None, :] <= position[None, :, None]) & (position[None, None, :] < lengths[:, None, None])
    mask = torch.zeros(ROWS, 1, length, length).masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
    rotary = Gemma2RotaryEmbedding(config)(x, position[None].expand(ROWS, -1))
    block = randomize("gemma.attention", Gemma2Attention(config, layer_idx=0))
    put("gemma.lengths", tokens(lengths[:, None, None]))
    x, _ = block(x, position_embeddings=rotary, attention_mask=mask)
    put("gemma.attended", tokens(x))
    put("gemma.mlp.y", tokens(randomize("gemma.mlp", Gemma2MLP(config))(x)))
    # What rope alone makes far from position 0: an angle kept in double would differ here.
    x = torch.randn(1, 1, 301, 16)
    far = Gemma2RotaryEmbedding(Gemma2Config(head_dim=16))(x, torch.arange(301)[None])
    half = torch.cat((-x[..., 8:], x[..., :8]), dim=-1)
    y = x * far[0][:, None] + half * far[1][:, None]
    put("rope.x", tokens(x[:, 0]))
    put("rope.y", tokens(y[:, 0]))


def convolutions():
    layer = randomize("plain", torch.nn.Conv2d(3, 5, 3, padding=1, bias=False))
    x = torch.randn(ROWS, 3, 4, 7)
    put("plain.x", pixels(x))
    put("plain.y", pixels(layer(x)))


def shuffles():
    down = randomize("down", DCDownBlock2d(6, 8, downsample=True, shortcut=True))
    x = torch.randn(ROWS, 6, 4, 10)
    put("down.x", pixels(x))
    put("down.y", pixels(down(x)))
    up = randomize("up", DCUpBlock2d(8, 6, interpolate=False, shortcut=True))
    x = torch.randn(ROWS, 8, 3, 5)
    put("up.x", pixels(x))
    put("up.y", pixels(up(x)))
    x = torch.randn(ROWS, 10, 3, 5)
    put("regroup.x", pixels(x))
    put("regroup.more", pixels(x.repeat_interleave(3, dim=1)))
    put("regroup.fewer", pixels(x.unflatten(1, (-1, 5)).mean(dim=2)))


def main():
    torch.manual_seed(41)
    torch.set_num_threads(1)
    with torch.no_grad():
        for make in (gated_linear, adaln, glumb, attentions, gemma, convolutions, shuffles):
            make()
    path = Path(__file__).with_name("ops.safetensors")
    save_file(tensors, path)
    print(len(tensors), "tensors,", path.stat().st_size, "bytes")


main()
