"""The README.md of the two picture models: what they are, how they were trained, their scores, what they never saw."""
import textwrap

import grammar_images as grammar
import nets_sana as nets
from model_card import scores_table

TEXT = """# shapes-sana

Text to image, small enough to ship: {size}x{size} pixels, of one thing or of two and how they lie.
The architecture is Sana's (`SanaPipeline` of diffusers): Gemma2Model, SanaTransformer2DModel, AutoencoderDC,
DPM-Solver++ on a flow. `weir.json` holds the defaults: {steps} steps, guidance {guidance:g}.

{training}

| network | parameters | sizes |
|---|---|---|
| text encoder | {text_parameters:,} | {text_layers} layers of width {text_width}, {vocabulary} tokens |
| transformer | {parameters:,} | {layers} of width {width}, heads of 32, normed queries and keys, a table of places |
| vae | {vae_parameters:,} | {vae_sizes}, 32 times smaller a side, 32 latent channels |

Weights are fp16 safetensors. Made with `deploy/models/train`, where a README says how to make them again; nothing but
pictures drawn there went into them.

## What it understands

    a|an COLOUR SHAPE on a BACKGROUND background
    a|an COLOUR SHAPE RELATION a|an COLOUR SHAPE on a BACKGROUND background

- colours: {colours} (of two things, different ones)
- shapes: {shapes}
- relations: {relations}
- backgrounds: {backgrounds}

Words outside the grammar fall apart into letters and bytes and still give a picture, of nothing in particular.

In diffusers the pipeline must be told to leave the prompt and the size as they are:

    pipeline(prompt, width={size}, height={size}, complex_human_instruction=None, use_resolution_binning=False)

## Scores

{scores}

## Held out

Never drawn in training: {alone_count} of the {alone_total} (colour, shape, background) of one thing alone, and of two
things {pair_count} of the {pair_total} (colour, shape, left of or above, the other's shape), seen from the thing that
is left of or above the other; so none of these pictures is known from its other description either. Which ones they
are, a rule says (`held_out` in `grammar_images.py`): the tenth with the smallest SHA-256 of their words.

One thing alone:

{alone}

Two things, of any background and any colour of the other thing:

{pairs}
"""

SPRINT_TEXT = """# shapes-sana-sprint

Text to image in two steps: the same pictures as [{base}](../{base}/README.md), which it was distilled from.
Text encoder, tokenizer and autoencoder are that one's (symbolic links). What it understands and what it never saw is
said there.
The architecture is Sana-Sprint's (`SanaSprintPipeline` of diffusers): the transformer is told the guidance and needs
no second evaluation for it. `weir.json` holds the defaults: {steps} steps, guidance {guidance:g}.

{training}

| network | parameters | sizes |
|---|---|---|
| transformer | {parameters:,} | {layers} of width {width}, heads of 32, normed queries and keys, a table of places |

Each of the two steps was learned for itself, from where {base} arrives in many (`sprint.py` in
`deploy/models/train`), for guidances from 2 to 7. Other numbers of steps than two are outside of what it learned.

## Scores

{scores}
"""


def bullets(groups):
    """A list of held-out groups, in the order of the tables."""
    hidden = grammar.held_out()
    return "\n".join(f"- {' '.join(names)}" for names in groups if names in hidden)


def scores_text(scores):
    """The table of scores, of pictures."""
    return scores_table(scores).replace("Percent of films", "Percent of pictures")


def card(vae, text_encoder, transformer, training, scores):
    """The card of the many-step model; `training` is a paragraph on how these weights came about."""
    hidden, alone, pairs = grammar.held_out(), grammar.alone_groups(), grammar.pair_groups()
    return TEXT.format(
        size=nets.SIZE, steps=nets.STEPS, guidance=nets.GUIDANCE, training=textwrap.fill(training, 118),
        text_parameters=nets.parameter_count(text_encoder), text_layers=text_encoder.config.num_hidden_layers,
        text_width=text_encoder.config.hidden_size, vocabulary=text_encoder.config.vocab_size,
        **transformer_facts(transformer), vae_parameters=nets.parameter_count(vae),
        vae_sizes="-".join(map(str, vae.config.decoder_block_out_channels)), colours=", ".join(grammar.COLOURS),
        shapes=", ".join(grammar.SHAPES), relations=", ".join(grammar.RELATIONS),
        backgrounds=", ".join(grammar.BACKGROUNDS), scores=scores_text(scores),
        alone_count=sum(names in hidden for names in alone), alone_total=len(alone),
        pair_count=sum(names in hidden for names in pairs), pair_total=len(pairs), alone=bullets(alone),
        pairs=bullets(pairs))


def sprint_card(transformer, base, training, scores):
    """The card of the two-step model beside the folder named `base`."""
    return SPRINT_TEXT.format(base=base, steps=nets.SPRINT_STEPS, guidance=nets.GUIDANCE,
                              training=textwrap.fill(training, 118), scores=scores_text(scores),
                              **transformer_facts(transformer))


def transformer_facts(net):
    """What both cards say of a transformer."""
    config = net.config
    return {"parameters": nets.parameter_count(net), "layers": config.num_layers,
            "width": config.num_attention_heads * config.attention_head_dim}
