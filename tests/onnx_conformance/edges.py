"""Small graphs at the edges of what models do: items that affect each other in hidden ways, NaN and infinities that a graph makes,
integers beyond 32 bits, attributes and versions that runtimes get wrong, and interfaces without a batch dimension."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import structures
from cases import Case
from graphs import BATCH, OPSET, RESULT, graph, items, rows


def load(cache: Path) -> list[Case]:
    """All graphs, each written to the cache."""
    directory = cache / "edges"
    directory.mkdir(parents=True, exist_ok=True)
    builders = (mixing, keeping, floats, integers, attributes, interfaces, *structures.BUILDERS)
    return [case for build in builders for case in build(directory)]


# Graphs from `x` to `y`, both with a row for each item, in which rows affect each other.
MIXING = {
    "mean over the batch": "m = ReduceMean <axes = [0]> (x) y = Sub(x, m)",
    "mean over everything": "m = ReduceMean <keepdims = 0> (x) y = Sub(x, m)",
    "mean after a transpose": "t = Transpose <perm = [1, 0]> (x) m = ReduceMean <axes = [1]> (t) d = Sub(t, m) y = Transpose(d)",
    "mean after a reshape": "s = Constant <value_ints = [-1]> () f = Reshape(x, s) m = ReduceMean <axes = [0]> (f) y = Sub(x, m)",
    "mean after two reshapes": "s = Constant <value_ints = [1, -1, 2]> () f = Reshape(x, s) m = ReduceMean <axes = [1]> (f) d = Sub(f, m) t = Constant <value_ints = [-1, 4]> () y = Reshape(d, t)",
    "mean after an unsqueeze": "a = Constant <value_ints = [0]> () u = Unsqueeze(x, a) m = ReduceMean <axes = [1]> (u) d = Sub(u, m) y = Squeeze(d, a)",
    "sum after an einsum": 'm = Einsum <equation = "ij->j"> (x) y = Sub(x, m)',
    "gram matrix by einsum": 'm = Einsum <equation = "ij,ik->jk"> (x, x) y = MatMul(x, m)',
    "attention between items": "t = Transpose(x) s = MatMul(x, t) p = Softmax <axis = -1> (s) y = MatMul(p, x)",
    "gemm with the batch as the sum": "g = Gemm <transA = 1> (x, x) y = MatMul(x, g)",
    "first item by gather": "i = Constant <value_int = 0> () f = Gather <axis = 0> (x, i) y = Sub(x, f)",
    "last item by gather": "i = Constant <value_int = -1> () f = Gather <axis = 0> (x, i) y = Sub(x, f)",
    "first item by slice": "a = Constant <value_ints = [0]> () b = Constant <value_ints = [1]> () f = Slice(x, a, b, a) y = Sub(x, f)",
    "first item by split": "s = Shape <end = 1> (x) o = Constant <value_ints = [1]> () r = Sub(s, o) l = Concat <axis = 0> (o, r) f, g = Split <axis = 0> (x, l) y = Sub(x, f)",
    "items in reverse": "a = Constant <value_ints = [-1]> () b = Constant <value_ints = [-9223372036854775807]> () z = Constant <value_ints = [0]> () y = Slice(x, a, b, z, a)",
    "items rotated": "a = Constant <value_ints = [1]> () z = Constant <value_ints = [0]> () e = Constant <value_ints = [9223372036854775807]> () h = Slice(x, z, a, z) t = Slice(x, a, e, z) y = Concat <axis = 0> (t, h)",
    "cumulative sum over the batch": "a = Constant <value_int = 0> () y = CumSum(x, a)",
    "cumulative sum by triangle": "t = Transpose(x) s = MatMul(x, t) l = Trilu <upper = 0> (s) y = MatMul(l, x)",
    "softmax over the batch": "y = Softmax <axis = 0> (x)",
    "log softmax over the batch": "y = LogSoftmax <axis = 0> (x)",
    "hardmax over the batch": "y = Hardmax <axis = 0> (x)",
    "best item": "k = Constant <value_ints = [1]> () v, i = TopK <axis = 0> (x, k) y = Sub(x, v)",
    "sorted items": "s = Shape <end = 1> (x) y, i = TopK <axis = 0> (x, s)",
    "best item by argmax": "i = ArgMax <axis = 0, keepdims = 1> (x) g = GatherElements <axis = 0> (x, i) y = Sub(x, g)",
    "largest of all": "m = ReduceMax <keepdims = 0> (x) y = Div(x, m)",
    "norm over the batch": "y = LpNormalization <axis = 0> (x)",
    "variance over the batch": "y = MeanVarianceNormalization <axes = [0]> (x)",
    "layer normalization from the batch on": "s = Shape(x) o = ConstantOfShape(s) y = LayerNormalization <axis = 0> (x, o)",
    "batch normalization in training": "s = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () b = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () y, m, v = BatchNormalization <training_mode = 1> (x, s, b, b, s)",
    "instance normalization of the batch": "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) s = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () n = InstanceNormalization(u, s, s) q = Squeeze(n, a) y = Transpose(q)",
    "pooling over the batch": "a = Constant <value_ints = [0, 1]> () u = Unsqueeze(x, a) p = MaxPool <kernel_shape = [3, 1], pads = [1, 0, 1, 0]> (u) y = Squeeze(p, a)",
    "average over neighboring items": "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) p = AveragePool <kernel_shape = [3], pads = [1, 1]> (u) q = Squeeze(p, a) y = Transpose(q)",
    "global pooling of the batch": "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) p = GlobalAveragePool(u) q = Squeeze(p, a) m = Transpose(q) y = Sub(x, m)",
    "convolution over the batch": "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) s = Constant <value_ints = [4, 1, 3]> () w = ConstantOfShape <value = float[1] {0.5}> (s) p = Conv <kernel_shape = [3], pads = [1, 1], group = 4> (u, w) q = Squeeze(p, a) y = Transpose(q)",
    "one scale for the batch": "q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)",
    "number of items": "s = Shape <end = 1> (x) f = Cast <to = 1> (s) y = Mul(x, f)",
    "number of items by size": "s = Size(x) f = Cast <to = 1> (s) y = Div(x, f)",
    "place of the item": "s = Shape <end = 1> (x) z = Constant <value_int = 0> () o = Constant <value_int = 1> () q = Squeeze(s) r = Range(z, q, o) f = Cast <to = 1> (r) a = Constant <value_ints = [1]> () u = Unsqueeze(f, a) y = Add(x, u)",
    "place by cumulative sum": "z = Mul(x, x) s = Shape(x) o = ConstantOfShape <value = float[1] {1.0}> (s) a = Constant <value_int = 0> () c = CumSum(o, a) y = Add(z, c)",
    "place by eye": "t = Transpose(x) s = MatMul(x, t) e = EyeLike(s) z = Mul(s, e) y = MatMul(z, x)",
    "decision for all items": "m = ReduceSum <keepdims = 0> (x) z = Constant <value_float = 0.0> () c = Greater(m, z) y = If (c) <then_branch = t () => (float[N,4] a) { a = Neg(x) }, else_branch = e () => (float[N,4] b) { b = Abs(x) }>",
    "mixing within a branch": "c = Constant <value = bool {1}> () y = If (c) <then_branch = t () => (float[N,4] a) { m = ReduceMean <axes = [0]> (x) a = Sub(x, m) }, else_branch = e () => (float[N,4] b) { b = Abs(x) }>",
    "mixing within a loop": "n = Constant <value_int = 2> () c = Constant <value = bool {1}> () y = Loop (n, c, x) <body = l (int64 i, bool g, float[N,4] s) => (bool h, float[N,4] r) { h = Identity(g) m = ReduceMean <axes = [0]> (s) r = Sub(s, m) }>",
    "loop as long as any item": "n = Constant <value_int = 9> () c = Constant <value = bool {1}> () y = Loop (n, c, x) <body = l (int64 i, bool g, float[N,4] s) => (bool h, float[N,4] r) { k = Constant <value_float = 0.5> () r = Mul(s, k) m = ReduceMax <keepdims = 0> (r) h = Greater(m, k) }>",
    "loop over the items": "q = Shape <end = 1> (x) w = Squeeze(q) c = Constant <value = bool {1}> () z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () e, y = Loop (w, c, z) <body = l (int64 i, bool g, float[4] s) => (bool h, float[4] r, float[4] o) { h = Identity(g) a = Gather <axis = 0> (x, i) r = Add(s, a) o = Identity(r) }>",
    "scan over the items": "z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () e, y = Scan <num_scan_inputs = 1, body = l (float[4] s, float[4] a) => (float[4] r, float[4] o) { r = Add(s, a) o = Identity(r) }> (z, x)",
    "recurrence over the items": "a = Constant <value_ints = [1]> () u = Unsqueeze(x, a) s = Constant <value_ints = [1, 4, 4]> () w = ConstantOfShape <value = float[1] {0.3}> (s) o, h = RNN <hidden_size = 4> (u, w, w) b = Constant <value_ints = [1, 2]> () y = Squeeze(o, b)",
    "upside down by sequence": "s = Shape <end = 1> (x) b = Constant <value_ints = [4]> () l = Expand(s, b) y = ReverseSequence <time_axis = 0, batch_axis = 1> (x, l)",
    "padding of the batch": "p = Constant <value_ints = [1, 0, 0, 0]> () q = Pad(x, p) z = Constant <value_ints = [0]> () e = Constant <value_ints = [-1]> () r = Slice(q, z, e, z) y = Add(x, r)",
    "resizing of the batch": 'a = Constant <value_ints = [0, 1]> () u = Unsqueeze(x, a) s = Constant <value_floats = [1.0, 1.0, 2.0, 1.0]> () r = Resize <mode = "linear"> (u, , s) q = Squeeze(r, a) z = Constant <value_ints = [0]> () e = Constant <value_ints = [9223372036854775807]> () t = Constant <value_ints = [2]> () y = Slice(q, z, e, z, t)',
    "scattered items": "i = Constant <value = int64[1,1] {0}> () u = Constant <value = float[1,4] {9.0, 9.0, 9.0, 9.0}> () y = ScatterND(x, i, u)",
    "row of another item": "i = Constant <value = int64[1] {0}> () g = GatherND(x, i) y = Add(x, g)",
    "distances between items": "a = Constant <value_ints = [0]> () b = Constant <value_ints = [1]> () u = Unsqueeze(x, a) v = Unsqueeze(x, b) d = Sub(u, v) s = Abs(d) y = ReduceSum <keepdims = 0> (s, a)",
    "largest by global pooling": "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) p = GlobalMaxPool(u) q = Squeeze(p, a) m = Transpose(q) y = Sub(x, m)",
    "items as channels": "s = Constant <value_ints = [1, -1, 2, 2]> () u = Reshape(x, s) l = LRN <size = 3, alpha = 1.0> (u) t = Constant <value_ints = [-1, 4]> () y = Reshape(l, t)",
    "tile and cut": "r = Constant <value_ints = [2, 1]> () t = Tile(x, r) a = Constant <value_ints = [1]> () z = Constant <value_ints = [0]> () e = Shape <end = 1> (x) f = Add(e, a) y = Slice(t, a, f, z)",
    "random noise": "n = RandomNormalLike <seed = 3.0> (x) y = Add(x, n)",
    "dropout in training": "r = Constant <value_float = 0.5> () t = Constant <value = bool {1}> () y = Dropout <seed = 3> (x, r, t)",
}  # fmt: skip


def mixing(directory: Path) -> list[Case]:
    cases = []
    for name, body in MIXING.items():
        random = "Random" in body or "Dropout" in body
        cases.append(graph(directory, f"mixing: {name}", body, items(), by_magnitude=True, random=random, group="mixing"))
    newer = {
        "mean over the batch, version 18": (18, "a = Constant <value_ints = [0]> () m = ReduceMean(x, a) y = Sub(x, m)"),
        "softmax from the batch on, version 12": (12, "y = Softmax <axis = 0> (x)"),
        "flattened softmax, version 11": (11, "u = Unsqueeze <axes = [0]> (x) s = Softmax <axis = 1> (u) y = Squeeze <axes = [0]> (s)"),
        "group normalization, version 21": (21, "s = Constant <value_ints = [1, -1, 4]> () u = Reshape(x, s) o = Constant <value_floats = [1.0]> () n = Transpose <perm = [0, 2, 1]> (u) w = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () g = GroupNormalization <num_groups = 2> (n, w, w) t = Transpose <perm = [0, 2, 1]> (g) z = Constant <value_ints = [-1, 4]> () y = Reshape(t, z)"),
        "attention, version 23": (23, "a = Constant <value_ints = [0]> () u = Unsqueeze(x, a) t = Attention <q_num_heads = 1, kv_num_heads = 1> (u, u, u) y = Squeeze(t, a)"),
        "cumulative attention, version 23": (23, "a = Constant <value_ints = [0]> () u = Unsqueeze(x, a) t = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (u, u, u) y = Squeeze(t, a)"),
    }
    cases += [graph(directory, f"mixing: {name}", body, items(), opset, by_magnitude=True, group="mixing") for name, (opset, body) in newer.items()]
    return cases


# Graphs in which rows do not affect each other, although it looks so.
KEEPING = {
    "softmax of a row": "y = Softmax <axis = 1> (x)",
    "mean of a row after a transpose": "t = Transpose(x) m = ReduceMean <axes = [0]> (t) d = Sub(t, m) y = Transpose(d)",
    "reshape and back": "s = Constant <value_ints = [-1, 2, 2]> () r = Reshape(x, s) m = ReduceMax <axes = [2]> (r) d = Sub(r, m) t = Constant <value_ints = [-1, 4]> () y = Reshape(d, t)",
    "sum of the columns by einsum": 'm = Einsum <equation = "ij->i"> (x) a = Constant <value_ints = [1]> () u = Unsqueeze(m, a) y = Sub(x, u)',
    "cumulative sum of a row": "a = Constant <value_int = 1> () y = CumSum <reverse = 1> (x, a)",
    "row by row": "y = Scan <num_scan_inputs = 1, body = l (float[4] a) => (float[4] o) { m = ReduceMax <keepdims = 1> (a) o = Sub(a, m) }> (x)",
    "shape of the input": "s = Shape(x) f = ConstantOfShape <value = float[1] {2.0}> (s) y = Mul(x, f)",
    "dropout in inference": "y = Dropout(x)",
    "batch normalization": "s = Constant <value_floats = [1.0, 2.0, 1.0, 0.5]> () b = Constant <value_floats = [0.0, 1.0, 0.0, 0.0]> () y = BatchNormalization(x, s, b, b, s)",
    "branch without a decision about items": "s = Shape <end = 1> (x) z = Constant <value_ints = [0]> () g = Greater(s, z) c = Squeeze(g) y = If (c) <then_branch = t () => (float[N,4] a) { a = Neg(x) }, else_branch = e () => (float[N,4] b) { b = Abs(x) }>",
    "loop of fixed length": "n = Constant <value_int = 3> () c = Constant <value = bool {1}> () y = Loop (n, c, x) <body = l (int64 i, bool g, float[N,4] s) => (bool h, float[N,4] r) { h = Identity(g) r = Tanh(s) }>",
}


def keeping(directory: Path) -> list[Case]:
    return [graph(directory, f"keeping: {name}", body, items(), by_magnitude=True, group="keeping") for name, body in KEEPING.items()]


SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0], [-0.0, 1e-40, 3e38, -3e38], [88.9, -104.0, 1.5, -2.5], [1.0, -1.0, 0.5, 1e10]], np.float32)

# Operators that hide NaN, or treat it or infinities in their own way.
HIDING = {
    "relu": "y = Relu(v)",
    "clip": "a = Constant <value_float = -1.0> () b = Constant <value_float = 1.0> () y = Clip(v, a, b)",
    "largest": "y = ReduceMax <axes = [1]> (v)",
    "least": "y = ReduceMin <axes = [1]> (v)",
    "pool": "a = Constant <value_ints = [1]> () u = Unsqueeze(v, a) y = MaxPool <kernel_shape = [2]> (u)",
    "global pool": "a = Constant <value_ints = [1]> () u = Unsqueeze(v, a) y = GlobalMaxPool(u)",
    "comparison": "z = Constant <value_float = 0.0> () g = Greater(v, z) y = Cast <to = 1> (g)",
    "choice": "z = Constant <value_float = 0.0> () g = Less(v, z) y = Where(g, z, v)",
    "maximum": "z = Constant <value_float = 0.0> () y = Max(v, z)",
    "minimum": "z = Constant <value_float = 0.0> () y = Min(z, v)",
    "best two": "k = Constant <value_ints = [2]> () y, i = TopK(v, k)",
    "softmax": "y = Softmax <axis = 1> (v)",
    "sign": "y = Sign(v)",
    "place of the largest": "i = ArgMax <axis = 1> (v) y = Cast <to = 1> (i)",
    "to integers": "i = Cast <to = 7> (v) y = Cast <to = 1> (i)",
    "to bytes": "i = Cast <to = 2> (v) y = Cast <to = 1> (i)",
    "to booleans": "i = Cast <to = 9> (v) y = Cast <to = 1> (i)",
    "recurrence": "a = Constant <value_ints = [0]> () u = Unsqueeze(v, a) s = Constant <value_ints = [1, 16, 4]> () w = ConstantOfShape <value = float[1] {0.3}> (s) y = LSTM <hidden_size = 4> (u, w, w)",
    "nonzero": "n = NonZero(v) y = Cast <to = 1> (n)",
    "inverse": "y = Reciprocal(v)",
    "quotient": "one = Constant <value_float = 1.0> () y = Div(one, v)",
    "inverse power": "three = Constant <value_float = -3.0> () y = Pow(v, three)",
}  # fmt: skip
MAKING = {
    "the request": "v = Identity(x)",
    "a root": "v = Sqrt(x)",
    "a logarithm": "v = Log(x)",
    "an exponential times 0": "e = Exp(x) o = Constant <value_float = 0.0> () v = Mul(e, o)",
    "a difference of infinities": "e = Exp(x) f = Exp(e) h = Exp(f) v = Sub(h, f)",
    "a quotient": "v = Div(x, x)",
    "an overflowing product": "p = Mul(x, x) q = Mul(p, p) r = Mul(q, q) h = Neg(r) v = Add(r, h)",
    "a hyperbolic tangent": "v = Tanh(x)",
    "a product with 0": "o = Constant <value_float = -0.0> () v = Mul(x, o)",
    "a product of matrices": "t = Constant <value = float[4,4] {1.0, -1.0, 3e38, 0.0, 2.0, 1.0, -3e38, 0.0, 3.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0}> () v = MatMul(x, t)",
}  # fmt: skip


# Results with other numbers of dimensions than two.
RANKS = {"recurrence": "float[A,B,C,D] y", "pool": "float[A,B,C] y", "global pool": "float[A,B,C] y"}


def floats(directory: Path) -> list[Case]:
    requests = [{"x": SPECIAL[index : index + 1]} for index in range(4)] + [{"x": rows(2, 4)}, {"x": np.abs(rows(1, 4, seed=1)) + 0.1}]
    return [
        graph(directory, f"floats: {how} of {what}", f"{made} {hidden}", requests, result=RANKS.get(how, "float[N,M] y"), group="floats")
        for what, made in MAKING.items()
        for how, hidden in HIDING.items()
    ]


def integers(directory: Path) -> list[Case]:
    large = [{"x": np.array([values], np.int64)} for values in ([1, -1, 7, -7], [2**31 - 1, -(2**31), 2**31, 3], [2**40, -(2**40), 2**62, -5], [0, 0, 0, 0])]
    bodies = {
        "sum": "y = Add(x, x)",
        "product": "y = Mul(x, x)",
        "difference": "n = Neg(x) y = Sub(x, n)",
        "absolute": "y = Abs(x)",
        "quotient": "c = Constant <value_ints = [3]> () y = Div(x, c)",
        "quotient by a negative number": "c = Constant <value_ints = [-3]> () y = Div(x, c)",
        "remainder": "c = Constant <value_ints = [3]> () y = Mod(x, c)",
        "remainder of a negative divisor": "c = Constant <value_ints = [-3]> () y = Mod(x, c)",
        "remainder as in C": "c = Constant <value_ints = [-3]> () y = Mod <fmod = 1> (x, c)",
        "power": "c = Constant <value_ints = [3]> () y = Pow(x, c)",
        "sum of a row": "a = Constant <value_ints = [1]> () y = ReduceSum(x, a)",
        "product of a row": "y = ReduceProd <axes = [1]> (x)",
        "largest of a row": "y = ReduceMax <axes = [1]> (x)",
        "cumulative sum": "a = Constant <value_int = 1> () y = CumSum(x, a)",
        "through a float": "f = Cast <to = 1> (x) y = Cast <to = 7> (f)",
        "through 32 bits": "f = Cast <to = 6> (x) y = Cast <to = 7> (f)",
        "through 8 bits": "f = Cast <to = 3> (x) y = Cast <to = 7> (f)",
        "through unsigned 8 bits": "f = Cast <to = 2> (x) y = Cast <to = 7> (f)",
        "through booleans": "f = Cast <to = 9> (x) y = Cast <to = 7> (f)",
        "sign": "y = Sign(x)",
        "product of matrices": "t = Transpose(x) y = MatMul(x, t)",
        "clip": "a = Constant <value_int = -3> () b = Constant <value_int = 3> () y = Clip(x, a, b)",
        "constant beyond 32 bits": "c = Constant <value_ints = [4294967297]> () y = Max(x, c)",
        "equal to a constant beyond 32 bits": "c = Constant <value_ints = [4294967297]> () e = Equal(x, c) y = Cast <to = 7> (e)",
        "mean": "f = Cast <to = 1> (x) m = ReduceMean <axes = [1]> (f) y = Cast <to = 7> (m)",
    }
    cases = [graph(directory, f"integers: {name}", body, large, given="int64[N,4] x", result="int64[N,M] y", group="integers") for name, body in bodies.items()]
    for kind, dtype in (("uint8", np.uint8), ("int8", np.int8), ("uint16", np.uint16), ("int16", np.int16), ("uint32", np.uint32), ("uint64", np.uint64), ("int32", np.int32)):
        info = np.iinfo(dtype)
        requests = [{"x": np.array([[info.min, info.max, 1, 3]], dtype)}, {"x": np.array([[5, 6, 7, 100]], dtype)}]
        for name, body in {"sum": "y = Add(x, x)", "product": "y = Mul(x, x)", "to floats": "f = Cast <to = 1> (x) h = Neg(f) y = Identity(x)"}.items():
            cases.append(graph(directory, f"integers: {name} of {kind}", body, requests, given=f"{kind}[N,4] x", result=f"{kind}[N,4] y", group="integers"))
    return cases


def attributes(directory: Path) -> list[Case]:
    image = [{"x": rows(1, 2, 5, 6)}, {"x": rows(2, 2, 5, 6, seed=1)}]
    given, result = "float[N,2,5,6] x", "float[N,C,H,W] y"
    cases = []

    def add(name: str, body: str, opset: int = OPSET, requests: list[dict] | None = None, given: str = given, result: str = result, **options) -> None:
        cases.append(graph(directory, f"attributes: {name}, version {opset}", body, requests or image, opset, given, result, group="attributes", **options))

    for padding in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for opset in (8, 11, 22):
            add(f"max pool {padding}", f'y = MaxPool <kernel_shape = [2, 3], strides = [2, 1], auto_pad = "{padding}"> (x)', opset)
            add(f"average pool {padding}", f'y = AveragePool <kernel_shape = [2, 3], strides = [2, 2], auto_pad = "{padding}"> (x)', opset)
            add(f"convolution {padding}", f'w = Constant <value = float[1,2,2,2] {{1.0, -2.0, 3.0, 4.0, 0.5, 1.5, -1.0, 2.0}}> () y = Conv <kernel_shape = [2, 2], strides = [2, 1], auto_pad = "{padding}"> (x, w)', opset)
    for opset in (10, 19, 22):
        for count in (0, 1):
            add(f"average pool up, padding {count}", f"y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 1], ceil_mode = 1, count_include_pad = {count}> (x)", opset)
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            add(f"resize {mode} {coordinates}", f's = Constant <value_floats = [1.0, 1.0, 1.6, 0.7]> () y = Resize <mode = "{mode}", coordinate_transformation_mode = "{coordinates}"> (x, , s)', 13)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        add(f"resize {nearest}", f's = Constant <value_floats = [1.0, 1.0, 2.0, 0.5]> () y = Resize <mode = "nearest", nearest_mode = "{nearest}"> (x, , s)', 19)
    add("resize with antialias", 's = Constant <value_floats = [1.0, 1.0, 0.5, 0.5]> () y = Resize <mode = "linear", antialias = 1> (x, , s)', 18)
    add("resize keeping proportions", 's = Constant <value_ints = [9, 9]> () y = Resize <mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "not_larger"> (x, , , s)', 18)
    for opset in (9, 12, 13):
        for axis in (1, 2, 3):
            add(f"softmax {axis}", f"y = Softmax <axis = {axis}> (x)", opset)
            add(f"log softmax {axis}", f"y = LogSoftmax <axis = {axis}> (x)", opset)
    ties = [{"x": np.array([[1, 3, 3, 1]], np.float32)}, {"x": np.array([[-0.0, 0.0, 0.0, -0.0]], np.float32)}]
    for last in (0, 1):
        for operator in ("ArgMax", "ArgMin"):
            add(f"{operator} last {last}", f"y = {operator} <axis = 1, select_last_index = {last}> (x)", 13, ties, BATCH, "int64[N,M] y")
    for largest in (0, 1):
        add(f"top two {largest}", f"k = Constant <value_ints = [2]> () y, i = TopK <largest = {largest}> (x, k)", 17, ties, BATCH, "float[N,M] y, int64[N,M] i")
    for operator in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"):
        for noop in (0, 1):
            add(f"{operator} without axes {noop}", f"a = Constant <value = int64[0] {{}}> () y = {operator} <noop_with_empty_axes = {noop}, keepdims = 1> (x, a)", 18, result="float[A,B,C,D] y")
            add(f"{operator} with axes {noop}", f"a = Constant <value_ints = [2, -1]> () y = {operator} <noop_with_empty_axes = {noop}, keepdims = 1> (x, a)", 18, result="float[A,B,C,D] y")
    for mode in ("constant", "reflect", "edge", "wrap"):
        add(f"pad {mode}", f'p = Constant <value_ints = [0, 0, 2, 1, 0, 0, 1, 3]> () y = Pad <mode = "{mode}"> (x, p)', 19)
    add("pad negative", "p = Constant <value_ints = [0, 0, -1, 1, 0, 0, 1, -2]> () y = Pad(x, p)", 13)
    vectors = [{"x": rows(1, 4)}, {"x": rows(3, 4)}]
    add("product by a vector", "v = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () y = MatMul(x, v)", 17, vectors, BATCH, "float[N] y")
    add("gelu, both forms", 'a = Gelu <approximate = "tanh"> (x) b = Gelu(x) y = Sub(a, b)', 20, vectors, BATCH, RESULT)
    add("hard sigmoid", "y = HardSigmoid <alpha = 0.0, beta = 0.3> (x)", 17, vectors, BATCH, RESULT)
    add("selu", "y = Selu <alpha = 1.1, gamma = 0.7> (x)", 17, vectors, BATCH, RESULT)
    add("celu", "y = Celu <alpha = 0.5> (x)", 17, vectors, BATCH, RESULT)
    add("mish", "y = Mish(x)", 18, vectors, BATCH, RESULT)
    add("shrink", "y = Shrink <bias = 0.1, lambd = 0.5> (x)", 17, vectors, BATCH, RESULT)
    add("thresholded relu", "y = ThresholdedRelu <alpha = 0.5> (x)", 17, vectors, BATCH, RESULT)
    add("depth to space", 'y = DepthToSpace <blocksize = 1, mode = "CRD"> (x)', 13)
    for padding in ("zeros", "border", "reflection"):
        add(f"grid sample {padding}", f'g = Constant <value = float[1,2,2,2] {{-1.0, -1.0, 0.3, 1.2, 0.9, -0.4, 2.0, 0.0}}> () s = Shape <end = 1> (x) t = Constant <value_ints = [2, 2, 2]> () h = Concat <axis = 0> (s, t) e = Expand(g, h) y = GridSample <padding_mode = "{padding}"> (x, e)', 16)
    add("scatter with repeated places", 'i = Constant <value = int64[1,4] {0, 1, 1, 0}> () s = Shape(x) z = ConstantOfShape(s) e = Expand(i, s) y = ScatterElements <axis = 1, reduction = "add"> (z, e, x)', 16, vectors, BATCH, RESULT)
    add("one hot with negative places", "i = Cast <to = 7> (x) d = Constant <value_int = 3> () v = Constant <value_floats = [0.0, 1.0]> () y = OneHot(i, d, v)", 13, vectors, BATCH, "float[N,4,3] y")
    add("size zero", "s = Constant <value_ints = [0]> () e = Constant <value_ints = [0]> () a = Constant <value_ints = [1]> () y = Slice(x, s, e, a)", 13, vectors, BATCH, "float[N,M] y")
    add("sum of nothing", "s = Constant <value_ints = [0]> () a = Constant <value_ints = [1]> () z = Slice(x, s, s, a) y = ReduceSum(z, a)", 13, vectors, BATCH, "float[N,M] y")
    add("mean of nothing", "s = Constant <value_ints = [0]> () a = Constant <value_ints = [1]> () z = Slice(x, s, s, a) y = ReduceMean <axes = [1]> (z)", 13, vectors, BATCH, "float[N,M] y")
    add("largest of nothing", "s = Constant <value_ints = [0]> () a = Constant <value_ints = [1]> () z = Slice(x, s, s, a) y = ReduceMax <axes = [1]> (z)", 13, vectors, BATCH, "float[N,M] y")
    return cases


def interfaces(directory: Path) -> list[Case]:
    cases = []

    def add(name: str, given: str, result: str, body: str, requests: list[dict], opset: int = OPSET, **options) -> None:
        cases.append(graph(directory, f"interfaces: {name}", body, requests, opset, given, result, group="interfaces", **options))

    one, two = rows(3), rows(2, seed=1)
    add("scalar", "float x", "float y", "y = Neg(x)", [{"x": np.array(1.5, np.float32)}])
    add("fixed batch", "float[1,3] x", "float[1,3] y", "y = Neg(x)", [{"x": one[None]}])
    add("fixed batch of two", "float[2,3] x", "float[2,3] y", "m = ReduceMean <axes = [0]> (x) y = Sub(x, m)", [{"x": rows(2, 3)}])
    add("two vectors of any length", "float[A] a, float[B] b", "float[C] y", "y = Concat <axis = 0> (a, b)", [{"a": one, "b": two}, {"a": two, "b": two}])
    add("outer product", "float[A] a, float[B] b", "float[A,B] y", "i = Constant <value_ints = [1]> () u = Unsqueeze(a, i) y = Mul(u, b)", [{"a": one, "b": two}])
    add("output not batch-first", "float[N,4] x", "float[4,N] y", "y = Transpose(x)", [{"x": rows(1, 4)}, {"x": rows(3, 4)}])
    add("scalar output", "float[N,4] x", "float y", "y = ReduceSum <keepdims = 0> (x)", [{"x": rows(1, 4)}, {"x": rows(3, 4)}])
    state = "z = Constant <value_ints = [0]> () m = ReduceSum <keepdims = 0> (s, z) y = Add(x, m) t = Mul(s, s)"
    add("state", "float[N,4] x, float[2,N,4] s", "float[N,4] y, float[2,N,4] t", state, [{"x": rows(1, 4), "s": rows(2, 1, 4)}, {"x": rows(2, 4), "s": rows(2, 2, 4)}])
    add("empty cache", "float[N,L,4] x, float[N,P,4] c", "float[N,T,4] y", "y = Concat <axis = 1> (c, x)", [{"x": rows(1, 2, 4), "c": rows(1, 0, 4)}, {"x": rows(1, 1, 4), "c": rows(1, 3, 4)}])
    add("strings", "string[N] x", "string[N] y", "y = Identity(x)", [{"x": np.array(["a", "ä", ""], object)}])
    add("booleans", "bool[N,3] x", "bool[N,3] y", "y = Not(x)", [{"x": np.array([[True, False, True]])}])
    add("double", "double[N,3] x", "double[N,3] y", "y = Exp(x)", [{"x": np.array([[1e-9, 1.0, 700.0]])}], rtol=1e-12)
    add("half", "float16[N,3] x", "float16[N,3] y", "y = Add(x, x)", [{"x": np.array([[1.5, 2.0, 60000.0]], np.float16)}])
    add("no inputs", "", "float[2] y", "y = Constant <value_floats = [1.0, 2.0]> ()", [{}])
    add("unused input", "float[N,3] x, float[N,3] z", "float[N,3] y", "y = Neg(x)", [{"x": rows(1, 3), "z": rows(1, 3)}])
    add("input as output", "float[N,3] x", "float[N,3] x2, float[N,3] y", "x2 = Identity(x) y = Neg(x)", [{"x": rows(2, 3)}])
    add("number of items as an input", "float[N,3] x, int64 n", "float[M,3] y", "z = Constant <value_ints = [0]> () a = Unsqueeze(n, z) y = Slice(x, z, a, z)", [{"x": rows(4, 3), "n": np.array(2)}])
    add("found places", "float[N,4] x", "int64[R,F] y", "n = NonZero(x) y = Transpose(n)", [{"x": np.array([[0, 1, 0, 2]], np.float32)}, {"x": np.array([[0, 1, 0, 2], [3, 0, 0, 0]], np.float32)}])
    add("unique values", "float[N] x", "float[U] y", "y, a, b, c = Unique(x)", [{"x": np.array([3, 1, 3, 2], np.float32)}])
    add("sequence", "float[N,4] x", "seq(float[M,4]) y", "y = SplitToSequence <axis = 0, keepdims = 1> (x)", [{"x": rows(3, 4)}])
    add("normalizer", "float[N,4] x", "float[N,4] y", 'y = ai.onnx.ml.Normalizer <norm = "L1"> (x)', items(), domains={"ai.onnx.ml": 3}, by_magnitude=True)
    add("scaler", "float[N,4] x", "float[N,4] y", "y = ai.onnx.ml.Scaler <offset = [1.0, 2.0, 3.0, 4.0], scale = [0.5, 1.0, 2.0, 4.0]> (x)", items(), domains={"ai.onnx.ml": 3}, by_magnitude=True)
    add("binarizer", "float[N,4] x", "float[N,4] y", "y = ai.onnx.ml.Binarizer <threshold = 0.2> (x)", items(), domains={"ai.onnx.ml": 3}, by_magnitude=True)
    add("imputer", "float[N,4] x", "float[N,4] y", "y = ai.onnx.ml.Imputer <imputed_value_floats = [9.0], replaced_value_float = 1.5> (x)", [{"x": np.array([[1.5, 2.0, 1.5, 0.0]], np.float32)}], domains={"ai.onnx.ml": 3})
    return cases
