"""Builds the models of the comparisons, and their inputs."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The version of ONNX's file format of all models.
IR_VERSION = 10

FLOAT, INT32, INT64, BOOL, UINT8, INT8 = "float32", "int32", "int64", "bool", "uint8", "int8"
FLOAT16, DOUBLE = "float16", "float64"

_SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -3e38, 0.5, -0.5, 1.5, 2.5, 88.9, -88.9, 104.0, -104.0]


class Case:
    """A model with its inputs, built node by node."""

    def __init__(self, random, opset):
        self.random = random
        self.opset = opset
        self.nodes, self.inputs, self.initializers, self.outputs = [], [], [], []
        self.arrays = []
        # How much of the largest result each result may differ, for sums of many terms.
        self.relative_to_largest = 0.0
        self.relative = 1e-4
        self.data = set()
        # Inputs that nodes compute from other ones, by name, with the names of those.
        self.views = {}
        # Declared shapes of intermediate values.
        self.declared = []
        self._count = 0
        # Arrays of floats that `array` made, by identity.
        self._made = {}

    # Choices

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, values):
        return values[int(self.random.integers(len(values)))]

    def between(self, low, high):
        return int(self.random.integers(low, high + 1))

    def shape(self, low=0, high=4, largest=5, empty=0.04):
        """A shape of `low` to `high` dimensions."""
        shape = [self.between(1, largest) for _ in range(self.between(low, high))]
        if shape and self.chance(empty):
            shape[self.between(0, len(shape) - 1)] = 0
            self.data.add("empty")
        return shape

    def broadcast(self, shape):
        """A shape that broadcasts with another to the same."""
        other = [1 if self.chance(0.3) else size for size in shape]
        return other[self.between(0, len(other)) :] if self.chance(0.5) else other

    def batch(self, low, high):
        """A number of items, sometimes none."""
        if self.chance(0.05):
            self.data.add("empty")
            return 0
        return self.between(low, high)

    def axis(self, rank, extra=0):
        return self.between(-rank - extra, rank - 1 + extra)

    # Values

    def array(self, shape, dtype=FLOAT, kind=None):
        """Random values, often with edge values. `kind` restricts them: `ordinary` has none."""
        random, shape = self.random, tuple(shape)
        kind = kind or self.pick(["ordinary", "ordinary", "ties", "special", "zeros"])
        if dtype in (FLOAT, FLOAT16, DOUBLE):
            values = random.normal(size=shape) * self.pick([1.0, 1.0, 5.0, 40.0] if kind != "ordinary" else [1.0, 2.0])
            if kind == "ties":
                values = np.round(random.normal(size=shape) * 2) / self.pick([1, 2])
            if kind in ("special", "infinite", "zeros"):
                special = {"special": _SPECIAL, "infinite": _SPECIAL[1:], "zeros": [0.0, -0.0, 1.0, -1.0]}[kind]
                chosen = random.random(size=shape) < 0.3
                values = np.where(chosen, random.choice(special, size=shape), values)
            with np.errstate(over="ignore"):
                values = np.asarray(values, dtype)
            if np.isnan(values).any():
                self.data.add("nan")
            if np.isinf(values).any():
                self.data.add("infinite")
            self._made[id(values)] = values
            return values
        if dtype == BOOL:
            return np.asarray(random.random(size=shape) < 0.5)
        if dtype in (UINT8, INT8):
            info = np.iinfo(dtype)
            return np.asarray(random.integers(info.min, info.max + 1, size=shape), dtype)
        span = 5 if kind in ("ties", "zeros") else 100
        values = random.integers(-span, span + 1, size=shape)
        if kind == "special":
            large = [2**31 - 1, -(2**31), 2**24 + 1, -(2**24) - 1, 0, 1, -1]
            values = np.where(random.random(size=shape) < 0.3, random.choice(large, size=shape), values)
            self.data.add("large")
        return np.asarray(values, dtype)

    # Graph

    def name(self):
        self._count += 1
        return f"v{self._count}"

    def input(self, array, constant=0.25):
        """A value given at run time, or by the file with the probability `constant`."""
        array = np.asarray(array)
        if array.dtype == bool and self.chance(0.25):
            # A condition that is computed from integers, which the runtime does not make 0 or 1.
            number = self.random.choice([1, 2, -1, 7, 256], size=array.shape) * array
            source = self.input(np.asarray(number, self.pick([INT32, INT64])), 0.2)
            return self.node("Cast", [source], {"to": TensorProto.BOOL})[0]
        name = self.name()
        if self.chance(constant):
            self.initializers.append(numpy_helper.from_array(array, name))
            return name
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        fixed = self.chance(0.5)
        shape = [size if fixed or self.chance(0.3) else f"d{self._count}_{axis}" for axis, size in enumerate(array.shape)]
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        self.arrays.append(array)
        return name

    def constant(self, array):
        return self.input(array, constant=1.0)

    def list(self, values, constant=0.7):
        """A vector of integers, as shapes and axes are given."""
        return self.input(np.asarray(values, np.int64).reshape(-1), constant)

    def node(self, operator, inputs, attributes=None, outputs=1, domain=""):
        """Adds a node and returns the names of its outputs. Attributes that are None are absent."""
        inputs = list(inputs)
        while inputs and not inputs[-1]:
            inputs.pop()
        names = [self.name() for _ in range(outputs)]
        attributes = {name: value for name, value in (attributes or {}).items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names

    def spoil(self):
        """Sometimes makes an element of an input NaN or infinite, since every operator is compared with both."""
        given = [array for array in self.arrays if id(array) in self._made and array.dtype == FLOAT and array.size]
        given = [array for array in given if np.isfinite(array).all()]
        if not given or not self.chance(0.25):
            return
        array = self.pick(given)
        element = self.pick([np.nan, np.nan, np.inf, -np.inf])
        array.flat[self.between(0, array.size - 1)] = element
        self.data.add("nan" if np.isnan(element) else "infinite")

    def maybe(self, *values):
        """None, so that an attribute is absent, or one of the values."""
        return None if self.chance(1 / (len(values) + 1)) else self.pick(list(values))

    def run(self, operator, inputs, attributes=None, outputs=1, domain="", keep=None):
        """Adds a node whose outputs are the model's; `keep` says which are named."""
        names = self.node(operator, inputs, attributes, outputs, domain)
        if keep is not None:
            node = self.nodes[-1]
            for index, used in enumerate(keep):
                if not used:
                    node.output[index] = ""
            while node.output and not node.output[-1]:
                node.output.pop()
        self.outputs = [name for name in self.nodes[-1].output if name]
        self.spoil()
        return self

    def model(self, types=None):
        """The model; ONNX Runtime infers the types of the outputs, which the plugin needs."""
        types = types or {}
        outputs = [
            helper.make_tensor_value_info(name, types[name], None) if name in types else onnx.ValueInfoProto(name=name)
            for name in self.outputs
        ]
        graph = helper.make_graph(self.nodes, "case", self.inputs, outputs, self.initializers, value_info=self.declared)
        domains = {node.domain for node in self.nodes} - {""}
        imports = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def type_of(dtype):
    """The number of an element type in ONNX."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


__all__ = ["Case", "TensorProto", "type_of", "FLOAT", "INT32", "INT64", "BOOL", "UINT8", "INT8", "FLOAT16", "DOUBLE"]
