"""Builds small graphs from the text form of the package `onnx`, and requests to them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from onnx import parser

from cases import Case, DataSet

OPSET = 17
BATCH = "float[N,4] x"
RESULT = "float[N,4] y"


def graph(
    directory: Path, name: str, body: str, requests: list[dict], opset: int = OPSET, given: str = BATCH, result: str = RESULT,
    stored: list[onnx.TensorProto] = (), ir_version: int = 8, domains: dict[str, int] | None = None, **options,
) -> Case:  # fmt: skip
    """A graph with the given body, inputs and outputs. `stored` has further initializers. An input named `absent` is absent."""
    path = directory / f"{re.sub('[^a-z0-9_]+', '_', name.lower())}.onnx"
    imports = "".join(f', "{domain}": {version}' for domain, version in (domains or {}).items())
    text = f'<ir_version: {ir_version}, opset_import: ["": {opset}{imports}]> g ({given}) => ({result}) {{ {body} }}'
    model = parser.parse_model(text)
    model.graph.initializer.extend(stored)
    for node in model.graph.node:
        node.input[:] = ["" if name == "absent" else name for name in node.input]
    onnx.save(model, path)
    return Case(name=name, path=path, outputs=[output.name for output in model.graph.output], data_sets=[DataSet(request) for request in requests], **options)


def rows(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def items(shape: tuple[int, ...] = (4,), name: str = "x") -> list[dict]:
    """Different single items, and several at once."""
    single = [{name: rows(1, *shape, seed=seed, scale=seed + 1.0)} for seed in range(3)]
    return [*single, {name: np.concatenate([request[name] for request in single])}]
