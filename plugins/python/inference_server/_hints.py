"""Interpretation of type hints: the kind and the tensors of a value, and whether a hint is a list.

`_documents` reads JSON documents by their hints, and `_outcomes` writes outcomes.
"""

import collections.abc
import dataclasses
import inspect
import typing

from inference_server import _text


class Unsupported(Exception):
    """A class, method or hint that is not supported. The message is for the operator."""


@dataclasses.dataclass
class Tensor:
    """A named tensor of an item. `dtype` is the server's name; -1 in `shape` stands for any size."""

    name: str
    dtype: str
    shape: tuple

    def fits(self, shape):
        return len(shape) == len(self.shape) and all(want in (-1, got) for got, want in zip(shape, self.shape))


@dataclasses.dataclass
class ValueSpec:
    """Description of a value. `read` converts parsed JSON to the value, or is None if no conversion is needed."""

    kind: str = "json"
    schema: typing.Any = None
    media_types: tuple = ()
    tensors: tuple = ()
    read: typing.Any = None
    # The class that contains several named tensors.
    container: typing.Any = None


# The server's names of numpy's types.
DTYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
NUMPY_NAMES = {server: numpy for numpy, server in DTYPES.items()}


def unwrap(hint):
    """Splits an `Annotated` into its hint and its annotations."""
    notes = ()
    hint = resolve(hint)
    if typing.get_origin(hint) is typing.Annotated:
        hint, notes = hint.__origin__, hint.__metadata__
    return resolve(hint), notes


def resolve(hint):
    """Resolves `type` statements, as numpy uses for `NDArray`, and `NewType`."""
    if hasattr(hint, "__supertype__"):
        return resolve(hint.__supertype__)
    alias = typing.get_origin(hint) or hint
    if not hasattr(alias, "__value__"):
        return hint
    arguments = typing.get_args(hint)
    return resolve(alias.__value__[arguments] if arguments else alias.__value__)


def hints_of(owner):
    return typing.get_type_hints(owner, include_extras=True)


def is_typed_dict(hint):
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__total__")


def show(hint):
    return f"`{hint.__qualname__}`" if isinstance(hint, type) else f"`{hint}`"


def attribute(owner, name, default=None):
    """Returns an attribute of a class or instance, ignoring `__getattr__`, which may return a value for any name."""
    try:
        inspect.getattr_static(owner, name)
    except AttributeError:
        return default
    try:
        return getattr(owner, name)
    except Exception as error:
        raise Unsupported(f"reading `{name}` raised {_text.name(error)}: {_text.of(error)}") from None


# Lists


LISTS = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Iterator: list,
}


def is_list(hint):
    """Whether a hint is a list of items: `list[T]`, `Sequence[T]` or `tuple[T, ...]`."""
    hint, _ = unwrap(hint)
    origin = typing.get_origin(hint) or hint
    if origin is tuple:
        arguments = typing.get_args(hint)
        return not arguments or (len(arguments) == 2 and arguments[1] is ...)
    return origin in LISTS and origin not in (set, frozenset)


def is_never_list(hint):
    """Whether a value with this hint cannot be the outcomes of a batch."""
    bare, _ = unwrap(hint)
    bare = typing.get_origin(bare) or bare
    if bare in (None, type(None)):
        return True
    scalars = (str, bytes, bytearray, int, float, complex, dict, set, frozenset)
    return isinstance(bare, type) and (issubclass(bare, scalars) or dataclasses.is_dataclass(bare))


def is_batch_array(hint):
    """Whether a hint is one array for a whole batch: an array with a shape that starts with -1."""
    return is_array(hint) and (shape_of(hint) or ())[:1] == (-1,)


def element(hint):
    """Returns the hint of the elements of a list."""
    if hint is None or not is_list(hint):
        return typing.Any
    hint, _ = unwrap(hint)
    return (typing.get_args(hint) or (typing.Any,))[0]


# Arrays


def is_array(hint):
    bare, _ = unwrap(hint)
    bare = typing.get_origin(bare) or bare
    return isinstance(bare, type) and f"{bare.__module__}.{bare.__qualname__}" == "numpy.ndarray"


def shape_of(hint):
    """Returns the shape with which an array is annotated, or None."""
    _, notes = unwrap(hint)
    shape = next((note for note in notes if isinstance(note, (tuple, list))), None)
    if shape is None:
        return None
    for dimension in shape:
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < -1:
            raise Unsupported(f"{show(hint)} has the dimension {dimension!r}, expected a size or -1 for any size")
    return tuple(shape)


def tensor(name, hint):
    bare, _ = unwrap(hint)
    shape = shape_of(hint)
    arguments = typing.get_args(bare)
    dtype = "float32"
    if arguments:
        dimensions, dtype = arguments
        dtype = getattr((typing.get_args(dtype) or (None,))[0], "__name__", "unknown")
        dimensions = typing.get_args(dimensions)
        if shape is None and dimensions and ... not in dimensions:
            shape = (-1,) * len(dimensions)
    # `bool` or `bool_`, depending on the version of numpy.
    dtype = dtype.rstrip("_")
    if dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise Unsupported(f"{show(hint)} is an array of an unsupported datatype, expected one of {known}")
    return Tensor(name, DTYPES[dtype], (-1,) if shape is None else shape)


def rows(name, hint):
    """Returns the tensor of one item in an array for a whole batch."""
    batch = tensor(name, hint)
    if shape_of(hint) is not None:
        if batch.shape[:1] != (-1,):
            raise Unsupported(
                f"{show(hint)} is an array of shape {list(batch.shape)} for a whole batch, expected a shape whose first dimension "
                "is -1, the number of items"
            )
        batch.shape = batch.shape[1:]
    elif len(batch.shape) > 1:
        # The number of dimensions is part of the type.
        batch.shape = batch.shape[1:]
    return batch


def array_fields(hint):
    """Returns the fields of a dataclass or TypedDict, with their hints, if all of them are arrays."""
    if not (dataclasses.is_dataclass(hint) or is_typed_dict(hint)):
        return None
    hints = hints_of(hint)
    return hints if hints and all(map(is_array, hints.values())) else None
