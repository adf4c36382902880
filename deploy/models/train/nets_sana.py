"""The networks and schedulers of the two picture models, by preset."""
import math

from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaTransformer2DModel, SCMScheduler
from transformers import Gemma2Config, Gemma2Model

import vocabulary_gemma
from nets import parameter_count   # noqa: F401 (for those who import the networks from here)

SIZE = 256              # pixels a side
SHRINK = 32             # times that a latent is smaller, a side
LATENT = SIZE // SHRINK
CHANNELS = 32           # of a latent
STEPS, SPRINT_STEPS = 20, 2
GUIDANCE = 4.5
SHIFT = 3.0             # of the noise levels
WINDOW = 300            # ids a prompt in the pipelines
TRAIN_WINDOW = 16       # in training: a caption needs 13; padding is masked, so the rest changes nothing
RAW_STD = 2.0           # of the autoencoder's latents; the pipelines see them times SCALING_FACTOR
SCALING_FACTOR = 1.0 / RAW_STD
ANGLES = (1.57080, 1.3)                 # of the two steps of Sprint
SHARES = tuple(math.sin(angle) / (math.cos(angle) + math.sin(angle)) for angle in ANGLES)   # the same as noise levels

# full is for a GPU; tiny is for trying the program out on a CPU.
PRESETS = {
    "full": {
        "vae": {"block_out_channels": (16, 32, 64, 64, 128, 128), "encoder_layers_per_block": (1, 1, 1, 1, 1, 1),
                "decoder_layers_per_block": (1, 2, 2, 1, 1, 1)},
        "transformer": {"num_attention_heads": 4, "num_layers": 8, "num_cross_attention_heads": 4,
                        "cross_attention_head_dim": 32},
        "text": {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2},
    },
    "tiny": {
        "vae": {"block_out_channels": (8, 8, 16, 32, 32, 32), "encoder_layers_per_block": (1, 1, 1, 1, 1, 1),
                "decoder_layers_per_block": (1, 1, 1, 1, 1, 1)},
        "transformer": {"num_attention_heads": 2, "num_layers": 2, "num_cross_attention_heads": 2,
                        "cross_attention_head_dim": 32},
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1},
    },
}


def make_vae(preset):
    """Deep-compression autoencoder, 32 times smaller a side, 32 latent channels: residual blocks in the three large
    stages, linear attention in the three small ones, resampling as in Sana's."""
    sizes = PRESETS[preset]["vae"]
    channels = sizes["block_out_channels"]
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((),) * 3 + ((5,),) * 3
    return AutoencoderDC(
        in_channels=3, latent_channels=CHANNELS, attention_head_dim=32, encoder_block_types=blocks,
        decoder_block_types=blocks, encoder_block_out_channels=channels, decoder_block_out_channels=channels,
        encoder_layers_per_block=sizes["encoder_layers_per_block"],
        decoder_layers_per_block=sizes["decoder_layers_per_block"], encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales, upsample_block_type="interpolate", downsample_block_type="Conv",
        decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=SCALING_FACTOR)


def make_text_encoder(preset):
    """Gemma 2 with 3 layers and heads of 32; eager attention is the one that knows its soft cap."""
    sizes = PRESETS[preset]["text"]
    return Gemma2Model(Gemma2Config(
        vocab_size=len(vocabulary_gemma.table()[0]), num_hidden_layers=3, head_dim=32, query_pre_attn_scalar=32,
        max_position_embeddings=8192, sliding_window=4096, rms_norm_eps=1e-6, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0, pad_token_id=0, eos_token_id=1, bos_token_id=2, use_cache=False,
        attn_implementation="eager", **sizes))


def make_transformer(preset, sprint=False):
    """The velocity predictor. Sprint's has a second embedding, of the guidance, and is otherwise the same.

    With interpolation_scale it has the table of places that Sana's nets for 2K and 4K have. Without, nothing but the
    zeros around its 3x3 convolutions says what is left and right, and training could stay on a saddle on which it draws
    both; and with normed queries and keys (as SANA-1.5) Sprint begins with the weights of the other.
    """
    sizes = PRESETS[preset]["transformer"]
    width = 32 * sizes["num_attention_heads"]
    return SanaTransformer2DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, attention_head_dim=32, cross_attention_dim=width,
        caption_channels=PRESETS[preset]["text"]["hidden_size"], mlp_ratio=2.5, sample_size=LATENT, patch_size=1,
        interpolation_scale=1.0, qk_norm="rms_norm_across_heads", guidance_embeds=sprint, **sizes)


def make_scheduler():
    """DPM-Solver++ of order 2 on flow noise levels, as in Sana's published scheduler."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT, final_sigmas_type="zero",
        lower_order_final=True, timestep_spacing="linspace", beta_start=0.0001, beta_end=0.02, beta_schedule="linear")


def make_sprint_scheduler():
    """Sprint's own: angles instead of noise levels."""
    return SCMScheduler(num_train_timesteps=1000, prediction_type="trigflow", sigma_data=0.5)


def shifted(level):
    """The noise level in 0..1 that the shift makes of another."""
    return SHIFT * level / (1.0 + (SHIFT - 1.0) * level)
