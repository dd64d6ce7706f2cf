"""Formatting of exceptions and values for logs and messages. No function raises, even if the author's code does."""

import traceback


def of(error):
    """Returns the message of an exception. Its `__str__` may raise."""
    try:
        text = str(error)
    except BaseException as other:
        text = f"(formatting the message raised {name(other)})"
    return encodable(text)


def name(error):
    """Returns the name of an exception's type."""
    return encodable(str(getattr(type(error), "__qualname__", type(error).__name__)))


def encodable(text):
    """Escapes characters that UTF-8 cannot encode, such as lone surrogates in file names."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def article(value):
    return f"a value of type `{type(value).__qualname__}`"


def report(error):
    """Formats the traceback, without the frames of this package."""
    trace = error.__traceback__
    while trace and is_machinery(trace.tb_frame):
        trace = trace.tb_next
    try:
        return encodable("".join(traceback.format_exception(type(error), error, trace)).rstrip())
    except BaseException:
        # A cause or an attribute of the exception cannot be formatted.
        lines = traceback.format_tb(trace)
        return encodable("".join(["Traceback (most recent call last):\n", *lines, f"{name(error)}: {of(error)}"]))


def place(error):
    """Returns the type and the location of an exception, to log each distinct fault once."""
    trace, last = error.__traceback__, None
    while trace:
        last = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return type(error), last


def is_machinery(frame):
    """Whether a frame belongs to this package rather than to the author's code."""
    return frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]
