"""Makes cases in a fixed order, so that every run compares the same ones."""

import zlib

import numpy as np
import onnx

from . import control, elementwise, movement, networks, quantization, reductions  # noqa: F401: they register operators
from .graph import Case
from .registry import SUBJECTS
from .table import MAX_OPSET, deprecated, versions_of
from .views import make_views

# Oldest version of the operator set that ONNX Runtime supports.
MIN_OPSET = 7


def opsets(subject):
    """A version in which the operator has each of its meanings, oldest first."""
    if subject.domain:
        return [17]
    versions = [version for version in versions_of(subject.name) if version <= MAX_OPSET]
    ends = [version - 1 for version in versions[1:]] + [MAX_OPSET]
    return [end for end in ends if end >= MIN_OPSET and not deprecated(subject.name, end)]


def make(subject, index, seed=0):
    """The case of that number; another seed gives other cases."""
    random = np.random.default_rng([zlib.crc32(subject.operator.encode()), index, *([seed] if seed else [])])
    ends = opsets(subject)
    last = ends[index % len(ends)]
    first = max(MIN_OPSET, ends[index % len(ends) - 1] + 1 if index % len(ends) else MIN_OPSET)
    if not subject.domain:
        first = max(first, min(versions_of(subject.name)))
    opset = int(random.choice([first, last, random.integers(first, last + 1)]))
    case = Case(random, opset)
    case.relative, case.relative_to_largest = subject.relative, subject.relative_to_largest
    subject.build(case, subject.name)
    make_views(case, np.random.default_rng([zlib.crc32(subject.operator.encode()), index, seed, 1]))
    return case


def count(subject, per_version):
    """How many cases of an operator are compared."""
    return int(per_version * subject.weight) * len(opsets(subject))


__all__ = ["SUBJECTS", "make", "count", "onnx"]
