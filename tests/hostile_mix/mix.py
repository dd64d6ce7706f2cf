#!/usr/bin/env python3
"""Show that memory budgets hold under a mix that is hostile to them, and what they cost:

    mix.py short
    mix.py long [--model misbehave|onnx|torch] [--seconds 600] [--search-seconds 30] [--minilm DIRECTORY] [--python PYTHON]

64 clients send requests of 1 to 64 items with 1 to 600 words. The model is calibrated, then the mix runs without a budget, and
with budgets of one third and two thirds of the peak without one. The peak is the high-water mark of the resident memory of the
model's process, above that of the idle process, as Linux reports it.

`short` takes a minute with the plugin `misbehave`, whose memory is known, and one budget. It fails if the peak exceeds the budget
by more than 5 %, if the budget does not bind, or if anything fails.

`long` prints a table for one model. It also compares with fixed limits (`max_batch_size`, `max_batch_weight`): the best pair of a
search whose peak is within the budget, and with batches of 32 in the order of arrival. The servers that are compared take turns,
so that other programs on the machine burden all of them alike. The models:

    misbehave   allocates up to 2 GiB, by the formula of a padded model
    onnx        all-MiniLM-L6-v2 as a padded graph in ONNX Runtime, built by bert_onnx.py
    torch       the same in Python with torch

`onnx` and `torch` need the directory of all-MiniLM-L6-v2 (by default that of tests/install), and a Python: with numpy, onnx and
onnxruntime, or with torch, transformers and numpy. The server is target/release/inference-server unless `--executable` names
another one, whose plugins are in `--plugin-dir`.
"""

import argparse
import http.client
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from models import MAX_WORDS, Misbehave, Onnx, Torch

ROOT = pathlib.Path(__file__).resolve().parents[2]

CLIENTS = 64
MAX_ITEMS = 64

# Different requests. Clients send them in different orders.
REQUESTS = 256

TOLERANCE = 1.05

# Limits of the search.
SIZES = (2, 4, 8, 16, 32, 64)
WEIGHTS = (512, 1024, 2048, 4096, 8192, 16384)

TURN_SECONDS = 30

STARTUP_SECONDS = 300


def bodies(model):
    """The bodies of the requests. The numbers of items are uniform, those of words log-uniform, as they are in real texts."""
    numbers = random.Random(11)

    def request():
        count = numbers.randint(1, MAX_ITEMS)
        words = (round(math.exp(numbers.uniform(0, math.log(MAX_WORDS)))) for _ in range(count))
        return json.dumps({"inputs": [model.item(word, numbers) for word in words]}).encode()

    return [request() for _ in range(REQUESTS)]


class Server:
    """A server with one model `m`, in a process of its own."""

    def __init__(self, executable, environment, directory, config):
        self.log = open(directory / "server.log", "ab")
        (directory / "models.toml").write_text(config)
        command = [executable, "--config", directory / "models.toml", "--host", "127.0.0.1", "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.PIPE, cwd=directory, env=environment
        )
        self.port = self.wait_for_port()
        # Nothing may block on a full pipe.
        self.copying = threading.Thread(target=shutil.copyfileobj, args=(self.process.stderr, self.log), daemon=True)
        self.copying.start()
        self.wait_until_ready()

    def wait_for_port(self):
        for line in self.process.stderr:
            self.log.write(line)
            if found := re.search(rb"listening on http://[^ ]*:(\d+)", line):
                return int(found[1])
        self.log.flush()
        sys.exit(f"the server did not start:\n{pathlib.Path(self.log.name).read_text()[-2000:]}")

    def get(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60).read().decode()

    def wait_until_ready(self):
        end = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                self.get("/readyz")
                return
            except OSError as error:
                if time.monotonic() > end:
                    sys.exit(f"the server is not ready: {error}")
            time.sleep(0.1)

    def metric(self, name, **labels):
        """The sum of the samples of a metric that have these labels."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    def model_process(self):
        """The process that runs the model."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for file in children for pid in file.read_text().split()]
        if len(pids) != 1:
            sys.exit(f"the server has {len(pids)} child processes, expected that of the model")
        return pids[0]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.copying.join()
        self.log.close()


# Prints the greatest high-water mark of a process until its input ends. The server resets the mark before the batches that it
# measures, so it is read all the time; another process, since the clients keep this one busy.
WATCH = """
import re, select, sys
peak, mark = 0, re.compile(rb"VmHWM:\\s*(\\d+)")
while not select.select([sys.stdin], [], [], 0.001)[0]:
    try:
        with open(f"/proc/{sys.argv[1]}/status", "rb") as status:
            peak = max(peak, int(mark.search(status.read())[1]))
    except (OSError, TypeError):
        break
print(peak << 10)
"""


class Watch:
    """Observes the peak of the memory of a process."""

    def __init__(self, pid):
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        command = [sys.executable, "-c", WATCH, str(pid)]
        self.watching = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def peak(self):
        return int(self.watching.communicate()[0])


def resident(pid, field):
    """A line of a process's status in bytes, such as VmRSS."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s*(\d+) kB", status)[1]) << 10


class Mix:
    """The mix for a model, whose settings and calibration are in a directory."""

    def __init__(self, model, directory, executable, plugin_dir):
        self.model, self.directory, self.executable = model, directory, executable
        self.environment = os.environ | ({"INFERENCE_PLUGIN_DIR": str(plugin_dir)} if plugin_dir else {})
        self.requests = bodies(model)

    def config(self, keys="", batching=f"max_batch_size = {MAX_ITEMS}\n"):
        return (
            '[server]\nrequest_timeout = "24h"\nmax_inflight_bytes = "4GiB"\n\n'
            f'[[models]]\nname = "m"\nplugin = "{self.model.plugin}"\nisolation = "process"\npredict_timeout = "1h"\n{keys}\n'
            f"{self.model.settings(self.directory)}\n\n[models.batching]\n{batching}"
        )

    def calibrate(self, max_time):
        """Measure the model without a budget, and return what the command prints."""
        (self.directory / "models.toml").write_text(self.config())
        command = [self.executable, "calibrate", "--config", "models.toml", "--task", self.model.task, "--quiet"]
        command += ["--max-time", max_time, "--check", "10"]
        ran = subprocess.run(command, cwd=self.directory, env=self.environment, capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"calibrate failed:\n{ran.stderr}")
        return ran.stdout

    def run(self, seconds, **configured):
        """Run the mix with a configuration, and return what was observed."""
        [observed] = self.compare(seconds, [configured])
        return observed

    def compare(self, seconds, configurations):
        """Run the mix with each configuration for this long, in turns, and return what was observed of each."""
        turns = max(1, round(seconds / TURN_SECONDS))
        subjects = []
        try:
            for configured in configurations:
                server = Server(self.executable, self.environment, self.directory, self.config(**configured))
                subjects.append(Subject(server, self.model, self.requests))
            for turn in range(turns):
                for subject in subjects:
                    subject.turn(turn, seconds / turns)
            return [subject.observed() for subject in subjects]
        finally:
            for subject in subjects:
                subject.server.stop()


class Subject:
    """A server under the mix, and what was observed of it."""

    def __init__(self, server, model, requests):
        self.server, self.requests = server, requests
        self.path = f"/v1/models/m/tasks/{model.task}/predict"
        self.pid = server.model_process()
        self.idle = resident(self.pid, "VmRSS")
        self.latencies, self.failures = [], []
        self.seconds, self.items, self.peak = 0.0, 0.0, 0

    def turn(self, turn, seconds):
        """Run the mix for this long, and wait for the last replies."""
        watch, stopping = Watch(self.pid), threading.Event()
        before, begin = self.succeeded(), time.monotonic()
        clients = [
            threading.Thread(target=self.client, args=(turn * CLIENTS + number, stopping), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        stopping.wait(seconds)
        self.seconds += time.monotonic() - begin
        self.items += self.succeeded() - before
        stopping.set()
        for thread in clients:
            thread.join()
        self.peak = max(self.peak, watch.peak())

    def client(self, seed, stopping):
        order = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        while not stopping.is_set():
            begin = time.monotonic()
            try:
                connection.request("POST", self.path, order.choice(self.requests), {"content-type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
            if reply.status != 200 or b'"error"' in text:
                self.failures.append(f"{reply.status}: {text[:300]!r}")
                # The same reply at full speed would tell nothing more.
                stopping.wait(1)
            else:
                self.latencies.append(time.monotonic() - begin)

    def succeeded(self):
        return self.server.metric("inference_items_total", outcome="success")

    def observed(self):
        metric = self.server.metric
        return {
            "peak": self.peak - self.idle,
            "items_per_second": self.items / self.seconds,
            "batch": metric("inference_batch_size_sum") / max(1, metric("inference_batch_size_count")),
            "p99": quantile(self.latencies, 0.99),
            "out_of_memory": metric("inference_out_of_memory_total"),
            "restarts": metric("inference_worker_restarts_total"),
            "limited_by_memory": metric("inference_batches_total", reason="memory"),
            "failures": self.failures,
        }


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else math.nan


def budget_keys(budget):
    return f'calibration = "calibration/m.json"\nmemory_budget = "{budget}B"\n'


# The first items of the queue, without a choice and without waiting.
FIFO = 'policy = "greedy"\nmax_batch_size = 32\nweight_rule = "sum"\n'


def mebibytes(size):
    return f"{size / (1 << 20):.0f} MiB"


def problems(name, observed, budget=None):
    """What a run shows that must not happen."""
    if observed["failures"]:
        failures = observed["failures"]
        yield f"{name}: {len(failures)} requests failed, the first with {failures[0]}"
    if observed["out_of_memory"] or observed["restarts"]:
        yield f"{name}: {observed['out_of_memory']:.0f} batches ran out of memory, {observed['restarts']:.0f} processes were lost"
    if budget and observed["peak"] > budget * TOLERANCE:
        yield f"{name}: the peak is {mebibytes(observed['peak'])}, expected at most 5 % more than {mebibytes(budget)}"
    if budget and not observed["limited_by_memory"]:
        yield f"{name}: the budget limited no batch"


def row(name, observed):
    print(
        f"{name:34} {observed['items_per_second']:9.1f} {observed['batch']:7.1f} {observed['p99']:8.2f} "
        f"{mebibytes(observed['peak']):>10} {len(observed['failures']):7}",
        flush=True,
    )


def heading():
    print(f"{'setting':34} {'items/s':>9} {'batch':>7} {'p99 s':>8} {'peak':>10} {'failed':>7}", flush=True)


def short(mix):
    mix.calibrate("30s")
    heading()
    free = mix.run(12)
    row("no budget", free)
    budget = int(free["peak"] / 3)
    limited = mix.run(15, keys=budget_keys(budget))
    row(f"memory_budget {mebibytes(budget)}", limited)
    return [*problems("no budget", free), *problems("memory_budget", limited, budget)]


def long(mix, seconds, search_seconds):
    print(mix.calibrate("120s"))
    heading()
    free = mix.run(seconds)
    row("no budget", free)
    found = list(problems("no budget", free))
    searched = {}
    for size in SIZES:
        for weight in WEIGHTS:
            limits = f"max_batch_size = {size}\nmax_batch_weight = {weight}\n"
            searched[limits] = mix.run(search_seconds, batching=limits)
            row(short_name(limits), searched[limits])
    for share in (1, 2):
        budget = int(free["peak"] * share / 3)
        name = f"memory_budget {mebibytes(budget)}"
        within = [limits for limits, observed in searched.items() if observed["peak"] <= budget * TOLERANCE]
        best = max(within, key=lambda limits: searched[limits]["items_per_second"], default=None)
        if best is None:
            print("no fixed limits stay within the budget")
            continue
        limited, static, fifo = mix.compare(
            seconds, [{"keys": budget_keys(budget)}, {"batching": best}, {"batching": FIFO}]
        )
        row(name, limited)
        row("best: " + short_name(best), static)
        row("batches of 32 in order of arrival", fifo)
        found += problems(name, limited, budget)
        against = lambda other: limited["items_per_second"] / other["items_per_second"]
        print(
            f"{share}/3 of the peak: throughput {against(static):.2f} of the best fixed limits and {against(fifo):.2f} of batches of 32, "
            f"p99 {limited['p99'] / static['p99']:.2f} of that of the best fixed limits"
        )
        if against(static) < 0.95 or against(fifo) < 1.5 or limited["p99"] > static["p99"]:
            found.append(
                f"{name}: expected at least 0.95 of the throughput of the best fixed limits, 1.5 of that of batches of 32, and at most "
                "the p99 of the best fixed limits"
            )
    return found


def short_name(limits):
    return limits.replace("\n", " ").replace("max_batch_", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "inference-server"
    parser.add_argument("form", choices=["short", "long"])
    parser.add_argument("--model", choices=["misbehave", "onnx", "torch"], default="misbehave")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--search-seconds", type=float, default=30)
    parser.add_argument("--minilm", type=pathlib.Path, default=cache / "models/all-MiniLM-L6-v2")
    parser.add_argument("--python", default=str(cache / "venv/bin/python3"))
    parser.add_argument("--executable", type=pathlib.Path, default=ROOT / "target/release/inference-server")
    parser.add_argument("--plugin-dir", type=pathlib.Path)
    args = parser.parse_args()
    minilm, executable = args.minilm.resolve(), args.executable.resolve()
    models = {
        "misbehave": lambda: Misbehave(0.25 if args.form == "short" else 1),
        "onnx": lambda: Onnx(minilm, args.python),
        "torch": lambda: Torch(minilm, args.python),
    }
    with tempfile.TemporaryDirectory(prefix="hostile-mix-") as directory:
        mix = Mix(models[args.model](), pathlib.Path(directory), executable, args.plugin_dir)
        found = short(mix) if args.form == "short" else long(mix, args.seconds, args.search_seconds)
    for problem in found:
        print(f"FAILED: {problem}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
