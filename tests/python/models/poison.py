"""A model that raises exceptions for some items, and counts its calls and items."""

from typing import Annotated, List

import numpy as np
from numpy.typing import NDArray


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("even this fails")


class Poison:
    def load(self, settings):
        self.calls, self.items = 0, 0

    def raising(self, texts: List[str]) -> List[str]:
        self.calls += 1
        self.items += len(texts)
        for text in texts:
            if text == "value":
                raise ValueError("not a good text")
            if text == "type":
                raise TypeError("not a text")
            if text == "unsupported":
                raise NotImplementedError("no such language")
            if text == "key":
                raise KeyError("secret")
            if text == "exit":
                raise SystemExit(3)
            if text == "interrupt":
                raise KeyboardInterrupt
            if text == "unprintable":
                raise Unprintable
            if text == "surrogate":
                raise ValueError("half a pair: \ud800")
            if text == "memory":
                raise MemoryError
        return texts

    def seen(self, texts: List[str]) -> List[List[int]]:
        answer = [self.calls, self.items]
        self.calls, self.items = 0, 0
        return [answer] * len(texts)

    def arrays(self, rows: Annotated[NDArray[np.float32], (-1, 2)]) -> Annotated[NDArray[np.float32], (-1, 2)]:
        """Modifies its items before it fails."""
        rows *= 2
        if (rows < 0).any():
            raise ValueError("a number is negative")
        return rows

    def documents(self, items: List[dict]) -> List[dict]:
        for item in items:
            item["seen"] = item.get("seen", 0) + 1
            if item.get("bad"):
                raise ValueError("it is bad")
        return items


class Once(Poison):
    rerun_failed_batches = False
