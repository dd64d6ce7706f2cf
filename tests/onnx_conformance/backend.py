"""The backend tests that the package `onnx` ships, each as it is: exactly its inputs, its outputs compared."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from cases import Case, DataSet, Value

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

RANDOM_OPERATORS = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip


def load(cache: Path) -> list[Case]:
    """All backend tests. The models are written to `cache`, so that both runtimes read the same files, whatever becomes of the
    package."""
    directory = cache / f"backend-{onnx.__version__}"
    index = directory / "cases-2.pickle"
    if index.exists():
        cases = pickle.loads(index.read_bytes())
        for case in cases:
            case.path = directory / case.path.name
        return cases
    directory.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = [test for kind in KINDS for test in load_model_tests(kind=kind)]
    cases = [_case(test, directory) for test in tests]
    index.write_bytes(pickle.dumps(cases))
    return cases


def load_short(cache: Path) -> list[Case]:
    """The tests that `short.txt` lists."""
    lines = Path(__file__).with_name("short.txt").read_text().splitlines()
    names = {line for line in lines if not line.startswith("#")}
    cases = [case for case in load(cache) if case.name in names]
    missing = names - {case.name for case in cases}
    assert not missing, f"the package onnx has no tests {', '.join(sorted(missing))}"
    return cases


def _case(test, directory: Path) -> Case:
    model = onnx.load(Path(test.model_dir, "model.onnx")) if test.model is None else test.model
    path = directory / f"{test.kind}-{test.name}.onnx"
    onnx.save(model, path)
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input]
    required = [name for name in names if name not in initializers]
    sets = _stored(test.model_dir, model) if test.model is None else test.data_sets
    data_sets = []
    for inputs, expected in sets:
        given = required if len(inputs) == len(required) else names
        data_sets.append(DataSet(dict(zip(given, map(_value, inputs))), [_value(value) for value in expected]))
    return Case(
        name=test.name,
        path=path,
        outputs=[value.name for value in model.graph.output],
        data_sets=data_sets,
        rtol=test.rtol,
        atol=test.atol,
        random=any(map(_is_random, model.graph.node)),
        group=test.kind,
    )


def _is_random(node: onnx.NodeProto) -> bool:
    """Dropout is random in training mode, its third input."""
    return node.op_type in RANDOM_OPERATORS or (node.op_type == "Dropout" and len(node.input) > 2)


def _stored(directory: str, model: onnx.ModelProto) -> list[tuple[list, list]]:
    sets = []
    for data_set in sorted(Path(directory).glob("test_data_set_*")):
        read = lambda what, values: [
            _read(data_set / f"{what}_{index}.pb", value) for index, value in enumerate(values)
            if (data_set / f"{what}_{index}.pb").exists()
        ]  # fmt: skip
        sets.append((read("input", model.graph.input), read("output", model.graph.output)))
    return sets


def _read(path: Path, declared: onnx.ValueInfoProto) -> Value:
    kind = declared.type.WhichOneof("value")
    if kind == "sequence_type":
        message, convert = onnx.SequenceProto(), numpy_helper.to_list
    elif kind == "optional_type":
        message, convert = onnx.OptionalProto(), numpy_helper.to_optional
    else:
        message, convert = onnx.TensorProto(), numpy_helper.to_array
    message.ParseFromString(path.read_bytes())
    return convert(message)


def _value(value: object) -> Value:
    if value is None:
        return None
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, tuple)):
        return [_value(element) for element in value]
    return np.asarray(value)
