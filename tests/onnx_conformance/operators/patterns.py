"""Graphs of several nodes that the embedded runtime rewrites into one when it loads a file.

Each must give the same results as its nodes, for any values and shapes, also for those that merely resemble what the runtime rewrites.
"""

import numpy as np

from .graph import FLOAT, INT64, type_of
from .graph import Case

PATTERNS = {}


def pattern(build):
    PATTERNS[build.__name__] = build
    return build


def one(case, operator, inputs, attributes=None, domain=""):
    return case.node(operator, inputs, attributes, 1, domain)[0]


def scalar(case, value, shape=None):
    shape = case.pick([[], [1], [], [1], [], [1], [1, 1, 1, 1]]) if shape is None else shape
    return case.constant(np.full(shape, value, np.float32))


def tensor(case, low=2, high=4, kind="ordinary", largest=5):
    shape = case.shape(low, high, largest)
    kind = None if case.chance(0.35) else kind
    return case.input(case.array(shape, kind=kind), 0), shape


def near(case, *values):
    """A value that the rewrite expects, or another, sometimes one that is almost the same."""
    return case.pick([*values, *values, values[0] * 1.25 + 0.1, values[0] + 9e-5])


@pattern
def identity(case):
    x, shape = tensor(case, 0, 3, None)
    operator, value = case.pick([("Add", 0.0), ("Sub", 0.0), ("Mul", 1.0), ("Div", 1.0), ("Pow", 1.0), ("Add", -0.0), ("Mul", 0.0), ("Sub", 1.0)])
    constant = scalar(case, value, case.pick([[], [1], [1, 1, 1, 1], [2, 1]]))
    inputs = [x, constant]
    if case.chance(0.4):
        inputs.reverse()
    y = one(case, operator, inputs)
    case.outputs = [one(case, "Neg", [y])]


@pattern
def silu(case):
    x, _ = tensor(case)
    scaled = x if case.chance(0.5) else one(case, "Mul", [x, scalar(case, case.pick([1.0, 1.702, 2.0]))])
    gate = one(case, "Sigmoid", [scaled])
    case.outputs = [one(case, "Mul", case.pick([[x, gate], [gate, x]]))]


@pattern
def gelu(case):
    x, _ = tensor(case)
    divided = one(case, "Div", [x, scalar(case, near(case, 2**0.5))])
    added = one(case, "Add", [one(case, "Erf", [divided]), scalar(case, near(case, 1.0))])
    product = one(case, "Mul", [x, added])
    case.outputs = [one(case, "Mul", [product, scalar(case, near(case, 0.5))])]


@pattern
def tanh_gelu(case):
    x, _ = tensor(case)
    cube = one(case, "Pow", [x, scalar(case, near(case, 3.0))])
    inner = one(case, "Add", [x, one(case, "Mul", [cube, scalar(case, near(case, 0.044715))])])
    tanh = one(case, "Tanh", [one(case, "Mul", [inner, scalar(case, near(case, (2 / np.pi) ** 0.5))])])
    left = one(case, "Mul", [x, one(case, "Add", [tanh, scalar(case, 1.0)])])
    case.outputs = [one(case, "Mul", [left, scalar(case, near(case, 0.5))])]


def square(case):
    """A tensor whose dimensions have the same size, so that each can take the place of another."""
    size, rank = case.between(2, 4), case.between(2, 3)
    return case.input(case.array([size] * rank, kind="ordinary"), 0), [size] * rank


def mean(case, x, axes, keep=1):
    if case.opset >= 18:
        return one(case, "ReduceMean", [x, case.constant(np.asarray(axes, np.int64))], {"keepdims": keep})
    return one(case, "ReduceMean", [x], {"axes": axes, "keepdims": keep})


@pattern
def layer_norm(case):
    x, shape = tensor(case, 1, 3) if case.chance(0.7) else square(case)
    axes = case.pick([[-1], [-1], [len(shape) - 1], [-2, -1] if len(shape) > 1 else [-1], [0]])
    keep = 0 if case.chance(0.15) else 1
    centered = one(case, "Sub", [x, mean(case, x, axes, keep)])
    squared = one(case, "Pow", [centered, scalar(case, near(case, 2.0))]) if case.chance(0.7) else one(case, "Mul", [centered, centered])
    keep = 0 if case.chance(0.15) else 1
    variance = one(case, "Add", [mean(case, squared, axes, keep), scalar(case, case.pick([1e-5, 1e-12, 0.5]))])
    y = one(case, "Div", [centered, one(case, "Sqrt", [variance])])
    size = case.pick([[shape[-1]], [1], shape, [shape[-1]], [1] * 4 + [shape[-1]], [2, *[1] * len(shape)], []])
    if case.chance(0.8):
        y = one(case, "Mul", [y, case.constant(case.array(size, kind="ordinary"))])
        if case.chance(0.8):
            y = one(case, "Add", [y, case.constant(case.array(size, kind="ordinary"))])
    case.outputs = [y]


@pattern
def rms_norm(case):
    x, shape = tensor(case, 1, 3) if case.chance(0.7) else square(case)
    axes = case.pick([[-1], [-1], [len(shape) - 1], [0]])
    keep = 0 if case.chance(0.15) else 1
    squared = one(case, "Pow", [x, scalar(case, 2.0)]) if case.chance(0.7) else one(case, "Mul", [x, x])
    root = one(case, "Sqrt", [one(case, "Add", [mean(case, squared, axes, keep), scalar(case, case.pick([1e-6, 0.5]))])])
    inverse = one(case, "Reciprocal", [root]) if case.chance(0.6) else one(case, "Div", [scalar(case, near(case, 1.0)), root])
    y = one(case, "Mul", [x, inverse]) if case.chance(0.7) else one(case, "Div", [x, root])
    case.outputs = [one(case, "Mul", [y, case.constant(case.array(case.pick([[shape[-1]], [1], [1] * 4 + [shape[-1]], shape, []]), kind="ordinary"))])]


@pattern
def reciprocal(case):
    x, _ = tensor(case, 0, 3, None)
    inverse = one(case, "Div", [scalar(case, near(case, 1.0), case.pick([[], [1], [1, 1, 1, 1]])), x])
    case.outputs = [one(case, "Neg", [inverse])]


@pattern
def matmul_add(case):
    inner, columns = case.between(1, 4), case.between(1, 4)
    prefix = [case.between(1, 3) for _ in range(case.between(0, 3))]
    x = case.input(case.array([*prefix, inner], kind="ordinary"), 0)
    w = case.input(case.array(case.pick([[inner, columns], [inner, columns], [inner]]), kind="ordinary"), 0.8)
    y = one(case, "MatMul", [x, w])
    if case.chance(0.3):
        y = one(case, "Mul", [y, scalar(case, 0.5)])
    bias = case.constant(case.array(case.pick([[columns], [columns], [1], [], [1, columns], [3, 1, columns], [2, 1], [3]]), kind="ordinary"))
    case.outputs = [one(case, "Add", case.pick([[y, bias], [bias, y]]))]


@pattern
def matmul_scale(case):
    a, b, inner = case.between(1, 4), case.between(1, 4), case.between(1, 4)
    prefix = [case.between(1, 3) for _ in range(case.between(0, 2))]
    x, y = case.input(case.array([*prefix, a, inner], kind="ordinary"), 0), case.input(case.array([*prefix, inner, b], kind="ordinary"), 0.3)
    if case.chance(0.5):
        x = one(case, case.pick(["Mul", "Div"]), [x, scalar(case, case.pick([2.5, 2.5, 0.0, 1e-40, 3e38]))])
    if case.chance(0.3):
        y = one(case, "Mul", [scalar(case, -0.3), y])
    z = one(case, "MatMul", [x, y])
    case.outputs = [one(case, case.pick(["Mul", "Div"]), [z, scalar(case, 8.0, case.pick([[], [1], [1, 1, 1, 1, 1]]))])]


@pattern
def transposes(case):
    shape = [case.between(1, 4) for _ in range(case.between(2, 4))]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    perm = case.random.permutation(len(shape)).tolist()
    moved = one(case, "Transpose", [x], {"perm": perm} if case.chance(0.8) else None)
    new = [shape[index] for index in perm] if case.nodes[-1].attribute else shape[::-1]
    other = case.input(case.array([*new[:-2], new[-1], 3], kind="ordinary"), 0.5)
    y = one(case, "MatMul", [moved, other])
    if case.chance(0.5):
        y = one(case, "Transpose", [y], {"perm": case.random.permutation(len(shape)).tolist()})
    case.outputs = [y]


@pattern
def attention(case):
    batch, heads, group = case.between(1, 2), case.between(1, 2), case.pick([1, 2, 3])
    length, other, size = case.between(1, 4), case.between(1, 4), case.between(1, 4)
    q = case.input(case.array([batch, heads * group, length, size], kind="ordinary"), 0)
    k = case.input(case.array([batch, heads, other, size], kind="ordinary"), 0)
    if group > 1:
        k = repeat(case, k, [batch, heads, other, size], group)
    kt = one(case, "Transpose", [k], {"perm": [0, 1, 3, 2]})
    scores = one(case, "MatMul", [q, kt])
    if case.chance(0.5):
        scores = one(case, case.pick(["Mul", "Div"]), [scores, scalar(case, 1.7)])
    mask = case.array(case.pick([[length, other], [batch, 1, 1, other], [1, 1, length, other], [other], []]), kind=case.pick(["ordinary", "zeros"]))
    if case.chance(0.4):
        mask = np.where(mask > 0.5, np.float32(case.pick([-np.inf, -3.4e38, -1e4])), np.float32(0)).astype(np.float32)
    added = one(case, "Add", case.pick([[scores, "m"], ["m", scores]]))
    name = case.input(mask, 0.2)
    node = case.nodes[-1]
    for index, value in enumerate(node.input):
        if value == "m":
            node.input[index] = name
    soft = one(case, "Softmax", [added], {"axis": case.pick([-1, 3, -1, 2])})
    if case.chance(0.4):
        zero = scalar(case, 0.0, [])
        soft = one(case, "Where", [one(case, "IsNaN", [soft]), zero, soft])
    case.outputs = [one(case, "MatMul", [soft, k])]


def repeat(case, x, shape, group):
    batch, heads, length, size = shape
    wide = one(case, "Unsqueeze", [x, case.constant(np.asarray([2], np.int64))])
    target = case.constant(np.asarray([batch, heads, group, length, size], np.int64))
    wide = one(case, "Expand", [wide, target])
    return one(case, "Reshape", [wide, case.constant(np.asarray([batch, heads * group, length, size], np.int64))])


@pattern
def shape_arithmetic(case):
    shape = [case.between(1, 4) for _ in range(3)]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    dims = one(case, "Shape", [x])
    pick = lambda index: one(case, "Gather", [dims, case.constant(np.asarray(index, np.int64))], {"axis": 0})  # noqa: E731
    if case.chance(0.5):
        product = one(case, "Mul", [pick(0), pick(1)])
        parts = [one(case, "Unsqueeze", [part, case.constant(np.asarray([0], np.int64))]) for part in (product, pick(2))]
    else:
        cut = one(case, "Slice", [dims, case.constant(np.asarray([0], np.int64)), case.constant(np.asarray([case.pick([1, 2, -1])], np.int64))])
        parts = [cut, case.constant(np.asarray([-1], np.int64))]
    target = one(case, "Concat", parts, {"axis": 0})
    y = one(case, "Reshape", [x, target])
    if case.chance(0.4):
        z = one(case, "ConstantOfShape", [one(case, "Shape", [y])])
        y = one(case, "Add", [y, z])
    case.outputs = [y]


@pattern
def shape_division(case):
    shape = [case.between(2, 9) for _ in range(2)]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    dims = one(case, "Shape", [x])
    size = one(case, "Gather", [dims, case.constant(np.asarray(case.pick([0, 1, -1]), np.int64))])
    operator, other = case.pick([("Div", 2), ("Sub", 1), ("Mul", 3), ("Add", -1), ("Div", 3)])
    number = one(case, operator, [size, case.constant(np.asarray(other, np.int64))])
    end = one(case, "Unsqueeze", [number, case.constant(np.asarray([0], np.int64))])
    start = case.constant(np.asarray([0], np.int64))
    case.outputs = [one(case, "Slice", [x, start, end, case.constant(np.asarray([1], np.int64))])]


@pattern
def conv_batch_norm(case):
    channels, out = case.between(1, 3), case.between(1, 3)
    x = case.input(case.array([case.between(1, 2), channels, 6, 6], kind="ordinary"), 0)
    weights = [case.constant(case.array([out, channels, 3, 3], kind="ordinary"))]
    if case.chance(0.5):
        weights.append(case.constant(case.array([out], kind="ordinary")))
    y = one(case, "Conv", [x, *weights], {"kernel_shape": [3, 3], "pads": case.maybe([1, 1, 1, 1])})
    if case.chance(0.3):
        size = case.pick([[1, out, 1, 1], [out, 1, 1], [1], [1, 1, 1, 1]])
        y = one(case, "Add", [y, case.constant(case.array(size, kind="ordinary"))])
    if case.chance(0.7):
        values = [case.array([out], kind="ordinary") for _ in range(3)] + [np.abs(case.array([out], kind="ordinary"))]
        y = one(case, "BatchNormalization", [y, *(case.constant(value) for value in values)], {"epsilon": case.maybe(1e-3)})
    case.outputs = [one(case, case.pick(["Relu", "Identity", "Sigmoid"]), [y])]


@pattern
def batch_norm_dense(case):
    n, m = case.between(1, 4), case.between(1, 4)
    x = case.input(case.array([2, n], kind="ordinary"), 0)
    y = one(case, "Gemm", [x, case.constant(case.array([n, m], kind="ordinary"))]) if case.opset >= 11 else x
    m = m if case.opset >= 11 else n
    values = [case.array([m], kind="ordinary") for _ in range(3)] + [np.abs(case.array([m], kind="ordinary"))]
    case.outputs = [one(case, "BatchNormalization", [y, *(case.constant(value) for value in values)])]


@pattern
def integer_matmul(case):
    inner, columns = case.between(1, 6), case.between(1, 4)
    x = case.input(case.array([case.between(1, 3), case.between(1, 3), inner], kind="ordinary"), 0)
    quantized, scale, zero = case.node("DynamicQuantizeLinear", [x], outputs=3)
    w = case.constant(case.array([inner, columns], case.pick(["int8", "uint8"])))
    points = [zero] + ([case.constant(case.array([], "uint8"))] if case.initializers[-1].data_type == type_of("uint8") and case.chance(0.5) else [])
    product = one(case, "MatMulInteger", [quantized, w, *points])
    y = one(case, "Cast", [product], {"to": type_of(FLOAT)})
    weights = case.constant(np.abs(case.array(case.pick([[], [columns], [1]]), kind="ordinary")))
    y = one(case, "Mul", [y, one(case, "Mul", [scale, weights])])
    if case.chance(0.5):
        y = one(case, "Add", [y, case.constant(case.array([columns], kind="ordinary"))])
    case.outputs = [y]


@pattern
def casts(case):
    x = case.input(case.array(case.shape(0, 3), INT64, "ordinary"), 0)
    for _ in range(case.between(1, 3)):
        x = one(case, "Cast", [x], {"to": type_of(case.pick([FLOAT, "int32", INT64, "bool", "int8"]))})
    case.outputs = [x]


@pattern
def elementwise_chain(case):
    x, shape = tensor(case, 1, 3, case.pick([None, "ordinary"]))
    values = [x]
    for _ in range(case.between(3, 8)):
        if case.chance(0.5):
            values.append(one(case, case.pick(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Sqrt", "Reciprocal", "Identity"]), [case.pick(values)]))
        else:
            other = case.pick([*values, scalar(case, case.pick([0.0, 1.0, 0.5, 2.0, 3.0]), [])])
            values.append(one(case, case.pick(["Add", "Sub", "Mul", "Div"]), [case.pick(values), other]))
    case.outputs = [values[-1]] + ([case.pick(values[1:-1])] if case.chance(0.3) else [])
    case.outputs = list(dict.fromkeys(case.outputs))


@pattern
def zero_signs(case):
    """Zeros that operators compute become divisors, where their sign matters."""
    x, _ = tensor(case, 0, 3, "zeros")
    operator = case.pick(["Tanh", "Neg", "Abs", "Relu", "Sin", "Erf", "Round", "Ceil", "Sqrt", "Atan", "Softsign", "Identity", "Transpose"])
    value = one(case, operator, [x])
    if case.chance(0.4):
        value = one(case, case.pick(["Add", "Sub", "Mul", "Max", "Min"]), [value, scalar(case, case.pick([0.0, -0.0]), [])])
    how = case.pick(["Reciprocal", "Div", "Pow"])
    if how == "Reciprocal":
        case.outputs = [one(case, how, [value])]
    elif how == "Div":
        case.outputs = [one(case, how, [scalar(case, case.pick([1.0, -1.0]), []), value])]
    else:
        case.outputs = [one(case, how, [value, scalar(case, case.pick([-1.0, -3.0, -2.0]), [])])]


def make_pattern(name, index, seed=0):
    """The case of that number; another seed gives other cases."""
    random = np.random.default_rng([len(name), *name.encode(), index, *([seed] if seed else [])])
    case = Case(random, int(random.choice([13, 14, 17, 18, 20])))
    case.relative, case.relative_to_largest = 1e-3, 1e-5
    PATTERNS[name](case)
    return case
