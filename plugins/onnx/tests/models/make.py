"""Writes the small networks of this directory. Run it with the `onnx` package installed: python3 make.py

Each is as small as it can be for what its test is about; the weights are ones and counts, so that the tests can say the
expected numbers.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = Path(__file__).parent


def value(name, kind, *dims):
    return h.make_tensor_value_info(name, kind, dims)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(name, nodes, inputs, outputs, constants=(), domains=(), valid=True):
    graph = h.make_graph(nodes, name, inputs, outputs, list(constants))
    opsets = [h.make_opsetid("", 17)] + [h.make_opsetid(domain, 1) for domain in domains]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8)
    if valid and not domains:
        onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


N, L = "batch", "length"

# Two inputs of any length, as text models have them: the sum of the tokens that the mask keeps, and each of them.
save(
    "tokens",
    [
        h.make_node("Mul", ["ids", "mask"], ["kept"]),
        h.make_node("ReduceSum", ["kept", "last"], ["sum"], keepdims=0),
    ],
    [value("ids", T.INT32, N, L), value("mask", T.INT32, N, L)],
    [value("sum", T.INT32, N), value("kept", T.INT32, N, L)],
    [constant("last", np.array([1], np.int64))],
)

# One input and output of every datatype that the embedded runtime can serve.
KINDS = {
    "float": T.FLOAT,
    "int64": T.INT64,
    "int32": T.INT32,
    "int8": T.INT8,
    "uint8": T.UINT8,
    "bool": T.BOOL,
}
save(
    "dtypes",
    [h.make_node("Identity", [name], [f"{name}_out"]) for name in KINDS],
    [value(name, kind, N, 2) for name, kind in KINDS.items()],
    [value(f"{name}_out", kind, N, 2) for name, kind in KINDS.items()],
)

# Half precision, in and out.
save("half", [h.make_node("Identity", ["x"], ["y"])], [value("x", T.FLOAT16, N, 2)], [value("y", T.FLOAT16, N, 2)])

# Looks a row up: an index out of range cannot be computed.
save(
    "lookup",
    [h.make_node("Gather", ["table", "index"], ["row"])],
    [value("index", T.INT64, N)],
    [value("row", T.FLOAT, N, 2)],
    [constant("table", np.arange(6, dtype=np.float32).reshape(3, 2))],
)

# Sums over an image, channel by channel, of any size; scores without a softmax.
save(
    "channels",
    [h.make_node("ReduceSum", ["image", "plane"], ["logits"], keepdims=0)],
    [value("image", T.FLOAT, N, 3, "height", "width")],
    [value("logits", T.FLOAT, N, 3)],
    [constant("plane", np.array([2, 3], np.int64))],
)

double = [h.make_node("Add", ["x", "x"], ["y"])]
# A batch that is fixed to one item.
save("one", double, [value("x", T.FLOAT, 1, 2)], [value("y", T.FLOAT, 1, 2)])
# A batch that is declared as open, but written into the graph.
save(
    "secretly_one",
    [h.make_node("Reshape", ["x", "shape"], ["y"])],
    [value("x", T.FLOAT, N, 2)],
    [value("y", T.FLOAT, N, 2)],
    [constant("shape", np.array([1, 2], np.int64))],
)
# No batch dimension at all, and one of a fixed size.
save("scalar", double, [value("x", T.FLOAT)], [value("y", T.FLOAT)])
save("four", double, [value("x", T.FLOAT, 4, 2)], [value("y", T.FLOAT, 4, 2)])
# An output that has no rows, beside one that has.
save(
    "anchors",
    [h.make_node("Add", ["x", "x"], ["y"]), h.make_node("Identity", ["fixed"], ["anchors"])],
    [value("x", T.FLOAT, N, 2)],
    [value("y", T.FLOAT, N, 2), value("anchors", T.FLOAT, 3)],
    [constant("fixed", np.array([1, 2, 3], np.float32))],
)
# Answers that depend on the other rows of a batch: less their mean, and on a scale of 8 bits over all of them.
# Sizes that a client chooses: by numbers, by a number that is computed, and by a length. And one that the file chooses.
save(
    "zeros",
    [h.make_node("ConstantOfShape", ["shape"], ["zeros"]), h.make_node("ReduceMax", ["zeros"], ["y"], keepdims=0)],
    [value("shape", T.INT64, 3)],
    [value("y", T.FLOAT)],
)
save(
    "computed_zeros",
    [
        h.make_node("Exp", ["x"], ["power"]),
        h.make_node("Cast", ["power"], ["count"], to=T.INT64),
        h.make_node("ConstantOfShape", ["count"], ["zeros"]),
        h.make_node("ReduceMax", ["zeros"], ["y"], keepdims=0),
    ],
    [value("x", T.FLOAT, 1)],
    [value("y", T.FLOAT)],
)
save(
    "every_pair",
    [
        h.make_node("Unsqueeze", ["x", "one"], ["row"]),
        h.make_node("Unsqueeze", ["x", "two"], ["column"]),
        h.make_node("MatMul", ["column", "row"], ["pairs"]),
        h.make_node("ReduceMax", ["pairs"], ["y"], axes=[1, 2], keepdims=0),
    ],
    [value("x", T.FLOAT, N, L)],
    [value("y", T.FLOAT, N)],
    [constant("one", np.array([1], np.int64)), constant("two", np.array([2], np.int64))],
)
save(
    "four_petabytes",
    [
        h.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        h.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0),
        h.make_node("Add", ["x", "most"], ["y"]),
    ],
    [value("x", T.FLOAT, N, 2)],
    [value("y", T.FLOAT, N, 2)],
    [constant("shape", np.array([100000, 100000, 100000], np.int64))],
)

# As the next one, but only for numbers above 1000, which no made-up item has.
save(
    "less_their_excess",
    [
        h.make_node("ReduceMax", ["x"], ["most"], axes=[0], keepdims=1),
        h.make_node("Sub", ["most", "limit"], ["over"]),
        h.make_node("Relu", ["over"], ["excess"]),
        h.make_node("Sub", ["x", "excess"], ["y"]),
    ],
    [value("x", T.FLOAT, N, 3)],
    [value("y", T.FLOAT, N, 3)],
    [constant("limit", np.float32(1000))],
)

save(
    "less_their_mean",
    [h.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), h.make_node("Sub", ["x", "mean"], ["y"])],
    [value("x", T.FLOAT, N, 3)],
    [value("y", T.FLOAT, N, 3)],
)
save(
    "scaled_together",
    [
        h.make_node("DynamicQuantizeLinear", ["x"], ["small", "scale", "zero"]),
        h.make_node("DequantizeLinear", ["small", "scale", "zero"], ["y"]),
    ],
    [value("x", T.FLOAT, N, L)],
    [value("y", T.FLOAT, N, L)],
)
# A first dimension that is not a batch, by its name: sums up to each element.
save(
    "running_sum",
    [h.make_node("CumSum", ["x", "first"], ["y"])],
    [value("x", T.FLOAT, "time", 2)],
    [value("y", T.FLOAT, "time", 2)],
    [constant("first", np.array(0, np.int64))],
)
# A row for each element that is not zero, for any batch.
save(
    "places",
    [h.make_node("NonZero", ["x"], ["columns"]), h.make_node("Transpose", ["columns"], ["y"], perm=[1, 0])],
    [value("x", T.FLOAT, N, 3)],
    [value("y", T.INT64, "found", 2)],
)
# A recurrent state, whose second dimension is the batch, and a rate without dimensions.
save(
    "state",
    [
        h.make_node("ReduceSum", ["x", "last"], ["sum"], keepdims=1),
        h.make_node("Mul", ["sum", "rate"], ["scaled"]),
        h.make_node("Add", ["state", "scaled"], ["next"]),
        h.make_node("ReduceMean", ["next"], ["y"], axes=[0], keepdims=0),
    ],
    [value("x", T.FLOAT, N, "samples"), value("state", T.FLOAT, 2, N, 3), value("rate", T.FLOAT)],
    [value("y", T.FLOAT, N, 3), value("next", T.FLOAT, 2, N, 3)],
    [constant("last", np.array([1], np.int64))],
)
# A cache of earlier steps, which is empty at first.
save(
    "cache",
    [
        h.make_node("Concat", ["past", "x"], ["present"], axis=1),
        h.make_node("Mul", ["present", "mask"], ["kept"]),
        h.make_node("ReduceSum", ["kept", "steps"], ["y"], keepdims=0),
    ],
    [
        value("past", T.FLOAT, N, "past_length", 2),
        value("x", T.FLOAT, N, L, 2),
        value("mask", T.FLOAT, N, "past_length + length", 1),
    ],
    [value("y", T.FLOAT, N, 2), value("present", T.FLOAT, N, "past_length + length", 2)],
    [constant("steps", np.array([1], np.int64))],
)
# The same placeholder for dimensions that have nothing to do with one another.
save(
    "placeholders",
    [h.make_node("ReduceSum", ["x", "plane"], ["y"], keepdims=0)],
    [value("x", T.FLOAT, "?", 2, "?", "?")],
    [value("y", T.FLOAT, "?", 2)],
    [constant("plane", np.array([2, 3], np.int64))],
)
# Every row of one input with every row of the other.
save(
    "pairs",
    [h.make_node("Transpose", ["texts"], ["turned"], perm=[1, 0]), h.make_node("MatMul", ["images", "turned"], ["y"])],
    [value("images", T.FLOAT, None, 2), value("texts", T.FLOAT, None, 2)],
    [value("y", T.FLOAT, None, None)],
)
# An open dimension that must have a size that is hard to guess.
save(
    "thirty_seven",
    [h.make_node("MatMul", ["x", "weights"], ["y"])],
    [value("x", T.FLOAT, N, "features")],
    [value("y", T.FLOAT, N, 1)],
    [constant("weights", np.ones((37, 1), np.float32))],
)
# What old files and training leave behind: weights among the inputs, and a Dropout.
save(
    "left_over",
    [h.make_node("Add", ["x", "one"], ["sum"]), h.make_node("Dropout", ["sum", "ratio"], ["y"])],
    [value("x", T.FLOAT, N, 2), value("one", T.FLOAT, 2)],
    [value("y", T.FLOAT, N, 2)],
    [constant("one", np.ones(2, np.float32)), constant("ratio", np.array(0.5, np.float32))],
)
# Without inputs.
save(
    "no_inputs",
    [h.make_node("Identity", ["fixed"], ["y"])],
    [],
    [value("y", T.FLOAT, 2)],
    [constant("fixed", np.array([1, 2], np.float32))],
)
# A step of the output for every eight columns: one for the first size that is tried. The declared shape is wrong.
save(
    "steps",
    [
        h.make_node("Transpose", ["x"], ["turned"], perm=[2, 0, 1]),
        h.make_node("Slice", ["turned", "start", "end", "axis", "eighth"], ["y"]),
    ],
    [value("x", T.FLOAT, 1, 2, "width")],
    [value("y", T.FLOAT, 1, "steps")],
    [
        constant(name, np.array([number], np.int64))
        for name, number in [("start", 0), ("end", 10**9), ("axis", 0), ("eighth", 8)]
    ],
    valid=False,
)
# Any number of dimensions.
save(
    "any_shape",
    [h.make_node("Neg", ["x"], ["y"])],
    [h.make_tensor_value_info("x", T.FLOAT, None)],
    [h.make_tensor_value_info("y", T.FLOAT, None)],
    valid=False,
)
# An output that is an input.
save(
    "passed_through",
    [h.make_node("Neg", ["x"], ["y"])],
    [value("x", T.FLOAT, N, 2)],
    [value("y", T.FLOAT, N, 2), value("x", T.FLOAT, N, 2)],
)
# Maps from labels to scores, as exporters of classifiers write them.
zip_map = h.make_node("ZipMap", ["x"], ["scores"], domain="ai.onnx.ml", classlabels_strings=["pear", "fig"])
maps = h.make_sequence_type_proto(h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(T.FLOAT, [])))
save(
    "maps",
    [zip_map],
    [value("x", T.FLOAT, N, 2)],
    [h.make_value_info("scores", maps)],
    domains=["ai.onnx.ml"],
)
# A sequence in and out: the tensors in it, and one more.
sequence = h.make_tensor_sequence_value_info
save(
    "sequence",
    [h.make_node("SequenceInsert", ["list", "x"], ["longer"])],
    [sequence("list", T.FLOAT, ["rows", 2]), value("x", T.FLOAT, "rows", 2)],
    [sequence("longer", T.FLOAT, ["rows", 2])],
)
# What the runtime lacks, what it computes wrongly (`quantized` it computes right), and what it cannot hold.
save(
    "unknown_operator",
    [h.make_node("Frobnicate", ["x"], ["y"], name="strange", domain="example.org")],
    [value("x", T.FLOAT, N, 2)],
    [value("y", T.FLOAT, N, 2)],
    domains=["example.org"],
)
for name, zeros in [("quantized_by_column", [1, 2]), ("quantized", [1, 1])]:
    save(
        name,
        [h.make_node("MatMulInteger", ["x", "weights", "", "zeros"], ["y"], name="dense")],
        [value("x", T.UINT8, N, 2)],
        [value("y", T.INT32, N, 2)],
        [constant("weights", np.array([[3, 3], [5, 5]], np.uint8)), constant("zeros", np.array(zeros, np.uint8))],
    )
save(
    "quantized_convolution",
    [h.make_node("ConvInteger", ["x", "weights"], ["y"], name="first", kernel_shape=[1, 1])],
    [value("x", T.UINT8, N, 1, 2, 2)],
    [value("y", T.INT32, N, 1, 2, 2)],
    [constant("weights", np.ones((1, 1, 1, 1), np.uint8))],
)
save("strings", [h.make_node("Identity", ["x"], ["y"])], [value("x", T.STRING, N, 2)], [value("y", T.STRING, N, 2)])

# Predictions as detectors compute them, given by the test: a row or a column for each.
COUNT = "count"
for name, shape in [("prediction_rows", (N, COUNT, 6)), ("prediction_columns", (N, 6, COUNT))]:
    save(
        name,
        [h.make_node("Identity", ["x"], ["y"])],
        [value("x", T.FLOAT, *shape)],
        [value("y", T.FLOAT, *shape)],
    )

# A detector that is given the size of the image and computes boxes in its pixels: width, height.
save(
    "boxes_in_the_original",
    [
        h.make_node("Cast", ["sizes"], ["floats"], to=T.FLOAT),
        h.make_node("Concat", ["floats", "floats"], ["twice"], axis=1),
        h.make_node("Unsqueeze", ["twice", "one"], ["edges"]),
        h.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3]),
        h.make_node("Mul", ["mean", "zero"], ["nothing"]),
        h.make_node("Add", ["edges", "nothing"], ["shifted"]),
        h.make_node("Mul", ["shifted", "units"], ["boxes"]),
        h.make_node("Reshape", ["mean", "row"], ["flat"]),
        h.make_node("Mul", ["flat", "zeros"], ["none"]),
        h.make_node("Add", ["none", "confidence"], ["scores"]),
        h.make_node("Cast", ["none"], ["no"], to=T.INT64),
        h.make_node("Add", ["no", "classes"], ["labels"]),
    ],
    [value("image", T.FLOAT, N, 3, 4, 4), value("sizes", T.INT64, N, 2)],
    [value("boxes", T.FLOAT, N, 2, 4), value("scores", T.FLOAT, N, 2), value("labels", T.INT64, N, 2)],
    [
        constant("one", np.array([1], np.int64)),
        constant("zero", np.float32(0)),
        constant("zeros", np.zeros((1, 2), np.float32)),
        constant("row", np.array([-1, 1], np.int64)),
        constant("units", np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 0.75, 1.5]], np.float32)),
        constant("confidence", np.array([[0.5, 0.75]], np.float32)),
        constant("classes", np.array([[1, 2]], np.int64)),
    ],
)

# A detector for one image of any size, without a batch dimension, whose number of boxes depends on the image: one for each pixel
# that is white.
save(
    "boxes_of_one_image",
    [
        h.make_node("ReduceMin", ["image"], ["least"], axes=[0], keepdims=0),
        h.make_node("GreaterOrEqual", ["least", "white"], ["mask"]),
        h.make_node("NonZero", ["mask"], ["places"]),
        h.make_node("Transpose", ["places"], ["pairs"], perm=[1, 0]),
        h.make_node("Cast", ["pairs"], ["tops"], to=T.FLOAT),
        h.make_node("Add", ["tops", "unit"], ["bottoms"]),
        h.make_node("Concat", ["tops", "bottoms"], ["boxes"], axis=1),
        h.make_node("ReduceMax", ["boxes"], ["largest"], axes=[1], keepdims=0),
        h.make_node("Div", ["largest", "eight"], ["scores"]),
        h.make_node("Cast", ["scores"], ["labels"], to=T.INT64),
    ],
    [value("image", T.FLOAT, 3, "height", "width")],
    [value("boxes", T.FLOAT, COUNT, 4), value("scores", T.FLOAT, COUNT), value("labels", T.INT64, COUNT)],
    [constant("white", np.float32(1)), constant("unit", np.float32(1)), constant("eight", np.float32(8))],
)

# Text encoders: vectors of tokens with a fixed length, whose second number shows padding, and one vector of a text of any length.
save(
    "token_vectors",
    [
        h.make_node("Cast", ["input_ids"], ["ids"], to=T.FLOAT),
        h.make_node("Cast", ["attention_mask"], ["mask"], to=T.FLOAT),
        h.make_node("Unsqueeze", ["ids", "last"], ["first"]),
        h.make_node("Unsqueeze", ["mask", "last"], ["second"]),
        h.make_node("Concat", ["first", "second"], ["vectors"], axis=2),
    ],
    [value("input_ids", T.INT64, N, 8), value("attention_mask", T.INT64, N, 8)],
    [value("vectors", T.FLOAT, N, 8, 2)],
    [constant("last", np.array([2], np.int64))],
)
save(
    "text_vector",
    [
        h.make_node("Cast", ["input_ids"], ["ids"], to=T.FLOAT),
        h.make_node("Cast", ["position_ids"], ["positions"], to=T.FLOAT),
        h.make_node("ReduceSum", ["ids", "row"], ["first"], keepdims=1),
        h.make_node("ReduceSum", ["positions", "row"], ["second"], keepdims=1),
        h.make_node("Concat", ["first", "second"], ["vector"], axis=1),
    ],
    [value("input_ids", T.INT64, N, L), value("position_ids", T.INT64, N, L)],
    [value("vector", T.FLOAT, N, 2)],
    [constant("row", np.array([1], np.int64))],
)

# The embedded runtime takes it at load, but computes no request: it expects attributes that a file may leave out.
save(
    "enlarged",
    [h.make_node("ConvTranspose", ["image", "kernel"], ["larger"], strides=[3, 2], pads=[1, 2, 1, 2])],
    [value("image", T.FLOAT, N, 1, 3, 3)],
    [value("larger", T.FLOAT, N, 2, 7, 3)],
    [constant("kernel", np.ones((1, 2, 3, 3), np.float32))],
)

# How large the result is follows from a fraction in the request.
save(
    "rescaled",
    [h.make_node("Resize", ["image", "", "scales"], ["smaller"], mode="nearest")],
    [value("image", T.FLOAT, 1, 1, 2, 4), value("scales", T.FLOAT, 4)],
    [value("smaller", T.FLOAT, "n", "c", "h", "w")],
)
