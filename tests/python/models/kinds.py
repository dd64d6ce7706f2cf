"""A task for each kind of type hint. Most return their input or describe it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple, TypedDict, Union

import numpy as np
import pydantic
from numpy.typing import NDArray

Matrix = Annotated[NDArray[np.float32], (-1, 3)]


@dataclass
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x is negative")


@dataclass
class Shape:
    corners: List[Point]
    labels: Dict[str, int] = field(default_factory=dict)


class Box(TypedDict):
    corner: Tuple[int, int]
    color: Literal["red", "green"]


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1)
    ages: List[int] = []


class Group(pydantic.BaseModel):
    leader: Person


class Boxes(TypedDict):
    corners: Matrix
    ids: NDArray[np.int64]


@dataclass
class Scored:
    scores: NDArray[np.float64]
    best: Annotated[NDArray[np.int32], ()]


@dataclass
class Ordered:
    values: NDArray[np.float32]

    def __post_init__(self):
        if not (np.diff(self.values) >= 0).all():
            raise ValueError("the values are not in order")


@dataclass
class Broken:
    word: str

    def __post_init__(self):
        self.initial = {}[self.word]


@dataclass
class Options:
    times: int = 1


class Kinds:
    examples = {"text": ["an example"], "raw": [b"\x01\x02"]}

    def text(self, items: List[str]) -> List[str]:
        """Reverses a text."""
        return [item[::-1] for item in items]

    def raw(self, items: List[bytes]) -> List[Annotated[bytes, "image/x-made-up"]]:
        return [item[::-1] for item in items]

    def anything(self, items: list):
        return items

    def typed(self, items: List[Any]) -> List[str]:
        return [type(item).__name__ for item in items]

    def shapes(self, items: List[Shape]) -> List[Shape]:
        assert all(isinstance(corner, Point) for item in items for corner in item.corners)
        return items

    def boxes(self, items: List[Box]) -> List[str]:
        return [f"{item['corner']} {item['color']}" for item in items]

    def choices(self, items: List[Union[int, Optional[Size]]]) -> List[str]:
        return [repr(item) for item in items]

    def people(self, items: List[Person]) -> List[Person]:
        return [Person(name=item.name.upper(), ages=item.ages) for item in items]

    def groups(self, items: List[Group]) -> List[str]:
        return [item.leader.name for item in items]

    def nested(self, items: List[Dict[str, Matrix]]) -> List[int]:
        return [item["points"].sum() for item in items]

    def foreign(self, items: List[int]) -> List[Any]:
        """Returns values that JSON cannot represent directly."""
        known = [np.float32(0.5), np.arange(2), {3, }, (1, np.True_), Size.LARGE, 10**30, float("nan"), {1: "a"}]
        return [known[item] for item in items]

    def vector(self, items: List[NDArray[np.float32]]) -> List[NDArray[np.float32]]:
        for item in items:
            item *= 2
        return items

    def batch(self, items: List[Annotated[NDArray[np.float32], (2,)]]) -> Annotated[NDArray[np.float32], (-1, 2)]:
        return np.stack(items) + 1

    def narrowed(self, items: List[str]) -> List[NDArray[np.float32]]:
        """Returns arrays of a different float type, which are converted."""
        return [np.array([len(item)], np.float64) for item in items]

    def located(self, items: List[Boxes]) -> List[Scored]:
        return [Scored(item["corners"].sum(axis=1, dtype=np.float64), item["ids"].argmax()) for item in items]

    def bytes(self, items: List[Union[str, NDArray[np.uint8]]]) -> List[int]:
        return [int(item.sum()) for item in items]

    def ordered(self, items: List[Ordered]) -> List[float]:
        return [item.values[0] for item in items]

    def broken(self, items: List[Union[int, Broken]]) -> List[str]:
        return [str(item) for item in items]

    def repeated(self, items: List[str], parameters: List[Options]) -> List[str]:
        return [item * options.times for item, options in zip(items, parameters)]

    def _private(self, items: List[str]):
        raise AssertionError("it is no task")

    def helper(self, item: str):
        raise AssertionError("it is no task")


def shout(items: List[str]) -> List[str]:
    """A function as a model."""
    return [item.upper() for item in items]
