"""Finds the phrase whose spelling is closest to a text. A small model that only needs numpy."""

import zlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

SIZE = 1024

Vector = Annotated[NDArray[np.float32], (SIZE,)]


@dataclass
class Settings:
    """`[models.settings.settings]` of the configuration."""

    phrases: list[str]


@dataclass
class Match:
    phrase: str
    score: float


class Phrases:
    max_batch_size = 64
    examples = {"closest": ["good mornign"], "embed": ["good morning"]}

    def load(self, settings: Settings):
        if not settings.phrases:
            raise ValueError("`phrases` is empty, expected at least one phrase")
        self.phrases = settings.phrases
        self.vectors = np.stack(self.embed(self.phrases))
        print(f"{len(self.phrases)} phrases")

    def closest(self, texts: list[str]) -> list[Match]:
        """Returns the phrase with the most similar trigrams, and their cosine similarity."""
        scores = np.stack(self.embed(texts)) @ self.vectors.T
        best = scores.argmax(axis=1)
        return [
            Match(self.phrases[phrase], float(score)) if text else ValueError("the text is empty")
            for text, phrase, score in zip(texts, best, scores.max(axis=1))
        ]

    def embed(self, texts: list[str]) -> list[Vector]:
        """Hashes the trigrams of a text into a vector of length 1."""
        return [self._trigrams(text) for text in texts]

    def _trigrams(self, text):
        text = f"  {text.lower()} "
        counts = np.zeros(SIZE, np.float32)
        for start in range(len(text) - 2):
            counts[zlib.crc32(text[start : start + 3].encode()) % SIZE] += 1
        return counts / np.linalg.norm(counts)
