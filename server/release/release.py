#!/usr/bin/env python3
"""Build everything that a release consists of: a Python wheel, a Debian package, a tarball, an SBOM, debug information and
checksums.

    server/release/release.py                       build with zig for glibc 2.28 and later, into target/dist
    server/release/release.py --target aarch64-unknown-linux-gnu
    server/release/release.py --timings             the same, with reports on how long each crate takes to build
    server/release/release.py --from target/release pack what was built before, quickly and without an SBOM

Requires Python 3.11 with `venv`, Rust, binutils, dpkg and advancecomp. The tools that it uses otherwise, at pinned versions, are
installed into target/release-tools from PyPI. Cargo downloads the crates; nothing else is downloaded.
"""

import argparse
import hashlib
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time
import tomllib

import deb
import elf
import payload
import tarball
import tools
import wheel

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST = f"{os.uname().machine}-unknown-linux-gnu"
# Of `profile.toml`.
PROFILE = "distribution"
# The target triples of a release; the toolchain must have their standard library.
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
# The oldest glibc that a release runs on: Debian 10, Ubuntu 20.04, RHEL 8.
GLIBC = (2, 28)
MAX_WHEEL_BYTES = 20_000_000
# Scripts of Swagger UI that the documentation page does not load.
UNUSED_SCRIPTS = [
    "swagger-ui-es-bundle-core.js",
    "swagger-ui-es-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.js",
]


def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def reproducible(environment):
    """Return an environment in which neither the time nor the place of a build affects its result, as long as the target
    directory is at the same place in the repository."""
    commit_time = subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True).strip()
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    cargo_home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    # If several prefixes match, the last one applies, so that the target directory may be in the repository or elsewhere.
    places = {
        str(ROOT): "/inference-server",
        str(tools.target_directory()): "/target",
        cargo_home: "/cargo",
        sysroot: "/rust",
    }
    return environment | {
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(f"--remap-path-prefix={place}={name}" for place, name in places.items()),
        # For crates with C code. Of several prefixes, the last one applies here as well. The date is that of an earlier build if
        # the compiler has cached its output.
        "CFLAGS": " ".join(
            [f"-ffile-prefix-map={place}={name}" for place, name in places.items()]
            + ["-Wno-builtin-macro-redefined", '-D__DATE__="none"', '-D__TIME__="none"']
        ),
        # The debug information of what zig compiles for the linker has this directory, if it is the current one.
        "PWD": "/proc/self/cwd",
        # Another cache can contain what was compiled elsewhere.
        "ZIG_GLOBAL_CACHE_DIR": str(tools.target_directory() / "zig-cache"),
        "CARGO_INCREMENTAL": "0",
        "SOURCE_DATE_EPOCH": environment.get("SOURCE_DATE_EPOCH", commit_time),
        "TZ": "UTC",
    }


def check_profile():
    """Exit if the profile names a package that is no dependency any more, which Cargo only warns about."""
    profile = tomllib.loads((HERE / "profile.toml").read_text())["profile"][PROFILE]
    packages = {package["name"] for package in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    if unknown := sorted(profile["package"].keys() - packages):
        sys.exit(f"profile.toml names packages that are not in Cargo.lock: {', '.join(unknown)}")


def without_unused_scripts(environment):
    """Return an environment in which these scripts are embedded as empty files: 2.6 MB, and 0.7 when compressed."""
    directory = tools.target_directory() / "unused-scripts"
    directory.mkdir(parents=True, exist_ok=True)
    for name in UNUSED_SCRIPTS:
        (directory / name).write_bytes(b"")
    return environment | {"SWAGGER_UI_OVERWRITE_FOLDER": str(directory)}


def build(target, timings, environment):
    """Build the release for the target, and return the directory of the executable and the plugins."""
    environment = without_unused_scripts(environment)
    arguments = ["--locked", "--config", str(HERE / "profile.toml"), "--profile", PROFILE]
    arguments += ["--target", f"{target}.{GLIBC[0]}.{GLIBC[1]}"]
    if timings:
        arguments.append("--timings")
    path = {"PATH": f"{tools.install()}:{environment['PATH']}"}
    begin = time.monotonic()
    for package in payload.PACKAGES:
        # Cargo does not optimize a plugin as a whole as long as it is built as a Rust library, for its own tests, as well.
        kind = ["--bin", package] if package == payload.EXECUTABLE else ["--lib", "--crate-type", "cdylib"]
        command = ["cargo-zigbuild", "rustc", "--package", package, *kind, *arguments]
        subprocess.run(command, cwd=ROOT, env=environment | path, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"built in {time.monotonic() - begin:.0f} s, with {used.ru_utime + used.ru_stime:.0f} s of CPU time")
    return tools.target_directory() / target / PROFILE


def checksums(directory):
    lines = []
    for file in sorted(directory.iterdir()):
        if file.is_file() and file.name != "SHA256SUMS":
            lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    (directory / "SHA256SUMS").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, default=HOST)
    parser.add_argument("--timings", action="store_true", help="write a report for each package into target/cargo-timings")
    parser.add_argument("--from", dest="built", type=pathlib.Path, help="directory of an existing build")
    parser.add_argument("--out", type=pathlib.Path, default=tools.target_directory() / "dist")
    given = parser.parse_args()
    out = given.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    check_profile()
    environment = reproducible(dict(os.environ))
    built = given.built.absolute() if given.built else build(given.target, given.timings, environment)
    stage = out / "stage"
    files = payload.stage(built, stage, environment)
    debug = out / "debug"
    for file in files:
        elf.split_debug_information(file, debug / f"{file.name}.debug")
    newest, symbol = elf.newest_glibc(files)
    elf.check_dependencies(files)
    print(f"the newest symbol of glibc is {symbol}, of version {elf.show(newest)}")
    if given.built is None and newest > GLIBC:
        sys.exit(f"{symbol} requires glibc {elf.show(newest)}, expected at most {elf.show(GLIBC)}")

    machine = given.target.split("-")[0]
    # Files that are only installed once need not be small.
    fast = given.built is not None
    made = [
        wheel.pack(stage, out, version(), max(newest, GLIBC), machine, fast, environment),
        tarball.pack(stage, out / f"inference-server-{version()}-{machine}-linux.tar.xz", fast, environment),
        deb.pack(stage, out, version(), elf.show(max(newest, GLIBC)), machine, fast, environment),
    ]
    if given.built is None:
        made.append(tarball.pack(debug, out / f"inference-server-{version()}-{machine}-debug.tar.xz", fast, environment))
        made += tools.bills_of_materials(out, payload.PACKAGES, version(), given.target, environment)
    made.append(pathlib.Path(shutil.copy(ROOT / "config/deploy/Dockerfile", out)))
    for directory in [stage, debug]:
        shutil.rmtree(directory)
    checksums(out)
    for file in made:
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file}")
    if given.built is None and made[0].stat().st_size > MAX_WHEEL_BYTES:
        sys.exit(f"the wheel has {made[0].stat().st_size} bytes, expected at most {MAX_WHEEL_BYTES}")


if __name__ == "__main__":
    main()
