"""MiniLM in this server and in servers for embeddings, which all compute with the same number of threads.

Each request has one text. This server and infinity get it in the protocol of OpenAI.
"""

import os
import sys

import environment
import servers
import workloads

OPENAI = "/v1/embeddings"
LONGEST = 180


def vector(reply):
    """The vector in a reply of OpenAI's protocol."""
    return reply["data"][0]["embedding"]


def this(threads):
    model = (
        f'[[models]]\nname = "minilm"\nplugin = "sentence_embeddings"\nworkers = {threads}\n'
        'default_task = "passage"\n'
        f'[models.settings]\nfolder = "{environment.MINILM}"\nthreads = 1\n'
    )
    return workloads.Contender(
        "this server, `sentence_embeddings`",
        "minilm",
        lambda starter: starter.inference_server(model, "passage", routes=OPENAI),
        output=vector,
    )


def infinity(engine, name):
    """infinity collects the texts of concurrent requests, and sorts them by length."""

    def start(starter, threads):
        port = servers.free_port()
        command = [environment.EMBEDDING.python, "-m", "infinity_emb.cli", "v2", "--model-id", directory(starter)]
        command += ["--engine", engine, "--device", "cpu", "--host", "127.0.0.1", "--port", port]
        command += ["--batch-size", servers.MAX_BATCH_SIZE, "--url-prefix", "/v1", "--log-level", "error"]
        command += ["--pooling-method", "mean", "--no-bettertransformer", "--no-compile"]
        return servers.Server([*map(str, command)], port, OPENAI, variables(threads))

    def contender(threads):
        return workloads.Contender(f"infinity, {name}", "minilm", lambda starter: start(starter, threads), output=vector)

    return contender


def directory(starter):
    """The directory of MiniLM, with the network as a file of ONNX as well."""
    copy = starter.directory / "all-MiniLM-L6-v2"
    if not copy.exists():
        (copy / "onnx").mkdir(parents=True)
        (copy / "onnx/model.onnx").symlink_to(environment.DIRECTORY / "minilm.onnx")
        for file in environment.MINILM.iterdir():
            (copy / file.name).symlink_to(file)
    return copy


def variables(threads):
    """For the processes of other servers: the number of threads, and nothing from the network."""
    counts = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "COMPARISON_THREADS"]
    return dict.fromkeys(counts, str(threads)) | {
        "COMPARISON_MINILM": str(environment.MINILM),
        "HF_HUB_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        # With the fused operators that it writes for this graph, the server exits while it starts.
        "INFINITY_ONNX_DISABLE_OPTIMIZE": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def sentence_transformers(threads):
    def start(starter):
        python, script = environment.EMBEDDING.python, "fastapi_server.py"
        return starter.python_server(script, ["SentenceTransformers"], 1, python=python, variables=variables(threads))

    return workloads.Contender("FastAPI, sentence-transformers", "SentenceTransformers", start)


def fastapi(threads):
    def start(starter):
        return starter.python_server("fastapi_server.py", ["MiniLm"], threads)

    return workloads.Contender("FastAPI, processes with onnxruntime", "MiniLm", start)


CONTENDERS = {
    "this": this,
    "infinity": infinity("torch", "PyTorch"),
    "infinity-onnx": infinity("optimum", "ONNX Runtime"),
    "sentence-transformers": sentence_transformers,
    "fastapi": fastapi,
}
# They need no large packages.
LIGHT = ["this", "fastapi"]


def are_light(names):
    return all(name in LIGHT for name in names)


def workload(names, threads):
    """The workload with these servers, the first of which is the one that the others are compared with."""
    for name in names:
        if name not in CONTENDERS:
            sys.exit(f"unknown server {name}, expected some of {', '.join(CONTENDERS)}")
        if name not in LIGHT and not environment.EMBEDDING.installed():
            sys.exit(f"{name} is not installed: run `compare.py install-embedding`, or select --servers {','.join(LIGHT)}")
    cores = len(os.sched_getaffinity(0))
    texts = workloads.sentences(longest=LONGEST)
    return workloads.Workload(
        "Embedding",
        f"all-MiniLM-L6-v2, texts of 3 to {LONGEST} words, one in each request. {threads} threads on {cores} cores.",
        texts,
        [CONTENDERS[name](threads) for name in names],
        workloads.has_vectors_of(texts),
        replies=32,
        replies_per_client=2,
    )
