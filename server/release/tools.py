"""The tools of a release at pinned versions, and the SBOM that one of them makes."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYTHON_TOOLS = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"]
CARGO_CYCLONEDX = "0.5.9"


def directory():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
    return target / "release-tools"


def environment(base, cross):
    """Return an environment in which the tools are found. Installs those that are missing."""
    venv = directory() / "venv"
    if cross and not installed(venv, PYTHON_TOOLS):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", *PYTHON_TOOLS], check=True)
        (venv / "installed.txt").write_text("\n".join(PYTHON_TOOLS))
    return dict(base) | {"PATH": f"{venv / 'bin'}:{directory() / 'bin'}:{base['PATH']}"}


def installed(venv, packages):
    record = venv / "installed.txt"
    return record.exists() and record.read_text() == "\n".join(packages)


def cargo_tool(crate, version, environment):
    """Install a subcommand of cargo, unless it is. Without optimization: compiling takes longer than running."""
    if shutil.which(crate, path=environment["PATH"]):
        return
    command = ["cargo", "install", "--locked", "--debug", "--root", directory(), f"{crate}@{version}"]
    # Neither the flags nor the target directory of the release.
    clean = {name: value for name, value in environment.items() if not name.startswith("CARGO_ENCODED")}
    build = directory() / "build"
    subprocess.run(command, env=clean | {"CARGO_TARGET_DIR": str(build)}, check=True)
    shutil.rmtree(build)


def bill_of_materials(directory, packages, target, environment):
    """Write the crates that each package consists of, in the format CycloneDX. Returns the files."""
    cargo_tool("cargo-cyclonedx", CARGO_CYCLONEDX, environment)
    name = "sbom.cdx"
    command = ["cargo", "cyclonedx", "--format", "json", "--target", target, "--override-filename", name]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    kept = []
    for manifest in subprocess.check_output(["git", "ls-files", "*Cargo.toml"], cwd=ROOT, text=True).split():
        written = ROOT / manifest.replace("Cargo.toml", f"{name}.json")
        if not written.exists():
            continue
        package = tomllib.loads((ROOT / manifest).read_text()).get("package", {}).get("name")
        if package in packages:
            kept.append(directory / f"{package}.cdx.json")
            shutil.move(written, kept[-1])
        else:
            written.unlink()
    if len(kept) != len(packages):
        sys.exit(f"expected an SBOM of each of {packages}, got {kept}")
    return kept
