"""Validates manifests for KServe: kserve_manifests.py SERVING_RUNTIME INFERENCE_SERVICE

Checks for unknown and missing fields, and whether the service and its runtime agree."""

import re
import sys

import kserve
import yaml
from kubernetes import client


def type_named(name):
    return getattr(kserve, name, None) or getattr(client, name, None)


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
    model = type_named(type_name)
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


def read(file, version, kind):
    with open(file) as text:
        manifest = yaml.safe_load(text)
    assert (manifest["apiVersion"], manifest["kind"]) == (version, kind), manifest
    return manifest


runtime = read(sys.argv[1], "serving.kserve.io/v1alpha1", "ServingRuntime")
service = read(sys.argv[2], "serving.kserve.io/v1beta1", "InferenceService")
check(runtime, "V1alpha1ServingRuntime", "ServingRuntime")
check(service, "V1beta1InferenceService", "InferenceService")

model = service["spec"]["predictor"]["model"]
assert model["runtime"] == runtime["metadata"]["name"], model
formats = [(supported["name"], supported["version"]) for supported in runtime["spec"]["supportedModelFormats"]]
assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats, model
assert model["protocolVersion"] in runtime["spec"]["protocolVersions"], model
[container] = runtime["spec"]["containers"]
[port] = container["ports"]
for probe in ("readinessProbe", "livenessProbe"):
    assert container[probe]["httpGet"]["port"] == port["containerPort"], probe
volumes = {volume["name"] for volume in runtime["spec"]["volumes"]}
assert {mount["name"] for mount in container["volumeMounts"]} == volumes, volumes
