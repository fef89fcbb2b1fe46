"""Whether a repetition agrees with the runs it repeats.

On the same kind of processor, with the same versions, a run has the same bits: every number of every epoch is equal.
Elsewhere sums are rounded in another order, and a configuration agrees where its mean has moved by no more than one
standard deviation over its seeds, as recorded. One seed alone has no spread, so it agrees to the bit or not at all.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hebb.analysis import difference
from hebb.core import documents
from hebb.storage import folders

_VERSIONS = ("hebb-learning", "torch", "torchvision", "numpy", "scikit-learn")
"""Packages whose version may change the bits."""


class Agreement(StrEnum):
    """How far the numbers of a configuration agree."""

    BITS = "to the bit"
    SPREAD = "within the spread"
    NONE = "no"


@dataclass(frozen=True)
class Repeated:
    """A run and its repetition.

    Attributes:
        label: its configuration.
        seed: its seed.
        recorded: the rows of the run.
        rows: the rows of its repetition; None where that did not finish.
        before: the environment of the run.
        now: the environment of its repetition.
        metric: what is compared where the bits differ.
    """

    label: str
    seed: int
    recorded: Sequence[folders.Row] = field(repr=False)
    rows: Sequence[folders.Row] | None = field(repr=False)
    before: Mapping[str, Any] = field(repr=False)
    now: Mapping[str, Any] = field(repr=False)
    metric: str

    @property
    def equal(self) -> bool:
        """Whether every number of every epoch is equal; times are no results."""
        return self.rows is not None and not list(difference.curves(self.recorded, self.rows))

    @property
    def elsewhere(self) -> list[str]:
        """Say what differs from the machine and the versions of the run, so that other bits are to be expected."""
        return [] if self.rows is None else _changes(self.before, self.now)

    @property
    def data_changed(self) -> bool:
        """Whether it was trained on other data, as far as both have recorded a digest."""
        sides = [side.get("data_sha256") for side in (self.before, self.now)]
        return all(isinstance(side, dict) for side in sides) and sides[0] != sides[1]


@dataclass(frozen=True)
class ConfigurationAgreement:
    """What became of a configuration.

    Attributes:
        label: its values.
        n: number of seeds that were repeated.
        recorded: mean of the metric over these, as recorded.
        repeated: mean of the repetition; None where a seed did not finish or was not measured.
        sd: standard deviation over the seeds, as recorded; None of one seed.
        agreement: how far they agree.
    """

    label: str
    n: int
    recorded: float | None
    repeated: float | None
    sd: float | None
    agreement: Agreement


@dataclass(frozen=True)
class RerunVerdict:
    """Whether a repetition agrees.

    Attributes:
        lines: one for each configuration.
        expected: whether the same bits were to be expected.
        reasons: what differs from the machine, the versions or the data.
        unfinished: runs whose repetition did not finish.
    """

    lines: tuple[ConfigurationAgreement, ...]
    expected: bool
    reasons: tuple[str, ...]
    unfinished: int

    @property
    def agrees(self) -> bool:
        """Whether every configuration agrees: to the bit where that was to be expected, else within the spread."""
        enough = (Agreement.BITS,) if self.expected else (Agreement.BITS, Agreement.SPREAD)
        return bool(self.lines) and all(line.agreement in enough for line in self.lines)

    @property
    def sentence(self) -> str:
        """Say it in a line."""
        total = f"{len(self.lines)} {'configuration' if len(self.lines) == 1 else 'configurations'}"
        counts = Counter(line.agreement for line in self.lines)
        words = {kind: "not" if kind == Agreement.NONE else kind.value for kind in Agreement}
        parts = [f"{counts[kind]} of {total} {text}" for kind, text in words.items() if counts[kind]]
        if self.unfinished:
            parts.append(f"{self.unfinished} {'run' if self.unfinished == 1 else 'runs'} did not finish")
        where = "; ".join(self.reasons) or "on the same kind of processor, with the same versions"
        return f"{'agree' if self.agrees else 'differ'}: {', '.join(parts)} ({where})"


def of(runs: Iterable[Repeated]) -> RerunVerdict:
    """Compare runs with their repetitions, a configuration at a time."""
    everything = list(runs)
    by_label: dict[str, list[Repeated]] = {}
    for run in everything:
        by_label.setdefault(run.label, []).append(run)
    reasons = list(dict.fromkeys(reason for run in everything for reason in run.elsewhere))
    expected = not reasons
    if any(run.data_changed for run in everything):
        reasons.append("the data have another digest")
    lines = tuple(_line(label, members) for label, members in by_label.items())
    return RerunVerdict(lines, expected, tuple(reasons), sum(run.rows is None for run in everything))


def _line(label: str, runs: Sequence[Repeated]) -> ConfigurationAgreement:
    metric = runs[0].metric
    before = [folders.value_of(run.recorded, metric) for run in runs]
    now = [None if run.rows is None else folders.value_of(run.rows, metric) for run in runs]
    left, right = (_mean(side) for side in (before, now))
    values = [value for value in before if value is not None]
    sd = statistics.stdev(values) if len(values) > 1 else None
    if all(run.equal for run in runs) and not any(run.data_changed for run in runs):
        agreement = Agreement.BITS
    else:
        near = left is not None and right is not None and sd is not None and abs(right - left) <= sd
        agreement = Agreement.SPREAD if near else Agreement.NONE
    return ConfigurationAgreement(label, len(runs), left, right, sd, agreement)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there and len(there) == len(values) else None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    sides = [_facts(side) for side in (before, now)]
    return [
        f"{name} {sides[0][name] or 'not recorded'} then, {sides[1][name] or 'none'} now"
        for name in sides[0]
        if sides[0][name] != sides[1][name]
    ]


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what decides the bits beside the config."""
    machine, versions = documents.part(environment, "machine"), documents.part(environment, "versions")
    return {
        "processor": str(machine.get("processor") or ""),
        "GPU": str(machine.get("gpu") or ""),
        **{name: str(versions.get(name) or "") for name in _VERSIONS},
    }
