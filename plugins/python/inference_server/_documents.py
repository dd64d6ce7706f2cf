"""Reads JSON documents by type hints: provides the schema of a hint, and a function that converts parsed JSON.

Errors in a document are raised as `InvalidValue`, which contains the path to the error.
"""

import collections.abc
import dataclasses
import enum
import sys
import typing
from math import isfinite

from inference_server import _arrays, _text
from inference_server._hints import (
    DTYPES,
    LISTS,
    ValueSpec,
    Tensor,
    Unsupported,
    array_fields,
    hints_of,
    is_array,
    is_typed_dict,
    resolve,
    show,
    tensor,
    unwrap,
)


class InvalidValue(Exception):
    """A value that does not match its hint. The message is for the client."""

    def __init__(self, message, path=""):
        super().__init__(message)
        self.message, self.path = message, path

    def within(self, part):
        joint = "." if self.path and not self.path.startswith("[") else ""
        return InvalidValue(self.message, f"{part}{joint}{self.path}")

    def __str__(self):
        return f"`{self.path}`: {self.message}" if self.path else self.message


def form(hint, name):
    """Returns the description of an item (`name` is "input") or an outcome ("output") with this hint."""
    hint = resolve(hint)
    bare, notes = unwrap(hint)
    if bare is str:
        return ValueSpec("text")
    if bare is bytes:
        return ValueSpec("bytes", media_types=tuple(note for note in notes if isinstance(note, str)))
    if is_array(hint):
        return ValueSpec("tensors", tensors=(tensor(name, hint),))
    fields = array_fields(hint)
    if fields:
        tensors = tuple(tensor(field, array) for field, array in fields.items())
        return ValueSpec("tensors", tensors=tensors, container=hint)
    schema, read = reader(hint)
    return ValueSpec("json", schema, read=read)


# JSON


def reader(hint):
    """Returns the JSON Schema of a hint, and a function that converts parsed JSON, or None if no conversion is needed."""
    if is_array(hint):
        return nested_array(tensor("array", hint))
    hint, _ = unwrap(hint)
    if typing.get_origin(hint) in PRESENCE:
        return reader(*typing.get_args(hint))
    if hint in (typing.Any, object):
        return {}, None
    if hint in SCALARS:
        name = SCALARS[hint]
        return {"type": name}, number if hint is float else scalar(hint or type(None), name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (list, tuple, dict, set, frozenset):
        origin, arguments = hint, ()
    if origin is typing.Literal:
        return {"enum": list(arguments)}, one_of(json_scalars(arguments, hint))
    if origin is typing.Union or origin is getattr(sys.modules.get("types"), "UnionType", ...):
        return union(arguments)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return fixed_list(arguments)
    if origin in LISTS:
        return any_list(arguments[0] if arguments else typing.Any, LISTS[origin])
    if origin in (dict, collections.abc.Mapping):
        return any_object(*(arguments or (str, typing.Any)))
    if isinstance(hint, type):
        if hint.__module__ == "numpy" and hint.__name__.rstrip("_") in DTYPES:
            return numpy_number(hint)
        if hasattr(hint, "__get_validators__") or hasattr(hint, "model_validate"):
            return pydantic_model(hint)
        if issubclass(hint, enum.Enum):
            values = json_scalars([member.value for member in hint], hint)
            choose = one_of(values)
            return {"enum": values}, lambda value: hint(choose(value))
        if dataclasses.is_dataclass(hint) or is_typed_dict(hint):
            return record(hint)
    raise Unsupported(
        f"unsupported type hint {show(hint)}, expected str, int, float, bool, list, dict, a dataclass, a TypedDict, "
        "a pydantic model, an array, or no hint"
    )


SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", None: "null"}

# Wrappers of the hints of TypedDict fields.
PRESENCE = tuple(getattr(typing, name) for name in ("Required", "NotRequired") if hasattr(typing, name))

ARTICLES = {"integer": "an integer", "object": "an object", "array": "an array", "null": "null"}


def scalar(cls, name):
    def read(value):
        # Parsed JSON has no subclasses, and a boolean is not accepted as an integer.
        if type(value) is not cls:
            raise InvalidValue(f"expected {ARTICLES.get(name, f'a {name}')}, got {describe(value)}")
        return value

    return read


def number(value):
    if type(value) is float:
        return value
    if type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    raise InvalidValue(f"expected a number, got {describe(value)}")


def one_of(values):
    def read(value):
        if not any(value == known and type(value) is type(known) for known in values):
            raise InvalidValue(f"expected one of {', '.join(map(repr, values))}, got {describe(value)}")
        return value

    return read


def json_scalars(values, hint):
    """Checks that clients can write the values of an enumeration."""
    for value in values:
        if type(value) not in (str, int, float, bool, type(None)):
            raise Unsupported(f"{show(hint)} has the value {value!r}, expected strings, numbers, booleans or None")
    return values


def union(hints):
    schemas, readers = zip(*map(reader, hints))

    def read(value):
        problems = []
        for option in readers:
            if option is None:
                return value
            try:
                return option(value)
            except InvalidValue as problem:
                problems.append(problem)
        # Report the option that matched furthest, which is probably the intended one.
        raise max(problems, key=lambda problem: len(problem.path))

    return {"anyOf": list(schemas)}, read


def any_list(hint, make):
    schema, element = reader(hint)

    def read(value):
        if not isinstance(value, list):
            raise InvalidValue(f"expected an array, got {describe(value)}")
        if element:
            value = [at(f"[{index}]", element, member) for index, member in enumerate(value)]
        return value if make is list else make(value)

    return {"type": "array", "items": schema}, read


def fixed_list(hints):
    schemas, readers = zip(*map(reader, hints))

    def read(value):
        if not isinstance(value, list) or len(value) != len(readers):
            raise InvalidValue(f"expected an array of {len(readers)}, got {describe(value)}")
        parts = enumerate(zip(readers, value))
        return tuple(at(f"[{index}]", element, part) if element else part for index, (element, part) in parts)

    size = len(hints)
    return {"type": "array", "prefixItems": list(schemas), "items": {}, "minItems": size, "maxItems": size}, read


def any_object(key, hint):
    if key is not str:
        raise Unsupported(f"unsupported key type {show(key)} of a dict, expected str")
    schema, member = reader(hint)

    def read(value):
        check_object(value)
        return {name: at(name, member, part) for name, part in value.items()} if member else value

    return {"type": "object", "additionalProperties": schema}, read


def nested_array(tensor):
    def read(value):
        try:
            array = _arrays.from_json(value, tensor.dtype)
        except _arrays.ConversionError as problem:
            raise InvalidValue(f"expected an array of {tensor.dtype}, got {describe(value)}: {problem}") from None
        if not tensor.fits(array.shape):
            raise InvalidValue(f"expected the shape {list(tensor.shape)}, got {list(array.shape)}")
        return array

    items = {"type": {"BOOL": "boolean", "FP16": "number", "FP32": "number", "FP64": "number"}.get(tensor.dtype, "integer")}
    for _ in tensor.shape:
        items = {"type": "array", "items": items}
    return items, read


def numpy_number(cls):
    """Reads a numpy number or boolean."""
    schema, read = nested_array(Tensor("number", DTYPES[cls.__name__.rstrip("_")], ()))
    return schema, lambda value: read(value)[()]


# Dataclasses and TypedDicts that are currently being read, to detect recursion.
open_records = []


def record(cls):
    """Reads a dataclass or TypedDict."""
    if cls in open_records:
        raise Unsupported(f"{show(cls)} is recursive, which is not supported: use `dict` for the inner value")
    open_records.append(cls)
    try:
        return read_record(cls)
    finally:
        open_records.pop()


def read_record(cls):
    if is_typed_dict(cls):
        optional, make = getattr(cls, "__optional_keys__", frozenset()), dict
        known = hints_of(cls)
    else:
        fields = [field for field in dataclasses.fields(cls) if field.init]
        missing = dataclasses.MISSING
        optional = {f.name for f in fields if f.default is not missing or f.default_factory is not missing}
        make, hints = cls, hints_of(cls)
        known = {field.name: hints[field.name] for field in fields}
    schemas, readers = {}, {}
    for name, hint in known.items():
        schemas[name], readers[name] = reader(hint)
    required = [name for name in known if name not in optional]

    def read(value):
        check_object(value)
        parts = {}
        for name, part in value.items():
            try:
                read_part = readers[name]
            except KeyError:
                raise InvalidValue(f"unknown field, expected one of {', '.join(known)}", name) from None
            try:
                parts[name] = read_part(part) if read_part else part
            except InvalidValue as problem:
                raise problem.within(name) from None
        for name in required:
            if name not in parts:
                raise InvalidValue("missing field", name)
        try:
            return make(**parts)
        except (TypeError, ValueError) as problem:
            # Raised by `__post_init__`.
            raise InvalidValue(_text.of(problem)) from None

    schema = {
        "type": "object",
        "properties": schemas,
        "required": required,
        "additionalProperties": False,
    }
    return schema, read


def pydantic_model(cls):
    """Reads a model of pydantic 1 or 2."""
    validate = getattr(cls, "model_validate", None) or cls.parse_obj
    if hasattr(cls, "model_json_schema"):
        schema = cls.model_json_schema()
    else:
        schema = cls.schema()

    def read(value):
        try:
            return validate(value)
        except ValueError as problem:
            errors = getattr(problem, "errors", None)
            if errors is None:
                raise
            first = errors()[0]
            path = ""
            for part in first["loc"]:
                path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
            raise InvalidValue(first["msg"], path) from None

    return inlined(schema), read


def inlined(schema):
    """Replaces references in a schema by their definitions. Recursive references become schemas that accept anything."""
    definitions = {**schema.pop("definitions", {}), **schema.pop("$defs", {})}

    def walk(part, within):
        if isinstance(part, list):
            return [walk(member, within) for member in part]
        if not isinstance(part, dict):
            return part
        reference = part.get("$ref")
        if not isinstance(reference, str):
            # Omit infinite bounds, which have no effect and are not representable in JSON.
            finite = {key: member for key, member in part.items() if not (isinstance(member, float) and not isfinite(member))}
            return {key: walk(member, within) for key, member in finite.items()}
        name = reference.rsplit("/", 1)[-1]
        if name in within or name not in definitions:
            return {}
        return walk(definitions[name], within | {name})

    return walk(schema, frozenset())


def at(part, read, value):
    try:
        return read(value)
    except InvalidValue as problem:
        raise problem.within(part) from None


def check_object(value):
    if not isinstance(value, dict):
        raise InvalidValue(f"expected an object, got {describe(value)}")


def describe(value):
    """Describes a JSON value briefly."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value}"' if len(value) <= 40 else f"a string of {len(value)} characters"
    if isinstance(value, (int, float)):
        return f"{value}"
    return f"an array of {len(value)}" if isinstance(value, list) else "an object"


