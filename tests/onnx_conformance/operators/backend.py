"""The backend tests that the package `onnx` ships, as cases with their own results."""

import numpy as np
import onnx
import onnxruntime

import backend
import packages

from .compare import ERROR, RANGE, RIGHT, SILENT, Outcome, difference, exceeds
from .runner import HELD


class BackendCase:
    """A backend test whose tensors the embedded runtime can hold."""

    relative, relative_to_largest = 1e-3, 1e-5

    def __init__(self, case, model):
        self.name = case.name
        self.model = model
        self.data_sets = case.data_sets

    def compare(self, runner):
        """The outcome of the first data set that differs, or of the last one."""
        model = self.model.SerializeToString()
        outcome = None
        for data in self.data_sets:
            inputs = [np.asarray(value) for value in data.inputs.values()]
            expected = [np.asarray(value) for value in data.expected]
            answer = runner.run(model, inputs)
            detail = None if answer.error else difference(answer, expected, self)
            if answer.error:
                outcome = Outcome(ERROR, answer.error, answer, model)
            elif detail is None:
                outcome = Outcome(RIGHT, "", answer, model)
            elif self._as_onnx_runtime(inputs, answer):
                outcome = Outcome(RIGHT, "", answer, model)
            else:
                beyond = any(exceeds(result) for result in expected)
                return Outcome(RANGE if beyond else SILENT, detail, answer, model)
        return outcome


    def _as_onnx_runtime(self, inputs, answer):
        """Whether ONNX Runtime computes the same, where it differs from what the test expects."""
        try:
            session = onnxruntime.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
            feeds = {value.name: array for value, array in zip(session.get_inputs(), inputs)}
            return difference(answer, session.run(None, feeds), self) is None
        except Exception:  # noqa: BLE001: ONNX Runtime raises several kinds
            return False


def backend_cases():
    """The tests in the order of their names."""
    for case in sorted(backend.load(packages.default_cache()), key=lambda case: case.name):
        values = [value for data in case.data_sets for value in [*data.inputs.values(), *data.expected]]
        held = all(isinstance(value, np.ndarray) and value.dtype.name in HELD for value in values)
        if held and case.data_sets and not case.random:
            yield BackendCase(case, onnx.load(case.path))
