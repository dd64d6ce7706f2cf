"""Inputs that resemble what the models were made for: pictures, a page of text, speech, token ids."""

from __future__ import annotations

import functools

import numpy as np

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError:
    # The short form has no images.
    Image = None

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


@functools.cache
def photo(name: str = "china.jpg") -> Image.Image:
    """A photograph that scikit-learn ships: "china.jpg" or "flower.jpg"."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(name))


@functools.cache
def page() -> Image.Image:
    """A page with a heading and lines of text."""
    image = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), "Quarterly report 2026", "black", ImageFont.load_default(36))
    words = "the server batches items of waiting requests and answers each of them in its place".split()
    for line in range(11):
        text = " ".join(words[(line * 5 + word) % len(words)] for word in range(9))
        draw.text((40, 100 + 32 * line), text, (20, 20, 60), ImageFont.load_default(20))
    draw.rectangle((400, 20, 600, 80), outline="red", width=3)
    return image


def line_of_text(text: str, width: int, height: int) -> Image.Image:
    """One line of text that fills the image, as a detector cuts it out."""
    image = Image.new("RGB", (width, height), (245, 240, 235))
    ImageDraw.Draw(image).text((4, height // 8), text, (25, 25, 25), ImageFont.load_default(int(height * 0.65)))
    return image


def pixels(image: Image.Image, width: int, height: int, mean=0.0, std=1.0, scale=255.0, planes=True) -> np.ndarray:
    """A batch of one image, `(pixel / scale - mean) / std`, as planes or as interleaved pixels."""
    array = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), np.float32)
    array = (array / scale - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1) if planes else array)[None]


def grey(image: Image.Image, width: int, height: int) -> np.ndarray:
    """A batch of one greyscale image, from -1 to 1."""
    array = np.asarray(image.convert("L").resize((width, height)), np.float32) / 255
    return ((array - 0.5) / 0.5)[None, None]


@functools.cache
def speech(seconds: float = 10.0, rate: int = 16000) -> np.ndarray:
    """A signal with the structure of speech: voiced syllables with formants, fricatives, pauses, and some noise."""
    generator = np.random.default_rng(7)
    time = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.4 * time) + 10 * np.sin(2 * np.pi * 3.1 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    first, second = 500 + 250 * np.sin(2 * np.pi * 1.7 * time), 1500 + 500 * np.sin(2 * np.pi * 1.1 * time + 1)
    voiced = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        gain = np.exp(-(((frequency - first) / 160) ** 2)) + 0.5 * np.exp(-(((frequency - second) / 220) ** 2))
        voiced += (gain + 0.02) / harmonic**0.3 * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.7 * time), 0, None) ** 0.5
    talking = (np.sin(2 * np.pi * 0.27 * time) > -0.4).astype(float)
    hiss = generator.normal(size=time.size) * np.clip(np.sin(2 * np.pi * 3.7 * time + 2.4), 0, None) ** 4
    signal = talking * (syllables * voiced + 0.15 * hiss) + 0.003 * generator.normal(size=time.size)
    return (0.3 * signal / np.abs(signal).max()).astype(np.float32)


def frames(length: int, count: int, start: int = 16000) -> np.ndarray:
    """Consecutive frames of speech."""
    return speech()[start : start + length * count].reshape(count, length)


def spectrogram(window: int, hop: int, count: int, power: float = 2.0) -> np.ndarray:
    """Magnitudes of the short-time spectrum of speech: `[count, window / 2 + 1]`."""
    signal = speech(12.0)
    positions = np.arange(count) * hop
    stacked = np.stack([signal[position : position + window] for position in positions]) * np.hanning(window)
    return (np.abs(np.fft.rfft(stacked)) ** power).astype(np.float32)


def log_mel(window: int, hop: int, count: int, bands: int) -> np.ndarray:
    """Decibels of speech in bands, scaled to about -1 to 1: `[count, bands]`."""
    spectrum = spectrogram(window, hop, count)
    edges = np.geomspace(2, spectrum.shape[1] - 1, bands + 1).astype(int)
    mel = np.stack([spectrum[:, a : max(b, a + 1)].mean(1) for a, b in zip(edges, edges[1:])], 1)
    return ((10 * np.log10(np.maximum(mel, 1e-10)) + 40) / 40).astype(np.float32)


def ids(vocabulary: int, *shape: int, seed: int = 3, low: int = 1) -> np.ndarray:
    """Token ids, rare ones rarely."""
    generator = np.random.default_rng(seed)
    return np.minimum(low + generator.geometric(6 / vocabulary, size=shape), vocabulary - 1).astype(np.int64)


def normal(*shape: int, scale: float = 1.0, seed: int = 5) -> np.ndarray:
    """Numbers such as a network's hidden state has."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)
