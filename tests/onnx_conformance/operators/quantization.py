"""Operators on quantized numbers."""

import numpy as np

from .graph import FLOAT, INT8, INT32, UINT8
from .registry import subject

# Products of 8-bit integers are not compared: a comparison would hold for one kind of processor only.
SATURATING = "without VNNI instructions, the runtime saturates sums of products of 8-bit integers at 16 bits"
REJECTED = {"ConvInteger": SATURATING, "DynamicQuantizeLSTM": SATURATING, "MatMulInteger": SATURATING}


@subject("QuantizeLinear", split=["rank 1", "attribute axis", "source 1"], weight=3)
def quantize(case, operator):
    shape = case.shape(1, 4)
    dtype = case.pick([UINT8, INT8])
    per_axis = case.opset >= 13 and case.chance(0.4)
    axis = case.axis(len(shape))
    size = [shape[axis]] if per_axis else []
    scale = np.asarray(case.random.choice([0.5, 0.25, 0.1, 1.0, 0.013], size=size), np.float32)
    x = case.array(shape, kind=case.pick(["ordinary", "ties", "infinite", "zeros"])) * np.float32(case.pick([1.0, 30.0]))
    if case.chance(0.4):
        # Quotients halfway between two integers.
        x = np.asarray((np.round(x) + np.float32(0.5)) * scale.reshape(-1)[:1].reshape([]) if scale.size else x, np.float32)
    inputs = [case.input(np.asarray(x, np.float32)), case.input(scale, 0.7)]
    if case.chance(0.8):
        inputs.append(case.input(case.array(size, dtype), 0.7))
    attributes = {"axis": axis if per_axis else case.maybe(0)} if case.opset >= 13 else {}
    if per_axis and axis == 1 and case.chance(0.5):
        attributes["axis"] = None
    case.run(operator, inputs, attributes)


@subject("DequantizeLinear", split=["rank 1", "attribute axis"], weight=3)
def dequantize(case, operator):
    shape = case.shape(1, 4)
    dtype = case.pick([UINT8, INT8, INT32])
    per_axis = case.opset >= 13 and case.chance(0.5)
    axis = case.axis(len(shape))
    size = [shape[axis]] if per_axis else []
    scale = np.abs(case.array(size, FLOAT, "ordinary"))
    inputs = [case.input(case.array(shape, dtype, "ordinary")), case.input(scale, 0.7)]
    if dtype == INT32:
        if case.chance(0.3):
            inputs.append(case.constant(np.zeros(size, np.int32)))
    elif case.chance(0.8):
        inputs.append(case.input(case.array(size, dtype), 0.7))
    attributes = {"axis": axis if per_axis else case.maybe(0)} if case.opset >= 13 else {}
    if per_axis and axis == 1 and case.chance(0.5):
        attributes["axis"] = None
    case.run(operator, inputs, attributes)


@subject("DynamicQuantizeLinear", weight=2)
def dynamic_quantize(case, operator):
    kind = case.pick(["ordinary", "ties", "zeros"])
    x = case.array(case.shape(1, 4), kind=kind)
    if case.chance(0.4):
        x = np.abs(x) if case.chance(0.5) else -np.abs(x)
    case.run(operator, [case.input(x)], outputs=3)


@subject("QLinearMatMul", "QLinearConv")
def quantized_linear(case, operator):
    scale, point = lambda: case.constant(np.float32(0.1)), lambda: case.constant(np.uint8(3))  # noqa: E731
    if operator == "QLinearMatMul":
        a, b = case.array([2, 3], UINT8), case.array([3, 4], UINT8)
        case.run(operator, [case.input(a, 0), scale(), point(), case.constant(b), scale(), point(), scale(), point()])
    else:
        a, b = case.array([1, 2, 5, 5], UINT8), case.array([2, 2, 3, 3], UINT8)
        inputs = [case.input(a, 0), scale(), point(), case.constant(b), scale(), point(), scale(), point()]
        case.run(operator, inputs, {"kernel_shape": [3, 3]})
