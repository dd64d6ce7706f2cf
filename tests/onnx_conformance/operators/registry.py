"""Which operators are compared, and how cases of them are made."""

from dataclasses import dataclass, field
from typing import Callable


# A BOOL that the runtime holds as any integer, and the operators that may take it for one.
LOOSE = "BOOL by value"
_TAKES_LOOSE = {
    "And", "Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "If", "Loop", "Not", "Or", "Reshape",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Xor",
}  # fmt: skip


@dataclass
class Subject:
    """An operator, with a function that builds a case of it."""

    operator: str
    build: Callable
    # Features besides datatypes, outputs and versions whose values can be the reason for a difference.
    split: list = field(default_factory=list)
    # Features that divide the cases into classes, besides the first datatype, outputs and versions.
    joint: list = field(default_factory=list)
    # Values of features with which results are known to differ, if only with rare data.
    exclude: list = field(default_factory=list)
    # Data with which results are known to differ, if too rarely to rely on comparisons.
    without: list = field(default_factory=list)
    # How much more than usual its results may differ.
    relative: float = 1e-4
    relative_to_largest: float = 0.0
    # How often it is compared, relative to others.
    weight: float = 1.0

    def __post_init__(self):
        if self.operator not in _TAKES_LOOSE:
            self.exclude = [*self.exclude, *((f"type {index}", LOOSE) for index in range(6)), ("types", LOOSE)]

    @property
    def domain(self):
        return self.operator.rpartition(".")[0]

    @property
    def name(self):
        return self.operator.rpartition(".")[2]


SUBJECTS = {}


def subject(*operators, **options):
    """Registers a function `build(case, name)` for operators."""

    def register(build):
        for operator in operators:
            assert operator not in SUBJECTS, operator
            SUBJECTS[operator] = Subject(operator, build, **options)
        return build

    return register
