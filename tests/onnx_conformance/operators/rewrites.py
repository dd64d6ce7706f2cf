"""More graphs that the embedded runtime rewrites, or would if it trusted what a file declares: by shapes, layouts and subgraphs."""

import numpy as np
from onnx import TensorProto, helper

from .graph import FLOAT, INT64, type_of
from .patterns import mean, one, pattern, scalar, tensor


def integers(case, *values):
    return case.constant(np.asarray(values, np.int64))


@pattern
def add_softmax(case):
    """Either side may be the larger one."""
    shape = [case.between(1, 4) for _ in range(case.between(1, 4))]
    one_side, other = case.broadcast(shape), case.broadcast(shape)
    x, y = (case.input(case.array(part, kind=None if case.chance(0.3) else "ordinary"), 0.2) for part in (one_side, other))
    soft = one(case, "Softmax", [one(case, "Add", [x, y])], {"axis": case.pick([-1, -1, 0])})
    case.outputs = [one(case, "Neg", [soft])]


@pattern
def safe_softmax(case):
    x, shape = tensor(case, 1, 3)
    if case.chance(0.5):
        x = one(case, "Where", [case.input(np.asarray(case.random.random(shape) < 0.5)), scalar(case, -np.inf, []), x])
    soft = one(case, "Softmax", [x], {"axis": case.pick([-1, 0])})
    other = scalar(case, case.pick([0.0, 0.0, 9e-5, -5e-5, 1.0]), case.pick([[], [1], [1, 1, 1, 1]]))
    case.outputs = [one(case, "Where", [one(case, "IsNaN", [soft]), other, soft])]


@pattern
def repeat_interleave(case):
    """Only if the new dimension follows the one that it is merged with, elements are repeated in this order."""
    shape = [case.pick([1, 2, 2, 3]) for _ in range(case.between(2, 4))]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    new, merged, repeats = case.between(0, len(shape)), case.between(0, len(shape) - 1), case.pick([2, 3])
    wide = one(case, "Unsqueeze", [x, integers(case, new)])
    wide = one(case, "Expand", [wide, integers(case, *shape[:new], repeats, *shape[new:])])
    target = [size * repeats if axis == merged else size for axis, size in enumerate(shape)]
    y = one(case, "Reshape", [wide, integers(case, *target)])
    if case.chance(0.6) and len(target) == 4:
        q = case.input(case.array([target[0], target[1], case.between(1, 3), target[2]], kind="ordinary"), 0)
        y = one(case, "MatMul", [q, y])
    case.outputs = [y]


@pattern
def grouped_query(case):
    """Scaled products with repeated keys that are transposed in different ways."""
    batch, heads, group, size = case.between(1, 2), case.between(1, 2), case.pick([2, 3]), case.between(1, 3)
    length = case.pick([size, size, case.between(1, 3)])
    q = case.input(case.array([batch, heads * group, size, size], kind="ordinary"), 0)
    k = case.input(case.array([batch, heads, length, size], kind="ordinary"), 0)
    wide = one(case, "Unsqueeze", [k, integers(case, 2)])
    wide = one(case, "Expand", [wide, integers(case, batch, heads, group, length, size)])
    wide = one(case, "Reshape", [wide, integers(case, batch, heads * group, length, size)])
    wide = one(case, "Transpose", [wide], {"perm": case.pick([[0, 1, 3, 2], [0, 1, 3, 2], [0, 1, 2, 3], [1, 0, 2, 3]])})
    if case.chance(0.5):
        q = one(case, "Mul", [q, scalar(case, 0.5)])
    case.outputs = [one(case, "Mul", [one(case, "MatMul", [q, wide]), scalar(case, 0.25)])]


@pattern
def part_of_shape(case):
    """The shape of an input or of a constant, of which `Shape` returns a part."""
    if case.opset < 15:
        case.opset = 15
    shape = [case.between(1, 4) for _ in range(4)]
    x = case.input(case.array(shape, kind="ordinary"), 0.3)
    y = case.input(case.array([3], kind="ordinary"), 0)
    dims = one(case, "Shape", [x], {"start": case.maybe(1, -2), "end": case.maybe(3, -1)})
    part = one(case, "Slice", [dims, integers(case, 0), integers(case, 1)])
    case.outputs = [one(case, "Mul", [y, one(case, "Cast", [part], {"to": type_of(FLOAT)})])]


@pattern
def same_names(case):
    """Dimensions with the same name and different sizes, and intermediate values with wrong declared dimensions."""
    x, y = (case.input(case.array([case.between(0, 4) for _ in range(case.between(1, 3))], kind="ordinary"), 0) for _ in range(2))
    for value in case.inputs:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = case.pick(["?", "?", "", "N", "N + 1"])
    wide = one(case, "Neg", [x])
    if case.chance(0.6):
        dims = [case.pick(["?", "N", 1, 2]) for _ in case.arrays[0].shape]
        case.declared.append(helper.make_tensor_value_info(wide, TensorProto.FLOAT, dims))
    sizes = [one(case, "Shape", [value]) for value in (wide, y)]
    sizes = sizes if case.chance(0.5) else [one(case, "Slice", [size, integers(case, 0), integers(case, 1)]) for size in sizes]
    numbers = one(case, case.pick(["Concat"]), sizes, {"axis": 0})
    if case.chance(0.5):
        numbers = one(case, case.pick(["Mul", "Div", "Sub", "Max"]), [numbers, integers(case, case.pick([1, 2, 3]))])
    case.outputs = [one(case, "Cast", [numbers], {"to": type_of(FLOAT)})]


@pattern
def size_arithmetic(case):
    """Sizes, of which some are 0, compared and combined with each other."""
    shape = [case.pick([0, 1, 2, 3]) for _ in range(3)]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    dims = one(case, "Shape", [x])
    size = lambda: one(case, "Gather", [dims, case.constant(np.asarray(case.between(0, 2), np.int64))])  # noqa: E731
    values = [size(), size(), case.constant(np.asarray(case.between(-2, 3), np.int64))]
    for _ in range(case.between(1, 4)):
        values.append(one(case, case.pick(["Add", "Sub", "Mul", "Max", "Min"]), [case.pick(values), case.pick(values)]))
    if case.chance(0.5):
        condition = one(case, case.pick(["Equal", "Greater", "Less"]), [values[-1], case.pick(values)])
        values.append(one(case, "Where", [condition, case.pick(values), case.pick(values)]))
    case.outputs = [one(case, "Cast", [values[-1]], {"to": type_of(FLOAT)})]


@pattern
def constants(case):
    """What a runtime computes when it loads the file."""
    shape = case.shape(0, 2)
    values = [case.constant(np.asarray(case.array(shape, kind=case.pick(["ties", "zeros", None])))) for _ in range(2)]
    values += [scalar(case, case.pick([5.0, 2.0, -7.0, 0.5]), [])]
    for _ in range(case.between(1, 3)):
        values.append(one(case, case.pick(["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"]), [case.pick(values), case.pick(values)]))
    x = case.input(case.array(shape, kind="ordinary"), 0)
    case.outputs = [one(case, "Add", [x, values[-1]])]


@pattern
def integer_constants(case):
    # None of them is 0, since a division by 0 ends the process of ONNX Runtime.
    numbers = lambda size: case.random.integers(1, 10, size=size) * case.random.choice([-1, 1], size=size)  # noqa: E731
    given = [case.constant(np.asarray(numbers(case.pick([[], [3]])), np.int64)) for _ in range(3)]
    values = [*given]
    for _ in range(case.between(1, 3)):
        operator = case.pick(["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"])
        values.append(one(case, operator, [case.pick(values), case.pick(given if operator in ("Div", "Mod") else values)]))
    x = case.input(np.asarray(case.random.integers(-9, 10, size=[3]), np.int64), 0)
    case.outputs = [one(case, "Cast", [one(case, "Max", [x, values[-1]])], {"to": type_of(FLOAT)})]


@pattern
def transposed_inputs(case):
    """Operators that read transposed tensors in place."""
    shape = [case.between(1, 4) for _ in range(case.between(2, 4))]
    x = case.input(case.array(shape, kind="ordinary"), 0)
    perm = case.random.permutation(len(shape)).tolist()
    moved, new = one(case, "Transpose", [x], {"perm": perm}), [shape[axis] for axis in perm]
    how, axis = case.pick(["Concat", "Expand", "Slice", "Split", "MatMul"]), case.between(0, len(shape) - 1)
    if how == "Concat":
        other = moved if case.chance(0.3) else case.input(case.array(new, kind="ordinary"), 0.3)
        y = one(case, how, case.pick([[moved, other], [other, moved]]), {"axis": axis})
    elif how == "Expand":
        y = one(case, how, [moved, integers(case, 2, *new)])
    elif how == "Slice":
        y = one(case, how, [moved, integers(case, case.pick([0, 1, -1])), integers(case, case.pick([2, 9])), integers(case, axis), integers(case, case.pick([1, 1, 2]))])
    elif how == "Split":
        first = case.between(0, new[axis])
        y, other = case.node(how, [moved, integers(case, first, new[axis] - first)], {"axis": axis}, 2)
        case.outputs = [y, other]
    else:
        y = one(case, how, [moved, one(case, "Transpose", [moved], {"perm": [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]})])
    case.outputs = case.outputs or [one(case, "Relu", [y])]
    if case.chance(0.3):
        case.outputs.append(moved)


class Graph:
    """A random graph of operators that move, cut and combine tensors, which share values."""

    def __init__(self, case, values):
        self.case, self.values = case, values

    def grow(self, steps):
        for _ in range(steps):
            name, shape = self.case.pick(self.values)
            step = self.case.pick([self.unary, self.binary, self.transpose, self.slice, self.reshape, self.unsqueeze, self.concat, self.split, self.expand, self.gather, self.reduce, self.matmul])
            step(name, shape)

    def add(self, operator, inputs, shape, attributes=None):
        self.values.append((one(self.case, operator, inputs, attributes), list(shape)))

    def unary(self, name, shape):
        self.add(self.case.pick(["Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Softsign"]), [name], shape)

    def binary(self, name, shape):
        case = self.case
        alike = [other for other, size in self.values if size == shape]
        other = case.pick(alike) if case.chance(0.7) else case.input(case.array(case.broadcast(shape), kind="ordinary"), 0.7)
        self.add(case.pick(["Add", "Sub", "Mul", "Max", "Min"]), case.pick([[name, other], [other, name]]), shape)

    def transpose(self, name, shape):
        perm = self.case.random.permutation(len(shape)).tolist()
        self.add("Transpose", [name], [shape[axis] for axis in perm], {"perm": perm} if shape else None)

    def slice(self, name, shape):
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        if not axes:
            return
        case, axis = self.case, self.case.pick(axes)
        start, step = case.between(0, shape[axis] - 1), case.pick([1, 1, 1, 2])
        end = case.between(start + 1, shape[axis])
        size = len(range(start, end, step))
        lists = [integers(case, number) for number in (start, end, axis, step)]
        self.add("Slice", [name, *lists], [*shape[:axis], size, *shape[axis + 1 :]])

    def reshape(self, name, shape):
        count = int(np.prod(shape))
        new = self.case.pick([[count], shape[::-1], [1, count], [*shape, 1], shape[:-2] + [int(np.prod(shape[-2:]))]])
        self.add("Reshape", [name, integers(self.case, *new)], new)

    def unsqueeze(self, name, shape):
        single = [axis for axis, size in enumerate(shape) if size == 1]
        if single and self.case.chance(0.6):
            axis = self.case.pick(single)
            self.add("Squeeze", [name, integers(self.case, axis)], shape[:axis] + shape[axis + 1 :])
        elif len(shape) < 4:
            axis = self.case.between(0, len(shape))
            self.add("Unsqueeze", [name, integers(self.case, axis)], [*shape[:axis], 1, *shape[axis:]])

    def concat(self, name, shape):
        if not shape:
            return
        others = [other for other, size in self.values if size == shape]
        parts, axis = [name, self.case.pick(others)], self.case.between(0, len(shape) - 1)
        self.add("Concat", parts, [size * 2 if index == axis else size for index, size in enumerate(shape)], {"axis": axis})

    def split(self, name, shape):
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        if not axes:
            return
        axis = self.case.pick(axes)
        sizes = [1, shape[axis] - 1]
        names = self.case.node("Split", [name, integers(self.case, *sizes)], {"axis": axis}, 2)
        self.values += [(part, [*shape[:axis], size, *shape[axis + 1 :]]) for part, size in zip(names, sizes)]

    def expand(self, name, shape):
        if len(shape) < 4 and np.prod(shape) < 50:
            self.add("Expand", [name, integers(self.case, 2, *shape)], [2, *shape])

    def gather(self, name, shape):
        if shape:
            axis = self.case.between(0, len(shape) - 1)
            indices = self.case.random.integers(0, shape[axis], size=2)
            self.add("Gather", [name, integers(self.case, *indices)], [*shape[:axis], 2, *shape[axis + 1 :]], {"axis": axis})

    def reduce(self, name, shape):
        if shape:
            axis, keep = self.case.between(0, len(shape) - 1), self.case.pick([0, 1])
            new = [1 if index == axis else size for index, size in enumerate(shape)] if keep else shape[:axis] + shape[axis + 1 :]
            self.values.append((mean(self.case, name, [axis], keep), new))

    def matmul(self, name, shape):
        if len(shape) > 1:
            perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            other = one(self.case, "Transpose", [name], {"perm": perm})
            self.add("MatMul", [name, other], [*shape[:-2], shape[-2], shape[-2]])


def start(case):
    shape = [case.between(1, 4) for _ in range(case.between(1, 3))]
    return Graph(case, [(case.input(case.array(shape, kind="ordinary"), 0), shape) for _ in range(case.between(1, 2))])


def choose_outputs(case, values):
    names = [name for name, _ in values if name not in {value.name for value in case.inputs}]
    chosen = [names[-1], *(case.pick(names) for _ in range(case.between(0, 2)))]
    case.outputs = list(dict.fromkeys(chosen))


@pattern
def shared_values(case):
    graph = start(case)
    while len(case.nodes) < case.between(3, 12):
        graph.grow(3)
    choose_outputs(case, graph.values)


@pattern
def captured_values(case):
    """Branches and loops that read values from outside, which other nodes read as well."""
    graph = start(case)
    graph.grow(4)
    condition = case.input(np.asarray(case.chance(0.5)), 0)
    name, shape = case.pick(graph.values)
    before = len(case.nodes)

    def body(extra=()):
        """Nodes on values of the enclosing graph, as a list, and the last of their values of that shape."""
        inner = Graph(case, [*graph.values, *extra])
        first = len(case.nodes)
        inner.grow(3)
        inner.add("Identity", [case.pick([value for value, size in inner.values if size == shape])], shape)
        nodes = case.nodes[first:]
        del case.nodes[first:]
        return nodes, inner.values[-1][0]

    float_of = lambda value: helper.make_tensor_value_info(value, TensorProto.FLOAT, None)  # noqa: E731
    if case.chance(0.5):
        branches = {}
        for branch in ("then_branch", "else_branch"):
            nodes, result = body()
            branches[branch] = helper.make_graph(nodes, branch, [], [float_of(result)])
        result = one(case, "If", [condition], branches)
    else:
        state = case.name()
        nodes, result = body([(state, shape)])
        nodes.append(helper.make_node("Identity", ["going"], ["still"]))
        inputs = [helper.make_tensor_value_info("index", TensorProto.INT64, []), helper.make_tensor_value_info("going", TensorProto.BOOL, []), float_of(state)]
        loop = helper.make_graph(nodes, "body", inputs, [helper.make_tensor_value_info("still", TensorProto.BOOL, []), float_of(result)])
        trips = case.constant(np.asarray(case.between(1, 3), np.int64))
        result = one(case, "Loop", [trips, "", name], {"body": loop})
    assert len(case.nodes) == before + 1
    graph.values.append((result, shape))
    graph.grow(3)
    choose_outputs(case, graph.values)
    if result not in case.outputs:
        case.outputs.append(result)


@pattern
def shadowed_values(case):
    """Values of branches that have the names of values outside."""
    x, shape = tensor(case, 1, 2)
    condition = case.input(np.asarray(case.chance(0.5)), 0)
    outer = one(case, "Neg", [x])
    name = case.pick([outer, "y", "z", "unused"])
    branches = {}
    for branch, operator in (("then_branch", "Abs"), ("else_branch", "Sigmoid")):
        nodes = [helper.make_node(operator, [x], [name if name != outer else f"{branch}_v"])]
        nodes.append(helper.make_node("Tanh", nodes[0].output, [case.pick(["y", f"{branch}_out"])]))
        branches[branch] = helper.make_graph(nodes, branch, [], [helper.make_tensor_value_info(nodes[1].output[0], TensorProto.FLOAT, None)])
    case.nodes.append(helper.make_node("If", [condition], ["y"], **branches))
    case.nodes.append(helper.make_node("Add", ["y", outer], ["z"]))
    case.outputs = ["z"]


@pattern
def number_types(case):
    """Integers and booleans that are converted to each other and back."""
    kinds = ["float32", "int32", INT64, "bool", "int8", "uint8"]
    x = case.input(case.array(case.shape(0, 3), case.pick(["float32", "int32", INT64, "int8", "uint8"]), case.pick(["ordinary", "ties", None])), 0)
    for _ in range(case.between(1, 4)):
        x = one(case, "Cast", [x], {"to": type_of(case.pick(kinds))})
        if case.chance(0.3):
            x = one(case, case.pick(["Identity", "Transpose"]), [x])
    case.outputs = [one(case, "Cast", [x], {"to": type_of(FLOAT)})]
