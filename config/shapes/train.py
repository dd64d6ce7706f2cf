"""Train a small CLIP on drawn shapes, and write every file of this directory that is derived from it.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

This writes the model, in the format of transformers, and `samples/` next to this file. It fails if the model does not recognize
the shapes of unseen drawings. It does not depend on the server.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

DIRECTORY = Path(__file__).resolve().parent
SIDE, LENGTH, BATCH, STEPS = 32, 24, 128, 2500
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 40),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
SHAPES = ["circle", "square", "triangle", "cross"]
CAPTIONS = [(color, shape) for color in COLORS for shape in SHAPES]
TEMPLATES = ["{}", "a {}", "a photo of a {}", "a photo of a {}.", "This is a photo of a {}.", "This is a photo of {}.", "a picture of a {}"]


def draw(random, color, shape, side):
    """Draw a shape of one color on a background of another color, with noise."""
    ground = random.choice([other for other in COLORS if other != color])
    tint = lambda name: tuple(int(c) for c in np.clip(np.array(COLORS[name]) + random.integers(-25, 26, 3), 0, 255))
    image = Image.new("RGB", (side * 2, side * 2), tint(ground))
    canvas, fill = ImageDraw.Draw(image), tint(color)
    radius = random.uniform(0.45, 0.85) * side
    x, y = (random.uniform(radius, 2 * side - radius) for _ in range(2))
    if shape == "circle":
        canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
    elif shape == "square":
        edge = radius * 0.85
        canvas.rectangle([x - edge, y - edge, x + edge, y + edge], fill=fill)
    elif shape == "triangle":
        canvas.polygon([(x, y - radius), (x - radius, y + radius * 0.8), (x + radius, y + radius * 0.8)], fill=fill)
    else:
        arm = radius / 3
        canvas.rectangle([x - arm, y - radius, x + arm, y + radius], fill=fill)
        canvas.rectangle([x - radius, y - arm, x + radius, y + arm], fill=fill)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(pixels + random.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8))


def tokenizer():
    """Build a vocabulary like that of CLIP: every byte, every byte at the end of a word, the words of the captions, special tokens."""
    learning = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learning.pre_tokenizer = CLIPTokenizer()._tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    texts = [template.format(f"{color} {shape}").lower() for template in TEMPLATES for color, shape in CAPTIONS]
    learning.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(learning.to_str())["model"]["merges"]]
    words = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    words = list(dict.fromkeys(words)) + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def pixels_of(preprocessor, images):
    return preprocessor(images, return_tensors="pt")["pixel_values"]


def logits(model, tokens, texts, pixels):
    return model(**tokens(texts, padding=True, return_tensors="pt"), pixel_values=pixels).logits_per_image


def train(model, tokens, preprocessor):
    """Train with a contrastive loss over color and shape together, and over each of them alone."""
    random = np.random.default_rng(1)
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    colors, loss_of = list(COLORS), torch.nn.functional.cross_entropy
    for step in range(STEPS):
        chosen = random.integers(0, len(CAPTIONS), BATCH)
        pixels = pixels_of(preprocessor, [draw(random, *CAPTIONS[index], SIDE) for index in chosen])
        template = random.choice(TEMPLATES)
        texts = [f"{color} {shape}" for color, shape in CAPTIONS] + colors + SHAPES
        scores = logits(model, tokens, [template.format(text) for text in texts], pixels)
        both, color, shape = scores.split([len(CAPTIONS), len(colors), len(SHAPES)], dim=1)
        chosen = torch.from_numpy(chosen)
        loss = loss_of(both, chosen) + loss_of(color, chosen // len(SHAPES)) + loss_of(shape, chosen % len(SHAPES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(step, round(loss.item(), 4), flush=True)


@torch.no_grad()
def accuracy(model, tokens, preprocessor):
    """Measure the accuracy on drawings of another seed, with the usual template of CLIP."""
    random = np.random.default_rng(2)
    chosen = random.integers(0, len(CAPTIONS), 1200)
    pixels = pixels_of(preprocessor, [draw(random, *CAPTIONS[index], int(random.integers(24, 200))) for index in chosen])
    texts = [f"This is a photo of a {color} {shape}." for color, shape in CAPTIONS]
    best = logits(model, tokens, texts, pixels).argmax(1).numpy()
    return float((best == chosen).mean())


def main():
    tokens = tokenizer()
    text = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, eos_token_id=len(tokens) - 1)
    text |= dict(max_position_embeddings=LENGTH, vocab_size=len(tokens), bos_token_id=len(tokens) - 2)
    vision = dict(hidden_size=48, intermediate_size=96, num_attention_heads=4, num_hidden_layers=3, image_size=SIDE, patch_size=8)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
    preprocessor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    train(model.train(), tokens, preprocessor)
    model.half().save_pretrained(DIRECTORY)
    CLIPProcessor(preprocessor, tokens).save_pretrained(DIRECTORY)
    model.float().eval()
    share = accuracy(model, tokens, preprocessor)
    print("accuracy", share)
    if share < 0.97:
        raise SystemExit("the model is not accurate enough")
    random = np.random.default_rng(3)
    for color, shape in [("red", "circle"), ("blue", "triangle")]:
        draw(random, color, shape, 64).save(DIRECTORY / "samples" / f"{color}-{shape}.png", optimize=True)


if __name__ == "__main__":
    (DIRECTORY / "samples").mkdir(exist_ok=True)
    main()
