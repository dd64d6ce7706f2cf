"""Convolutions, pooling, normalization, products of matrices, and recurrent networks."""

import numpy as np

from .graph import FLOAT, INT8, INT32, INT64, UINT8
from .registry import subject

SUM = 1e-5


def spatial(case):
    return case.pick([1, 2, 2, 2, 3])


def windows(case, dims, kernel, dilatable=True):
    """Attributes of a moving window."""
    attributes = {
        "strides": case.maybe([1] * dims, [case.between(1, 3) for _ in range(dims)]),
        "dilations": case.maybe([1] * dims, [case.between(1, 2) for _ in range(dims)]) if dilatable else None,
        "kernel_shape": kernel,
    }
    padding = case.pick(["none", "symmetric", "asymmetric", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    if padding.isupper():
        attributes["auto_pad"] = padding
        if padding == "NOTSET" and case.chance(0.5):
            attributes["pads"] = [1] * (2 * dims)
        if padding.startswith("SAME") and case.chance(0.6):
            attributes["dilations"] = None
    elif padding == "symmetric":
        attributes["pads"] = [case.between(0, max(size - 1, 0)) for size in kernel] * 2
    elif padding == "asymmetric":
        attributes["pads"] = [case.between(0, max(size - 1, 0)) for size in kernel * 2]
    elif case.chance(0.5):
        attributes["pads"] = [0] * (2 * dims)
    return attributes


@subject("Conv", joint=["rank 0", "attribute auto_pad"], split=["attribute auto_pad", "stride above kernel", "rank 0", "attribute kernel_shape"], relative_to_largest=SUM, weight=8)
def conv(case, operator):
    dims = spatial(case)
    kernel = [case.between(1, 4) for _ in range(dims)]
    group = case.pick([1, 1, 2, 3])
    depthwise = group > 1 and case.chance(0.5)
    in_channels = group * (1 if depthwise else case.between(1, 40 if case.chance(0.05) else 3))
    out_channels = group * case.between(1, 3)
    size = [case.between(5, 9) for _ in range(dims)]
    attributes = windows(case, dims, kernel) | {"group": group if group > 1 else case.maybe(1)}
    if case.chance(0.15):
        attributes["kernel_shape"] = None
    kind = case.pick(["ordinary", "ties"])
    x = case.input(case.array([case.batch(1, 3), in_channels, *size], kind=kind), 0)
    w = case.input(case.array([out_channels, in_channels // group, *kernel], kind=kind), 0.8)
    bias = [case.input(case.array([out_channels], kind=kind), 0.8)] if case.chance(0.5) else []
    case.run(operator, [x, w, *bias], attributes)


@subject("ConvTranspose", joint=["rank 0", "attribute auto_pad"], split=["attribute auto_pad", "stride above kernel", "attribute output_shape", "rank 0", "attribute kernel_shape", "attribute output_padding"], relative_to_largest=SUM, weight=8)
def conv_transpose(case, operator):
    dims = spatial(case)
    kernel = [case.between(1, 4) for _ in range(dims)]
    group = case.pick([1, 1, 2])
    in_channels, out_channels = group * case.between(1, 2), case.between(1, 3)
    size = [case.between(1, 5) for _ in range(dims)]
    attributes = windows(case, dims, kernel) | {"group": group if group > 1 else case.maybe(1)}
    if case.chance(0.15):
        attributes["kernel_shape"] = None
    if case.chance(0.25):
        strides = attributes["strides"] or [1] * dims
        attributes["output_padding"] = [case.between(0, max(stride - 1, 0)) for stride in strides]
    if case.chance(0.1):
        strides = attributes["strides"] or [1] * dims
        attributes["output_shape"] = [(length - 1) * stride + k for length, stride, k in zip(size, strides, kernel)]
        attributes["pads"] = None
    kind = case.pick(["ordinary", "ties"])
    x = case.input(case.array([case.batch(1, 3), in_channels, *size], kind=kind), 0)
    w = case.input(case.array([in_channels, out_channels, *kernel], kind=kind), 0.8)
    bias = [case.input(case.array([out_channels * group], kind=kind), 0.8)] if case.chance(0.5) else []
    case.run(operator, [x, w, *bias], attributes)


@subject("MaxPool", joint=["rank 0", "attribute auto_pad"], split=["attribute auto_pad", "stride above kernel", "attribute ceil_mode", "rank 0", "attribute dilations"], weight=8)
def max_pool(case, operator):
    dims = spatial(case)
    kernel = [case.between(1, 4) for _ in range(dims)]
    attributes = windows(case, dims, kernel, dilatable=case.opset >= 10 and case.chance(0.4))
    attributes["ceil_mode"] = case.maybe(0, 1) if case.opset >= 10 else None
    dtype = case.pick([FLOAT, FLOAT, FLOAT, UINT8, INT8]) if case.opset >= 12 else FLOAT
    outputs = case.pick([1, 1, 1, 2]) if case.opset >= 8 else 1
    attributes["storage_order"] = case.maybe(0) if case.opset >= 8 else None
    shape = [case.batch(1, 3), case.between(1, 3), *[case.between(4, 9) for _ in range(dims)]]
    kind = case.pick(["ordinary", "ties", "special", "infinite", "zeros"])
    case.run(operator, [case.input(case.array(shape, dtype, kind), 0)], attributes, outputs)


@subject("AveragePool", "LpPool", exclude=[("stride above kernel", "yes")], joint=["rank 0", "attribute auto_pad"], split=["attribute auto_pad", "stride above kernel", "attribute ceil_mode", "attribute count_include_pad", "rank 0", "attribute dilations"], weight=8, relative_to_largest=1e-6)
def average_pool(case, operator):
    dims = spatial(case)
    kernel = [case.between(1, 4) for _ in range(dims)]
    attributes = windows(case, dims, kernel, dilatable=case.opset >= 19 and case.chance(0.4))
    attributes["ceil_mode"] = case.maybe(0, 1) if case.opset >= (10 if operator == "AveragePool" else 18) else None
    if operator == "AveragePool":
        attributes["count_include_pad"] = case.maybe(0, 1)
    else:
        attributes["p"] = case.maybe(1, 2)
    shape = [case.batch(1, 3), case.between(1, 3), *[case.between(4, 9) for _ in range(dims)]]
    case.run(operator, [case.input(case.array(shape, kind="ordinary"), 0)], attributes)


@subject("GlobalAveragePool", "GlobalMaxPool", relative_to_largest=1e-6)
def global_pool(case, operator):
    shape = [case.batch(1, 3), case.between(1, 3), *[case.between(1, 5) for _ in range(spatial(case))]]
    kind = case.pick(["ordinary", "infinite", "special", "zeros"]) if operator == "GlobalMaxPool" else "ordinary"
    case.run(operator, [case.input(case.array(shape, kind=kind))])


@subject("BatchNormalization", relative_to_largest=1e-6)
def batch_normalization(case, operator):
    shape = case.shape(2, 5)
    channels = shape[1]
    arrays = [case.array([channels], kind="ordinary") for _ in range(3)] + [np.abs(case.array([channels], kind="ordinary"))]
    inputs = [case.input(case.array(shape), 0)] + [case.input(array, 0.8) for array in arrays]
    attributes = {"epsilon": case.maybe(1e-5, 1e-3), "momentum": case.maybe(0.9, 0.5)}
    if case.opset < 9:
        attributes["spatial"] = case.maybe(1)
    elif case.opset >= 14 and case.chance(0.2):
        case.run(operator, inputs, attributes | {"training_mode": 1}, 3)
        return
    elif case.opset >= 14:
        attributes["training_mode"] = case.maybe(0)
    case.run(operator, inputs, attributes)


@subject("InstanceNormalization", relative_to_largest=SUM)
def instance_normalization(case, operator):
    shape = [case.batch(1, 3), case.between(1, 3), *[case.between(2, 5) for _ in range(case.between(1, 3))]]
    inputs = [case.array(shape, kind="ordinary"), *(case.array([shape[1]], kind="ordinary") for _ in range(2))]
    case.run(operator, [case.input(array) for array in inputs], {"epsilon": case.maybe(1e-5, 1e-2)})


@subject("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", relative_to_largest=SUM)
def layer_normalization(case, operator):
    shape = case.shape(1, 4)
    shape[-1] = case.between(2, 6)
    axis = case.axis(len(shape))
    scale = shape[axis:] if case.chance(0.6) else shape[len(shape) - 1 :]
    if scale == shape[-1:] and case.chance(0.7):
        axis = -1
    inputs = [case.input(case.array(shape, kind="ordinary")), case.input(case.array(scale, kind="ordinary"), 0.7)]
    if operator == "LayerNormalization" and case.chance(0.7):
        inputs.append(case.input(case.array(scale, kind="ordinary"), 0.7))
    attributes = {"axis": case.pick([axis, None if axis == -1 else axis]), "epsilon": case.maybe(1e-5, 1e-2)}
    attributes["stash_type"] = case.maybe(1)
    outputs = case.pick([1, 1, 1, 3]) if operator == "LayerNormalization" else 1
    case.run(operator, inputs, attributes, outputs)


@subject("GroupNormalization", relative_to_largest=SUM)
def group_normalization(case, operator):
    groups, each = case.between(1, 3), case.between(1, 3)
    shape = [case.between(1, 2), groups * each, *[case.between(1, 4) for _ in range(2)]]
    size = groups if case.opset < 21 else groups * each
    inputs = [case.array(shape, kind="ordinary"), case.array([size], kind="ordinary"), case.array([size], kind="ordinary")]
    case.run(operator, [case.input(array) for array in inputs], {"num_groups": groups, "epsilon": case.maybe(1e-3)})


@subject("LpNormalization", relative_to_largest=1e-6)
def lp_normalization(case, operator):
    shape = case.shape(1, 4)
    attributes = {"axis": case.maybe(case.axis(len(shape))), "p": case.maybe(1, 2)}
    case.run(operator, [case.input(case.array(shape, kind=case.pick(["ordinary", "zeros"])))], attributes)


@subject("LRN", "MeanVarianceNormalization", relative_to_largest=SUM)
def local_normalization(case, operator):
    shape = [case.between(1, 2), case.between(1, 6), case.between(1, 4), case.between(1, 4)]
    attributes = {"size": case.pick([1, 3, 5]), "alpha": case.maybe(0.01)} if operator == "LRN" else {}
    case.run(operator, [case.input(case.array(shape, kind="ordinary"))], attributes)


@subject("MatMul", split=["rank 0", "rank 1"], joint=["type 1"], exclude=[("rank 0", "1"), ("rank 1", "1")], relative_to_largest=SUM, weight=6)
def matmul(case, operator):
    dtype = case.pick([FLOAT, FLOAT, FLOAT, INT32, INT64])
    inner = case.between(0, 1) if case.chance(0.1) else case.between(1, 6)
    prefix = case.shape(0, 3, 3)
    if case.chance(0.05):
        # Larger than the blocks of a product.
        inner, prefix = case.between(60, 600), []
    large = inner > 9
    a = [*case.broadcast(prefix), case.between(1, 80 if large else 5), inner]
    b = [*case.broadcast(prefix), inner, case.between(1, 80 if large else 5)]
    if case.chance(0.1):
        a = [inner]
    if case.chance(0.1):
        b = [inner]
    kind = case.pick(["ordinary", "ties"])
    case.run(operator, [case.input(case.array(a, dtype, kind), 0.1), case.input(case.array(b, dtype, kind), 0.5)])


@subject("Gemm", split=["rank 2"], relative_to_largest=SUM, weight=2)
def gemm(case, operator):
    m, k, n = case.between(0 if case.chance(0.05) else 1, 5), case.between(1, 6), case.between(1, 5)
    attributes = {"transA": case.maybe(0, 1), "transB": case.maybe(0, 1)}
    attributes |= {"alpha": case.maybe(1.0, 0.5, 0.0), "beta": case.maybe(1.0, 2.0, 0.0)}
    a, b = ([k, m] if attributes["transA"] else [m, k]), ([n, k] if attributes["transB"] else [k, n])
    dtype = FLOAT
    inputs = [case.input(case.array(a, dtype, "ordinary"), 0.1), case.input(case.array(b, dtype, "ordinary"), 0.7)]
    if case.opset < 11 or case.chance(0.7):
        c = case.pick([[n], [1, n], [m, n], [m, 1], [1], [], [1, 1]])
        inputs.append(case.input(case.array(c, dtype, "ordinary"), 0.7))
    case.run(operator, inputs, attributes)


EQUATIONS = [
    "ij,jk->ik", "bij,bjk->bik", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "ij->ji", "ij->i", "ij->", "i,i->", "i,j->ij", "ii->i",
    "ii->", "ij,ij->ij", "ij,jk", "bij,jk->bik", "...ij,...jk->...ik", "...ij->...ji", "ij,jk,kl->il", "abc->cba", "ij,kj->ik",
    "bi,bj->bij", "ijk,jil->kl", "ij , jk -> ik", "i->i", "i,->i", "bqhd,bkhd->bhqk", "ba", "a,b,c->abc", "ij,ij->", "iij,jk->ik",
    "bchw,bkc->bkhw", "nkctv,kvw->nctw", "bn,anm,bm->ba", "...->...", "i...,i...->...", "bhwc,hkc->bhwk", "bld,dhe->blhe",
]


@subject("Einsum", split=["attribute equation"], joint=["attribute equation"], relative_to_largest=SUM, weight=5)
def einsum(case, operator):
    equation = case.pick(EQUATIONS)
    inputs = equation.split("->")[0].replace(" ", "").split(",")
    sizes = {letter: case.between(1, 4) for letter in "abcdefghijklmnopqrstuvwxyz"}
    dots = [case.between(1, 3) for _ in range(case.between(0, 2))]
    arrays = []
    for term in inputs:
        shape = []
        for letter in term.replace("...", "."):
            shape += dots if letter == "." else [sizes[letter]]
        arrays.append(case.array(shape, kind="ordinary"))
    case.run(operator, [case.input(array) for array in arrays], {"equation": equation})


@subject("LSTM", "GRU", "RNN", split=["attribute direction", "type 4", "type 7", "type 3", "attribute linear_before_reset", "attribute layout"], relative_to_largest=SUM, weight=6)
def recurrent(case, operator):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    direction = case.maybe("forward", "reverse", "bidirectional")
    directions = 2 if direction == "bidirectional" else 1
    length, batch, size, hidden = case.between(1, 4), case.between(1, 4), case.between(1, 4), case.between(1, 4)
    array = lambda *shape: case.array(shape, kind="ordinary")  # noqa: E731
    inputs = [
        case.input(array(length, batch, size), 0),
        case.input(array(directions, gates * hidden, size), 0.8),
        case.input(array(directions, gates * hidden, hidden), 0.8),
        case.input(array(directions, 2 * gates * hidden), 0.8) if case.chance(0.6) else "",
    ]
    lengths = np.asarray([case.between(1, length) for _ in range(batch)], np.int32)
    lengths[case.between(0, batch - 1)] = length
    if case.chance(0.5):
        lengths[:] = length
    inputs.append(case.input(lengths) if case.chance(0.25) else "")
    inputs.append(case.input(array(directions, batch, hidden), 0.4) if case.chance(0.4) else "")
    if operator == "LSTM":
        inputs.append(case.input(array(directions, batch, hidden), 0.4) if case.chance(0.4) else "")
        inputs.append(case.input(array(directions, 3 * hidden), 0.8) if case.chance(0.2) else "")
    attributes = {"direction": direction, "hidden_size": hidden}
    names = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[operator]
    if case.chance(0.2):
        attributes["activations"] = (names if case.chance(0.6) else case.pick([[*names[:-1], "Relu"], ["Tanh"] * len(names)])) * directions
    if case.chance(0.1):
        attributes["clip"] = case.pick([0.0, 0.3])
    if operator == "GRU":
        attributes["linear_before_reset"] = case.maybe(0, 1)
    if operator == "LSTM" and case.chance(0.1):
        attributes["input_forget"] = case.pick([0, 1])
    outputs = 3 if operator == "LSTM" else 2
    case.run(operator, inputs, attributes, outputs, keep=case.pick([None, [1] + [0] * (outputs - 1), [0, 1, 0][:outputs], [1, 1, 0][:outputs], [0, 0, 1][-outputs:]]))


@subject("GridSample", split=["attribute mode", "attribute padding_mode"], relative=1e-3, relative_to_largest=SUM, weight=2)
def grid_sample(case, operator):
    n, c, h, w = case.batch(1, 2), case.between(1, 3), case.between(1, 5), case.between(1, 5)
    grid = case.array([n, case.between(1, 4), case.between(1, 4), 2], kind="ordinary")
    modes = ["linear", "nearest", "cubic"] if case.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    attributes = {"mode": case.maybe(*modes), "align_corners": case.maybe(0, 1)}
    attributes["padding_mode"] = case.maybe("zeros", "border", "reflection")
    case.run(operator, [case.input(case.array([n, c, h, w], kind="ordinary")), case.input(grid)], attributes)


RESIZE_SPLIT = [
    "attribute mode", "attribute coordinate_transformation_mode", "attribute nearest_mode", "type 1", "type 3", "rank 0",
    "resized dimensions", "sized by", "attribute keep_aspect_ratio_policy",
]


@subject("Resize", split=RESIZE_SPLIT, joint=["attribute mode"], relative=1e-3, relative_to_largest=SUM, weight=12)
def resize(case, operator):
    mode = case.maybe("nearest", "nearest", "linear", "linear", "cubic")
    rank = case.pick([3, 4, 4, 4, 4, 5, 2])
    if mode == "cubic":
        rank = 4
    shape = [case.batch(1, 3), case.between(1, 3), *[case.between(1, 6) for _ in range(rank - 2)]][:rank]
    if rank == 2:
        shape = [case.between(2, 6), case.between(2, 6)]
    kept = 0 if rank == 2 else 2
    dtype = case.pick([FLOAT, FLOAT, FLOAT, UINT8, INT8, INT32]) if mode != "cubic" else FLOAT
    x = case.input(case.array(shape, dtype, "ordinary"), 0.05)
    factors = [case.pick([2.0, 2.0, 3.0, 0.5, 1.5, 0.75, 1.3, 2.7, 1.0, 0.3]) for _ in range(rank - kept)]
    scales = np.asarray([1.0] * kept + factors, np.float32)
    if case.opset < 11:
        case.run(operator, [x, case.input(scales, 0.7)], {"mode": case.maybe("nearest", "linear")})
        return
    coordinates = ["half_pixel", "half_pixel", "align_corners", "align_corners", "asymmetric", "asymmetric", "pytorch_half_pixel", "tf_crop_and_resize"]
    coordinates += ["half_pixel_symmetric"] if case.opset >= 19 else []
    attributes = {"mode": mode, "coordinate_transformation_mode": case.maybe(*coordinates)}
    if mode in (None, "nearest") or case.chance(0.3):
        attributes["nearest_mode"] = case.maybe("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if case.chance(0.4):
        attributes["cubic_coeff_a"] = case.pick([-0.75, -0.75, -0.5])
    if case.chance(0.05):
        attributes["exclude_outside"] = 1
    roi = ""
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        roi = case.constant(np.asarray([0.0] * rank + [1.0] * rank, np.float32))
    elif case.opset < 13 or case.chance(0.2):
        roi = case.constant(np.zeros(0, np.float32))
    axes = None
    if case.opset >= 18 and case.chance(0.3):
        attributes["axes"] = axes = list(range(kept, rank))
    if case.opset >= 18 and case.chance(0.1):
        attributes["antialias"] = case.pick([0, 1])
    target = [max(1, int(size * scale)) if case.chance(0.5) else case.between(1, 9) for size, scale in zip(shape, scales)]
    target[:kept] = shape[:kept]
    if axes is not None:
        scales, target = scales[kept:], target[kept:]
    if case.chance(0.5):
        empty = case.constant(np.zeros(0, np.float32)) if case.opset < 13 or case.chance(0.2) else ""
        if case.opset >= 18 and case.chance(0.1):
            attributes["keep_aspect_ratio_policy"] = case.pick(["stretch", "not_larger", "not_smaller"])
        case.run(operator, [x, roi, empty, case.list(target)], attributes)
    else:
        case.run(operator, [x, roi, case.input(scales, 0.7)], attributes)


@subject("Upsample", split=["attribute mode", "rank 0"], relative=1e-3, relative_to_largest=SUM, weight=2)
def upsample(case, operator):
    rank = case.pick([3, 4, 4, 4, 5])
    shape = [case.between(1, 3), case.between(1, 3), *[case.between(1, 6) for _ in range(rank - 2)]]
    scales = np.asarray([1.0, 1.0] + [case.pick([1.0, 2.0, 2.0, 3.0, 1.5, 1.3]) for _ in range(rank - 2)], np.float32)
    attributes = {"mode": case.maybe("nearest", "linear")}
    x = case.input(case.array(shape, kind="ordinary"), 0.05)
    if case.opset < 9:
        case.run(operator, [x], attributes | {"scales": scales.tolist()})
    else:
        case.run(operator, [x, case.input(scales, 0.8)], attributes)


@subject("NonMaxSuppression", split=["rank 2"], weight=3)
def non_max_suppression(case, operator):
    batches, classes, boxes = case.between(1, 2), case.between(1, 3), case.between(1, 8)
    attributes = {"center_point_box": case.maybe(0, 1)}
    corners = np.round(case.random.random(size=[batches, boxes, 4]) * 10, 1).astype(np.float32)
    if attributes["center_point_box"] != 1:
        corners[..., 2:] = corners[..., :2] + np.abs(corners[..., 2:]) / 3 + 0.5
        if case.chance(0.3):
            corners = corners[..., [2, 3, 0, 1]]
    scores = case.array([batches, classes, boxes], kind=case.pick(["ordinary", "ties"]))
    inputs = [case.input(corners), case.input(scores)]
    limits = [np.asarray([case.between(0, 5)], np.int64), np.asarray([case.pick([0.0, 0.3, 0.5, 1.0])], np.float32)]
    limits.append(np.asarray([case.pick([-1.0, 0.0, 0.4])], np.float32))
    count = case.between(1, 3)
    if case.chance(0.3):
        limits = [limit.reshape([]) for limit in limits]
    inputs += [case.input(limit, 0.8) for limit in limits[:count]]
    case.run(operator, inputs, attributes)


@subject("RoiAlign", "MaxRoiPool")
def roi_align(case, operator):
    x = case.array([1, 2, 6, 6], kind="ordinary")
    rois = np.asarray([[0, 0, 3, 3], [1, 1, 5, 4]], np.float32)
    if operator == "RoiAlign":
        inputs = [case.input(x), case.input(rois), case.input(np.zeros(2, np.int64))]
        case.run(operator, inputs, {"output_height": 2, "output_width": 2})
    else:
        rois = np.concatenate([np.zeros([2, 1], np.float32), rois], 1)
        case.run(operator, [case.input(x), case.input(rois)], {"pooled_shape": [2, 2]})


__all__ = ["INT8", "UINT8"]
