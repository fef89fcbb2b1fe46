"""Samplers of Optuna on a planted optimum: how near the best of the first points comes, without any training.

    python benchmarks/samplers.py --out hebb_data/benchmarks/samplers.json

The loss is a sum of squares in the quantiles of the domains, 0 at the optimum, where the best rate depends on the
temperature. In the space `conditional` three rules have two settings each of their own, which exist only beside their
rule; two of the rules are worse at their best, by 0.05 and 0.1. The space `plain` has the four domains of the best
rule. Every sampler has the same seeds. TPE is taken as a search takes it, with its domains one by one, and with the
domains of each rule as a group. What counts is the mean of log10 of the least loss so far, with its standard error.

Expect two or three minutes, nearly all of them for the Gaussian process.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import optuna

from benchmarks import harness
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, count
from hebb.config import domains
from hebb.config.domains import Axis, Choice
from hebb.config.vocabulary import DomainKind, Sampler
from hebb.tuning import samplers
from hebb.tuning.searchers import Space
from hebb.tuning.suggestions import choice_of

RULES: dict[str, dict[str, Any]] = {
    "Soft": {"t_invert": {"loguniform": [0.1, 10]}, "power": {"uniform": [0, 2]}},
    "Hard": {"momentum": {"uniform": [0, 2]}, "noise": {"uniform": [0, 2]}},
    "Krotov": {"delta": {"uniform": [0, 1]}, "margin": {"loguniform": [0.01, 1]}},
}
SHARED: dict[str, Any] = {"lr": {"loguniform": [0.001, 1]}, "radius": {"uniform": [1, 30]}}
SPACES: dict[str, dict[str, Any]] = {
    "conditional": {
        "rule": {"choice": list(RULES)},
        **{key: {**d, "when": {"rule": rule}} for rule, own in RULES.items() for key, d in own.items()},
        **SHARED,
    },
    "plain": {**SHARED, **RULES["Soft"]},
}
OPTIMA = {  # penalty of the rule, and the quantiles of its own domains and of the rate at its best
    "Soft": (0.0, {"t_invert": 0.7, "power": 0.3, "lr": 0.6}),
    "Hard": (0.05, {"momentum": 0.2, "noise": 0.8, "lr": 0.3}),
    "Krotov": (0.1, {"delta": 0.5, "margin": 0.5, "lr": 0.5}),
}
RADIUS, CORRELATION = 0.25, 0.5
BUDGETS = {"conditional": (60, 120), "plain": (60,)}
Variant = tuple[Sampler, dict[str, bool]]
VARIANTS: dict[str, Variant] = {
    "random": (Sampler.RANDOM, {}),
    "tpe": (Sampler.TPE, {}),
    "tpe one by one": (Sampler.TPE, {"multivariate": False}),
    "tpe in groups": (Sampler.TPE, {"group": True}),
    "gp": (Sampler.GP, {}),
}


def main(argv: list[str]) -> int:
    """Let every sampler search both spaces."""
    options = parse(argv)
    threads = harness.set_threads(options.threads or 1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for space in SPACES:
        for name, variant in VARIANTS.items():
            if variant[0] != Sampler.GP or space == "plain":  # it does not model conditions
                rows += measure(space, name, variant, options.repeats)
    harness.show(
        f"log10 of the least loss on a planted optimum, mean and standard error of {options.repeats} seeds; "
        f"Optuna {optuna.__version__}",
        rows,
        {"space": "space", "sampler": "sampler", "points": "points", "mean": "mean:.2f", "error": "error:.2f"},
    )
    settings = {"repeats": options.repeats, "optuna": optuna.__version__}
    harness.write(options.out, "samplers", threads, settings, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--repeats", type=count, default=8, metavar="N", help="searches of each sampler (default: 8)")
    harness.add_flags(parser)
    return parser.parse_args(argv)


def measure(space: str, name: str, variant: Variant, repeats: int) -> list[harness.Row]:
    """Return a row for each budget of a space, with the log10 of the least loss of every seed."""
    axes = domains.parse(SPACES[space], space)
    losses = [search(axes, variant, seed, max(BUDGETS[space])) for seed in range(repeats)]
    rows = []
    for points in BUDGETS[space]:
        values = [math.log10(min(of_seed[:points])) for of_seed in losses]
        error = statistics.stdev(values) / repeats**0.5 if repeats > 1 else math.nan
        mean = statistics.mean(values)
        rows.append({"space": space, "sampler": name, "points": points, "mean": mean, "error": error, "each": values})
    return rows


def search(axes: tuple[Axis, ...], variant: Variant, seed: int, points: int) -> list[float]:
    """Return the losses of a search, in the order of its points."""
    sampler, changes = variant
    study = optuna.create_study(sampler=samplers.build(sampler, seed, **changes))
    ask = Space(axes)
    for _ in range(points):
        trial = study.ask()
        ask(trial)
        study.tell(trial, loss(axes, choice_of(axes, trial.params)))
    return [trial.value for trial in study.trials]


def loss(axes: tuple[Axis, ...], choice: Choice) -> float:
    """Return the loss of a point."""
    at = {axis.name: quantile(axis, choice) for axis in axes if axis.name in choice and not axis.listed}
    penalty, best = OPTIMA[choice.get("rule", "Soft")]
    squares = sum((at[name] - value) ** 2 for name, value in best.items() if name != "lr")
    lean = CORRELATION * (at["t_invert"] - best["t_invert"]) if "t_invert" in at else 0.0
    return float(penalty + squares + (at["lr"] - best["lr"] + lean) ** 2 + (at["radius"] - RADIUS) ** 2)


def quantile(axis: Axis, choice: Mapping[str, Any]) -> float:
    """Return the place of a value in its interval, from 0 to 1."""
    value, low, high = choice[axis.name], axis.low, axis.high
    if axis.kind == DomainKind.LOGUNIFORM:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return float((value - low) / (high - low))


if __name__ == "__main__":
    run_command(main)
