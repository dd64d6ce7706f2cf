#!/usr/bin/env python3
"""Runs what the README tells a newcomer to run, as it is written there.

A fenced block is marked by a comment on the line before it: `<!-- ci: NAME -->`.

    .ci/readme.py print NAME   prints the block
    .ci/readme.py try          runs `serve`, sends each `request`, compares with the `answer` below it, ends the server

The server runs on a free port, which stands in for the README's 8080.
"""

import json
import math
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^<!-- ci: (\w+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Compiling is part of the first command.
PATIENCE_SECONDS = 1500


def blocks():
    return BLOCK.findall((ROOT / "README.md").read_text())


def block(name):
    found = [text for marked, text in blocks() if marked == name]
    if len(found) != 1:
        sys.exit(f"README.md: expected one block marked `ci: {name}`, got {len(found)}")
    return found[0]


def exchanges():
    """The requests with their answers, in the order of the README."""
    pairs = []
    for name, text in blocks():
        if name == "request":
            pairs.append((text, None))
        elif name == "answer":
            if not pairs or pairs[-1][1] is not None:
                sys.exit("README.md: an answer without a request before it")
            pairs[-1] = (pairs[-1][0], text)
    if not pairs or pairs[-1][1] is None:
        sys.exit("README.md: expected blocks marked `ci: request`, each with a `ci: answer` after it")
    return pairs


def same(expected, got):
    """Equal but for times, and for the last digits of numbers, which differ between processors."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(
            key == "inference_time" or same(expected[key], got[key]) for key in expected
        )
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, float) and isinstance(got, float):
        return math.isclose(expected, got, rel_tol=1e-2, abs_tol=1e-5)
    return expected == got


class Served:
    """The README's command while it runs."""

    def __init__(self, command):
        # A newcomer's environment sets nothing of the server's.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_")}
        self.shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=ROOT,
            env=clean | {"INFERENCE_PORT": "0", "INFERENCE_HOST": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.shell.stderr:
            print(line, end="", flush=True)
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, part):
        while True:
            line = self.lines.get(timeout=PATIENCE_SECONDS)
            if line is None:
                sys.exit(f"the command ended with {self.shell.wait()} before it said `{part}`")
            if part in line:
                return line.split(part, 1)[1].strip()

    def server(self):
        """The server's process: the shell itself, if it ended in `exec`, or its child."""
        for entry in pathlib.Path("/proc").iterdir():
            try:
                pid = int(entry.name)
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                name = pathlib.Path(os.readlink(entry / "exe")).name
            except (ValueError, OSError):
                continue
            if name.startswith("inference-server") and self.shell.pid in (pid, parent):
                return pid
        sys.exit("the server's process is gone")

    def stop(self):
        os.kill(self.server(), signal.SIGTERM)
        status = self.shell.wait(timeout=60)
        self.reader.join()
        if status != 0:
            sys.exit(f"after SIGTERM the server ended with {status}, expected 0")


def send(request, address):
    command = re.sub(r"\b(localhost|127\.0\.0\.1):8080\b", address, request)
    if address not in command:
        sys.exit(f"README.md: expected a request to localhost:8080, got:\n{request}")
    print(f"$ {command}", end="", flush=True)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    print(result.stdout, flush=True)
    if result.returncode != 0:
        sys.exit(f"the request ended with {result.returncode}")
    return json.loads(result.stdout)


def try_it():
    pairs = exchanges()
    command = block("serve")
    print(f"$ {command}", end="", flush=True)
    served = Served(command)
    try:
        address = served.wait_for("listening on http://")
        served.wait_for("ready after")
        for request, answer in pairs:
            got = send(request, address)
            if not same(json.loads(answer), got):
                sys.exit(f"README.md says that the answer is:\n{answer}")
        served.stop()
    finally:
        if served.shell.poll() is None:
            os.killpg(served.shell.pid, signal.SIGKILL)
    print(f"{len(pairs)} requests answered as the README says; the server ended with 0", flush=True)


def main():
    match sys.argv[1:]:
        case ["print", name]:
            print(block(name), end="")
        case ["try"]:
            try_it()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
