"""The tools of a release at pinned versions."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# zig as the linker for an old glibc, and a library that writes SBOMs.
PACKAGES = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1", "cyclonedx-python-lib==11.12.0"]


def target_directory():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()


def install():
    """Install the tools that are missing, and return the directory of their executables."""
    venv = target_directory() / "release-tools"
    record = venv / "installed.txt"
    if not record.exists() or record.read_text() != "\n".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
        record.write_text("\n".join(PACKAGES))
    return venv / "bin"


def bills_of_materials(directory, packages, version, target, environment):
    """Write the crates that each package consists of, in the format CycloneDX. Returns the files."""
    machine = target.split("-")[0]
    files = [directory / f"{package}-{version}-{machine}.cdx.json" for package in packages]
    script = ROOT / "server/release/sbom.py"
    given = [f"{package}={file}" for package, file in zip(packages, files)]
    subprocess.run([install() / "python", script, target, *given], env=environment, check=True)
    return files
