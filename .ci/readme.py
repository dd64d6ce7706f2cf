#!/usr/bin/env python3
"""Run the commands of the documentation as a reader would, and check the pages themselves.

Every shell block of a page must have a comment on the line before it that says how it is tested:

    <!-- ci: serve -->                 starts a server and waits until it is ready; stops the previous one
    <!-- ci: serve, online -->         the same, but needs the network; --offline skips it and its requests
    <!-- ci: request -->               is sent to that server; the next block marked `answer` is the expected reply
    <!-- ci: run -->                   is run before the following blocks; `run, online` needs the network
    <!-- ci: test -->                  is run by continuous integration as a separate step
    <!-- ci: install NAME -->          is run by server/release/clean_systems.py
    <!-- ci: not run: REASON -->       is not run
    <!-- ci: excerpt: FILE -->         is not run; the block, in any language, is an excerpt of that file

A comment `<!-- ci: server FILE -->` without a block starts a server with that configuration. `<!-- ci: server -->` starts one
with the preceding blocks marked `config`, as if they were a file in `config`. `server, online` needs the network. In
answers, `…` at the end of a list stands for further elements.

    .ci/readme.py print NAME                         print the only block with this mark
    .ci/readme.py check                              check marks, excerpts, links, and the form of the pages
    .ci/readme.py try [--offline] [--executable PATH] [FILE…]
                                                     run servers and requests, and compare the replies

Servers listen on free ports, which replace the 8080 of the documentation. With --executable, that executable replaces
target/release/inference-server, and nothing is built; set INFERENCE_PLUGIN_DIR to the directory of its plugins.
"""

import argparse
import json
import math
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading

from pages import ROOT, block, blocks, check, documents

# The first command includes compilation.
TIMEOUT_SECONDS = 1500


def same(expected, got):
    """Compare except for times, and for the last digits of floats, which differ between CPUs."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(
            key == "inference_time" or same(expected[key], got[key]) for key in expected
        )
    if isinstance(expected, list) and isinstance(got, list):
        if expected[-1:] == ["…"]:
            return len(got) >= len(expected) and all(map(same, expected[:-1], got))
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, float) and isinstance(got, float):
        return math.isclose(expected, got, rel_tol=1e-2, abs_tol=1e-5)
    return expected == got


class Served:
    """A server started by a command."""

    def __init__(self, command, keep):
        # A reader's environment does not set variables of the server.
        clean = {
            name: value for name, value in os.environ.items() if name in keep or not name.startswith("INFERENCE_")
        }
        self.home = tempfile.TemporaryDirectory()
        self.shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=ROOT,
            env=clean | {"INFERENCE_PORT": "0", "INFERENCE_HOST": "127.0.0.1"}
            | {"INFERENCE_JOBS_PATH": f"{self.home.name}/jobs.sqlite"},
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
            line = self.lines.get(timeout=TIMEOUT_SECONDS)
            if line is None:
                sys.exit(f"the command exited with {self.shell.wait()} before it printed `{part}`")
            if part in line:
                return line.split(part, 1)[1].strip()

    def server(self):
        """Return the process of the server: the shell itself, if it called `exec`, or its child."""
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
            sys.exit(f"the server exited with {status} after SIGTERM, expected 0")

    def kill(self):
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)


def send(request, text, address):
    """Send a request and return the JSON documents that it prints."""
    command = re.sub(r"\b(localhost|127\.0\.0\.1):8080\b", address, text)
    if address not in command:
        sys.exit(f"{request.place}: expected a request to localhost:8080, got:\n{request.text}")
    print(f"$ {command}", end="", flush=True)
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    print(result.stdout, flush=True)
    if result.returncode != 0:
        sys.exit(f"{request.place}: the request exited with {result.returncode}")
    return documents_in(result.stdout)


def documents_in(text):
    """Return the JSON documents in a text."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


class Session:
    """Run the blocks of a page, with one server at a time."""

    def __init__(self, offline, executable):
        self.offline, self.executable = offline, executable
        self.served, self.address = None, None
        self.skipping = False
        self.answer = None
        self.config, self.written = "", None
        self.compared = 0

    def with_executable(self, command):
        """Return the command with the executable that replaces that of the documentation, which is not built then."""
        if not self.executable:
            return command
        command = command.replace("cargo build --release --workspace && ", "")
        return command.replace("target/release/inference-server", self.executable)

    def start(self, command):
        command = self.with_executable(command)
        print(f"$ {command}", end="", flush=True)
        self.served = Served(command, keep=["INFERENCE_PLUGIN_DIR"] if self.executable else [])
        self.address = self.served.wait_for("listening on http").split("://")[1]
        self.served.wait_for("ready after")

    def configured(self, file):
        """Return the command that starts a server with this file, or with the blocks marked `config`."""
        if not file:
            # Relative paths start at the directory of the file.
            file = f"config/documentation-{os.getpid()}.toml"
            self.written = ROOT / file
            self.written.write_text(self.config)
        return f"target/release/inference-server --config {file}\n"

    def stop(self):
        served, self.served = self.served, None
        if served is not None:
            try:
                served.stop()
            finally:
                served.kill()

    def end(self):
        """Clean up after a page."""
        if self.written is not None:
            self.written.unlink()
        self.written, self.config = None, ""
        if self.served is not None:
            self.served.kill()

    def step(self, block):
        kind = block.mark.split(",")[0].split(" ")[0]
        if kind == "config":
            self.config += block.text
        elif kind == "run":
            if not (self.offline and "online" in block.mark):
                command = self.with_executable(block.text)
                print(f"$ {command}", end="", flush=True)
                subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, check=True)
        elif kind in ("serve", "server"):
            self.answer = None
            self.skipping = self.offline and "online" in block.mark
            self.stop()
            if not self.skipping:
                file = block.mark.split(",")[0][7:]
                self.start(block.text if kind == "serve" else self.configured(file))
        elif kind == "request" and not self.skipping:
            if self.served is None:
                sys.exit(f"{block.place}: no server before this request")
            self.answer = send(block, self.with_executable(block.text), self.address)
        elif kind == "answer" and not self.skipping:
            if self.answer is None:
                sys.exit(f"{block.place}: no request before this answer")
            expected = documents_in(re.sub(r"…\s*\]", '"…"]', block.text))
            if not same(expected, self.answer):
                sys.exit(f"{block.place}: the reply differs from the documentation:\n{block.text}")
            self.answer = None
            self.compared += 1


def try_it(arguments):
    parser = argparse.ArgumentParser(prog=".ci/readme.py try")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--executable")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args(arguments)
    session = Session(given.offline, given.executable)
    for file in given.files or documents():
        try:
            for block in blocks(file):
                session.step(block)
            session.stop()
        finally:
            session.end()
    print(f"{session.compared} replies match the documentation; every server exited with 0", flush=True)


def main():
    match sys.argv[1:]:
        case ["print", name]:
            print(block(name), end="")
        case ["check"]:
            check()
        case ["try", *arguments]:
            check()
            try_it(arguments)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
