"""Finds the tasks of a class: methods with a list-like hint, marked methods, and those listed in its attribute `tasks`.

`Discovery.rejected` contains the reason for each public method that is not a task.
"""

import difflib
import inspect
import logging
import typing

from inference_server import _documents, _hints, _marks
from inference_server._batches import Task, written
from inference_server._hints import ValueSpec, Unsupported

# Methods that are never tasks.
RESERVED = {"load", "unload", "files"}

COUNTER = "count_tokens"

# Optional methods that are not tasks if they have exactly these parameters.
HOOKS = {"weigh": ["task", "item"], "sample": ["task", "weight"], "memory_usage": []}

# Appended to the reason why a method is not a task.
MARK = "to serve it, mark it with `@inference_server.task` or list it in the class attribute `tasks`"

log = logging.getLogger("python")


class Discovery:
    """Tasks of an instance, and the reasons why its other public methods are not tasks."""

    def __init__(self, model, loop, own_packages):
        self.model, self.loop = model, loop
        self.cls = type(model)
        self.own_packages = own_packages | {self.cls.__module__.partition(".")[0]}
        self.tasks, self.rejected, self.inherited = [], {}, {}
        self.listed = name_list(self.cls, "tasks")
        self.embeddings = set(name_list(self.cls, "embeddings") or ())
        self.examples = examples_of(model)
        self.rerun = flag(self.cls, "rerun_failed_batches", True)
        self.counter = None
        self.find()

    def find(self):
        candidates = self.candidates()
        self.embeddings.update(name for name, value in candidates.items() if "embedding" in _marks(value))
        selected = [name for name in candidates if self.is_task(name, candidates[name])]
        if self.listed is not None:
            selected = self.in_order_of_list(candidates, selected)
        for name in self.embeddings - set(selected):
            raise Unsupported(f"`embeddings` names `{name}`, which is not a task{suggestion(name, selected)}")
        self.counter = self.token_counter(candidates)
        for name in selected:
            self.tasks.append(self.task(name, candidates.get(name, getattr(self.model, name, None))))
        for name in self.examples:
            raise Unsupported(f"`examples` has an entry for `{name}`, which is not a task{suggestion(name, selected)}")
        if not self.tasks:
            reasons = "".join(f"; `{name}`: {reason}" for name, reason in self.rejected.items())
            raise Unsupported(f"it has no tasks, expected a method such as `def shout(self, texts: list[str])`{reasons}")

    def candidates(self):
        """Returns the public methods of the class and the functions stored on the instance, in definition order."""
        found = {}
        for base in reversed(self.cls.__mro__):
            if base is object:
                continue
            for name, value in vars(base).items():
                found.pop(name, None)
                if is_method(value) and not name.startswith("_"):
                    found[name] = value
        # A function stored on the instance hides the method with the same name.
        for name, value in getattr(self.model, "__dict__", {}).items():
            if inspect.isroutine(value) and not name.startswith("_"):
                found[name] = value
        return found

    def is_task(self, name, value):
        """Whether a candidate is a task. If not, records the reason in `rejected`."""
        if name in RESERVED or self.hook(name) is not None:
            return False
        if self.embeddings and name == COUNTER:
            return False
        if self.listed is not None:
            if name in self.listed:
                return True
            # A derived class can exclude tasks that its base classes mark.
            if _marks(value) and self.cls.__mro__.index(self.origin("tasks")) >= self.cls.__mro__.index(self.origin(name) or self.cls):
                raise Unsupported(f"`{name}` is marked with @inference_server.task, but `tasks` does not list it")
            self.rejected[name] = "the class attribute `tasks` does not list it"
            return False
        if _marks(value) or name in self.embeddings:
            return True
        reason = self.not_a_task(name, value)
        if reason and self.is_foreign(name):
            origin = self.origin(name)
            self.inherited.setdefault(f"{origin.__module__}.{origin.__qualname__}", []).append(name)
            return False
        if reason:
            self.rejected[name] = reason
        return not reason

    def not_a_task(self, name, value):
        """Returns why the hints of an unmarked method do not make it a task, or None if they do."""
        if name in getattr(self.model, "__dict__", {}):
            return f"it is a function stored on the instance; {MARK}"
        if self.is_foreign(name):
            return f"it is inherited from `{self.origin(name).__module__}`; list it in the class attribute `tasks` to serve it"
        if isinstance(value, staticmethod):
            return f"it is a static method; {MARK}"
        if isinstance(value, classmethod):
            return f"it is a class method; {MARK}"
        if not inspect.isfunction(value):
            return f"it is not a function written in Python; {MARK}"
        method = getattr(self.model, name)
        reason = signature_problem(method)
        if reason:
            return reason
        parameter = items_parameter(method)
        try:
            hints = hints_of(method)
            hint = hints.get(parameter.name)
            listed = hint is not None and (_hints.is_list(hint) or _hints.is_batch_array(hint))
            returned = hints.get("return", typing.Any)
        except Unsupported as problem:
            return str(problem)
        except Exception as error:
            return f"evaluating its type hints raised {type(error).__name__}: {error}; {MARK}"
        if hint is None:
            return f"`{parameter.name}` has no type hint; give it one such as `list[str]`, or {MARK[len('to serve it, '):]}"
        if not listed:
            return (
                f"`{parameter.name}` is {_hints.show(hint)}, expected a list such as `list[str]`, or an array annotated with a "
                "shape that starts with -1"
            )
        if _hints.is_never_list(returned):
            return f"it returns {_hints.show(returned)}, expected a list such as `list[str]`, or an array"
        return None

    def is_foreign(self, name):
        """Whether a method is inherited from a base class in a different package."""
        origin = self.origin(name)
        return origin is not None and origin.__module__.partition(".")[0] not in self.own_packages

    def origin(self, name):
        return next((base for base in self.cls.__mro__ if name in vars(base)), None)

    def in_order_of_list(self, candidates, selected):
        for name in self.listed:
            if name in selected:
                continue
            if name in RESERVED or (name == COUNTER and self.embeddings):
                raise Unsupported(f"`tasks` lists `{name}`, which is a reserved name")
            if not callable(_hints.attribute(self.model, name)):
                raise Unsupported(f"`tasks` lists `{name}`, which is not a method{suggestion(name, candidates)}")
        return list(self.listed)

    def hook(self, name):
        """Returns the optional method `name`, or None if the class does not have it or uses the name for a task."""
        return hook(self.model, name)

    def token_counter(self, candidates):
        if not self.embeddings:
            return None
        method = _hints.attribute(self.model, COUNTER)
        if method is None:
            return None
        if not callable(method) or COUNTER not in candidates:
            raise Unsupported(f"`{COUNTER}` is not a method, expected `def {COUNTER}(self, texts: list[str]) -> list[int]`")
        return method

    def task(self, name, value):
        method = getattr(self.model, name)
        check_name(name)
        reason = signature_problem(method)
        if reason:
            raise Unsupported(f"`{name}`: {reason}")
        check_not_generator(name, method)
        is_embedding = name in self.embeddings
        return make(
            name,
            method,
            self.examples.pop(name, None),
            loop=self.loop,
            rerun=self.rerun,
            embedding=is_embedding,
            counter=self.counter if is_embedding else None,
            weigher=self.hook("weigh"),
            sampler=self.hook("sample"),
        )

    def report(self):
        """Logs why public methods are not tasks."""
        for name, reason in self.rejected.items():
            log.info("`%s` is not a task: %s", name, reason)
        for origin, names in self.inherited.items():
            shown = ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")
            log.info(
                "%d methods inherited from `%s` are not tasks (%s); list them in the class attribute `tasks` to serve them",
                len(names),
                origin,
                shown,
            )


def function_task(function, name, loop):
    """Returns the task of a model that is a function."""
    reason = signature_problem(function)
    if reason:
        raise Unsupported(reason)
    check_not_generator(name, function)
    check_name(name)
    examples = getattr(function, "examples", None)
    rerun = flag(function, "rerun_failed_batches", True)
    return make(name, function, examples, loop=loop, rerun=rerun, embedding="embedding" in _marks(function))


def make(name, method, examples, **options):
    try:
        return Task(name, method, method_spec(method), [written(example) for example in examples or ()], **options)
    except Unsupported as problem:
        raise Unsupported(f"`{name}`: {problem}") from None
    except Exception as error:
        raise Unsupported(f"evaluating the type hints of `{name}` raised {type(error).__qualname__}: {error}") from None


# Signatures


def is_method(value):
    if isinstance(value, (staticmethod, classmethod)):
        return True
    if inspect.isclass(value) or isinstance(value, property):
        return False
    # Partial methods, and wrappers such as those of `functools.lru_cache`.
    return inspect.isroutine(value) or (callable(value) and hasattr(value, "__get__"))


def items_parameter(method):
    return next(iter(inspect.signature(method).parameters.values()))


def signature_problem(method):
    """Returns why a method cannot be called as a task, regardless of its hints, or None if it can."""
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return "its signature is unknown, expected one parameter, a list of items"
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters:
        return "it has no parameters, expected a list of items"
    if any(parameter.kind not in plain for parameter in parameters[:1]):
        return "its first parameter is not positional, expected a list of items"
    rejected = [parameter.name for parameter in parameters[1:]]
    if rejected not in ([], ["parameters"]) or any(parameter.kind not in plain for parameter in parameters):
        return (
            f"it has the parameters {', '.join(parameter.name for parameter in parameters)}, expected a list of items and "
            "optionally `parameters`, the list of their parameters"
        )
    return None


def has_required_parameters(method):
    return any(parameter.default is parameter.empty for parameter in inspect.signature(method).parameters.values())


def check_not_generator(name, method):
    function = inspect.unwrap(getattr(method, "__func__", method))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Unsupported(f"`{name}` is a generator, expected a method that returns a list: remove `yield`")


def check_name(name):
    allowed = name.isascii() and name.replace("_", "").isalnum() and not name.startswith("_")
    if not allowed:
        raise Unsupported(
            f"invalid task name `{name}`: expected letters, digits and `_`, not starting with `_`"
        )


# Attributes of the class


def name_list(cls, attribute):
    """Returns a class attribute that is a list of names."""
    names = _hints.attribute(cls, attribute)
    if names is None or isinstance(names, property) or inspect.isroutine(names):
        return None
    if isinstance(names, str) or not isinstance(names, (list, tuple, set, frozenset)):
        raise Unsupported(f"`{attribute}` is {names!r:.80}, expected a list of the names of methods")
    for name in names:
        if not isinstance(name, str):
            raise Unsupported(f"`{attribute}` contains {name!r:.80}, expected the names of methods")
    if len(set(names)) < len(names):
        raise Unsupported(f"`{attribute}` contains a name twice")
    return list(names)


def hook(model, name):
    """Returns the optional method `name` of a model if its parameters are those of `HOOKS`."""
    method = _hints.attribute(model, name) if name in HOOKS else None
    if not callable(method) or inspect.isclass(method) or _marks(method):
        return None
    try:
        parameters = list(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return None
    return method if parameters == HOOKS[name] else None


def flag(owner, attribute, default):
    value = _hints.attribute(owner, attribute, default)
    if not isinstance(value, bool):
        raise Unsupported(f"`{attribute}` is {value!r:.80}, expected True or False")
    return value


def examples_of(model):
    examples = _hints.attribute(model, "examples")
    if examples is None:
        return {}
    if not isinstance(examples, dict):
        raise Unsupported(f"`examples` is {examples!r:.80}, expected a dict of lists of items, by the names of tasks")
    for name, items in examples.items():
        if not isinstance(items, (list, tuple)):
            raise Unsupported(f"`examples` has {items!r:.80} for `{name}`, expected a list of items")
    return dict(examples)


def suggestion(name, known):
    close = difflib.get_close_matches(name, known, 1)
    return f": did you mean `{close[0]}`?" if close else ""


def hints_of(method):
    """Returns the type hints of a method or another callable."""
    while hasattr(method, "func"):
        method = method.func
    if not inspect.isroutine(method) and not hasattr(method, "__wrapped__"):
        method = method.__call__
    return _hints.hints_of(getattr(method, "__func__", method))


# Interpretation of hints


class MethodSpec:
    """Description of a method by its hints: items, outcomes and parameters."""

    def __init__(self, input, output, parameters, shape):
        self.input, self.output, self.parameters = input, output, parameters
        # Type of the argument with the items: "list", "tuple" or "array".
        self.shape = shape


def method_spec(method):
    signature = list(inspect.signature(method).parameters.values())
    hints = hints_of(method)
    items = hints.get(signature[0].name, typing.Any)
    bare, _ = _hints.unwrap(items)
    if _hints.is_array(items):
        shape, input = "array", ValueSpec("tensors", tensors=(_hints.rows("input", items),))
    elif _hints.is_list(items) or bare in (object, typing.Any):
        shape = "tuple" if (typing.get_origin(bare) or bare) is tuple else "list"
        input = _documents.form(_hints.element(items), "input")
    else:
        raise Unsupported(f"`{signature[0].name}` is {_hints.show(items)}, expected a list such as `list[str]`")
    parameters = None
    if len(signature) > 1:
        hint = hints.get("parameters", typing.Any)
        if not _hints.is_list(hint) and _hints.unwrap(hint)[0] not in (object, typing.Any):
            raise Unsupported(f"`parameters` is {_hints.show(hint)}, expected a list such as `list[dict]`, with the parameters of each item")
        parameters = _documents.reader(_hints.element(hint))
    return MethodSpec(input, output_form(hints.get("return", typing.Any)), parameters, shape)


def output_form(hint):
    if _hints.is_array(hint):
        # One array for the whole batch, whose rows are the outcomes.
        rows = _hints.tensor("output", hint)
        rows.shape = tuple(rows.shape[1:]) or (-1,)
        return ValueSpec("tensors", tensors=(rows,))
    if _hints.is_never_list(hint):
        raise Unsupported(f"it returns {_hints.show(hint)}, expected a list such as `list[str]`, or an array")
    return _documents.form(_hints.element(hint), "output")


