"""What a person sees while a search goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli import describe
from search.trials import Trial
from search.tuning import Watcher


class SearchDisplay(Watcher):
    """Follows the trials of a search.

    Args:
        trials: all of them.
        metric: the number each line shows.
    """

    def __init__(self, trials: Sequence[Trial], metric: str) -> None:
        self.console = describe.console()
        self.metric = metric
        self._trials = {trial.name: trial for trial in trials}
        self._begun = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("trials", total=len(trials))
            self._bar.start()

    def reported(self, trial: str, row: dict[str, Any]) -> None:
        """Print the metric of one report."""
        found = self._trials[trial]
        unit = " %" if self.metric.endswith("_acc") else ""
        self._line(
            f"seed {found.config.seed}  {found.label}  {row['kind']} phase {row['phase']:.0f}"
            f" epoch {row['epoch']:.0f}  {self.metric} {row[self.metric]:.2f}{unit}"
        )

    def ended(self, trial: str, error: str | None) -> None:
        """Count a finished trial."""
        self._done += 1
        found = self._trials[trial]
        self._line(f"seed {found.config.seed}  {found.label}  {error or 'done'} ({self._done} of {len(self._trials)})")
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def close(self) -> None:
        """Take the live line away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        self.console.print(f"{time.monotonic() - self._begun:6.1f} s  {text}", soft_wrap=True, highlight=False)
