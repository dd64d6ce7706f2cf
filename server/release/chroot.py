"""Minimal Debian systems, and commands and servers that run in them."""

import contextlib
import http.client
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

# What the README requires of a system, in addition to what every system has.
PACKAGES = ["ca-certificates", "curl", "python3", "python3-pip", "python3-venv"]
LIBPYTHON = {"bullseye": "libpython3.9", "bookworm": "libpython3.11", "trixie": "libpython3.13"}
TIMEOUT_SECONDS = 180


def base(suite):
    """Return the directory of a minimal system, which is made if it does not exist."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")))
    directory = cache / "inference-server/systems" / suite
    if directory.exists():
        return directory
    if suite not in LIBPYTHON:
        sys.exit(f"unknown system {suite}, expected one of {', '.join(LIBPYTHON)}")
    made = directory.with_name(f"{suite}.new")
    shutil.rmtree(made, ignore_errors=True)
    made.parent.mkdir(parents=True, exist_ok=True)
    include = ",".join([*PACKAGES, LIBPYTHON[suite]])
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={include}", suite, made], check=True)
    for unused in [*made.glob("var/cache/apt/archives/*.deb"), *made.glob("var/lib/apt/lists/*_*")]:
        unused.unlink()
    made.rename(directory)
    return directory


class System:
    """A copy of a minimal system, without a network. Commands run in the home directory of root."""

    def __init__(self, suite, base, path):
        self.suite, self.path = suite, path
        subprocess.run(["cp", "-a", "--reflink=auto", base, path], check=True)
        # Written by the installers of Debian and by container engines, not by debootstrap. Old versions of curl need it.
        (path / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        self.home = path / "root"

    def __enter__(self):
        self.mounts = contextlib.ExitStack()
        self.mounts.enter_context(mounted(["-t", "proc", "proc"], self.path / "proc"))
        self.mounts.enter_context(mounted(["--rbind", "/dev"], self.path / "dev"))
        return self

    def __exit__(self, *_):
        self.mounts.close()

    @contextlib.contextmanager
    def bound(self, directory, name):
        """Show a directory of this machine below the root of the system."""
        (self.path / name).mkdir()
        with mounted(["--bind", "--options", "ro", directory], self.path / name):
            yield
        (self.path / name).rmdir()

    def command(self, command, user=None, directory="/root", variables=None):
        if isinstance(command, str):
            command = ["sh", "-euc", command]
        clean = {
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PIP_NO_INDEX": "1",
        } | (variables or {})
        enter = ["chroot", self.path, "/usr/bin/env", "-i", "-C", directory]
        enter += [f"{name}={value}" for name, value in clean.items()]
        if user:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        return [*enter, *command]

    def run(self, command):
        """Run a command and return its output."""
        print(f"$ {command.strip()}", flush=True)
        ran = subprocess.run(self.command(command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"FAILED with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    @contextlib.contextmanager
    def start(self, command, **context):
        """Run a command that starts a server on port 8080, until the end of the context. The server must exit with 0."""
        shown = command if isinstance(command, str) else shlex.join(command)
        print(f"$ {shown.strip()}", flush=True)
        process = subprocess.Popen(self.command(command, **context), stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until_ready(process)
            yield
            for server in servers():
                os.kill(server, signal.SIGTERM)
            if (status := process.wait(timeout=TIMEOUT_SECONDS)) != 0:
                sys.exit(f"FAILED: the server exited with {status} after SIGTERM, expected 0")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start_unit(self, unit):
        """Start the command of a systemd unit, as its user, with its environment and its directory for caches."""
        settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
        user = settings["User"]
        self.run(f"install --directory --owner={user} /var/cache/{settings['CacheDirectory']}")
        variables = dict([settings["Environment"].split("=", 1)])
        return self.start(shlex.split(settings["ExecStart"]), user=user, directory="/", variables=variables)

    def files(self):
        """Return the paths of all files, except records of packages, logs, and caches."""
        changing = ("dev", "proc", "root", "tmp", "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log")
        found = set()
        for directory, names, files in os.walk(self.path):
            inside = os.path.relpath(directory, self.path)
            names[:] = [name for name in names if os.path.normpath(f"{inside}/{name}") not in changing]
            # Backups of the lists of users.
            found |= {os.path.normpath(f"{inside}/{name}") for name in names + files if not name.endswith("-")}
        return found

    def size(self):
        """Return the size of all files in bytes."""
        text = subprocess.check_output(["du", "-sb", "--one-file-system", self.path], text=True)
        return int(text.split()[0])


@contextlib.contextmanager
def mounted(source, target):
    subprocess.run(["mount", *source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", target], check=True)


def servers():
    """Return the processes of the server that are not children of another one."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if pathlib.Path(os.readlink(entry / "exe")).name == "inference-server":
                found[int(entry.name)] = parent
    return [process for process, parent in found.items() if parent not in found]


def wait_until_ready(process):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while get("http://localhost:8080/readyz") is None:
        if process.poll() is not None:
            sys.exit(f"FAILED: the command exited with {process.returncode} before the server was ready")
        if time.monotonic() > deadline:
            sys.exit("FAILED: the server is not ready")
        time.sleep(0.05)


def get(url):
    """Return the reply to a request, or `None` if there is none with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply:
            return reply.read()
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return None


def post(url, media_type, body):
    request = urllib.request.Request(url, body, {"content-type": media_type})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
        return json.loads(reply.read())
