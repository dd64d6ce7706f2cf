"""The models of the comparison. Every server runs these classes; this server runs them in its plugin `python`.

`predict` takes the items of a batch and returns one output for each. Settings come from environment variables, since they
are the same for every server.
"""

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

SLEEP_PER_BATCH, SLEEP_PER_ITEM = 0.010, 0.001


class Echo:
    """Returns texts unchanged."""

    examples = {"predict": ["to be"]}

    def predict(self, items: list[str]) -> list[str]:
        return items


class Sleep:
    """Takes as long as a model on a device would, without using the CPU."""

    examples = {"predict": [0]}

    def predict(self, items: list[int]) -> list[int]:
        time.sleep(SLEEP_PER_BATCH + SLEEP_PER_ITEM * len(items))
        return items


class Matrix:
    """Multiplies vectors with a matrix, so that the CPU is busy with a model, with JSON, and with little else."""

    examples = {"predict": [[0.0] * 384]}

    def load(self):
        self.matrix = np.random.default_rng(0).standard_normal((384, 384), np.float32)

    def predict(self, items: Annotated[NDArray[np.float32], (-1, 384)]) -> Annotated[NDArray[np.float32], (-1, 384)]:
        x = np.asarray(items, np.float32)
        for _ in range(32):
            x = np.tanh(x @ self.matrix)
        return x


class MiniLm:
    """all-MiniLM-L6-v2 in onnxruntime with one thread. The texts of a batch are padded to the longest of them."""

    examples = {"predict": ["to be"]}

    def load(self):
        import onnxruntime
        import tokenizers

        directory = Path(os.environ["COMPARISON_MODELS"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            directory / "minilm.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def predict(self, items: list[str]) -> Annotated[NDArray[np.float32], (-1, 384)]:
        encoded = self.tokenizer.encode_batch(items)
        ids = np.array([text.ids for text in encoded])
        mask = np.array([text.attention_mask for text in encoded])
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self.session.run(["last_hidden_state"], feeds)
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class SentenceTransformers:
    """all-MiniLM-L6-v2 in sentence-transformers, which sorts the texts of a batch by length."""

    examples = {"predict": ["to be"]}

    def load(self):
        import sentence_transformers
        import torch

        torch.set_num_threads(int(os.environ["COMPARISON_THREADS"]))
        self.model = sentence_transformers.SentenceTransformer(os.environ["COMPARISON_MINILM"], device="cpu")

    def predict(self, items: list[str]) -> Annotated[NDArray[np.float32], (-1, 384)]:
        return self.model.encode(items, batch_size=len(items), show_progress_bar=False)


def loaded(name):
    """An instance of a class of this module, ready to predict."""
    model = globals()[name]()
    if hasattr(model, "load"):
        model.load()
    return model
