"""What a person sees of a search: a live table in a terminal, plain lines elsewhere, and the tables at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table

from hebb.analysis import replicates
from hebb.cli import describe
from hebb.cli.pulse import Pulse, after
from hebb.config import objectives
from hebb.config.objectives import Constraint
from hebb.config.plan import phases
from hebb.core.commands import line as command_line
from hebb.core.commands import quoted, tensorboard
from hebb.core.words import counted
from hebb.storage import board, folders
from hebb.tuning import search_notes
from hebb.tuning.observer import Cause, FrontPoint, Outcome, Ranking, SearchObserver, Stage, TrialReport, Winner
from hebb.tuning.search import Group, Search, Trial

if TYPE_CHECKING:
    import pandas as pd

    from hebb.tuning.estimate import Estimate
    from hebb.tuning.search_report import SearchReport

_SHOWN = 8  # ended trials that stay in the table, and warnings
_GOING = 4  # trials that a line of progress names


@dataclass
class _Progress:
    """What the display knows of a stage.

    Attributes:
        stage: the stage.
        left: groups that have not ended.
        started: the groups that go on, and when they began.
        ended: the groups that have ended, and how.
        reports: the last report of each group.
        seconds: how long the groups that have ended took.
    """

    stage: Stage
    left: int
    started: dict[str, tuple[Group, float]] = field(default_factory=dict)
    ended: list[tuple[Group, str]] = field(default_factory=list)
    reports: dict[str, TrialReport] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Groups that have ended, also in an earlier session."""
        return self.total - self.left

    @property
    def total(self) -> int:
        """Groups of the stage."""
        return self.stage.before + self.stage.groups

    def time_left(self) -> str:
        """Say how long the rest takes if it goes on as the trials so far."""
        if not self.left:
            return "none left"
        if not self.seconds:
            return "time left unknown"
        mean = sum(self.seconds) / len(self.seconds)
        return f"{describe.duration(mean * self.left / min(self.stage.at_once, self.left))} left"


class SearchDisplay(SearchObserver):
    """Shows a search.

    In a terminal it redraws a table of the running and the last ended trials every second; their phases come from the
    run folders, since Hebbian phases report nothing. Elsewhere every report is a line.
    """

    def __init__(self) -> None:
        self.console = describe.console()
        self._progress = _Progress(Stage(metric="", groups=0, at_once=1), 0)
        self._live: Live | None = None
        self._pulse = Pulse(lambda: after(self._begun, self._preparing or self.state()))
        self._preparing = ""
        self._begun = time.monotonic()
        self._folder, self._maximises, self._scheduler = Path(), True, ""
        self._several, self._bounds = False, tuple[Constraint, ...]()

    def preparing(self, what: str) -> None:
        """Say what the search is waiting for: on a pipe at once, in a terminal in a while."""
        self._preparing = what
        if not self.console.is_terminal:
            self._line(what)
        self._pulse.start(self.console)

    def start(self, search: Search) -> None:
        """Name the search."""
        self._folder, self._maximises, self._several = search.folder, search.maximises, search.several
        self._scheduler, self._bounds = search.spec.scheduler.name.value, search.constraints
        self._print(
            f"{search.runs} trials of {search.base.network.name}, "
            f"{counted(search.base.threads, 'thread')} each on "
            f"{search.base.device}; in {search.folder}"
        )
        first = search.trials[0].config if search.trials else search.base
        for note in describe.data_notes(first, phases(first)):
            self._print(note)

    def noted(self, notes: Sequence[str]) -> None:
        """Print the notes."""
        for note in notes:
            self._print(note)

    def stage(self, stage: Stage) -> None:
        """Start the live table in a terminal; elsewhere say how many trials begin."""
        self._progress, self._preparing = _Progress(stage, stage.groups), ""
        earlier = f", {stage.before} ended before" if stage.before else ""
        if not self.console.is_terminal:
            self._line(f"{counted(stage.groups, 'trial')} to go, {stage.at_once} at a time{earlier}")
        else:
            self._pulse.stop()  # the table shows that it goes on
            self._live = Live(
                get_renderable=self.table, console=self.console, refresh_per_second=1, transient=True, screen=False
            )
            self._live.start()

    def started(self, group: Group) -> None:
        """Show a trial that began."""
        self._progress.started[group.name] = (group, time.monotonic())

    def reported(self, group: Group, report: TrialReport) -> None:
        """Show the score of a report."""
        self._progress.reports[group.name] = report
        if self._live is None:
            seed = f"seed {report['seed']}" + (f" (mean of {report['n']})" if len(group.runs) > 1 else "")
            place = f"{report['kind']} phase {report['phase']} epoch {report['epoch']}"
            self._line(f"{seed}  {group.label}  {place}  {self._progress.stage.metric} {self._score(group)}")

    def ended(self, group: Group, how: str) -> None:
        """Count a trial that ended."""
        progress = self._progress
        _, began = progress.started.pop(group.name, (group, time.monotonic()))
        progress.seconds.append(time.monotonic() - began)
        progress.left -= 1
        progress.ended.append((group, how))
        count = f"{progress.done} of {progress.total}"
        self._line(f"{_seeds(group)}  {group.label}  {how} ({count}, {progress.time_left()})")

    def stage_over(self) -> None:
        """Take the live table away."""
        self._preparing = "summing up"
        if self._live is not None:
            self._live.stop()
            self._live = None

    def close(self) -> None:
        """Print nothing more from a thread, also after an error."""
        self._pulse.stop()
        self.stage_over()

    def state(self) -> str:
        """Say in a line how far the search is, and how far each trial that goes on."""
        progress = self._progress
        text = f"{progress.done} of {counted(progress.total, 'trial')} ended, {progress.time_left()}"
        going = [f"{group.label} {_progress_of(group)}" for group, _ in list(progress.started.values())]
        more = f"; and {len(going) - _GOING} more" if len(going) > _GOING else ""
        return f"{text}; {'; '.join(going[:_GOING])}{more}" if going else text

    def table(self) -> Table:
        """Lay out the trials that go on, and the last ones that ended."""
        progress, metric = self._progress, self._progress.stage.metric
        columns = ("trial", "configuration", "seed", "phase", "epoch", metric, "state")
        title = f"{progress.done} of {progress.total} trials, {progress.time_left()}"
        table = describe.table(title, columns, ("epoch", metric))
        for group, how in progress.ended[-_SHOWN:]:
            table.add_row(group.name, group.label, _seeds(group), "", "", self._score(group), how)
        for group, began in list(progress.started.values()):
            trial, row = current(group)
            phase, epoch = "", ""
            if row is not None:
                phase = f"{row['phase']} {row['kind']} {row['blocks']}"
                epoch = f"{row['epoch']} of {phases(trial.config)[row['phase']].epochs}"
            since = f"{time.monotonic() - began:.0f} s"
            table.add_row(group.name, group.label, str(trial.config.seed), phase, epoch, self._score(group), since)
        return table

    def ranked(self, ranking: Ranking) -> None:
        """Print the table of a stage, and where its numbers are."""
        if len(ranking.summary):
            self.console.print(summary_table(ranking.summary, ranking.metric, ranking.beside))
        if ranking.stopped:
            self.console.print(stopped_table(ranking.stopped, ranking.metric, maximises=self._maximises))
        for line in search_notes.left_out(ranking.left_out):
            self._print(line)
        for line in ranking.gains:
            self._print(line)
        self._print(f"results: {ranking.path}")
        if ranking.path.stem == "results":
            self._print(f"compare: {tensorboard(board.of_search(ranking.path.parent))}")

    def summed_up(self, outcome: Outcome, finished: int, total: int) -> None:
        """Print why trials failed, and what a budget has left."""
        for trial, reason in outcome.failed.items():
            self._print(f"failed: {trial}: {reason}")
        for text, count in list(outcome.warnings.items())[:_SHOWN]:
            self._print(f"{text} ({count} of {total} runs)")
        if len(outcome.warnings) > _SHOWN:
            self._print(f"{len(outcome.warnings) - _SHOWN} other warnings are in the {folders.WARNINGS} of the runs")
        if outcome.tally.ended_early:
            self._print(outcome.tally.sentence(self._scheduler))
        if outcome.cause in (Cause.TIME, Cause.TRIALS):
            budget = "time" if outcome.cause == Cause.TIME else "number of trials"
            self._print(f"the {budget} is used up: {finished} of {total} trials are finished")
            self._print(continuation(self._folder))

    def selected(self, winner: Winner | None) -> None:
        """Print the winner, ready to paste."""
        if winner is None:
            self._print(f"no winner: {objectives.nobody(self._progress.stage.metric, self._bounds)}")
            return
        self._print(f"winner: {winner.trial.label}")
        if winner.tied:
            self._print(tied(trial.label for trial in winner.tied))
        if winner.doubt:
            self._print(winner.doubt)
        self._print(f"its network: {quoted(*winner.words)}")

    def fronted(self, points: Sequence[FrontPoint], search: Search) -> None:
        """Print the points of the front, ready to paste."""
        names = ", ".join(f"{one.metric} ({one.mode})" for one in search.objectives)
        if not points:
            self._print(f"no front: {objectives.nobody(names, search.constraints)}")
            return
        self._print(f"front: {counted(len(points), 'configuration')} that nothing beats in {names}")
        for point in points:
            values = ", ".join(f"{name} {replicates.with_unit(value, name)}" for name, value in point.values.items())
            self._print(f"front {point.number}: {point.trial.label or search.base.network.name}: {values}")
            self._print(f"its network: {quoted(*point.words)}")

    def retraining(self, trials: tuple[Trial, ...]) -> None:
        """Say on what the winner, or the points of the front, are trained again."""
        images = trials[0].config.dataset_sup.train_samples()
        seeds = " ".join(dict.fromkeys(str(trial.config.seed) for trial in trials))
        count = len({trial.configuration for trial in trials})
        what = f"{counted(count, 'point')} of the front" if self._several else "the winner"
        self._print(f"training {what} on all {images:,} training images, seeds {seeds}")

    def _score(self, group: Group) -> str:
        report = self._progress.reports.get(group.name)
        if report is None:
            return ""
        metric = self._progress.stage.metric
        return replicates.with_unit(report["score"], metric)

    def _line(self, text: str) -> None:
        if self._live is None:
            self._print(after(self._begun, text))

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)


def summary_table(summary: pd.DataFrame, metric: str, beside: Sequence[str] = ()) -> Table:
    """Lay out n, mean, deviation and interval of each configuration, or its seeds where there is no interval.

    By several objectives, or with bounds, also the means ``beside`` the metric, and which configurations are on the
    front or break a bound.
    """
    unit = " %" if metric.endswith("_acc") else ""
    spreads = replicates.spread_cells(summary, metric)
    marks = [name for name in ("feasible", "front") if name in summary]
    columns = ("configuration", "n", f"mean {metric}{unit}", *(spreads[0] if spreads else ()), "minutes a run")
    columns = (*columns, *beside, *marks)
    table = describe.table("", columns, columns[1:])
    table.title = None
    for line, spread in zip(summary.itertuples(), spreads, strict=True):
        mean = replicates.number(line.mean, metric)
        more = [replicates.number(getattr(line, name), name) for name in beside]
        more += ["yes" if getattr(line, name) else "no" for name in marks]
        table.add_row(
            str(line.configuration), str(line.n), mean, *spread.values(), replicates.minutes(line.minutes), *more
        )
    return table


def tied(labels: Iterable[str]) -> str:
    """Name the configurations whose mean is that of the winner, which is the first of them in the search."""
    return f"tied with: {'; '.join(labels)} (the same mean; the winner is the first in the order of the search)"


def stopped_table(stopped: Mapping[str, Mapping[str, Any]], metric: str, *, maximises: bool) -> Table:
    """Lay out what a scheduler stopped, best first: the score is the mean over n seeds, or that of the first so far."""
    columns = ("stopped early", "step", f"{metric} then", "n")
    table = describe.table("", columns, columns[1:])
    table.title = None
    worst = -math.inf if maximises else math.inf

    def score(label: str) -> float:
        value = stopped[label].get("score")
        return worst if value is None else value

    for label in sorted(stopped, key=score, reverse=maximises):
        entry = stopped[label]
        text = replicates.number(entry.get("score"), metric)
        table.add_row(label, str(entry.get("step") or "-"), text, str(entry.get("n") or "-"))
    return table


def _seeds(group: Group) -> str:
    seeds = [str(trial.config.seed) for trial in group.runs]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {' '.join(seeds)}"


def current(group: Group) -> tuple[Trial, dict[str, Any] | None]:
    """Return the run of a group that goes on, and the last row it recorded."""
    trial = next((trial for trial in group.runs if not trial.finished), group.runs[-1])
    return trial, folders.last_row(trial.folder / folders.METRICS)


def _progress_of(group: Group) -> str:
    """Say how much of its updates the run of a group that goes on has made, by its records."""
    trial, row = current(group)
    point = folders.last_row(trial.folder / folders.LOOKS)
    updates = max(int((row or {}).get("step") or 0), int((point or {}).get("update") or 0))
    share = 100 * updates / sum(phase.updates for phase in phases(trial.config))
    where = "begins" if row is None and point is None else f"{share:.0f} % of its updates"
    return f"seed {trial.config.seed}: {where}"


def continuation(folder: Path) -> str:
    """Return the line that says how a search goes on."""
    return f"{command_line('search', '--restore', folder)} continues"


def commands(report: SearchReport) -> dict[str, list[str]]:
    """Return the commands on the page of a search, by what they do."""
    search, best = report.search, report.best
    again = command_line("train", "--run-config", best.folder / folders.CONFIG, "--model-name", "again")
    return {
        **({"the search": list(dict.fromkeys(report.commands))} if report.commands else {}),
        **({"what is left of it": [command_line("search", "--restore", search.folder)]} if report.tally.left else {}),
        "the best run again, to the same bits": [again],
        "this page": [command_line("analysis", "report", search.folder)],
        "TensorBoard": [tensorboard(board.of_search(search.folder))],
    }


def print_estimate(estimate: Estimate, search: Search) -> None:
    """Print what a search costs."""
    console = describe.console()
    minutes = f"minutes a pack of {search.pack_seeds}" if search.packs else "minutes a run"
    table = describe.table("", ("configuration", minutes), (minutes,))
    table.title = None
    for cost in estimate.costs:
        table.add_row(cost.label, replicates.minutes(cost.seconds / 60))
    console.print(table)
    packs = f" in packs of {estimate.members}" if estimate.members > 1 else ""
    early = f" at most: {search.spec.scheduler.name} stops some early" if search.stops_early else ""
    console.print(
        f"{estimate.runs} runs{packs}, about {describe.duration(estimate.seconds)} each, {estimate.at_once} at a time "
        f"on {estimate.device} with {counted(search.base.threads, 'thread')}: "
        f"{describe.duration(3600 * estimate.hours)}, {describe.disk(estimate.disk)} in {search.folder}{early}",
        soft_wrap=True,
    )
