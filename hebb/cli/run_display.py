"""What the command line shows during a run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hebb.cli import describe
from hebb.cli.notebook import NotebookLine
from hebb.cli.pulse import Pulse, after
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.core import commands
from hebb.core.errors import DivergenceError
from hebb.core.words import counted
from hebb.storage import board
from hebb.storage.folders import Row
from hebb.training.report import Report

if TYPE_CHECKING:
    from hebb.data.images import Images
    from hebb.nn.model import Network
    from hebb.probing.measures import BlockInfo
    from hebb.probing.probes import Probe
    from hebb.training.place import Place
    from hebb.training.result import Result

_REFRESH = 0.2  # seconds between two updates of the live line
_ACCURACIES = ("train %", "val %", "test %")
_SPLITS = ("train", "val", "test")


@dataclass
class _Stretch:
    """Work whose images are counted: a phase, or the features for one.

    Attributes:
        name: what it is.
        total: its images.
        done: those that are processed.
        before: those that were processed when it began, of a run that continues.
        began: when it began, on the monotonic clock.
    """

    name: str
    total: int
    done: int
    before: int
    began: float

    def __str__(self) -> str:
        if self.done >= self.total:
            return f"{self.name}, all {self.total:,} images done"
        text = f"{self.name}, {self.done:,} of {self.total:,} images"
        processed, seconds = self.done - self.before, time.monotonic() - self.began
        if not processed:
            return text
        speed = processed / seconds
        return f"{text}, {speed:,.0f} img/s, {describe.duration((self.total - self.done) / speed)} left"


class ConsoleReport(Report):
    """Shows a live line for each phase in a terminal or a notebook, with numbers at each report.

    Elsewhere it prints plain lines, at least one every half a minute.

    Args:
        verbose: whether to print the table of the first neurons.
        seed: written before every line of numbers, to tell the members of a pack apart.
    """

    def __init__(self, verbose: bool = False, seed: int | None = None) -> None:
        self.verbose = verbose
        self.seed = seed
        self.console = describe.console()
        self._bar: Progress | None = None
        self._cell: NotebookLine | None = None
        self._task = TaskID(0)
        self._images = 0
        self._begun = self._drawn = 0.0
        self._doing: _Stretch | str = ""
        self._pulse = Pulse(lambda: "  " + after(self._begun, str(self._doing)))

    def loading(self, dataset: str) -> None:
        """Say in a while that images are read; the download shows its own progress."""
        self._doing = f"reading {dataset}"
        self._begun = self._begun or time.monotonic()
        self._pulse.start(self.console)

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: Place) -> None:
        """Print what is trained on which data."""
        self._begun = time.monotonic()
        self._doing = "preparing the first phase"
        if self.console.is_terminal or self.console.is_jupyter:
            self._pulse.stop()  # the live line shows that it goes on
        data = {config.dataset_unsup.dataset, config.dataset_sup.dataset}
        self.console.print(
            f"{config.network.name} on {' and '.join(sorted(data))}: {config.mode}, {describe.seeds(config)}, "
            f"{config.device}, {counted(config.threads, 'thread')}"
        )
        for note in describe.notes(config, phases):
            self.console.print(note, soft_wrap=True)

    def features(self, phase: Phase, images: int) -> None:
        """Show that features of frozen blocks are computed."""
        below = "b0" if phase.first == 1 else f"b0 to b{phase.first - 1}"
        self._start_bar(f"features of {below}", f"for {phase.describe()}, {images} images", images)

    def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
        """Show that a phase starts."""
        remaining = f"{counted(phase.epochs - epoch, 'epoch')} of {images} images"
        self._start_bar(f"phase {index}: {phase.describe()}", remaining, phase.epochs * images, epoch * images)

    def _start_bar(self, name: str, detail: str, total: int, done: int = 0) -> None:
        """Start a live line in a terminal, or print name and detail elsewhere."""
        self._stop_bar()
        self._images = 0
        self._doing = _Stretch(name, total, done, done, time.monotonic())
        if not self.console.is_terminal:
            self.console.print(f"{name}, {detail}")
            self._cell = NotebookLine() if self.console.is_jupyter else None
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]:>10}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(name, total=total, completed=done, speed="")

    def progress(self, images: int) -> None:
        """Move the live line, at most five times a second."""
        self._images += images
        if isinstance(self._doing, _Stretch):
            self._doing.done += images
        now = time.monotonic()
        if now - self._drawn < _REFRESH:
            return
        self._drawn = now
        if self._cell is not None:
            self._cell.show(str(self._doing))
        if self._bar is None:
            return
        task = self._bar.tasks[0]
        self._bar.advance(self._task, self._images)
        self._images = 0
        speed = f"{task.speed:,.0f} img/s" if task.speed else ""
        self._bar.update(self._task, speed=speed)
        self._bar.refresh()

    def trained(self, index: int, phase: Phase, network: Network, data: Images) -> None:
        """Say in a while what follows, which has no progress of its own."""
        self._stop_bar()
        self._doing = f"phase {index} is trained; reading out its blocks, or preparing the next phase"

    def row(self, row: Row, blocks: dict[str, BlockInfo]) -> None:
        """Print the numbers of an evaluation."""
        if row["kind"] == "calibrate":
            self.console.print(f"  {row['blocks']}: batch statistics estimated, weights left random")
            return
        words = [] if self.seed is None else [f"seed {self.seed}"]
        words += [f"epoch {row['epoch']:>3}", f"{time.monotonic() - self._begun:6.1f} s"]
        words += [f"lr {row['lr']:.3g}"] if row["lr"] is not None else []
        words += (
            [f"loss {describe.format_loss(row['train_loss'])}"]
            if row["train_loss"] is not None and row["train_acc"] is None
            else []
        )
        for split in _SPLITS:
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_acc"]
            if accuracy is not None:
                words.append(
                    f"{split} {accuracy:.2f} %" + (f" (loss {describe.format_loss(loss)})" if loss is not None else "")
                )
        words.append(f"{row['images_per_second']:,.0f} img/s")
        self.console.print("  " + "  ".join(words))
        for name, info in blocks.items():
            self._block(name, info)

    def _block(self, name: str, info: BlockInfo) -> None:
        scalars = info.scalars
        if not info.radius:
            self.console.print(f"    {name}: " + "  ".join(f"{term} {value:.4g}" for term, value in scalars.items()))
            return
        neurons = len(info.radius)
        self.console.print(
            f"    {name}: rate {scalars['lr_mean']:.3g}"
            f"  radius {scalars['radius_mean']:.3f} ± {scalars['radius_std']:.3f}"
            f" (deviation {scalars['radius_deviation']:.3f}, at most {scalars['radius_max_deviation']:.3f})"
            f"  convergence {scalars['convergence']:.3f}  R1 {scalars['R1']:.0f} of {neurons}"
        )
        spreads = (
            f"{what} {scalars[f'{what}_mean']:.3g} ± {scalars[f'{what}_std']:.3g}"
            for what in ("weight", "bias")
            if f"{what}_mean" in scalars
        )
        self.console.print(f"    {' ' * len(name)}  {'  '.join(spreads)}  largest win share {max(info.wins):.1f} %")
        if self.verbose:
            columns = ("neuron", "rate", "radius", "wins %")
            table = describe.table("", columns, columns)
            for i in range(min(neurons, info.neurons_shown)):
                table.add_row(str(i), f"{info.lr[i]:.4g}", f"{info.radius[i]:.3f}", f"{info.wins[i]:.2f}")
            self.console.print(table)

    def warning(self, text: str) -> None:
        """Print a warning."""
        seed = "" if self.seed is None else f"seed {self.seed}  "
        self.console.print(f"  {seed}{text}", soft_wrap=True)

    def failed(self, error: DivergenceError) -> None:
        """Say that this member of a pack stops while the others continue."""
        self.console.print(f"  {error}; the other members go on", soft_wrap=True)

    def finish(self, result: Result) -> None:
        """Print the last numbers and where everything is stored."""
        self.close()
        row = result.metrics
        scores = {split: row[f"{split}_acc"] for split in _SPLITS}
        accuracies = [f"{split} accuracy {score:.2f} %" for split, score in scores.items() if score is not None]
        text = ", ".join(accuracies) or "no accuracy (no classifier was trained)"
        seed = "" if self.seed is None else f"seed {self.seed} "
        self.console.print(f"{seed}done in {result.seconds:.1f} s: {text}")
        if result.probes:
            self._probes(result.probes)
        for shape in result.geometry:
            numbers = (f"{name} {'-' if v is None else format(v, '.3g')}" for name, v in shape.numbers.items())
            self.console.print(f"b{shape.block}: " + "  ".join(numbers))
        if result.folder is not None:
            self.console.print(f"results: {result.folder}", soft_wrap=True)
            self.console.print(f"compare: {commands.tensorboard(board.of_run(result.folder))}", soft_wrap=True)

    def _probes(self, probes: Iterable[Probe]) -> None:
        table = describe.table("", ("block", "probe", *_ACCURACIES), _ACCURACIES)
        for probe in probes:
            scores = (probe.train_acc, probe.val_acc, probe.test_acc)
            table.add_row(
                f"b{probe.block}", probe.kind, *("-" if score is None else f"{score:.2f}" for score in scores)
            )
        self.console.print(table)

    def close(self) -> None:
        """Remove the live line, also after an error."""
        self._pulse.stop()
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._cell is not None:
            self._cell.clear()
            self._cell = None


class _MemberReport(ConsoleReport):
    """Prints the numbers of another member of a pack; the report of the first member shows its progress."""

    def __init__(self, first: ConsoleReport, seed: int) -> None:
        super().__init__(first.verbose, seed)
        self.console = first.console  # it prints above the live line

    def loading(self, dataset: str) -> None:
        """Say nothing."""

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: Place) -> None:
        """Start the clock."""
        self._begun = time.monotonic()

    def features(self, phase: Phase, images: int) -> None:
        """Show nothing."""


def reports_of(runs: Iterable[RunConfig], verbose: bool) -> list[ConsoleReport]:
    """Return the report of a run, or a report for each member of a pack."""
    seeds = [run.seed for run in runs]
    if len(seeds) == 1:
        return [ConsoleReport(verbose)]
    first = ConsoleReport(verbose, seeds[0])
    return [first, *(_MemberReport(first, seed) for seed in seeds[1:])]
