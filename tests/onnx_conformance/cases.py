"""What is tried and how it turned out: cases, references and verdicts."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# An input or output: a tensor, a sequence of tensors (a list), or nothing (an optional without a value).
Value = "np.ndarray | list[np.ndarray] | None"


@dataclass
class DataSet:
    """One request: inputs by name, and the outputs that the source of the model expects, if it states any."""

    inputs: dict[str, Value]
    expected: list[Value] | None = None


@dataclass
class Case:
    """A model and the requests to send to it."""

    name: str
    path: Path
    outputs: list[str]
    data_sets: list[DataSet]
    rtol: float = 1e-3
    atol: float = 1e-7
    # Outputs are random by definition: only their shapes and types can be compared.
    random: bool = False
    # Further lines of `[models.settings]`.
    settings: str = ""
    group: str = ""
    # Real models: compare relative to the largest magnitude of the reference, since outputs near zero are noise.
    by_magnitude: bool = False
    # Answers of Python's onnxruntime, one per data set: a list of outputs, or the error as a string.
    reference: list[list[Value] | str] = field(default_factory=list)
    # The same for requests of several items, with each item computed alone; `None` where that does not apply.
    reference_alone: list[list[Value] | None] = field(default_factory=list)

    def reference_passes(self) -> bool:
        """Whether Python's onnxruntime computes all requests, with the expected outputs if there are any."""
        return all(
            not isinstance(answer, str) and (data.expected is None or difference(self, answer, data.expected) is None)
            for answer, data in zip(self.reference, self.data_sets)
        )


class Verdict(enum.Enum):
    RIGHT = "right"
    # Differs from the expected outputs, but equals what Python's onnxruntime computes.
    AS_PYTHON = "as Python's"
    REJECTED = "rejected at load"
    FAILED = "some requests fail"
    USELESS = "no request succeeds"
    # The server process ended.
    CRASHED = "server died"
    WRONG = "silently wrong"


@dataclass(frozen=True)
class Outcome:
    case: Case
    verdict: Verdict
    detail: str = ""
    # Largest difference from the reference relative to its largest magnitude.
    max_difference: float | None = None


def difference(case: Case, got: list[Value], wanted: list[Value]) -> str | None:
    """Says how two lists of outputs differ, or returns `None` if they are equal within the case's tolerance."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs, expected {len(wanted)}"
    for index, (one, other) in enumerate(zip(got, wanted)):
        problem = _value_difference(case, one, other)
        if problem:
            return f"output {index}: {problem}"
    return None


def largest_difference(got: list[Value], wanted: list[Value]) -> float:
    """The largest difference between numbers, relative to the largest magnitude of each output."""
    worst = 0.0
    for one, other in zip(_tensors(got), _tensors(wanted)):
        if one.shape != other.shape or other.dtype.kind in "OUSb" or other.size == 0:
            continue
        one, other = one.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(other) & np.isfinite(one)
        if finite.any():
            scale = max(np.abs(other[finite]).max(), 1e-6)
            worst = max(worst, float(np.abs(one[finite] - other[finite]).max() / scale))
    return worst


def _tensors(values: list[Value]) -> list[np.ndarray]:
    flat = []
    for value in values:
        flat.extend(value if isinstance(value, list) else [] if value is None else [value])
    return flat


def _value_difference(case: Case, got: Value, wanted: Value) -> str | None:
    if isinstance(wanted, list) or isinstance(got, list):
        got, wanted = got or [], wanted or []
        if not isinstance(got, list) or not isinstance(wanted, list) or len(got) != len(wanted):
            return "a sequence of another length"
        problems = (_value_difference(case, one, other) for one, other in zip(got, wanted))
        return next((problem for problem in problems if problem), None)
    if wanted is None or got is None:
        return None if wanted is got else "present in one of the two only"
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        return f"shape {got.shape}, expected {wanted.shape}"
    if _kind(got.dtype) != _kind(wanted.dtype):
        return f"type {got.dtype}, expected {wanted.dtype}"
    if case.random or wanted.size == 0:
        return None
    if _kind(wanted.dtype) == "text":
        equal = [_text(one) == _text(other) for one, other in zip(got.ravel(), wanted.ravel())]
        return None if all(equal) else f"{got.ravel()[:5]}, expected {wanted.ravel()[:5]}"
    if _kind(wanted.dtype) != "float":
        wrong = got.astype(object) != wanted.astype(object)
    else:
        # FP16 and BFLOAT16 may be served as FP32.
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        atol, rtol = case.atol, case.rtol
        if case.by_magnitude:
            finite = wanted[np.isfinite(wanted)]
            atol = case.rtol * float(np.abs(finite).max()) if finite.size else 0.0
            rtol = 0.0
        wrong = ~np.isclose(got, wanted, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return None
    where = np.unravel_index(int(np.argmax(wrong)), wrong.shape) if wrong.shape else ()
    return f"{int(wrong.sum())} of {wrong.size} elements differ, first {got[where]} at {list(map(int, where))}, expected {wanted[where]}"


def _kind(dtype: np.dtype) -> str:
    if dtype.kind in "OUS":
        return "text"
    if dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name):
        return "float"
    if dtype.kind == "V" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        return "uint8" if dtype.name.startswith("uint") else "int8"
    return dtype.name


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
