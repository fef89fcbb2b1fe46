"""Steps, operations and time to the equilibrium of predictive coding: its states descend, or its errors do (ePC).

    python benchmarks/solvers.py --threads 1
    python benchmarks/solvers.py --threads 1 --repeats 0    # counts alone, which are those of every machine

A network is written as its widths, from the pixels to the classes. It first learns ``--updates`` random batches of ten
noisy patterns, so that its weights are not those of the start. Then one batch settles with each solver and each
of several steps, in double precision, until the gradients of all weights differ from those at the equilibrium by no
more than 1e-4 of their norm, in every layer; each solver keeps the step that needs fewest. At last both settle in turns
in single precision, with their own number of steps. The ratio is that of their times; the operations are those of the
matrix products, and do not depend on the machine. A row without a number found no step that comes there in time.
PC clamps the output to the label. PCNudge nudges it, so weakly that hardly a relu changes sides, or there would be
several points of rest. Expect ten minutes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import before_torch  # noqa: F401 - sets how torch's idle threads wait

# isort: split
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.energy_step import Products
from hebb import builtin
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, whole_number
from hebb.config import catalog
from hebb.config.settle import make_settle
from hebb.config.vocabulary import Solver
from hebb.core.errors import ConfigError
from hebb.energy.coding import Coding
from hebb.energy.network import PhaseState
from hebb.nn import model

DEEP = "-".join(["128"] * 5)
LAYERS = ("784-500-10", "784-600-600-10", f"784-{DEEP}-10", "3072-1000-10", "3072-256-64-10", f"3072-{DEEP}-10")
STEPS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Steps of the neurons that are tried; PCNudge's own factor of 2 is on top, so it is given half."""
NEAR, MOST = 1e-4, 5000
"""Largest relative difference of a gradient at the equilibrium, and steps after which a solver has failed."""
Settle = Callable[[Any], PhaseState]
BATCH = 20
NUDGE, SHARE = 1e-4, 0.1
"""PCNudge: beta while it settles, and the share of its default rate at which wide layers learn without diverging."""


def main(argv: list[str]) -> int:
    """Measure every method on every network."""
    options = parse(argv)
    builtin.load()
    threads = harness.set_threads(options.threads)
    with torch.inference_mode():
        rows = [measure(method, widths(text), options) for method in options.methods for text in options.layers]
    columns = {"network": "network"}
    for solver in Solver:
        columns |= {f"{solver} step": f"{solver}_step:g", f"{solver} steps": f"{solver}_steps"}
        columns |= {f"{solver} MFLOP": f"{solver}_mflop:.1f", f"{solver} ms": f"{solver}_ms:.2f"}
    times = f"medians of {options.repeats}" if options.repeats else "not timed"
    title = f"one batch of {BATCH} to its equilibrium, {threads} thread(s); {times}"
    harness.show(title, rows, columns | {"ratio": "ratio:.2f", "operations": "operations_ratio:.2f"})
    settings = {name: getattr(options, name) for name in ("methods", "layers", "updates", "repeats")}
    harness.write(options.out, "solvers", threads, settings | {"batch_size": BATCH, "near": NEAR}, rows)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = Parser(__doc__ or "")
    parser.add_argument("--methods", nargs="+", default=["PC", "PCNudge"], choices=["PC", "PCNudge"], metavar="NAME")
    parser.add_argument("--layers", nargs="+", default=LAYERS, metavar="WIDTHS", help="widths, as in 784-500-10")
    parser.add_argument("--updates", type=int, default=200, metavar="N", help="batches learnt first (default: 200)")
    parser.add_argument(
        "--repeats", type=whole_number(0), default=20, metavar="N", help="turns; 0: no times (default: 20)"
    )
    harness.add_flags(parser)
    return parser.parse(argv)


def widths(text: str) -> list[int]:
    """Return the widths of a network, of three layers or more."""
    parts = text.split("-")
    if len(parts) < 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError("--layers", f"must be three widths or more, as in 784-500-10, got '{text}'")
    return [int(part) for part in parts]


def shortened(sizes: list[int]) -> str:
    """Return widths as they are written, equal ones after one another as ``128x5``."""
    groups = [(size, len(list(group))) for size, group in itertools.groupby(sizes)]
    return "-".join(f"{size}x{number}" if number > 2 else "-".join([str(size)] * number) for size, number in groups)


def measure(method: str, sizes: list[int], options: argparse.Namespace) -> harness.Row:
    """Find the best step of each solver for one network, then time both."""
    blocks = [*(f"{method}-c{size}" for size in sizes[1:-1]), method]
    network = model.Network(catalog.load().network(" ".join(blocks)), (sizes[0],), sizes[-1]).initialise(0)
    energy, x, y = network.energy, *patterns(sizes)
    assert isinstance(energy, Coding)
    nudged, optimiser = hasattr(energy.settings, "beta"), energy.optimiser()
    for i in range(options.updates):
        energy.learn(x[i % 10 :: 10], y[i % 10 :: 10], 1, SHARE if nudged else 1.0, optimiser)
    x, y, beta = x[:BATCH], y[:BATCH], NUDGE if nudged else 0.0
    row: harness.Row = {"network": f"{method} {shortened(sizes)}"}
    network.double()
    goal = gradients(energy, x.double(), equilibrium(energy, x.double(), y.double(), beta))
    for solver in Solver:
        row |= best(energy, solver, x.double(), y.double(), beta, goal)
    network.float()
    settle = functools.partial(settled, energy, x, y, beta)
    functions: dict[str, harness.Function] = {
        solver: functools.partial(settle, chosen(energy, solver, row[f"{solver}_step"], row[f"{solver}_steps"]))
        for solver in Solver
        if row[f"{solver}_steps"]
    }
    for name in functions:
        row[f"{name}_mflop"] = operations(energy, settle, Solver(name), row[f"{name}_steps"]) / 1e6
    both = len(functions) == len(Solver)
    if both:
        row["operations_ratio"] = row["state_mflop"] / row["error_mflop"]
    if options.repeats:
        for name, seconds in harness.in_turns(functions, x.device, options.repeats, 2).items():
            numbers = harness.summary(seconds)
            row |= {f"{name}_ms": numbers["median"], f"{name}_p10_ms": numbers["p10"], f"{name}_p90_ms": numbers["p90"]}
        if both:
            row["ratio"] = row["state_ms"] / row["error_ms"]
    return row


def patterns(sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Return noisy copies of one pattern per class, and their one-hot labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(sizes[-1], (10 * BATCH,), generator=generator)
    means = torch.rand(sizes[-1], sizes[0], generator=generator)
    noise = torch.rand(len(labels), sizes[0], generator=generator)
    return (means[labels] + noise) / 2, torch.eye(sizes[-1])[labels]


def chosen(energy: Coding, solver: Solver, step: float, steps: int) -> Any:
    """Return the settings of the network with these."""
    settings = {**dict(energy.settings.values), "solver": solver, "step": step, "steps": steps}
    return make_settle(energy.layers[0].spec.rule, settings, "solvers")  # type: ignore[arg-type]


def settled(energy: Coding, x: Tensor, y: Tensor, beta: float, settings: Any, start: Any = None) -> PhaseState:
    """Settle with these settings."""
    energy.settings = settings
    return energy.settle(x, y, beta, start)


def operations(energy: Coding, settle: Settle, solver: Solver, steps: int) -> int:
    """Return those of so many steps: every step after the first has as many as the second."""
    one, two = (Products.of(functools.partial(settle, chosen(energy, solver, 0.1, n))).operations for n in (1, 2))
    return one + (steps - 1) * (two - one)


def gradients(energy: Coding, x: Tensor, state: PhaseState) -> list[Tensor]:
    """Return sum e_l f(z_{l-1})^T of every layer."""
    inputs = [x, *map(energy.activation, energy.split(state.rates)[:-1])]
    return [e.T @ f for e, f in zip(energy.split(energy.errors(x, state.rates)), inputs, strict=True)]


def distance(found: list[Tensor], goal: list[Tensor]) -> float:
    """Return the largest relative distance of a layer; infinite for numbers that are not finite."""
    distances = [float((a - b).norm() / b.norm()) for a, b in zip(found, goal, strict=True)]
    return max(d if math.isfinite(d) else math.inf for d in distances)


def equilibrium(energy: Coding, x: Tensor, y: Tensor, beta: float) -> PhaseState:
    """Settle by the errors until 100 more steps change no gradient by a hundredth of ``NEAR``."""
    for step in (0.2, 0.05, 0.01, 0.002):
        settings, state = chosen(energy, Solver.ERROR, step, 100), None
        before = None
        for _ in range(100):
            state = settled(energy, x, y, beta, settings, state)
            now = gradients(energy, x, state)
            if before is not None and distance(before, now) < NEAR / 100:
                return state
            before = now
    raise ConfigError("--layers", "the network does not settle", hint="fewer --updates keep its weights smaller")


def best(energy: Coding, solver: Solver, x: Tensor, y: Tensor, beta: float, goal: list[Tensor]) -> harness.Row:
    """Return step and number of steps of the step that comes to the goal in fewest."""
    factor = 0.5 if beta else 1.0
    counts = {step: needed(energy, solver, step, x, y, beta, goal) for step in (factor * step for step in STEPS)}
    step = min(counts, key=lambda step: counts[step] or math.inf)
    all_steps = {f"{step:g}": number for step, number in counts.items()}
    return {f"{solver}_step": step, f"{solver}_steps": counts[step], f"all_{solver}_steps": all_steps}


def needed(
    energy: Coding, solver: Solver, step: float, x: Tensor, y: Tensor, beta: float, goal: list[Tensor]
) -> int | None:
    """Return the steps to the goal, to within a twentieth; None: it is not reached."""
    done, state = 0, None
    while done < MOST:
        more = max(1, done // 20)
        state = settled(energy, x, y, beta, chosen(energy, solver, step, more), state)
        done += more
        away = distance(gradients(energy, x, state), goal)
        if away <= NEAR:
            return done
        if away > 1e6:
            return None
    return None


if __name__ == "__main__":
    run_command(main)
