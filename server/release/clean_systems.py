#!/usr/bin/env python3
"""Install a release on minimal Debian systems without a network, as a new user does, and use it.

    sudo server/release/clean_systems.py [--dist target/dist] [--suite SUITE…] [--long]

Without `--suite`, the system is that of this machine: a build that is not made for an old glibc runs there. `--long` uses
Debian 11 and 12, and also checks times. The systems are made by `debootstrap` once, in the user's cache directory, which needs
the network; every check starts with a copy. Requires root, for `chroot` and network namespaces.
"""

import argparse
import fcntl
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

import chroot
from chroot import mounted

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / ".ci"))
import pages  # noqa: E402

LONG_SUITES = ["bullseye", "bookworm"]
# A user waits no longer than this from the first command to the first answer.
FIRST_ANSWER_SECONDS = 60
# The image adds no more than this to its base.
IMAGE_BYTES = 60_000_000
DIGIT = "samples/digit-3-128x128.png"


def expect(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def classify(system, url="http://localhost:8080"):
    """Classify a digit of the examples with the server that runs, and return the label."""
    image = ROOT / "config/digits" / DIGIT
    reply = chroot.post(f"{url}/v1/models/digits/tasks/classify/predict", "image/png", image.read_bytes())
    return reply["output"]["label"]


def readme_block(name):
    return pages.block(f"install {name}")


def check_wheel(system, dist):
    """The commands of the README install the wheel and serve a class in a file."""
    [wheel] = dist.glob("*.whl")
    shutil.copy(wheel, system.home)
    begin = time.monotonic()
    with system.start(readme_block("wheel")):
        config = (system.home / "demo/models.toml").read_text()
        [request] = re.findall(r"^# +(curl .+)$", config, re.MULTILINE)
        reply = json.loads(system.run(request))
        seconds = time.monotonic() - begin
    labels = [output["label"] for output in reply["outputs"]]
    expect(labels == ["positive", "negative"], f"unexpected reply {reply}")
    version = system.run("venv/bin/python -m batchserve --version")
    expect(version.split()[0] == "inference-server", f"`python -m batchserve --version` printed {version}")
    system.run("venv/bin/pip uninstall --yes batchserve")
    left = [str(file) for file in (system.home / "venv").rglob("*") if "inference-server" in file.name]
    expect(not left, f"pip left {left}")
    return seconds


def check_deb(system, dist):
    """The commands of the README install the package; the unit's command line and the first ten minutes of the README work;
    a plugin that was built elsewhere loads; purging leaves nothing."""
    before = system.files()
    [package] = dist.glob("*.deb")
    shutil.copy(package, system.home)
    begin = time.monotonic()
    system.run(readme_block("deb"))
    with system.start("inference-server --config /usr/share/inference-server/examples/models.toml"):
        expect(classify(system) == "3", "the example does not recognize a digit")
        seconds = time.monotonic() - begin
    unit = (system.path / "usr/lib/systemd/system/inference-server.service").read_text()
    with system.start_unit(unit):
        expect(chroot.get("http://localhost:8080/livez") is not None, "the unit's command does not serve")
    for file in ["usr/share/man/man1/inference-server-check.1.gz", "usr/share/bash-completion/completions/inference-server"]:
        expect((system.path / file).exists(), f"/{file} is not installed")
    first_ten_minutes(system)
    foreign_plugin(system)
    system.run("apt-get purge --yes inference-server")
    left = sorted(system.files() - before)
    expect(not left, f"purging left {left}")
    expect("inference-server" not in (system.path / "etc/passwd").read_text(), "purging left the user")
    return seconds


def first_ten_minutes(system):
    """Run the commands of the README with the installed server."""
    with system.bound(ROOT, "repository"):
        wrapper = system.home / "server"
        wrapper.write_text(
            f'#!/bin/sh\nexec chroot {system.path} /usr/bin/env -C /repository /usr/bin/inference-server "$@"\n'
        )
        wrapper.chmod(0o755)
        command = [ROOT / ".ci/readme.py", "try", "--offline", "--executable", wrapper, "README.md"]
        subprocess.run(command, check=True)


def foreign_plugin(system):
    """Serve a plugin that was built on another system, from a directory of the user."""
    plugin = ROOT / "tests/fixtures/abi-1.0/libtemplate.so"
    if system.suite == "bullseye" or platform.machine() != "x86_64":
        # The fixture needs a newer glibc, so this one takes its place.
        plugin = system.path / "usr/lib/inference-server/libtemplate.so"
    shutil.copy(plugin, system.home / "libforeign.so")
    (system.home / "foreign.toml").write_text('[[models]]\nname = "foreign"\nplugin = "./libforeign.so"\n')
    with system.start("inference-server --config foreign.toml"):
        reply = chroot.post(
            "http://localhost:8080/v1/models/foreign/tasks/echo/predict", "application/json", b'{"input": "to be"}'
        )
    expect(reply["output"] == "to be", f"unexpected reply {reply}")


def check_upgrade(system, dist):
    """An upgrade keeps the configuration, and a changed one is not overwritten."""
    [package] = dist.glob("*.deb")
    shutil.copy(package, system.home / "new.deb")
    system.run(
        "dpkg-deb --raw-extract new.deb old && sed -i 's/^Version: .*/Version: 0.0.1-1/' old/DEBIAN/control &&"
        " dpkg-deb -Zgzip -z1 --build old old.deb && apt-get install --yes ./old.deb"
    )
    config = system.path / "etc/inference-server/models.toml"
    config.write_text(config.read_text() + "# changed\n")
    system.run("apt-get install --yes ./new.deb")
    expect("# changed" in config.read_text(), "the upgrade overwrote the configuration")
    version = system.run("dpkg-query --show --showformat '${Version}' inference-server")
    expect(version != "0.0.1-1", "the package was not upgraded")
    system.run("apt-get remove --yes inference-server")
    expect(config.exists(), "removing the package removed its configuration")
    system.run("apt-get purge --yes inference-server")
    expect(not config.parent.exists(), "purging left the configuration")


def check_tarball(system, dist):
    """The tarball is installed below /usr/local, serves its example, and is uninstalled."""
    before = system.files()
    [archive] = [file for file in dist.glob("*-linux.tar.xz")]
    with tarfile.open(archive) as tar:
        # Python 3.11 of Debian 12 does not have this filter.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(system.home)
    name = archive.name.removesuffix(".tar.xz")
    system.run(f"{name}/install")
    with system.start("inference-server --config /usr/local/share/inference-server/examples/models.toml"):
        expect(classify(system) == "3", "the example does not recognize a digit")
    system.run(f"{name}/install --uninstall")
    left = [file for file in sorted(system.files() - before) if not (system.path / file).is_dir()]
    expect(not left, f"uninstalling left {left}")


def check_container(system, dist):
    """The steps of the Dockerfile make a system that serves, and is not much larger than its base."""
    text = (ROOT / "config/deploy/Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    settings = {name: value for name, value in steps if name != "RUN"}
    variables = dict(value.split("=", 1) for name, value in steps if name == "ENV")
    before = system.size()
    with system.bound(dist, "context"):
        for name, value in steps:
            if name == "RUN":
                system.run(value.replace("--mount=type=bind,target=/context", ""))
    added = system.size() - before
    command = [*json.loads(settings["ENTRYPOINT"]), *json.loads(settings["CMD"])]
    # The directory that the README mounts.
    [models] = re.findall(r"-v \$PWD/(\S+):/etc/inference-server:ro", readme_block("container"))
    shutil.copytree(ROOT / "config", system.home / models, ignore=shutil.ignore_patterns("venv", "*MiniLM*", "clip-*"))
    with (
        mounted(["--bind", system.home / models], system.path / "etc/inference-server"),
        system.start(command, user=settings["USER"], directory=settings["WORKDIR"], variables=variables),
    ):
        expect(classify(system) == "3", "the container does not recognize a digit")
    # A release has a bill of materials. Other builds have more codegen units, which makes them larger.
    limit = IMAGE_BYTES if any(dist.glob("*.cdx.json")) else IMAGE_BYTES * 12 // 10
    expect(added <= limit, f"the image adds {added / 1e6:.0f} MB, expected at most {limit / 1e6:.0f} MB")
    print(f"the image adds {added / 1e6:.1f} MB to its base")


CHECKS = {
    "wheel": check_wheel,
    "deb": check_deb,
    "upgrade": check_upgrade,
    "tarball": check_tarball,
    "container": check_container,
}


def codename():
    release = platform.freedesktop_os_release()
    expect(release["ID"] == "debian", f"expected Debian, got {release['ID']}: name a system with --suite")
    return release["VERSION_CODENAME"]


def run_in_namespaces(bases):
    """Run this program again in its own mount, network and process namespaces, which end with it. Returns its exit code."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Removed here, where nothing is mounted in it.
    with tempfile.TemporaryDirectory(prefix="clean-systems-", dir="/var/tmp") as scratch:
        environment = os.environ | {"CLEAN_SYSTEMS": json.dumps({"bases": bases, "scratch": scratch})}
        return subprocess.run([*command, sys.executable, *sys.argv], env=environment).returncode


def enable_loopback():
    flags_of_interface, up = 0x8914, 0x1
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, flags_of_interface, struct.pack("16sh14x", b"lo", up))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=pathlib.Path, default=ROOT / "target/dist")
    parser.add_argument("--suite", action="append")
    parser.add_argument("--check", action="append", choices=CHECKS)
    parser.add_argument("--long", action="store_true")
    given = parser.parse_args()
    expect(os.geteuid() == 0, "this requires root: use sudo")
    suites = given.suite or (LONG_SUITES if given.long else [codename()])
    if "CLEAN_SYSTEMS" not in os.environ:
        sys.exit(run_in_namespaces({suite: str(chroot.base(suite)) for suite in suites}))
    enable_loopback()
    inner = json.loads(os.environ["CLEAN_SYSTEMS"])
    for suite, base in inner["bases"].items():
        for name in given.check or CHECKS:
            print(f"\n==> {name} on {suite}", flush=True)
            begin = time.monotonic()
            with chroot.System(suite, base, pathlib.Path(inner["scratch"]) / f"{suite}-{name}") as system:
                first_answer = CHECKS[name](system, given.dist.absolute())
            if first_answer is not None:
                print(f"from nothing to the first answer: {first_answer:.1f} s")
                expect(not given.long or first_answer < FIRST_ANSWER_SECONDS, "the first answer took too long")
            print(f"{time.monotonic() - begin:6.0f} s  {name} on {suite}", flush=True)


if __name__ == "__main__":
    main()
