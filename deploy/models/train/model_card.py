"""The README.md of the demo model: what it is, how it was trained, what it scores, which triples it never saw."""
import textwrap

import grammar
import nets

TEXT = """# shapes-modelscope

Text to video, small enough to ship: {frames} frames of {size}x{size} pixels at {fps} a second, of one thing that moves.
The architecture is ModelScope's text-to-video (`TextToVideoSDPipeline` of diffusers): CLIPTextModel,
UNet3DConditionModel, AutoencoderKL, DDIM. `weir.json` holds the defaults: {steps} steps, guidance {guidance:g}.

{training}

| network | parameters | sizes |
|---|---|---|
| text encoder | {text_parameters:,} | 3 layers of width {text_width}, {window} positions, {vocabulary} tokens |
| unet | {unet_parameters:,} | {unet_sizes}, heads of {head}, one layer a block |
| vae | {vae_parameters:,} | {vae_sizes}, one layer a block, 8 times smaller a side, 4 latent channels |

Weights are fp16 safetensors. Made with `deploy/models/train`, where a README says how to make them again; nothing but
pictures drawn there went into them.

## What it understands

    a|an COLOUR SHAPE MOTION on a BACKGROUND background

- colours: {colours}
- shapes: {shapes}
- motions: {motions}
- backgrounds: {backgrounds}

A spinning circle looks like one that stands still. Spinning things turn clockwise; all others stand upright. Words
outside the grammar fall apart into bytes and still give a film, of nothing in particular.

## Scores

{scores}

## Held out

{held_out_count} of the {triple_count} (colour, shape, motion) triples were never drawn in training:

{held_out}
"""


def scores_table(scores):
    """A table of {group slot: percent}, or a sentence when there is none."""
    if not scores:
        return "Not measured."
    groups = sorted({key.split()[0] for key in scores}, reverse=True)
    slots = list(dict.fromkeys(key.split()[1] for key in scores))
    lines = ["Percent of films that `tests/checker` finds right:", "", f"| | {' | '.join(slots)} |",
             "|---" * (len(slots) + 1) + "|"]
    for group in groups:
        lines.append(" | ".join(["| " + group, *(f"{scores[group + ' ' + slot]:g}" for slot in slots)]) + " |")
    return "\n".join(lines)


def model_card(vae, text_encoder, unet, size, training, scores):
    """The text of the card; `training` is a paragraph on how these weights came about."""
    hidden = grammar.held_out()
    return TEXT.format(
        frames=nets.FRAMES, size=size, fps=nets.FPS, steps=nets.STEPS, guidance=nets.GUIDANCE,
        training=textwrap.fill(training, 118),
        text_parameters=nets.parameter_count(text_encoder), unet_parameters=nets.parameter_count(unet),
        vae_parameters=nets.parameter_count(vae), text_width=nets.TEXT_WIDTH, window=nets.WINDOW,
        vocabulary=text_encoder.config.vocab_size, head=unet.config.attention_head_dim,
        unet_sizes="-".join(map(str, unet.config.block_out_channels)),
        vae_sizes="-".join(map(str, vae.config.block_out_channels)), colours=", ".join(grammar.COLOURS),
        shapes=", ".join(grammar.SHAPES), motions=", ".join(grammar.MOTIONS),
        backgrounds=", ".join(grammar.BACKGROUNDS), scores=scores_table(scores), held_out_count=len(hidden),
        triple_count=len(grammar.triples()),
        held_out="\n".join(f"- {' '.join(triple)}" for triple in grammar.triples() if triple in hidden))
