"""Exceptions and values as text for logs and messages. None of it raises, whatever the author's code does."""

import traceback


def of(error):
    """The message of an exception. Its `__str__` may raise as well."""
    try:
        text = str(error)
    except BaseException as other:
        text = f"(its message cannot be shown: {name(other)})"
    return encodable(text)


def name(error):
    """The name of an exception's type."""
    return encodable(str(getattr(type(error), "__qualname__", type(error).__name__)))


def encodable(text):
    """The text, with what UTF-8 cannot encode written out, such as halves of surrogate pairs in file names."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def article(value):
    return f"a value of type `{type(value).__qualname__}`"


def report(error):
    """The traceback, without the frames of this package."""
    trace = error.__traceback__
    while trace and is_machinery(trace.tb_frame):
        trace = trace.tb_next
    try:
        return encodable("".join(traceback.format_exception(type(error), error, trace)).rstrip())
    except BaseException:
        # A cause or a member of the exception cannot be formatted.
        lines = traceback.format_tb(trace)
        return encodable("".join(["Traceback (most recent call last):\n", *lines, f"{name(error)}: {of(error)}"]))


def place(error):
    """Where an exception was raised: tells apart faults that deserve a traceback each."""
    trace, last = error.__traceback__, None
    while trace:
        last = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return type(error), last


def is_machinery(frame):
    """Whether a frame is one of this package, not of the author's code."""
    return frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]
