"""Validates Kubernetes manifests: check_manifests.py FILE

Checks each against the schema of its kind, without unknown fields, and whether those that belong together agree."""

import re
import sys

import kubernetes_validate
import yaml

KUBERNETES_VERSION = "1.33"


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


with open(sys.argv[1]) as file:
    manifests = [manifest for manifest in yaml.safe_load_all(file) if manifest]
for manifest in manifests:
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
by_kind = {manifest["kind"]: manifest for manifest in manifests}
assert len(by_kind) == len(manifests), sorted(by_kind)

deployment = by_kind["Deployment"]
pod = deployment["spec"]["template"]
labels = pod["metadata"]["labels"]
[container] = pod["spec"]["containers"]
ports = {port["name"]: port["containerPort"] for port in container["ports"]}

selectors = {
    "Deployment": deployment["spec"]["selector"]["matchLabels"],
    "Service": by_kind["Service"]["spec"]["selector"],
    "PodDisruptionBudget": by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    "NetworkPolicy": by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    "topologySpreadConstraints": pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
}
for kind, selector in selectors.items():
    assert selector and selector.items() <= labels.items(), f"{kind} does not select the pods: {selector}"

for port in by_kind["Service"]["spec"]["ports"]:
    assert port["targetPort"] in ports, port
for rule in by_kind["NetworkPolicy"]["spec"]["ingress"]:
    for port in rule["ports"]:
        assert port["port"] in ports, port
for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
    assert container[probe]["httpGet"]["port"] in ports, probe
annotations = pod["metadata"]["annotations"]
assert int(annotations["prometheus.io/port"]) == ports["http"], annotations

volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert set(mounts) == volumes, (mounts, volumes)
config_map = by_kind["ConfigMap"]
[referenced] = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume]
assert referenced == config_map["metadata"]["name"], referenced

target = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"]), target
assert "replicas" not in deployment["spec"], "the autoscaler sets the number of replicas"

# The configuration fits to the pod.
config = dict(re.findall(r'^(\w+) = "?([^"\n]+)"?$', config_map["data"]["models.toml"], re.MULTILINE))
drain = seconds(config["shutdown_delay"]) + seconds(config["drain_timeout"])
assert pod["spec"]["terminationGracePeriodSeconds"] > drain, drain
probe = container["readinessProbe"]
noticed = probe["periodSeconds"] * probe["failureThreshold"]
assert seconds(config["shutdown_delay"]) > noticed, "the server stops before its endpoint is removed"
assert config["scratch_dir"] == mounts["scratch"], config
assert int(config["grpc_port"]) == ports["grpc"], config
assert f"{mounts['config']}/models.toml" in container["args"], container["args"]
print(f"{len(manifests)} manifests are valid")
