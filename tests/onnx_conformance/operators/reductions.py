"""Reductions, searches and cumulative sums."""

import numpy as np

from .graph import FLOAT, INT8, INT32, INT64, UINT8
from .registry import subject

REDUCTIONS = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
]


@subject(*REDUCTIONS, split=["attribute noop_with_empty_axes", "axes"], relative_to_largest=1e-6, weight=2)
def reduction(case, operator):
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64])
    if operator in ("ReduceMax", "ReduceMin") and case.opset >= 12:
        dtype = case.pick([FLOAT, FLOAT, INT32, INT64, UINT8, INT8])
    shape = case.shape(0, 5)
    rank = len(shape)
    count = case.between(0, rank)
    axes = sorted(case.random.choice(rank, count, replace=False).tolist()) if rank else []
    axes = [axis - rank if case.chance(0.3) else axis for axis in axes]
    kinds = ["ordinary", "ties", "zeros", "special"] if operator in ("ReduceMax", "ReduceMin") else ["ordinary", "ordinary", "ties", "zeros"]
    array = case.array(shape, dtype, case.pick(kinds))
    if dtype == FLOAT and array.size and case.chance(0.15):
        array.flat[0] = case.pick([np.nan, np.inf, -np.inf])
        case.data.add("nan" if np.isnan(array.flat[0]) else "infinite")
    attributes = {"keepdims": case.maybe(0, 1)}
    inputs = [case.input(array)]
    as_input = case.opset >= (13 if operator == "ReduceSum" else 18)
    if as_input:
        attributes["noop_with_empty_axes"] = case.maybe(0, 1)
        if axes or case.chance(0.4):
            inputs.append(case.list(axes))
    else:
        if case.opset < 11:
            axes = [axis % rank for axis in axes]
        attributes["axes"] = axes or None
    case.run(operator, inputs, attributes)


@subject("ArgMax", "ArgMin", split=["attribute select_last_index"])
def arg(case, operator):
    shape = case.shape(1, 4)
    dtype = case.pick([FLOAT, FLOAT, INT32, UINT8, INT8, INT64])
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    last = case.maybe(0, 1) if case.opset >= 12 else None
    attributes = {"axis": case.pick([axis, None]), "keepdims": case.maybe(0, 1), "select_last_index": last}
    case.run(operator, [case.input(case.array(shape, dtype))], attributes)


@subject("CumSum", split=["attribute exclusive", "attribute reverse"], relative_to_largest=1e-6)
def cumulative_sum(case, operator):
    shape = case.shape(1, 4)
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64])
    axis = np.asarray(case.axis(len(shape)), case.pick([np.int64, np.int32]))
    if case.chance(0.3):
        axis = axis.reshape(1)
    attributes = {"exclusive": case.maybe(0, 1), "reverse": case.maybe(0, 1)}
    case.run(operator, [case.input(case.array(shape, dtype, case.pick(["ordinary", "ties"]))), case.input(axis)], attributes)


# The order of several NaN differs.
@subject("TopK", split=["attribute largest", "attribute sorted"], without=["nan"], weight=3)
def top_k(case, operator):
    shape = case.shape(1, 4)
    dtype = case.pick([FLOAT, FLOAT, INT32, INT64]) if case.opset >= 11 else FLOAT
    axis = case.axis(len(shape))
    if case.opset < 11:
        axis %= len(shape)
    k = case.between(0, shape[axis]) if case.opset >= 10 else max(1, shape[axis] - 1)
    attributes = {"axis": axis if axis not in (-1, len(shape) - 1) else case.pick([axis, None])}
    x = case.input(case.array(shape, dtype))
    if case.opset < 10:
        case.run(operator, [x], {**attributes, "k": k}, 2)
        return
    if case.opset >= 11:
        attributes |= {"largest": case.maybe(0, 1), "sorted": case.maybe(1, 0)}
    case.run(operator, [x, case.list([k])], attributes, 2)


@subject("NonZero", split=["rank 0"])
def non_zero(case, operator):
    dtype = case.pick([FLOAT, INT32, INT64, "bool", UINT8])
    case.run(operator, [case.input(case.array(case.shape(0, 4), dtype, case.pick(["ties", "zeros", "special"])))])


@subject("Hardmax")
def hardmax(case, operator):
    shape = case.shape(1, 4)
    case.run(operator, [case.input(case.array(shape))], {"axis": case.maybe(case.axis(len(shape)))})


@subject("Softmax", "LogSoftmax", split=["normalized dimensions"], weight=4)
def softmax(case, operator):
    shape = case.shape(1, 5)
    if case.chance(0.1):
        shape[-1] *= 8
    axis = case.axis(len(shape)) if case.opset >= 11 else case.between(0, len(shape) - 1)
    last = -1 if case.opset >= 11 and case.chance(0.5) else len(shape) - 1
    attributes = {"axis": case.pick([axis, None, last])}
    if case.opset < 13 and attributes["axis"] is None and len(shape) == 1:
        attributes["axis"] = 0
    case.run(operator, [case.input(case.array(shape, kind=case.pick([None, "infinite"])))], attributes)
