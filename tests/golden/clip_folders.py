"""Tokenizer folders in the ways they have been written over the years, from one vocabulary."""
import gzip
import json
import pathlib
import zipfile


def byte_letters():
    prints = [b for b in range(256) if 33 <= b <= 126 or 161 <= b and b != 173]
    others = [b for b in range(256) if b not in prints]
    return [chr(b) for b in prints] + [chr(256 + i) for i in range(len(others))]


def vocabulary(merges):
    letters = byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    return {token: i for i, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}


def real_merges(wheel):
    """CLIP's merges, from the wheel of the PyPI package clip-anytorch or open-clip-torch."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("bpe_simple_vocab_16e6.txt.gz"))
        lines = gzip.decompress(archive.read(name)).decode().split("\n")
    return lines[1 : 49152 - 256 - 2 + 1]


def token(content, normalized, **more):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, **more}


def typed(content):
    return {"__type": "AddedToken", **token(content, True)}


START, END = "<|startoftext|>", "<|endoftext|>"
PLAIN = {"bos_token": START, "eos_token": END, "unk_token": END}
# style: (special_tokens_map.json, tokenizer_config.json); None: no such file
STYLES = {
    "bare": (None, None),
    "sd1": ({"bos_token": token(START, True), "eos_token": token(END, True), "unk_token": token(END, True),
             "pad_token": END},
            {"bos_token": typed(START), "eos_token": typed(END), "unk_token": typed(END), "pad_token": END,
             "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}),
    "sd2": ({"bos_token": token(START, True), "eos_token": token(END, True), "unk_token": token(END, True),
             "pad_token": "!"},
            {"bos_token": typed(START), "eos_token": typed(END), "unk_token": typed(END), "pad_token": END,
             "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}),
    "plain": ({**PLAIN, "pad_token": "!"}, {**PLAIN, "pad_token": "!", "model_max_length": 77}),
    "config_only": (None, {**PLAIN, "pad_token": "!", "model_max_length": 77}),
    "decoder": ({"bos_token": token(START, False), "pad_token": "ignored"},
                {**PLAIN, "pad_token": "!", "model_max_length": 77, "added_tokens_decoder": {
                    "0": token("!", False, special=True), "49406": token(START, True, special=True),
                    "49407": token(END, False, special=True)}}),
    "twice": ({"bos_token": START, "cls_token": token(START, True), "eos_token": END, "unk_token": END,
               "mask_token": {**token(END, True), "rstrip": True}, "pad_token": token("!", True), "sep_token": "!",
               "additional_special_tokens": ["cat"]},
              {"additional_special_tokens": ["Cat"], "model_max_length": 77}),
    "extras": ({"additional_special_tokens": ["cat", "Dog"], "image_token": "photo"}, {**PLAIN, "pad_token": "!"}),
    "extras_newer": ({"extra_special_tokens": ["of", token("red", True)], "additional_special_tokens": ["cat"]},
                     {**PLAIN, "pad_token": "!", "extra_special_tokens": ["circle"], "mark_token": "Ångström",
                      "additional_special_tokens": ["dog"]}),
    "strips": ({"bos_token": token(START, True), "eos_token": token(END, False),
                "additional_special_tokens": ["<Mark>", "mark"]},
               {**PLAIN, "pad_token": "<pad>", "added_tokens_decoder": {
                   "3": {**token("cat", True), "single_word": True}, "2": {**token("<Mark>", False), "lstrip": True},
                   "1": {**token("Dog", True), "rstrip": True, "lstrip": True}, "9": token("İ", True)},
                "additional_special_tokens": ["<Mark>", "naïve"], "model_max_length": 77}),
}


def write(folder, merges, style):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    for name, content in zip(("special_tokens_map.json", "tokenizer_config.json"), STYLES[style]):
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder
