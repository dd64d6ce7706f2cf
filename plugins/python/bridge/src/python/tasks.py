"""A model's tasks: methods that take a list of items and return a list of outcomes, found by their type hints, and called
with batches.
"""

import base64
import functools
import inspect
import json
import logging
import traceback
import typing

from _inference_server import values
from _inference_server.values import Form, Invalid, Unsupported

# Methods that are never tasks.
RESERVED = {"load", "unload"}

log = logging.getLogger("python")


class Fault(Exception):
    """What the model did wrong, in words that a client may read."""


class Failed:
    """An item without an outcome. `kind` is "invalid", "unsupported" or "fault"."""

    def __init__(self, kind, message):
        self.kind, self.message = kind, message


class Task:
    """One method, and what its items and outcomes are."""

    def __init__(self, name, method, examples):
        self.name, self.method = name, method
        self.description = inspect.cleandoc(method.__doc__ or "")
        parameters = list(inspect.signature(method).parameters.values())
        hints = values.hints_of(getattr(method, "__func__", method))
        self.input = values.form(element(hints.get(parameters[0].name)), "input")
        self.output = output_form(hints.get("return"))
        self.parameters = None
        if len(parameters) > 1:
            self.parameters = values.reader(element(hints.get("parameters")))
        declared = self.input.schema.get("examples") if isinstance(self.input.schema, dict) else None
        self.examples = [written(example) for example in (examples or declared or [])]

    def run(self, items, parameters):
        """Calls the method with the items that are what it takes. The outcome of each, or the rows of all, see `write`."""
        items = READERS[self.input.kind](self.input, items)
        if self.parameters:
            parameters = parse(parameters, self.parameters[1])
            for index, value in enumerate(parameters):
                if isinstance(value, Failed):
                    items[index] = Failed(value.kind, f"parameters: {value.message}")
        good = [index for index, item in enumerate(items) if not isinstance(item, Failed)]
        if not good:
            return items
        arguments = [[items[index] for index in good]]
        if self.parameters:
            arguments.append([parameters[index] for index in good])
        answers = self.check(self.method(*arguments), len(good))
        if len(good) == len(items):
            return write(self.output, answers)
        for index, answer in zip(good, write_each(self.output, answers)):
            items[index] = answer
        return items

    def check(self, answers, count):
        """The answers, which can be counted, and are as many as the items."""
        if isinstance(answers, (str, bytes, dict)) or not hasattr(answers, "__iter__"):
            raise Fault(f"task `{self.name}` returned {article(answers)}, expected a list of {count}")
        if not hasattr(answers, "__getitem__"):
            answers = list(answers)
        if len(answers) != count:
            raise Fault(f"task `{self.name}` returned {len(answers)} outcomes for {count} items, expected one for each")
        return answers


def tasks_of(model, name):
    """The tasks of an instance of a class, or of one function called `name`."""
    if inspect.isroutine(model):
        reason = no_task(model)
        if reason:
            raise Unsupported(reason)
        return [Task(name, model, getattr(model, "examples", None))]
    examples = dict(getattr(model, "examples", None) or {})
    tasks, others = [], []
    for method_name, function in inspect.getmembers(type(model), inspect.isfunction):
        method = getattr(model, method_name)
        if method_name.startswith("_") or method_name in RESERVED or not inspect.ismethod(method):
            continue
        reason = no_task(method)
        if reason:
            others.append(f"; `{method_name}` is none, since {reason}")
            continue
        try:
            tasks.append((function.__code__.co_firstlineno, Task(method_name, method, examples.pop(method_name, None))))
        except Unsupported as problem:
            raise Unsupported(f"`{method_name}`: {problem}") from None
    if not tasks:
        raise Unsupported(f"it has no task, such as `def shout(self, texts: list[str])`{''.join(others)}")
    for name in examples:
        raise Unsupported(f"`examples` has some for `{name}`, which is no task")
    return [task for _, task in sorted(tasks, key=lambda pair: pair[0])]


def no_task(method):
    """Why a method cannot be a task; None if it can."""
    parameters = list(inspect.signature(method).parameters.values())
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or any(parameter.kind not in plain for parameter in parameters):
        return "it does not take a list"
    if len(parameters) > 2 or (len(parameters) == 2 and parameters[1].name != "parameters"):
        return "it takes more than a list, and `parameters`"
    hint = values.hints_of(getattr(method, "__func__", method)).get(parameters[0].name)
    if hint is not None and not is_list(hint):
        return "its first parameter is no list"
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        return "it is asynchronous"
    return None


def is_list(hint):
    hint, _ = values.unwrap(hint)
    origin = typing.get_origin(hint) or hint
    return origin in values.LISTS and origin not in (tuple, set, frozenset)


def element(hint):
    """The hint of what a list of this hint holds."""
    if hint is None or not is_list(hint):
        return typing.Any
    hint, _ = values.unwrap(hint)
    return (typing.get_args(hint) or (typing.Any,))[0]


def output_form(hint):
    if hint is None or not values.is_array(hint):
        return values.form(element(hint), "output")
    # One array for the batch: its rows are the outcomes.
    rows = values.tensor("output", hint)
    rows.shape = tuple(rows.shape[1:]) or (-1,)
    return Form("tensors", tensors=(rows,))


def written(example):
    """An example as a client would write it."""
    if isinstance(example, bytes):
        return {"b64": base64.b64encode(example).decode()}
    return example


# From what the server has, for the items of a batch at once, to what the method takes.


def parse(documents, read):
    """The values of JSON documents, each as `read` makes it."""
    try:
        items = json.loads(f"[{','.join(documents)}]")
        return [read(item) for item in items] if read else items
    except Exception:
        # One is to blame: it does not fit, or has a number with too many digits, say.
        return [made(parse_alone, document, read) for document in documents]


def parse_alone(document, read):
    item = json.loads(document)
    return read(item) if read else item


def made(make, *parts):
    """What `make` makes of an item. Code of the author's may take part in that, and is to fail no other item."""
    try:
        return make(*parts)
    except Invalid as problem:
        return Failed("invalid", str(problem))
    except Exception as error:
        return failed(error)


def read_tensors(form, tensors):
    """For each tensor of the task either the data and the shape of all items in one, or those of each."""
    import numpy

    arrays = []
    for tensor, given in zip(form.tensors, tensors):
        dtype = numpy_type(tensor.dtype)
        if isinstance(given, tuple):
            data, shape = given
            arrays.append(list(numpy.ndarray(shape, dtype, data)))
        else:
            arrays.append([numpy.ndarray(shape, dtype, data) for data, shape in given])
    if form.holder is None:
        return arrays[0]
    names = [tensor.name for tensor in form.tensors]
    return [made(lambda *parts: form.holder(**dict(zip(names, parts))), *parts) for parts in zip(*arrays)]


READERS = {
    "text": lambda form, items: items,
    "bytes": lambda form, items: items,
    "json": lambda form, documents: parse(documents, form.read),
    "tensors": read_tensors,
}


# From what the method returned to what the server takes.


def write(form, answers):
    """The outcomes one by one, or of tensors, if every item has them in the same shapes: a tuple with the shape and the data
    of all items for each tensor.
    """
    if form.kind != "tensors":
        return write_each(form, answers)
    if form.holder is None and hasattr(answers, "dtype"):
        import numpy

        (tensor,) = form.tensors
        rows = convert(tensor, numpy.asarray(answers))
        if tensor.fits(rows.shape[1:]):
            return ((rows.shape, rows.tobytes()),)
    parts = [answers] if form.holder is None else zip(*[held(form, answer) for answer in answers])
    rows = [stacked(tensor, arrays) for tensor, arrays in zip(form.tensors, parts)]
    return write_each(form, answers) if None in rows else tuple(rows)


def stacked(tensor, arrays):
    """Shape and data of arrays in one, if all are of the type that was promised and have the same shape."""
    import numpy

    dtype, shape = numpy_type(tensor.dtype), getattr(arrays[0], "shape", None)
    for array in arrays:
        if not isinstance(array, numpy.ndarray) or array.dtype != dtype or array.shape != shape:
            return None
    if not tensor.fits(shape):
        return None
    return (len(arrays), *shape), b"".join([array.tobytes() for array in arrays])


def held(form, answer):
    """The arrays in an outcome of several; None where one is missing."""
    part = answer.get if isinstance(answer, dict) else lambda name: getattr(answer, name, None)
    return [part(tensor.name) for tensor in form.tensors]


@functools.lru_cache(maxsize=None)
def numpy_type(name):
    import numpy

    return numpy.dtype(values.NUMPY_NAMES[name])


def write_each(form, answers):
    writer = WRITERS.get(form.kind)
    outcomes = []
    for answer in answers:
        if isinstance(answer, BaseException):
            outcomes.append(failed(answer))
        elif writer is None:
            outcomes.append(answer)
        else:
            try:
                outcomes.append(writer(form, answer))
            except Fault as problem:
                log.error("the outcome of an item is unfit: %s", problem)
                outcomes.append(Failed("fault", f"the model's outcome is unfit: {problem}"))
            except Exception as error:
                log.error("the outcome of an item is unfit:\n%s", report(error))
                outcomes.append(Failed("fault", f"the model's outcome is unfit: {type(error).__qualname__}"))
    return outcomes


def write_text(form, answer):
    if not isinstance(answer, str):
        raise Fault(f"it is {article(answer)}, expected a string")
    return answer


def write_bytes(form, answer):
    if not isinstance(answer, (bytes, bytearray, memoryview)):
        raise Fault(f"it is {article(answer)}, expected bytes")
    return bytes(answer)


def write_arrays(form, answer):
    import numpy

    written = []
    for tensor, array in zip(form.tensors, [answer] if form.holder is None else held(form, answer)):
        if array is None:
            raise Fault(f"it has no `{tensor.name}`")
        array = convert(tensor, numpy.asarray(array))
        if not tensor.fits(array.shape):
            raise Fault(f"`{tensor.name}` has the shape {list(array.shape)}, expected {list(tensor.shape)}")
        written.append((array.shape, array.tobytes()))
    return written


WRITERS = {"text": write_text, "bytes": write_bytes, "tensors": write_arrays}


def convert(tensor, array):
    """The array with the type that was promised, if that is of the same sort: float64 becomes float32, but not int64."""
    dtype = numpy_type(tensor.dtype)
    if array.dtype == dtype:
        return array
    try:
        return array.astype(dtype, casting="same_kind")
    except TypeError:
        raise Fault(f"`{tensor.name}` is an array of {array.dtype.name}, expected {dtype.name}") from None


def failed(error):
    """An exception in the place of an outcome: the client's fault where it says so, and else the model's."""
    if isinstance(error, NotImplementedError):
        return Failed("unsupported", str(error))
    if isinstance(error, (ValueError, TypeError)):
        return Failed("invalid", str(error))
    log.error("the model failed on an item:\n%s", report(error))
    return Failed("fault", f"the model failed on this item: {type(error).__qualname__}")


def raised(error):
    """What a client is told of an exception that ended a batch; the log has the rest. Whether memory ran out comes first."""
    if isinstance(error, Fault):
        log.error("%s", error)
        return False, str(error)
    log.error("the model raised an exception:\n%s", report(error))
    name = type(error).__qualname__
    return isinstance(error, MemoryError) or name == "OutOfMemoryError", f"the model raised {name}"


def report(error):
    """The traceback, without the frames of this package."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith("<inference-server"):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def article(value):
    return f"a value of type `{type(value).__qualname__}`"
