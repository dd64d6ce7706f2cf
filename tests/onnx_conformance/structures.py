"""Small graphs whose structure runtimes get wrong: groups of nodes that are combined, subgraphs, shared values, stored tensors of each
datatype and form, sizes of 0, scalars, absent inputs, defaults of each version, and conversions between datatypes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import helper, numpy_helper

from cases import Case
from graphs import BATCH, OPSET, RESULT, graph, items, rows

SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0], [-0.0, 1e-40, 3e38, -3e38], [88.9, -104.0, 1.5, -2.5], [1.0, -1.0, 0.5, 1e10]], np.float32)
EACH = [{"x": SPECIAL[index : index + 1]} for index in range(4)] + [{"x": rows(1, 4, seed=5)}, {"x": rows(3, 4, seed=6)}]
MANY = {"by_magnitude": True}


class Group:
    """Adds cases to a list."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name, self.cases = directory, name, []

    def add(self, name: str, body: str, requests: list[dict] | None = None, given: str = BATCH, result: str = RESULT, opset: int = OPSET, **options) -> None:
        requests = items() if requests is None else requests
        self.cases.append(graph(self.directory, f"{self.name}: {name}", body, requests, opset, given, result, group=self.name, **options))


def combined(directory: Path) -> list[Case]:
    """Groups of nodes that runtimes replace by one, and groups that only resemble them."""
    group = Group(directory, "combined")
    square, given, result = [{"x": rows(4, 4)}], "float[4,4] x", "float[4,4] y"
    for center, spread in ((1, 1), (0, 1), (1, 0), (0, 0)):
        body = (
            f"m = ReduceMean <axes = [-1], keepdims = {center}> (x) c = Sub(x, m) two = Constant <value_float = 2.0> () p = Pow(c, two) "
            f"v = ReduceMean <axes = [-1], keepdims = {spread}> (p) e = Constant <value_float = 1e-5> () a = Add(v, e) s = Sqrt(a) d = Div(c, s) "
            "g = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () k = Mul(d, g) y = Add(k, g)"
        )
        group.add(f"layer normalization, dimensions kept {center} {spread}", body, square, given, result)
    for keep in (1, 0):
        body = (
            f"two = Constant <value_float = 2.0> () p = Pow(x, two) v = ReduceMean <axes = [-1], keepdims = {keep}> (p) e = Constant <value_float = 1e-5> () "
            "a = Add(e, v) s = Sqrt(a) r = Reciprocal(s) n = Mul(x, r) g = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () y = Mul(n, g)"
        )
        group.add(f"root mean square, dimension kept {keep}", body, square, given, result)
    for value in (0.0, 9e-5, 1.0):
        group.add(f"softmax with {value} for NaN", f"s = Softmax(x) n = IsNaN(s) c = Constant <value_float = {value}> () y = Where(n, c, s)", EACH)
    for value in (1.0, 1.00009):
        group.add(f"inverse of {value}", f"c = Constant <value_float = {value}> () y = Div(c, x)", rtol=1e-6, atol=0.0)
    gelu = "d = Div(x, r) e = Erf(d) o = Constant <value_float = {}> () a = Add(e, o) p = Mul(x, a) h = Constant <value_float = {}> () y = Mul(p, h)"
    for one, half in ((1.0, 0.5), (1.00009, 0.5), (1.0, 0.50009)):
        body = "r = Constant <value_float = 1.4142135> () " + gelu.format(one, half)
        group.add(f"gelu with {one} and {half}", body, [*EACH, {"x": np.array([[-4.0, -5.0, -3.0, -6.0]], np.float32)}], rtol=2e-5, atol=2e-5)
    tanh = (
        "t = Constant <value_float = 3.0> () q = Pow(x, t) k = Constant <value_float = {}> () w = Mul(q, k) i = Add(x, w) c = Constant <value_float = 0.7978846> () "
        "j = Mul(i, c) u = Tanh(j) o = Constant <value_float = 1.0> () a = Add(u, o) p = Mul(x, a) h = Constant <value_float = 0.5> () y = Mul(p, h)"
    )
    for factor in (0.044715, 0.0448):
        group.add(f"gelu by tanh with {factor}", tanh.format(factor), [*EACH, {"x": np.array([[-4.0, -3.5, -3.0, 3.0]], np.float32)}], rtol=2e-5, atol=2e-5)
    group.add("swish", "s = Sigmoid(x) y = Mul(x, s)", EACH)
    group.add("swish with a factor", "a = Constant <value_float = 1.702> () b = Mul(x, a) s = Sigmoid(b) y = Mul(x, s)", EACH)
    group.add("swish with a factor of 0", "a = Constant <value_float = 0.0> () b = Mul(a, x) s = Sigmoid(b) y = Mul(s, x)", EACH)
    for operator in ("Div", "Mul"):
        for scale in (0.0, 1e-40, 3e38, 8.0):
            body = f"c = Constant <value_float = {scale}> () s = {operator}(x, c) w = Constant <value = float[4,4] {{1.0, -1.0, 2.0, 0.0, -1.0, 1.0, 3.0, 0.5, 0.0, 0.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0}}> () y = MatMul(s, w)"
            group.add(f"product of {operator} by {scale}", body, [*EACH, *items()], **MANY)
    group.add("product with a wider bias", "w = Constant <value = float[4,1] {1.0, -1.0, 2.0, 0.5}> () m = MatMul(x, w) b = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () y = Add(m, b)", **MANY)
    group.add("product with a single bias", "w = Constant <value = float[4,4] {1.0, -1.0, 2.0, 0.0, -1.0, 1.0, 3.0, 0.5, 0.0, 0.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0}> () m = MatMul(x, w) b = Constant <value_floats = [0.5]> () y = Add(b, m)", **MANY)
    group.add("softmax of a sum with a larger mask", "m = Constant <value = float[2,1,4] {1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0}> () a = Add(x, m) y = Softmax <axis = -1> (a)", result="float[B,N,4] y")
    for axis, merged in ((1, 1), (2, 1), (3, 1), (3, 2), (2, 2), (4, 3)):
        shape, target = [1, 2, 2, 3], [1, 2, 2, 3]
        wide = [*shape[:axis], 2, *shape[axis:]]
        target[merged] *= 2
        body = f"a = Constant <value_ints = [{axis}]> () u = Unsqueeze(x, a) t = Constant <value_ints = {wide}> () e = Expand(u, t) r = Constant <value_ints = {target}> () y = Reshape(e, r)"
        group.add(f"repeated in dimension {axis}, merged into {merged}", body, [{"x": rows(1, 2, 2, 3)}], "float[1,2,2,3] x", "float[A,B,C,D] y")
    keys = "a = Constant <value_ints = [2]> () u = Unsqueeze(k, a) t = Constant <value_ints = [1,2,2,3,3]> () e = Expand(u, t) r = Constant <value_ints = [1,4,3,3]> () f = Reshape(e, r) "
    for perm in ([0, 1, 3, 2], [0, 1, 2, 3]):
        body = keys + f"p = Transpose <perm = {perm}> (f) m = MatMul(q, p) c = Constant <value_float = 0.25> () y = Mul(m, c)"
        group.add(f"grouped queries, keys transposed as {perm}", body, [{"q": rows(1, 4, 3, 3), "k": rows(1, 2, 3, 3, seed=1)}], "float[1,4,3,3] q, float[1,2,3,3] k", "float[1,4,3,3] y", **MANY)
    for source in ("x", "w"):
        body = f"w = Constant <value = float[2,3,1] {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0}}> () s = Shape <start = 1> ({source}) z = Constant <value_ints = [0]> () o = Constant <value_ints = [1]> () p = Slice(s, z, o) f = Cast <to = 1> (p) y = Mul(x, f)"
        group.add(f"first of the last sizes of {source}", body, [{"x": rows(1, 4)}], "float[1,4] x", "float[1,4] y")
    both = [{"a": rows(1, 3), "b": rows(1, 5)}, {"a": rows(1, 2), "b": rows(1, 2)}]
    numbers = "s = Shape(b) f = Cast <to = 1> (s) u = Constant <value_ints = [0]> () v = Unsqueeze(f, u) z = Neg(a) y = Identity(v)"
    group.add("dimensions of the same name and different sizes", numbers, both, "float[N,D] a, float[N,D] b", "float[A,B] y, float[C,E] z")
    group.add("one name for all dimensions", "s = Shape(x) f = Cast <to = 1> (s) y = Neg(f)", [{"x": rows(2, 3, 4, 5)}, {"x": rows(1, 3, 2, 2)}], "float[D,3,D,D] x", "float[R] y")
    group.add("numbers divided when the file is loaded", "a = Constant <value_float = 5.0> () b = Constant <value_float = 2.0> () c = Div(a, b) y = Mul(x, c)")
    group.add("conversion to 16 bits and back", "h = Cast <to = 10> (x) y = Cast <to = 1> (h)", [{"x": np.array([[1.0001, 70000.0, 1e-8, -3.14159]], np.float32)}])
    group.add("conversion to the same type", "h = Cast <to = 1> (x) y = Neg(h)")
    return group.cases


def subgraphs(directory: Path) -> list[Case]:
    group = Group(directory, "subgraphs")
    row = "float[N,4]"
    condition = "q = ReduceSum <keepdims = 0> (x) z = Constant <value_float = 0.0> () c = Greater(q, z) "
    alone = [{"x": rows(1, 4, seed=seed)} for seed in range(4)] + [{"x": np.abs(rows(1, 4))}]
    group.add("captured value that is used again", condition + f"t = Neg(x) i = If (c) <then_branch = t () => ({row} a) {{ a = Tanh(t) }}, else_branch = e () => ({row} b) {{ b = Abs(t) }}> y = Add(i, t)", alone)
    group.add("branches whose outputs have the name of the result", condition + f"y = If (c) <then_branch = t () => ({row} y) {{ y = Tanh(x) }}, else_branch = e () => ({row} y) {{ y = Abs(x) }}>", alone)
    group.add("nested branches", condition + f"y = If (c) <then_branch = t () => ({row} a) {{ d = Not(c) a = If (d) <then_branch = t2 () => ({row} a2) {{ a2 = Neg(x) }}, else_branch = e2 () => ({row} b2) {{ k = Constant <value_float = 2.0> () b2 = Mul(x, k) }}> }}, else_branch = e () => ({row} b) {{ b = Abs(x) }}>", alone)
    group.add("branches that return constants", condition + "i = If (c) <then_branch = t () => (float[4] a) { a = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () }, else_branch = e () => (float[4] b) { b = Constant <value_floats = [4.0, 3.0, 2.0, 1.0]> () }> y = Add(x, i)", alone)
    group.add("branches that cut views", condition + "t = Transpose(x) i = If (c) <then_branch = t () => (float[A,B] a) { s = Constant <value_ints = [1]> () e = Constant <value_ints = [3]> () z = Constant <value_ints = [0]> () a = Slice(t, s, e, z) }, else_branch = e () => (float[A,B] b) { s2 = Constant <value_ints = [0]> () e2 = Constant <value_ints = [2]> () z2 = Constant <value_ints = [0]> () b = Slice(t, s2, e2, z2) }> y = Transpose(i)", alone, result="float[N,M] y")
    group.add("branches of different shapes", condition + "y = If (c) <then_branch = t () => (float[A] a) { s = Constant <value_ints = [-1]> () a = Reshape(x, s) }, else_branch = e () => (float[A,B] b) { b = Neg(x) }>", alone, result="float[] y")
    loop = "n = Constant <value_int = {}> () g = Constant <value = bool {{1}}> () "
    body = "Loop (n, g, x) <body = l (int64 i, bool h, float[N,4] s) => (bool k, float[N,4] r) {{ {} }}>"
    count = lambda number: loop.format(number)  # noqa: E731
    for trips in (0, 1, 3):
        group.add(f"loop of {trips} iterations that captures a value", count(trips) + "t = Neg(x) y = " + body.format("k = Identity(h) a = Add(s, t) r = Tanh(a)"), items())
    group.add("loop that ends at once", "n = Constant <value_int = 3> () g = Constant <value = bool {0}> () y = " + body.format("k = Identity(h) r = Neg(s)"))
    group.add("loop over its index", count(4) + "y = " + body.format("k = Identity(h) f = Cast <to = 1> (i) r = Add(s, f)"))
    group.add("loop until a condition", count(9) + "y = " + body.format("m = Constant <value_int = 2> () k = Less(i, m) r = Neg(s)"))
    group.add("loop without a limit", 'g = Constant <value = bool {1}> () y = Loop (absent, g, x) <body = l (int64 i, bool h, float[N,4] s) => (bool k, float[N,4] r) { m = Constant <value_int = 2> () k = Less(i, m) r = Neg(s) }>')
    scan = "z, y = Loop (n, g, x) <body = l (int64 i, bool h, float[N,4] s) => (bool k, float[N,4] r, float[N,4] o) { k = Identity(h) r = Tanh(s) o = Identity(r) }>"
    for trips in (0, 2):
        group.add(f"values of {trips} iterations", count(trips) + scan, result="float[T,N,4] y")
    group.add("loop over integers", count(3) + "q = Loop (n, g, x) <body = l (int64 i, bool h, int64[N,4] s) => (bool k, int64[N,4] r) { k = Identity(h) r = Add(s, s) }> y = Identity(q)", [{"x": np.array([[1, -2, 3, 2**30]], np.int64)}], "int64[N,4] x", "int64[N,4] y")
    group.add("loop that stores a large integer", "n = Constant <value_int = 2> () g = Constant <value = bool {1}> () c = Constant <value_ints = [4294967297]> () q = Loop (n, g, x) <body = l (int64 i, bool h, int64[1] s) => (bool k, int64[1] r) { k = Identity(h) r = Identity(c) }> d = Constant <value_ints = [4294967296]> () y = Sub(q, d)", [{"x": np.array([5], np.int64)}], "int64[1] x", "int64[1] y")
    group.add("loop over a condition made of integers", count(3) + "b = Cast <to = 9> (x) q = Loop (n, g, b) <body = l (int64 i, bool h, bool[N,4] s) => (bool k, bool[N,4] r) { k = Identity(h) v = Cast <to = 7> (s) t = Add(v, v) r = Cast <to = 9> (t) }> y = Cast <to = 1> (q)", [{"x": np.array([[7, 0, 1, -3]], np.int64)}], "int64[N,4] x")
    group.add("scan with a value from outside", "t = Neg(x) y = Scan <num_scan_inputs = 1, body = l (float[4] a) => (float[4] o) { m = ReduceMax <keepdims = 0> (t) o = Add(a, m) }> (x)", **MANY)
    group.add("loop in a branch", condition + f"y = If (c) <then_branch = t () => ({row} a) {{ n = Constant <value_int = 2> () g = Constant <value = bool {{1}}> () a = Loop (n, g, x) <body = l (int64 i, bool h, float[N,4] s) => (bool k, float[N,4] r) {{ k = Identity(h) u = Add(s, x) r = Tanh(u) }}> }}, else_branch = e () => ({row} b) {{ b = Abs(x) }}>", alone)
    return group.cases


def shared(directory: Path) -> list[Case]:
    """Values that several nodes read or that are outputs as well, which operators must not overwrite."""
    group = Group(directory, "shared")
    two, three = "float[N,A] y, float[N,B] z", "float[N,A] y, float[N,B] z, float[N,C] w"
    group.add("value that is an output and an input", "y = Neg(x) z = Tanh(y)", result=two)
    group.add("value that many operators could overwrite", "t = Neg(x) y = Tanh(t) z = Abs(t) w = Exp(t)", result=three)
    group.add("input that operators could overwrite", "y = Relu(x) z = Neg(x) w = Identity(x)", result=three)
    group.add("chain of copies", "a = Identity(x) b = Identity(a) y = Neg(b) z = Identity(b)", result=two)
    for operator in ("Add", "Sub", "Mul", "Div", "Max", "Pow", "Concat", "MatMul"):
        body = {"Concat": "y = Concat <axis = 1> (t, t)", "MatMul": "r = Transpose(t) y = MatMul(t, r)"}.get(operator, f"y = {operator}(t, t)")
        group.add(f"{operator} of the same value twice", f"t = Abs(x) {body} z = Identity(t)", [{"x": rows(2, 4)}, {"x": rows(1, 4)}], result=two, **MANY)
    group.add("choice between the same value", "z = Constant <value_float = 0.0> () c = Greater(x, z) y = Where(c, x, x)")
    group.add("reshaped views of one value", "t = Neg(x) s = Constant <value_ints = [-1, 2, 2]> () r = Reshape(t, s) u = Tanh(r) o = Constant <value_ints = [-1, 4]> () v = Reshape(u, o) y = Add(v, t)")
    group.add("cut and changed views of one value", "t = Neg(x) a = Constant <value_ints = [0]> () b = Constant <value_ints = [2]> () c = Constant <value_ints = [1]> () s = Slice(t, a, b, c) y = Tanh(s) z = Add(t, t)", result=two)
    group.add("parts of one value", "a, b = Split <axis = 1> (x) y = Add(a, b) z = Tanh(a) w = Neg(b)", result=three)
    group.add("repeated value that is changed", "s = Constant <value_ints = [3, 1, 1]> () e = Expand(x, s) f = Neg(e) k = Constant <value_ints = [0]> () m = ReduceSum <keepdims = 0> (f, k) y = Add(m, x)")
    group.add("input that is the output", "z = Neg(x)", [{"x": rows(2, 4)}], result="float[N,4] x, float[N,4] z")
    group.add("constant that is the output", "y = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () z = Neg(x)", [{"x": rows(1, 4)}], result="float[4] y, float[N,4] z")
    weight = numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "w")
    group.add("stored tensor that is the output", "z = Add(x, w)", [{"x": rows(1, 4)}], result="float[4] w, float[N,4] z", stored=[weight])
    group.add("stored tensor that operators could overwrite", "a = Neg(w) b = Tanh(w) c = Add(x, w) d = Add(c, a) y = Add(d, b)", stored=[weight])
    group.add("stored tensor that is listed as an input", "y = Add(x, w)", given=f"{BATCH}, float[4] w", stored=[weight])
    group.add("stored tensor that is listed as an input, version 3 of the format", "y = Add(x, w)", opset=8, given=f"{BATCH}, float[4] w", stored=[weight], ir_version=3)
    return group.cases


def stored(directory: Path) -> list[Case]:
    """Stored tensors of each datatype, as raw bytes and as numbers."""
    group = Group(directory, "stored")
    values = {
        "float": np.array([1.5, -2.25, 0.0], np.float32),
        "double": np.array([1e-3, -7.5, 3.0]),
        "float16": np.array([0.1, -2.0, 6e-5], np.float16),
        "bfloat16": np.array([0.1, -2.0, 3.0], ml_dtypes.bfloat16),
        "int64": np.array([3, -2, 100_000]),
        "int32": np.array([3, -2, 100_000], np.int32),
        "int16": np.array([3, -2, 30_000], np.int16),
        "int8": np.array([3, -128, 127], np.int8),
        "uint64": np.array([3, 0, 100_000], np.uint64),
        "uint32": np.array([3, 0, 100_000], np.uint32),
        "uint16": np.array([3, 0, 65_535], np.uint16),
        "uint8": np.array([3, 128, 255], np.uint8),
        "bool": np.array([True, False, True]),
    }
    requests, given = [{"x": rows(1, 3)}, {"x": rows(2, 3, seed=1)}], "float[N,3] x"
    for name, array in values.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensors = {"bytes": helper.make_tensor("w", kind, [3], array.tobytes(), raw=True), "numbers": helper.make_tensor("w", kind, [3], array.tolist())}
        for form, tensor in tensors.items():
            group.add(f"{name} as {form}", "f = Cast <to = 1> (w) y = Add(x, f)", requests, given, "float[N,3] y", stored=[tensor])
    single, none = numpy_helper.from_array(np.array(2.5, np.float32), "w"), numpy_helper.from_array(np.zeros([0], np.float32), "e")
    group.add("scalar", "y = Mul(x, w)", requests, given, "float[N,3] y", stored=[single])
    group.add("nothing", "r = Constant <value_ints = [-1]> () f = Reshape(x, r) y = Concat <axis = 0> (e, f)", requests, given, "float[M] y", stored=[none])
    group.add("large integers that do not matter", "m = Constant <value_ints = [9223372036854775807]> () z = Constant <value_ints = [0]> () a = Constant <value_ints = [1]> () y = Slice(x, z, m, a)", requests, given, "float[N,3] y")
    return group.cases


def empty(directory: Path) -> list[Case]:
    """Dimensions of 0 in requests."""
    group = Group(directory, "empty")
    requests = [{"x": np.zeros([1, 0], np.float32)}, {"x": rows(1, 3)}, {"x": np.zeros([2, 0], np.float32)}]
    given = "float[N,L] x"
    bodies = {
        "sum": ("a = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 1> (x, a)", "float[N,M] y"),
        "mean": ("y = ReduceMean <axes = [1]> (x)", "float[N,M] y"),
        "product": ("y = ReduceProd <axes = [1]> (x)", "float[N,M] y"),
        "largest": ("y = ReduceMax <axes = [1]> (x)", "float[N,M] y"),
        "norm": ("y = ReduceL2 <axes = [1]> (x)", "float[N,M] y"),
        "softmax": ("y = Softmax <axis = 1> (x)", "float[N,L] y"),
        "product of matrices": ("t = Transpose(x) y = MatMul(x, t)", "float[N,M] y"),
        "longer": ("c = Constant <value = float[1,2] {1.0, 2.0}> () s = Shape <end = 1> (x) t = Constant <value_ints = [2]> () u = Concat <axis = 0> (s, t) e = Expand(c, u) y = Concat <axis = 1> (x, e)", "float[N,M] y"),
        "padded": ("p = Constant <value_ints = [0, 1, 0, 1]> () y = Pad(x, p)", "float[N,M] y"),
        "size divided by itself": ("s = Shape <start = 1> (x) o = Constant <value_ints = [1]> () m = Max(s, o) d = Div(s, m) f = Cast <to = 1> (d) g = Constant <value = float[1,1] {1.0}> () y = Mul(g, f)", "float[A,B] y"),
        "places": ("n = NonZero(x) y = Cast <to = 1> (n)", "float[A,B] y"),
        "cumulative sum": ("a = Constant <value_int = 1> () y = CumSum(x, a)", "float[N,L] y"),
        "transposed": ("t = Transpose(x) r = Relu(t) y = Transpose(r)", "float[N,L] y"),
        "flattened": ("y = Flatten(x)", "float[A,B] y"),
        "reshaped to the same": ("s = Constant <value_ints = [0, 0]> () y = Reshape(x, s)", "float[N,L] y"),
        "twice": ("c = Concat <axis = 1> (x, x) y = Neg(c)", "float[N,M] y"),
        "layer normalization": ("s = Shape <start = 1> (x) o = ConstantOfShape <value = float[1] {1.0}> (s) y = LayerNormalization(x, o)", "float[N,L] y"),
        "gathered": ("i = Constant <value = int64[0] {}> () y = Gather <axis = 1> (x, i)", "float[N,M] y"),
    }
    for name, (body, result) in bodies.items():
        group.add(name, body, requests, given, result)
    return group.cases


def scalars(directory: Path) -> list[Case]:
    """Values without dimensions."""
    group = Group(directory, "scalars")
    numbers = [{"x": np.array(value, np.float32)} for value in (2.5, -3.0, 0.0)]
    for operator in ("Neg", "Exp", "Sigmoid", "Relu", "Round", "Erf", "Identity", "Transpose", "Abs", "Shape", "Size", "NonZero"):
        kind = "int64" if operator in ("Shape", "Size", "NonZero") else "float"
        group.add(operator, f"v = {operator}(x) y = Cast <to = 1> (v)" if kind == "int64" else f"y = {operator}(x)", numbers, "float x", "float y" if operator not in ("Shape", "NonZero") else "float[A] y" if operator == "Shape" else "float[A,B] y")
    for operator in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean"):
        group.add(f"{operator} of two", f"c = Constant <value_float = 2.0> () y = {operator}(x, c)", numbers, "float x", "float y")
        group.add(f"{operator} with a vector", f"c = Constant <value_floats = [2.0]> () y = {operator}(c, x)", numbers, "float x", "float[A] y")
    group.add("unsqueeze", "a = Constant <value_ints = [0]> () y = Unsqueeze(x, a)", numbers, "float x", "float[A] y")
    group.add("reshape", "a = Constant <value_ints = [1, 1, 1]> () y = Reshape(x, a)", numbers, "float x", "float[A,B,C] y")
    group.add("reshape to a scalar", "a = Constant <value = int64[0] {}> () y = Reshape(x, a)", [{"x": rows(1)}], "float[1] x", "float y")
    group.add("expand", "a = Constant <value_ints = [2, 3]> () y = Expand(x, a)", numbers, "float x", "float[A,B] y")
    group.add("sum of a scalar", "y = ReduceSum <keepdims = 0> (x)", numbers, "float x", "float y")
    group.add("concatenation of scalars as vectors", "a = Constant <value_ints = [0]> () u = Unsqueeze(x, a) v = Neg(u) y = Concat <axis = 0> (u, v)", numbers, "float x", "float[A] y")
    group.add("condition", "y = If (x) <then_branch = t () => (float a) { a = Constant <value_float = 1.0> () }, else_branch = e () => (float b) { b = Constant <value_float = 2.0> () }>", [{"x": np.array(True)}, {"x": np.array(False)}], "bool x", "float y")
    group.add("range", "z = Constant <value_int = 0> () o = Constant <value_int = 2> () y = Range(z, n, o)", [{"n": np.array(value)} for value in (5, 0, -3)], "int64 n", "int64[A] y")
    group.add("gather by a scalar", "y = Gather <axis = 0> (x, n)", [{"x": rows(3, 4), "n": np.array(value)} for value in (0, -1, 2)], "float[A,4] x, int64 n", "float[4] y")
    group.add("count", "k = Constant <value_ints = [1]> () v, i = TopK(x, k) a = Constant <value_ints = [0]> () y = Squeeze(i, a)", [{"x": rows(5)}], "float[A] x", "int64 y")
    return group.cases


def versions(directory: Path) -> list[Case]:
    """Defaults of attributes, and meanings that differ between versions of the operator set."""
    group = Group(directory, "versions")
    image, given, result = [{"x": rows(1, 2, 4, 6)}, {"x": rows(2, 2, 4, 6, seed=1)}], "float[N,2,4,6] x", "float[] y"
    for opset in (9, 11, 12, 13, 18):
        for operator in ("Softmax", "LogSoftmax", "Hardmax"):
            group.add(f"{operator} with the default axis, version {opset}", f"y = {operator}(x)", image, given, result, opset)
    bodies = {
        "flatten": ((9, 13), "y = Flatten(x)"),
        "flatten from axis 0": ((9, 13), "y = Flatten <axis = 0> (x)"),
        "clip with attributes": ((7, 10), "y = Clip <min = -0.5, max = 0.5> (x)"),
        "clip without limits": ((7, 11, 13), "y = Clip(x)"),
        "dropout": ((7, 10, 12, 13, 22), "y = Dropout(x)"),
        "squeeze by attribute": ((8, 11), "u = Unsqueeze <axes = [0, 3]> (x) y = Squeeze <axes = [0]> (u)"),
        "squeeze of all": ((8, 11), "r = ReduceSum <axes = [1, 2], keepdims = 1> (x) y = Squeeze(r)"),
        "pad by attribute": ((8, 10), "y = Pad <pads = [0, 0, 1, 0, 0, 0, 0, 2], value = 1.5> (x)"),
        "slice by attribute": ((8, 9), "y = Slice <starts = [1, 0], ends = [3, -1], axes = [2, 3]> (x)"),
        "split by attribute": ((8, 11), "a, b = Split <axis = 3, split = [2, 4]> (x) y = Relu(b)"),
        "split in equal parts": ((8, 11, 13, 17), "a, b = Split <axis = 2> (x) y = Sub(a, b)"),
        "split in a number of parts": ((18, 21), "a, b, c, d = Split <axis = 3, num_outputs = 4> (x) y = Neg(d)"),
        "upsample by attribute": ((7, 8), 'y = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)'),
        "upsample": ((9,), 's = Constant <value = float[4] {1.0, 1.0, 2.0, 1.5}> () y = Upsample <mode = "linear"> (x, s)'),
        "resize, version 10": ((10,), 's = Constant <value = float[4] {1.0, 1.0, 0.5, 1.5}> () y = Resize <mode = "linear"> (x, s)'),
        "resize with defaults": ((13, 19), 's = Constant <value = float[4] {1.0, 1.0, 2.0, 0.5}> () y = Resize(x, , s)'),
        "resize to sizes": ((13, 19), "s = Constant <value = int64[4] {1, 2, 3, 9}> () y = Resize(x, , , s)"),
        "sum by attribute": ((8, 11), "y = ReduceSum <axes = [1, -1], keepdims = 0> (x)"),
        "sum of all": ((8, 13), "y = ReduceSum(x)"),
        "mean of all": ((8, 13, 18), "y = ReduceMean(x)"),
        "root of squares of all": ((11, 13, 18), "y = ReduceL2 <keepdims = 0> (x)"),
        "largest with negative axes": ((11, 12, 13), "y = ReduceMax <axes = [-2]> (x)"),
        "leaky relu with the default slope": ((8, 16), "y = LeakyRelu(x)"),
        "elu with defaults": ((8, 22), "y = Elu(x)"),
        "selu with defaults": ((8, 22), "y = Selu(x)"),
        "hard sigmoid with defaults": ((8, 22), "y = HardSigmoid(x)"),
        "hard swish": ((14, 22), "y = HardSwish(x)"),
        "thresholded relu with defaults": ((10, 22), "y = ThresholdedRelu(x)"),
        "shrink with defaults": ((9,), "y = Shrink(x)"),
        "celu with defaults": ((12,), "y = Celu(x)"),
        "gelu with defaults": ((20,), "y = Gelu(x)"),
        "mish": ((18, 22), "y = Mish(x)"),
        "swish with defaults": ((24,), "y = Swish(x)"),
        "softplus": ((8, 22), "y = Softplus(x)"),
        "norm with defaults": ((8, 22), "y = LpNormalization(x)"),
        "norm of powers with defaults": ((8, 18, 22), "y = LpPool <kernel_shape = [2, 2]> (x)"),
        "local response": ((8, 13), "y = LRN <size = 3> (x)"),
        "mean and variance": ((9, 13), "y = MeanVarianceNormalization(x)"),
        "argmax with defaults": ((8, 11, 13), "i = ArgMax(x) y = Cast <to = 1> (i)"),
        "argmin with a negative axis": ((11, 13), "i = ArgMin <axis = -1> (x) y = Cast <to = 1> (i)"),
        "max pool with defaults": ((8, 10, 12, 22), "y = MaxPool <kernel_shape = [2, 3]> (x)"),
        "average pool with defaults": ((7, 10, 11, 19, 22), "y = AveragePool <kernel_shape = [2, 3]> (x)"),
        "depth to space with defaults": ((8, 11, 13), "c = Concat <axis = 1> (x, x) y = DepthToSpace <blocksize = 2> (c)"),
        "space to depth": ((8, 13), "y = SpaceToDepth <blocksize = 2> (x)"),
        "power by an integer": ((12, 13, 15), "c = Constant <value = int64 {3}> () y = Pow(x, c)"),
        "rounding of halves": ((11, 22), "h = Constant <value = float {0.5}> () f = Floor(x) a = Add(f, h) y = Round(a)"),
        "where": ((9, 16), "z = Constant <value = float {0.0}> () c = Greater(x, z) y = Where(c, x, z)"),
        "transpose with defaults": ((8, 13, 21), "y = Transpose(x)"),
        "reshape with a copied size": ((8, 13, 14, 21), "s = Constant <value = int64[3] {0, 0, -1}> () y = Reshape(x, s)"),
        "one-hot in front": ((9, 11), "i = Cast <to = 7> (x) d = Constant <value = int64 {3}> () v = Constant <value = float[2] {0.5, 2.0}> () y = OneHot <axis = 0> (i, d, v)"),
        "cumulative sum, exclusive and in reverse": ((11, 14), "a = Constant <value = int64 {3}> () y = CumSum <exclusive = 1, reverse = 1> (x, a)"),
        "triangle": ((14,), "k = Constant <value = int64 {-1}> () y = Trilu(x, k)"),
        "center crop": ((18,), "s = Constant <value = int64[2] {3, 8}> () y = CenterCropPad <axes = [2, 3]> (x, s)"),
        "best with defaults": ((8, 9), "y, i = TopK <k = 2> (x)"),
        "best": ((10, 11, 24), "k = Constant <value = int64[1] {2}> () y, i = TopK <axis = 2> (x, k)"),
        "batch normalization": ((8, 9, 14, 15), "s = Constant <value = float[2] {1.0, 2.0}> () b = Constant <value = float[2] {0.5, -1.0}> () y = BatchNormalization(x, s, b, b, s)"),
        "instance normalization": ((8, 22), "s = Constant <value = float[2] {1.0, 2.0}> () y = InstanceNormalization(x, s, s)"),
        "group normalization per group": ((18,), "s = Constant <value = float[1] {2.0}> () y = GroupNormalization <num_groups = 1> (x, s, s)"),
        "group normalization per channel": ((21,), "s = Constant <value = float[2] {1.0, 2.0}> () y = GroupNormalization <num_groups = 1> (x, s, s)"),
        "layer normalization with defaults": ((17,), "s = Constant <value = float[6] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> () y = LayerNormalization(x, s)"),
        "root mean square with defaults": ((23,), "s = Constant <value = float[6] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> () y = RMSNormalization(x, s)"),
        "slope for each channel": ((8, 9, 16), "s = Constant <value = float[2,1,1] {0.1, 0.5}> () y = PRelu(x, s)"),
        "convolution with defaults": ((8, 11, 22), "w = Constant <value = float[1,2,2,2] {1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0}> () y = Conv(x, w)"),
        "transposed convolution with an output shape": ((8, 11, 22), "w = Constant <value = float[2,1,2,2] {1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0}> () y = ConvTranspose <strides = [2, 2], output_shape = [9, 12]> (x, w)"),
        "transposed convolution with padding": ((8, 11, 22), "w = Constant <value = float[2,1,3,3] {1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0, 1.0, 1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0, 1.0}> () y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1], output_padding = [1, 0]> (x, w)"),
        "difference of large sums": ((13,), "y = ReduceLogSumExp <axes = [2]> (x)"),
        "inverse sequence": ((10,), "t = Constant <value = int64[2] {2, 1}> () y = ReverseSequence <batch_axis = 1, time_axis = 0> (x, t)"),
        "comparison of integers": ((7, 9, 11, 13), "a = Cast <to = 6> (x) b = Constant <value = int32 {0}> () c = Equal(a, b) y = Cast <to = 1> (c)"),
        "remainder of floats": ((10, 13), "b = Constant <value = float {0.3}> () y = Mod <fmod = 1> (x, b)"),
    }
    for name, (opsets, body) in bodies.items():
        for opset in opsets:
            group.add(f"{name}, version {opset}", body, image, given, result, opset, **MANY)
    matrix = [{"x": rows(3, 4)}, {"x": rows(1, 4, seed=2)}]
    weight = "w = Constant <value = float[4,2] {1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0}> () "
    for opset in (9, 11, 13):
        group.add(f"gemm with factors, version {opset}", weight + "b = Constant <value = float[2] {1.0, 2.0}> () y = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", matrix, BATCH, "float[N,2] y", opset, **MANY)
    for opset in (11, 13):
        group.add(f"gemm without a bias, version {opset}", weight + "y = Gemm(x, w)", matrix, BATCH, "float[N,2] y", opset, **MANY)
    return group.cases


def absent(directory: Path) -> list[Case]:
    """Optional inputs and outputs that are absent, at the end or between others."""
    group = Group(directory, "absent")
    group.add("lower limit", "h = Constant <value_float = 0.5> () y = Clip(x, , h)")
    group.add("upper limit", "h = Constant <value_float = 0.5> () y = Clip(x, h)")
    group.add("axes before steps", "s = Constant <value_ints = [0, 0]> () e = Constant <value_ints = [9, 4]> () t = Constant <value_ints = [1, 2]> () y = Slice(x, s, e, , t)", result="float[N,M] y")
    group.add("all but the second output", "k = Constant <value_ints = [2]> () v, y = TopK(x, k)", result="int64[N,M] y")
    group.add("bias of a normalization", "s = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () y = LayerNormalization(x, s)", **MANY)
    group.add("ratio of a dropout", "y = Dropout(x)")
    sequence, given = [{"x": rows(3, 1, 2)}, {"x": rows(2, 2, 2, seed=1)}], "float[L,N,2] x"
    shapes = {"LSTM": 12, "GRU": 9, "RNN": 3}
    for operator, size in shapes.items():
        fill = f"a = Constant <value_ints = [1, {size}, 2]> () w = ConstantOfShape <value = float[1] {{0.3}}> (a) b = Constant <value_ints = [1, {size}, 3]> () r = ConstantOfShape <value = float[1] {{-0.2}}> (b) "
        group.add(f"bias and state of {operator}", fill + f"y = {operator} <hidden_size = 3> (x, w, r)", sequence, given, "float[L,D,N,H] y", **MANY)
        group.add(f"first output of {operator}", fill + f"d, y = {operator} <hidden_size = 3> (x, w, r)", sequence, given, "float[D,N,H] y", **MANY)
        start = "s = Shape <start = 1, end = 2> (x) o = Constant <value_ints = [1]> () t = Constant <value_ints = [3]> () i = Concat <axis = 0> (o, s, t) h = ConstantOfShape <value = float[1] {0.5}> (i) "
        group.add(f"bias of {operator}, with a state", fill + start + f"y = {operator} <hidden_size = 3> (x, w, r, , , h)", sequence, given, "float[L,D,N,H] y", **MANY)
        group.add(f"{operator} in reverse", fill + f'y = {operator} <hidden_size = 3, direction = "reverse"> (x, w, r)', sequence, given, "float[L,D,N,H] y", **MANY)
        group.add(f"{operator} with lengths", fill + f"y = {operator} <hidden_size = 3> (x, w, r, , n)", [{"x": rows(3, 2, 2), "n": np.array([3, 1], np.int32)}], f"{given}, int32[N] n", "float[L,D,N,H] y", **MANY)
    gru = "a = Constant <value_ints = [1, 9, 2]> () w = ConstantOfShape <value = float[1] {0.3}> (a) b = Constant <value_ints = [1, 9, 3]> () r = ConstantOfShape <value = float[1] {-0.2}> (b) "
    group.add("reset after the product", gru + "y = GRU <hidden_size = 3, linear_before_reset = 1> (x, w, r)", sequence, given, "float[L,D,N,H] y", **MANY)
    group.add("zero point", "s = Constant <value_float = 0.1> () q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", **MANY)
    return group.cases


def types(directory: Path) -> list[Case]:
    """Conversions between datatypes, and arithmetic with small ones."""
    group = Group(directory, "types")
    numbers = {
        "float": (np.float32, [[1.9, -1.9, 127.5, -128.9], [0.5, -0.5, 255.4, 3.0], [300.0, -300.0, 1e9, -7.0]]),
        "int32": (np.int32, [[1, -1, 127, -128], [255, 256, -129, 300], [2**31 - 1, -(2**31), 65536, 7]]),
        "int64": (np.int64, [[1, -1, 127, -128], [255, 256, -129, 300], [2**31 - 1, -(2**31), 65536, 2**32 + 1]]),
        "int8": (np.int8, [[1, -1, 127, -128]]),
        "uint8": (np.uint8, [[0, 1, 128, 255]]),
        "bool": (np.bool_, [[True, False, True, False]]),
        "float16": (np.float16, [[1.5, -2.25, 60000.0, 1e-7]]),
    }
    targets = {"float": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
    for source, (dtype, table) in numbers.items():
        requests = [{"x": np.array([row], dtype)} for row in table]
        for target, code in targets.items():
            if target != source:
                group.add(f"{source} to {target}", f"y = Cast <to = {code}> (x)", requests, f"{source}[N,4] x", f"{target}[N,4] y")
                group.add(f"{source} to {target} and to float", f"t = Cast <to = {code}> (x) y = Cast <to = 1> (t)", requests, f"{source}[N,4] x", RESULT)
    small = {name: [{"x": np.array([row], dtype)} for row in table] for name, (dtype, table) in numbers.items() if name in ("int8", "uint8", "bool")}
    for kind in ("int8", "uint8"):
        for operator in ("Add", "Sub", "Mul", "Max", "Min", "Div"):
            group.add(f"{operator} of {kind}", f"c = Constant <value = {kind}[1] {{3}}> () y = {operator}(x, c)", small[kind], f"{kind}[N,4] x", f"{kind}[N,4] y", 14)
        for name, body in {"clip": f"a = Constant <value = {kind} {{2}}> () b = Constant <value = {kind} {{100}}> () y = Clip(x, a, b)", "transpose": "y = Transpose(x)", "pad": "p = Constant <value_ints = [0, 1, 0, 1]> () y = Pad(x, p)", "largest": "y = ReduceMax <axes = [1]> (x)", "choice": "c = Equal(x, x) y = Where(c, x, x)"}.items():
            group.add(f"{name} of {kind}", body, small[kind], f"{kind}[N,4] x", f"{kind}[A,B] y", 14)
    for operator in ("And", "Or", "Xor", "Equal"):
        group.add(f"{operator} of conditions", f"n = Not(x) y = {operator}(x, n)", small["bool"], "bool[N,4] x", "bool[N,4] y")
    group.add("condition of an integer", "c = Cast <to = 9> (x) o = Constant <value_float = 1.0> () z = Constant <value_float = 0.0> () y = Where(c, o, z)", [{"x": np.array([[7, 0, -3, 256]], np.int32)}], "int32[N,4] x")
    group.add("sum of conditions", "c = Cast <to = 9> (x) f = Cast <to = 1> (c) a = Constant <value_ints = [1]> () y = ReduceSum(f, a)", [{"x": np.array([[7, 0, -3, 256]], np.int32)}], "int32[N,4] x", "float[N,1] y")
    group.add("equal conditions", "c = Cast <to = 9> (x) n = Cast <to = 9> (z) e = Equal(c, n) y = Cast <to = 1> (e)", [{"x": np.array([[7, 0, -3, 256]], np.int32), "z": np.array([[1, 0, 2, 0]], np.int32)}], "int32[N,4] x, int32[N,4] z")
    for name, dtype in (("uint8", np.uint8), ("int8", np.int8)):
        zero = f"p = Constant <value = {name} {{{5}}}> () s = Constant <value_float = 0.05> () "
        group.add(f"quantization to {name}", zero + "y = QuantizeLinear(x, s, p)", EACH[1:], result=f"{name}[N,4] y")
        group.add(f"{name} restored", zero + "y = DequantizeLinear(x, s, p)", small[name], f"{name}[N,4] x", RESULT)
    half = [{"x": np.array([[1.5, -2.25, 300.0, 1e-3]], np.float16)}]
    for name, body in {"product": "y = Mul(x, x)", "sum": "a = Constant <value_ints = [1]> () y = ReduceSum(x, a)", "exponential": "y = Exp(x)", "softmax": "y = Softmax(x)"}.items():
        group.add(f"{name} of float16", body, half, "float16[N,4] x", "float16[A,B] y", rtol=5e-3, atol=1e-3)
    return group.cases


BUILDERS = (combined, subgraphs, shared, stored, empty, scalars, versions, absent, types)
