"""What a worker does with a group: its runs one after the other, or packed, and the mean over them so far as reports.

A worker is used for trial after trial, so everything global is set anew for each. Runs that are finished are not
run again: their stored rows are reported as they were, so that a scheduler or a searcher that starts anew hears
what it heard before.
"""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hebb.config.plan import Phase
from hebb.config.specs import RunConfig
from hebb.core import seeds
from hebb.core.errors import HebbError
from hebb.data.images import Images, Split
from hebb.nn import model
from hebb.probing import probes
from hebb.probing.measures import BlockInfo
from hebb.storage import folders, records
from hebb.training import train
from hebb.training.engine import BATCH
from hebb.tuning import hparams, search_folder, steps
from hebb.tuning.steps import Steps
from hebb.tuning.trials import Group, Trial

Tell = Callable[[dict[str, Any]], None]
"""Receives a report."""

PROBES = "probes.jsonl"
"""File of a run folder with the quick probes, which a continued search reports again."""
_PROBED = 1000  # images on which a quick probe is fitted, and others on which it is scored, at most
_FULL = 1 << 20  # bytes; a disk with less free space is full


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all trials of a search share.

    Attributes:
        metric: what is reported.
        mode: whether ``max`` or ``min`` of it is better.
        place: keyword arguments of ``train.Place`` beside the folder.
        probe_every: quick probe after every so many Hebbian phases; 0 makes none.
    """

    metric: str
    mode: str
    place: dict[str, Any]
    probe_every: int = 0


def run_group(group: Group, task: Task, tell: Tell, *, settled: str | None = None, told: int = 0) -> None:
    """Run what is not finished, and report all of it; a run that cannot succeed ends the group.

    Args:
        group: what is run.
        task: what all groups share.
        tell: receives the reports.
        settled: nothing is run, because a scheduler stopped the group earlier (empty) or it failed (the reason).
        told: step of the last report that was heard already.
    """
    scores = Scores(task=task, tell=tell, told=told)
    for together in group.packs():
        _reset(together[0].config.seed)
        scores.begin(*together)
        folder = together[0].folder
        try:
            with ExitStack() as stack:
                for trial in together:  # a worker whose driver was killed may live for a moment longer
                    stack.enter_context(search_folder.held(folder.parent.parent / search_folder.LOCKS / trial.name))
                ran = _run(together, task, scores, repeat_only=settled is not None)
            if not ran:
                break
        except HebbError as error:  # the same would happen again: no retry
            scores.fail(str(error))
            return
        except Exception as error:
            if _disk_full(error, folder):
                scores.halt(f"no space left on the disk of {folder.parent.parent}")
                return
            raise
        if not scores.end():
            return
    if settled:
        scores.fail(settled)


def _run(together: Sequence[Trial], task: Task, scores: Scores, *, repeat_only: bool) -> bool:
    """Train one run, or a pack, from its checkpoint where it has one, or repeat the reports of a finished one.

    Returns whether the run, or every member of the pack, is finished.
    """
    states = [folders.state(trial.folder) for trial in together]
    for trial, state in zip(together, states, strict=True):
        if state in ("finished", "interrupted"):
            scores.repeat(trial)
    finished = all(state == "finished" for state in states)
    if finished or repeat_only:
        return finished
    begun = any(state in ("finished", "interrupted") for state in states)
    places = [train.Place(folder=trial.folder, carry_on=begun, **task.place) for trial in together]
    reports = [_Listener(scores, trial) for trial in together]
    results = train.run_pack([trial.config for trial in together], reports, places=places)
    for result in results:
        scores.values[result.config.seed] = folders.value_of(result.rows, task.metric)
    return True


def _reset(seed: int) -> None:
    """Set what is global to the process and outlives a trial; ``train.run`` sets threads and torch's defaults."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # nothing draws from these; a plugin that does is at least repeatable
    torch.set_grad_enabled(True)


def _disk_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(place).free < _FULL  # torch and TensorBoard raise errors of their own


@dataclass
class Scores:
    """Turns the rows of the runs of a group into reports.

    A report carries ``score``, the mean over the ``n`` runs that are finished (during the first one its value so far,
    during a first pack the mean over its members at the same epoch); ``step``, which only grows; and phase, epoch and
    seed. So no report of a group is worse only because a new seed begins, and at the same step every group was judged
    on the same epochs of the same seeds.
    """

    task: Task
    tell: Tell
    told: int = 0
    done: list[float] = field(default_factory=list)
    values: dict[int, float | None] = field(default_factory=dict)
    steps: Steps = field(default_factory=lambda: Steps(0, (), 1))
    _trials: tuple[Trial, ...] = ()
    _heard: dict[int, dict[int, float]] = field(default_factory=dict)
    _before: int = 0
    _last: dict[str, Any] = field(default_factory=dict)

    def begin(self, *trials: Trial) -> None:
        """Begin a run, or the members of a pack."""
        self._trials, self.values, self._heard = trials, {}, {}
        self.steps = steps.of_run(trials[0].config, self.task.metric, self.task.probe_every)

    def row(self, row: records.Row, seed: int) -> None:
        """Hear a row; the last one of the run is reported by ``end``, when everything is on the disk."""
        value = row[self.task.metric]
        if row["phase"] != self.steps.phase or value is None or not math.isfinite(value):
            return
        step = len(self.steps.probed) + int(row["epoch"])
        if step < self.steps.count:
            self._hear(step, seed, float(value), row["kind"], row["phase"], row["epoch"])

    def probe(self, phase: int, value: float, seed: int) -> None:
        """Hear the accuracy of a quick probe after a phase."""
        self._hear(self.steps.probed.index(phase) + 1, seed, value, "probe", phase, 0)

    def repeat(self, trial: Trial) -> None:
        """Report what the run folder holds already."""
        folder, seed = trial.folder, trial.config.seed
        for line in records.read_rows(folder / PROBES) if (folder / PROBES).exists() else ():
            if line["phase"] in self.steps.probed:
                self.probe(line["phase"], line["value"], seed)
        rows = records.read_rows(folder / folders.METRICS) if (folder / folders.METRICS).exists() else []
        self.values[seed] = folders.value_of(rows, self.task.metric)
        for row in rows:
            self.row(row, seed)

    def end(self) -> bool:
        """End a run, or a pack, whose results are on the disk; tell whether all have a value."""
        found = [value for trial in self._trials if (value := self.values.get(trial.config.seed)) is not None]
        if len(found) < len(self._trials):
            self.fail(f"it gives no {self.task.metric}")
            return False
        self.done += found
        self._report(self.steps.count, float(np.mean(found)), "end", self.steps.phase, self.steps.epochs)
        self._before += self.steps.count * len(self._trials)
        return True

    def fail(self, reason: str) -> None:
        """Report that the group cannot go on; a searcher hears the worst value, and so learns where not to look."""
        worst = 0.0 if self.task.metric.endswith("_acc") or self.task.metric == "R1" else 1e9
        if self.task.mode != ("max" if worst == 0 else "min"):
            worst = 1e9 - worst
        self.tell({**self._last, **self._plain(worst), "failed": " ".join(reason.split())[:300]})

    def halt(self, reason: str) -> None:
        """Report that no trial can go on."""
        self.tell({**self._plain(0.0), "halt": reason})

    def _hear(self, step: int, seed: int, value: float, kind: str, phase: int, epoch: int) -> None:
        """Report the mean over the members of a pack when all of them have come so far."""
        found = self._heard.setdefault(step, {})
        found[seed] = value
        if len(found) == len(self._trials):
            self._report(step, float(np.mean(list(found.values()))), kind, phase, epoch)

    def _report(self, step: int, value: float, kind: str, phase: int, epoch: int) -> None:
        step = self._before + step * len(self._trials)  # counted over the seeds, one after the other or together
        if step <= self.told:
            return  # heard already, before an interruption
        self.told = step
        score = float(np.mean(self.done)) if self.done else value
        self._last = {"kind": kind, "phase": int(phase), "epoch": int(epoch)}
        self.tell({**self._plain(score), **self._last, "step": step, "value": value})

    def _plain(self, score: float) -> dict[str, Any]:
        n = len(self.done) or len(self._trials)
        return {"score": score, "n": n, "step": self.told + 1, "seed": self._trials[0].config.seed}


class _Listener(train.Report):
    """Hands the rows and the quick probes of a run to its scores."""

    def __init__(self, scores: Scores, trial: Trial) -> None:
        self.scores, self.trial = scores, trial

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: train.Place) -> None:
        """Write the run's values of the space for TensorBoard."""
        hparams.write_run(self.trial.folder, self.trial.choice, config.seed)

    def finish(self, result: train.Result) -> None:
        """Tell TensorBoard that the run is complete."""
        hparams.end_run(self.trial.folder)

    def row(self, row: records.Row, blocks: dict[str, BlockInfo]) -> None:
        """Pass a row on."""
        self.scores.row(row, self.trial.config.seed)

    def trained(self, index: int, phase: Phase, network: model.Network, data: Images) -> None:
        """Make the quick probe of a phase, and store it before it is reported."""
        if index not in self.scores.steps.probed:
            return
        value = quick_probe(network, phase.top, data, self.scores.task.metric, self.trial.config.seed)
        if value is not None:
            with open(self.trial.folder / PROBES, "a", encoding="utf-8") as file:
                file.write(json.dumps({"phase": index, "value": value}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.scores.probe(index, value, self.trial.config.seed)


def quick_probe(network: model.Network, block: int, data: Images, metric: str, seed: int) -> float | None:
    """Return the accuracy in percent of a linear probe of a block, fitted on a few images and scored on a few others.

    The test set stays closed unless the metric is that of the test set.
    """
    closed = metric.startswith("val")
    scored = {"val": data.val, "test": None if closed else data.test}
    found = {name: None if split is None else _features(network, block, split, seed) for name, split in scored.items()}
    probe = probes.fit("linear", block, _features(network, block, data.train, seed), found)
    return {"train_acc": probe.train_acc, "val_acc": probe.val_acc, "test_acc": probe.test_acc}[metric]


@torch.no_grad()
def _features(network: model.Network, block: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Return pooled features (n, D) and labels (n,) of ``_PROBED`` images drawn from the split, on the CPU."""
    network.eval()
    found, labels, count = [], [], 0
    for x, y in split.batches(BATCH, seeds.generator(seed, "quick probe")):
        found.append(probes.pooled(network(x, stop=block + 1)).cpu())
        labels.append(y.cpu())
        count += len(y)
        if count >= _PROBED:
            break
    return torch.cat(found)[:_PROBED], torch.cat(labels)[:_PROBED]
