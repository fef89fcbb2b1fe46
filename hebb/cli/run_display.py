"""What a person sees while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hebb.cli import describe
from hebb.config.plan import Phase
from hebb.config.specs import RunConfig
from hebb.core.errors import DivergenceError
from hebb.probing.measures import BlockInfo
from hebb.storage.folders import Row
from hebb.training import train

_REFRESH = 0.2  # seconds between two updates of the live line


class ConsoleReport(train.Report):
    """A live line per phase in a terminal, plain lines elsewhere; numbers at each report.

    Args:
        verbose: whether to print the table of the first neurons.
        seed: named in front of every number; for the members of a pack.
    """

    def __init__(self, verbose: bool = False, seed: int | None = None) -> None:
        self.verbose = verbose
        self.seed = seed
        self.console: Console = describe.console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._images = 0
        self._begun = self._drawn = 0.0

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: train.Place) -> None:
        """Name the run."""
        self._begun = time.monotonic()
        data = {config.dataset_unsup.dataset, config.dataset_sup.dataset}
        self.console.print(
            f"{config.network.name} on {' and '.join(sorted(data))}: {config.mode}, {describe.seeds(config)}, "
            f"{config.device}, {config.threads} thread(s)"
        )
        for note in describe.notes(config, phases):
            self.console.print(note, soft_wrap=True)

    def features(self, phase: Phase, images: int) -> None:
        """Start the live line of the computation of features."""
        below = "b0" if phase.first == 1 else f"b0 to b{phase.first - 1}"
        self._start_bar(f"features of {below}", f"for {phase.describe()}, {images} images", images)

    def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
        """Start the live line of a phase."""
        left = f"{phase.epochs - epoch} epoch(s) of {images} images"
        self._start_bar(f"phase {index}: {phase.describe()}", left, phase.epochs * images, epoch * images)

    def _start_bar(self, name: str, detail: str, total: int, done: int = 0) -> None:
        """Start a live line in a terminal; elsewhere print name and detail."""
        self._stop_bar()
        self._images = 0
        if not self.console.is_terminal:
            self.console.print(f"{name}, {detail}")
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
        """Move the live line, five times a second at most."""
        self._images += images
        now = time.monotonic()
        if self._bar is None or now - self._drawn < _REFRESH:
            return
        self._drawn = now
        task = self._bar.tasks[0]
        self._bar.advance(self._task, self._images)
        self._images = 0
        speed = f"{task.speed:,.0f} img/s" if task.speed else ""
        self._bar.update(self._task, speed=speed)
        self._bar.refresh()

    def row(self, row: Row, blocks: dict[str, BlockInfo]) -> None:
        """Print the numbers of an evaluation."""
        if row["kind"] == "calibrate":
            self.console.print(f"  {row['blocks']}: batch statistics estimated, weights left random")
            return
        words = [] if self.seed is None else [f"seed {self.seed}"]
        words += [f"epoch {row['epoch']:>3}", f"{time.monotonic() - self._begun:6.1f} s"]
        words += [f"lr {row['lr']:.3g}"] if row["lr"] is not None else []
        words += [f"loss {row['train_loss']:.4f}"] if row["train_loss"] is not None and row["train_acc"] is None else []
        for split in ("train", "val", "test"):
            loss, accuracy = row[f"{split}_loss"], row[f"{split}_acc"]
            if accuracy is not None:
                words.append(f"{split} {accuracy:.2f} %" + (f" (loss {loss:.4f})" if loss is not None else ""))
        words.append(f"{row['images_per_second']:,.0f} img/s")
        self.console.print("  " + "  ".join(words))
        for name, info in blocks.items():
            self._block(name, info)

    def _block(self, name: str, info: BlockInfo) -> None:
        s = info.scalars
        if not info.radius:
            self.console.print(f"    {name}: " + "  ".join(f"{term} {value:.4g}" for term, value in s.items()))
            return
        neurons = len(info.radius)
        self.console.print(
            f"    {name}: rate {s['lr_mean']:.3g}  radius {s['radius_mean']:.3f} ± {s['radius_std']:.3f}"
            f" (deviation {s['radius_deviation']:.3f}, at most {s['radius_max_deviation']:.3f})"
            f"  convergence {s['convergence']:.3f}  R1 {s['R1']:.0f} of {neurons}"
        )
        self.console.print(
            f"    {' ' * len(name)}  weight {s['weight_mean']:.3g} ± {s['weight_std']:.3g}"
            f"  bias {s['bias_mean']:.3g} ± {s['bias_std']:.3g}  largest win share {max(info.wins):.1f} %"
        )
        if self.verbose:
            shown = range(min(neurons, info.neurons_shown))
            made = describe.table("", ("neuron", "rate", "radius", "wins %"), ("neuron", "rate", "radius", "wins %"))
            for i in shown:
                made.add_row(str(i), f"{info.lr[i]:.4g}", f"{info.radius[i]:.3f}", f"{info.wins[i]:.2f}")
            made.title = None
            self.console.print(made)

    def failed(self, error: DivergenceError) -> None:
        """Say that the others of the pack go on."""
        self.console.print(f"  {error}; the other members go on", soft_wrap=True)

    def finish(self, result: train.Result) -> None:
        """Print the last numbers and where everything is."""
        self._stop_bar()
        row = result.metrics
        found = [
            f"{s} accuracy {row[f'{s}_acc']:.2f} %" for s in ("train", "val", "test") if row[f"{s}_acc"] is not None
        ]
        text = ", ".join(found) or "no accuracy (no classifier was trained)"
        whose = "" if self.seed is None else f"seed {self.seed} "
        self.console.print(f"{whose}done in {result.seconds:.1f} s: {text}")
        if result.probes:
            made = describe.table("", ("block", "probe", "train %", "val %", "test %"), ("train %", "val %", "test %"))
            made.title = None
            for probe in result.probes:
                scores = (probe.train_acc, probe.val_acc, probe.test_acc)
                made.add_row(f"b{probe.block}", probe.kind, *("-" if s is None else f"{s:.2f}" for s in scores))
            self.console.print(made)
        for shape in result.geometry:
            numbers = (f"{name} {'-' if v is None else format(v, '.3g')}" for name, v in shape.numbers.items())
            self.console.print(f"b{shape.block}: " + "  ".join(numbers))
        if result.folder is not None:
            self.console.print(f"results: {result.folder}", soft_wrap=True)
            self.console.print(f"compare: tensorboard --logdir {result.folder.parent}", soft_wrap=True)

    def close(self) -> None:
        """Take the live line away, whatever happened."""
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _MemberReport(ConsoleReport):
    """Prints the numbers of a further member of a pack; the first one's report shows how the pack goes on."""

    def __init__(self, first: ConsoleReport, seed: int) -> None:
        super().__init__(first.verbose, seed)
        self.console = first.console  # which knows of the live line

    def start(self, config: RunConfig, phases: tuple[Phase, ...], place: train.Place) -> None:
        """Count the time."""
        self._begun = time.monotonic()

    def features(self, phase: Phase, images: int) -> None:
        """Show nothing."""


def reports_of(runs: Iterable[RunConfig], verbose: bool) -> list[ConsoleReport]:
    """Return the report of a run, or those of the members of a pack."""
    seeds = [run.seed for run in runs]
    if len(seeds) == 1:
        return [ConsoleReport(verbose)]
    first = ConsoleReport(verbose, seeds[0])
    return [first, *(_MemberReport(first, seed) for seed in seeds[1:])]
