"""Makes sana_bins.json: the bin of many sizes by diffusers, and pictures resized and cropped by torch.

    python make_sana_bins.py      (torch, diffusers; their versions go into the file)

`bins`: for each sample_size, [height, width, height of the bin, width of the bin]; every bin is there as a wish, too.
`pictures`: randn([channels, height, width]) of a seed, and the bits of what resize_and_crop_tensor makes of it.
"""
import json
import pathlib

import diffusers
import numpy as np
import torch
from diffusers.image_processor import PixArtImageProcessor
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_512_BIN, ASPECT_RATIO_1024_BIN
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import ASPECT_RATIO_2048_BIN
from diffusers.pipelines.sana.pipeline_sana import ASPECT_RATIO_4096_BIN

TABLES = {16: ASPECT_RATIO_512_BIN, 32: ASPECT_RATIO_1024_BIN, 64: ASPECT_RATIO_2048_BIN, 128: ASPECT_RATIO_4096_BIN}
SIDES = [1, 64, 333, 480, 720, 1000, 1024, 1080, 1920, 16384]
# channels, height, width, wished height, wished width
PICTURES = [(3, 5, 7, 4, 9), (3, 16, 16, 10, 10), (1, 9, 4, 13, 13), (3, 8, 8, 8, 8), (3, 1, 1, 3, 2), (3, 33, 17, 20, 12),
            (2, 12, 20, 30, 7), (3, 8, 12, 16, 24), (1, 24, 18, 11, 17), (1, 2, 3, 2, 8), (3, 21, 31, 7, 3), (1, 2, 1999, 1, 900)]


def bin_of(table, height, width):
    return [height, width, *PixArtImageProcessor.classify_height_width_bin(height, width, ratios=table)]


def main():
    bins = []
    for sample_size, table in TABLES.items():
        wishes = [(int(h), int(w)) for h, w in table.values()] + [(h, w) for h in SIDES for w in SIDES]
        bins.append({"sample_size": sample_size, "rows": [bin_of(table, h, w) for h, w in wishes]})
    pictures = []
    for seed, (channels, height, width, to_height, to_width) in enumerate(PICTURES):
        x = torch.randn(channels * height * width, generator=torch.Generator("cpu").manual_seed(seed))
        y = PixArtImageProcessor.resize_and_crop_tensor(x.view(1, channels, height, width), to_width, to_height)
        assert tuple(y.shape) == (1, channels, to_height, to_width)
        bits = "".join(f"{v:08x}" for v in y.contiguous().numpy().reshape(-1).view(np.uint32))
        pictures.append({"seed": seed, "from": [channels, height, width], "to": [to_height, to_width], "bits": bits})
    head = {"made_by": "make_sana_bins.py", "torch": torch.__version__, "diffusers": diffusers.__version__}
    text = json.dumps(head)[:-1] + ',\n"bins": [\n' + ",\n".join(map(json.dumps, bins)) + '],\n"pictures": [\n'
    text += ",\n".join(map(json.dumps, pictures)) + "]}\n"
    pathlib.Path(__file__).with_name("sana_bins.json").write_text(text)
    print(sum(len(b["rows"]) for b in bins), "sizes,", len(pictures), "pictures,", len(text), "bytes")


main()
