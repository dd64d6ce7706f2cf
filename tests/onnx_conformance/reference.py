"""Answers of Python's onnxruntime, computed in a separate process, since a few models make it crash."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os

import numpy as np

from cases import Case, DataSet, Value

REQUEST_TIMEOUT = 180


def add_references(cases: list[Case]) -> None:
    """Fills in `reference` of each case."""
    worker = _Worker()
    for case in cases:
        inputs = [data.inputs for data in case.data_sets]
        case.reference = worker.answer((str(case.path), case.outputs, inputs))
        if len(case.reference) != len(inputs):
            case.reference = [case.reference[0] if case.reference else "no answer"] * len(inputs)
        case.reference_alone = [_alone(worker, case, data) if case.by_magnitude else None for data in case.data_sets]
    worker.stop()


def _alone(worker: _Worker, case: Case, data: DataSet) -> list[Value] | None:
    """The answer if each item of the request is computed alone, as the server may do."""
    counts = {len(value) if np.ndim(value) else 0 for value in data.inputs.values()}
    if len(counts) != 1 or counts <= {0, 1}:
        return None
    items = [{name: value[index : index + 1] for name, value in data.inputs.items()} for index in range(counts.pop())]
    answers = worker.answer((str(case.path), case.outputs, items))
    try:
        return [np.concatenate(outputs) for outputs in zip(*answers, strict=True)]
    except (TypeError, ValueError):
        return None


class _Worker:
    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def answer(self, request: tuple) -> list:
        try:
            self._pipe.send(request)
            if self._pipe.poll(REQUEST_TIMEOUT):
                return self._pipe.recv()
            problem = "onnxruntime did not answer in time"
        except (EOFError, OSError):
            problem = "onnxruntime crashed"
        self.stop()
        self._start()
        return [problem]

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    # Its errors are answers here; they are not worth a line on the terminal.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    while True:
        try:
            path, outputs, data_sets = pipe.recv()
        except EOFError:
            return
        pipe.send(_compute(onnxruntime, path, outputs, data_sets))


def _compute(onnxruntime, path: str, outputs: list[str], data_sets: list[dict]) -> list:
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return [f"load: {error}"] * len(data_sets)
    answers = []
    for inputs in data_sets:
        try:
            computed = session.run(outputs, {name: value for name, value in inputs.items() if value is not None})
            answers.append([_value(value) for value in computed])
        except Exception as error:
            answers.append(f"run: {error}")
    return answers


def _value(value: object) -> Value:
    """A sequence of maps, as ZipMap makes it, is served as one tensor: a row for each map."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([list(row.values()) for row in value], np.float32)
    return np.asarray(value) if isinstance(value, np.generic) else value
