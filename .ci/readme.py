#!/usr/bin/env python3
"""Runs the commands of the documentation as a reader copies them, and checks the pages themselves.

Every shell block of a page must have a comment on the line before it that says how it is tested:

    <!-- ci: serve -->                 starts a server and waits until it is ready; ends the one before it
    <!-- ci: serve, online -->         the same, but needs the network; left out, with its requests, by --offline
    <!-- ci: request -->               is sent to that server; a block marked `answer` after it has what it prints
    <!-- ci: run -->                   is run before what follows; `run, online` needs the network
    <!-- ci: test -->                  is run by continuous integration on its own
    <!-- ci: not run: REASON -->       is not run
    <!-- ci: excerpt: FILE -->         is not run; the block, of any language, is a part of that file

A comment `<!-- ci: server FILE -->` without a block starts a server with that configuration; `<!-- ci: server -->` one
with the blocks before it that are marked `config`, as if they were a file in `config`; `server, online` one that needs the
network. In answers, `…` at the end of a list stands for further elements.

    .ci/readme.py print NAME                         prints the only block with this mark
    .ci/readme.py check                              checks marks, excerpts, links, and the form of the pages
    .ci/readme.py try [--offline] [--executable PATH] [FILE…]
                                                     runs servers and requests, and compares the answers

Servers run on free ports, which stand in for the 8080 of the documentation. An executable that is given is used in
place of target/release/inference-server, and nothing is built; INFERENCE_PLUGIN_DIR then says where its plugins are.
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
import threading

from pages import ROOT, block, blocks, check, documents

# Compiling is part of the first command.
PATIENCE_SECONDS = 1500


def same(expected, got):
    """Equal but for times, and for the last digits of numbers, which differ between processors."""
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
    """A server that a command has started."""

    def __init__(self, command, keep):
        # A newcomer's environment sets nothing of the server's.
        clean = {
            name: value for name, value in os.environ.items() if name in keep or not name.startswith("INFERENCE_")
        }
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

    def kill(self):
        if self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)


def send(request, address):
    """Sends a request, and returns what it prints: JSON, once or several times."""
    command = re.sub(r"\b(localhost|127\.0\.0\.1):8080\b", address, request.text)
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
        sys.exit(f"{request.place}: the request ended with {result.returncode}")
    return documents_in(result.stdout)


def documents_in(text):
    """Each of the JSON documents in a text."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


class Session:
    """Goes through the blocks of a document with the server that is running."""

    def __init__(self, offline, executable):
        self.offline, self.executable = offline, executable
        self.served, self.address = None, None
        self.skipping = False
        self.answer = None
        self.config, self.written = "", None
        self.compared = 0

    def start(self, command):
        if self.executable:
            command = command.replace("cargo build --release --workspace && ", "")
            command = command.replace("target/release/inference-server", self.executable)
        print(f"$ {command}", end="", flush=True)
        self.served = Served(command, keep=["INFERENCE_PLUGIN_DIR"] if self.executable else [])
        self.address = self.served.wait_for("listening on http://")
        self.served.wait_for("ready after")

    def configured(self, file):
        """The command that starts a server with this file, or with the blocks that are marked `config`."""
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
        """Forgets everything of a document."""
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
                print(f"$ {block.text}", end="", flush=True)
                subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=ROOT, check=True)
        elif kind in ("serve", "server"):
            self.answer = None
            self.skipping = self.offline and "online" in block.mark
            self.stop()
            if not self.skipping:
                file = block.mark.split(",")[0][7:]
                self.start(block.text if kind == "serve" else self.configured(file))
        elif kind == "request" and not self.skipping:
            if self.served is None:
                sys.exit(f"{block.place}: a request without a server before it")
            self.answer = send(block, self.address)
        elif kind == "answer" and not self.skipping:
            if self.answer is None:
                sys.exit(f"{block.place}: an answer without a request before it")
            expected = documents_in(re.sub(r"…\s*\]", '"…"]', block.text))
            if not same(expected, self.answer):
                sys.exit(f"{block.place}: the documentation says that the answer is:\n{block.text}")
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
    print(f"{session.compared} requests answered as the documentation says; every server ended with 0", flush=True)


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
