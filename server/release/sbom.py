"""Write the crates that a package of the workspace consists of as a bill of materials, in the format CycloneDX.

    sbom.py TARGET PACKAGE=FILE…

Runs in the virtual environment of the release tools. Crates that only the build or the tests use are omitted.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tomllib
import uuid

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Workspace:
    """The resolved dependencies of the workspace for one target."""

    def __init__(self, target):
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.check_output(command, cwd=ROOT))
        self.packages = {package["id"]: package for package in metadata["packages"]}
        self.nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        self.members = {self.packages[member]["name"]: member for member in metadata["workspace_members"]}
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
        self.checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}

    def dependencies(self, package):
        """Return the crates that are linked into a package."""
        return [
            dependency["pkg"]
            for dependency in self.nodes[package]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]

    def component(self, package):
        described = self.packages[package]
        name, version = described["name"], described["version"]
        purl = PackageURL("cargo", name=name, version=version)
        checksum = self.checksums.get((name, version))
        # Old crates separate alternatives by a slash.
        license = (described["license"] or "").replace("/", " OR ")
        return Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=purl.to_string(),
            purl=purl,
            description=(described["description"] or "").strip() or None,
            licenses=[LicenseExpression(license)] if license else [],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
        )

    def bill_of_materials(self, name):
        root = self.members[name]
        reached, waiting = {root: self.component(root)}, [root]
        while waiting:
            for dependency in self.dependencies(waiting.pop()):
                if dependency not in reached:
                    reached[dependency] = self.component(dependency)
                    waiting.append(dependency)
        crates = [component.purl.to_string() for component in reached.values()]
        moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
        bom = Bom(
            # The same for the same crates, so that builds are reproducible.
            serial_number=uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted(crates))),
            metadata=BomMetaData(component=reached[root], timestamp=moment),
            components=[component for package, component in reached.items() if package != root],
        )
        for package, component in reached.items():
            bom.register_dependency(component, [reached[other] for other in self.dependencies(package)])
        return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)


def main():
    target, *given = sys.argv[1:]
    workspace = Workspace(target)
    for package, file in (argument.split("=", 1) for argument in given):
        pathlib.Path(file).write_text(workspace.bill_of_materials(package) + "\n")


if __name__ == "__main__":
    main()
