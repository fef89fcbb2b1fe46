"""What a worker does with a group: it trains the runs and reports the mean over them so far.

A worker is used for one trial after another, so everything global is reset for each. Finished runs are not run again:
their stored rows are reported as they were, so that a scheduler or searcher that starts anew gets the reports it got
before.
"""

from __future__ import annotations

import gc
import math
import random
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hebb.config import costs, plugins, probed
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Goal
from hebb.core import seeds, user_code
from hebb.core.errors import DiskFullError, HebbError, cause_of
from hebb.core.user_code import UserCodeError
from hebb.data.images import Images, Split
from hebb.nn import model
from hebb.probing import probes, readout
from hebb.probing.measures import BlockInfo
from hebb.storage import board, folders
from hebb.training import train
from hebb.tuning import hparams, results, steps
from hebb.tuning.observer import TrialReport
from hebb.tuning.search import Group, Trial
from hebb.tuning.steps import Steps

Send = Callable[[TrialReport], None]
"""Passes a report on to the search; raises ``Stop`` where that is the group's last one."""

PROBES = "probes.jsonl"
"""File of a run folder with the quick probes, which a continued search reports again."""
_PROBED = 1000  # images at most on which a quick probe is fitted, and as many others on which it is scored
_REASON = 1000  # characters of a reason: a message and the path of its traceback
_FULL = 1 << 20  # bytes; a disk with less free space is full


class Stop(BaseException):
    """Raised by ``Send`` where the search has stopped the group; no fault of the run, and not to be caught in it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all groups of a stage share.

    Attributes:
        metric: what they report.
        mode: whether the largest or the least value of it is best.
        place: where the runs read and write; each has a folder of its own.
        probe_every: make a quick probe after every so many Hebbian phases; 0 makes none.
        beside: what they report beside the metric when a run has ended.
    """

    metric: str
    mode: Goal
    place: train.Place
    probe_every: int = 0
    beside: tuple[str, ...] = ()


def leave_out(group: Group, reason: str, send: Send) -> None:
    """Report that a group is not trained because it breaks a bound, with what is known of it before."""
    beside = _static(group.runs[0])
    send({"step": 1, "score": 0.0, "n": 0, "left_out": " ".join(reason.split())[:_REASON], "beside": beside})


def _static(trial: Trial) -> dict[str, float]:
    """Return the costs that a configuration decides, as numbers of a report."""
    return {name: float(value) for name, value in costs.static(trial.config).items()}


def run_group(group: Group, task: Task, send: Send, *, verdict: str | None = None, last_step: int = 0) -> None:
    """Run what is not finished and report everything; a run that cannot succeed ends the group.

    Args:
        group: what is run.
        task: what all groups share.
        send: receives the reports.
        verdict: given where the group ended earlier, so that its reports are repeated and nothing is run: the reason
            why it failed, or an empty string where a scheduler stopped it.
        last_step: step of the last report that was sent before.
    """
    scores = GroupScores(task=task, send=send, last_step=last_step)
    if group.fault:
        scores.refuse(group)
        return
    for members in group.packs():
        _reset(members[0].config.seed)
        scores.begin(*members)
        folder = members[0].folder
        try:
            with ExitStack() as stack:
                for trial in members:  # a worker whose driver was killed may live for a moment longer
                    stack.enter_context(folders.held(trial.folder, wait=True))
                complete = _run(members, task, scores, repeat_only=verdict is not None)
            if not complete:
                break
        except (Exception, SystemExit) as error:
            if isinstance(error, Exception) and _disk_full(error, folder):
                scores.halt(f"no space left on the disk of {folder.parent.parent}")
                return
            if isinstance(error, HebbError):  # it would happen again: no retry
                if isinstance(error, UserCodeError):
                    plugins.explanation(error, _unfinished(members))
                scores.fail(str(error))
                return
            unfinished = _unfinished(members)
            fault = plugins.explanation(error, unfinished)
            if fault is None:  # perhaps trouble of the machine: it is tried again
                user_code.write_tracebacks("".join(traceback.format_exception(error)), unfinished)
                raise
            scores.fail(str(fault))
            return
        if not scores.end():
            return
    if verdict:
        scores.fail(verdict)


def _run(members: Sequence[Trial], task: Task, scores: GroupScores, *, repeat_only: bool) -> bool:
    """Train a run or a pack, from its checkpoint where it has one, or repeat the reports of a finished one.

    Returns whether the run, or every member of the pack, is finished.
    """
    begun = [trial for trial in members if trial.finished or trial.interrupted]
    for trial in begun:
        scores.repeat(trial)
    finished = all(trial.finished for trial in members)
    if finished or repeat_only:
        return finished
    places = [replace(task.place, folder=trial.folder, carry_on=bool(begun)) for trial in members]
    reports = [_RunReport(scores, trial) for trial in members]
    for result in train.run_pack([trial.config for trial in members], reports, places=places):
        scores.values[result.config.seed] = folders.value_of(result.rows, task.metric)
    return True


def _unfinished(members: Sequence[Trial]) -> list[Path]:
    """Return the folders of the runs that an error ended, all members of a pack, once they are there."""
    unfinished = [trial.folder for trial in members if not trial.finished]
    for folder in unfinished:
        folder.mkdir(parents=True, exist_ok=True)
    return unfinished


def _reset(seed: int) -> None:
    """Reset what is global to the process and outlives a trial; ``train.run`` sets threads and torch's defaults."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # nothing draws from these; a plugin that does is at least repeatable
    torch.set_grad_enabled(True)


def _disk_full(error: Exception, folder: Path) -> bool:
    if isinstance(cause_of(error), DiskFullError):
        return True
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(place).free < _FULL  # torch and TensorBoard raise errors of their own


@dataclass
class GroupScores:
    """Turns the rows of a group's runs into reports.

    The score of a report is the mean over the ``n`` runs that are finished; during the first run it is the value so
    far, and during a first pack the mean over its members at the same epoch. ``step`` only grows. So no report is worse
    only because a new seed begins, and at the same step every group was judged on the same epochs of the same seeds.
    """

    task: Task
    send: Send
    last_step: int = 0
    done: list[float] = field(default_factory=list)
    values: dict[int, float | None] = field(default_factory=dict)
    steps: Steps = field(default_factory=lambda: Steps(0, (), 1))
    _trials: tuple[Trial, ...] = ()
    _values_at: dict[int, dict[int, float]] = field(default_factory=dict)
    _before: int = 0
    _ended: list[Trial] = field(default_factory=list)
    _beside: TrialReport = field(default_factory=TrialReport)
    _last: TrialReport = field(default_factory=TrialReport)

    def begin(self, *trials: Trial) -> None:
        """Begin a run, or the members of a pack."""
        self._trials, self.values, self._values_at = trials, {}, {}
        self.steps = steps.of_run(trials[0].config, self.task.metric, self.task.probe_every)
        if not self._ended:
            self._measure_beside()

    def row(self, row: folders.Row, seed: int) -> None:
        """Take a row of a run; ``end`` reports the last one, when everything is on the disk."""
        value = row[self.task.metric]
        if row["phase"] != self.steps.phase or value is None or not math.isfinite(value):
            return
        step = len(self.steps.probed) + int(row["epoch"])
        if step < self.steps.count:
            self._take(step, seed, float(value), row["kind"], row["phase"], row["epoch"])

    def probe(self, phase: int, value: float, seed: int) -> None:
        """Take the accuracy of a quick probe after a phase."""
        self._take(self.steps.probed.index(phase) + 1, seed, value, "probe", phase, 0)

    def repeat(self, trial: Trial) -> None:
        """Report what the run folder holds already."""
        folder, seed = trial.folder, trial.config.seed
        for line in _probes(folder):
            if line["phase"] in self.steps.probed:
                self.probe(line["phase"], line["value"], seed)
        rows = folders.read_rows(folder / folders.METRICS) if (folder / folders.METRICS).exists() else []
        self.values[seed] = folders.value_of(rows, self.task.metric)
        for row in rows:
            self.row(row, seed)

    def end(self) -> bool:
        """End a run or a pack whose results are on the disk; return whether every member has a value."""
        values = [value for trial in self._trials if (value := self.values.get(trial.config.seed)) is not None]
        if len(values) < len(self._trials):
            self.fail(f"it gives no {self.task.metric}")
            return False
        self.done += values
        self._ended += self._trials
        self._measure_beside()
        self._report(self.steps.count, float(np.mean(values)), "end", self.steps.phase, self.steps.epochs)
        self._before += self.steps.count * len(self._trials)
        return True

    def refuse(self, group: Group) -> None:
        """Report that a group cannot be trained; nothing of its configuration is measured."""
        self._trials = group.runs
        self.fail(group.fault)

    def fail(self, reason: str) -> None:
        """Report that the group cannot go on, with the worst score, so that a searcher avoids this point."""
        worst = 0.0 if self.task.mode == Goal.MAX else steps.WORST
        self.send({**self._last, **self._plain(worst), "failed": " ".join(reason.split())[:_REASON]})

    def halt(self, reason: str) -> None:
        """Report that no trial can go on."""
        self.send({**self._plain(0.0), "halt": reason})

    def _take(self, step: int, seed: int, value: float, kind: str, phase: int, epoch: int) -> None:
        """Report the mean over the members of a pack once all of them have reached the step."""
        values = self._values_at.setdefault(step, {})
        values[seed] = value
        if len(values) == len(self._trials):
            self._report(step, float(np.mean(list(values.values()))), kind, phase, epoch)

    def _report(self, step: int, value: float, kind: str, phase: int, epoch: int) -> None:
        step = self._before + step * len(self._trials)  # counted over the seeds, one after the other or together
        if step <= self.last_step:
            return  # sent before an interruption
        self.last_step = step
        score = float(np.mean(self.done)) if self.done else value
        self._last = {"kind": kind, "phase": int(phase), "epoch": int(epoch)}
        self.send({**self._plain(score), **self._last, **self._beside, "step": step, "value": value})

    def _measure_beside(self) -> None:
        """Take the means of what is reported beside the metric over the runs that have ended, and the static costs."""
        if self.task.beside:
            static = _static(self._trials[0])
            self._beside = {"beside": static | results.means(self._ended, self.task.beside)}

    def _plain(self, score: float) -> TrialReport:
        n = len(self.done) or len(self._trials)
        return {"score": score, "n": n, "step": self.last_step + 1, "seed": self._trials[0].config.seed}


class _RunReport(train.Report):
    """Passes the rows and the quick probes of a run to the scores of its group."""

    def __init__(self, scores: GroupScores, trial: Trial) -> None:
        self.scores, self.trial = scores, trial

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: train.Place) -> None:
        """Write the run's values of the space for TensorBoard, and link the run under their name."""
        label = board.link(self.trial.folder, self.trial.choice, config.seed)
        hparams.write_run(self.trial.folder, label, self.trial.choice, config.seed)

    def finish(self, result: train.Result) -> None:
        """Tell TensorBoard that the run is complete."""
        hparams.end_run(self.trial.folder)

    def row(self, row: folders.Row, blocks: dict[str, BlockInfo]) -> None:
        """Pass the row on."""
        self.scores.row(row, self.trial.config.seed)

    def trained(self, index: int, phase: Phase, network: model.Network, data: Images) -> None:
        """Make the quick probe of a phase and store it before it is reported; a run that continues may have done so."""
        if index not in self.scores.steps.probed or any(line["phase"] == index for line in _probes(self.trial.folder)):
            return
        value = quick_probe(network, phase.top, data, self.scores.task.metric, self.trial.config.seed)
        if value is not None:
            folders.append_row(self.trial.folder / PROBES, {"phase": index, "value": value})
            self.scores.probe(index, value, self.trial.config.seed)


def _probes(folder: Path) -> list[folders.Row]:
    """Read the quick probes of a run folder: the phase and the value of each."""
    return folders.read_rows(folder / PROBES) if (folder / PROBES).exists() else []


def quick_probe(network: model.Network, block: int, data: Images, metric: str, seed: int) -> float | None:
    """Return the accuracy in percent of a linear probe of a block, fitted on a few images and scored on a few others.

    The test set is not looked at where the metric is that of the validation images.
    """
    splits = {"val": data.val, "test": None if metric.startswith("val") else data.scored}
    scored = {name: None if split is None else _features(network, block, split, seed) for name, split in splits.items()}
    train = _features(network, block, data.train, seed)
    probed.check_linear("--probe-every", readout.images_of_probes("the images drawn", train[1], _PROBED))
    probe = probes.fit("linear", block, train, scored)
    return {"train_acc": probe.train_acc, "val_acc": probe.val_acc, "test_acc": probe.test_acc}[metric]


def _features(network: model.Network, block: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Return pooled features (n, D) and labels (n,) of ``_PROBED`` images drawn from the split, on the CPU."""
    request, order = (block, probes.pooled), seeds.generator(seed, "quick probe")
    values, labels = readout.features(network, split, [request], _PROBED, order)
    return values[request], labels
