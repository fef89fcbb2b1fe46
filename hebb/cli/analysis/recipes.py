"""Verbs that make a published figure from its recipe, and train the runs that it lacks."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.analysis import recipes, runs
from hebb.analysis.recipes import Recipe, Scale, Script, TrainingCommand
from hebb.cli.analysis.verb import Verb
from hebb.cli.parsing import Parser
from hebb.config.catalog import Catalog
from hebb.config.catalog import load as load_catalog
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.core import commands, shipped
from hebb.core.choices import choose
from hebb.core.errors import ConfigError, HebbError, InterruptedRunError, within
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.output import Output
    from hebb.tuning.search import Search

MakeParser = Callable[[Verb], Parser]

_MODULES = {
    Script.TRAIN: "hebb.cli.train",
    Script.SEARCH: "hebb.cli.search",
    Script.POST_HOC: "hebb.cli.post_hoc",
}
_VERBS = {Script.TRAIN: "train", Script.SEARCH: "search", Script.POST_HOC: "post-hoc"}
"""Verbs of ``hebb`` that do the same as the scripts, and exist without a checkout."""


class Progress(StrEnum):
    """How much is stored of a search or run."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    ABSENT = "absent"


@dataclass(frozen=True)
class TrainingStatus:
    """What is stored of a search or run that a figure needs.

    Attributes:
        command: what trains it.
        folder: where it is stored, or would be.
        progress: whether all, some or none of its runs are finished.
        expected: number of its runs.
        finished: number of its finished runs.
    """

    command: TrainingCommand
    folder: Path
    progress: Progress
    expected: int
    finished: int


def status_of(command: TrainingCommand, home: folders.Home, catalog: Catalog) -> TrainingStatus:
    """Compare what is stored under a name with what the command would run.

    Raises:
        ConfigError: when runs of that name have other configurations; threads and device do not count.
    """
    with within(command.line()):
        expected = {_comparable(config) for config in _configs(command, home, catalog)}
    folder = home.search(command.name) if command.script is Script.SEARCH else home.network(command.name)
    if folders.state(folder) == folders.FolderState.ABSENT:
        return TrainingStatus(command, folder, Progress.ABSENT, len(expected), 0)
    stored = {_comparable(run.config) for run in runs.read([folder], command.name).runs}
    if expected <= stored:
        return TrainingStatus(command, folder, Progress.FINISHED, len(expected), len(expected))
    if not stored <= expected:
        problem = f"holds runs of other configurations than {command.line()}"
        raise ConfigError(str(folder), problem, hint="another --data-dir keeps both")
    return TrainingStatus(command, folder, Progress.UNFINISHED, len(expected), len(stored))


def _configs(command: TrainingCommand, home: folders.Home, catalog: Catalog) -> list[RunConfig]:
    """Return the runs of a command, as the command itself resolves its words."""
    module: Any = importlib.import_module(_MODULES[command.script])
    options = module.parser().parse([*command.words, "--data-dir", str(home.parent)])
    resolved: RunConfig | Search = module.resolve(options, catalog)
    return [resolved] if isinstance(resolved, RunConfig) else [trial.config for trial in resolved.trials]


def _comparable(config: RunConfig) -> RunConfig:
    return replace(config, threads=1, device=DeviceKind.AUTO)


def train(status: TrainingStatus, home: folders.Home, search_flags: Sequence[str]) -> None:
    """Train the missing runs by the command itself, which prints its own progress.

    Raises:
        HebbError: when the command fails.
    """
    name, script = status.command.name, status.command.script
    words = [*_words(status), "--data-dir", str(home.parent)]
    if script is Script.SEARCH:
        from hebb.cli.search_flags import beside_restore

        restored = status.progress is Progress.UNFINISHED
        words += beside_restore(search_flags) if restored else search_flags
    print(f"$ {commands.quoted('python', script, *words)}", flush=True)
    line = [sys.executable, "-m", "hebb", _VERBS[script], *words]
    done = subprocess.run(line, env=_environment(), check=False)
    if done.returncode == InterruptedRunError.exit_code:
        raise InterruptedRunError(f"interrupted; the same command goes on with {name}")
    if done.returncode:
        raise HebbError(f"{name}: {script} ended with exit code {done.returncode}")


def _words(status: TrainingStatus) -> list[str]:
    """Return the arguments that start the command, or go on with what it began."""
    words = list(status.command.words)
    if status.progress is not Progress.UNFINISHED:
        return words
    if status.command.script is Script.POST_HOC:  # it cannot go on
        return [*words, "--overwrite"]
    return ["--restore" if status.command.script is Script.SEARCH else "--resume-run", str(status.folder)]


def _environment() -> dict[str, str]:
    """Return the environment of a command: a checkout need not be installed to be found from any folder."""
    if shipped.CHECKOUT is None:
        return dict(os.environ)
    paths = [str(shipped.CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _figure_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", metavar="FIGURE", help=f"{' '.join(recipes.names())}, or a .yaml file")
    parser.add_argument("--run", action="store_true", help="train the missing runs first; interrupted ones go on")
    _add_scale(parser)
    parser.add_argument(
        "--search-flags", default="", metavar="FLAGS", help="more flags for searches: '--workers 2 --gpu-exp 4'"
    )


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale", default="full", metavar="SCALE", help="full, as published, or small, for a CPU (default: full)"
    )


def _scale(options: argparse.Namespace) -> Scale:
    return choose(Scale, options.scale, "--scale")


def _file_name(options: argparse.Namespace) -> str:
    recipe = recipes.load(options.figure)
    return f"figure-{recipe.name}" + ("" if options.scale == Scale.FULL else f"-{options.scale}")


def _figure(drawing: Mapping[str, Verb], parser: MakeParser, options: argparse.Namespace) -> list[Output]:
    search_flags = commands.words_of(options.search_flags, "--search-flags")
    recipe, home, catalog = recipes.load(options.figure), folders.Home.find(options.data_dir), load_catalog()
    statuses = [status_of(command, home, catalog) for command in recipe.needed(_scale(options))]
    panels = [_panel(panel, recipe, statuses, home, drawing, parser, options) for panel in recipe.draw]
    incomplete = [status for status in statuses if status.progress is not Progress.FINISHED]
    if incomplete and not options.run:
        listing = commands.line("analysis", "figures", options.figure)
        faster = "" if _scale(options) == Scale.SMALL else "--scale small is faster; "
        names = ", ".join(f"{s.command.name} ({s.finished} of {s.expected} runs)" for s in incomplete[:4])
        raise ConfigError(
            f"figure {recipe.name}",
            f"not finished, {len(incomplete)} of {len(statuses)}: {names}{', ...' if len(incomplete) > 4 else ''}",
            hint=f"--run trains them; {faster}{listing} lists the commands",
        )
    for status in incomplete:
        train(status, home, search_flags)
    return [output for verb, words in panels for output in verb.outputs(words)]


def _panel(
    panel: str,
    recipe: Recipe,
    statuses: list[TrainingStatus],
    home: folders.Home,
    drawing: Mapping[str, Verb],
    parser: MakeParser,
    options: argparse.Namespace,
) -> tuple[Verb, argparse.Namespace]:
    """Return the verb that draws a panel, and its options.

    Raises:
        ConfigError: for an unknown verb or flag, or files of that name that may not be replaced.
    """
    from hebb.analysis import output

    where = f"figure {recipe.name}, draw" + (f", {panel}" if panel else "")
    name, *words = recipe.draw[panel]
    if name not in drawing:
        raise ConfigError(where, f"unknown verb '{name}'", given=name, choices=drawing)
    kept = recipe.kept(_scale(options))
    chosen = [status for command, status in zip(kept, statuses, strict=True) if command.name in words]
    places = [str(status.folder) for status in chosen or statuses]
    flags = [word for word in words if word not in {command.name for command in recipe.commands}]
    files = f"{options.name}-{panel}" if panel else options.name
    with within(where):
        panel_options = parser(drawing[name]).parse([*places, *flags, "--name", files])
    output.check_free(options.out or home.analysis, files, options.overwrite)
    panel_options.data_dir = options.data_dir
    return drawing[name], panel_options


def _figures_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", nargs="*", metavar="FIGURE", help="recipes (default: all)")
    _add_scale(parser)


def _figures(options: argparse.Namespace) -> Output:
    chosen = [recipes.load(name) for name in options.figure or recipes.names()]
    home, catalog = folders.Home.find(options.data_dir), load_catalog()
    lines = [line for recipe in chosen for line in _lines(recipe, _scale(options), home, catalog)]

    import pandas as pd

    from hebb.analysis.output import Output

    frame = pd.DataFrame(lines)
    return Output(options.name, frame, text=frame.drop(columns="command").to_string(index=False))


def _lines(recipe: Recipe, scale: Scale, home: folders.Home, catalog: Catalog) -> list[dict[str, object]]:
    return [
        {
            "figure": recipe.name,
            "title": recipe.title,
            "name": status.command.name,
            "state": status.progress.value,
            "finished": status.finished,
            "runs": status.expected,
            "command": status.command.line(),
        }
        for status in (status_of(command, home, catalog) for command in recipe.needed(scale))
    ]


def verbs(drawing: Mapping[str, Verb], parser: MakeParser) -> tuple[Verb, ...]:
    """Return the verbs of this module.

    Args:
        drawing: the verbs that recipes may name.
        parser: returns the parser of a verb.
    """
    figure = functools.partial(_figure, drawing, parser)
    return (
        Verb(
            "figure",
            "a published figure from its recipe; --run trains what it needs",
            _figure_flags,
            figure,
            _file_name,
        ),
        Verb("figures", "the runs that every recipe needs: commands, and which are finished", _figures_flags, _figures),
    )
