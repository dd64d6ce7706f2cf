"""Runs the examples of a class without a server, with the code that the server itself loads and runs it with.

Differences from the server: everything runs in one process and one interpreter, and outcomes are checked against the hints
of the method as well.
"""

import argparse
import base64
import json
import logging
import os
import sys

from inference_server import _documents, _outcomes, _text
from inference_server._batches import raised
from inference_server._loading import Refused, load
from inference_server._outcomes import Failed

DESCRIPTION = "Run the examples of a class without a server. The server runs it with the same code."


def main(arguments=None):
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Which methods are not tasks is part of the report.
    logging.getLogger("python").setLevel(logging.INFO)
    try:
        settings = read_settings(options.settings)
        model = load(options.target, settings, os.path.abspath(options.base_dir), os.cpu_count() or 1)
    except Refused as problem:
        at = "" if problem.key == "class" else f"{problem.key}: "
        print(f"failed to load {options.target}: {at}{problem}", file=sys.stderr)
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
    test.add_argument("--settings", metavar="JSON", default="{}", help="settings for `load`: JSON, or @FILE that contains JSON")
    test.add_argument("--base-dir", metavar="DIR", default=".", help="directory that relative paths start from")
    test.add_argument("--task", metavar="NAME", action="append", help="run this task only; can be repeated")
    return top


def read_settings(text):
    try:
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
        settings = json.loads(text)
    except (OSError, ValueError) as error:
        raise Refused(f"cannot be read: {_text.of(error)}", "settings") from None
    if not isinstance(settings, dict):
        raise Refused(f"expected an object, got {_documents.describe(settings)}", "settings")
    return settings


def report(model, wanted):
    """Runs the tasks and prints a line for each. The exit code."""
    names = [task.name for task in model.tasks]
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        print(f"no task `{unknown[0]}`; the tasks are {', '.join(names)}", file=sys.stderr)
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
            print(f"{task.name}: not run, it has no `examples`")
    return 1 if failed else 0


def run_task(task):
    """What is wrong with the examples of a task: each alone, and all of them in a batch."""
    try:
        items = [lend(task.input, example) for example in task.examples]
    except _documents.Invalid as problem:
        return [f"an example is not an item of the task: {problem}"]
    problems = []
    for index, item in enumerate(items):
        problems += [f"examples[{index}]: {problem}" for _, problem in run_batch(task, [item])]
    if len(items) > 1 and not problems:
        batch = run_batch(task, items)
        problems = [f"examples[{index}], in a batch of all {len(items)}: {problem}" for index, problem in batch]
    return problems


def run_batch(task, items):
    lent = items if task.input.kind != "tensors" else [list(tensor) for tensor in zip(*items)]
    parameters = ["{}"] * len(items) if task.parameters else None
    try:
        try:
            outcomes, _ = task.run(lent, parameters)
        except BaseException as error:
            outcomes, _ = task.isolate(error, lent, parameters)
    except BaseException as error:
        _, message = raised(error)
        return [(0, message)]
    checked = [(index, check(task, outcome)) for index, outcome in enumerate(task.each(outcomes))]
    return [(index, problem) for index, problem in checked if problem]


def check(task, outcome):
    """What is wrong with an outcome. None if nothing is."""
    if isinstance(outcome, Failed):
        return outcome.message
    if task.output.kind != "json":
        return None
    problem = _outcomes.problem(outcome)
    if problem:
        return f"the output cannot be sent: {problem}"
    if task.output.read is None:
        return None
    try:
        task.output.read(json.loads(json.dumps(outcome, default=_outcomes.plain)))
    except _documents.Invalid as mismatch:
        return f"the output does not fit its type hint: {mismatch}"
    return None


def lend(form, example):
    """An example as the server lends it."""
    if form.kind == "text":
        if not isinstance(example, str):
            raise _documents.Invalid(f"expected a string, got {_documents.describe(example)}")
        return example
    if form.kind == "bytes":
        return read_bytes(example)
    if form.kind == "tensors":
        return read_tensors(form, example)
    problem = _outcomes.problem(example)
    if problem:
        raise _documents.Invalid(problem)
    return json.dumps(example, default=_outcomes.plain)


def read_bytes(example):
    text = example.get("b64") if isinstance(example, dict) else None
    if isinstance(example, str) and example.startswith("data:"):
        text = example.partition(";base64,")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise _documents.Invalid('expected bytes, `{"b64": "…"}` or a data URI in base64') from None


def read_tensors(form, example):
    example = plain_lists(example)
    if isinstance(example, dict) and form.tensors:
        parts = [example.get(tensor.name) for tensor in form.tensors]
    else:
        parts = [example]
    if len(parts) != len(form.tensors) or any(part is None for part in parts):
        raise _documents.Invalid(f"expected the tensors {', '.join(tensor.name for tensor in form.tensors)}")
    tensors = []
    for tensor, part in zip(form.tensors, parts):
        array = _documents.at(tensor.name, _documents.nested_array(tensor)[1], part)
        tensors.append((array.tobytes(), array.shape))
    return tensors


def plain_lists(example):
    if isinstance(example, dict):
        return {name: plain_lists(part) for name, part in example.items()}
    return example.tolist() if hasattr(example, "tolist") else example


