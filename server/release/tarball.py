"""Archives whose bytes depend only on their files."""

import pathlib
import shutil
import tarfile

HERE = pathlib.Path(__file__).resolve().parent


def pack(directory, archive, fast, environment):
    """Pack a directory below one that is named after the archive, with the install script if it is an installation."""
    name = archive.name.removesuffix(".tar.xz")
    if (directory / "bin").is_dir():
        shutil.copy(HERE / "install", directory / "install")

    def normalize(entry):
        entry.mtime = int(environment["SOURCE_DATE_EPOCH"])
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with tarfile.open(archive, "w:xz", format=tarfile.USTAR_FORMAT, preset=0 if fast else 6) as tar:
        for file in sorted(directory.rglob("*")):
            tar.add(file, f"{name}/{file.relative_to(directory)}", recursive=False, filter=normalize)
    (directory / "install").unlink(missing_ok=True)
    return archive
