#!/usr/bin/env python3
"""Compares this server with FastAPI and mosec, and with servers for embeddings: see README.md in this directory.

    compare.py [--quick] [--only echo,sleep,minilm] [--markdown FILE]
    compare.py neighbors [--quick] [--markdown FILE]
    compare.py embedding [--quick] [--servers this,fastapi,…] [--threads 1] [--markdown FILE]
    compare.py install                                 only installs FastAPI and mosec
    compare.py installed                               exits with 0 if that is done
    compare.py install-embedding                       also installs the servers for embeddings, with PyTorch
"""

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import embedding
import environment
import load
import neighbors
import report
import servers
import workloads


MODES = ["servers", "neighbors", "embedding", "install", "installed", "install-embedding"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", nargs="?", choices=MODES, default=MODES[0])
    parser.add_argument("--quick", action="store_true", help="less than two minutes, for a first impression")
    parser.add_argument("--only", default=",".join(workloads.WORKLOADS), help="workloads, separated by commas")
    parser.add_argument("--servers", default=",".join(embedding.CONTENDERS), help="servers for embeddings")
    parser.add_argument(
        "--threads", type=int, default=workloads.CORES, help="threads with which each server for embeddings computes"
    )
    parser.add_argument("--clients", help="numbers of closed-loop clients, separated by commas")
    parser.add_argument("--rounds", type=int, help="times that each cell is measured")
    parser.add_argument("--seconds", type=float, help="duration of a measurement")
    parser.add_argument("--max-delay", type=float, default=5, help="delay of FastAPI's and mosec's batches in ms, from 1")
    parser.add_argument("--markdown", type=Path, help="file to write the tables to")
    parser.add_argument("--executable", type=Path, default=servers.REPOSITORY / "target/release/inference-server")
    parser.add_argument("--plugin-dir", type=Path, help="directory of the plugins, if not that of the executable")
    given = parser.parse_args()
    given.clients = [int(count) for count in (given.clients or ("1,32" if given.quick else "1,8,32,64")).split(",")]
    given.rounds = given.rounds or (2 if given.quick else 5)
    given.seconds = given.seconds or (1 if given.quick else 3)
    given.servers = given.servers.split(",")
    given.only = [workloads.WORKLOADS[name] for name in given.only.split(",")]
    return given


def measure(workload, starter, given):
    """`{(clients, contender): [result of each round]}`. Fails if an answer is wrong."""
    results = {}
    with contextlib.ExitStack() as stack:
        running = []
        for contender in workload.contenders:
            server = contender.start(starter)
            stack.callback(server.stop)
            bodies = [workloads.body(contender.item(item)) for item in workload.items]
            server.wait_until_ready(contender.model, bodies[0])
            running.append((contender, server, [server.request(contender.model, body) for body in bodies]))
        for number in range(given.rounds):
            for clients in given.clients:
                # All servers within seconds of each other, each round in another order.
                start = number % len(running)
                for contender, server, requests in running[start:] + running[:start]:
                    wanted = max(workload.replies, workload.replies_per_client * clients)
                    result = load.run(server.port, requests, clients, given.seconds, wanted, server.cpu)
                    check(workload, contender, result)
                    results.setdefault((clients, contender.name), []).append(result)
                    print(report.progress(workload.name, number + 1, clients, contender.name, result), file=sys.stderr)
    return results


def check(workload, contender, result):
    for index, reply in result.replies.items():
        if not workload.correct(workload.items[index], contender.output(json.loads(reply))):
            sys.exit(f"{contender.name}: wrong answer to item {index}: {reply[:200]}")


def circumstances(given):
    names = ("fastapi", "mosec", "onnxruntime", "uvicorn")
    packages = environment.SERVERS.packages(*[name for name in names if (name, given.mode) != ("mosec", "embedding")])
    if given.mode == "embedding" and not embedding.are_light(given.servers):
        packages += environment.EMBEDDING.packages("infinity-emb", "sentence-transformers", "torch")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=servers.REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"`{' '.join(['compare.py', *sys.argv[1:]])}`, {datetime.date.today()}, revision {commit or 'unknown'}, "
        f"{workloads.CORES} cores, load average {load_average}; {', '.join(packages)}; medians of {given.rounds} rounds of "
        f"{given.seconds:g} s with the smallest and the largest ratio"
    )


def main():
    given = arguments()
    if given.mode == "installed":
        sys.exit(0 if environment.SERVERS.installed() else "not installed: run `compare.py install`")
    environment.install()
    if given.mode == "install-embedding":
        environment.EMBEDDING.install()
    if given.mode.startswith("install"):
        return
    if not given.executable.exists():
        sys.exit(f"{given.executable} does not exist: build it with `cargo build --release --workspace`")
    parts = [circumstances(given)]
    with tempfile.TemporaryDirectory() as directory:
        starter = servers.Starter(
            given.executable.resolve(),
            given.plugin_dir,
            environment.PYTHON,
            environment.DIRECTORY,
            Path(directory),
            given.max_delay / 1000,
        )
        if given.mode == "neighbors":
            parts.append(neighbors.compare(starter, given))
        elif given.mode == "embedding":
            workload = embedding.workload(given.servers, given.threads)
            parts.append(report.absolute_table(workload, measure(workload, starter, given)))
        else:
            for workload in given.only:
                workload = workload()
                parts.append(report.table(workload, measure(workload, starter, given)))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if given.markdown:
        given.markdown.write_text(text)


if __name__ == "__main__":
    main()
