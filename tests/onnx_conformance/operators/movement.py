"""Operators that move elements, or make tensors of given shapes."""

import numpy as np
from onnx import numpy_helper

from .graph import BOOL, FLOAT, FLOAT16, INT8, INT32, INT64, UINT8, type_of
from .registry import subject

MOVABLE = [FLOAT, FLOAT, INT32, INT64, BOOL, UINT8, INT8, FLOAT16]


@subject("Shape")
def shape_of(case, operator):
    shape = case.shape(0, 6)
    attributes = {}
    if case.opset >= 15:
        attributes = {"start": case.maybe(case.between(-7, 7)), "end": case.maybe(case.between(-7, 7))}
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE)))], attributes)


@subject("Size")
def size(case, operator):
    case.run(operator, [case.input(case.array(case.shape(0, 5), case.pick(MOVABLE)))])


@subject("Transpose")
def transpose(case, operator):
    shape = case.shape(0, 6)
    perm = case.random.permutation(len(shape)).tolist() if shape else None
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE)))], {"perm": case.pick([None, perm, perm])})


@subject("Reshape", split=["attribute allowzero"], weight=2)
def reshape(case, operator):
    shape = case.shape(0, 5)
    total = int(np.prod(shape))
    target = [*case.random.permutation(shape)]
    if case.chance(0.5):
        target = [total]
        for _ in range(case.between(0, 3)):
            divisors = [d for d in range(1, max(target[-1], 1) + 1) if target[-1] % d == 0]
            divisor = int(case.pick(divisors or [1]))
            target[-1:] = [divisor, target[-1] // divisor if divisor else 0]
    attributes = {"allowzero": case.maybe(0, 1) if case.opset >= 14 else None}
    if total and target and case.chance(0.5):
        target[case.between(0, len(target) - 1)] = -1
    for index in range(min(len(target), len(shape))):
        if not attributes["allowzero"] and target[index] == shape[index] and case.chance(0.3):
            target[index] = 0
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.list(target)], attributes)


@subject("Flatten")
def flatten(case, operator):
    shape = case.shape(0, 5)
    low = -len(shape) if case.opset >= 11 else 0
    axis = case.pick([None, case.between(low, len(shape))]) if shape else 0
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE)))], {"axis": axis})


@subject("Squeeze", split=["axes"], weight=2)
def squeeze(case, operator):
    shape = [1 if case.chance(0.5) else size for size in case.shape(0, 5)]
    ones = [axis - (len(shape) if case.opset >= 11 and case.chance(0.4) else 0) for axis, size in enumerate(shape) if size == 1]
    axes = None if case.chance(0.3) else [axis for axis in ones if case.chance(0.7)]
    x = case.input(case.array(shape, case.pick(MOVABLE)))
    if case.opset >= 13:
        case.run(operator, [x] if axes is None else [x, case.list(axes)])
    else:
        case.run(operator, [x], {"axes": axes or None})


@subject("Unsqueeze")
def unsqueeze(case, operator):
    shape = case.shape(0, 5)
    count = case.between(1, 2)
    rank = len(shape) + count
    axes = [int(axis) for axis in case.random.choice(rank, count, replace=False)]
    if case.opset >= 11:
        axes = [axis - rank if case.chance(0.4) else axis for axis in axes]
    else:
        axes = sorted(axes)
    x = case.input(case.array(shape, case.pick(MOVABLE)))
    if case.opset >= 13:
        case.run(operator, [x, case.list(axes)])
    else:
        case.run(operator, [x], {"axes": axes})


@subject("Concat")
def concat(case, operator):
    shape = case.shape(1, 6)
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    dtype = case.pick(MOVABLE)
    inputs = []
    for _ in range(case.between(1, 4)):
        shape[axis] = case.between(0 if case.chance(0.2) else 1, 4)
        inputs.append(case.input(case.array(shape, dtype)))
    if case.chance(0.05):
        inputs.append(inputs[0])
    case.run(operator, inputs, {"axis": axis})


@subject("Split", split=["attribute num_outputs"])
def split(case, operator):
    shape = case.shape(1, 5)
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    count = case.between(1, 3)
    sizes = [case.between(0 if case.chance(0.1) else 1, 3) for _ in range(count)]
    equal = case.chance(0.4)
    if equal:
        sizes = [sizes[0]] * count
    shape[axis] = sum(sizes)
    attributes, inputs = {"axis": case.pick([axis, None]) if axis == 0 else axis}, [None]
    if case.opset >= 18 and case.chance(0.5):
        attributes["num_outputs"] = count
        shape[axis] = case.between(count, 3 * count)
    elif not (equal and case.opset < 18 and case.chance(0.5)):
        if case.opset >= 13:
            inputs.append(case.list(sizes))
        else:
            attributes["split"] = sizes
    inputs[0] = case.input(case.array(shape, case.pick(MOVABLE)))
    case.run(operator, inputs, attributes, count)


@subject("Slice", exclude=[("steps without axes", "yes")], weight=4)
def slices(case, operator):
    shape = case.shape(1, 5, largest=7)
    rank = len(shape)
    count = case.between(1, rank)
    axes = [int(axis) for axis in case.random.choice(rank, count, replace=False)]
    steps = [case.pick([1, 1, 2, 3, -1, -2]) for _ in axes]
    far = case.pick([2**63 - 1, 2**31 - 1, 100])
    starts, ends = [], []
    for axis, step in zip(axes, steps):
        low, high = case.between(-9, 9), case.between(-9, 9)
        if case.opset < 10:
            step = 1
        starts.append(case.pick([low, 0 if step > 0 else -1, far if step < 0 else 0]))
        ends.append(case.pick([high, far if step > 0 else -far]))
    if case.opset >= 10:
        axes = [axis - rank if case.chance(0.3) else axis for axis in axes]
    given = case.chance(0.8) or axes != list(range(count))
    x = case.array(shape, case.pick(MOVABLE))
    if case.opset < 10:
        case.run(operator, [case.input(x)], {"starts": starts, "ends": ends, "axes": axes if given else None})
        return
    kind = case.pick([np.int64, np.int64, np.int32])
    if kind == np.int32:
        starts, ends = np.clip(starts, -(2**31), 2**31 - 1), np.clip(ends, -(2**31), 2**31 - 1)
    far_constant = 1.0 if kind == np.int64 and any(abs(int(value)) > 2**31 - 1 for value in [*starts, *ends]) else 0.6
    lists = [case.input(np.asarray(values, kind), far_constant) for values in (starts, ends)]
    stepped = any(step != 1 for step in steps) or case.chance(0.4)
    if given or stepped:
        lists.append(case.input(np.asarray(axes, kind), 0.7) if given or case.chance(0.5) else "")
    if stepped:
        lists.append(case.input(np.asarray(steps, kind), 0.7))
    case.run(operator, [case.input(x), *lists])


@subject("Gather")
def gather(case, operator):
    shape = case.shape(1, 5)
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    indices = positions(case, shape[axis], case.shape(0, 3))
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.input(indices)], {"axis": case.pick([axis, axis, None]) if axis == 0 else axis})


def positions(case, size, shape, negative=True):
    """Valid indices of a dimension."""
    low = -size if negative and case.opset >= 11 else 0
    if size == 0:
        shape = [0, *shape[1:]]
        return np.zeros(shape, np.int64)
    values = case.random.integers(low, size, size=shape)
    return np.asarray(values, case.pick([np.int64, np.int64, np.int32]))


@subject("GatherElements")
def gather_elements(case, operator):
    shape = case.shape(1, 4)
    axis = case.axis(len(shape))
    taken = [case.between(1, size) if size else 0 for size in shape]
    taken[axis] = case.between(1, 4) if shape[axis] else 0
    indices = positions(case, shape[axis], taken)
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.input(indices)], {"axis": axis})


@subject("GatherND")
def gather_nd(case, operator):
    batch = case.between(0, 1) if case.opset >= 12 else 0
    shape = case.shape(batch + 1, 4, empty=0)
    depth = case.between(1, len(shape) - batch)
    count = case.shape(0 if batch == 0 else 0, 2)
    each = [case.random.integers(-size, size, size=[*shape[:batch], *count]) for size in shape[batch : batch + depth]]
    indices = np.asarray(np.stack(each, -1), np.int64)
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.input(indices)], {"batch_dims": batch or case.maybe(0)})


REDUCE = {11: ["none"], 16: ["none", "add", "mul"], 18: ["none", "add", "mul", "max", "min"]}


def reduction_attribute(case):
    allowed = REDUCE[max(version for version in REDUCE if version <= case.opset)] if case.opset >= 11 else []
    return case.maybe(*allowed) if case.opset >= 16 else None


# The minimum and the maximum of a number and NaN differ.
@subject("ScatterElements", "Scatter", split=["attribute reduction", "indices"], without=["nan"], weight=3)
def scatter_elements(case, operator):
    shape = case.shape(1, 3)
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    reduction = reduction_attribute(case) if operator == "ScatterElements" else None
    taken = [case.between(1, size) if size else 0 for size in shape]
    indices = np.zeros(taken, np.int64)
    for index in np.ndindex(*[size for position, size in enumerate(taken) if position != axis % len(shape)]):
        place = [*index]
        place.insert(axis % len(shape), slice(None))
        count = taken[axis]
        repeated = reduction not in (None, "none")
        indices[tuple(place)] = case.random.choice(shape[axis], count, replace=repeated) if count else []
    if case.opset >= 11 and case.chance(0.4) and indices.size:
        indices = np.where(case.random.random(indices.shape) < 0.5, indices, indices - shape[axis])
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64]) if reduction not in (None, "none") else case.pick(MOVABLE)
    kind = "ordinary" if reduction not in (None, "none") else None
    arrays = [case.array(shape, dtype, kind), indices, case.array(taken, dtype, kind)]
    case.run(operator, [case.input(array) for array in arrays], {"axis": axis, "reduction": reduction})


@subject("ScatterND", split=["attribute reduction"], without=["nan"], weight=2)
def scatter_nd(case, operator):
    reduction = reduction_attribute(case)
    shape = case.shape(1, 3, empty=0)
    depth = case.between(1, len(shape))
    rows = int(np.prod(shape[:depth]))
    count = case.between(1, rows)
    repeated = reduction not in (None, "none")
    chosen = case.random.choice(rows, count, replace=repeated)
    indices = np.stack(np.unravel_index(chosen, shape[:depth]), -1).astype(np.int64)
    if case.chance(0.4):
        indices = np.where(case.random.random(indices.shape) < 0.5, indices, indices - np.asarray(shape[:depth]))
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64]) if repeated else case.pick(MOVABLE)
    kind = "ordinary" if repeated else None
    arrays = [case.array(shape, dtype, kind), indices, case.array([count, *shape[depth:]], dtype, kind)]
    case.run(operator, [case.input(array) for array in arrays], {"reduction": reduction})


@subject("Expand")
def expand(case, operator):
    shape = case.shape(0, 5)
    target = [case.between(1, 4) if size == 1 else case.pick([1, size]) for size in shape]
    target = [case.between(1, 3) for _ in range(case.between(0, 2))] + target
    if case.chance(0.2):
        target = target[case.between(0, len(target)) :]
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.list(target)])


@subject("Tile")
def tile(case, operator):
    shape = case.shape(1, 5)
    repeats = [case.between(0 if case.chance(0.1) else 1, 3) for _ in shape]
    case.run(operator, [case.input(case.array(shape, case.pick(MOVABLE))), case.list(repeats)])


@subject("Pad", split=["attribute mode", "negative"], weight=3)
def pad(case, operator):
    mode = case.maybe(*(["constant", "reflect", "edge"] + (["wrap"] if case.opset >= 19 else [])))
    shape = [size + 1 for size in case.shape(1, 4, empty=0.04 if mode in (None, "constant") else 0)]
    axes = list(range(len(shape)))
    if case.opset >= 18 and case.chance(0.3):
        axes = sorted(int(axis) for axis in case.random.choice(axes, case.between(1, len(axes)), replace=False))
    low = -1 if case.chance(0.15) else 0
    largest = {"reflect": 1, "wrap": 1}.get(mode, 3)
    pads = [case.between(low, min(largest, max(shape[axis] - 1, 0)) if largest == 1 else largest) for axis in axes + axes]
    if case.opset < 11:
        attributes = {"mode": mode, "pads": pads, "value": case.maybe(0.0, 1.5)}
        case.run(operator, [case.input(case.array(shape))], attributes)
        return
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64, UINT8, INT8, BOOL]) if case.opset >= 13 else FLOAT
    value = case.input(case.array([], dtype, "ordinary"), 0.8) if case.chance(0.5) else ""
    inputs = [case.input(case.array(shape, dtype)), case.list(pads), value]
    if case.opset >= 18 and len(axes) < len(shape):
        given = [axis - len(shape) if case.chance(0.3) else axis for axis in axes]
        inputs.append(case.list(given))
    case.run(operator, inputs, {"mode": mode})


@subject("ConstantOfShape")
def constant_of_shape(case, operator):
    dtype = case.pick([FLOAT, INT32, INT64, BOOL, UINT8, INT8])
    value = numpy_helper.from_array(case.array([1], dtype, "ordinary"))
    case.run(operator, [case.list(case.shape(0, 4))], {"value": case.pick([None, value, value])})


@subject("Range", weight=2)
def ranges(case, operator):
    dtype = case.pick([FLOAT, INT32, INT64])
    start, count, delta = case.between(-9, 9), case.between(-2, 6), case.pick([1, 2, -1, -3])
    if dtype == FLOAT:
        start, delta = start * case.pick([1.0, 0.1]), delta * case.pick([0.5, 1.0, 0.3, 0.1, 0.7])
        count = case.between(-2, 40)
    values = [start, start + count * delta, delta]
    case.run(operator, [case.input(np.asarray(value, dtype)) for value in values])


@subject("OneHot", joint=["type 1", "type 2"], weight=2)
def one_hot(case, operator):
    size = case.between(1, 5)
    shape = case.shape(1, 3)
    indices, dtype, depth = case.pick([(INT64, FLOAT, INT64), (INT64, FLOAT, INT64), (INT64, INT64, INT64), (INT32, FLOAT, INT32), (FLOAT, FLOAT, FLOAT), (INT64, INT32, INT64)])
    array = np.asarray(case.random.integers(-size - 2, size + 2, size=shape), indices)
    values = np.asarray([0, 1] if case.chance(0.5) else case.array([2], dtype, "ordinary"), dtype)
    depth = np.asarray(size, depth)
    if case.chance(0.3):
        depth = depth.reshape(1)
    attributes = {"axis": case.maybe(case.axis(len(shape) + 1))}
    case.run(operator, [case.input(array), case.input(depth, 0.7), case.input(values, 0.7)], attributes)


@subject("EyeLike")
def eye_like(case, operator):
    dtype = case.pick([None, FLOAT, INT32, INT64])
    attributes = {"k": case.maybe(-1, 0, 2), "dtype": dtype and type_of(dtype)}
    x = case.array([case.between(1, 5), case.between(1, 5)], case.pick([FLOAT, INT32, INT64]))
    case.run(operator, [case.input(x)], attributes)


@subject("Trilu")
def trilu(case, operator):
    shape = case.shape(2, 4)
    k = case.input(np.asarray(case.pick([case.between(-6, 6), 0, 1]), np.int64), 0.6) if case.chance(0.7) else ""
    dtype = case.pick([FLOAT, FLOAT, INT64, INT32, BOOL])
    case.run(operator, [case.input(case.array(shape, dtype)), k], {"upper": case.maybe(0, 1)})


@subject("DepthToSpace", "SpaceToDepth")
def depth_to_space(case, operator):
    block = case.between(1, 3)
    n, c, h, w = (case.between(1, 3) for _ in range(4))
    shape = [n, c * block * block, h, w] if operator == "DepthToSpace" else [n, c, h * block, w * block]
    mode = case.maybe("DCR", "CRD") if operator == "DepthToSpace" and case.opset >= 11 else None
    case.run(operator, [case.input(case.array(shape))], {"blocksize": block, "mode": mode})


@subject("ReverseSequence")
def reverse_sequence(case, operator):
    shape = case.shape(2, 4, empty=0)
    time, batch = case.pick([(0, 1), (1, 0)])
    lengths = [case.between(1, shape[time]) for _ in range(shape[batch])]
    attributes = {"time_axis": time or case.maybe(0), "batch_axis": batch if batch == 0 else case.maybe(1)}
    dtype = case.pick([FLOAT, INT32, INT64])
    case.run(operator, [case.input(case.array(shape, dtype)), case.list(lengths)], attributes)


@subject("Compress")
def compress(case, operator):
    shape = case.shape(1, 3)
    axis = case.pick([None, case.axis(len(shape))])
    size = int(np.prod(shape)) if axis is None else shape[axis]
    case.run(operator, [case.input(case.array(shape)), case.input(case.array([size], BOOL))], {"axis": axis})
