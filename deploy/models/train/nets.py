"""The three networks and the scheduler of the demo model, by preset."""
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import vocabulary

SIZE = 128          # pixels a side
FRAMES = 16
FPS = 8
STEPS = 25
GUIDANCE = 5.0
WINDOW = 32         # ids a prompt: a caption needs 11; the rest is for words outside the grammar
TEXT_WIDTH = 128
LATENT_STD = 0.5    # of the scaled latents; train_modelscope.py says why

# full is for a GPU; small learns on two CPU cores in an hour or two.
PRESETS = {
    "full": {
        "vae": {"block_out_channels": (32, 64, 96, 128), "norm_num_groups": 16},
        "unet": {
            "block_out_channels": (48, 96, 144), "attention_head_dim": 16, "norm_num_groups": 16,
            "down_block_types": ("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
        },
    },
    "small": {
        "vae": {"block_out_channels": (16, 32, 48, 64), "norm_num_groups": 8},
        "unet": {
            "block_out_channels": (24, 64, 64), "attention_head_dim": 8, "norm_num_groups": 8,
            "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
            "up_block_types": ("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
        },
    },
}


def make_vae(preset, widths=None):
    """KL autoencoder, 8 times smaller a side, 4 latent channels, one layer a block; `widths` replace the preset's."""
    sizes = PRESETS[preset]["vae"]
    if widths:
        sizes = {"block_out_channels": tuple(widths), "norm_num_groups": widths[0] // 2}
    return AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, sample_size=SIZE,
        **sizes)


def make_text_encoder():
    """CLIP's text model with 3 layers of width 128."""
    table, _ = vocabulary.table()
    bos, eos = table[vocabulary.BOS], table[vocabulary.EOS]
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(table), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=WINDOW, hidden_act="gelu", projection_dim=TEXT_WIDTH,
        bos_token_id=bos, eos_token_id=eos, pad_token_id=eos))


def make_unet(preset):
    """The noise predictor: UNet3DConditionModel, one layer a block."""
    return UNet3DConditionModel(sample_size=SIZE // 8, layers_per_block=1, cross_attention_dim=TEXT_WIDTH,
                                **PRESETS[preset]["unet"])


def make_scheduler():
    """Stable Diffusion's DDIM: scaled-linear betas, noise prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon")


def parameter_count(net):
    """Number of parameters of a network."""
    return sum(parameter.numel() for parameter in net.parameters())
