"""Write the folders of the two picture models in diffusers' layout: fp16 safetensors, our tokenizer, weir.json and the
model card. What both have in common is in the first; the second points at it."""
import json
import os
import pathlib
import shutil

import export
import nets_sana as nets
import vocabulary_gemma

BOTH_MAX_BYTES = 16_000_000
SHARED = ("text_encoder", "tokenizer", "vae")
WEIR_JSON = {"steps": nets.STEPS, "guidance": nets.GUIDANCE, "width": nets.SIZE, "height": nets.SIZE,
             "sampler": "flow-dpm++"}
SPRINT_WEIR_JSON = {"steps": nets.SPRINT_STEPS, "guidance": nets.GUIDANCE, "width": nets.SIZE, "height": nets.SIZE}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def model_index(pipeline, scheduler):
    """model_index.json of a Sana pipeline."""
    return {"_class_name": pipeline, "_diffusers_version": "0.42.1", "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "Gemma2Model"], "tokenizer": ["transformers", "GemmaTokenizerFast"],
            "transformer": ["diffusers", "SanaTransformer2DModel"], "vae": ["diffusers", "AutoencoderDC"]}


def write_folder(folder, vae, text_encoder, transformer, card):
    """Write the whole folder of the many-step model. Raises ValueError when it is too large."""
    folder = pathlib.Path(folder)
    export.write_net(folder / "vae", vae, WEIGHTS)
    export.write_net(folder / "transformer", transformer, WEIGHTS)
    export.write_net(folder / "text_encoder", text_encoder, "model.safetensors")
    plain_rotation(folder / "text_encoder" / "config.json")
    vocabulary_gemma.write(folder / "tokenizer", nets.WINDOW)
    nets.make_scheduler().save_pretrained(folder / "scheduler")
    finish(folder, model_index("SanaPipeline", "DPMSolverMultistepScheduler"), WEIR_JSON, card)


def write_sprint_folder(folder, base, transformer, card):
    """Write the folder of the two-step model, which shares SHARED with the folder `base`."""
    folder, base = pathlib.Path(folder), pathlib.Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        link = folder / name
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(base / name, folder), target_is_directory=True)
    export.write_net(folder / "transformer", transformer, WEIGHTS)
    nets.make_sprint_scheduler().save_pretrained(folder / "scheduler")
    finish(folder, model_index("SanaSprintPipeline", "SCMScheduler"), SPRINT_WEIR_JSON, card)
    rest = BOTH_MAX_BYTES - export.check_sizes(base, BOTH_MAX_BYTES)
    export.check_sizes(folder, rest)


def plain_rotation(path):
    """Name the base of the rotary embedding as published configs do; transformers 5 writes another form, reads both."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters", {}).get("rope_theta", config.get("rope_theta", 10000.0))
    export.dump(path, config)


def finish(folder, index, weir_json, card):
    """The three files at the top of a folder, and the check of its size."""
    export.dump(folder / "model_index.json", index)
    export.dump(folder / "weir.json", weir_json)
    (folder / "README.md").write_text(card, encoding="utf-8")
    export.check_sizes(folder, BOTH_MAX_BYTES)
