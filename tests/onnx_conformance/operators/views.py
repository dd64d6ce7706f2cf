"""Feeds the inputs of a case through operators that leave a tensor in another order in memory than its elements have.

The embedded runtime cuts a tensor in place if it may overwrite it, which leaves gaps between its rows, and reads transposed tensors
through their strides in some operators. An operator that is verified only with contiguous tensors may be wrong with such ones.
"""

import numpy as np
from onnx import helper, numpy_helper

# How many of the cases of an operator have such inputs, and how many of their inputs are.
CASES, INPUTS = 0.4, 0.7


def make_views(case, random):
    """Sometimes replaces inputs and stored weights of a case by others, from which nodes before its own compute the same values."""
    if random.random() >= CASES:
        return
    nodes, own = case.nodes, []
    for index, (value, array) in enumerate(zip(case.inputs, case.arrays)):
        if array.ndim and random.random() < INPUTS:
            source, array = _view(case, value.name, array, random, own)
            case.views[value.name] = source
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            is_open = any(size == 0 for size in dims) and array.size > 0
            shape = [f"{source}_{axis}" if is_open else size for axis, size in enumerate(array.shape)]
            kind = value.type.tensor_type.elem_type
            case.inputs[index] = helper.make_tensor_value_info(source, kind, shape)
            case.arrays[index] = array
    for index, tensor in enumerate(list(case.initializers)):
        if len(tensor.dims) >= 2 and tensor.data_type == helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)) and random.random() < 0.3:
            array = numpy_helper.to_array(tensor)
            source, array = _stored(case, tensor.name, array, random, own)
            case.initializers[index] = numpy_helper.from_array(np.ascontiguousarray(array), source)
    case.nodes = own + nodes


def _view(case, name, array, random, nodes):
    """Adds nodes that compute a value from another one; returns the name and the content of that."""
    how = random.choice(["cut", "cut", "cut", "transposed", "transposed", "steps", "both", "repeated"])
    if how == "both":
        source, array = _cut(case, name, array, random, nodes)
        return _transposed(case, source, array, random, nodes)
    if how == "transposed" and array.ndim > 1:
        return _transposed(case, name, array, random, nodes)
    if how == "repeated" and array.dtype == np.float32 and np.isfinite(array).all() and case.opset >= 8:
        return _repeated(case, name, array, random, nodes)
    return _cut(case, name, array, random, nodes, 2 if how == "steps" and case.opset >= 10 else 1)


def _stored(case, name, array, random, nodes):
    """The same for a weight: the runtime copies it before it cuts the copy in place."""
    source, array = _cut(case, name, array, random, nodes)
    return _transposed(case, source, array, random, nodes)


def _transposed(case, name, array, random, nodes):
    source = f"{name}_t"
    perm = [int(axis) for axis in random.permutation(array.ndim)]
    nodes.insert(0, helper.make_node("Transpose", [source], [name], perm=perm))
    return source, np.ascontiguousarray(array.transpose(np.argsort(perm)))


def _cut(case, name, array, random, nodes, step=1):
    """A part of a larger tensor: of the last dimension more often than of others, since that separates most elements."""
    source = f"{name}_c"
    axes = [axis for axis in range(array.ndim) if array.shape[axis]]
    if not axes:
        nodes.insert(0, helper.make_node("Identity", [source], [name]))
        return source, array
    axis = axes[-1] if random.random() < 0.5 else int(random.choice(axes))
    size = array.shape[axis]
    before, after = int(random.integers(0, 3)), int(random.integers(0, 3))
    larger = np.repeat(array, step, axis)
    larger = np.pad(larger, [(before, after) if index == axis else (0, 0) for index in range(array.ndim)], mode="edge")
    start, end = before, before + (size - 1) * step + 1
    if case.opset < 10:
        nodes.insert(0, helper.make_node("Slice", [source], [name], starts=[start], ends=[end], axes=[axis]))
        return source, larger
    lists = {"start": [start], "end": [end], "axis": [axis], "step": [step]}
    for key, values in lists.items():
        case.initializers.append(numpy_helper.from_array(np.asarray(values, np.int64), f"{source}_{key}"))
    nodes.insert(0, helper.make_node("Slice", [source, *(f"{source}_{key}" for key in lists)], [name]))
    return source, larger


def _repeated(case, name, array, random, nodes):
    """A tensor that repeats one element along a dimension. Changes the values."""
    source, axis = f"{name}_r", int(random.integers(array.ndim))
    if not array.shape[axis]:
        return _cut(case, name, array, random, nodes)
    case.initializers.append(numpy_helper.from_array(np.asarray(array.shape, np.int64), f"{source}_shape"))
    nodes.insert(0, helper.make_node("Expand", [source, f"{source}_shape"], [name]))
    return source, np.ascontiguousarray(array.take([0], axis))
