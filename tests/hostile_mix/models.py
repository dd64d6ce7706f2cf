"""The models of the hostile mix: their settings, and items of a number of words."""

import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent

MAX_WORDS = 600

# The positions of MiniLM.
MAX_TOKENS = 512


class Misbehave:
    """A task whose batch of B items of at most L words allocates `c0 + c1·B + c2·B·L + c3·B·L²` bytes."""

    task = "padded_memory"
    plugin = "misbehave"

    def __init__(self, scale):
        per_item = {"c1": 64 << 10, "c2": 12288, "c3": 64}
        # Writing this much takes time, which makes large batches worthwhile.
        self.memory = {"c0": 64 << 20} | {name: int(value * scale) for name, value in per_item.items()}

    def settings(self, directory):
        fields = [f"{name} = {value}" for name, value in self.memory.items()]
        fields += ["ns_per_weight = 2000", f"max_weight = {MAX_WORDS}"]
        return "[models.settings.padded_memory]\n" + "\n".join(fields)

    def item(self, words, numbers):
        return {"weight": words}


class Onnx:
    """MiniLM as a padded graph in ONNX Runtime."""

    task = "embed"
    plugin = "onnx"

    def __init__(self, minilm, python):
        self.minilm, self.python = minilm, python

    def settings(self, directory):
        graph = directory / "minilm.onnx"
        if not graph.exists():
            subprocess.run([self.python, HERE / "bert_onnx.py", self.minilm, graph], check=True)
        prefix = subprocess.run(
            [self.python, "-c", "import onnxruntime, sys; print(sys.prefix)"], check=True, capture_output=True, text=True
        )
        return (
            f'[models.settings]\nmodel = "{graph}"\nruntime = "ort"\nort = {{ python = "{prefix.stdout.strip()}" }}\n'
            "[models.settings.tasks.embed]\npad = { input_ids = 0, attention_mask = 0 }"
        )

    def item(self, words, numbers):
        tokens = token_ids(words, numbers)
        return {"input_ids": tokens, "attention_mask": [1] * len(tokens)}


class Torch:
    """MiniLM in Python with torch."""

    task = "embed"
    plugin = "python"

    def __init__(self, minilm, python):
        self.minilm, self.python = minilm, python

    def settings(self, directory):
        return (
            f'[models.settings]\npython = "{self.python}"\nclass = "{HERE / "torch_minilm.py"}:MiniLM"\n'
            f'settings = {{ folder = "{self.minilm}" }}'
        )

    def item(self, words, numbers):
        return token_ids(words, numbers)


def token_ids(words, numbers):
    """The ids of a text of this many words: each is a token, and there are two special ones."""
    count = min(words + 2, MAX_TOKENS)
    return [101] + [numbers.randrange(1000, 30000) for _ in range(count - 2)] + [102]
