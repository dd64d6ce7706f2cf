"""Outcomes that do not match their hints, and images."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, List

import numpy as np
from numpy.typing import NDArray


class Color(str, Enum):
    RED = "red"


@dataclass
class Score:
    label: str
    score: Any


class Outcomes:
    files = ["outcomes.py"]

    def document(self, items: List[str]) -> List[Any]:
        endless = []
        endless.append(endless)
        values = {
            "good": {"a": [1, 2.5, None, True, "x"]},
            "nan": {"a": [{"score": math.nan}]},
            "infinity": [1.0, -math.inf],
            "numpy": {"score": np.float32("nan")},
            "double": {"score": np.float64("inf")},
            "array": {"scores": np.array([1.0, np.nan])},
            "zero": Score("x", np.array(np.nan)),
            "record": [Score("x", math.nan)],
            "bytes": {"data": b"abc"},
            "generator": (part for part in "abc"),
            "truth": {True: 1},
            "keys": {1: "a", "1": "b"},
            "surrogate": {"a": "\ud800"},
            "key": {"\ud800": 1},
            "complex": 1j,
            "object": {"a": object()},
            "fields": np.zeros(1, [("a", "f4"), ("b", "i4")]),
            "endless": endless,
        }
        return [values[item] for item in items]

    def tensor(self, items: List[str]) -> List[NDArray[np.float32]]:
        values = {
            "good": np.array([1.5]),
            "big-endian": np.array([1.5], ">f4"),
            "half": np.array([1.5], np.float16),
            "strided": np.arange(4, dtype=np.float32)[::2],
            "integers": [1, 2],
            "overflow": np.array([1e300]),
            "imprecise": np.array([16777217]),
            "text": ["a"],
            "none": None,
            "ragged": [[1.0], [1.0, 2.0]],
            "masked": np.ma.masked_array([1.0, 2.0], [True, False], np.float32),
        }
        return [values[item] for item in items]

    def integers(self, items: List[str]) -> List[NDArray[np.int32]]:
        values = {"good": np.array([7]), "large": np.array([1 << 40]), "unsigned": np.array([1 << 31], np.uint32)}
        return [values[item] for item in items]

    def collection(self, items: List[str]):
        values = {"set": set(items), "zero": np.array(1.0), "bytes": bytearray(len(items)), "dict": dict.fromkeys(items)}
        return values.get(items[0], items)

    def picture(self, items: List[str]) -> List[Annotated[bytes, "image/png"]]:
        return [b"\x89PNG" + item.encode() for item in items]

    def either(self, items: List[str]) -> List[Annotated[bytes, "image/png", "image/jpeg"]]:
        values = {
            "png": (b"png", "image/png"),
            "jpeg": (b"jpeg", "image/jpeg"),
            "gif": (b"gif", "image/gif"),
            "untold": b"png",
        }
        return [values[item] for item in items]

    def scalars(self, items: List[np.uint8]) -> List[np.bool_]:
        assert all(isinstance(item, np.uint8) for item in items)
        return [np.bool_(item) for item in items]

    def color(self, items: List[str]) -> List[str]:
        return [Color(item) for item in items]

    def inside(self, items: List[List[Annotated[NDArray[np.int32], (-1,)]]]) -> List[int]:
        return [int(sum(part.sum() for part in item)) for item in items]

    def ragged(self, xs: Annotated[NDArray[np.float32], (-1, -1)]) -> List[List[int]]:
        """Returns the shape of the array that contained each item."""
        return [list(xs.shape)] * len(xs)
