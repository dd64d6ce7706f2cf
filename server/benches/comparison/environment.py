"""Installs what the comparison needs into the user's cache directory: pinned packages, and MiniLM as a file of ONNX."""

import dataclasses
import fcntl
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-server"
MINILM = CACHE / "models/all-MiniLM-L6-v2"


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment with the packages of a file of requirements."""

    directory: Path
    requirements: Path

    @property
    def python(self):
        return self.directory / "venv/bin/python3"

    @property
    def stamp(self):
        return self.directory / "installed.txt"

    def installed(self):
        return self.stamp.exists() and self.stamp.read_text() == self.requirements.read_text()

    def install(self):
        if self.installed():
            return
        print(f"installing packages into {self.python.parents[1]}", file=sys.stderr)
        self.directory.mkdir(parents=True, exist_ok=True)
        venv.create(self.python.parents[1], with_pip=True)
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", self.requirements]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        self.stamp.write_text(self.requirements.read_text())

    def packages(self, *names):
        """The pinned versions of these packages."""
        return [line for line in self.requirements.read_text().split() if re.split(r"[\[=]", line)[0] in names]


SERVERS = Environment(CACHE / "comparison", HERE / "requirements.txt")
# With PyTorch, so that it is installed only on request.
EMBEDDING = Environment(CACHE / "comparison-embedding", HERE / "requirements-embedding.txt")
DIRECTORY, PYTHON = SERVERS.directory, SERVERS.python


def install():
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(DIRECTORY / "lock", "w") as lock:
        # Two runs at the same time would write to the same files.
        fcntl.flock(lock, fcntl.LOCK_EX)
        SERVERS.install()
        fetch = REPOSITORY / "plugins/sentence-embeddings/fetch-minilm"
        subprocess.run([fetch, MINILM], env=os.environ | {"PYTHON": str(PYTHON)}, check=True)
        if not (DIRECTORY / "tokenizer.json").exists():
            subprocess.run([PYTHON, __file__], check=True)


def write_minilm():
    """Writes the network as PyTorch would export it, and its tokenizer. Runs in the virtual environment."""
    sys.path.insert(0, str(REPOSITORY / "plugins/sentence-embeddings/benches"))
    import onnxruntime_forward

    (DIRECTORY / "minilm.onnx").write_bytes(onnxruntime_forward.build(MINILM).SerializeToString())
    (DIRECTORY / "tokenizer.json").write_bytes((MINILM / "tokenizer.json").read_bytes())


def embed(texts):
    """The vectors of texts, each computed alone: what every server must answer."""
    script = (
        "import json, sys; import models; model = models.loaded('MiniLm')\n"
        "print(json.dumps([model.predict([text])[0].tolist() for text in json.load(sys.stdin)]))"
    )
    variables = os.environ | {"COMPARISON_MODELS": str(DIRECTORY), "PYTHONPATH": str(HERE)}
    command = [PYTHON, "-c", script]
    result = subprocess.run(command, input=json.dumps(texts), env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


if __name__ == "__main__":
    write_minilm()
