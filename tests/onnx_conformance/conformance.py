#!/usr/bin/env python3
"""Compares what the onnx plugin answers with Python's onnxruntime and with the ONNX standard's own tests.

Exits with 1 if any answer is silently wrong or a server died, and with --require-all also if a model that Python's
onnxruntime computes is not served right with ONNX Runtime installed.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

import backend
import edges
import packages
import real_models
import report
import tabular
from cases import Case, Verdict
from reference import add_references
from runner import Runner

REPOSITORY = Path(__file__).resolve().parents[2]
RUNTIMES = ("rten", "ort", "auto")
SUITES = {"backend": backend.load, "edges": edges.load, "models": real_models.load, "tabular": tabular.load}
SHORT = {"backend": backend.load_short, "models": real_models.load_small}


def main() -> int:
    arguments = parse_arguments()
    known = SHORT if arguments.short else SUITES
    failed = False
    for suite in arguments.suite or known:
        cases = [case for case in known[suite](arguments.cache) if re.search(arguments.only, case.name)]
        failed |= not run(suite, cases, arguments)
    return 1 if failed else 0


def run(suite: str, cases: list[Case], arguments: argparse.Namespace) -> bool:
    """Runs one suite in all runtimes and prints its table; returns whether nothing is wrong."""
    begun = time.monotonic()
    add_references(cases)
    print(f"## {suite}: {len(cases)} models\n\nreferences: {time.monotonic() - begun:.0f} s", flush=True)
    outcomes = {}
    for runtime in arguments.runtime or RUNTIMES:
        begun = time.monotonic()
        runner = Runner(arguments.server, arguments.plugin_dir, runtime, arguments.python, arguments.group)
        outcomes[runtime] = runner.run(cases)
        print(f"{runtime}: {time.monotonic() - begun:.0f} s", flush=True)
    report.print_table(cases, outcomes)
    if arguments.report:
        report.write(arguments.report, suite, outcomes)
    wrong = [outcome for all_of in outcomes.values() for outcome in all_of if outcome.verdict in report.INTOLERABLE]
    missing = report.not_served(outcomes) if arguments.require_all else []
    return not wrong and not missing


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", help=f"default: all of {', '.join(SUITES)}")
    parser.add_argument("--short", action="store_true", help="a few backend tests and small models")
    parser.add_argument("--require-all", action="store_true", help="every model must be served with ONNX Runtime")
    parser.add_argument("--server", type=Path, default=REPOSITORY / "target/debug/inference-server")
    parser.add_argument("--plugin-dir", type=Path, help="default: the directory of the server")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="default: all")
    parser.add_argument("--only", default="", help="run models whose name matches this regular expression")
    parser.add_argument("--group", type=int, default=100, help="models per server")
    parser.add_argument("--python", default=sys.prefix, help="environment with the package onnxruntime")
    parser.add_argument("--cache", type=Path, default=packages.default_cache())
    parser.add_argument("--report", type=Path, help="directory for a line of JSON per model and runtime")
    arguments = parser.parse_args()
    unknown = set(arguments.suite) - set(SHORT if arguments.short else SUITES)
    if unknown:
        parser.error(f"unknown suite: {', '.join(sorted(unknown))}")
    arguments.plugin_dir = arguments.plugin_dir or arguments.server.parent
    return arguments


if __name__ == "__main__":
    sys.exit(main())
