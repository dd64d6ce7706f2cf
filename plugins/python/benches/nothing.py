"""Methods that do nothing, to measure the overhead of calling them."""

from dataclasses import dataclass
from typing import Annotated, List

import numpy as np
from numpy.typing import NDArray

Vector = Annotated[NDArray[np.float32], (384,)]


@dataclass
class Document:
    name: str
    size: int
    ratio: float


class Nothing:
    def text(self, items: List[str]) -> List[str]:
        return items

    def json(self, items: list):
        return items

    def dataclass(self, items: List[Document]) -> List[Document]:
        return items

    def tensor(self, items: List[Vector]) -> List[Vector]:
        return items

    def tensors_in_one(self, items: List[Vector]) -> Annotated[NDArray[np.float32], (-1, 384)]:
        return np.stack(items)
