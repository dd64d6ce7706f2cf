"""Validates a Kubernetes manifest on standard input: checks for unknown and missing fields."""

import re
import sys

import yaml
from kubernetes import client


def check(value, type_name, path):
    if match := re.fullmatch(r"[Ll]ist\[(.*)\]", type_name):
        assert isinstance(value, list), f"{path}: expected a list"
        for index, element in enumerate(value):
            check(element, match[1], f"{path}[{index}]")
        return
    if match := re.fullmatch(r"[Dd]ict[\[(].*, (.*)[\])]", type_name):
        assert isinstance(value, dict), f"{path}: expected an object"
        for key, element in value.items():
            check(element, match[1], f"{path}.{key}")
        return
    model = getattr(client, type_name, None)
    if model is None:
        scalars = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
        assert isinstance(value, scalars[type_name]), f"{path}: expected {type_name}, got {value!r}"
        return
    assert isinstance(value, dict), f"{path}: expected an object"
    attributes = {written: name for name, written in model.attribute_map.items()}
    for key, element in value.items():
        assert key in attributes, f"{path}: unknown field {key}"
        check(element, model.openapi_types[attributes[key]], f"{path}.{key}")
    # The constructor checks for missing fields.
    model(**{attributes[key]: element for key, element in value.items()})


manifest = yaml.safe_load(sys.stdin)
assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment"), manifest
check(manifest, "V1Deployment", "")
pod = manifest["spec"]["template"]
labels = manifest["spec"]["selector"]["matchLabels"]
assert labels.items() <= pod["metadata"]["labels"].items(), "the selector does not select the pod"
ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
for container in pod["spec"]["containers"]:
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
print(pod["spec"]["terminationGracePeriodSeconds"])
