"""Properties of executables and libraries, read with binutils."""

import re
import subprocess

# Libraries that every system with glibc has, as for the platform tags `manylinux` of Python.
SYSTEM_LIBRARIES = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux-\S+)\.so\.\d+")


def show(version):
    return ".".join(map(str, version))


def newest_glibc(files):
    """Return the newest version of glibc that a file requires, and the symbol that does."""
    found = []
    for file in files:
        text = subprocess.check_output(["objdump", "--dynamic-syms", file], text=True)
        for version, name in re.findall(r"\(?GLIBC_([\d.]+)\)?\s+(\S+)$", text, re.MULTILINE):
            found.append((tuple(map(int, version.split("."))), f"`{name}` in {file.name}"))
    return max(found)


def check_dependencies(files):
    """Exit if a file is linked against a library that a system may not have."""
    for file in files:
        text = subprocess.check_output(["objdump", "--private-headers", file], text=True)
        for library in re.findall(r"NEEDED\s+(\S+)", text):
            if not SYSTEM_LIBRARIES.fullmatch(library):
                raise SystemExit(f"{file.name} requires {library}, which is not part of glibc")


def split_debug_information(file, debug):
    """Move symbols and debug information to another file, where debuggers find them by a link."""
    debug.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["objcopy", "--only-keep-debug", file, debug], check=True)
    debug.chmod(0o644)
    subprocess.run(["objcopy", "--strip-all", f"--add-gnu-debuglink={debug}", file], check=True)
