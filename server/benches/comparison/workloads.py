"""What is measured: bodies to send, the servers that are compared, and what their answers must be."""

import dataclasses
import json
import math
import os
import random
import statistics
import sys
from collections.abc import Callable

import environment
import servers

sys.path.insert(0, str(servers.REPOSITORY / "plugins/sentence-embeddings/tests/reference"))
from sentences import WORDS  # noqa: E402

TOLERANCE = 1e-4
CORES = len(os.sched_getaffinity(0))


@dataclasses.dataclass
class Contender:
    name: str
    model: str
    start: Callable
    # A few servers take another form of item, or return another form of output.
    item: Callable = lambda item: item
    output: Callable = lambda reply: reply["output"]


@dataclasses.dataclass
class Workload:
    name: str
    description: str
    items: list
    # The first one is the one that the others are compared with.
    contenders: list
    # Whether the output of a reply is right for an item.
    correct: Callable
    # Measured until there are at least that many replies, and that many for each client.
    replies: int = 0
    replies_per_client: int = 0


def body(item):
    return json.dumps({"input": item}).encode()


def echo():
    python = servers.Starter.python_server
    return Workload(
        "echo",
        "A text of 200 characters, returned unchanged. One worker.",
        ["x" * 200],
        [
            Contender(
                "this server, Rust plugin",
                "template",
                lambda s: s.inference_server('[[models]]\nname = "template"\nplugin = "template"\n', "echo"),
            ),
            Contender(
                "this server, Python class", "Echo", lambda s: s.inference_server(s.python_model("Echo", 1), "predict")
            ),
            Contender("FastAPI", "Echo", lambda s: python(s, "fastapi_server.py", ["Echo"], 1)),
            Contender("mosec", "Echo", lambda s: python(s, "mosec_server.py", ["Echo"], 1)),
        ],
        lambda item, output: output == item,
    )


def sleep():
    python = servers.Starter.python_server
    misbehave = '[[models]]\nname = "sleeper"\nplugin = "misbehave"\nsettings = { batch_ms = 10, item_us = 1000 }\n'
    return Workload(
        "sleep",
        "A model that sleeps 10 ms per batch and 1 ms per item. One worker.",
        list(range(64)),
        [
            Contender(
                "this server, Rust plugin",
                "sleeper",
                lambda s: s.inference_server(misbehave, "text"),
                lambda item: {"value": item},
            ),
            Contender(
                "this server, Python class", "Sleep", lambda s: s.inference_server(s.python_model("Sleep", 1), "predict")
            ),
            Contender("FastAPI", "Sleep", lambda s: python(s, "fastapi_server.py", ["Sleep"], 1)),
            Contender("mosec", "Sleep", lambda s: python(s, "mosec_server.py", ["Sleep"], 1)),
        ],
        lambda item, output: (output["value"] if isinstance(output, dict) else output) == item,
    )


def sentences(count=64, longest=250):
    """Texts whose lengths are spread like those of real ones: lognormal, 40 words on average."""
    source = random.Random(1)
    quantiles = [(index + 0.5) / count for index in range(count)]
    normal = statistics.NormalDist(3.3, 0.9)
    lengths = [min(longest, max(3, round(math.exp(normal.inv_cdf(share))))) for share in quantiles]
    source.shuffle(lengths)
    return [" ".join(source.choice(WORDS) for _ in range(length)) for length in lengths]


def has_vectors_of(texts):
    """Whether an output is the vector of its text, computed alone by onnxruntime."""
    expected = dict(zip(texts, environment.embed(texts), strict=True))

    def correct(item, output):
        (vector,) = output.values() if isinstance(output, dict) else [output]
        return len(vector) == len(expected[item]) and all(
            abs(a - b) < TOLERANCE for a, b in zip(vector, expected[item], strict=True)
        )

    return correct


def minilm():
    python = servers.Starter.python_server
    directory = environment.DIRECTORY
    sentence_embeddings = (
        f'[[models]]\nname = "minilm"\nplugin = "sentence_embeddings"\nworkers = {CORES}\n'
        f'[models.settings]\nfolder = "{environment.MINILM}"\nthreads = 1\n'
    )
    onnx = (
        f'[[models]]\nname = "minilm"\nplugin = "onnx"\nworkers = {CORES}\n'
        f'[models.settings]\nmodel = "{directory}/minilm.onnx"\nruntime = "ort"\nthreads = 1\n'
        f'ort = {{ python = "{environment.PYTHON.parents[1]}" }}\n'
        f'[models.settings.tasks.embed]\ntokenizer = {{ file = "{directory}/tokenizer.json", max_length = 256 }}\n'
        'embedding = { pooling = "mean" }\n'
    )
    texts = sentences()
    return Workload(
        "MiniLM",
        f"all-MiniLM-L6-v2, texts of 3 to 250 words. {CORES} workers with one thread each.",
        texts,
        [
            Contender(
                "this server, `sentence_embeddings`",
                "minilm",
                lambda s: s.inference_server(sentence_embeddings, "passage"),
            ),
            Contender("this server, `onnx` with ONNX Runtime", "minilm", lambda s: s.inference_server(onnx, "embed")),
            Contender(
                "this server, Python class",
                "MiniLm",
                lambda s: s.inference_server(s.python_model("MiniLm", CORES), "predict"),
            ),
            Contender("FastAPI", "MiniLm", lambda s: python(s, "fastapi_server.py", ["MiniLm"], CORES)),
            Contender("mosec", "MiniLm", lambda s: python(s, "mosec_server.py", ["MiniLm"], CORES)),
        ],
        has_vectors_of(texts),
        replies=32,
        replies_per_client=2,
    )


WORKLOADS = {"echo": echo, "sleep": sleep, "minilm": minilm}
