"""Python's side of the benchmark `forward`: the same network in onnxruntime, with padding.

    pip install numpy onnx onnxruntime safetensors
    onnxruntime_forward.py FOLDER THREADS

Builds the graph from the weights in FOLDER, in the form that PyTorch exports. For each line `BATCH LENGTH RUNS` on standard
input, prints the duration of that many runs in seconds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


class Graph:
    def __init__(self, weights):
        self.weights, self.nodes, self.constants, self.count = weights, [], {}, 0

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name, array):
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def linear(self, x, name):
        product = self.op("MatMul", x, self.constant(f"{name}.T", self.weights[f"{name}.weight"].T))
        return self.op("Add", self.weight(f"{name}.bias"), product)

    def norm(self, x, name, epsilon):
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def build(folder):
    config = json.loads((folder / "config.json").read_text())
    width, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    depth = width // heads
    g = Graph(load_file(folder / "model.safetensors"))
    split = g.constant("split", np.array([0, 0, heads, depth], np.int64))
    join = g.constant("join", np.array([0, 0, width], np.int64))
    scale = g.constant("scale", np.array(np.sqrt(depth), np.float32))
    root, half, one = (g.constant(n, np.array(v, np.float32)) for n, v in [("root", 2**0.5), ("half", 0.5), ("one", 1)])
    # 0 for tokens, and a large negative number for padding.
    mask = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.FLOAT), g.constant("axes", np.array([1, 2])))
    mask = g.op("Mul", g.op("Sub", one, mask), g.constant("least", np.array(-3.4e38, np.float32)))
    start, axis = (g.constant(name, np.array([0])) for name in ["start", "axis"])
    length = g.op("Gather", g.op("Shape", "input_ids"), g.constant("second", np.array([1])))
    positions = g.op("Slice", g.weight("embeddings.position_embeddings.weight"), start, length, axis)
    x = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    x = g.op("Add", x, g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"))
    x = g.op("Add", x, positions)
    x = g.norm(x, "embeddings.LayerNorm", epsilon)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"

        def heads_of(part, order):
            return g.op("Transpose", g.op("Reshape", g.linear(x, f"{layer}.attention.self.{part}"), split), perm=order)

        scores = g.op("MatMul", heads_of("query", [0, 2, 1, 3]), heads_of("key", [0, 2, 3, 1]))
        weights = g.op("Softmax", g.op("Add", g.op("Div", scores, scale), mask), axis=-1)
        gathered = g.op("Transpose", g.op("MatMul", weights, heads_of("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        gathered = g.linear(g.op("Reshape", gathered, join), f"{layer}.attention.output.dense")
        x = g.norm(g.op("Add", gathered, x), f"{layer}.attention.output.LayerNorm", epsilon)
        wide = g.linear(x, f"{layer}.intermediate.dense")
        gate = g.op("Add", g.op("Erf", g.op("Div", wide, root)), one)
        wide = g.op("Mul", g.op("Mul", wide, gate), half)
        x = g.norm(g.op("Add", g.linear(wide, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm", epsilon)
    g.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    shape = ["batch", "length"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ["input_ids", "attention_mask", "token_type_ids"]
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, width])
    graph = helper.make_graph(g.nodes, "bert", inputs, [output], list(g.constants.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take a core from the other side of the comparison.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        build(folder).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for line in sys.stdin:
        batch, length, runs = map(int, line.split())
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        begin = time.perf_counter()
        for _ in range(runs):
            session.run(["last_hidden_state"], feeds)
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
