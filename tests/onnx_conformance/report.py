"""Prints and writes the outcomes of a suite."""

from __future__ import annotations

import collections
import json
from pathlib import Path

from cases import Case, Outcome, Verdict

GOOD = (Verdict.RIGHT, Verdict.AS_PYTHON)
INTOLERABLE = (Verdict.WRONG, Verdict.CRASHED)

# Models that are listed because they are not served; --report writes all.
LISTED = 60

Outcomes = dict[str, list[Outcome]]


def print_table(cases: list[Case], outcomes: Outcomes) -> None:
    passes = sum(case.reference_passes() for case in cases)
    verdicts = list(Verdict)
    print(f"\nPython's onnxruntime passes {passes} of {len(cases)}\n")
    print("| runtime | " + " | ".join(verdict.value for verdict in verdicts) + " | of what Python passes |")
    print("| --- |" + " --- |" * (len(verdicts) + 1))
    for runtime, all_of in outcomes.items():
        counts = collections.Counter(outcome.verdict for outcome in all_of)
        both = sum(outcome.case.reference_passes() and outcome.verdict in GOOD for outcome in all_of)
        cells = [str(counts[verdict]) for verdict in verdicts]
        print(f"| {runtime} | " + " | ".join(cells) + f" | {both} ({100 * both / max(passes, 1):.1f}%) |")
    print()
    for runtime, all_of in outcomes.items():
        for outcome in all_of:
            if outcome.verdict in INTOLERABLE:
                print(f"{outcome.verdict.value} in {runtime}: {outcome.case.name}: {outcome.detail}")
    for runtime, outcome in not_served(outcomes)[:LISTED]:
        print(f"{outcome.verdict.value} in {runtime}: {outcome.case.name}: {outcome.detail[:300]}")


def not_served(outcomes: Outcomes) -> list[tuple[str, Outcome]]:
    """Models that Python's onnxruntime computes, but the server with ONNX Runtime does not."""
    return [
        (runtime, outcome)
        for runtime in ("ort", "auto")
        for outcome in outcomes.get(runtime, [])
        if outcome.case.reference_passes() and outcome.verdict not in (*GOOD, *INTOLERABLE)
    ]


def write(directory: Path, suite: str, outcomes: Outcomes) -> None:
    """One line of JSON per model and runtime."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{suite}.jsonl").open("w") as file:
        for runtime, all_of in outcomes.items():
            for outcome in all_of:
                line = {
                    "runtime": runtime,
                    "model": outcome.case.name,
                    "group": outcome.case.group,
                    "verdict": outcome.verdict.value,
                    "python_passes": outcome.case.reference_passes(),
                    "detail": outcome.detail,
                    "max_difference": outcome.max_difference,
                }
                file.write(json.dumps(line) + "\n")
