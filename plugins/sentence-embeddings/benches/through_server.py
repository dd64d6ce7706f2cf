#!/usr/bin/env python3
"""Measures how much of the plugin's throughput the server preserves, with 32 closed-loop clients and texts of mixed lengths.

    cargo build --release --workspace
    plugins/sentence-embeddings/fetch-minilm config/all-MiniLM-L6-v2
    plugins/sentence-embeddings/benches/through_server.py

Prints the share of the time in which the model was computing. Since the cost of a batch depends only on its number of tokens, this
share is the preserved share of the plugin's throughput. It only needs Python's standard library.
"""

import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "plugins/sentence-embeddings/tests/reference"))
from sentences import WORDS  # noqa: E402

PORT, CALLERS, SECONDS, ROUNDS = 18081, 32, 15, 3
CONFIG = ROOT / "config/sentence-embeddings.toml"


def texts():
    source = random.Random(1)
    lengths = [min(250, max(3, round(source.lognormvariate(3.3, 0.9)))) for _ in range(256)]
    return [" ".join(source.choice(WORDS) for _ in range(length)) for length in lengths]


def ask(connection, sentence):
    body = json.dumps({"input": sentence}).encode()
    connection.request("POST", "/v1/models/minilm/tasks/passage/predict", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    document = answer.read()
    if answer.status != 200:
        raise RuntimeError(document.decode())


def get(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}") as answer:
        return answer.read().decode()


def computed():
    """Returns the seconds that the model has computed, and the numbers of texts and tokens."""
    names = ["inference_seconds_sum", "inference_batch_size_sum", "inference_batch_weight_sum"]
    metrics = get("/metrics")
    return [float(re.search(name + r'\{[^}]*task="passage"[^}]*\} (\S+)', metrics)[1]) for name in names]


def measure(sentences):
    """Runs the clients in a closed loop and prints the results."""
    stop = threading.Event()

    def caller(number):
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        index = number * len(sentences) // CALLERS
        while not stop.is_set():
            ask(connection, sentences[index % len(sentences)])
            index += 1

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    before, begin = computed(), time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    after, wall = computed(), time.monotonic() - begin
    seconds, answered, tokens = (end - start for start, end in zip(before, after))
    print(f"{answered / wall:6.1f} texts/s, {tokens / wall:6.0f} tokens/s, computing {seconds / wall:.1%} of the time", flush=True)


def main():
    sentences = texts()
    command = [ROOT / "target/release/inference-server", "--config", CONFIG, "--port", str(PORT), "--log-level", "warn"]
    server = subprocess.Popen(command)
    try:
        for _ in range(300):
            try:
                get("/readyz")
                break
            except OSError:
                time.sleep(0.1)
        for _ in range(ROUNDS):
            measure(sentences)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
