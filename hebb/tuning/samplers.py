"""What suggests the points of a model-based search: its settings, named by us, and what ``search.json`` keeps of it.

The installed library decides nothing by its defaults, which change from version to version. Imports neither Ray,
torch nor Optuna, except to build a sampler.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hebb.config.search_space import SearchPlan, SearchSpec
from hebb.config.vocabulary import Algorithm, Sampler
from hebb.core import extras
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Settings = dict[str, bool | int | float]
Record = dict[str, Any]
"""What a search keeps of its searcher: library, version, sampler and settings; ``continued`` has later ones."""

SETTINGS: dict[Sampler, Settings] = {
    Sampler.TPE: {
        "multivariate": True,
        "group": False,
        "constant_liar": True,
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
    },
    Sampler.GP: {"n_startup_trials": 10, "deterministic_objective": False},
    Sampler.RANDOM: {},
    Sampler.CMAES: {"n_startup_trials": 1},
    Sampler.NSGA2: {"population_size": 50, "crossover_prob": 0.9, "swapping_prob": 0.5},
}
"""Arguments of Optuna's samplers. Those of TPE are what Ray and Optuna 5 choose by themselves."""
HYPEROPT: Settings = {"n_initial_points": 10}
"""Arguments of Ray's searcher for HyperOpt."""

_CLASSES = {
    Sampler.TPE: "TPESampler",
    Sampler.GP: "GPSampler",
    Sampler.RANDOM: "RandomSampler",
    Sampler.CMAES: "CmaEsSampler",
    Sampler.NSGA2: "NSGAIISampler",
}
_PACKAGES = {Sampler.GP: ("scipy",), Sampler.CMAES: ("cmaes",)}
"""What samplers need beside Optuna, numpy and torch."""
_NAMES = {Algorithm.OPTUNA: "Optuna", Algorithm.HYPEROPT: "HyperOpt"}
_STARTUP = ("n_startup_trials", "population_size", "n_initial_points")
"""The setting that says how many points are drawn at random first, as each sampler calls it."""
_LINE = (4, 5)
"""Optuna that can adapt a single number by CMA-ES; before, it draws it at random."""


def build(sampler: Sampler, seed: int, **changes: Any) -> BaseSampler:
    """Return the sampler of Optuna with our settings, or with ``changes`` to them."""
    import optuna

    make: Callable[..., BaseSampler] = getattr(optuna.samplers, _CLASSES[sampler])
    with warnings.catch_warnings():  # before Optuna 5 some of these arguments, and the whole of GP, are experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(seed=seed, **{**SETTINGS[sampler], **changes})


def settings(plan: SearchPlan) -> Settings:
    """Return the settings of what suggests the points."""
    return HYPEROPT if plan.sampler is None else SETTINGS[plan.sampler]


def startup(plan: SearchPlan) -> int:
    """Return how many points are drawn at random before the results have a say."""
    return next((int(value) for name, value in settings(plan).items() if name in _STARTUP), 0)


def check_installed(spec: SearchSpec) -> None:
    """Raise where the sampler of a search needs a package that is missing or older than what it needs."""
    sampler = spec.plan.sampler
    for package in () if sampler is None else _PACKAGES.get(sampler, ()):
        extras.require(f"sampler {sampler}", package, extra=extras.EXTRAS[package])
    varied = [axis for axis in spec.axes if axis.count() != 1]
    version = extras.version("optuna") or ""
    if sampler == Sampler.CMAES and len(varied) < 2 and _numbers(version) < _LINE:
        problem = f"needs Optuna {_LINE[0]}.{_LINE[1]} to vary a single domain, got {version}"
        raise ConfigError("sampler cmaes", problem, hint="pip install --upgrade optuna")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


# -- what a search keeps ------------------------------------------------------------------------------------------


def record(plan: SearchPlan, before: Record | None, *, fresh: bool) -> Record:
    """Return what ``search.json`` keeps of the searcher.

    Args:
        plan: of a model-based search.
        before: what it keeps already; None in a search that is older than this record, or fresh.
        fresh: whether the search begins.
    """
    now = _now(plan)
    if fresh:
        return now
    begun = {"library": plan.algorithm.value, "version": None} if before is None else before
    return begun if _same(_last(begun), now) else {**begun, "continued": [*_continued(begun), now]}


def change(plan: SearchPlan, before: Record | None) -> str:
    """Say in a line by what else a continued search has its points suggested from now on; empty for by the same."""
    now, name = _now(plan), _NAMES[plan.algorithm]
    last = {"version": None} if before is None else _last(before)
    if _same(last, now):
        return ""
    if last["version"] is None:
        return f"the search goes on with {name} {now['version']}, and does not say which version it was begun with"
    if last["version"] == now["version"]:
        return f"the search goes on with other settings of its sampler: {_settings(now)}, before {_settings(last)}"
    return (
        f"the search goes on with {name} {now['version']}, and was begun with {last['version']}: "
        "the next points may be others than that would have suggested"
    )


def _now(plan: SearchPlan) -> Record:
    sampler = {} if plan.sampler is None else {"sampler": plan.sampler.value}
    version = extras.version(plan.algorithm)
    return {"library": plan.algorithm.value, "version": version, **sampler, "settings": dict(settings(plan))}


def _last(before: Record) -> Record:
    """Return the record of the latest session."""
    return [before, *_continued(before)][-1]


def _continued(before: Record) -> list[Record]:
    return list(before.get("continued", []))


def _same(last: Mapping[str, Any], now: Record) -> bool:
    return all(last.get(key) == value for key, value in now.items())


def _settings(entry: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in entry["settings"].items())
