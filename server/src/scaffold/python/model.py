"""A model in Python: its methods are tasks, and their type hints define inputs and outputs."""

from dataclasses import dataclass


@dataclass
class Settings:
    """`[models.settings.settings]` in models.toml."""

    positive: list[str]
    negative: list[str]


@dataclass
class Sentiment:
    label: str
    score: float


class Model:
    max_batch_size = 64
    examples = {"classify": ["what a lovely day"]}

    def load(self, settings: Settings):
        """Is called once. Load the weights of your model here; this one only has two lists of words."""
        self.positive = set(settings.positive)
        self.negative = set(settings.negative)

    def classify(self, texts: list[str]) -> list[Sentiment]:
        """Classifies texts as positive, negative or neutral. Receives a batch, and returns one outcome for each text."""
        return [self._classify(text) if text else ValueError("the text is empty") for text in texts]

    def _classify(self, text):
        words = text.lower().split()
        score = sum((word in self.positive) - (word in self.negative) for word in words) / max(len(words), 1)
        label = "positive" if score > 0 else "negative" if score < 0 else "neutral"
        return Sentiment(label, score)
