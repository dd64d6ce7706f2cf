#!/usr/bin/env python3
"""Derives the table of operators that the embedded runtime of the ONNX plugin computes like ONNX Runtime.

    cargo build -p plugin-onnx --example embedded
    python verify_operators.py derive            # writes plugins/onnx/src/verified/table.json
    python verify_operators.py rederive          # compares a few operators, derived again, with the committed table
    python verify_operators.py rederive --all    # compares all of them
    python verify_operators.py check             # looks for accepted models that are computed differently

The README of this directory explains how.
"""

import argparse
import json
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from operators import rewrites, table  # noqa: F401: `rewrites` registers patterns
from operators.backend import backend_cases
from operators.compare import RANGE, RIGHT, SILENT, compare
from operators.patterns import PATTERNS, make_pattern
from operators.quantization import REJECTED
from operators.runner import Runner
from operators.sampling import SUBJECTS, count, make

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "plugins/onnx/src/verified/table.json"
PROGRAM = REPOSITORY / "target/debug/examples/embedded"

# Cases of an operator for each of its versions, of which the table is derived.
CASES = 80

# Operators that are derived again if `--all` is not given: fast ones, some of which have values that are excluded, and some that
# are not in the table.
SAMPLE = ("ArgMax", "Concat", "MaxPool", "MatMulInteger", "Sign", "Where")


def cases(operators, per_version, seed=0):
    """Subjects and cases, with their names."""
    for operator in operators:
        subject = SUBJECTS[operator]
        for index in range(count(subject, per_version)):
            try:
                case = make(subject, index, seed)
            except (ValueError, IndexError, ZeroDivisionError) as error:
                raise RuntimeError(f"{operator} {index} cannot be made") from error
            yield subject, f"{operator} {index}", case


def node_of(answer, operator):
    """The features of the node that a case is about."""
    nodes = [node for node in answer.nodes if node[0] == operator] if answer else []
    return nodes[-1] if nodes else None


def tally_of(operator, arguments):
    """Compares one operator, in a separate process."""
    runner = Runner(arguments.program)
    try:
        subject = SUBJECTS[operator]
        tally = table.Tally(operator, subject.split, subject.exclude, subject.joint, subject.without)
        for _, name, case in cases([operator], arguments.cases):
            outcome = compare(case, runner, with_zero_signs=True)
            tally.add(node_of(outcome.answer, operator), outcome, case, name)
        return tally, tally.verified()
    finally:
        runner.close()


def derive(arguments):
    started = time.monotonic()
    found = derived(arguments.operators or sorted(SUBJECTS), arguments)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if arguments.operators:
        for part, listed in committed().items():
            found[part] |= {name: entry for name, entry in listed.items() if name not in arguments.operators}
    write(found)


def rederive(arguments):
    """Fails if operators that are derived again, with as many cases, differ from the committed table."""
    started = time.monotonic()
    names = sorted(SUBJECTS) if arguments.all else arguments.operators or SAMPLE
    found, listed = json.loads(json.dumps(derived(names, arguments))), committed()
    names = set(names) | set().union(*listed.values()) if arguments.all else names
    different = 0
    for part in PARTS:
        for name in sorted(names):
            if found[part].get(name) != listed[part].get(name):
                different += 1
                print(f"DIFFERENCE {part}: {name}: derived {found[part].get(name)}, but the table has {listed[part].get(name)}")
    print(f"derived {len(names)} operators in {time.monotonic() - started:.0f} s: {different} differences")
    sys.exit(1 if different else 0)


# Operators with their classes, and those that are not verified with the reason.
PARTS = ("operators", "rejected")


def derived(names, arguments):
    """The table for some operators."""
    table = {part: {} for part in PARTS}
    table["rejected"] = {name: reason for name, reason in REJECTED.items() if name in names or not arguments.operators}
    names = [name for name in names if name in SUBJECTS]
    # A process for each operator, since a fault in a runtime may end it. The longest comparisons start first.
    longest_first = sorted(names, key=lambda name: -count(SUBJECTS[name], arguments.cases))
    with ProcessPoolExecutor(arguments.jobs, max_tasks_per_child=1, mp_context=get_context("spawn")) as pool:
        results = {name: pool.submit(tally_of, name, arguments) for name in longest_first}
        for name in names:
            tally, verified = results[name].result()
            if verified:
                table["operators"][name] = verified
            elif tally.unexplained:
                table["rejected"][name] = "its results differ from those of ONNX Runtime"
            report(tally, verified, arguments.failures)
    return table


def committed():
    table = json.loads(TABLE.read_text())
    return {part: table.get(part, {}) for part in PARTS}


def report(tally, verified, failures):
    counts = ", ".join(f"{kind} {number}" for kind, number in sorted(tally.counts.items()))
    without = sorted({tag for entry in verified for tag in entry.get("without", [])})
    text = f"{tally.operator}: {counts}; {len(verified)} entries" + (f", without {', '.join(without)}" if without else "")
    if tally.zero_signs:
        text += f", depends on the signs of zeros in the inputs {sorted(tally.zero_signs)}"
    print(text, flush=True)
    for feature, value, rate in tally.culprits:
        print(f"  excluded: {feature} = {value} (differs in {rate:.0%})")
    for observation in tally.unusual[: failures or 1]:
        print(f"  unusual: {observation.name}: {observation.detail} {sorted(observation.data)}")
    for observation in tally.unexplained[: failures or 1]:
        print(f"  unexplained: {observation.name}: {observation.detail} {sorted(observation.data)}")


def check(arguments):
    """Fails if the plugin accepts a model that the embedded runtime computes differently."""
    runner = Runner(arguments.program, TABLE)
    counts, accepted, wrong = Counter(), Counter(), []
    try:
        for kind, operator, name, outcome in compared(arguments, runner):
            answer = outcome.answer
            if answer is None:
                continue
            taken = answer.rejected is None
            counts[kind, outcome.kind, "accepted" if taken else "rejected"] += 1
            if taken and outcome.kind == RIGHT:
                accepted[operator] += 1
            if taken and outcome.kind in (SILENT, RANGE):
                wrong.append(f"{name}: {outcome.detail}")
    finally:
        runner.close()
    for (kind, result, verdict), count in sorted(counts.items()):
        print(f"{kind}: {count} {result}, {verdict}")
    listed = committed()["operators"]
    names = set(arguments.operators or listed) & set(listed)
    wrong += [f"{name}: in the table, but no case of it is accepted and right" for name in sorted(names - set(accepted))]
    for line in wrong:
        print(f"DIFFERENCE {line}")
    sys.exit(1 if wrong else 0)


def compared(arguments, runner):
    """Outcomes of the cases of operators, of patterns, and of the backend tests."""
    for subject, name, case in cases(arguments.operators or sorted(SUBJECTS), arguments.cases, arguments.seed):
        yield "operators", subject.operator, name, compare(case, runner)
    if arguments.operators:
        return
    for name in sorted(PATTERNS):
        for index in range(4 * arguments.cases):
            yield "patterns", None, f"pattern {name} {index}", compare(make_pattern(name, index, arguments.seed), runner)
    for case in backend_cases() if arguments.backend else []:
        yield "backend tests", None, case.name, case.compare(runner)


def write(table):
    """Writes the table, and the list in the plugin's README."""
    names = sorted(table["operators"])
    operators = []
    for name in names:
        entries = ",\n".join("    " + json.dumps(entry, sort_keys=True) for entry in table["operators"][name])
        operators.append(f"  {json.dumps(name)}: [\n{entries}\n  ]")
    rejected = [f"  {json.dumps(name)}: {json.dumps(reason)}" for name, reason in sorted(table["rejected"].items())]
    parts = {"operators": operators, "rejected": rejected}
    texts = [f"{json.dumps(part)}: {{\n" + ",\n".join(parts[part]) + "\n}" for part in PARTS]
    TABLE.write_text("{" + ",\n".join(texts) + "}\n")
    readme = REPOSITORY / "plugins/onnx/README.md"
    before, rest = readme.read_text().split("<!-- verified operators -->")
    _, after = rest.split("<!-- end -->")
    listed = textwrap.fill(" ".join(f"`{name}`" for name in names), 120, break_on_hyphens=False)
    readme.write_text(f"{before}<!-- verified operators -->\n{listed}\n<!-- end -->{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["derive", "rederive", "check"])
    parser.add_argument("operators", nargs="*", help="operators to compare, all by default")
    parser.add_argument("--all", action="store_true", help="with `rederive`: all operators, not a few")
    parser.add_argument("--cases", type=int, help="cases of an operator for each of its versions")
    parser.add_argument("--seed", type=int, default=0, help="with `check`: other cases than those of which the table is derived")
    parser.add_argument("--failures", type=int, default=0, help="number of differences to print for each operator")
    parser.add_argument("--jobs", type=int, default=2, help="operators compared at a time")
    parser.add_argument("--backend", action="store_true", help="also run the backend tests of the package onnx")
    parser.add_argument("--program", default=str(PROGRAM))
    arguments = parser.parse_args()
    if arguments.cases is None:
        arguments.cases = 6 if arguments.action == "check" else CASES
    {"derive": derive, "rederive": rederive, "check": check}[arguments.action](arguments)


if __name__ == "__main__":
    main()
