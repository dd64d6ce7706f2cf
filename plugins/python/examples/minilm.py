"""Computes sentence embeddings with transformers and torch, from a directory of sentence-transformers such as all-MiniLM-L6-v2."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer


@dataclass
class Settings:
    folder: str
    max_length: int = 256


class MiniLM:
    examples = {"embed": ["An example sentence."]}

    def load(self, settings: Settings, base_dir):
        folder = os.path.join(base_dir, settings.folder)
        self.max_length = settings.max_length
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Computes the mean of the last layer over the tokens of a text, scaled to length 1."""
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        with torch.inference_mode():
            states = self.model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(means).numpy()
