"""Derives the table of verified operators from outcomes."""

from collections import defaultdict
from dataclasses import dataclass

import onnx

from .compare import ERROR, NO_REFERENCE, RANGE, RIGHT, SILENT

# Passing comparisons that a class, and a value of a feature in it, must have.
MIN_CASES, MIN_VALUE = 4, 2
# How often results must differ with a value for that to be the reason: never less, and always enough.
MIN_RATE, CERTAIN_RATE = 0.1, 0.6
# How many differences must be missing among the other values of a feature, as a bound on chance (one in e to this power).
EXPECTED = 8
# Data that the plugin can keep from a model.
UNUSUAL = {"nan", "infinite", "empty"}
MAX_OPSET = 25
ABSENT, ANY = "absent", "any"


def version_range(operator, opset):
    """First and last version of the operator set in which an operator has the meaning that it has in `opset`."""
    domain, _, name = operator.rpartition(".")
    if domain:
        return 1, 1
    versions = versions_of(name)
    first = max(version for version in versions if version <= opset)
    later = [version for version in versions if version > opset]
    return first, min(later) - 1 if later else MAX_OPSET


_VERSIONS = {}


def versions_of(name, domain=""):
    if not _VERSIONS:
        for schema in onnx.defs.get_all_schemas_with_history():
            versions = _VERSIONS.setdefault((schema.domain, schema.name), {})
            versions[schema.since_version] = schema.deprecated
    return sorted(_VERSIONS.get((domain, name), {1: False}))


def deprecated(name, opset):
    """Whether an operator is no longer in that version of the operator set."""
    versions = _VERSIONS.get(("", name))
    return versions is not None and versions[max(version for version in versions_of(name) if version <= opset)]


@dataclass
class Observation:
    """The outcome of a case, with the features of its node."""

    name: str
    kind: str
    detail: str
    features: dict
    data: set

    def has(self, feature, value):
        return value in self.features.get(feature, {ABSENT})

    def has_floats(self):
        return any("FLOAT" in values for name, values in self.features.items() if name.startswith("type"))

    def unusual(self):
        """Whether it has data that can be kept from a model: NaN, infinities, or no elements at all."""
        return bool(self.data & UNUSUAL)


class Tally:
    """Outcomes of one operator."""

    def __init__(self, operator, split=(), exclude=(), joint=(), without=()):
        self.operator = operator
        self.split, self.exclude, self.joint, self.without = split, exclude, joint, set(without)
        self.counts = defaultdict(int)
        self.observations = []
        # Inputs of which the sign of a zero changes the results, by index.
        self.zero_signs = set()
        # Values of features with which results differ, and the observations that no value explains.
        self.culprits, self.unexplained, self.unusual = [], [], []

    def add(self, node, outcome, case, name):
        self.counts[outcome.kind] += 1
        self.zero_signs |= outcome.zero_signs
        kind = outcome.kind
        if kind == RANGE and "empty" in case.data:
            # The least integer of none is the largest of 64 bits, which bounds of values do not tell.
            kind = SILENT
        if kind in (RANGE, NO_REFERENCE) or node is None:
            return
        _, opset, features = node
        features = collect(features)
        features["opset"] = {version_range(self.operator, opset)}
        self.observations.append(Observation(name, kind, outcome.detail, features, case.data))

    def split_features(self):
        names = {name for observation in self.observations for name in observation.features}
        given = {name for name in names if name.startswith("type")}
        return sorted((set(self.split) & names) | given | {"outputs"} & names) + ["opset"]

    def verified(self):
        """The classes without a silent difference, as the table has them."""
        split = self.split_features()
        right = [observation for observation in self.observations if observation.kind == RIGHT]
        silent = [observation for observation in self.observations if observation.kind == SILENT]
        for feature, value in self.exclude:
            silent = [observation for observation in silent if not observation.has(feature, value)]
            right = [observation for observation in right if not observation.has(feature, value)]
        silent, right = self.exclude_culprits(split, silent, right)
        self.unexplained = [observation for observation in silent if not observation.unusual()]
        if self.unexplained:
            return []
        self.unusual = silent
        without = sorted(unverified_data(silent, right, self.without))
        joint = [*self.joint, "type 0", "types", "outputs", "opset"]
        classes = defaultdict(list)
        for observation in right:
            key = tuple((feature, tuple(sorted(observation.features.get(feature, {ABSENT})))) for feature in joint)
            classes[key].append(observation)
        others = self.values_of_others(right, joint)
        entries = []
        for key, members in sorted(classes.items()):
            if len(members) < MIN_CASES:
                continue
            entry = {"opset": list(dict(key)["opset"][0]), "features": dict(others)}
            for feature, values in key:
                if feature != "opset" and values != (ABSENT,):
                    entry["features"][feature] = list(values)
            if without:
                entry["without"] = without
            if self.zero_signs:
                entry["zero_signs"] = sorted(self.zero_signs)
            entries.append(entry)
        return merge(entries)

    def exclude_culprits(self, split, silent, right):
        """Excludes the values of features with which results differ; returns the observations without them."""
        while any(not observation.unusual() for observation in silent):
            wrong = [observation for observation in silent if not observation.unusual()]
            rates = []
            for feature in split:
                values = {value for observation in wrong for value in observation.features.get(feature, {ABSENT})}
                for value in values:
                    bad = sum(observation.has(feature, value) for observation in wrong)
                    good = sum(observation.has(feature, value) for observation in right)
                    rates.append((bad / (bad + good), bad, feature, value))
            rate, _, feature, value = max(rates, key=lambda entry: (entry[0], entry[1], str(entry[2:])))
            overall = len(wrong) / (len(wrong) + len(right))
            if right and (rate >= max(MIN_RATE, 2 * overall) or rate >= CERTAIN_RATE):
                guilty = [(feature, value, rate)]
            else:
                guilty = self.without_innocents(split, wrong, right)
            if not guilty:
                break
            self.culprits += guilty
            for feature, value, _ in guilty:
                silent = [observation for observation in silent if not observation.has(feature, value)]
                right = [observation for observation in right if not observation.has(feature, value)]
        return silent, right

    def without_innocents(self, split, wrong, right):
        """The values of a feature that has others with which results would differ too, if it did not matter."""
        overall = len(wrong) / (len(wrong) + len(right))
        for feature in split:
            values = {value for observation in wrong + right for value in observation.features.get(feature, {ABSENT})}
            guilty = {value for value in values if any(observation.has(feature, value) for observation in wrong)}
            innocent = [observation for observation in right if not any(observation.has(feature, value) for value in guilty)]
            if len(innocent) * overall >= EXPECTED:
                return [(feature, value, overall) for value in sorted(guilty, key=str)]
        return []

    def values_of_others(self, right, joint):
        """The verified values of features that do not divide the cases into classes."""
        names = {name for observation in right for name in observation.features} - set(joint)
        values = {}
        for name in sorted(names):
            counts = defaultdict(int)
            for observation in right:
                for value in observation.features.get(name, {ABSENT}):
                    counts[value] += 1
            kept = sorted(value for value, count in counts.items() if count >= MIN_VALUE)
            if kept != [ABSENT]:
                values[name] = ranks(kept) if name.startswith("rank") else kept
        return values


def unverified_data(silent, right, known):
    """Data with which results differ, or are known to, or with which floats were not compared often enough."""
    alone = [observation.data & UNUSUAL for observation in silent if len(observation.data & UNUSUAL) == 1]
    unverified = known.union(*alone)
    for observation in silent:
        if not observation.data & unverified:
            unverified |= observation.data & UNUSUAL
    if any(observation.has_floats() for observation in right):
        for tag in ("nan", "infinite"):
            compared = [observation for observation in right if tag in observation.data and not observation.data & (unverified - {tag})]
            if len(compared) < MIN_CASES:
                unverified.add(tag)
    return unverified


def collect(features):
    collected = defaultdict(set)
    for name, value in features:
        collected[name].add(value)
    return dict(collected)


def ranks(values):
    """Ranks; any, if all that occur in practice are verified."""
    known = {int(value) for value in values if value.isdigit()}
    if known and known >= set(range(min(known), 6)) and min(known) <= 1 and len(known) >= 5:
        return sorted(set(values) | {ANY})
    return values


def merge(classes):
    """Merges classes that differ in one feature only, or in adjacent versions."""
    changed = True
    while changed:
        changed = False
        for first in range(len(classes)):
            for second in range(first + 1, len(classes)):
                merged = merge_two(classes[first], classes[second])
                if merged:
                    classes[first] = merged
                    del classes[second]
                    changed = True
                    break
            if changed:
                break
    return classes


def merge_two(a, b):
    if a.get("without") != b.get("without"):
        return None
    if a["opset"] == b["opset"]:
        names = set(a["features"]) | set(b["features"])
        value = lambda entry, name: entry["features"].get(name, [ABSENT])  # noqa: E731
        different = [name for name in names if value(a, name) != value(b, name)]
        if len(different) > 1:
            return None
        features = dict(a["features"])
        for name in different:
            features[name] = sorted(set(value(a, name)) | set(value(b, name)))
        return {**a, "features": dict(sorted(features.items()))}
    if a["features"] == b["features"]:
        (first, second) = sorted((a["opset"], b["opset"]))
        if first[1] + 1 == second[0]:
            return {**a, "opset": [first[0], second[1]]}
    return None


__all__ = ["Tally", "versions_of", "version_range", "MAX_OPSET", "ERROR", "RIGHT", "SILENT"]
