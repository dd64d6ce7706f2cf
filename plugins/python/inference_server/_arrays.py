"""Conversions of numpy's arrays that never change a value silently. numpy is imported on first use."""

import functools

from inference_server._hints import NUMPY_NAMES


class Inexact(Exception):
    """Values that the wanted type cannot hold."""


@functools.lru_cache(maxsize=None)
def numpy_type(name):
    """numpy's type of one of the server's."""
    import numpy

    return numpy.dtype(NUMPY_NAMES[name])


def convert(array, dtype, casting="same_kind"):
    """The array as `dtype`, if that is of the same kind or a wider one (float64 becomes float32, int64 does too, but float32
    does not become int64) and holds every value: integers exactly, floats without becoming infinite.
    """
    import numpy

    if array.dtype == dtype:
        return array
    try:
        with numpy.errstate(all="ignore"):
            converted = array.astype(dtype, casting=casting)
    except TypeError:
        raise Inexact(f"an array of {array.dtype.name}, expected {dtype.name}") from None
    if array.dtype.kind in "iu":
        with numpy.errstate(all="ignore"):
            kept = _same_integers(array, converted)
    elif array.dtype.kind == "f":
        kept = numpy.isfinite(array) == numpy.isfinite(converted)
    else:
        return converted
    if not kept.all():
        value = array[~kept].flat[0]
        raise Inexact(f"an array of {array.dtype.name} with {value}, which {dtype.name} cannot hold")
    return converted


def _same_integers(array, converted):
    """Where a conversion has kept an integer. A float beyond the range of integers does not convert back."""
    if converted.dtype.kind == "f":
        import numpy

        limits = numpy.iinfo(array.dtype)
        inside = (converted >= float(limits.min)) & (converted < float(limits.max) + 1)
        return inside & (converted.astype(array.dtype) == array)
    return (converted.astype(array.dtype) == array) & ((converted < 0) == (array < 0))


def from_json(value, name):
    """The array in nested lists of parsed JSON."""
    import numpy

    dtype = numpy_type(name)
    allowed = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}[dtype.kind]
    other = _types_in(value, set()) - allowed
    if other:
        raise Inexact(f"it contains {_JSON_NAMES.get(other.pop(), 'a value of another type')}")
    try:
        # Without a type first: numpy would cut 1.5 down to an integer without an error.
        array = numpy.asarray(value)
    except ValueError:
        raise Inexact("its rows differ in length") from None
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind == "O":
        # Integers beyond 64 bits.
        try:
            array = array.astype(numpy.float64)
        except OverflowError:
            raise Inexact(f"it contains a number that {dtype.name} cannot hold") from None
    # An integer of JSON has no sign in its type.
    return convert(array, dtype, "unsafe")


_JSON_NAMES = {str: "a string", bool: "a boolean", type(None): "null", dict: "an object", float: "a number that is not an integer"}


def _types_in(value, found):
    """The types of the leaves of nested lists."""
    if not isinstance(value, list):
        return found | {type(value)}
    types = set(map(type, value))
    if list in types:
        for part in value:
            if type(part) is list:
                found = _types_in(part, found)
    return found | (types - {list})
