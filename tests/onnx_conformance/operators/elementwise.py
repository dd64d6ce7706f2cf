"""Operators that work element by element."""

import numpy as np

from .graph import BOOL, DOUBLE, FLOAT, FLOAT16, INT8, INT32, INT64, UINT8, type_of
from .registry import LOOSE, subject

# The runtime drops constants that change nothing, and divides by a single element, without regard to its dimensions.
WIDE = [("one wide element", "yes")]
# It takes `x - x` for 0 and `x / x` for 1, which NaN and infinities are not.
REPEATED = [("repeated input", "yes")]
NUMBERS = [FLOAT, FLOAT, INT32, INT64]


def types(case, *rest):
    return case.pick(list(rest))


@subject(
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Exp", "HardSwish", "Log", "Mish", "Reciprocal",
    "Round", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "Ceil", "Floor",
)
def unary(case, operator):
    case.run(operator, [case.input(case.array(case.shape(0, 5)))])


@subject("Abs", "Neg", "Sign")
def signed(case, operator):
    dtype = types(case, FLOAT, INT32, INT64, INT8, UINT8)
    if operator == "Neg" and dtype == UINT8:
        dtype = FLOAT
    case.run(operator, [case.input(case.array(case.shape(0, 5), dtype))])


@subject("Relu")
def relu(case, operator):
    dtype = types(case, FLOAT, INT32, INT64, INT8)
    case.run(operator, [case.input(case.array(case.shape(0, 5), dtype))])


@subject("IsNaN", "IsInf")
def tests(case, operator):
    attributes = {}
    if operator == "IsInf":
        attributes = {"detect_positive": case.maybe(0, 1), "detect_negative": case.maybe(0, 1)}
    case.run(operator, [case.input(case.array(case.shape(0, 5), kind="special"))], attributes)


@subject("LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "Swish", relative_to_largest=1e-6)
def one_parameter(case, operator):
    case.run(operator, [case.input(case.array(case.shape(0, 5)))], {"alpha": case.maybe(0.1, 1.0, 2.5, 0.0, -0.5)})


@subject("Selu", "HardSigmoid")
def two_parameters(case, operator):
    other = "gamma" if operator == "Selu" else "beta"
    attributes = {"alpha": case.maybe(0.1, 0.3, 1.7), other: case.maybe(0.2, 0.6, 1.1)}
    case.run(operator, [case.input(case.array(case.shape(0, 5)))], attributes)


@subject("Gelu")
def gelu(case, operator):
    case.run(operator, [case.input(case.array(case.shape(0, 5)))], {"approximate": case.maybe("none", "tanh")})


@subject("PRelu")
def prelu(case, operator):
    shape = case.shape(1, 4)
    dtype = types(case, FLOAT, FLOAT, INT32)
    slope = case.broadcast(shape)
    case.run(operator, [case.input(case.array(shape, dtype)), case.input(case.array(slope, dtype))])


def operands(case, dtypes, count=2, kind=None):
    shape = case.shape(0, 5)
    dtype = case.pick(dtypes)
    shapes = [shape] + [case.broadcast(shape) for _ in range(count - 1)]
    case.random.shuffle(shapes)
    names = [case.input(case.array(shape, dtype, kind)) for shape in shapes]
    if count > 1 and case.chance(0.04):
        names[1] = names[0]
    return names


@subject("Add", "Mul", split=["one wide element", "only scalars"], exclude=WIDE, weight=3)
@subject("Sub", "Div", split=["one wide element", "only scalars"], exclude=WIDE + REPEATED, weight=3)
def arithmetic(case, operator):
    dtype = types(case, *NUMBERS, INT8, UINT8)
    if operator == "Div" and dtype in (INT32, INT64, INT8, UINT8):
        shape = case.shape(0, 5)
        divisor = case.array(case.broadcast(shape), dtype)
        divisor[divisor == 0] = 3
        if divisor.dtype.kind == "i":
            divisor[divisor == -1] = -2
        case.run(operator, [case.input(case.array(shape, dtype)), case.input(divisor)])
        return
    names = operands(case, [dtype])
    if dtype == FLOAT and case.chance(0.15):
        # The runtime drops constants that change nothing.
        constant = np.full([1] * case.between(0, 5), case.pick([0.0, 1.0]), np.float32)
        names[case.between(0, 1)] = case.constant(constant)
    case.run(operator, names)


@subject("Mod")
def mod(case, operator):
    dtype = types(case, FLOAT, INT32, INT64, INT8, UINT8)
    shape = case.shape(0, 4)
    divisor = case.array(case.broadcast(shape), dtype)
    if dtype != FLOAT:
        divisor[divisor == 0] = 3
        if divisor.dtype.kind == "i":
            divisor[divisor == -1] = -2
    fmod = 1 if dtype == FLOAT else case.maybe(0, 1)
    case.run(operator, [case.input(case.array(shape, dtype)), case.input(divisor)], {"fmod": fmod})


@subject("Pow", joint=["type 1"], split=["one wide element", "only scalars"], exclude=WIDE, weight=4)
def power(case, operator):
    base, exponent = FLOAT, types(case, FLOAT, FLOAT, INT32, INT64)
    if case.opset < 12:
        exponent = base
    shape = case.shape(0, 5)
    powers = case.array(case.broadcast(shape), exponent)
    if case.chance(0.5):
        powers = np.asarray(case.pick([2, 3, 0.5, -1, 0, 1, -2, 4]) + np.zeros(powers.shape), exponent)
    case.run(operator, [case.input(case.array(shape, base)), case.input(powers)])


@subject("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", split=["only scalars"], weight=2)
def comparison(case, operator):
    dtypes = [FLOAT, INT32, INT64, UINT8, INT8] + ([BOOL] if operator == "Equal" else [])
    case.run(operator, operands(case, dtypes, kind=case.pick(["ties", "special", "zeros"])))


@subject("And", "Or", "Xor")
def logic(case, operator):
    case.run(operator, operands(case, [BOOL]))


@subject("Not")
def negation(case, operator):
    case.run(operator, [case.input(case.array(case.shape(0, 5), BOOL))])


@subject("Max", "Min", "Sum", "Mean", split=["only scalars"], weight=2)
def variadic(case, operator):
    dtypes = [FLOAT] if operator in ("Sum", "Mean") else [FLOAT, INT32, INT64, INT8, UINT8]
    case.run(operator, operands(case, dtypes, count=case.between(1, 4)))


@subject("Where", split=["only scalars"], exclude=[("only scalars", "yes"), ("type 0", LOOSE)], weight=3)
def where(case, operator):
    dtype = types(case, FLOAT, INT32, INT64, BOOL, UINT8, INT8)
    shape = [] if case.chance(0.1) else case.shape(0, 5)
    condition = case.array(case.broadcast(shape), BOOL)
    values = [case.array(case.broadcast(shape), dtype) for _ in range(2)]
    if case.chance(0.5):
        values[0] = case.array(shape, dtype)
    case.run(operator, [case.input(array) for array in [condition, *values]])


@subject("Clip")
def clip(case, operator):
    dtype = types(case, FLOAT, FLOAT, INT32, INT64, INT8, UINT8) if case.opset >= 12 else FLOAT
    low, high = sorted(case.array([2], dtype, "ordinary").tolist())
    if case.chance(0.05):
        low, high = high, low
    x = case.input(case.array(case.shape(0, 5), dtype))
    if case.opset < 11:
        case.run(operator, [x], {"min": case.maybe(float(low)), "max": case.maybe(float(high))})
        return
    bounds = [case.input(np.asarray(bound, dtype), 0.6) if case.chance(0.7) else "" for bound in (low, high)]
    case.run(operator, [x, *bounds])


@subject("Cast", split=["attribute to", "source 0"], joint=["attribute to"], relative=0.0, weight=8)
def cast(case, operator):
    source = case.pick([FLOAT, INT32, INT64, BOOL, UINT8, INT8, FLOAT16, DOUBLE])
    target = FLOAT if source == DOUBLE else case.pick([FLOAT, INT32, INT64, BOOL, UINT8, INT8])
    array = castable(case, source, target)
    name = case.input(array, 1.0 if source in (DOUBLE, FLOAT16) and case.chance(0.6) else 0.25)
    case.run(operator, [name], {"to": type_of(target), "saturate": None if case.opset < 19 else case.maybe(1)})


@subject("CastLike", joint=["type 1"], relative=0.0, weight=3)
def cast_like(case, operator):
    source, target = case.pick([FLOAT, INT32, INT64, BOOL, UINT8, INT8]), case.pick([FLOAT, INT32, INT64, BOOL, UINT8, INT8])
    case.run(operator, [case.input(castable(case, source, target)), case.input(case.array([2], target))])


def castable(case, source, target):
    """Values whose conversion the standard defines: it leaves open what NaN and numbers beyond the target become."""
    array = case.array(case.shape(0, 4), source)
    if source in (FLOAT, DOUBLE, FLOAT16) and target in (INT32, INT64, UINT8, INT8):
        limits = np.iinfo(target)
        largest = min(limits.max, 2**31 - 200)
        array = np.nan_to_num(array, nan=0.7, posinf=100.0, neginf=0.0)
        array = np.clip(array, max(limits.min, -(2**31)), largest).astype(source)
    return array


@subject("Identity")
def identity(case, operator):
    dtype = types(case, FLOAT, INT32, INT64, BOOL, UINT8, INT8, FLOAT16)
    case.run(operator, [case.input(case.array(case.shape(0, 6), dtype))])


@subject("Dropout")
def dropout(case, operator):
    x = case.input(case.array(case.shape(1, 4)))
    if case.opset < 12:
        case.run(operator, [x], {"ratio": case.maybe(0.5, 0.1)})
        return
    ratio = case.constant(np.float32(0.5)) if case.chance(0.5) else ""
    training = case.constant(np.asarray(False)) if case.chance(0.3) else ""
    case.run(operator, [x, ratio, training], {"seed": case.maybe(3)})


@subject("com.microsoft.Gelu", "com.microsoft.QuickGelu", relative=1e-4)
def contributed_gelu(case, operator):
    attributes = {"alpha": case.maybe(1.702, 1.0)} if operator == "QuickGelu" else {}
    case.run(operator, [case.input(case.array(case.shape(1, 4)))], attributes, domain="com.microsoft")


@subject("com.microsoft.BiasGelu", "com.microsoft.FastGelu")
def bias_gelu(case, operator):
    shape = case.shape(1, 4)
    bias = case.input(case.array(shape[-1:]))
    if operator == "FastGelu" and case.chance(0.5):
        bias = ""
    case.run(operator, [case.input(case.array(shape)), bias], domain="com.microsoft")
