"""Sends cases to the server, in groups, and judges the answers."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sys
from pathlib import Path

from cases import Case, Outcome, Verdict, difference, largest_difference
from server import RequestFailed, Server, ServerDied


# States of a model that serves; in the second, it has not computed anything yet.
SERVING = ("ready", "untried")
# How often each request of a real model is sent at once.
CONCURRENT_ROUNDS = 4


class Runner:
    """Runs cases in one runtime."""

    def __init__(self, binary: Path, plugin_dir: Path, runtime: str, python: str, group_size: int = 100):
        self._binary, self._plugin_dir = binary, plugin_dir
        self.runtime, self._python, self._group_size = runtime, python, group_size
        self.details: dict[str, dict] = {}

    def run(self, cases: list[Case]) -> list[Outcome]:
        """Runs all cases; each group has its own server."""
        outcomes: list[Outcome] = []
        for start in range(0, len(cases), self._group_size):
            outcomes += self._run_group(cases[start : start + self._group_size])
            if sys.stderr.isatty():
                print(f"\r{self.runtime}: {len(outcomes)} of {len(cases)}", end="", file=sys.stderr)
        return outcomes

    def _run_group(self, group: list[Case]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with Server(self._binary, self._plugin_dir, group, self.runtime, self._python) as server:
            try:
                models = server.wait_until_loaded()
            except ServerDied as died:
                return self._split(group, str(died))
            for index, case in enumerate(group):
                model = models.get(case.name, {})
                self.details[case.name] = model
                try:
                    if model.get("state") not in SERVING:
                        reason = server.load_error(case.name)
                        outcomes.append(Outcome(case, Verdict.REJECTED, reason))
                    else:
                        outcomes.append(_judge(server, case))
                except ServerDied as died:
                    outcomes.append(Outcome(case, Verdict.CRASHED, str(died)))
                    rest = group[index + 1 :]
                    return outcomes + (self._run_group(rest) if rest else [])
        return outcomes

    def _split(self, group: list[Case], problem: str) -> list[Outcome]:
        """Finds the model with which the server does not start."""
        if len(group) == 1:
            return [Outcome(group[0], Verdict.CRASHED, problem)]
        middle = len(group) // 2
        return self._run_group(group[:middle]) + self._run_group(group[middle:])


def _judge(server: Server, case: Case) -> Outcome:
    outcomes = [_judge_request(server, case, index) for index in range(len(case.data_sets))]
    failures = [outcome for outcome in outcomes if outcome.verdict == Verdict.USELESS]
    if failures and len(failures) < len(outcomes):
        outcomes.append(dataclasses.replace(failures[0], verdict=Verdict.FAILED))
        outcomes = [outcome for outcome in outcomes if outcome.verdict != Verdict.USELESS]
    elif not failures and case.by_magnitude:
        outcomes += _judge_concurrent(server, case)
    worst = max(outcomes, key=lambda outcome: SEVERITY.index(outcome.verdict))
    differences = [outcome.max_difference for outcome in outcomes if outcome.max_difference is not None]
    return dataclasses.replace(worst, max_difference=max(differences, default=None))


SEVERITY = (Verdict.RIGHT, Verdict.AS_PYTHON, Verdict.FAILED, Verdict.USELESS, Verdict.WRONG)


def _judge_concurrent(server: Server, case: Case) -> list[Outcome]:
    """Sends all requests of the case several times at once, so that they share batches: no answer may change."""
    requests = list(range(len(case.data_sets))) * CONCURRENT_ROUNDS
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        outcomes = list(pool.map(lambda index: _judge_request(server, case, index), requests))
    return [
        dataclasses.replace(outcome, detail=f"concurrently: {outcome.detail}") if outcome.detail else outcome
        for outcome in outcomes
    ]


def _judge_request(server: Server, case: Case, index: int) -> Outcome:
    data, reference, alone = case.data_sets[index], case.reference[index], case.reference_alone[index]
    python = None if isinstance(reference, str) else reference
    try:
        got = server.infer(case.name, data.inputs, case.outputs, data.expected or python)
    except RequestFailed as failure:
        return Outcome(case, Verdict.USELESS, str(failure))
    if python is None:
        against_python = "Python's onnxruntime rejects it"
    else:
        against_python = difference(case, got, python)
        if against_python and alone is not None and difference(case, got, alone) is None:
            against_python, python = None, alone
    largest = None if python is None else largest_difference(got, python)
    if data.expected is None:
        verdict, problem = Verdict.WRONG if against_python else Verdict.RIGHT, against_python
    else:
        problem = difference(case, got, data.expected)
        verdict = Verdict.RIGHT if not problem else Verdict.WRONG if against_python else Verdict.AS_PYTHON
    return Outcome(case, verdict, problem or "", largest)
