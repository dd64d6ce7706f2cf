"""Methods that are tasks, and similar methods that are not."""

import functools
from typing import Annotated, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

import inference_server
from inference_server import task


class Base:
    def inherited(self, texts: List[str]) -> List[str]:
        return texts

    def overridden(self, text: str) -> str:
        raise AssertionError("it is not a task")


class Helpers(Base):
    def load(self, settings):
        self.stored = lambda texts: texts
        self.saved = []

    def save(self, path):
        self.saved.append(path)

    def store(self, paths: List[str]) -> None:
        self.saved.extend(paths)

    def one(self, text: str) -> str:
        return text

    def normalize(self, vectors: NDArray[np.float32]):
        return vectors

    def many(self, texts: List[str], count: int):
        return texts

    def untyped(self, *texts):
        return texts

    def unreadable(self, texts: "Missing"):
        return texts

    @staticmethod
    def static(texts: List[str]) -> List[str]:
        return texts

    @classmethod
    def of_class(cls, texts: List[str]) -> List[str]:
        return texts

    @property
    def broken(self):
        raise AssertionError("properties are not evaluated")

    @functools.lru_cache()
    def cached(self, texts: List[str]) -> List[str]:
        return texts

    def _private(self, texts: List[str]) -> List[str]:
        return texts

    def listed(self, texts: List[str]) -> List[str]:
        return texts + self.saved if self.saved else texts

    def sequence(self, texts: Sequence[str]) -> List[str]:
        return list(texts)

    def fixed(self, texts: Tuple[str, ...]) -> List[str]:
        return [type(texts).__name__] * len(texts)

    def whole(self, xs: Annotated[NDArray[np.float32], (-1, 2)]) -> Annotated[NDArray[np.float32], (-1, 2)]:
        return xs + len(xs)

    @task
    def marked(self, items):
        return items

    @staticmethod
    @inference_server.task
    def marked_static(items):
        return items


class Listed(Helpers):
    tasks = ["stored", "one_by_one"]

    def one_by_one(self, items):
        return items


class Misspelt(Helpers):
    tasks = ["listd"]


class Nothing:
    def save(self, path):
        pass

    def shout(self, text: str):
        pass
