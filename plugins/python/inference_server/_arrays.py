"""Conversions of numpy arrays that never change a value silently. numpy is imported on first use."""

import functools

from inference_server._hints import NUMPY_NAMES


class ConversionError(Exception):
    """The target type cannot represent a value."""


@functools.lru_cache(maxsize=None)
def numpy_type(name):
    """Returns numpy's type for a datatype of the server."""
    import numpy

    return numpy.dtype(NUMPY_NAMES[name])


def convert(array, dtype, casting="same_kind"):
    """Converts an array to `dtype`. It must be of the same kind or a wider one (float64 and int64 can be converted to float32, but
    not float32 to int64) and must represent every value: integers exactly, and finite floats as finite.
    """
    import numpy

    if array.dtype == dtype:
        return array
    try:
        with numpy.errstate(all="ignore"):
            converted = array.astype(dtype, casting=casting)
    except TypeError:
        raise ConversionError(f"an array of {array.dtype.name}, expected {dtype.name}") from None
    if array.dtype.kind in "iu":
        with numpy.errstate(all="ignore"):
            kept = _same_integers(array, converted)
    elif array.dtype.kind == "f":
        kept = numpy.isfinite(array) == numpy.isfinite(converted)
    else:
        return converted
    if not kept.all():
        value = array[~kept].flat[0]
        raise ConversionError(f"an array of {array.dtype.name} with {value}, which {dtype.name} cannot represent")
    return converted


def _same_integers(array, converted):
    """Returns a mask of the integers that a conversion preserved. Floats outside the range of integers cannot be converted back."""
    if converted.dtype.kind == "f":
        import numpy

        limits = numpy.iinfo(array.dtype)
        inside = (converted >= float(limits.min)) & (converted < float(limits.max) + 1)
        return inside & (converted.astype(array.dtype) == array)
    return (converted.astype(array.dtype) == array) & ((converted < 0) == (array < 0))


def from_json(value, name):
    """Converts nested lists of parsed JSON to an array."""
    import numpy

    dtype = numpy_type(name)
    allowed = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}[dtype.kind]
    other = _types_in(value, set()) - allowed
    if other:
        raise ConversionError(f"it contains {_JSON_NAMES.get(other.pop(), 'a value of an unsupported type')}")
    try:
        # Without a type at first, because numpy would silently truncate 1.5 to an integer.
        array = numpy.asarray(value)
    except ValueError:
        raise ConversionError("its rows have different lengths") from None
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind == "O":
        # Integers beyond 64 bits.
        try:
            array = array.astype(numpy.float64)
        except OverflowError:
            raise ConversionError(f"it contains a number that {dtype.name} cannot represent") from None
    # JSON does not distinguish signed and unsigned integers.
    return convert(array, dtype, "unsafe")


_JSON_NAMES = {str: "a string", bool: "a boolean", type(None): "null", dict: "an object", float: "a number that is not an integer"}


def _types_in(value, found):
    """Returns the types of the leaves of nested lists."""
    if not isinstance(value, list):
        return found | {type(value)}
    types = set(map(type, value))
    if list in types:
        for part in value:
            if type(part) is list:
                found = _types_in(part, found)
    return found | (types - {list})
