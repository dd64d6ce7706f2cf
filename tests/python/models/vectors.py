"""Embeddings."""

from typing import List

import numpy as np
from numpy.typing import NDArray

from inference_server import embedding


class Vectors:
    def count_tokens(self, texts: List[str]) -> List[int]:
        return [len(text.split()) for text in texts]

    @embedding
    def embed(self, texts: List[str]) -> List[NDArray[np.float32]]:
        return np.array([[len(text), 1.0] for text in texts], np.float32)


class Uncounted:
    embeddings = ["embed"]

    def embed(self, texts: List[str]) -> List[NDArray[np.float32]]:
        return [np.array([len(text)], np.float32) for text in texts]


class Miscounted(Vectors):
    def count_tokens(self, texts: List[str]) -> List[int]:
        return [1]


class NoVectors:
    @embedding
    def embed(self, texts: List[str]) -> List[str]:
        return texts
