#!/usr/bin/env python3
"""Writes the images of this directory and what the packages that ship the models answer to them: reference.json.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py samples
    ../../fetch-examples models && venv/bin/python make.py reference models

The reference is computed by the packages' own code (rapidocr, arbez), and by onnxruntime and tokenizers for embeddings.
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "How tall is Mont Blanc?",
    "Mont Blanc rises 4806 m above sea level.",
    "",
    "Straße, café, 東京, 🎉",
    "a" * 40 + " " + "word " * 300,
]


def samples():
    import barcode
    import segno
    from barcode.writer import ImageWriter

    font = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
    page = Image.new("RGB", (820, 460), (236, 228, 210))
    segno.make("https://example.org/a/rather/long/path?with=a&query=too", error="m").save(
        HERE / "qr.png", scale=6, border=4
    )
    code = Image.open(HERE / "qr.png").convert("RGB")
    page.paste(code, (70, 90))
    barcode.get("code128", "PARCEL-2026", writer=ImageWriter()).write(
        HERE / "bars.png", {"write_text": False, "module_width": 0.25, "module_height": 10, "quiet_zone": 4}
    )
    bars = Image.open(HERE / "bars.png").convert("RGB")
    page.paste(bars.resize((360, 97)), (420, 180))
    (HERE / "qr.png").unlink()
    (HERE / "bars.png").unlink()
    draw = ImageDraw.Draw(page)
    draw.text((70, 30), "Parcel 2026-11-29", fill=(40, 40, 60), font=ImageFont.truetype(font, 34))
    page.quantize(64).save(HERE / "codes.png", optimize=True)

    def line(text, width, height, size, name, turned=False):
        image = Image.new("L", (width, height), 250)
        draw = ImageDraw.Draw(image)
        draw.text((6, height // 2), text, fill=20, font=ImageFont.truetype(font, size), anchor="lm")
        if turned:
            image = image.rotate(180)
        image.quantize(16).save(HERE / name, optimize=True)

    line("Parcel no. 2026-11-29", 372, 48, 30, "line.png")
    line("Straight ahead: 42 km", 700, 90, 58, "large-line.png")
    line("Hello", 60, 24, 18, "short-line.png")
    line("Upside down", 260, 48, 32, "turned-line.png", turned=True)


def reference(models):
    import cv2
    import onnxruntime
    from arbez.engines import _yolox
    from rapidocr_onnxruntime import RapidOCR
    from tokenizers import Tokenizer

    found = {}

    def session(path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    # Barcodes, by arbez's own preparation and NMS.
    image = Image.open(HERE / "codes.png").convert("RGB")
    tensor, info = _yolox.preprocess(image)
    network = session(models / "barcodes.onnx")
    (raw,) = network.run(None, {"input": tensor})
    names = _yolox.model_class_names_for(raw.shape[2] - 5)
    found["codes"] = {
        "labels": list(names),
        "detections": [
            {"label": names[d.class_id], "score": d.score, "box": [d.x1, d.y1, d.x2, d.y2]}
            for d in _yolox.postprocess(raw, info)
        ],
    }

    # Lines of text and their orientation, by rapidocr.
    engine = RapidOCR()
    lines = ["line.png", "large-line.png", "short-line.png"]
    found["lines"] = {}
    for name in lines:
        pixels = cv2.imread(str(HERE / name))
        ((text, score),), _ = engine.text_rec(pixels)
        found["lines"][name] = {"text": text, "score": float(score)}
    found["orientations"] = {}
    for name in [*lines, "turned-line.png"]:
        pixels = cv2.imread(str(HERE / name))
        _, ((label, score),), _ = engine.text_cls([pixels])
        found["orientations"][name] = {"label": label, "score": float(score)}

    # Embeddings: the mean of the vectors of a text's tokens, one text at a time.
    tokenizer = Tokenizer.from_file(str(models / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    network = session(models / "minilm.onnx")
    found["texts"] = []
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        ids = np.array([encoded.ids], dtype=np.int64)
        (states,) = network.run(
            ["last_hidden_state"],
            {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)},
        )
        vector = states[0].mean(axis=0)
        vector = vector / np.linalg.norm(vector)
        found["texts"].append(
            {"text": text, "tokens": len(encoded.ids), "embedding": [round(float(x), 6) for x in vector]}
        )
    (HERE / "reference.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["samples"]:
            samples()
        case ["reference", models]:
            reference(pathlib.Path(models).resolve())
        case _:
            sys.exit(__doc__)
