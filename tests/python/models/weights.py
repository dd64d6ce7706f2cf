"""A class that states the weights of its items and creates items of a requested weight."""

from typing import List

import numpy as np
from numpy.typing import NDArray


class Weighed:
    examples = {"words": ["to be"], "lengths": [[1.0, 2.0]]}

    def weigh(self, task, item):
        if task == "lengths":
            return len(item)
        if item == "bad":
            raise ValueError("the text has no weight")
        if item == "wrong":
            return "heavy"
        weight = len(item.split())
        return (weight, item.split()[0]) if item.startswith("group") else weight

    def sample(self, task, weight):
        if weight > 100:
            return None
        return " ".join(["word"] * weight) if task == "words" else [0.5] * weight

    def words(self, texts: List[str]) -> List[dict]:
        """Returns the texts of the batch."""
        return [{"batch": list(texts)} for _ in texts]

    def lengths(self, rows: List[NDArray[np.float32]]) -> List[int]:
        return [len(row) for row in rows]


class Sampler:
    """`sample` and `weigh` are tasks, because their parameters are not those of the optional methods."""

    def sample(self, prompts: List[str]) -> List[str]:
        return [prompt.upper() for prompt in prompts]

    def weigh(self, things: List[str]) -> List[int]:
        return [len(thing) for thing in things]
