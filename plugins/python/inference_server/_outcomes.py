"""Writes what a method returned as what the server takes, by the hint of its outcomes.

An outcome that breaks the promise of its hint, or that no reply can carry, fails its own item: nothing is converted
silently into something else.
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

# Deepest nesting of a JSON document.
MAX_DEPTH = 200


class Unfit(Exception):
    """An outcome that cannot be sent. The message is one that a client may read."""


class Failed:
    """An item without an outcome. `kind` is "invalid", "unsupported" or "fault"."""

    def __init__(self, kind, message):
        self.kind, self.message = kind, message


def failed(error):
    """The failure of an item whose outcome is this exception: the client's fault if it says so, otherwise the model's."""
    kind, message = verdict(error)
    if kind == "fault":
        log.error("the model failed on an item:\n%s", _text.report(error))
    return Failed(kind, message)


def verdict(error):
    """Who is to blame for an exception that one item caused, and what its client is told."""
    leaves = [error]
    while any(hasattr(leaf, "exceptions") for leaf in leaves):
        leaves = [part for leaf in leaves for part in getattr(leaf, "exceptions", (leaf,))]
    for kind, classes in (("unsupported", NotImplementedError), ("invalid", (ValueError, TypeError))):
        if leaves and all(isinstance(leaf, classes) for leaf in leaves):
            return kind, "; ".join(dict.fromkeys(map(_text.of, leaves))) or _text.name(error)
    return "fault", f"the model failed on this item: {_text.name(error)}"


# All outcomes of a batch


def write(form, answers):
    """The outcomes one by one, or of tensors, if every item has them in the same shapes: a tuple with the shape and the data
    of all items for each tensor.
    """
    if form.kind != "tensors":
        return write_each(form, answers)
    if form.holder is None and hasattr(answers, "dtype"):
        import numpy

        (tensor,) = form.tensors
        try:
            rows = _arrays.convert(numpy.asarray(answers), numpy_type(tensor.dtype))
        except _arrays.Inexact:
            # Only some rows may be at fault.
            return write_each(form, answers)
        if tensor.fits(rows.shape[1:]):
            return ((rows.shape, rows.tobytes()),)
    parts = [answers] if form.holder is None else zip(*[held(form, answer) for answer in answers])
    rows = [stacked(tensor, arrays) for tensor, arrays in zip(form.tensors, parts)]
    return write_each(form, answers) if None in rows else tuple(rows)


def stacked(tensor, arrays):
    """Shape and data of arrays in one, if all are of the declared type and have the same shape."""
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


def held(form, answer):
    """The arrays in an outcome of several; None where one is missing."""
    part = answer.get if isinstance(answer, dict) else lambda name: getattr(answer, name, None)
    return [part(tensor.name) for tensor in form.tensors]


def write_each(form, answers):
    return [write_one(form, answer) for answer in answers]


def write_one(form, answer):
    if isinstance(answer, BaseException):
        return failed(answer)
    writer = WRITERS.get(form.kind)
    if writer is None:
        return answer
    try:
        return writer(form, answer)
    except (Unfit, _arrays.Inexact) as problem:
        return unfit(problem)
    except Exception as error:
        log.error("the output of an item cannot be sent:\n%s", _text.report(error))
        return Failed("fault", f"the model's output cannot be sent: {_text.name(error)}")


def unfit(problem):
    """The failure of an item whose outcome cannot be sent."""
    log.error("the output of an item cannot be sent: %s", problem)
    return Failed("fault", f"the model's output cannot be sent: {problem}")


# One outcome


def write_text(form, answer):
    if not isinstance(answer, str):
        raise Unfit(f"it is {_text.article(answer)}, expected a string")
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise Unfit(f"it has a character at {error.start} that is not valid in UTF-8: surrogates not allowed") from None
    return answer


def write_bytes(form, answer):
    """The bytes and their media type."""
    media_type = None
    if isinstance(answer, tuple) and len(answer) == 2:
        answer, media_type = answer
        if not isinstance(media_type, str):
            raise Unfit(f"it has {_text.article(media_type)} beside the bytes, expected a media type such as `image/png`")
    known = form.media_types
    if is_picture(answer):
        return write_picture(answer, media_type or only(known, answer), known)
    if not isinstance(answer, (bytes, bytearray, memoryview)):
        raise Unfit(f"it is {_text.article(answer)}, expected bytes")
    if media_type is None:
        media_type = only(known, answer)
    check_media_type(media_type, known)
    return bytes(answer), media_type


def only(known, answer):
    """The media type of an outcome that does not state it."""
    if len(known) > 1:
        raise Unfit(f"its media type may be {' or '.join(known)}; return (bytes, media_type)")
    return known[0] if known else "image/png" if is_picture(answer) else "application/octet-stream"


def check_media_type(media_type, known):
    if known and media_type not in known:
        raise Unfit(f"its media type is {media_type}, expected {' or '.join(known)}")


def is_picture(value):
    """Whether a value is an image of Pillow."""
    return any(f"{cls.__module__}.{cls.__qualname__}" == "PIL.Image.Image" for cls in type(value).__mro__)


def write_picture(picture, media_type, known):
    from PIL import Image

    check_media_type(media_type, known)
    Image.init()
    formats = [name for name, kind in Image.MIME.items() if kind == media_type and name in Image.SAVE]
    if not formats:
        raise Unfit(f"Pillow cannot write images of the media type {media_type}")
    into = io.BytesIO()
    try:
        # Among those of JPEG is one for several images in a file, which comes later.
        picture.save(into, formats[0])
    except (OSError, ValueError, KeyError) as error:
        raise Unfit(f"an image of mode {picture.mode} cannot be written as {media_type}: {_text.of(error)}") from None
    return into.getvalue(), media_type


def write_arrays(form, answer):
    import numpy

    written = []
    for tensor, array in zip(form.tensors, [answer] if form.holder is None else held(form, answer)):
        if array is None:
            raise Unfit(f"it has no `{tensor.name}`")
        if isinstance(array, numpy.ma.MaskedArray) and numpy.ma.is_masked(array):
            raise Unfit(f"`{tensor.name}` is an array with masked elements")
        try:
            array = _arrays.convert(numpy.asarray(array), numpy_type(tensor.dtype))
        except _arrays.Inexact as problem:
            raise Unfit(f"`{tensor.name}` is {problem}") from None
        if not tensor.fits(array.shape):
            raise Unfit(f"`{tensor.name}` has the shape {list(array.shape)}, expected {list(tensor.shape)}")
        written.append((array.shape, array.tobytes()))
    return written


WRITERS = {"text": write_text, "bytes": write_bytes, "tensors": write_arrays}


# JSON. The server writes documents itself and asks `plain` for the parts that JSON cannot express. If that fails, `problem`
# finds the part at fault.


def plain(value):
    """A value that JSON cannot express, as one that it can."""
    names = field_names(type(value))
    if names is not None:
        return {name: getattr(value, name) for name in names}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, enum.Enum):
        return value.value
    if getattr(getattr(value, "dtype", None), "names", None):
        raise Unfit("an array with named fields has no JSON form")
    # Arrays and numbers of numpy, tensors of torch.
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
        raise Unfit(f"{_text.article(value)} has no JSON form; return a list")
    raise Unfit(f"{_text.article(value)} has no JSON form")


@functools.lru_cache(maxsize=None)
def field_names(cls):
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else None


def problem(value):
    """Why a value cannot be written as JSON, and where: `score` is nan. None if it can."""
    try:
        check(value, "", 0)
    except Unfit as found:
        return str(found)
    except RecursionError:
        return "it is nested too deeply, or contains itself"
    except Exception as error:
        return f"{_text.name(error)}: {_text.of(error)}"
    return None


def check(value, path, depth):
    at = f"`{path}` is " if path else ""
    if depth > MAX_DEPTH:
        raise Unfit("it is nested too deeply, or contains itself")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unfit(f"{at}a string that is not valid in UTF-8: surrogates not allowed") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Unfit(f"{at}{float(value)}, which is not representable in JSON")
    elif value is None or isinstance(value, int):
        # More digits than Python converts to text.
        format(value, "d") if value is not None else None
    elif isinstance(value, dict):
        check_members(value, path, depth)
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            check(part, f"{path}[{index}]", depth + 1)
    else:
        try:
            other = plain(value)
        except Unfit as found:
            raise Unfit(f"`{path}`: {found}" if path else str(found)) from None
        check(other, path, depth + 1)


def check_members(value, path, depth):
    seen = {}
    for key, part in value.items():
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            where = f"`{path}`" if path else "a dict"
            raise Unfit(f"{where} has a key that is neither a str nor an int: {key!r:.80}")
        name = str.__str__(key) if isinstance(key, str) else str(int(key))
        check(name, path, depth)
        if name in seen:
            raise Unfit(f"{f'`{path}`' if path else 'a dict'} has two keys that are both `{name}` in JSON")
        seen[name] = True
        check(part, f"{path}.{name}" if path else name, depth + 1)
