"""Generates a client from the server's OpenAPI document with openapi-python-client, and calls every operation with it.

Arguments: the server's address, and a key that every operation accepts.
"""

import importlib
import inspect
import json
import pathlib
import subprocess
import sys
import tempfile
import typing
import urllib.request
import uuid

URL, KEY = sys.argv[1:]


def fetch_document():
    with urllib.request.urlopen(f"{URL}/openapi.json") as reply:
        return json.load(reply)


def generate(document, directory):
    source = directory / "openapi.json"
    source.write_text(json.dumps(document))
    config = directory / "config.json"
    config.write_text(json.dumps({"post_hooks": []}))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", source, "--config", config]
    command += ["--meta", "none", "--output-path", directory / "generated"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lost = [line for line in done.stdout.splitlines() if "will not be generated" in line or "Unable to" in line]
    assert not lost, done.stdout
    sys.path.insert(0, str(directory))


def modules(directory):
    """Returns the module of each operation, by the operation's ID."""
    paths = (directory / "generated" / "api").glob("*/*.py")
    return {path.stem: f"generated.api.{path.parent.name}.{path.stem}" for path in paths if path.stem != "__init__"}


def members(annotation):
    """Returns the alternatives of a type."""
    inner = typing.get_args(annotation)
    return [one for part in inner for one in members(part)] if inner else [annotation]


def body_of(function, examples):
    """Returns the first example as an instance of the first generated class that preserves all of it."""
    annotation = typing.get_type_hints(function)["body"]
    kinds = [kind for kind in members(annotation) if hasattr(kind, "from_dict")]
    for example in examples or [{}]:
        for kind in kinds:
            try:
                body = kind.from_dict(dict(example))
            except (KeyError, TypeError, ValueError):
                continue
            if body.to_dict() == example:
                return body
    raise AssertionError(f"no class of {kinds} takes {examples}")


def finished_job():
    """Runs a job, and returns its ID."""

    def send(path, body=None):
        headers = {"authorization": f"Bearer {KEY}", "prefer": "respond-async"}
        with urllib.request.urlopen(urllib.request.Request(URL + path, body, headers)) as reply:
            return json.load(reply)

    job = send("/v1/models/text/tasks/echo/predict", b'{"inputs": ["a"]}')
    while job["state"] in ("queued", "running"):
        job = send(f"/v1/jobs/{job['id']}?wait=30s")
    return uuid.UUID(job["id"])


def call(client, module, operation):
    function = module.sync_detailed
    arguments = {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            is_job = parameter["name"] == "job"
            arguments[parameter["name"]] = finished_job() if is_job else parameter["schema"]["examples"][0]
    if "body" in inspect.signature(function).parameters:
        content = operation["requestBody"]["content"]["application/json"]
        arguments["body"] = body_of(function, [one["value"] for one in content.get("examples", {}).values()])
    return function(client=client, **arguments)


def main():
    document = fetch_document()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        generate(document, directory)
        client_module = importlib.import_module("generated.client")
        client = client_module.AuthenticatedClient(base_url=URL, token=KEY, raise_on_unexpected_status=True)
        found = modules(directory)
        operations = [one for path in document["paths"].values() for one in path.values()]
        # Operations that unload a model run last.
        operations.sort(key=lambda operation: operation["operationId"].endswith("unload"))
        for operation in operations:
            identifier = operation["operationId"]
            assert identifier in found, f"{identifier} was not generated, only {sorted(found)}"
            reply = call(client, importlib.import_module(found[identifier]), operation)
            # A job that has succeeded cannot be retried.
            expected = 409 if identifier == "retry_job" else 200
            assert reply.status_code == expected, f"{identifier}: {reply.status_code} {reply.content}"
            assert reply.parsed is not None, f"{identifier}: {reply.content} was not parsed"
        print(f"{len(operations)} operations")


main()
