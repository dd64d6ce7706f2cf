"""Generates the references for the tests of this plugin with transformers.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

Also generates the small models in ../models, with random weights, which cover the variants of CLIP directories, and the images in
../images. All of them are generated from random numbers, so no third-party license applies.
"""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
IMAGES = HERE.parent / "images"
LENGTH = 20
TEXTS = [
    "a photo of a cat",
    "A Photo of TWO dogs, running!",
    "",
    "   spaces\t and\nlines   ",
    "naïve café in Zürich, 37°C",
    "日本語のテキスト and العربية",
    "it's 2026: we'll see 1234567890 digits & don't know…",
    "emoji 🐈‍⬛ and e\u0301 combining, ﬁ ligature, İstanbul",
    "what <|endoftext|> does in the middle",
    "word " * 60,
    "supercalifragilisticexpialidocious " * 3,
    "?!",
]
LABELS = ["cat", "dog", "a red circle on blue", "nothing at all"]
TEMPLATE = "a photo of {}."
WORDS = "a of in the and photo cat dog dogs word red blue circle text middle super"


def picture(width, height, seed):
    """Gradients, shapes with hard edges and a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 255 // max(width - 1, 1)), (y * 255 // max(height - 1, 1)), ((x + y) * 5 % 256)]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x0, x1 = sorted(random.integers(0, width, 2).tolist())
        y0, y1 = sorted(random.integers(0, height, 2).tolist())
        color = tuple(random.integers(0, 256, 3).tolist())
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)([x0, y0, x1, y1], fill=color)
    noisy = random.integers(0, 256, (min(height, 24) // 3 + 1, min(width, 90) // 3 + 1, 3), dtype=np.uint8)
    image.paste(Image.fromarray(noisy), (width // 3, height // 3))
    return image


def noise(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def alpha(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(((x * 7 + y * 11) % 256).astype(np.uint8))


def with_alpha(image, mode):
    image = image.convert(mode.rstrip("A"))
    image.putalpha(alpha(*image.size))
    assert image.mode == mode
    return image


def png(width, height, depth, color, rows, *chunks, interlaced=False):
    """Returns a PNG of a kind that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    body = [chunk(b"IHDR", head), *(chunk(*one) for one in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def bigger_than_it_says(said, side):
    """Returns the beginning of a lossy WebP whose image data is larger than its header declares."""
    head = struct.pack("<4sII", b"VP8X", 10, 0) + ((said - 1).to_bytes(3, "little") * 2)
    picture = b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(20)
    body = b"WEBP" + head + struct.pack("<4sI", b"VP8 ", len(picture)) + picture
    return b"RIFF" + struct.pack("<I", len(body)) + body


def deep(width, height, color, samples, seed):
    values = np.random.default_rng(seed).integers(0, 65536, (height, width * samples)).astype(">u2")
    values[0, :8] = [0, 1, 127, 128, 254, 255, 256, 65535]
    return png(width, height, 16, color, [row.tobytes() for row in values])


def animated(images, kind):
    file = io.BytesIO()
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=100, lossless=True)
    return file.getvalue()


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images():
    """Returns files by name: those decoded exactly, those decoded approximately, and those that are rejected."""
    turned = Image.Exif()
    turned[0x0112] = 6
    grey, color = picture(40, 50, 7).convert("L"), picture(45, 37, 8)
    palette = color.quantize(32)
    see_through = bytes(index * 8 for index in range(32))
    exact = {
        "landscape.png": saved(picture(90, 60, 1), "PNG"),
        "portrait.png": saved(picture(47, 83, 2), "PNG"),
        "tiny.png": saved(picture(9, 7, 3), "PNG"),
        "as_it_is.png": saved(picture(32, 32, 4), "PNG"),
        "large.png": saved(picture(640, 480, 5), "PNG", optimize=True),
        "one_wide.png": saved(picture(1, 40, 9), "PNG"),
        "one_high.png": saved(picture(500, 1, 10), "PNG"),
        "one.png": saved(picture(1, 1, 11), "PNG"),
        # Pillow resizes the rows of this image first.
        "tall.png": saved(noise(60, 170, 22), "PNG"),
        "noise.png": saved(noise(70, 61, 23), "PNG"),
        "turned.png": saved(picture(50, 30, 12), "PNG", exif=turned),
        "rgba.png": saved(with_alpha(picture(50, 41, 6), "RGBA"), "PNG"),
        "grey.png": saved(grey, "PNG"),
        "grey_alpha.png": saved(with_alpha(grey, "LA"), "PNG"),
        "grey_key.png": saved(grey, "PNG", transparency=int(np.median(np.asarray(grey)))),
        "color_key.png": saved(color, "PNG", transparency=color.getpixel((20, 20))),
        "palette.png": saved(palette, "PNG"),
        "palette_key.png": saved(palette, "PNG", transparency=3),
        "palette_alpha.png": saved(palette, "PNG", transparency=see_through),
        "bits.png": saved(grey.convert("1"), "PNG"),
        "grey_4.png": png(37, 29, 4, 0, [bytes((x * 16 + y) % 256 for x in range(19)) for y in range(29)]),
        "grey_16.png": deep(36, 33, 0, 1, 13),
        "grey_alpha_16.png": deep(36, 33, 4, 2, 14),
        "rgb_16.png": deep(36, 33, 2, 3, 15),
        "rgba_16.png": deep(36, 33, 6, 4, 16),
        "lossless.webp": saved(picture(60, 70, 17), "WEBP", lossless=True),
        "lossless_alpha.webp": saved(with_alpha(picture(60, 50, 18), "RGBA"), "WEBP", lossless=True, exact=True),
    }
    smooth = Image.fromarray(np.asarray(picture(5, 4, 19))).resize((70, 60), Image.Resampling.BICUBIC)
    close = {
        "color.jpg": saved(smooth, "JPEG", quality=90),
        "grey.jpg": saved(smooth.convert("L"), "JPEG", quality=90),
        "turned.jpg": saved(smooth, "JPEG", quality=90, exif=turned),
        "progressive.jpg": saved(smooth, "JPEG", quality=90, progressive=True),
        "lossy.webp": saved(smooth, "WEBP", quality=90),
    }
    frames = [picture(12, 12, 20), picture(12, 12, 21)]
    refused = {
        "animated.png": animated(frames, "PNG"),
        "animated.webp": animated(frames, "WEBP"),
        "animated.gif": animated(frames, "GIF"),
        "cut.png": exact["landscape.png"][:900],
        "cut.jpg": close["color.jpg"][:40],
        "cut.webp": exact["lossless.webp"][:100],
        # The header of an image of 4 gigapixels.
        "bomb.png": png(65535, 65535, 8, 2, []),
        "bomb.webp": bigger_than_it_says(10, 16383),
    }
    return exact, close, refused


def tokenizer():
    """Returns a vocabulary like CLIP's: bytes, bytes at the end of a word, some words with their merges, and the special tokens."""
    merges = []
    for word in WORDS.split():
        whole, *letters = [*word[:-1], word[-1] + "</w>"]
        for letter in letters:
            merges.append((whole, letter))
            whole += letter
    merges = list(dict.fromkeys(merges))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    words = list(dict.fromkeys(words)) + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def random(network, seed):
    """Sets random weights that are larger than usual, so that every layer affects the result."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            norm = "norm" in name
            spread = 0.1 if name.endswith("bias") or norm else 0.3
            noise = torch.randn(parameter.shape, generator=source) * spread
            parameter.copy_(noise + (1 if norm and name.endswith("weight") else 0))
        network.logit_scale.fill_(2.0)
    return network.eval()


def network(words, text, vision, seed, **shared):
    text = dict(num_hidden_layers=2, max_position_embeddings=LENGTH, vocab_size=words, bos_token_id=words - 2) | text
    vision = dict(num_hidden_layers=2, image_size=32) | vision
    return random(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, **shared)), seed)


def new(tokens):
    """Saves a model like transformers 5."""
    folder = MODELS / "new"
    words = len(tokens)
    text = dict(hidden_size=16, intermediate_size=40, num_attention_heads=4, eos_token_id=words - 1)
    vision = dict(hidden_size=24, intermediate_size=48, num_attention_heads=4, patch_size=8)
    model = network(words, text, vision, 1, projection_dim=10)
    sizes = dict(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model.save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(**sizes), tokens).save_pretrained(folder)
    return folder


def old(tokens):
    """Saves a model like the first checkpoints: half precision, positions among the weights, duplicate sizes, an end-of-text ID
    that differs from the tokenizer's, and no `tokenizer.json`. The image size is not a multiple of the patch size."""
    folder = MODELS / "old"
    words = len(tokens)
    text = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, hidden_act="gelu", eos_token_id=2)
    vision = dict(hidden_size=24, intermediate_size=40, num_attention_heads=3, patch_size=7, hidden_act="gelu")
    model = network(words, text, vision, 2, projection_dim=12)
    model.half().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(LENGTH).expand((1, -1)).contiguous()
    weights["vision_model.embeddings.position_ids"] = torch.arange(17).expand((1, -1)).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    text |= dict(num_hidden_layers=2, max_position_embeddings=LENGTH, vocab_size=words)
    vision |= dict(num_hidden_layers=2, image_size=32)
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 12,
        "logit_scale_init_value": 2.6592,
        "text_config": {"hidden_size": 4711, "model_type": "clip_text_model"},
        "text_config_dict": text,
        "torch_dtype": "float16",
        "vision_config": vision,
        "vision_config_dict": None,
    }
    preprocessor = {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 32,
    }
    definition = json.loads(tokens.backend_tokenizer.to_str())["model"]
    merges = ["#version: 0.2"] + [" ".join(merge) for merge in definition["merges"]]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    names = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    for name, content in {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "vocab.json": definition["vocab"],
        "tokenizer_config.json": names | {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"},
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=None if name == "vocab.json" else 2))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def rounded(numbers):
    """Rounds to a hundredth of the tests' tolerance."""
    return np.round(np.asarray(numbers.detach(), np.float64), 7).tolist()


def answers(folder, files):
    """Returns the results of transformers for a model directory."""
    model = CLIPModel.from_pretrained(folder).float().eval()
    tokens = CLIPTokenizer.from_pretrained(folder)
    preprocessor = CLIPImageProcessorPil.from_pretrained(folder)
    ids = [tokens(text, truncation=True)["input_ids"] for text in TEXTS]
    opened = [Image.open(io.BytesIO(file)) for file in files.values()]
    pixels = [preprocessor(image, return_tensors="pt")["pixel_values"] for image in opened]
    with torch.no_grad():
        text = [model.get_text_features(torch.tensor([ids])).pooler_output[0] for ids in ids]
        image = [model.get_image_features(pixels).pooler_output[0] for pixels in pixels]
        labeled = tokens([TEMPLATE.format(label) for label in LABELS], padding=True, return_tensors="pt")
        logits = model(**labeled, pixel_values=torch.cat(pixels)).logits_per_image
    answers = {
        "ids": ids,
        "text": [rounded(features) for features in text],
        "image": {name: rounded(features) for name, features in zip(files, image)},
        "probabilities": {name: rounded(row) for name, row in zip(files, logits.softmax(-1))},
    }
    return answers, np.concatenate([pixels.numpy() for pixels in pixels])


def levels():
    """Returns the normalized value of each level of each channel."""
    grey = np.arange(256, dtype=np.uint8)
    image = np.stack([grey.reshape(16, 16)] * 3, -1)
    values = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)(Image.fromarray(image))["pixel_values"][0]
    assert values.dtype == np.float32
    return [[float(str(value)) for value in plane.ravel()] for plane in values]


def cropped(files, size):
    """Returns the pixels before normalization."""
    options = dict(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    preprocessor = CLIPImageProcessorPil(do_rescale=False, do_normalize=False, **options)
    planes = [preprocessor(Image.open(io.BytesIO(file)))["pixel_values"][0] for file in files]
    return [np.moveaxis(np.asarray(plane), 0, -1) for plane in planes]


def main():
    for folder in [MODELS, IMAGES]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    exact, close, refused = images()
    for name, file in (exact | close | refused).items():
        (IMAGES / name).write_bytes(file)
    # The cropped images, one below the other.
    for name, size, files in [("pixels.png", 32, exact), ("large_224.png", 224, {"large.png": exact["large.png"]})]:
        pixels = np.concatenate(cropped(files.values(), size))
        Image.fromarray(pixels.astype(np.uint8)).save(HERE / name, optimize=True)
    pixels = np.concatenate(cropped(close.values(), 32))
    Image.fromarray(pixels.astype(np.uint8)).save(HERE / "close.png", optimize=True)
    level, opacity = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    every = Image.fromarray(np.stack([level, level, level, opacity], -1), "RGBA")
    seen = np.asarray(CLIPImageProcessorPil().convert_to_rgb(every))[..., 0]
    Image.fromarray(seen).save(HERE / "on_white.png", optimize=True)
    tokens = tokenizer()
    expected = {}
    for folder in [new(tokens), old(tokens)]:
        expected[folder.name], _ = answers(folder, exact)
    content = {
        "texts": TEXTS,
        "labels": LABELS,
        "template": TEMPLATE,
        "exact": list(exact),
        "close": list(close),
        "levels": levels(),
        "expected": expected,
    }
    (HERE / "reference.json").write_text(json.dumps(content, ensure_ascii=False))


if __name__ == "__main__":
    main()
