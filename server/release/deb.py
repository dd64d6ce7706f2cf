"""The Debian package: the installation below `/usr`, a configuration file and a systemd service."""

import gzip
import hashlib
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAME = "inference-server"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CONFIGURATION = f"etc/{NAME}/models.toml"
SCRIPTS = ["postinst", "prerm", "postrm"]
# The sockets are not enabled: without them, the server opens its ports itself.
UNITS = [f"{NAME}.service", f"{NAME}.socket", f"{NAME}-grpc.socket"]

CONTROL = """\
Package: {name}
Version: {version}-1
Architecture: {architecture}
Maintainer: The inference-server authors <inference-server@localhost>
Installed-Size: {size}
Depends: libc6 (>= {glibc}), passwd
Suggests: python3
Section: net
Priority: optional
Description: serves machine-learning models over HTTP and gRPC
 Models are loaded as plugins: ONNX networks, Python classes, directories of
 transformers, and shared libraries written in Rust. The server combines the
 items of concurrent requests into batches, and speaks the protocols of
 Triton, KServe, TensorFlow Serving and OpenAI embeddings.
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: inference-server

Files: *
Copyright: The inference-server authors
License: Expat or Apache-2.0
 The texts of both licenses are in this directory.

Files: usr/bin/inference-server
Copyright: The inference-server authors, and 2022 Leon Sorokin for uPlot, which is part of the file
License: (Expat or Apache-2.0) and Expat
 The text of the license of uPlot is in LICENSE-uPlot in this directory.
"""


def pack(stage, out, version, glibc, machine, fast, environment):
    """Write the package of a staged installation for systems with at least this version of glibc."""
    tree = out / "deb"
    shutil.copytree(stage, tree / "usr")
    for page in (tree / "usr/share/man/man1").iterdir():
        page.with_suffix(".1.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    (tree / f"usr/share/doc/{NAME}/copyright").write_text(COPYRIGHT)
    add(HERE / "debian/models.toml", tree / CONFIGURATION)
    for unit in UNITS:
        add(ROOT / "config/deploy/systemd" / unit, tree / "usr/lib/systemd/system" / unit)

    files = sorted(file for file in tree.rglob("*") if file.is_file())
    sums = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.relative_to(tree)}\n" for file in files]
    control = tree / "DEBIAN"
    control.mkdir()
    (control / "md5sums").write_text("".join(sums))
    (control / "conffiles").write_text(f"/{CONFIGURATION}\n")
    architecture = ARCHITECTURES[machine]
    size = sum(-(-file.stat().st_size // 1024) for file in files)
    (control / "control").write_text(
        CONTROL.format(name=NAME, version=version, architecture=architecture, size=size, glibc=glibc)
    )
    for script in SCRIPTS:
        add(HERE / "debian" / script, control / script)
    for path in tree.rglob("*"):
        is_executable = path.is_dir() or path.name in SCRIPTS or path.parent.name == "bin"
        path.chmod(0o755 if is_executable else 0o644)
    package = out / f"{NAME}_{version}-1_{architecture}.deb"
    # With one thread, so that the bytes do not depend on the number of cores.
    compression = ["-Zgzip", "-z1"] if fast else ["-Zxz", "--threads-max=1"]
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", *compression, "--build", tree, package], env=environment, check=True
    )
    shutil.rmtree(tree)
    return package


def add(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
