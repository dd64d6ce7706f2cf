"""Generates a client from the server's OpenAPI document with openapi-generator, and calls every operation with it.

Arguments: the server's address, and a key that every operation accepts. Needs Java.
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

URL, KEY = sys.argv[1:]


def fetch_document():
    with urllib.request.urlopen(f"{URL}/openapi.json") as reply:
        return json.load(reply)


def generate(document, directory):
    source = directory / "openapi.json"
    source.write_text(json.dumps(document))
    command = ["openapi-generator-cli", "generate", "-i", source, "-g", "python", "-o", directory / "generated"]
    command[0] = pathlib.Path(sys.executable).parent / command[0]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory / "generated"))


def methods(package, client):
    """Returns the method of each operation, by the operation's ID."""
    apis = importlib.import_module("openapi_client.api")
    found = {}
    for name, api in inspect.getmembers(apis, inspect.isclass):
        for method, function in inspect.getmembers(api(client), inspect.ismethod):
            if method.endswith("_with_http_info"):
                found[method.removesuffix("_with_http_info")] = function
    return found


def body_of(function, parameter, example):
    """Returns the example as an instance of the method's parameter class, or unchanged if the method accepts any object."""
    kinds = [typing.get_type_hints(function)[parameter]]
    while kinds and not hasattr(kinds[0], "from_dict"):
        kinds = list(typing.get_args(kinds[0])) + kinds[1:]
    return kinds[0].from_dict(example) if kinds else example


def call(function, operation):
    arguments = {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            arguments[parameter["name"]] = parameter["schema"]["examples"][0]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if operation.get("requestBody", {}).get("required"):
        example = next(iter(content["examples"].values()))["value"]
        named = [name for name in inspect.signature(function).parameters if not name.startswith(("_", "x_"))]
        body = next(name for name in named if name not in arguments)
        arguments[body] = body_of(function, body, example)
        arguments["_content_type"] = "application/json"
    return function(**arguments)


def main():
    document = fetch_document()
    with tempfile.TemporaryDirectory() as name:
        generate(document, pathlib.Path(name))
        package = importlib.import_module("openapi_client")
        configuration = package.Configuration(host=URL, access_token=KEY)
        found = methods(package, package.ApiClient(configuration))
        operations = [one for path in document["paths"].values() for one in path.values()]
        # Operations that unload a model run last.
        operations.sort(key=lambda operation: operation["operationId"].endswith("unload"))
        for operation in operations:
            identifier = operation["operationId"]
            assert identifier in found, f"{identifier} was not generated, only {sorted(found)}"
            if operation["tags"] == ["Jobs"]:
                # openapi_client.py calls them, with a job.
                continue
            reply = call(found[identifier], operation)
            assert reply.status_code == 200, f"{identifier}: {reply.status_code} {reply.raw_data}"
        print(f"{len(operations)} operations")


main()
