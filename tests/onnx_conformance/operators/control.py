"""Operators with subgraphs, attention, and others of transformers."""

import numpy as np
from onnx import TensorProto, helper

from .graph import BOOL, FLOAT
from .registry import subject


def value(name, kind, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


@subject("If")
def branches(case, operator):
    shape = case.shape(0, 3)
    x, y = case.input(case.array(shape), 0), case.input(case.array(shape), 0)
    condition = case.input(np.full(case.pick([[], [1]]), case.chance(0.5)), 0.1)

    def branch(name, node):
        return helper.make_graph([node], name, [], [value(f"{name}_out", TensorProto.FLOAT)])

    then = branch("then", helper.make_node(case.pick(["Add", "Mul", "Sub"]), [x, y], ["then_out"]))
    otherwise = branch("else", helper.make_node(case.pick(["Neg", "Identity", "Abs"]), [x], ["else_out"]))
    case.run(operator, [condition], {"then_branch": then, "else_branch": otherwise})


@subject("Loop")
def loop(case, operator):
    shape = case.shape(0, 2, empty=0)
    x, step = case.input(case.array(shape, kind="ordinary"), 0), case.input(case.array(shape, kind="ordinary"))
    trips = case.input(np.asarray(case.between(0 if case.chance(0.2) else 1, 4), np.int64), 0.5)
    start = case.input(np.asarray(True if case.chance(0.9) else False), 0.5) if case.chance(0.7) else ""
    kept = case.chance(0.5)
    nodes = [
        helper.make_node(case.pick(["Add", "Mul", "Sub"]), ["state", step], ["next"]),
        helper.make_node("Identity", ["going"], ["still"]),
    ]
    outputs = [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT)]
    if case.chance(0.3):
        nodes[1] = helper.make_node("Less", ["index", "two"], ["still"])
        nodes.insert(0, helper.make_node("Constant", [], ["two"], value_int=case.between(0, 2)))
        if case.opset < 12:
            nodes[0] = helper.make_node("Constant", [], ["two"], value=helper.make_tensor("t", TensorProto.INT64, [], [2]))
    if kept:
        nodes.append(helper.make_node("Neg", ["next"], ["each"]))
        outputs.append(value("each", TensorProto.FLOAT))
    inputs = [value("index", TensorProto.INT64, []), value("going", TensorProto.BOOL, []), value("state", TensorProto.FLOAT)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    case.run(operator, [trips, start, x], {"body": body}, 2 if kept else 1)


@subject("Attention", split=["attribute is_causal", "type 3", "rank 0", "type 4", "type 5", "attribute softcap"], relative_to_largest=1e-5, relative=1e-3, weight=4)
def attention(case, operator):
    batch, heads, group = case.between(1, 2), case.between(1, 2), case.pick([1, 1, 2])
    length, other, size = case.between(1, 4), case.between(1, 4), case.between(1, 4)
    array = lambda *shape: case.array(shape, kind="ordinary")  # noqa: E731
    four = case.chance(0.6)
    q_heads = heads * group
    attributes = {"is_causal": case.maybe(0, 1), "scale": case.maybe(0.5), "softcap": case.maybe(0.0, 2.0) if case.chance(0.3) else None}
    if four:
        q, k, v = array(batch, q_heads, length, size), array(batch, heads, other, size), array(batch, heads, other, size)
    else:
        q, k, v = array(batch, length, q_heads * size), array(batch, other, heads * size), array(batch, other, heads * size)
        attributes |= {"q_num_heads": q_heads, "kv_num_heads": heads}
    inputs = [case.input(q, 0), case.input(k, 0), case.input(v, 0)]
    if case.chance(0.5):
        mask = case.array([length, other], case.pick([FLOAT, BOOL]), "ordinary")
        if mask.dtype == bool:
            mask[:, 0] = True
        inputs.append(case.input(mask))
    case.run(operator, inputs, attributes)


@subject("RotaryEmbedding", split=["rank 0", "attribute interleaved", "attribute rotary_embedding_dim"], weight=2)
def rotary(case, operator):
    batch, heads, length, size = case.between(1, 2), case.between(1, 3), case.between(1, 4), 2 * case.between(1, 3)
    four = case.chance(0.5)
    x = case.array([batch, heads, length, size] if four else [batch, length, heads * size], kind="ordinary")
    inputs = [case.input(x, 0)]
    if case.chance(0.5):
        caches = [case.array([9, size // 2], kind="ordinary") for _ in range(2)]
        positions = case.random.integers(0, 9, size=[batch, length])
        inputs += [case.input(cache, 0.7) for cache in caches] + [case.input(np.asarray(positions, np.int64))]
    else:
        inputs += [case.input(case.array([batch, length, size // 2], kind="ordinary"), 0.5) for _ in range(2)]
    attributes = {"interleaved": case.maybe(0, 1), "num_heads": heads if not four else case.maybe(heads)}
    case.run(operator, inputs, attributes)


@subject("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization", relative_to_largest=1e-5)
def skip_normalization(case, operator):
    shape = [case.between(1, 3), case.between(1, 4), case.between(2, 6)]
    array = lambda *shape: case.array(shape, kind="ordinary")  # noqa: E731
    inputs = [case.input(array(*shape), 0), case.input(array(*shape), 0), case.input(array(shape[2]), 0.8)]
    if operator == "SkipLayerNormalization":
        inputs.append(case.input(array(shape[2]), 0.8) if case.chance(0.7) else "")
    if case.chance(0.5):
        inputs.append(case.input(array(shape[2]), 0.8))
    keep = case.pick([[1, 0, 0, 0], [1, 0, 0, 1]])
    case.run(operator, inputs, {"epsilon": 1e-5}, 4, domain="com.microsoft", keep=keep)


@subject("com.microsoft.MatMulNBits", split=["attribute accuracy_level"], weight=3, relative_to_largest=1e-5)
def matmul_bits(case, operator):
    n, block = case.between(1, 5), case.pick([16, 32])
    blocks = case.between(1, 2)
    k = blocks * block
    a = case.array([case.between(1, 3), case.between(1, 4), k], kind="ordinary")
    packed = case.random.integers(0, 256, size=[n, blocks, block // 2]).astype(np.uint8)
    scales = np.abs(case.array([n * blocks], kind="ordinary"))
    inputs = [case.input(a, 0), case.constant(packed), case.constant(scales)]
    if case.chance(0.5):
        inputs.append(case.constant(case.random.integers(0, 256, size=[n * ((blocks + 1) // 2)]).astype(np.uint8)))
    attributes = {"K": k, "N": n, "bits": 4, "block_size": block, "accuracy_level": case.maybe(0, 1, 4)}
    case.run(operator, inputs, attributes, domain="com.microsoft")
