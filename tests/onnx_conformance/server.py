"""A running inference-server with a group of ONNX models, and a client of its V2 protocol with binary tensors."""

from __future__ import annotations

import http.client
import json
import os
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from cases import Case, Value

DTYPES = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip

START_TIMEOUT = 300
REQUEST_TIMEOUT = 120


class ServerDied(Exception):
    """The server process ended."""


class RequestFailed(Exception):
    """The server answered with an error."""


class Server:
    """Serves the models of `cases`; a context manager."""

    def __init__(self, binary: Path, plugin_dir: Path, cases: list[Case], runtime: str, python: str):
        self._directory = tempfile.TemporaryDirectory(prefix="onnx-conformance-")
        self._log_path = Path(self._directory.name, "log")
        config = Path(self._directory.name, "models.toml")
        # Names of tests can be longer than the server allows.
        self._names = {case.name: f"m{index}" for index, case in enumerate(cases)}
        models = (_model(self._names[case.name], case, runtime, python) for case in cases)
        config.write_text("\n".join(models))
        scratch = Path(self._directory.name, "scratch")
        scratch.mkdir()
        command = [
            str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", "0", "--log-format", "json",
            "--plugin-dir", str(plugin_dir), "--scratch-dir", str(scratch),
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("INFERENCE_", "ORT_"))}
        environment |= {
            "INFERENCE_ACCESS_LOG": "false",
            "INFERENCE_MAX_BODY_SIZE": "1GiB",
            "INFERENCE_RELOAD_TIMEOUT": "10m",
            # `runtime = "auto"` finds ONNX Runtime in the Python environment.
            "VIRTUAL_ENV": python,
            "PATH": f"{python}/bin:{environment.get('PATH', '')}",
        }
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log, stdin=subprocess.DEVNULL)
        # Each thread of the client has its own connection.
        self._local = threading.local()
        self._metadata: dict[str, dict] = {}

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._directory.cleanup()

    def wait_until_loaded(self) -> dict[str, dict]:
        """Waits until each model either serves or failed to load; returns the list of models by name of the case."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._has_logged_the_end():
                models = {model["name"]: model for model in json.loads(self._call("GET", "/v1/models")[1])["data"]}
                return {name: models[served] for name, served in self._names.items()}
            if self.process.poll() is not None:
                raise ServerDied(self.log_tail())
            time.sleep(0.05)
        raise ServerDied("the models did not load in time")

    def _has_logged_the_end(self) -> bool:
        """Whether the models have loaded; before that, the server logs the errors of those that have not."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return any('"message":"ready after' in line or "server is not ready" in line for line in lines)

    def load_error(self, name: str) -> str:
        """The reason in the log for which a model failed to load."""
        mark = f"model `{self._names[name]}`:"
        for line in self._log_path.read_text(errors="replace").splitlines():
            if mark in line and '"ERROR"' in line:
                return json.loads(line)["message"].split(mark, 1)[1].strip()
        return "no reason in the log"

    def log_tail(self) -> str:
        """The last lines of the log."""
        return " | ".join(self._log_path.read_text(errors="replace").splitlines()[-3:])[-600:]

    def infer(self, name: str, inputs: dict[str, Value], outputs: list[str], wanted: list[Value] | None) -> list[Value]:
        """Computes one request. `wanted` tells which outputs are sequences."""
        metadata = self._describe(name)
        kinds = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
        header, chunks = [], []
        for tensor, array in _flatten(inputs):
            kind = kinds.get(tensor) or kinds.get(f"{tensor.rsplit('.', 1)[0]}.*") or _datatype(array)
            data = _encode(array, kind)
            header.append({
                "name": tensor, "shape": list(array.shape), "datatype": kind,
                "parameters": {"binary_data_size": len(data)},
            })  # fmt: skip
            chunks.append(data)
        head = json.dumps({"inputs": header, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        status, body, reply = self._request("POST", f"/v2/models/{self._names[name]}/infer", b"".join([head, *chunks]), headers)
        if status != 200:
            raise RequestFailed(f"{status}: {body[:500].decode(errors='replace')}")
        return _decode(body, reply, outputs, wanted)

    def inference_seconds(self) -> float:
        """The time that the last request of this thread took in the model."""
        stages = dict(stage.strip().split(";dur=") for stage in self._local.timing.split(",") if ";dur=" in stage)
        return float(stages["inference"]) / 1000

    def cpu_seconds(self) -> float:
        """Processor time of the server so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _describe(self, name: str) -> dict:
        if name not in self._metadata:
            status, body = self._call("GET", f"/v2/models/{self._names[name]}")
            if status != 200:
                raise RequestFailed(f"metadata: {status}: {body[:300]!r}")
            self._metadata[name] = json.loads(body)
        return self._metadata[name]

    def _call(self, method: str, path: str) -> tuple[int, bytes]:
        status, body, _ = self._request(method, path, None, {})
        return status, body

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes, dict]:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(*self._address(), timeout=REQUEST_TIMEOUT)
        try:
            self._local.connection.request(method, path, body, headers)
            reply = self._local.connection.getresponse()
            self._local.timing = reply.headers.get("server-timing", "")
            return reply.status, reply.read(), dict(reply.headers)
        except (http.client.HTTPException, OSError) as error:
            self._local.connection.close()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                raise RequestFailed(f"no answer: {error!r}") from None
            raise ServerDied(f"exit code {self.process.returncode}: {self.log_tail()}") from None

    def _address(self) -> tuple[str, int] | None:
        text = self._log_path.read_text(errors="replace")
        if "listening on http://" not in text:
            return None
        host, port = text.split("listening on http://", 1)[1].split('"')[0].split()[0].rsplit(":", 1)
        return host, int(port)


def _model(name: str, case: Case, runtime: str, python: str) -> str:
    settings = [f"model = {json.dumps(str(case.path))}", f'runtime = "{runtime}"', "threads = 1"]
    if runtime == "ort":
        settings.append(f"ort = {{ python = {json.dumps(python)} }}")
    lines = ["[[models]]", f'name = "{name}"', 'plugin = "onnx"', "[models.settings]", *settings, case.settings]
    if case.by_magnitude:
        # Requests of real models are also sent at once, and then share batches.
        lines += ["[models.batching]", 'policy = "fixed"', 'max_delay = "5ms"']
    return "\n".join(lines) + "\n"


def _flatten(inputs: dict[str, Value]) -> list[tuple[str, np.ndarray]]:
    flat = []
    for name, value in inputs.items():
        if isinstance(value, list):
            flat.extend((f"{name}.{index}", np.asarray(element)) for index, element in enumerate(value))
        elif value is not None:
            flat.append((name, np.asarray(value)))
    return flat


def _datatype(array: np.ndarray) -> str:
    if array.dtype.kind in "OUS":
        return "BYTES"
    if array.dtype.name == "bfloat16":
        return "BF16"
    for name, dtype in DTYPES.items():
        if array.dtype == dtype:
            return name
    raise RequestFailed(f"the protocol has no datatype for {array.dtype}")


def _encode(array: np.ndarray, kind: str) -> bytes:
    if kind == "BYTES":
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if kind == "BF16":
        bits = np.ascontiguousarray(array.astype(np.float32)).view(np.uint32)
        return (bits >> 16).astype(np.uint16).tobytes() if array.dtype.name != "bfloat16" else array.tobytes()
    if kind not in DTYPES:
        raise RequestFailed(f"the model declares the unknown datatype {kind}")
    return np.ascontiguousarray(array).astype(DTYPES[kind]).tobytes()


def _decode(body: bytes, headers: dict, outputs: list[str], wanted: list[Value] | None) -> list[Value]:
    length = {name.lower(): value for name, value in headers.items()}.get("inference-header-content-length")
    head = json.loads(body[: int(length)] if length else body)
    offset = int(length) if length else len(body)
    tensors: dict[str, np.ndarray] = {}
    for tensor in head.get("outputs", []):
        size = tensor.get("parameters", {}).get("binary_data_size", 0)
        data = body[offset : offset + size]
        offset += size
        tensors[tensor["name"]] = _array(data, tensor["datatype"], tensor["shape"])
    found: list[Value] = []
    for index, name in enumerate(outputs):
        is_sequence = wanted is not None and index < len(wanted) and isinstance(wanted[index], list)
        if name in tensors and not is_sequence:
            found.append(tensors[name])
        elif name in tensors or f"{name}.0" in tensors or is_sequence:
            parts = [tensors[f"{name}.{part}"] for part in range(len(tensors)) if f"{name}.{part}" in tensors]
            found.append(parts)
        else:
            found.append(None)
    return found


def _array(data: bytes, kind: str, shape: list[int]) -> np.ndarray:
    if kind == "BYTES":
        texts, offset = [], 0
        while offset < len(data):
            (length,) = struct.unpack_from("<I", data, offset)
            texts.append(data[offset + 4 : offset + 4 + length].decode("utf-8", "surrogateescape"))
            offset += 4 + length
        return np.array(texts, dtype=object).reshape(shape)
    if kind == "BF16":
        bits = np.frombuffer(data, dtype=np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    return np.frombuffer(data, dtype=DTYPES[kind]).reshape(shape)
