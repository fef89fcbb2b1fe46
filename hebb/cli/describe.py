"""What ``--dry-run`` and ``--list`` print. Never imports torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from hebb.config import fields, grammar, plan, search_space, shapes
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.fields import ARCHS, Value
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES
from hebb.config.rule import HebbianRule, SettlingRule
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Normaliser
from hebb.core.errors import ConfigError

_WAY = 3
"""How far a weight that starts from N(0, 1) goes until its neuron has radius 1, in round numbers."""
LISTS = ("presets", "datasets", "methods", "protocols", "configs")


class _Console(Console):
    """A console that goes silent when its reader (``head``, ``less``) has gone, and lets the work go on."""

    def on_broken_pipe(self) -> None:
        """Send what follows to nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """Return a console on today's stdout: as wide as the terminal, and wide enough for a table elsewhere."""
    found = _Console(file=sys.stdout, highlight=False)
    return found if found.is_terminal else _Console(file=sys.stdout, highlight=False, width=140)


def table(title: str, columns: Iterable[str], numbers: Iterable[str] = ()) -> Table:
    """Start a plain table; the columns in ``numbers`` are aligned to the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def dry_run(
    config: RunConfig, known: Catalog, *, trials: int = 1, total: int | None = None, cache_limit: int | None
) -> None:
    """Print the network with shapes and parameter counts, the phases, the updates, and the features that are kept.

    Args:
        config: the run, or the first of several.
        known: presets and datasets.
        trials: number of runs.
        total: updates of all of them, where they differ.
        cache_limit: bytes of features that may go into files; None keeps none.
    """
    out = console()
    traced = shapes.of_run(config)
    phases = plan.phases(config)
    network = config.network
    blocks = table(f"network {network.name}", ("block", "layer", "in", "out", "parameters"), ("parameters",))
    for i, (block, found) in enumerate(zip(network.blocks, traced, strict=True)):
        blocks.add_row(
            f"b{i}",
            grammar.format_block(block, known.defaults),
            shapes.text(found.into),
            shapes.text(found.out),
            f"{found.parameters:,}",
        )
    blocks.add_row("", "", "", "", f"{sum(found.parameters for found in traced):,}")
    out.print(blocks)
    if network.settle is not None:
        settings = (f"{name} {value}" for name, value in network.settle.values)
        out.print(f"settles with {', '.join(settings)}", soft_wrap=True)
    steps = table(
        f"\nphases ({config.mode})",
        ("phase", "kind", "blocks", "data", "epochs", "batch", "updates"),
        ("epochs", "batch", "updates"),
    )
    for i, phase in enumerate(phases):
        data = config.dataset_sup if phase.data == "sup" else config.dataset_unsup
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
    _kept(config, phases, cache_limit)
    for note in notes(config, phases):
        out.print(note, soft_wrap=True)
    updates = sum(phase.updates for phase in phases)
    whole = updates * trials if total is None else total
    runs = "" if trials == 1 else f" a run, {whole:,} in {trials} runs"
    out.print(f"\n{updates:,} updates{runs}; {seeds(config)}, {config.threads} thread(s), device {config.device}")


def seeds(config: RunConfig) -> str:
    """Name the seed of a run, or those of its pack."""
    if not config.pack:
        return f"seed {config.seed}"
    return f"seeds {' '.join(map(str, config.pack))} as one pack"


def notes(config: RunConfig, phases: Iterable[plan.Phase]) -> list[str]:
    """Say which blocks cannot reach radius 1: their rates add up to less than weights of N(0, 1) must travel."""
    from hebb.rules import rates

    found = []
    for phase in phases:
        for i in phase.blocks if phase.kind in (plan.PhaseKind.HEBBIAN, plan.PhaseKind.JOINT) else ():
            layer = config.network.blocks[i].layer
            starts_wide = isinstance(layer.rule, HebbianRule) and layer.rule.initialise is not None
            if not starts_wide or layer.adaptive or layer.normaliser == Normaliser.MEAN:
                continue
            way = rates.travel(layer, phase.updates, phase.schedule, phase.epochs)
            if way < _WAY:
                found.append(
                    f"note: the rates of b{i} add up to {way:.2g}, and weights that start from N(0, 1) travel about "
                    f"{_WAY:g}: more epochs, smaller batches or a larger lr"
                )
    return found


def _kept(config: RunConfig, phases: Iterable[plan.Phase], cache_limit: int | None) -> None:
    """Say which features of frozen blocks are kept, how large they are, and where they go."""
    for i, phase in enumerate(phases):
        found = shapes.features(config, phase)
        if found is None:
            continue
        text = f"phase {i} reads the output of b{phase.first - 1}: {found.images:,} images x {shapes.text(found.shape)}"
        if cache_limit is None:
            where = "computed anew at every epoch (--no-feature-cache)"
        else:
            fits = "else in a file" if found.size <= cache_limit else f"not in files, at most {_gigabytes(cache_limit)}"
            where = f"{_gigabytes(found.size)} of {config.feature_dtype}, computed once: in memory if it fits, {fits}"
        console().print(f"\n{text}, {where}")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def evaluation(
    name: str, dataset: str, loss: float, accuracy: float, classes: Iterable[tuple[int, int, float]]
) -> None:
    """Print what a stored model does on a dataset."""
    out = console()
    out.print(f"{name} on the test images of {dataset}: accuracy {accuracy:.2f} %, loss {loss:.4f}")
    found = table("", ("class", "images", "accuracy %"), ("class", "images", "accuracy %"))
    found.title = None
    for label, images, hits in classes:
        found.add_row(str(label), str(images), f"{hits:.2f}" if images else "-")
    out.print(found)


def listing(what: str, known: Catalog, where: str = "--list") -> None:
    """Print one of the lists; ``where`` is the place an error names."""
    if what not in LISTS:
        raise ConfigError(where, f"unknown list '{what}'", given=what, choices=LISTS)
    lists = {
        "presets": _presets,
        "datasets": _datasets,
        "methods": _methods,
        "protocols": _protocols,
        "configs": _configs,
    }
    lists[what](known)


def _presets(known: Catalog) -> None:
    found = table(f"{len(known.models)} presets", ("name", "what", "source"))
    for name, model in known.models.items():
        found.add_row(name, model.description, model.source)
    console().print(found)


def _datasets(known: Catalog) -> None:
    out = console()
    for entry in DATASETS.entries():
        size = f"{entry.channels}x{entry.height}x{entry.width}"
        out.print(
            f"[bold]{entry.name}[/bold]  {entry.summary}; {size}, {entry.classes} classes, "
            f"{entry.train:,} + {entry.test:,} images"
        )
        found = table("", ("variant", "epochs", "batch", "images", "other"), ("epochs", "batch", "images"))
        for name, spec in known.datasets.items():
            if spec.dataset == entry.name:
                found.add_row(name, str(spec.epochs), str(spec.batch_size), f"{spec.train_samples():,}", _others(spec))
        found.title = None
        out.print(found)


def _others(spec: DataSpec) -> str:
    words = [name for name in ("augmentation", "zca") if getattr(spec, name)]
    words += [f"{name} {getattr(spec, name)}" for name in ("noise_std", "size") if getattr(spec, name)]
    if spec.classes is not None:
        words.append("class " + " ".join(map(str, spec.classes)))
    if spec.split != "train":
        words.append(f"split {spec.split}")
    return ", ".join(words)


def _methods(known: Catalog) -> None:
    out = console()
    for rule in RULES.entries():
        out.print(f"[bold]{rule.name}[/bold]  {rule.summary}\n  source: {rule.source}")
        for arch in rule.archs:
            names = [e.token or e.name for e in rule.fields_on(arch).values()]
            other = [f"{name} {_written(value)}" for name, value in rule.defaults.get(arch, {}).items()]
            out.print(f"  {arch}: {' '.join(names)}" + (f" (default here: {', '.join(other)})" if other else ""))
        if isinstance(rule, SettlingRule):
            out.print(
                "  settle: "
                + " ".join(
                    f"{s.name}={grammar.format_value(s.default, s)}" for s in rule.settings if s.default is not None
                ),
                soft_wrap=True,
            )
    tokens = table("\nfields", ("token", "name", "legal", "MLP", "CNN", "meaning"))
    for entry in fields.FIELDS.values():
        default = [_default(known, entry, arch) for arch in ("MLP", "CNN")]
        tokens.add_row(entry.token or "", entry.name, entry.legal, *default, entry.meaning)
    for (entry, *default), methods in _own_fields().items():
        tokens.add_row(entry.token or "", entry.name, entry.legal, *default, f"{' '.join(methods)}: {entry.meaning}")
    out.print(tokens)
    settings = table("\nsettings of networks that settle", ("name", "legal", "meaning"))
    for entry in {
        s.name: s for rule in RULES.entries() if isinstance(rule, SettlingRule) for s in rule.settings
    }.values():
        settings.add_row(entry.name, entry.legal, entry.meaning)
    out.print(settings)
    functions = table("\nactivations", ("part", "formula"))
    for function in ACTIVATIONS.entries():
        functions.add_row(
            function.name + ("_" + function.parameter.split()[-1] if function.parameter else ""), function.formula
        )
    out.print(functions)


def _own_fields() -> dict[tuple[fields.Field, str, str], list[str]]:
    """Return the fields that only some methods have, with their defaults, and the methods."""
    found: dict[tuple[fields.Field, str, str], list[str]] = {}
    for rule in RULES.entries():
        for entry in rule.own_fields:
            mlp, cnn = (
                _written(rule.defaults.get(arch, {}).get(entry.name, entry.default)) if arch in rule.archs else "-"
                for arch in ARCHS
            )
            found.setdefault((entry, mlp, cnn), []).append(rule.name)
    return found


def _default(known: Catalog, entry: fields.Field, arch: str) -> str:
    """Write a field's layer default; - where the architecture lacks the field."""
    if arch not in entry.archs:
        return "-"
    return _written(known.defaults[arch].get(entry.name, entry.default))


def _written(value: Value | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return grammar.number(value)


def _protocols(known: Catalog) -> None:
    found = table("protocols", ("name", "what", "changes", "source"))
    for name, protocol in known.protocols.items():
        changes = " ".join(f"{path}={value}" for path, value in protocol.changes.items())
        found.add_row(name, protocol.description, changes, protocol.source)
    console().print(found)


def _configs(known: Catalog) -> None:
    found = table("search configs", ("name", "runs", "purpose", "answers"), ("runs",))
    for name in search_space.names():
        spec = search_space.load(name)
        found.add_row(name, str(spec.count() * len(spec.seeds)), spec.purpose, spec.description)
    console().print(found)
