#!/usr/bin/env python3
"""Build a BERT encoder as an ONNX file from a directory of sentence-transformers, such as all-MiniLM-L6-v2:

    bert_onnx.py DIRECTORY FILE.onnx

The graph pads: it takes `input_ids` and `attention_mask` of the shape [batch, sequence], and computes `embedding`, the vector
of each text, pooled and scaled to length 1 as the directory says. Requires numpy and onnx.
"""

import json
import pathlib
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17

# Added to the attention scores of padding: large enough for a probability of exactly 0 in FP32.
MASKED = np.float32(-1e9)


def read_safetensors(file):
    """The tensors of a file, in FP32."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64}.get(info["dtype"])
        if kind is None:
            sys.exit(f"{file}: tensor `{name}` is {info['dtype']}, expected F32, F16, BF16 or I64")
        values = np.frombuffer(data[begin:end], kind).reshape(info["shape"])
        if info["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        # Some files have the prefix of the whole model.
        tensors[name.removeprefix("bert.")] = values.astype(np.float32)
    return tensors


def pooling_of(directory):
    """How token vectors become the vector of a text: "mean" or "cls"."""
    file = directory / "1_Pooling/config.json"
    config = json.loads(file.read_text())
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    mode = config.get("pooling_mode") or next((mode for mode, key in modes.items() if config.get(key)), None)
    if mode not in modes:
        sys.exit(f"{file}: the pooling is {mode}, expected mean or cls")
    return mode


class Graph:
    """The nodes and constants of a graph."""

    def __init__(self):
        self.nodes = []
        self.constants = {}
        self.count = 0

    def constant(self, values, name=None):
        """The name of a constant. Equal unnamed constants are stored once."""
        values = np.asarray(values)
        name = name or f"constant_{values.dtype}_{values.tolist()}"
        self.constants[name] = values
        return name

    def add(self, operator, *inputs, output=None, **attributes):
        """Add a node and return the name of its output."""
        self.count += 1
        output = output or f"{operator.lower()}_{self.count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def linear(self, states, weights, name):
        matrix = self.constant(np.ascontiguousarray(weights[f"{name}.weight"].T), f"{name}.weight")
        product = self.add("MatMul", states, matrix)
        return self.add("Add", product, self.constant(weights[f"{name}.bias"], f"{name}.bias"))

    def normalized(self, states, weights, name, epsilon):
        scale, bias = (self.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias"))
        return self.add("LayerNormalization", states, scale, bias, axis=-1, epsilon=epsilon)

    def activated(self, states, kind):
        number = lambda value: self.constant(np.float32(value))
        if kind == "gelu":
            inner = self.add("Erf", self.add("Mul", states, number(np.sqrt(0.5))))
        elif kind in ("gelu_new", "gelu_pytorch_tanh"):
            cube = self.add("Mul", self.add("Mul", states, states), states)
            sum_ = self.add("Add", states, self.add("Mul", cube, number(0.044715)))
            inner = self.add("Tanh", self.add("Mul", sum_, number(np.sqrt(2 / np.pi))))
        else:
            sys.exit(f"the activation is {kind}, expected gelu, gelu_new or gelu_pytorch_tanh")
        halved = self.add("Mul", states, number(0.5))
        return self.add("Mul", halved, self.add("Add", inner, number(1)))


def build(directory):
    config = json.loads((directory / "config.json").read_text())
    if config["model_type"] != "bert":
        sys.exit(f"{directory}: the model is {config['model_type']}, expected bert")
    weights = read_safetensors(directory / "model.safetensors")
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    epsilon = config["layer_norm_eps"]
    graph = Graph()

    # Embeddings. All tokens are in the first segment.
    tokens = graph.add("Gather", graph.constant(weights["embeddings.word_embeddings.weight"], "words"), "input_ids")
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    one = graph.constant(np.array([1], np.int64))
    zero = graph.constant(np.array([0], np.int64))
    length = graph.add("Gather", graph.add("Shape", "input_ids"), one, axis=0)
    positions = graph.add("Slice", graph.constant(table, "positions"), zero, length, zero)
    states = graph.normalized(graph.add("Add", tokens, positions), weights, "embeddings.LayerNorm", epsilon)

    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = graph.add("Sub", graph.constant(np.float32(1)), mask)
    bias = graph.add("Mul", absent, graph.constant(MASKED))
    bias = graph.add("Unsqueeze", bias, graph.constant(np.array([1, 2], np.int64)))

    split = graph.constant(np.array([0, 0, heads, hidden // heads], np.int64))
    joined = graph.constant(np.array([0, 0, hidden], np.int64))
    scale = graph.constant(np.float32(1 / np.sqrt(hidden // heads)))
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"

        def head(part, permutation):
            states_of_part = graph.linear(states, weights, f"{name}.attention.self.{part}")
            return graph.add("Transpose", graph.add("Reshape", states_of_part, split), perm=permutation)

        query = graph.add("Mul", head("query", [0, 2, 1, 3]), scale)
        scores = graph.add("MatMul", query, head("key", [0, 2, 3, 1]))
        chances = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
        context = graph.add("MatMul", chances, head("value", [0, 2, 1, 3]))
        context = graph.add("Reshape", graph.add("Transpose", context, perm=[0, 2, 1, 3]), joined)
        attended = graph.linear(context, weights, f"{name}.attention.output.dense")
        states = graph.add("Add", attended, states)
        states = graph.normalized(states, weights, f"{name}.attention.output.LayerNorm", epsilon)
        inner = graph.linear(states, weights, f"{name}.intermediate.dense")
        inner = graph.activated(inner, config["hidden_act"])
        outer = graph.linear(inner, weights, f"{name}.output.dense")
        states = graph.normalized(graph.add("Add", outer, states), weights, f"{name}.output.LayerNorm", epsilon)

    if pooling_of(directory) == "mean":
        column = graph.add("Unsqueeze", mask, graph.constant(np.array([2], np.int64)))
        total = graph.add("ReduceSum", graph.add("Mul", states, column), one, keepdims=0)
        vector = graph.add("Div", total, graph.add("ReduceSum", mask, one, keepdims=1))
    else:
        vector = graph.add("Gather", states, graph.constant(np.int64(0)), axis=1)
    square = graph.add("ReduceSum", graph.add("Mul", vector, vector), one, keepdims=1)
    graph.add("Div", vector, graph.add("Sqrt", square), output="embedding")

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", hidden])]
    constants = [numpy_helper.from_array(values, name) for name, values in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "bert", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pathlib.Path(sys.argv[2]).write_bytes(build(pathlib.Path(sys.argv[1])).SerializeToString())


if __name__ == "__main__":
    main()
