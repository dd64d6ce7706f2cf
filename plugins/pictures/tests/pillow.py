#!/usr/bin/env python3
"""Damages images of many kinds and prints what Pillow makes of each: for every file a line of JSON, its bytes, and the pixels that
Pillow decodes, if it accepts the file.

    pillow.py COUNT SEED    COUNT damaged files of each kind

The first file of each kind is not damaged. Requires Pillow and numpy."""

import io
import json
import random
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = 8


def picture(width, height):
    """An image with edges, gradients and noise, so that its coefficients and code lengths vary."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [128 + 50 * np.sin(x / a + y / b) + 40 * np.cos(y / c) for a, b, c in [(3, 5, 4), (6, 3, 7), (2, 9, 3)]]
    image = np.stack(waves, axis=-1) + np.random.default_rng(1).normal(0, 4, (height, width, 3))
    image[(x - 30) ** 2 + (y - 15) ** 2 < 81] = (250, 40, 10)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def with_alpha(image):
    """The image with transparent and translucent parts."""
    x = np.arange(image.width)[None, :].repeat(image.height, 0)
    alpha = np.where(x < 10, 0, np.clip(x * 4, 0, 255)).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(image), alpha]))


def kinds():
    """Each kind of file: its undamaged bytes."""
    small, large = picture(50, 37), picture(131, 90)
    encodings = {
        "jpeg_baseline": (large, "JPEG", {"quality": 80}),
        "jpeg_progressive": (large, "JPEG", {"quality": 80, "progressive": True}),
        "jpeg_grey": (small.convert("L"), "JPEG", {"quality": 90}),
        "jpeg_restarts": (large, "JPEG", {"quality": 70, "restart_marker_blocks": 3}),
        "png_rgb": (small, "PNG", {}),
        "png_rgba": (with_alpha(small), "PNG", {}),
        "png_palette": (small.quantize(60), "PNG", {}),
        "png_grey": (large.convert("L"), "PNG", {}),
        "webp_lossy": (large, "WEBP", {"quality": 80}),
        "webp_lossy_small": (small, "WEBP", {"quality": 30, "method": 6}),
        "webp_lossy_alpha": (with_alpha(large), "WEBP", {"quality": 70}),
        "webp_lossless": (small, "WEBP", {"lossless": True}),
        "webp_lossless_alpha": (with_alpha(small), "WEBP", {"lossless": True, "exact": True}),
        "webp_exif": (large, "WEBP", {"quality": 60, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    }
    for name, (image, format, options) in encodings.items():
        file = io.BytesIO()
        image.save(file, format, **options)
        yield name, file.getvalue()


def damaged(data, numbers):
    """A damaged copy, and what was done to it."""
    data = bytearray(data)
    # Most of the damage is in the image data, which follows the headers.
    offset = numbers.randrange(len(data)) if numbers.random() < 0.7 else numbers.randrange(min(len(data), 120))
    count = numbers.choice([1, 2, 4, 16, 64])
    how = numbers.choice(["flip", "overwrite", "overwrite", "zero", "remove", "insert", "truncate"])
    if how == "flip":
        data[offset] ^= 1 << numbers.randrange(8)
    elif how in ("overwrite", "zero"):
        end = min(offset + count, len(data))
        data[offset:end] = numbers.randbytes(end - offset) if how == "overwrite" else bytes(end - offset)
    elif how == "remove":
        del data[offset : offset + count]
    elif how == "insert":
        data[offset:offset] = numbers.randbytes(count)
    else:
        del data[offset:]
    return bytes(data), f"{how} {count} at {offset}"


def with_checksums(data):
    """A PNG whose chunks have matching checksums, so that damage is found only by decoding them."""
    fixed, position = bytearray(data), PNG_SIGNATURE
    while position + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, position)
        end = position + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[position + 4 : end]))
        position = end + 4
    return bytes(fixed)


def with_sizes(data):
    """A WebP whose header states its size, so that damage is found only by decoding its chunks."""
    return data[:4] + struct.pack("<I", max(len(data) - 8, 0)) + data[8:] if data[:4] == b"RIFF" else data


def decoded(data):
    """Mode, size and pixels, or the error of Pillow."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])
            if getattr(image, "n_frames", 1) > 1 or image.width * image.height > 100_000:
                return None, "several frames, or large"
            image.load()
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
        return image, None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def write(kind, damage, data):
    image, error = decoded(data)
    line = {"kind": kind, "damage": damage, "length": len(data), "error": error}
    if image is not None:
        line |= {"channels": len(image.getbands()), "width": image.width, "height": image.height}
    out = sys.stdout.buffer
    out.write(json.dumps(line).encode() + b"\n" + data + (b"" if image is None else image.tobytes()))


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    for kind, data in kinds():
        numbers = random.Random(f"{kind} {seed}")
        write(kind, None, data)
        for nth in range(count):
            changed, damage = damaged(data, numbers)
            if kind.startswith("png") and nth % 2:
                changed, damage = with_checksums(changed), damage + ", with checksums"
            if kind.startswith("webp") and nth % 2:
                changed, damage = with_sizes(changed), damage + ", with its size"
            write(kind, damage, changed)


main()
