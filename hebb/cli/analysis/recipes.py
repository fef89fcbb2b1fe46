"""Verbs that make a published figure from its recipe: what it needs, what is there, what is trained first."""

from __future__ import annotations

import argparse
import functools
import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.analysis import recipes, runs
from hebb.analysis.recipes import Recipe, TrainingCommand
from hebb.cli.analysis.verb import Verb
from hebb.cli.arguments import Parser
from hebb.config import catalog
from hebb.config.catalog import Catalog
from hebb.config.specs import RunConfig
from hebb.core import shipped
from hebb.core.errors import ConfigError, HebbError, InterruptedRunError, within
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.output import Output

MakeParser = Callable[[Verb], Parser]

_COMMANDS = {
    "multi_layer.py": "hebb.cli.train",
    "ray_search.py": "hebb.cli.search",
    "post_hoc_loss.py": "hebb.cli.post_hoc",
}


@dataclass(frozen=True)
class TrainingStatus:
    """What is stored of a search or run that a figure needs.

    Attributes:
        needed: the search or run.
        folder: where it is stored, or would be.
        state: ``finished``, ``unfinished`` or ``absent``.
        expected, there: the number of its runs, and of those that are finished.
    """

    needed: TrainingCommand
    folder: Path
    state: str
    expected: int
    there: int


def status_of(needed: TrainingCommand, home: folders.Home, known: Catalog) -> TrainingStatus:
    """Compare what is stored under a name with what the command would run.

    Raises:
        ConfigError: when runs of that name have other configurations; threads and device do not count.
    """
    with within(needed.line()):
        expected = {_comparable(config) for config in _configs(needed, home, known)}
    searched = needed.script == "ray_search.py"
    folder = home.search(needed.name) if searched else home.network(needed.name)
    if folders.state(folder) == "absent":
        return TrainingStatus(needed, folder, "absent", len(expected), 0)
    found = runs.read([folder], needed.name)
    stored = {_comparable(run.config) for run in found.runs}
    if expected <= stored:
        return TrainingStatus(needed, folder, "finished", len(expected), len(expected))
    if not stored <= expected:
        problem = f"holds runs of other configurations than {needed.line()}"
        raise ConfigError(str(folder), problem, hint="another --data-dir keeps both")
    return TrainingStatus(needed, folder, "unfinished", len(expected), len(stored))


def _configs(needed: TrainingCommand, home: folders.Home, known: Catalog) -> list[RunConfig]:
    """Return the runs of a command, as the command itself resolves its words."""
    command: Any = importlib.import_module(_COMMANDS[needed.script])
    options = command.parser().parse([*needed.words, "--data-dir", str(home.parent)])
    made = command.resolve(options, known)
    return [made] if isinstance(made, RunConfig) else [trial.config for trial in made.trials]


def _comparable(config: RunConfig) -> RunConfig:
    return replace(config, threads=1, device="auto")


def train(state: TrainingStatus, home: folders.Home, more: list[str]) -> None:
    """Train what is missing of a search or run, by the command itself; it prints what it does.

    Raises:
        HebbError: when the command fails.
    """
    words, script = list(state.needed.words), state.needed.script
    if state.state == "unfinished":
        words = ["--restore", str(state.folder)] if script == "ray_search.py" else ["--resume-run", str(state.folder)]
        if script == "post_hoc_loss.py":  # it has no way to go on
            words = [*state.needed.words, "--overwrite"]
    line = [script, *words, "--data-dir", str(home.parent), *more]
    print(f"$ {shlex.join(['python', *line])}", flush=True)
    done = subprocess.run([sys.executable, str(shipped.PACKAGE.parent / script), *line[1:]], check=False)
    if done.returncode == InterruptedRunError.exit_code:
        raise InterruptedRunError(f"interrupted; the same command goes on with {state.needed.name}")
    if done.returncode:
        raise HebbError(f"{state.needed.name}: {script} ended with exit code {done.returncode}")


def _figure_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", metavar="FIGURE", help=f"{' '.join(recipes.names())}, or a .yaml file")
    parser.add_argument("--run", action="store_true", help="first train what is missing; an interrupted run goes on")
    _add_scale(parser)
    parser.add_argument(
        "--search-flags", default="", metavar="FLAGS", help="for ray_search.py: '--workers 2 --gpu-exp 4'"
    )


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale", default="full", metavar="SCALE", help="full, as published, or small, for a CPU (default: full)"
    )


def _name(options: argparse.Namespace) -> str:
    recipe = recipes.load(options.figure)
    return f"figure-{recipe.name}" + ("" if options.scale == "full" else f"-{options.scale}")


def _figure(drawing: Mapping[str, Verb], parser: MakeParser, options: argparse.Namespace) -> list[Output]:
    recipe, home, known = recipes.load(options.figure), folders.Home.find(options.data_dir), catalog.load()
    states = [status_of(needed, home, known) for needed in recipe.needed(options.scale)]
    panels = [_panel(panel, recipe, states, home, drawing, parser, options) for panel in recipe.draw]
    open_ = [state for state in states if state.state != "finished"]
    if open_ and not options.run:
        names = ", ".join(f"{s.needed.name} ({s.there} of {s.expected} runs)" for s in open_[:4])
        raise ConfigError(
            f"figure {recipe.name}",
            f"{len(open_)} of {len(states)} are not finished: {names}{', ...' if len(open_) > 4 else ''}",
            hint=f"--run trains them, --scale small in less; analysis.py figures {recipe.name} lists the commands",
        )
    for state in open_:
        more = shlex.split(options.search_flags) if state.needed.script == "ray_search.py" else []
        train(state, home, more)
    return [made for verb, drawn in panels for made in verb.outputs(drawn)]


def _panel(
    panel: str,
    recipe: Recipe,
    states: list[TrainingStatus],
    home: folders.Home,
    drawing: Mapping[str, Verb],
    parser: MakeParser,
    options: argparse.Namespace,
) -> tuple[Verb, argparse.Namespace]:
    """Return the verb that draws a panel, and its options; its files are free, or may be replaced."""
    from hebb.analysis import output

    where = f"figure {recipe.name}, draw" + (f", {panel}" if panel else "")
    name, *words = recipe.draw[panel]
    if name not in drawing:
        raise ConfigError(where, f"unknown verb '{name}'", given=name, choices=drawing)
    kept = recipe.kept(options.scale)
    chosen = [state for command, state in zip(kept, states, strict=True) if command.name in words]
    places = [str(state.folder) for state in chosen or states]
    flags = [word for word in words if word not in {command.name for command in recipe.commands}]
    files = f"{options.name}-{panel}" if panel else options.name
    with within(where):
        drawn = parser(drawing[name]).parse([*places, *flags, "--name", files])
    output.check_free(options.out or home.analysis, files, options.overwrite)
    drawn.data_dir = options.data_dir
    return drawing[name], drawn


def _figures_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", nargs="*", metavar="FIGURE", help="recipes (default: all)")
    _add_scale(parser)


def _figures(options: argparse.Namespace) -> Output:
    chosen = [recipes.load(name) for name in options.figure or recipes.names()]
    home, known = folders.Home.find(options.data_dir), catalog.load()
    lines = [line for recipe in chosen for line in _lines(recipe, options.scale, home, known)]

    import pandas as pd

    from hebb.analysis.output import Output

    frame = pd.DataFrame(lines)
    return Output(options.name, frame, text=frame.drop(columns="command").to_string(index=False))


def _lines(recipe: Recipe, scale: str, home: folders.Home, known: Catalog) -> list[dict[str, object]]:
    found = [status_of(needed, home, known) for needed in recipe.needed(scale)]
    return [
        {
            "figure": recipe.name,
            "title": recipe.title,
            "name": state.needed.name,
            "state": state.state,
            "finished": state.there,
            "runs": state.expected,
            "command": state.needed.line(),
        }
        for state in found
    ]


def verbs(drawing: Mapping[str, Verb], parser: MakeParser) -> tuple[Verb, ...]:
    """Return the verbs of this module.

    Args:
        drawing: the verbs that recipes may name.
        parser: makes the parser of a verb.
    """
    figure = functools.partial(_figure, drawing, parser)
    return (
        Verb("figure", "a published figure from its recipe; --run trains what it needs", _figure_flags, figure, _name),
        Verb("figures", "what every recipe needs, what of it is finished, and the commands", _figures_flags, _figures),
    )
