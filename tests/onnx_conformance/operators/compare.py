"""Compares the embedded runtime with ONNX Runtime on one case.

Zeros of both signs count as equal: they are equal as numbers. Where the sign of a zero changes a result beyond that, as in a
division, is found out by `zero_signs`, and the plugin watches such inputs.
"""

from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnx import helper

onnxruntime.set_default_logger_severity(4)

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

# Outcomes of a comparison
RIGHT, ERROR, SILENT, RANGE, NO_REFERENCE = "right", "error", "silent", "range", "no reference"


@dataclass
class Outcome:
    kind: str
    detail: str
    answer: object
    model: bytes
    # Inputs of the last node of which the sign of a zero changes the results, by index.
    zero_signs: set = field(default_factory=set)


class Reference:
    """ONNX Runtime's session and results for a case; raises what ONNX Runtime raises."""

    def __init__(self, case):
        self.session = session(case)
        self.feeds = {value.name: array for value, array in zip(case.inputs, case.arrays)}
        self.views = case.views
        self.results = self.session.run(None, self.feeds)
        outputs = self.session.get_outputs()
        self.types = {output.name: helper.np_dtype_to_tensor_dtype(np.dtype(_TYPES[output.type])) for output in outputs}

    def zero_signs(self, node):
        """Inputs of a node with zeros whose sign changes the results, by index."""
        return {index for index, name in enumerate(node.input) if self._depends_on_zero_sign(name)}

    def _depends_on_zero_sign(self, name):
        name = self.views.get(name, name)
        array = self.feeds.get(name)
        if array is None or array.dtype.kind != "f" or not (array == 0).any():
            return False
        results = self.session.run(None, self.feeds | {name: np.where(array == 0, -array, array)})
        return not all(map(are_equal, results, self.results))


def are_equal(one, other):
    """Whether arrays are equal as numbers, for which zeros of both signs are."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def session(case):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(case.model().SerializeToString(), options, ["CPUExecutionProvider"])


def compare(case, runner, with_zero_signs=False):
    """Runs a case on both runtimes, and optionally finds out where ONNX Runtime depends on the signs of zeros."""
    try:
        reference = Reference(case)
        zero_signs = reference.zero_signs(case.nodes[-1]) if with_zero_signs else set()
    except Exception as error:  # noqa: BLE001: ONNX Runtime raises several kinds
        return Outcome(NO_REFERENCE, str(error).split("\n")[0][:300], None, b"")
    outcome = _outcome(case, runner, reference)
    outcome.zero_signs = zero_signs
    return outcome


def _outcome(case, runner, reference):
    expected = reference.results
    model = case.model(reference.types).SerializeToString()
    answer = runner.run(model, case.arrays)
    if answer.error:
        return Outcome(ERROR, answer.error, answer, model)
    detail = difference(answer, expected, case)
    if detail is None:
        return Outcome(RIGHT, "", answer, model)
    if any(exceeds(result) for result in expected):
        return Outcome(RANGE, detail, answer, model)
    return Outcome(SILENT, detail, answer, model)


def exceeds(result):
    """Whether integers need more than 32 bits; the check for verified operators bounds them on its own."""
    return result.dtype == np.int64 and result.size and (result.max() > 2**31 - 1 or result.min() < -(2**31))


def difference(answer, expected, case):
    """Describes the first difference; None if there is none."""
    detail = _difference(answer.outputs, answer, expected, case)
    if detail is None and answer.in_place:
        detail = _difference(answer.in_place, answer, expected, case)
        return detail and f"in place: {detail}"
    return detail


def _difference(outputs, answer, expected, case):
    if len(outputs) != len(expected):
        return f"{len(outputs)} outputs, expected {len(expected)}"
    for index, (got, wanted) in enumerate(zip(outputs, expected)):
        wanted = np.asarray(wanted)
        if got.shape != wanted.shape:
            return f"output {index}: shape {got.shape}, expected {wanted.shape}"
        integral = wanted.dtype.kind in "iub"
        if integral != (got.dtype.kind in "iu"):
            return f"output {index}: {got.dtype}, expected {wanted.dtype}"
        if integral:
            # A BOOL is held as an integer, which must be 0 or 1, unless everything that reads it takes other integers.
            if wanted.dtype == bool and index < len(answer.loose) and answer.loose[index]:
                got = got != 0
            wrong = got.astype(np.int64) != wanted.astype(np.int64)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                got, wanted = got.astype(np.float64), wanted.astype(np.float64)
                finite = np.abs(wanted[np.isfinite(wanted)])
                largest = finite.max() if finite.size else 0.0
                allowed = 1e-6 + case.relative * np.abs(wanted) + case.relative_to_largest * largest
                same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
                close = np.isfinite(got) & np.isfinite(wanted) & (np.abs(got - wanted) <= allowed)
                wrong = ~(same | close)
        if wrong.any():
            first = tuple(int(position[0]) for position in np.nonzero(wrong)) if wrong.ndim else ()
            return f"output {index} at {first}: {got[first]}, expected {wanted[first]} ({int(wrong.sum())} of {wrong.size} wrong)"
    return None
