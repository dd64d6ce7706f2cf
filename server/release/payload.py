"""The files of an installation, laid out as below `/usr`."""

import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXECUTABLE = "inference-server"
# The packages of the executable and of the plugins.
PACKAGES = [
    EXECUTABLE,
    "plugin-clip",
    "plugin-onnx",
    "plugin-python",
    "plugin-python-bridge",
    "plugin-sentence-embeddings",
    "plugin-template",
]
PLUGINS = ["clip", "onnx", "python", "python_bridge", "sentence_embeddings", "template"]
COMPLETIONS = {
    "bash": f"bash-completion/completions/{EXECUTABLE}",
    "zsh": f"zsh/vendor-completions/_{EXECUTABLE}",
    "fish": f"fish/vendor_completions.d/{EXECUTABLE}.fish",
}


def stage(built, directory, environment):
    """Copy the files of a build to a directory, and return those that are executable code."""
    code = {f"bin/{EXECUTABLE}": built / EXECUTABLE}
    for plugin in PLUGINS:
        code[f"lib/inference-server/lib{plugin}.so"] = built / f"lib{plugin}.so"
    for name, file in code.items():
        copy(file, directory / name, 0o755 if name.startswith("bin/") else 0o644)
    executable = directory / "bin" / EXECUTABLE
    subprocess.run([executable, "man", "--directory", directory / "share/man/man1"], env=environment, check=True)
    for shell, name in COMPLETIONS.items():
        script = subprocess.check_output([executable, "completions", shell], env=environment)
        write(directory / "share" / name, script)
    examples = directory / "share/inference-server/examples"
    copy(ROOT / "config/models.toml", examples / "models.toml", 0o644)
    for file in sorted((ROOT / "config/digits").rglob("*")):
        if file.is_file():
            copy(file, examples / file.relative_to(ROOT / "config"), 0o644)
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md"]:
        copy(ROOT / name, directory / "share/doc/inference-server" / name, 0o644)
    # Of a library that is part of the executable.
    copy(ROOT / "server/assets/uplot/LICENSE", directory / "share/doc/inference-server/LICENSE-uPlot", 0o644)
    return [directory / name for name in code]


def copy(source, target, mode):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def write(target, content):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o644)
