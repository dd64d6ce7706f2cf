"""Runs models on the embedded runtime, in a process that is started again when a model kills it."""

import json
import os
import resource
import select
import subprocess
import tempfile
from dataclasses import dataclass, field

import numpy as np

# More memory or time than a case needs; beyond it a case counts as failed.
MAX_MEMORY = 4 << 30
TIMEOUT = 60

HELD = {
    "float16": ("f32", np.float32),
    "float32": ("f32", np.float32),
    "float64": ("f32", np.float32),
    "int32": ("i32", np.int32),
    "int64": ("i32", np.int32),
    "bool": ("i32", np.int32),
    "int8": ("i8", np.int8),
    "uint8": ("u8", np.uint8),
}
_DTYPES = {held: dtype for held, dtype in HELD.values()}


@dataclass
class Answer:
    """What the embedded runtime did with a model."""

    error: str | None = None
    # Why the plugin would not run the model, if so.
    rejected: str | None = None
    outputs: list = field(default_factory=list)
    # Its outputs if operators may overwrite the inputs of the model, as they overwrite intermediate values, if they differ.
    in_place: list | None = None
    # For each output, whether a BOOL may be true as another integer than 1.
    loose: list = field(default_factory=list)
    # Operator, version of the operator set, and features of each node.
    nodes: list = field(default_factory=list)


class Runner:
    """The example program `embedded` of the plugin; with a table, it rejects what the table does not have, and guards what it accepts."""

    def __init__(self, program, table=None):
        self.command = [program, *([table] if table else [])]
        self.process = None
        directory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.directory = tempfile.TemporaryDirectory(dir=directory)
        self.path = os.path.join(self.directory.name, "model.onnx")

    def close(self):
        self._stop()
        self.directory.cleanup()

    def run(self, model, inputs=None):
        """Runs a serialized model on arrays in the order of the file; only checks it if there are none."""
        with open(self.path, "wb") as file:
            file.write(model)
        request, payload = {"model": self.path}, b""
        if inputs is not None:
            request["inputs"] = []
            for array in inputs:
                kind, dtype = HELD[array.dtype.name]
                request["inputs"].append({"type": kind, "shape": list(array.shape)})
                payload += np.ascontiguousarray(array.astype(dtype)).tobytes()
        if self.process is None:
            self._start()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n" + payload)
            self.process.stdin.flush()
            return self._read()
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            self._stop()
            return Answer(error=f"the process died: {type(error).__name__}")

    def _read(self):
        line = bytearray()
        while b"\n" not in line:
            line += self._bytes(1 << 16)
        head, rest = bytes(line).split(b"\n", 1)
        answer = json.loads(head)
        outputs = []
        described = answer.get("outputs") or []
        for output in described + (answer.get("in_place") or []):
            dtype = np.dtype(_DTYPES[output["type"]])
            size = dtype.itemsize * int(np.prod(output["shape"], dtype=np.int64))
            while len(rest) < size:
                rest += self._bytes(size - len(rest))
            outputs.append(np.frombuffer(rest[:size], dtype).reshape(output["shape"]))
            rest = rest[size:]
        outputs, in_place = outputs[: len(described)], outputs[len(described) :]
        return Answer(
            answer.get("error"), answer.get("rejected"), outputs, in_place or None, answer.get("loose") or [], answer.get("nodes") or []
        )

    def _bytes(self, size):
        descriptor = self.process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], TIMEOUT)
        if not ready:
            raise TimeoutError
        data = os.read(descriptor, size)
        if not data:
            raise EOFError
        return data

    def _start(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            preexec_fn=limit,
        )

    def _stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
