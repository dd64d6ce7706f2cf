"""The Python wheel: the executable and the plugins, for `pip install`.

The executable is installed into the `bin` directory of the environment, and the plugins into `lib/inference-server`, where the
executable finds them.
"""

import base64
import hashlib
import pathlib
import subprocess
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# The name of the server belongs to another project on PyPI.
NAME = "batchserve"


def pack(stage, out, version, glibc, machine, fast, environment):
    """Write the wheel of a staged installation for systems with at least this version of glibc."""
    tag = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_{machine}"
    information = f"{NAME}-{version}.dist-info"
    data = f"{NAME}-{version}.data"
    files = {}
    for file in sorted((HERE / "python" / NAME).glob("*.py")):
        files[f"{NAME}/{file.name}"] = file.read_bytes()
    files[f"{data}/scripts/inference-server"] = (stage / "bin/inference-server").read_bytes()
    for place in ["lib/inference-server", "share/man/man1"]:
        for file in sorted((stage / place).iterdir()):
            files[f"{data}/data/{place}/{file.name}"] = file.read_bytes()
    for file in sorted((stage / "share/doc/inference-server").glob("LICENSE-*")):
        files[f"{information}/licenses/{file.name}"] = file.read_bytes()
    files[f"{information}/METADATA"] = metadata(version).encode()
    files[f"{information}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: server/release/wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    record = "".join(f"{name},sha256={digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()

    wheel = out / f"{NAME}-{version}-{tag}.whl"
    # Zip archives cannot represent times before 1980.
    moment = time.gmtime(max(int(environment["SOURCE_DATE_EPOCH"]), 315532800))[:6]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=1 if fast else 9) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, moment)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, content)
    if not fast:
        # The same format, smaller by 3 %.
        subprocess.run(["advzip", "--recompress", "--shrink-insane", "--quiet", wheel], env=environment, check=True)
    return wheel


def digest(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def metadata(version):
    return f"""\
Metadata-Version: 2.4
Name: {NAME}
Version: {version}
Summary: Serves machine-learning models over HTTP and gRPC, with dynamic batching and hot reload
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-APACHE
License-File: LICENSE-MIT
License-File: LICENSE-uPlot
Requires-Python: >=3.9
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Rust
Classifier: Topic :: Scientific/Engineering :: Artificial Intelligence
Description-Content-Type: text/markdown

The executable `inference-server` with its plugins. This package is named {NAME}, because another project owns that name here.

    inference-server new --python demo
    inference-server --config demo/models.toml

writes a model in Python and serves it. `python -m {NAME}` runs the same executable.
"""
