"""A search config and a base run become trials: one per configuration and seed. Imports neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hebb import config_json, folders, grammar, overrides, plan, shapes
from hebb.catalog import Catalog
from hebb.config import RunConfig
from hebb.space import Choice, SearchSpec


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a search.

    Attributes:
        name: ``<config hash>-s<seed>``, also the name of its folder.
        choice: the values of the search space, by override path.
        config: the run.
        folder: its run folder.
    """

    name: str
    choice: Choice
    config: RunConfig
    folder: Path

    @property
    def label(self) -> str:
        """The configuration as a person reads it."""
        return label(self.choice)


def label(choice: Choice) -> str:
    """Write a point of the space as ``path=value path=value``."""
    if not choice:
        return "(preset)"
    return " ".join(f"{path}={_short(value)}" for path, value in choice.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def make(base: RunConfig, spec: SearchSpec, first_seed: int, folder: Path, known: Catalog) -> list[Trial]:
    """List the trials, every configuration checked: its paths, its phases and its shapes.

    The seeds of a configuration are replicates: they share the configuration's values.
    """
    trials = []
    for choice in spec.configurations():
        chosen = overrides.apply(base, choice, known, where=f"search config '{spec.name}',")
        plan.phases(chosen)
        shapes.of_run(chosen)
        name = config_json.digest(chosen, leave_out=("seed",))
        for seed in spec.seeds:
            run = replace(chosen, seed=first_seed + seed)
            trial = f"{name}-s{run.seed}"
            trials.append(Trial(name=trial, choice=choice, config=run, folder=folder / "trials" / trial))
    return trials


def claim(folder: Path, trials: list[Trial], spec: SearchSpec, metric: str, overwrite: bool) -> None:
    """Make the folder of a search and write down what it holds; an existing one is kept."""
    import shutil

    from hebb.errors import ConfigError

    if folder.exists() and any(folder.iterdir()):
        if not (folder / "search.json").exists():
            raise ConfigError(
                str(folder), "is not the folder of a search and is not empty", hint="choose another --folder-name"
            )
        if not overwrite:
            raise ConfigError(
                str(folder), "holds a search already", hint="--overwrite replaces it; another --folder-name keeps both"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folders.write_json(
        folder / "search.json",
        {
            "config": spec.name,
            "purpose": spec.purpose,
            "metric": metric,
            "trials": [{"name": t.name, "seed": t.config.seed, "choice": t.choice} for t in trials],
        },
    )


def network_string(trial: Trial, known: Catalog) -> str:
    """Return the network of a trial as a string to paste after ``--preset``."""
    return grammar.format_network(trial.config.network, known.defaults)
