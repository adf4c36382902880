"""Makes tests/golden/rgb.safetensors: small pictures as files, what diffusers' load_image makes of each (Pillow: EXIF's way
up, then convert("RGB")), and pictures before and after Pillow's Lanczos resize.

    python3 tests/golden/make_rgb.py [FILE]

NAME.file are the bytes, NAME.rgb [height, width, 3]; resize.N.from and resize.N.to.
"""
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import load_image
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
RANDOM = np.random.default_rng(7)


def smooth(height, width, channels):
    """Edges, ramps and some noise: flat pictures hide what filters do."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(np.sin(x * (0.3 + 0.2 * c)) * 60 + y * (9 - c) + 90 * ((x + c) // 4 % 2)) for c in range(channels)]
    noise = RANDOM.integers(0, 40, (height, width, channels))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(width, height, depth, colour, rows, *chunks, interlace=0):
    """What Pillow does not write."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*c) for c in chunks) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def deep(height, width, channels, colour):
    values = RANDOM.integers(0, 65536, (height, width, channels)).astype(">u2")
    return png(width, height, 16, colour, b"".join(b"\0" + row.tobytes() for row in values))


def exif(orientation, big=False):
    order = ">" if big else "<"
    entries = [struct.pack(order + "HHII", 0x010f, 2, 4, 0x61626300), # another tag before it
               struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)]
    return (b"MM\0*" if big else b"II*\0") + struct.pack(order + "IH", 8, 2) + b"".join(entries) + b"\0\0\0\0"


def adam7(rgb):
    height, width, rows = *rgb.shape[:2], b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = rgb[y0::dy, x0::dx]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    return png(width, height, 8, 2, rows, interlace=1)


def files():
    rgb, rgba, gray = smooth(11, 13, 3), smooth(9, 7, 4), smooth(10, 12, 1)[..., 0]
    picture = Image.fromarray(rgb)
    yield "png_rgb", saved(picture, "png")
    yield "png_rgba", saved(Image.fromarray(rgba), "png")
    yield "png_gray", saved(Image.fromarray(gray), "png")
    yield "png_gray_alpha", saved(Image.fromarray(rgba[..., :2], "LA"), "png")
    yield "png_palette", saved(picture.quantize(11), "png")
    palette = picture.quantize(5)
    yield "png_palette_clear", saved(palette, "png", transparency=2)
    yield "png_one_bit", saved(Image.fromarray(gray > 120), "png")
    yield "png_two_bits", png(6, 2, 2, 0, b"\0\x1b\x40\0\xe4\xb0")
    yield "png_four_bits", png(3, 2, 4, 0, b"\0\x1f\x40\0\xe4\xb0")
    yield "png_clear_colour", png(2, 1, 8, 2, b"\0\x01\x02\x03\x04\x05\x06", (b"tRNS", b"\0\x01\0\x02\0\x03"))
    yield "png_rgb_deep", deep(5, 6, 3, 2)
    yield "png_rgba_deep", deep(4, 3, 4, 6)
    yield "png_gray_alpha_deep", deep(4, 5, 2, 4)
    yield "png_gamma", png(2, 1, 8, 2, b"\0\x41\x82\xc3\x14\x55\x96", (b"gAMA", struct.pack(">I", 100000)))
    yield "png_interlaced", adam7(rgb)
    yield "png_turned", saved(picture, "png", exif=exif(6))
    yield "jpeg_rgb", saved(picture, "jpeg", quality=90)
    yield "jpeg_full", saved(picture, "jpeg", quality=90, subsampling=0)
    yield "jpeg_progressive", saved(Image.fromarray(smooth(37, 29, 3)), "jpeg", progressive=True)
    yield "jpeg_gray", saved(Image.fromarray(gray), "jpeg")
    yield "jpeg_cmyk", saved(Image.fromarray(rgba, "CMYK"), "jpeg", quality=95)
    for orientation in range(1, 9):
        yield f"jpeg_way_{orientation}", saved(picture, "jpeg", exif=b"Exif\0\0" + exif(orientation, orientation % 2 == 0))
    yield "jpeg_way_9", saved(picture, "jpeg", exif=b"Exif\0\0" + exif(9))
    yield "webp_lossy", saved(picture, "webp", quality=80)
    yield "webp_lossless", saved(picture, "webp", lossless=True)
    yield "webp_rgba", saved(Image.fromarray(rgba), "webp", lossless=True, exact=True)
    yield "webp_turned", saved(picture, "webp", lossless=True, exif=b"Exif\0\0" + exif(3))


RESIZES = [((13, 11), (32, 32)), ((64, 48), (9, 7)), ((33, 17), (33, 5)), ((7, 30), (50, 30)), ((1, 1), (4, 6)),
           ((40, 40), (39, 41)), ((100, 3), (1, 1)), ((16, 16), (16, 16))]


def main():
    tensors = {}
    for name, data in files():
        picture = np.array(load_image(Image.open(io.BytesIO(data))))
        tensors[f"{name}.file"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        tensors[f"{name}.rgb"] = torch.from_numpy(picture.copy())
    for i, ((width, height), size) in enumerate(RESIZES):
        rgb = RANDOM.integers(0, 2, (height, width, 3)).astype(np.uint8) * 255 if i % 2 else smooth(height, width, 3)
        tensors[f"resize.{i}.from"] = torch.from_numpy(rgb.copy())
        tensors[f"resize.{i}.to"] = torch.from_numpy(np.array(Image.fromarray(rgb).resize(size, Image.LANCZOS)).copy())
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "rgb.safetensors"
    save_file(tensors, path)
    print(f"{len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KiB")


main()
