"""Converts the return value of a method to outcomes for the server, by its type hint.

An outcome that does not match its hint, or that cannot be sent, fails only its own item. Values are never changed silently.
"""

import collections.abc
import dataclasses
import enum
import functools
import io
import logging
import math

from inference_server import _arrays, _text
from inference_server._arrays import numpy_type

log = logging.getLogger("python")

# Maximum nesting depth of a JSON document.
MAX_DEPTH = 200


class OutputError(Exception):
    """An outcome that cannot be sent. The message is shown to the client."""


class Failure:
    """The error of an item. `kind` is "invalid", "unsupported" or "fault"."""

    def __init__(self, kind, message):
        self.kind, self.message = kind, message


def failure_of(error):
    """Converts an exception that is the outcome of an item."""
    kind, message = classify(error)
    if kind == "fault":
        log.error("the model failed on an item:\n%s", _text.report(error))
    return Failure(kind, message)


def classify(error):
    """Returns the kind of error for an exception that one item caused, and the message for the client."""
    leaves = [error]
    while any(hasattr(leaf, "exceptions") for leaf in leaves):
        leaves = [part for leaf in leaves for part in getattr(leaf, "exceptions", (leaf,))]
    for kind, classes in (("unsupported", NotImplementedError), ("invalid", (ValueError, TypeError))):
        if leaves and all(isinstance(leaf, classes) for leaf in leaves):
            return kind, "; ".join(dict.fromkeys(map(_text.of, leaves))) or _text.name(error)
    return "fault", f"the model failed on this item: {_text.name(error)}"


# All outcomes of a batch


def write(form, answers):
    """Returns a list of outcomes. For tensors that have the same shape in all items, returns a tuple instead, with the shape and
    the data of all items for each tensor.
    """
    if form.kind != "tensors":
        return write_each(form, answers)
    if form.container is None and hasattr(answers, "dtype"):
        import numpy

        (tensor,) = form.tensors
        try:
            rows = _arrays.convert(numpy.asarray(answers), numpy_type(tensor.dtype))
        except _arrays.ConversionError:
            # Possibly only some rows are at fault.
            return write_each(form, answers)
        if tensor.fits(rows.shape[1:]):
            return ((rows.shape, rows.tobytes()),)
    parts = [answers] if form.container is None else zip(*[tensors_of(form, answer) for answer in answers])
    rows = [stacked(tensor, arrays) for tensor, arrays in zip(form.tensors, parts)]
    return write_each(form, answers) if None in rows else tuple(rows)


def stacked(tensor, arrays):
    """Returns the shape and data of the stacked arrays, if all have the declared type and the same shape. Otherwise None."""
    import numpy

    dtype, shape = numpy_type(tensor.dtype), getattr(arrays[0], "shape", None)
    for array in arrays:
        if not isinstance(array, numpy.ndarray) or array.dtype != dtype or array.shape != shape:
            return None
        if isinstance(array, numpy.ma.MaskedArray):
            return None
    if not tensor.fits(shape):
        return None
    return (len(arrays), *shape), b"".join([array.tobytes() for array in arrays])


def tensors_of(form, answer):
    """Returns the arrays of an outcome with several tensors. None stands for a missing one."""
    part = answer.get if isinstance(answer, dict) else lambda name: getattr(answer, name, None)
    return [part(tensor.name) for tensor in form.tensors]


def write_each(form, answers):
    return [write_one(form, answer) for answer in answers]


def write_one(form, answer):
    if isinstance(answer, BaseException):
        return failure_of(answer)
    writer = WRITERS.get(form.kind)
    if writer is None:
        return answer
    try:
        return writer(form, answer)
    except (OutputError, _arrays.ConversionError) as problem:
        return output_failure(problem)
    except Exception as error:
        log.error("cannot send the output of an item:\n%s", _text.report(error))
        return Failure("fault", f"cannot send the model's output: {_text.name(error)}")


def output_failure(problem):
    """Returns the error of an item whose outcome cannot be sent."""
    log.error("cannot send the output of an item: %s", problem)
    return Failure("fault", f"cannot send the model's output: {problem}")


# One outcome


def write_text(form, answer):
    if not isinstance(answer, str):
        raise OutputError(f"it is {_text.article(answer)}, expected a string")
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"it has a character at {error.start} that is not valid in UTF-8: surrogates not allowed") from None
    return answer


def write_bytes(form, answer):
    """Returns the bytes and their media type."""
    media_type = None
    if isinstance(answer, tuple) and len(answer) == 2:
        answer, media_type = answer
        if not isinstance(media_type, str):
            raise OutputError(f"its media type is {_text.article(media_type)}, expected a string such as `image/png`")
    known = form.media_types
    if is_image(answer):
        return write_image(answer, media_type or only(known, answer), known)
    if not isinstance(answer, (bytes, bytearray, memoryview)):
        raise OutputError(f"it is {_text.article(answer)}, expected bytes")
    if media_type is None:
        media_type = only(known, answer)
    check_media_type(media_type, known)
    return bytes(answer), media_type


def only(known, answer):
    """Returns the media type of an outcome that does not specify it."""
    if len(known) > 1:
        raise OutputError(f"its media type can be {' or '.join(known)}: return (bytes, media_type)")
    return known[0] if known else "image/png" if is_image(answer) else "application/octet-stream"


def check_media_type(media_type, known):
    if known and media_type not in known:
        raise OutputError(f"its media type is {media_type}, expected {' or '.join(known)}")


def is_image(value):
    """Whether a value is a Pillow image."""
    return any(f"{cls.__module__}.{cls.__qualname__}" == "PIL.Image.Image" for cls in type(value).__mro__)


def write_image(image, media_type, known):
    from PIL import Image

    check_media_type(media_type, known)
    Image.init()
    formats = [name for name, kind in Image.MIME.items() if kind == media_type and name in Image.SAVE]
    if not formats:
        raise OutputError(f"Pillow cannot write images with the media type {media_type}")
    into = io.BytesIO()
    try:
        # The first format, because JPEG also has a later one for several images per file.
        image.save(into, formats[0])
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"cannot write an image of mode {image.mode} as {media_type}: {_text.of(error)}") from None
    return into.getvalue(), media_type


def write_arrays(form, answer):
    import numpy

    written = []
    for tensor, array in zip(form.tensors, [answer] if form.container is None else tensors_of(form, answer)):
        if array is None:
            raise OutputError(f"it lacks the tensor `{tensor.name}`")
        if isinstance(array, numpy.ma.MaskedArray) and numpy.ma.is_masked(array):
            raise OutputError(f"`{tensor.name}` is an array with masked elements")
        try:
            array = _arrays.convert(numpy.asarray(array), numpy_type(tensor.dtype))
        except _arrays.ConversionError as problem:
            raise OutputError(f"`{tensor.name}` is {problem}") from None
        if not tensor.fits(array.shape):
            raise OutputError(f"`{tensor.name}` has the shape {list(array.shape)}, expected {list(tensor.shape)}")
        written.append((array.shape, array.tobytes()))
    return written


WRITERS = {"text": write_text, "bytes": write_bytes, "tensors": write_arrays}


# JSON. The bridge writes documents and calls `plain` for values that JSON cannot represent. If that fails, `problem` locates the
# value at fault.


def plain(value):
    """Converts a value that JSON cannot represent to one that it can."""
    names = field_names(type(value))
    if names is not None:
        return {name: getattr(value, name) for name in names}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, enum.Enum):
        return value.value
    if getattr(getattr(value, "dtype", None), "names", None):
        raise OutputError("an array with named fields is not representable in JSON")
    # numpy arrays and numbers, and torch tensors.
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(value)
    if hasattr(value, "__get_validators__"):
        return value.dict()
    if isinstance(value, collections.abc.Iterator):
        raise OutputError(f"{_text.article(value)} is not representable in JSON: return a list")
    raise OutputError(f"{_text.article(value)} is not representable in JSON")


@functools.lru_cache(maxsize=None)
def field_names(cls):
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else None


def problem(value):
    """Returns why and where a value is not representable in JSON, or None if it is."""
    try:
        check(value, "", 0)
    except OutputError as found:
        return str(found)
    except RecursionError:
        return "it is nested too deeply, or contains itself"
    except Exception as error:
        return f"{_text.name(error)}: {_text.of(error)}"
    return None


def check(value, path, depth):
    at = f"`{path}` is " if path else ""
    if depth > MAX_DEPTH:
        raise OutputError("it is nested too deeply, or contains itself")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise OutputError(f"{at}a string that is not valid in UTF-8: surrogates not allowed") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise OutputError(f"{at}{float(value)}, which is not representable in JSON")
    elif value is None or isinstance(value, int):
        # Raises for more digits than Python converts to text.
        format(value, "d") if value is not None else None
    elif isinstance(value, dict):
        check_members(value, path, depth)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            check(part, f"{path}[{index}]", depth + 1)
    else:
        try:
            other = plain(value)
        except OutputError as found:
            raise OutputError(f"`{path}`: {found}" if path else str(found)) from None
        check(other, path, depth + 1)


def check_members(value, path, depth):
    seen = {}
    for key, part in value.items():
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            where = f"`{path}`" if path else "a dict"
            raise OutputError(f"{where} has a key that is neither a str nor an int: {key!r:.80}")
        name = str.__str__(key) if isinstance(key, str) else str(int(key))
        check(name, path, depth)
        if name in seen:
            raise OutputError(f"{f'`{path}`' if path else 'a dict'} has two keys that are both `{name}` in JSON")
        seen[name] = True
        check(part, f"{path}.{name}" if path else name, depth + 1)
