"""Runs the examples of a class without a server, using the server's code.

Differences from the server: everything runs in one process and one interpreter, and outcomes are also checked against the type
hints of the method.
"""

import argparse
import base64
import json
import logging
import os
import sys

from inference_server import _documents, _outcomes, _text
from inference_server._batches import raised
from inference_server._loading import LoadError, load
from inference_server._outcomes import Failure

DESCRIPTION = "Run the examples of a class without a server, using the server's code."


def main(arguments=None):
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # The reasons why methods are not tasks are logged at this level.
    logging.getLogger("python").setLevel(logging.INFO)
    try:
        settings = read_settings(options.settings)
        model = load(options.target, settings, os.path.abspath(options.base_dir), os.cpu_count() or 1)
    except LoadError as problem:
        key = "" if problem.key == "class" else f"{problem.key}: "
        print(f"failed to load {options.target}: {key}{problem}", file=sys.stderr)
        return 1
    try:
        return report(model, options.task)
    finally:
        model.unload()


def parser():
    top = argparse.ArgumentParser(prog="python -m inference_server", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    test = commands.add_parser("test", help="run the examples of a class", description=DESCRIPTION)
    test.add_argument("target", metavar="FILE.py:CLASS", help="class or function, as in the setting `class`")
    test.add_argument("--settings", metavar="JSON", default="{}", help="settings for `load` as JSON, or @FILE to read them from a file")
    test.add_argument("--base-dir", metavar="DIR", default=".", help="base directory of relative paths")
    test.add_argument("--task", metavar="NAME", action="append", help="run only this task; can be repeated")
    return top


def read_settings(text):
    try:
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
        settings = json.loads(text)
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot read the settings: {_text.of(error)}", "settings") from None
    if not isinstance(settings, dict):
        raise LoadError(f"expected an object, got {_documents.describe(settings)}", "settings")
    return settings


def report(model, wanted):
    """Runs the tasks, prints a line for each, and returns the exit code."""
    names = [task.name for task in model.tasks]
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        print(f"unknown task `{unknown[0]}`, expected one of {', '.join(names)}", file=sys.stderr)
        return 2
    failed = 0
    for task in model.tasks:
        if wanted and task.name not in wanted:
            continue
        problems = [] if not task.examples else run_task(task)
        if problems:
            failed += 1
            print(f"{task.name}: FAILED")
            for problem in problems:
                print(f"  {problem}")
        elif task.examples:
            count = len(task.examples)
            print(f"{task.name}: ok ({count} example{'s' if count != 1 else ''})")
        else:
            print(f"{task.name}: not run: the task has no `examples`")
    return 1 if failed else 0


def run_task(task):
    """Runs the examples of a task, each alone and all in a batch. Returns the problems."""
    try:
        items = [to_raw(task.input, example) for example in task.examples]
    except _documents.InvalidValue as problem:
        return [f"an example is not a valid item of the task: {problem}"]
    problems = []
    for index, item in enumerate(items):
        problems += [f"examples[{index}]: {problem}" for _, problem in run_batch(task, [item])]
    if len(items) > 1 and not problems:
        batch = run_batch(task, items)
        problems = [f"examples[{index}], in a batch of all {len(items)}: {problem}" for index, problem in batch]
    return problems


def run_batch(task, items):
    raw = items if task.input.kind != "tensors" else [list(tensor) for tensor in zip(*items)]
    parameters = ["{}"] * len(items) if task.parameters else None
    try:
        try:
            outcomes, _ = task.run(raw, parameters)
        except BaseException as error:
            outcomes, _ = task.isolate(error, raw, parameters)
    except BaseException as error:
        _, message = raised(error)
        return [(0, message)]
    checked = [(index, check(task, outcome)) for index, outcome in enumerate(task.each(outcomes))]
    return [(index, problem) for index, problem in checked if problem]


def check(task, outcome):
    """Returns the problem of an outcome, or None."""
    if isinstance(outcome, Failure):
        return outcome.message
    if task.output.kind != "json":
        return None
    problem = _outcomes.problem(outcome)
    if problem:
        return f"cannot send the output: {problem}"
    if task.output.read is None:
        return None
    try:
        task.output.read(json.loads(json.dumps(outcome, default=_outcomes.plain)))
    except _documents.InvalidValue as mismatch:
        return f"the output does not match its type hint: {mismatch}"
    return None


def to_raw(form, example):
    """Converts an example to the form in which the server passes items."""
    if form.kind == "text":
        if not isinstance(example, str):
            raise _documents.InvalidValue(f"expected a string, got {_documents.describe(example)}")
        return example
    if form.kind == "bytes":
        return read_bytes(example)
    if form.kind == "tensors":
        return read_tensors(form, example)
    problem = _outcomes.problem(example)
    if problem:
        raise _documents.InvalidValue(problem)
    return json.dumps(example, default=_outcomes.plain)


def read_bytes(example):
    text = example.get("b64") if isinstance(example, dict) else None
    if isinstance(example, str) and example.startswith("data:"):
        text = example.partition(";base64,")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise _documents.InvalidValue('expected bytes, `{"b64": "…"}` or a data URI in base64') from None


def read_tensors(form, example):
    example = plain_lists(example)
    if isinstance(example, dict) and form.tensors:
        parts = [example.get(tensor.name) for tensor in form.tensors]
    else:
        parts = [example]
    if len(parts) != len(form.tensors) or any(part is None for part in parts):
        raise _documents.InvalidValue(f"expected the tensors {', '.join(tensor.name for tensor in form.tensors)}")
    tensors = []
    for tensor, part in zip(form.tensors, parts):
        array = _documents.at(tensor.name, _documents.nested_array(tensor)[1], part)
        tensors.append((array.tobytes(), array.shape))
    return tensors


def plain_lists(example):
    if isinstance(example, dict):
        return {name: plain_lists(part) for name, part in example.items()}
    return example.tolist() if hasattr(example, "tolist") else example


