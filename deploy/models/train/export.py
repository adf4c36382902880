"""Write a model folder in diffusers' layout: fp16 safetensors, our tokenizer, weir.json and the model card."""
import json
import pathlib

import torch
from safetensors.torch import save_file

import nets
import vocabulary

FOLDER_MAX_BYTES = 25_000_000
FILE_MAX_BYTES = 15 * 1024 * 1024
SHARD_BYTES = 12_000_000
WEIR_JSON = {"steps": nets.STEPS, "guidance": nets.GUIDANCE, "frames": nets.FRAMES, "width": nets.SIZE,
             "height": nets.SIZE, "fps": nets.FPS, "sampler": "ddim"}
MODEL_INDEX = {
    "_class_name": "TextToVideoSDPipeline", "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet3DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_folder(folder, vae, text_encoder, unet, card, size=nets.SIZE):
    """Write the whole folder; vae.config.scaling_factor must be set. Raises ValueError when it is too large."""
    folder = pathlib.Path(folder)
    unet.register_to_config(sample_size=size // 8)
    write_net(folder / "vae", vae, "diffusion_pytorch_model.safetensors")
    write_net(folder / "unet", unet, "diffusion_pytorch_model.safetensors")
    write_net(folder / "text_encoder", text_encoder, "model.safetensors", prefix="text_model.")
    nets.make_scheduler().save_pretrained(folder / "scheduler")
    vocabulary.write(folder / "tokenizer", nets.WINDOW)
    dump(folder / "model_index.json", MODEL_INDEX)
    dump(folder / "weir.json", {**WEIR_JSON, "width": size, "height": size})
    (folder / "README.md").write_text(card, encoding="utf-8")
    check_sizes(folder)


def write_net(folder, net, name, prefix=""):
    """Write config.json and fp16 weights whose names start with `prefix`.

    Since version 5 transformers names CLIP's text tensors without the `text_model.` that all published folders have
    (it reads both), so the names are made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net.save_config(folder) if hasattr(net, "save_config") else net.config.save_pretrained(folder)
    tidy_config(folder / "config.json", net)
    tensors = {prefix + key.removeprefix(prefix): value.detach().to("cpu", torch.float16).contiguous()
               for key, value in net.state_dict().items() if not key.endswith("position_ids")}
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    shards = split(tensors, SHARD_BYTES)
    stem, ending = name.split(".", 1)
    names = [name] if len(shards) == 1 else [f"{stem}-{index:05}-of-{len(shards):05}.{ending}"
                                             for index in range(1, len(shards) + 1)]
    for file_name, shard in zip(names, shards):
        save_file(shard, folder / file_name, metadata={"format": "pt"})
        (folder / file_name).chmod(0o644)
    if len(shards) > 1:
        dump(folder / (name + ".index.json"), {
            "metadata": {"total_size": sum(byte_count(value) for value in tensors.values())},
            "weight_map": {key: file_name for file_name, shard in zip(names, shards) for key in shard}})


def byte_count(tensor):
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def split(tensors, limit):
    """The tensors in order, in as few dictionaries of at most `limit` bytes each as that order allows."""
    shards, filled = [{}], 0
    for key, value in tensors.items():
        if shards[-1] and filled + byte_count(value) > limit:
            shards.append({})
            filled = 0
        shards[-1][key] = value
        filled += byte_count(value)
    return shards


def tidy_config(path, net):
    """Name the class, and drop the libraries' notes on where and when a network was saved."""
    config = json.loads(path.read_text())
    for key in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        config.pop(key, None)
    if "model_type" in config:
        config.update(architectures=[type(net).__name__], torch_dtype="float16")
    dump(path, config)


def dump(path, value):
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def check_sizes(folder, limit=FOLDER_MAX_BYTES):
    """The repository's limits on a demo model: `limit` bytes in all; what symlinks point at does not count."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    for path, size in sizes.items():
        if size > FILE_MAX_BYTES:
            raise ValueError(f"{path}: {size} bytes, the limit is {FILE_MAX_BYTES}")
    if sum(sizes.values()) > limit:
        raise ValueError(f"{folder}: {sum(sizes.values())} bytes, the limit is {limit}")
    return sum(sizes.values())
