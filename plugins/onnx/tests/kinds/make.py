"""Writes networks of many kinds, as PyTorch exports them and with random weights, and what ONNX Runtime answers.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

For each network there is NAME.onnx and NAME.json: items, as a client would send them, and the outputs of each.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
SOURCE = np.random.default_rng(5)


def floats(*shape):
    return SOURCE.standard_normal(shape).astype(np.float32)


def integers(high, *shape):
    return SOURCE.integers(0, high, shape)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = F.max_pool2d(self.stem(image), 2)
        return self.head(F.adaptive_avg_pool2d(F.relu(x + self.body(x)), 1).flatten(1))


class Separable(nn.Module):
    """As MobileNet and EfficientNet are made: depthwise convolutions, squeeze and excitation, SiLU."""

    def __init__(self):
        super().__init__()
        self.widen, self.deep = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 5, padding=2, groups=12)
        self.squeeze, self.excite, self.narrow = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1), nn.Conv2d(12, 6, 1)

    def forward(self, image):
        x = F.silu(self.deep(F.hardswish(self.widen(image))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return F.softmax(self.narrow(x * gate).mean((2, 3)), 1)


class UNet(nn.Module):
    """An image of any size to a mask of its size."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(8, 1, 1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, image):
        skip = F.leaky_relu(self.down(image))
        deep = self.norm(F.elu(self.deep(F.max_pool2d(skip, 2))))
        near = F.interpolate(image, scale_factor=2.0, mode="nearest")
        smooth = F.interpolate(near, scale_factor=0.5, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.out(torch.cat([self.up(deep), skip], 1)) + smooth)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner = kind(3, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(12, 2)

    def forward(self, series):
        states, _ = self.inner(series)
        return self.out(states), states.amax(1)


class Transformer(nn.Module):
    """Token ids and a mask of any length to a vector and scores."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(40, 16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.wide, self.narrow, self.score = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        split = [layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        weights = split[0] @ split[1].transpose(-1, -2) / 2 + (1 - attention_mask[:, None, None].float()) * -1e4
        x = self.norms[0](x + self.out((weights.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)))
        x = self.norms[1](x + self.narrow(F.gelu(self.wide(x))))
        mask = attention_mask[..., None].float()
        vector = (x * mask).sum(1) / mask.sum(1)
        return vector / vector.norm(dim=1, keepdim=True), self.score(x)


class Mixed(nn.Module):
    """An image, numbers and a category at once, to a regression and a classification."""

    def __init__(self):
        super().__init__()
        self.image, self.numbers, self.category = nn.Conv2d(1, 4, 3), nn.Linear(5, 4), nn.Embedding(7, 4)
        self.price, self.kind = nn.Linear(12, 1), nn.Linear(12, 4)

    def forward(self, image, numbers, category):
        parts = [F.relu(self.image(image)).mean((2, 3)), torch.tanh(self.numbers(numbers)), self.category(category)]
        x = torch.cat(parts, 1)
        return self.price(x).squeeze(1), F.log_softmax(self.kind(x), 1)


class Waves(nn.Module):
    """Sound of any length: one-dimensional convolutions, and sums over time."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 6, 5, stride=2), nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.InstanceNorm1d(6, affine=True)

    def forward(self, sound):
        x = F.softplus(self.norm(self.first(sound)))
        x = F.avg_pool1d(torch.abs(self.second(x)), 2)
        return torch.log(x.pow(2).mean(2) + 1), torch.cumsum(x, 2).amin(1)


class Detector(nn.Module):
    """Boxes as detectors decode them, and the best of them: comparisons, selections, integer outputs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 5, 4, stride=4)
        self.register_buffer("grid", torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1))

    def forward(self, image):
        x = self.net(image).permute(0, 2, 3, 1)
        centers = (torch.sigmoid(x[..., :2]) + self.grid) * 4
        sizes = torch.exp(x[..., 2:4].clamp(-2, 2))
        boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], -1).flatten(1, 2)
        scores, best = torch.sigmoid(x[..., 4]).flatten(1).topk(3)
        chosen = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        return torch.where(scores[..., None] > 0.5, chosen, -torch.ones_like(chosen)), best, scores > 0.5


def export(name, network, items, inputs, outputs, axes=None):
    """`items` are dictionaries of arrays without a batch dimension; `axes` names the further open dimensions."""
    arguments = tuple(torch.from_numpy(np.stack([item[key] for item in items[:1]] * 2)) for key in inputs)
    dynamic = {key: {0: "batch", **(axes or {}).get(key, {})} for key in [*inputs, *outputs]}
    torch.onnx.export(
        network.eval(),
        arguments,
        HERE / f"{name}.onnx",
        input_names=inputs,
        output_names=outputs,
        dynamic_axes=dynamic,
        opset_version=17,
        dynamo=False,
    )
    answer(name, items)


def answer(name, items):
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = []
    for item in items:
        outputs = session.run(names, {key: value[None] for key, value in item.items()})
        answers.append({key: np.round(np.float64(o[0]), 6) if o.dtype.kind == "f" else o[0] for key, o in zip(names, outputs)})
    plain = lambda rows: [{key: np.asarray(value).tolist() for key, value in row.items()} for row in rows]
    (HERE / f"{name}.json").write_text(json.dumps({"items": plain(items), "outputs": plain(answers)}))


def words():
    """Strings to integers and back: only ONNX Runtime has these operators."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["word"],
            ["id"],
            domain="ai.onnx.ml",
            keys_strings=["cat", "dog", "Île"],
            values_int64s=[1, 2, 3],
            default_int64=-1,
        ),
        helper.make_node("Gather", ["names", "id"], ["name"]),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info("word", TensorProto.STRING, ["batch", "length"])],
        [
            helper.make_tensor_value_info("id", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("name", TensorProto.STRING, ["batch", "length"]),
        ],
        [helper.make_tensor("names", TensorProto.STRING, [4], [b"none", b"Katze", b"Hund", "Insel 🏝".encode()])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (HERE / "words.onnx").write_bytes(model.SerializeToString())
    items = [np.array(row, object) for row in (["cat", "Île"], ["dog", "bird"], ["cat", "cat"])]
    answer("words", [{"word": item} for item in items])


def trees():
    """A forest as scikit-learn exports one, made by hand."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 5 + [1] * 3,
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.1, -0.3, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0],
        nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
        target_treeids=[0, 0, 0, 1, 1],
        target_nodeids=[2, 3, 4, 1, 2],
        target_ids=[0] * 5,
        target_weights=[1.5, -2.0, 0.25, 10.0, 20.0],
    )
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (HERE / "trees.onnx").write_bytes(model.SerializeToString())
    answer("trees", [{"x": floats(3)} for _ in range(6)])


def quantized():
    """Weights and activations in 8 bits, each dequantized before use, as quantization tools write them."""
    weight = SOURCE.integers(-100, 100, (6, 4)).astype(np.int8)
    constant = lambda name, array: numpy_helper.from_array(np.asarray(array), name)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=1),
        helper.make_node("MatMul", ["xf", "wf"], ["product"]),
        helper.make_node("Relu", ["product"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            constant("xs", np.float32(0.03)),
            constant("xz", np.uint8(128)),
            constant("w", weight),
            constant("ws", np.array([0.01, 0.02, 0.03, 0.015], np.float32)),
            constant("wz", np.zeros(4, np.int8)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (HERE / "quantized.onnx").write_bytes(model.SerializeToString())
    answer("quantized", [{"x": floats(6)} for _ in range(4)])


def main():
    torch.manual_seed(3)
    warnings.simplefilter("ignore")
    export("residual", Residual(), [{"image": floats(3, 16, 16)} for _ in range(3)], ["image"], ["logits"])
    export("separable", Separable(), [{"image": floats(3, 8, 8)} for _ in range(3)], ["image"], ["probabilities"])
    size = {2: "height", 3: "width"}
    masks = [{"image": floats(1, *size)} for size in [(8, 8), (8, 8), (6, 12)]]
    export("unet", UNet(), masks, ["image"], ["mask"], {"image": size, "mask": size})
    for name, kind in [("lstm", nn.LSTM), ("gru", nn.GRU)]:
        series = [{"series": floats(length, 3)} for length in (7, 7, 4)]
        time = {"series": {1: "time"}, "steps": {1: "time"}}
        export(name, Recurrent(kind), series, ["series"], ["steps", "summary"], time)
    texts = []
    for length, kept in [(6, 6), (6, 4), (11, 9)]:
        mask = (np.arange(length) < kept).astype(np.int64)
        texts.append({"input_ids": integers(50, length), "attention_mask": mask})
    length = {key: {1: "length"} for key in ["input_ids", "attention_mask", "scores"]}
    export("transformer", Transformer(), texts, ["input_ids", "attention_mask"], ["vector", "scores"], length)
    mixed = [{"image": floats(1, 6, 6), "numbers": floats(5), "category": integers(7)} for _ in range(3)]
    export("mixed", Mixed(), mixed, ["image", "numbers", "category"], ["price", "kind"])
    sounds = [{"sound": floats(1, length)} for length in (40, 40, 65)]
    export("waves", Waves(), sounds, ["sound"], ["power", "envelope"], {"sound": {2: "time"}, "envelope": {1: "steps"}})
    export("detector", Detector(), [{"image": floats(3, 16, 16)} for _ in range(3)], ["image"], ["boxes", "best", "sure"])
    quantized()
    words()
    trees()


if __name__ == "__main__":
    main()
