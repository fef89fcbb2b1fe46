"""What a person sees while a search goes on: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from hebb.cli import describe
from hebb.config.plan import phases
from hebb.storage import folders
from hebb.tuning import ray_session
from hebb.tuning.ray_session import Resources
from hebb.tuning.trials import Group, Trial
from hebb.tuning.tune import Watcher, Work

_TAIL = 4096  # bytes of a run's metrics that hold its last row
_SHOWN = 8  # ended trials that stay in the table


class SearchDisplay(Watcher):
    """Follows the trials of a search.

    In a terminal a table of the trials that go on and of the last ones that ended is drawn anew every second; its
    phases come from the run folders, since Hebbian phases report nothing. Elsewhere every report is a line.

    Args:
        work: what is run.
        resources: how many trials run at a time.
    """

    def __init__(self, work: Work, resources: Resources) -> None:
        self.console = describe.console()
        self.metric = work.task.metric
        self._left = self._total = work.left()
        self._places = ray_session.places(resources)
        self._begun = time.monotonic()
        self._going: dict[str, tuple[Group, float]] = {}
        self._ended: list[tuple[Group, str]] = []
        self._scores: dict[str, Mapping[str, Any]] = {}
        self._seconds: list[float] = []
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.table, console=self.console, refresh_per_second=1, transient=True, screen=False
            )
            self._live.start()

    def started(self, group: Group) -> None:
        """Show a trial that began."""
        self._going[group.name] = (group, time.monotonic())

    def reported(self, group: Group, report: Mapping[str, Any]) -> None:
        """Show the score of a report."""
        self._scores[group.name] = report
        if self._live is None:
            seed = f"seed {report['seed']}" + (f" (mean of {report['n']})" if len(group.runs) > 1 else "")
            place = f"{report['kind']} phase {report['phase']} epoch {report['epoch']}"
            self._line(f"{seed}  {group.label}  {place}  {self.metric} {self._score(report)}")

    def ended(self, group: Group, how: str) -> None:
        """Count a trial that ended."""
        _, began = self._going.pop(group.name, (group, time.monotonic()))
        self._seconds.append(time.monotonic() - began)
        self._left -= 1
        self._ended.append((group, how))
        done = self._total - self._left
        self._line(f"{_seeds(group)}  {group.label}  {how} ({done} of {self._total}, {self._time_left()})")

    def close(self) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self) -> Table:
        """Lay out the trials that go on, and the last ones that ended."""
        columns = ("trial", "configuration", "seed", "phase", "epoch", self.metric, "state")
        made = describe.table(
            f"{self._total - self._left} of {self._total} trials, {self._time_left()}", columns, ("epoch", self.metric)
        )
        for group, how in self._ended[-_SHOWN:]:
            made.add_row(group.name, group.label, _seeds(group), "", "", self._score_of(group), how)
        for group, began in list(self._going.values()):
            trial, row = current(group)
            phase, epoch = ("", "") if row is None else (f"{row['phase']} {row['kind']} {row['blocks']}", row["epoch"])
            of = "" if row is None else f"{epoch} of {phases(trial.config)[row['phase']].epochs}"
            since = f"{time.monotonic() - began:.0f} s"
            made.add_row(group.name, group.label, str(trial.config.seed), phase, of, self._score_of(group), since)
        return made

    def _score_of(self, group: Group) -> str:
        return self._score(self._scores[group.name]) if group.name in self._scores else ""

    def _score(self, report: Mapping[str, Any]) -> str:
        return f"{report['score']:.2f}" + (" %" if self.metric.endswith("_acc") else "")

    def _time_left(self) -> str:
        """Say how long the rest takes when it goes on as the trials so far."""
        if not self._left:
            return "none left"
        if not self._seconds:
            return "time left unknown"
        mean = sum(self._seconds) / len(self._seconds)
        return f"{duration(mean * self._left / min(self._places, self._left))} left"

    def _line(self, text: str) -> None:
        if self._live is None:
            self.console.print(f"{time.monotonic() - self._begun:6.1f} s  {text}", soft_wrap=True, highlight=False)


def _seeds(group: Group) -> str:
    seeds = [str(trial.config.seed) for trial in group.runs]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {' '.join(seeds)}"


def duration(seconds: float) -> str:
    """Write a time for a person."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def current(group: Group) -> tuple[Trial, dict[str, Any] | None]:
    """Return the run of a group that goes on, and the last row it recorded."""
    trial = next((t for t in group.runs if folders.state(t.folder) != "finished"), group.runs[-1])
    return trial, _last_row(trial.folder / folders.METRICS)


def _last_row(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if isinstance(row, dict) else None
    return None
