"""Runs batches: converts the server's items to arguments of a method, and its return value to outcomes.

An exception in a method fails only the items that cause it; see `Task.isolate`.
"""

import base64
import hashlib
import inspect
import json
import logging
import typing

from inference_server import _outcomes, _text
from inference_server._arrays import numpy_type
from inference_server._documents import InvalidValue
from inference_server._hints import Unsupported
from inference_server._outcomes import Failure, failure_of

log = logging.getLogger("python")

# Maximum number of consecutive failed batches that are rerun without any item succeeding, before reruns are suspended.
MAX_FAILED_RERUNS = 3

# Maximum number of consecutive failed batches that are not rerun.
MAX_SKIPPED = 64

# Maximum weight of an item.
MAX_WEIGHT = 1 << 40


class ContractError(Exception):
    """A method violated the contract of a task. The message is shown to the client."""


class Task:
    """A method with its hints, and statistics of its failures."""

    def __init__(
        self, name, method, method_spec, examples, loop, rerun=True, embedding=False, counter=None, weigher=None, sampler=None
    ):
        self.name, self.method, self.loop = name, method, loop
        self.description = inspect.cleandoc(getattr(method, "__doc__", None) or "")
        self.input, self.output, self.parameters, self.shape = method_spec.input, method_spec.output, method_spec.parameters, method_spec.shape
        declared = self.input.schema.get("examples") if isinstance(self.input.schema, dict) else None
        self.examples = examples or declared or []
        self.embedding, self.counter = embedding, counter
        if embedding:
            self.check_embedding()
        self.weigher, self.sampler = weigher, sampler
        self.rerun = rerun
        # Whether an item has ever succeeded, the number of consecutive reruns without success, and the number of failed batches
        # that are not rerun.
        self.has_succeeded, self.failed_reruns, self.skip = False, 0, 0

    def check_embedding(self):
        tensor = self.output.tensors[0] if len(self.output.tensors) == 1 else None
        if self.input.kind != "text" or not tensor or self.output.container or (tensor.dtype, len(tensor.shape)) != ("FP32", 1):
            raise Unsupported(
                "it is declared as an embedding task, expected `list[str]` to `list[NDArray[np.float32]]`, or to one float32 array "
                "with one row per text"
            )

    # Before the batch

    def weigh(self, raw, parameters):
        """Returns the weight and the group of one item, or its `Failure`. `raw` and `parameters` are those of a batch of one."""
        items, _ = self.read(raw, parameters)
        if isinstance(items[0], Failure):
            return items[0]
        try:
            return weight_and_group(self.loop.call(self.weigher, self.name, items[0]))
        except ContractError as error:
            log.error("%s", error)
            return Failure("fault", str(error))
        except BaseException as error:
            return failure_of(error)

    def sample(self, weight):
        """Returns an item of about this weight in the form in which clients write it, or None."""
        return written(self.loop.call(self.sampler, self.name, weight))

    # The first attempt

    def run(self, raw, parameters):
        """Calls the method with the items of a batch. Returns the outcomes, in a form of `_outcomes.write`, and the number of tokens
        of each item, or None if they are not counted.
        """
        items, parameters = self.read(raw, parameters)
        good = [index for index, item in enumerate(items) if not isinstance(item, Failure)]
        if not good:
            return items, None
        outcomes, tokens = self.call([items[index] for index in good], parameters and [parameters[index] for index in good])
        self.has_succeeded, self.failed_reruns, self.skip = True, 0, 0
        if len(good) == len(items):
            return outcomes, tokens
        counts = [0] * len(items)
        for index, outcome, count in zip(good, self.each(outcomes), tokens or counts):
            items[index], counts[index] = outcome, count
        return items, tokens and counts

    def read(self, raw, parameters):
        """Returns the arguments of the method: the items, and the parameters of each."""
        items = READERS[self.input.kind](self.input, raw)
        if self.parameters:
            parameters = parse(parameters, self.parameters[1])
            for index, value in enumerate(parameters):
                if isinstance(value, Failure) and not isinstance(items[index], Failure):
                    items[index] = Failure(value.kind, f"parameters: {value.message}")
        return items, parameters

    def call(self, items, parameters):
        """Calls the method with valid items. Returns the outcomes and the numbers of tokens."""
        tokens = self.count(items) if self.counter else None
        if self.shape != "array":
            items = tuple(items) if self.shape == "tuple" else items
            return self.answers(items, len(items), parameters), tokens
        groups = {}
        for index, item in enumerate(items):
            groups.setdefault(item.shape, []).append(index)
        if len(groups) == 1:
            return self.answers(stack(items), len(items), parameters), tokens
        # Arrays of different shapes cannot be stacked, so there is one call per shape.
        outcomes = [None] * len(items)
        for group in groups.values():
            theirs = parameters and [parameters[index] for index in group]
            answers = self.answers(stack([items[index] for index in group]), len(group), theirs)
            for index, outcome in zip(group, self.each(answers)):
                outcomes[index] = outcome
        return outcomes, tokens

    def answers(self, items, count, parameters):
        arguments = (items,) if parameters is None else (items, parameters)
        answers = self.check(self.loop.call(self.method, *arguments), count)
        return _outcomes.write(self.output, answers)

    def each(self, outcomes):
        """Returns a list of outcomes, also for outcomes that are rows of tensors."""
        if not isinstance(outcomes, tuple):
            return outcomes
        size = outcomes[0][0][0]
        parts = []
        for shape, data in outcomes:
            length = len(data) // size
            parts.append([(shape[1:], data[index * length : (index + 1) * length]) for index in range(size)])
        return [list(row) for row in zip(*parts)]

    def check(self, answers, count):
        """Checks that the method returned one outcome per item, and returns them as a sequence."""
        invalid = (str, bytes, bytearray, memoryview, dict, set, frozenset)
        # Iterating over a data frame yields its column names instead of rows.
        unordered = isinstance(answers, invalid) or hasattr(answers, "columns") or getattr(answers, "shape", None) == ()
        if unordered or not hasattr(answers, "__iter__"):
            raise ContractError(f"task `{self.name}` returned {_text.article(answers)}, expected a list of {count}")
        if not hasattr(answers, "__getitem__"):
            answers = list(answers)
        if len(answers) != count:
            raise ContractError(f"task `{self.name}` returned {len(answers)} outcomes for {count} items, expected one for each")
        return answers

    def count(self, texts):
        """Returns the number of tokens of each text."""
        counts = self.loop.call(self.counter, list(texts))
        counts = counts.tolist() if hasattr(counts, "tolist") else counts
        whole = isinstance(counts, (list, tuple)) and all(hasattr(count, "__index__") for count in counts)
        if not whole or len(counts) != len(texts) or not all(0 <= count < 1 << 48 for count in counts):
            raise ContractError(f"`count_tokens` returned {counts!r:.80} for {len(texts)} texts, expected a list of {len(texts)} integers")
        return [int(count) for count in counts]

    # After an exception

    def isolate(self, error, raw, parameters):
        """Returns the outcomes of a batch for which `run` raised `error`, as if each item had run alone. Raises the error of the
        whole batch if no item can be blamed.

        Runs the halves of the batch, and halves of those that fail. After several failures, runs the remaining items one by one. One
        bad item of n costs about 2·log2(n) calls, and n bad items cost about n + 2·log2(n).
        """
        if isinstance(error, ContractError) or is_out_of_memory(error):
            raise error
        items, _ = self.read(raw, parameters)
        good = [index for index, item in enumerate(items) if not isinstance(item, Failure)]
        rerun = Rerun(self, raw, parameters, items)
        if len(good) > 1 and not (self.rerun and self.may_rerun()):
            return rerun.fail_batch(error)
        if len(good) == 1:
            rerun.errors[good[0]] = error
        else:
            log.debug("task `%s`: a batch of %d items raised %s; running it in parts", self.name, len(good), _text.name(error))
            rerun.split(good)
        if len(rerun.errors) < len(good):
            self.has_succeeded, self.failed_reruns, self.skip = True, 0, 0
        elif len(good) > 1:
            self.failed_reruns += 1
            self.skip = 0 if self.failed_reruns < MAX_FAILED_RERUNS else min(MAX_SKIPPED, 1 << (self.failed_reruns - MAX_FAILED_RERUNS))
            if not self.has_succeeded or self.failed_reruns > MAX_FAILED_RERUNS:
                # No item can be blamed if none has ever succeeded, or none has succeeded recently.
                return rerun.fail_batch(error)
        elif len(items) == 1 and _outcomes.classify(error)[0] == "fault":
            return rerun.fail_batch(error)
        return rerun.results()

    def may_rerun(self):
        """Whether to rerun a failed batch. After several reruns without success, most failed batches are not rerun."""
        if self.skip:
            self.skip -= 1
            return False
        return True


class Rerun:
    """A rerun of a failed batch in parts."""

    def __init__(self, task, raw, parameters, items):
        self.task, self.raw, self.parameters = task, raw, parameters
        self.items, self.outcomes = items, list(items)
        self.errors, self.tokens, self.failed_reruns = {}, [0] * len(items), 0
        self.max_failed_reruns = len(items).bit_length() + 1

    def split(self, indices):
        """Runs the two halves of a failed group of items."""
        middle = len(indices) // 2
        self.run(indices[:middle])
        self.run(indices[middle:])

    def run(self, indices):
        if len(indices) > 1 and self.failed_reruns > self.max_failed_reruns:
            for index in indices:
                self.run([index])
            return
        error = self.attempt(indices)
        if error is None:
            return
        if isinstance(error, ContractError) or is_out_of_memory(error):
            raise error
        if len(indices) == 1:
            self.errors[indices[0]] = error
        else:
            self.failed_reruns += 1
            self.split(indices)

    def attempt(self, indices):
        """Runs items and returns the exception that they raise, or None."""
        try:
            self.call(indices)
        except BaseException as error:
            return error
        return None

    def call(self, indices):
        # Convert the items again, because the method may have modified them before it failed.
        parameters = self.parameters and [self.parameters[index] for index in indices]
        items, parameters = self.task.read(pick(self.raw, indices, self.task.input.kind), parameters)
        outcomes, tokens = self.task.call(items, parameters)
        for position, (index, outcome) in enumerate(zip(indices, self.task.each(outcomes))):
            self.outcomes[index] = outcome
            self.tokens[index] = tokens[position] if tokens else 0

    def fail_batch(self, error):
        """Returns the outcomes of a batch that failed because of the model. Invalid items keep their own errors."""
        if not any(isinstance(outcome, Failure) and outcome.kind != "fault" for outcome in self.items):
            raise error
        _, message = raised(error)
        outcomes = [item if isinstance(item, Failure) else Failure("fault", message) for item in self.items]
        return outcomes, None

    def results(self):
        """Returns the outcomes and the numbers of tokens. Logs exceptions once per location."""
        logged = {}
        for index, error in self.errors.items():
            kind, message = _outcomes.classify(error)
            if kind == "fault":
                logged.setdefault(_text.place(error), []).append(error)
            self.outcomes[index] = Failure(kind, message)
        for errors in logged.values():
            count = "an item" if len(errors) == 1 else f"{len(errors)} items"
            log.error("task `%s`: the model failed on %s:\n%s", self.task.name, count, _text.report(errors[0]))
        return self.outcomes, self.tokens if self.task.counter else None


def weight_and_group(weighed):
    """Returns the weight and the group that `weigh` returned: a weight, or a pair of a weight and a group."""
    weight, group = weighed if isinstance(weighed, tuple) and len(weighed) == 2 else (weighed, None)
    weight = 1 if weight is None else weight
    if not hasattr(weight, "__index__") or isinstance(weight, bool) or not 0 <= weight <= MAX_WEIGHT:
        raise ContractError(f"`weigh` returned {weighed!r:.80}, expected an integer of at most 2**40, or a pair of it and a group")
    if group is None:
        return int(weight), 0
    digest = hashlib.blake2b(repr(group).encode("utf-8", "surrogatepass"), digest_size=8)
    return int(weight), int.from_bytes(digest.digest(), "little") or 1


def written(example):
    """Converts an example to the form in which clients write it."""
    if isinstance(example, (bytes, bytearray)):
        return {"b64": base64.b64encode(example).decode()}
    return example


def is_out_of_memory(error):
    if isinstance(error, MemoryError) or _text.name(error) == "OutOfMemoryError":
        return True
    return any(map(is_out_of_memory, getattr(error, "exceptions", ())))


def raised(error):
    """Logs an exception that failed a batch. Returns whether memory ran out, and the message for the client."""
    if isinstance(error, ContractError):
        log.error("%s", error)
        return False, str(error)
    if is_out_of_memory(error):
        # The server runs smaller batches, and reports those that fail.
        log.debug("out of memory:\n%s", _text.report(error))
        return True, f"the model raised {_text.name(error)}"
    log.error("the model raised an exception:\n%s", _text.report(error))
    return False, f"the model raised {_text.name(error)}"


# Conversion of the items of a batch to arguments of the method.


def pick(raw, indices, kind):
    """Selects some of the raw items."""
    if kind != "tensors":
        return [raw[index] for index in indices]
    return [[given[index] for index in indices] for given in raw]


def parse(documents, read):
    """Parses JSON documents and converts each with `read`."""
    try:
        items = json.loads(f"[{','.join(documents)}]")
        return [read(item) for item in items] if read else items
    except Exception:
        # At least one is invalid, for example because a number has too many digits.
        return [convert_item(parse_alone, document, read) for document in documents]


def parse_alone(document, read):
    item = json.loads(document)
    return read(item) if read else item


def convert_item(make, *parts):
    """Converts one item with `make`. This can run the author's code, whose exceptions must not affect other items."""
    try:
        return make(*parts)
    except InvalidValue as problem:
        return Failure("invalid", _text.of(problem))
    except Exception as error:
        return failure_of(error)


def read_tensors(form, tensors):
    """Converts tensors, of which each has either the data and shape of all items, or a list with those of each item."""
    import numpy

    arrays = []
    for tensor, given in zip(form.tensors, tensors):
        dtype = numpy_type(tensor.dtype)
        if isinstance(given, tuple):
            data, shape = given
            arrays.append(list(numpy.ndarray(shape, dtype, data)))
        else:
            # Copy, so that the method can modify the array while the original is kept for reruns.
            arrays.append([numpy.ndarray(shape, dtype, bytearray(data)) for data, shape in given])
    if form.container is None:
        return arrays[0]
    names = [tensor.name for tensor in form.tensors]
    return [convert_item(lambda *parts: form.container(**dict(zip(names, parts))), *parts) for parts in zip(*arrays)]


def stack(arrays):
    """Stacks arrays of the same shape, without a copy if they are the rows of one array."""
    import numpy

    base = arrays[0].base
    whole = base is not None and getattr(base, "shape", None) == (len(arrays), *arrays[0].shape)
    if whole and all(array.base is base for array in arrays):
        return base
    return numpy.stack(arrays)


READERS: "dict[str, typing.Any]" = {
    "text": lambda form, items: list(items),
    "bytes": lambda form, items: list(items),
    "json": lambda form, documents: parse(documents, form.read),
    "tensors": read_tensors,
}
