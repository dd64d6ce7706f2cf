"""Markers for classes that the inference server serves.

The server provides this module to every class that it loads; nothing has to be installed. Outside of the server, put the
directory that contains this package on `PYTHONPATH`, for example to run the examples of a class:

    PYTHONPATH=plugins/python python -m inference_server test model.py:Model

A class does not need these markers: a public method with a list-like type hint is a task. They exist for methods without
such a hint, and for what a hint cannot express.
"""

from typing import Any, Callable, TypeVar

__all__ = ["embedding", "task"]

Method = TypeVar("Method", bound=Callable[..., Any])


def task(method: Method) -> Method:
    """Marks a method as a task, regardless of its type hints.

    The method takes a list of items, or one array of them, and returns one outcome for each. Without a type hint, items can be
    any JSON.
    """
    return _mark(method, "task")


def embedding(method: Method) -> Method:
    """Marks a method as a task that is also served at `/v1/embeddings`.

    It takes texts and returns one float32 vector for each: `list[str]` to `list[NDArray[np.float32]]`, or to one array with one
    row per text. If the class has a method `count_tokens(self, texts: list[str]) -> list[int]`, it provides `usage`.
    """
    _mark(method, "embedding")
    return _mark(method, "task")


_MARK = "__inference_server__"


def _mark(method: Any, mark: str) -> Any:
    # Static and class methods expose the attributes of the function that they wrap.
    function = getattr(method, "__func__", method)
    if not callable(function):
        raise TypeError(f"@{mark} must be applied to a method, got {type(method).__name__}")
    setattr(function, _MARK, getattr(function, _MARK, frozenset()) | {mark})
    return method


def _marks(method: Any) -> "frozenset[str]":
    """Returns the marks of a method. Wrappers that use `functools.wraps` have the marks of the wrapped function."""
    return getattr(getattr(method, "__func__", method), _MARK, frozenset())
