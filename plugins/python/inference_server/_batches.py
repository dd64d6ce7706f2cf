"""Runs batches: from what the server has to what a method takes, and from what it returns to what the server takes.

An exception of a method fails only the items that cause it, see `Task.isolate`.
"""

import inspect
import json
import logging
import typing

from inference_server import _outcomes, _text
from inference_server._arrays import numpy_type
from inference_server._documents import Invalid
from inference_server._hints import Unsupported
from inference_server._outcomes import Failed, failed

log = logging.getLogger("python")

# Batches in a row of which no item succeeded, after which a failed batch is not run again for a while.
MAX_FUTILE = 3

# Most failed batches in a row that are not run again.
MAX_SKIPPED = 64


class Fault(Exception):
    """A breach of the contract of a task, in words that a client may read."""


class Task:
    """One method, its hints, and how it fared so far."""

    def __init__(self, name, method, forms, examples, loop, rerun=True, embedding=False, counter=None):
        self.name, self.method, self.loop = name, method, loop
        self.description = inspect.cleandoc(getattr(method, "__doc__", None) or "")
        self.input, self.output, self.parameters, self.shape = forms.input, forms.output, forms.parameters, forms.shape
        declared = self.input.schema.get("examples") if isinstance(self.input.schema, dict) else None
        self.examples = examples or declared or []
        self.embedding, self.counter = embedding, counter
        if embedding:
            self.check_embedding()
        self.rerun = rerun
        # Whether an item has ever succeeded, reruns in a row in which none did, and failed batches that are not to be rerun.
        self.proven, self.futile, self.skip = False, 0, 0

    def check_embedding(self):
        tensor = self.output.tensors[0] if len(self.output.tensors) == 1 else None
        if self.input.kind != "text" or not tensor or self.output.holder or (tensor.dtype, len(tensor.shape)) != ("FP32", 1):
            raise Unsupported(
                "it is declared as an embedding, expected `list[str]` to `list[NDArray[np.float32]]`, or to one float32 array with a "
                "row for each text"
            )

    # The first attempt

    def run(self, lent, parameters):
        """Calls the method with the items of a batch. The outcome of each, or the rows of all, see `_outcomes.write`; and how
        many tokens each item has, if that is counted.
        """
        items, parameters = self.read(lent, parameters)
        good = [index for index, item in enumerate(items) if not isinstance(item, Failed)]
        if not good:
            return items, None
        outcomes, tokens = self.call([items[index] for index in good], parameters and [parameters[index] for index in good])
        self.proven, self.futile, self.skip = True, 0, 0
        if len(good) == len(items):
            return outcomes, tokens
        counts = [0] * len(items)
        for index, outcome, count in zip(good, self.each(outcomes), tokens or counts):
            items[index], counts[index] = outcome, count
        return items, tokens and counts

    def read(self, lent, parameters):
        """The items as the method takes them, and the parameters of each."""
        items = READERS[self.input.kind](self.input, lent)
        if self.parameters:
            parameters = parse(parameters, self.parameters[1])
            for index, value in enumerate(parameters):
                if isinstance(value, Failed) and not isinstance(items[index], Failed):
                    items[index] = Failed(value.kind, f"parameters: {value.message}")
        return items, parameters

    def call(self, items, parameters):
        """The outcomes of items that fit the hints, and their tokens."""
        tokens = self.count(items) if self.counter else None
        if self.shape != "array":
            items = tuple(items) if self.shape == "tuple" else items
            return self.answers(items, len(items), parameters), tokens
        groups = {}
        for index, item in enumerate(items):
            groups.setdefault(item.shape, []).append(index)
        if len(groups) == 1:
            return self.answers(stack(items), len(items), parameters), tokens
        # Arrays of different shapes cannot be one array: each shape is a call.
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
        """Outcomes one by one, also of those that came as rows."""
        if not isinstance(outcomes, tuple):
            return outcomes
        size = outcomes[0][0][0]
        parts = []
        for shape, data in outcomes:
            length = len(data) // size
            parts.append([(shape[1:], data[index * length : (index + 1) * length]) for index in range(size)])
        return [list(row) for row in zip(*parts)]

    def check(self, answers, count):
        """The answers, which can be counted, and are as many as the items."""
        wrong = (str, bytes, bytearray, memoryview, dict, set, frozenset)
        # A data frame has rows, but iterates over the names of its columns.
        unordered = isinstance(answers, wrong) or hasattr(answers, "columns") or getattr(answers, "shape", None) == ()
        if unordered or not hasattr(answers, "__iter__"):
            raise Fault(f"task `{self.name}` returned {_text.article(answers)}, expected a list of {count}")
        if not hasattr(answers, "__getitem__"):
            answers = list(answers)
        if len(answers) != count:
            raise Fault(f"task `{self.name}` returned {len(answers)} outcomes for {count} items, expected one for each")
        return answers

    def count(self, texts):
        """How many tokens each text has."""
        counts = self.loop.call(self.counter, list(texts))
        counts = counts.tolist() if hasattr(counts, "tolist") else counts
        whole = isinstance(counts, (list, tuple)) and all(hasattr(count, "__index__") for count in counts)
        if not whole or len(counts) != len(texts) or not all(0 <= count < 1 << 48 for count in counts):
            raise Fault(f"`count_tokens` returned {counts!r:.80} for {len(texts)} texts, expected a list of {len(texts)} integers")
        return [int(count) for count in counts]

    # After an exception

    def isolate(self, error, lent, parameters):
        """The outcomes of a batch that `run` ended with `error`, each as if its item had run alone. Raises what the whole batch
        has failed with, if that cannot be told apart.

        Halves that fail are halved again; once that has not helped for long, the remaining items run one by one. So one bad
        item of n costs about 2·log2(n) calls, and n bad ones about n + 2·log2(n).
        """
        if isinstance(error, Fault) or is_out_of_memory(error):
            raise error
        items, _ = self.read(lent, parameters)
        good = [index for index, item in enumerate(items) if not isinstance(item, Failed)]
        rerun = Rerun(self, lent, parameters, items)
        if len(good) > 1 and not (self.rerun and self.may_rerun()):
            return rerun.give_up(error)
        if len(good) == 1:
            rerun.errors[good[0]] = error
        else:
            log.debug("task `%s`: a batch of %d items raised %s; running it in parts", self.name, len(good), _text.name(error))
            rerun.split(good)
        if len(rerun.errors) < len(good):
            self.proven, self.futile, self.skip = True, 0, 0
        elif len(good) > 1:
            self.futile += 1
            self.skip = 0 if self.futile < MAX_FUTILE else min(MAX_SKIPPED, 1 << (self.futile - MAX_FUTILE))
            if not self.proven or self.futile > MAX_FUTILE:
                # No item can be to blame if none has ever passed, or none has for long.
                return rerun.give_up(error)
        elif len(items) == 1 and _outcomes.verdict(error)[0] == "fault":
            return rerun.give_up(error)
        return rerun.settled()

    def may_rerun(self):
        """Whether a failed batch is worth another run. Not always, after some in which every item failed."""
        if self.skip:
            self.skip -= 1
            return False
        return True


class Rerun:
    """The items of a batch that failed, as they run in parts."""

    def __init__(self, task, lent, parameters, items):
        self.task, self.lent, self.parameters = task, lent, parameters
        self.items, self.outcomes = items, list(items)
        self.errors, self.tokens, self.futile = {}, [0] * len(items), 0
        self.patience = len(items).bit_length() + 1

    def split(self, indices):
        """Runs the two halves of items that failed together."""
        middle = len(indices) // 2
        self.run(indices[:middle])
        self.run(indices[middle:])

    def run(self, indices):
        if len(indices) > 1 and self.futile > self.patience:
            for index in indices:
                self.run([index])
            return
        error = self.attempt(indices)
        if error is None:
            return
        if isinstance(error, Fault) or is_out_of_memory(error):
            raise error
        if len(indices) == 1:
            self.errors[indices[0]] = error
        else:
            self.futile += 1
            self.split(indices)

    def attempt(self, indices):
        """Runs items, and returns the exception that they raise."""
        try:
            self.call(indices)
        except BaseException as error:
            return error
        return None

    def call(self, indices):
        # Read once more: the method may have changed its items before it failed.
        parameters = self.parameters and [self.parameters[index] for index in indices]
        items, parameters = self.task.read(pick(self.lent, indices, self.task.input.kind), parameters)
        outcomes, tokens = self.task.call(items, parameters)
        for position, (index, outcome) in enumerate(zip(indices, self.task.each(outcomes))):
            self.outcomes[index] = outcome
            self.tokens[index] = tokens[position] if tokens else 0

    def give_up(self, error):
        """The outcomes of a batch for which the model is to blame. Items that do not fit their hints keep their own errors."""
        if not any(isinstance(outcome, Failed) and outcome.kind != "fault" for outcome in self.items):
            raise error
        _, message = raised(error)
        outcomes = [item if isinstance(item, Failed) else Failed("fault", message) for item in self.items]
        return outcomes, None

    def settled(self):
        """The outcomes and the tokens. Each place that an exception comes from is logged once."""
        logged = {}
        for index, error in self.errors.items():
            kind, message = _outcomes.verdict(error)
            if kind == "fault":
                logged.setdefault(_text.place(error), []).append(error)
            self.outcomes[index] = Failed(kind, message)
        for errors in logged.values():
            count = "an item" if len(errors) == 1 else f"{len(errors)} items"
            log.error("task `%s`: the model failed on %s:\n%s", self.task.name, count, _text.report(errors[0]))
        return self.outcomes, self.tokens if self.task.counter else None


def is_out_of_memory(error):
    if isinstance(error, MemoryError) or _text.name(error) == "OutOfMemoryError":
        return True
    return any(map(is_out_of_memory, getattr(error, "exceptions", ())))


def raised(error):
    """What a client is told of an exception that ended a batch; the log has the rest. Whether memory ran out comes first."""
    if isinstance(error, Fault):
        log.error("%s", error)
        return False, str(error)
    if is_out_of_memory(error):
        # The server runs smaller batches, and reports those that fail.
        log.debug("memory ran out:\n%s", _text.report(error))
        return True, f"the model raised {_text.name(error)}"
    log.error("the model raised an exception:\n%s", _text.report(error))
    return False, f"the model raised {_text.name(error)}"


# From what the server has, for the items of a batch at once, to what the method takes.


def pick(lent, indices, kind):
    """Some of the items that are lent."""
    if kind != "tensors":
        return [lent[index] for index in indices]
    return [[given[index] for index in indices] for given in lent]


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
    """What `make` makes of an item. Code of the author's may take part in that, and must not fail another item."""
    try:
        return make(*parts)
    except Invalid as problem:
        return Failed("invalid", _text.of(problem))
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
            # A copy of what cannot be changed: it may be needed again.
            arrays.append([numpy.ndarray(shape, dtype, bytearray(data)) for data, shape in given])
    if form.holder is None:
        return arrays[0]
    names = [tensor.name for tensor in form.tensors]
    return [made(lambda *parts: form.holder(**dict(zip(names, parts))), *parts) for parts in zip(*arrays)]


def stack(arrays):
    """One array of arrays of the same shape; without a copy if they are all the rows of one."""
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
