"""What type hints state about the values of a task: their kind, their tensors, and which hints are lists.

Reading JSON documents by their hints is in `_documents`, writing outcomes in `_outcomes`.
"""

import collections.abc
import dataclasses
import inspect
import typing

from inference_server import _text


class Unsupported(Exception):
    """A class, a method or a hint that cannot be served: for the operator."""


@dataclasses.dataclass
class Tensor:
    """One named tensor of an item: `dtype` is the server's name, `shape` has -1 where any size is allowed."""

    name: str
    dtype: str
    shape: tuple

    def fits(self, shape):
        return len(shape) == len(self.shape) and all(want in (-1, got) for got, want in zip(shape, self.shape))


@dataclasses.dataclass
class Form:
    """What a value is. `read` makes it from parsed JSON, or is None if parsed JSON is what is wanted."""

    kind: str = "json"
    schema: typing.Any = None
    media_types: tuple = ()
    tensors: tuple = ()
    read: typing.Any = None
    # The class that holds several named tensors.
    holder: typing.Any = None


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
    """The hint in an `Annotated`, and its annotations."""
    notes = ()
    hint = resolve(hint)
    if typing.get_origin(hint) is typing.Annotated:
        hint, notes = hint.__origin__, hint.__metadata__
    return resolve(hint), notes


def resolve(hint):
    """What a `type` statement or a `NewType` has given another name, as numpy does with `NDArray`."""
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
    """An attribute that a class or its instance really has: `__getattr__` may answer for any name."""
    try:
        inspect.getattr_static(owner, name)
    except AttributeError:
        return default
    try:
        return getattr(owner, name)
    except Exception as error:
        raise Unsupported(f"`{name}` cannot be read: {_text.name(error)}: {_text.of(error)}") from None


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
    """Whether a hint is that of a list of items: `list[T]`, `Sequence[T]`, `tuple[T, ...]`."""
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
    """Whether a hint is that of one array for a whole batch: an array of a shape that begins with -1."""
    return is_array(hint) and (shape_of(hint) or ())[:1] == (-1,)


def element(hint):
    """The hint of the elements of a list with this hint."""
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
    """The shape that an array is annotated with, if any."""
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
    # numpy calls it `bool` or `bool_`, depending on the version.
    dtype = dtype.rstrip("_")
    if dtype not in DTYPES:
        known = ", ".join(DTYPES)
        raise Unsupported(f"{show(hint)} is an array without a definite type, expected one of {known}")
    return Tensor(name, DTYPES[dtype], (-1,) if shape is None else shape)


def rows(name, hint):
    """The tensor of one item in an array of a whole batch."""
    batch = tensor(name, hint)
    if shape_of(hint) is not None:
        if batch.shape[:1] != (-1,):
            raise Unsupported(
                f"{show(hint)} is an array of the shape {list(batch.shape)} for a whole batch, expected a shape whose first "
                "dimension is -1, which counts the items"
            )
        batch.shape = batch.shape[1:]
    elif len(batch.shape) > 1:
        # One of a definite number of dimensions, by its type.
        batch.shape = batch.shape[1:]
    return batch


def array_fields(hint):
    """The fields of a dataclass or a TypedDict that has nothing but arrays, with their hints."""
    if not (dataclasses.is_dataclass(hint) or is_typed_dict(hint)):
        return None
    hints = hints_of(hint)
    return hints if hints and all(map(is_array, hints.values())) else None
