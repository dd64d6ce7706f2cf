#!/usr/bin/env python3
"""Generates images/: small JPEG files of many kinds, Pillow's decoding of them, and the damaged variants that Pillow rejects.

Needs Pillow 12 or newer, numpy, and cjpeg and jpegtran of libjpeg-turbo. The files are part of the repository."""

import io
import json
import pathlib
import random
import subprocess

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).parent / "images"
WIDTH, HEIGHT = 50, 37
random.seed(1)


def picture():
    """Returns an image with edges, gradients and colors, so that its blocks have many coefficients."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    waves = [128 + 50 * np.sin(x / a + y / b) + 40 * np.cos(y / c) for a, b, c in [(3, 5, 4), (6, 3, 7), (2, 9, 3)]]
    image = np.stack(waves, axis=-1)
    image[(x - 30) ** 2 + (y - 15) ** 2 < 81] = (250, 40, 10)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def cjpeg(image, *arguments, scans=None):
    if scans:
        path = OUT / "scans.txt"
        path.write_text(scans)
        arguments += ("-scans", str(path))
    header = b"P6\n%d %d\n255\n" % image.size
    done = subprocess.run(["cjpeg", *arguments], input=header + image.tobytes(), capture_output=True, check=True)
    if scans:
        path.unlink()
    return done.stdout


def files():
    image = picture()
    plain = jpeg(image, quality=80)
    restarts = jpeg(image, quality=80, restart_marker_blocks=2)
    end = len(plain) - 2
    thumbnail = jpeg(image.resize((16, 12)))
    application = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    exif = Image.Exif()
    exif[274] = 6
    second = io.BytesIO()
    image.save(second, "MPO", save_all=True, append_images=[image.rotate(180)])
    return {
        "baseline": plain,
        "best": jpeg(image, quality=100, subsampling=0),
        "coarse": jpeg(image, quality=5, subsampling=1),
        "optimized": jpeg(image, quality=80, optimize=True),
        "progressive": jpeg(image, quality=80, progressive=True),
        "restarts": restarts,
        "restarts_progressive": subprocess.run(
            ["jpegtran", "-progressive", "-restart", "3B"], input=restarts, capture_output=True, check=True
        ).stdout,
        "grey": jpeg(image.convert("L"), quality=80),
        "cmyk": jpeg(image.convert("CMYK"), quality=80),
        "subsampled_1x2": cjpeg(image, "-sample", "1x2"),
        "subsampled_4x1": cjpeg(image, "-sample", "4x1"),
        "subsampled_3x1": cjpeg(image, "-sample", "3x1"),
        "subsampled_luma": cjpeg(image, "-sample", "1x1,2x2,2x2"),
        "rgb": cjpeg(image, "-rgb"),
        "separate_scans": cjpeg(image, scans="0;\n1;\n2;\n"),
        "two_scans": cjpeg(image, "-sample", "2x2", scans="0;\n1 2;\n"),
        "fill_bytes": plain[:end] + b"\xff\xff" + plain[end:],
        "last_restart": plain[:end] + b"\xff\xd0" + plain[end:],
        "trailing_bytes": plain + b"\0more",
        "thumbnail": plain[:2] + application + plain[2:],
        "turned": jpeg(image, quality=80, exif=exif.tobytes()),
        "two_pictures": second.getvalue(),
    }


def pillow(data):
    """Returns the image that Pillow decodes, or None if it rejects the file."""
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError):
        return None


def damage(data):
    """Yields damage: bytes to overwrite, mostly in the image data."""
    start, end = data.index(b"\xff\xda"), len(data)
    for _ in range(30):
        offset = random.randrange(start if random.random() < 0.8 else 2, end - 16)
        count = random.choice([1, 4, 16])
        yield {"offset": offset, "bytes": [random.randrange(256) for _ in range(count)]}


def main():
    OUT.mkdir(exist_ok=True)
    rejected = {}
    for name, data in files().items():
        (OUT / f"{name}.jpg").write_bytes(data)
        decoded = pillow(data)
        decoded.save(OUT / f"{name}.png", optimize=True)
        rejected[name] = []
        for change in damage(data):
            changed = bytearray(data)
            changed[change["offset"] : change["offset"] + len(change["bytes"])] = bytes(change["bytes"])
            if pillow(bytes(changed)) is None:
                rejected[name].append(change)
    picture().save(OUT / "lossless.webp", lossless=True)
    picture().save(OUT / "lossy.webp", quality=80)
    text = ",\n".join(f'"{name}": {json.dumps(changes)}' for name, changes in rejected.items())
    (OUT / "rejected.json").write_text("{" + text + "}\n")


main()
