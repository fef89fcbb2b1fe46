"""What ``--dry-run`` and an evaluation print, and the tables of every command. Never imports torch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hebb.config import grammar, plan, probed, shapes
from hebb.config.catalog import Catalog
from hebb.config.phase import Phase, PhaseKind
from hebb.config.registry import DATASETS
from hebb.config.rule import HebbianRule
from hebb.config.specs import NetworkSpec, RunConfig
from hebb.config.vocabulary import Normaliser, ProbeKind, Role
from hebb.core.words import counted

_DISTANCE = 3
"""How far a weight that starts from N(0, 1) travels until its neuron has radius 1, as a round number."""
_SHORT_UPDATES = 500
"""Updates below which the short probe has not left its initial weights behind, as a round number."""
_FEW_UPDATES = 100
"""Updates below which a phase has hardly learned, as a round number."""
_EPOCHS = (2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of epochs that a note offers."""
_WIDTH = 140
"""Width of a table that does not go to a terminal."""
LIST_WIDTH = 100
"""Width of a list of names with prose that does not go to a terminal."""


class CommandConsole(Console):
    """A console that falls silent when its reader (``head``, ``less``) is gone, so that the work continues.

    Attributes:
        printed: when it last printed, on the monotonic clock.
    """

    printed = 0.0

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as a console does, and note the time."""
        super().print(*objects, **options)
        self.printed = time.monotonic()

    def on_broken_pipe(self) -> None:
        """Discard what follows."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(width: int = _WIDTH) -> CommandConsole:
    """Return a console on the current stdout: as wide as the terminal, or ``width`` columns elsewhere.

    It prints text as it is: ``[x]`` in a path is no style, and ``:x:`` in a network is no picture.
    """
    terminal = _console()
    return terminal if terminal.is_terminal else _console(width=width)


def _console(width: int | None = None) -> CommandConsole:
    return CommandConsole(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def table(title: str, columns: Iterable[str], numbers: Iterable[str] = ()) -> Table:
    """Start a plain table; the columns in ``numbers`` are aligned to the right. An empty title takes no line."""
    plain = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    right = set(numbers)
    for column in columns:
        plain.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return plain


def dry_run(
    config: RunConfig, catalog: Catalog, *, trials: int = 1, total: int | None = None, cache_limit: int | None
) -> None:
    """Print the network with shapes and parameter counts, the phases, their updates, and the features that are kept.

    Args:
        config: the run, or the first of several.
        catalog: presets and datasets.
        trials: number of runs.
        total: updates of all runs together; None if every run has as many as the first.
        cache_limit: bytes of features that may go into files; None keeps no features.
    """
    out = console()
    phases = plan.phases(config)
    _print_network(out, config.network, shapes.of_run(config), catalog)
    _print_phases(out, config, phases)
    _print_features(out, config, phases, cache_limit)
    for note in notes(config, phases):
        out.print(note, soft_wrap=True)
    updates = sum(phase.updates for phase in phases)
    all_updates = updates * trials if total is None else total
    runs = "" if trials == 1 else f" a run, {all_updates:,} in {trials} runs"
    out.print(
        f"\n{updates:,} updates{runs}; {seeds(config)}, {counted(config.threads, 'thread')}, device {config.device}"
    )


def _print_network(
    out: Console, network: NetworkSpec, traced: tuple[shapes.BlockShapes, ...], catalog: Catalog
) -> None:
    blocks = table(f"network {network.name}", ("block", "layer", "in", "out", "parameters"), ("parameters",))
    for i, (block, sizes) in enumerate(zip(network.blocks, traced, strict=True)):
        blocks.add_row(
            f"b{i}",
            grammar.format_block(block, catalog.defaults),
            shapes.text(sizes.into),
            shapes.text(sizes.out),
            f"{sizes.parameters:,}",
        )
    blocks.add_row("", "", "", "", f"{sum(sizes.parameters for sizes in traced):,}")
    out.print(blocks)
    if network.settle is not None:
        settings = (f"{name} {value}" for name, value in network.settle.values)
        out.print(f"settles with {', '.join(settings)}", soft_wrap=True)


def _print_phases(out: Console, config: RunConfig, phases: Iterable[Phase]) -> None:
    steps = table(
        f"\nphases ({config.mode})",
        ("phase", "kind", "blocks", "data", "epochs", "batch", "updates"),
        ("epochs", "batch", "updates"),
    )
    for i, phase in enumerate(phases):
        data = config.datasets[phase.data]
        steps.add_row(
            str(i),
            phase.kind,
            " ".join(f"b{b}" for b in phase.blocks),
            f"{data.dataset}, {data.train_samples():,} images",
            str(phase.epochs),
            str(phase.batch_size),
            f"{phase.updates:,}",
        )
    out.print(steps)


def duration(seconds: float) -> str:
    """Write a time for a person."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_loss(loss: float) -> str:
    """Return a loss with four decimals, or with an exponent if it is huge."""
    return f"{loss:.4f}" if not 1e6 <= abs(loss) < float("inf") else f"{loss:.1e}".replace("e+", "e")


def seeds(config: RunConfig) -> str:
    """Name the seed of a run, or those of its pack."""
    if not config.pack:
        return f"seed {config.seed}"
    return f"seeds {' '.join(map(str, config.pack))} as one pack"


def notes(config: RunConfig, phases: Iterable[Phase]) -> list[str]:
    """Say what the user should know before a run: what was skipped in the data, probes and rates that are too short."""
    phases = tuple(phases)
    return [*data_notes(config, phases), *_probe_notes(config, phases), *_rate_notes(config, phases)]


def data_notes(config: RunConfig, phases: Iterable[Phase]) -> list[str]:
    """Say what was skipped or renamed, which test images leak, and which phases make few updates."""
    roles, phases = config.datasets, tuple(phases)
    entries = [DATASETS.get(roles[phase.data].dataset, "dataset") for phase in phases]
    lines = [f"note: {name}: {note}" for name, note in {e.name: e.note for e in entries}.items() if note]
    lines += [
        f"note: dataset_{role}: {', and '.join(spec.leaks)}, so the test accuracy is not a fair measure"
        for role, spec in roles.items()
        if spec.leaks and (role == Role.SUP or any(phase.data == role for phase in phases))
    ]
    return lines + [
        f"note: phase {i}, {phase.describe()}, makes {counted(phase.updates, 'update')} on "
        f"{counted(roles[phase.data].train_samples(), 'image')}, too few to learn much: {_more_updates(phase)}"
        for i, phase in enumerate(phases)
        if phase.kind != PhaseKind.CALIBRATE and phase.updates < _FEW_UPDATES
    ]


def _more_updates(phase: Phase) -> str:
    """Return the change that makes enough updates of a phase, and how many."""
    each = phase.updates // phase.epochs
    epochs = next((number for number in _EPOCHS if number * each >= _FEW_UPDATES), _EPOCHS[-1])
    return f"--set dataset_{phase.data}.epochs={epochs} makes {epochs * each:,}"


def _probe_notes(config: RunConfig, phases: Sequence[Phase]) -> list[str]:
    """Name the probe that measures nothing, and the one whose fixed number of epochs makes few updates."""
    lines = []
    if ProbeKind.NEURON in config.probes and not probed.hebbian(config):
        lines.append("note: --probe neuron measures nothing: no block that is probed has a Hebbian rule")
    if ProbeKind.SHORT in config.probes:
        updates = probed.short_updates(probed.stated(config, tuple(phases)).images)
        few = f"the short probe makes {updates} updates on these images, too few to converge: --probe linear does"
        lines += [f"note: {few}"] if updates < _SHORT_UPDATES else []
    return lines


def _rate_notes(config: RunConfig, phases: Iterable[Phase]) -> list[str]:
    """Name the blocks that cannot reach radius 1: their rates add up to less than weights of N(0, 1) must travel."""
    from hebb.rules import rates

    lines = []
    for phase in phases:
        for i in phase.blocks if phase.kind in (PhaseKind.HEBBIAN, PhaseKind.JOINT) else ():
            layer = config.network.blocks[i].layer
            rule = layer.rule
            to_one = isinstance(rule, HebbianRule) and rule.decay is None  # other decays lead to another radius
            starts_wide = isinstance(rule, HebbianRule) and rule.initialise is not None
            if not (to_one and starts_wide) or layer.adaptive or layer.normaliser == Normaliser.MEAN:
                continue
            distance = rates.travel(layer, phase.updates, phase.schedule, phase.epochs)
            if distance < _DISTANCE:
                lines.append(
                    f"note: the rates of b{i} add up to {distance:.2g}, and weights that start from N(0, 1) travel "
                    f"about {_DISTANCE:g}: more epochs, smaller batches or a larger lr"
                )
    return lines


def _print_features(out: Console, config: RunConfig, phases: Iterable[Phase], cache_limit: int | None) -> None:
    """Print which features of frozen blocks are kept, how large they are, and where they go."""
    for i, phase in enumerate(phases):
        features = shapes.features(config, phase)
        if features is None:
            continue
        shape = shapes.text(features.shape)
        text = f"phase {i} reads the output of b{phase.first - 1}: {features.images:,} images x {shape}"
        if cache_limit is None:
            where = "recomputed at every epoch (--no-feature-cache)"
        else:
            size = f"{disk(features.size)} of {config.feature_dtype}"
            in_files = features.size <= cache_limit
            otherwise = "else in a file" if in_files else f"not in files, at most {disk(cache_limit)}"
            where = f"{size}, computed once: in memory if it fits, {otherwise}"
        out.print(f"\n{text}, {where}")


def disk(size: float) -> str:
    """Write a number of bytes for a person, in the unit that leaves one to three digits before the point."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_each:
            number = size / bytes_each
            return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"
    return f"{size:.0f} B"


def evaluation(
    name: str, dataset: str, loss: float, accuracy: float, classes: Iterable[tuple[int, int, float]]
) -> None:
    """Print what a stored model achieves on a dataset; classes with names are named in a last column."""
    names = DATASETS.get(dataset, "dataset").class_names
    out = console()
    out.print(f"{name} on the test images of {dataset}: accuracy {accuracy:.2f} %, loss {format_loss(loss)}")
    numbers = ("class", "images", "accuracy %")
    accuracies = table("", (*numbers, "name") if names else numbers, numbers)
    for label, images, hits in classes:
        named = (escape(str(names[label])),) if names else ()
        accuracies.add_row(str(label), str(images), f"{hits:.2f}" if images else "-", *named)
    out.print(accuracies)
