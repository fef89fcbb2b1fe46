"""Settling networks: CorInfoMax, CorInfoMaxSparse, EP, CSM, PC, PCNudge.

The neurons of such a network relax together to a state. The weights change by the difference of two states, or by the
errors that remain in one. This file has the entries; the other files of ``hebb.energy`` have the equations, one file
per method. The rates of a layer are tokens; ``settings`` has what concerns the whole network (phases, steps, nudge,
schedule).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hebb.config.registry import RULES, Field, SettlingRule
from hebb.config.vocabulary import NudgeSign, Optimiser, Solver, StepRule
from hebb.core.errors import ConfigError
from hebb.core.initial import glorot_bound, he_bound, torch_bound

Tensors = dict[str, tuple[tuple[int, ...], float]]

_CORINFOMAX = "Bozkurt, Pehlevan & Erdogan 2023 (NeurIPS), Correlative information maximization"

# -- what a layer stores ------------------------------------------------------------------------------------


def _weight(fan_in: int, width: int) -> tuple[tuple[int, int], float]:
    """Return shape and bound of weights by Glorot's uniform law."""
    return (width, fan_in), glorot_bound(fan_in, width)


def _corinfomax(fan_in: int, width: int, first: bool, last: bool) -> Tensors:
    """Forward weights; feedback weights to the layer below, except in the first layer; inverse correlation."""
    tensors: Tensors = {"weight": _weight(fan_in, width)}
    if not first:
        tensors["feedback"] = ((fan_in, width), tensors["weight"][1])
    return tensors | {"lateral": ((width, width), math.sqrt(3 / width))}


def _ep(fan_in: int, width: int, first: bool, last: bool) -> Tensors:
    return {"weight": _weight(fan_in, width), "bias": ((width,), 0.0)}


def _csm(fan_in: int, width: int, first: bool, last: bool) -> Tensors:
    """The tensors of EP, and lateral weights in hidden layers."""
    tensors = _ep(fan_in, width, first, last)
    return tensors if last else tensors | {"lateral": ((width, width), math.sqrt(3 / width))}


def _pc(fan_in: int, width: int, first: bool, last: bool) -> Tensors:
    """Weights by He's uniform law, biases by torch's."""
    return {"weight": ((width, fan_in), he_bound(fan_in)), "bias": ((width,), torch_bound(fan_in))}


# -- tokens -------------------------------------------------------------------------------------------------

FEEDBACK = Field(
    name="lr_feedback",
    token="lf",
    kind=float,
    minimum=0,
    default=0.0,
    meaning="rate of the feedback weights from this layer to the one below (b0 has none); 0: they stay random",
)
THRESHOLD = Field(
    name="lr_threshold",
    token="lt",
    kind=float,
    minimum=0,
    default=1e-6,
    meaning="rate of the threshold that holds the summed rates of the layer near 1",
)
LATERAL = Field(
    name="lr_lateral",
    token="lm",
    kind=float,
    minimum=0,
    default=0.01,
    meaning="rate of the lateral weights of a hidden layer; the output layer has none",
)

# -- settings -----------------------------------------------------------------------------------------------


def _number(name: str, default: float, meaning: str, minimum: float = 0, above: bool = False) -> Field:
    return Field(name=name, token=None, kind=float, minimum=minimum, above=above, default=default, meaning=meaning)


def _count(name: str, default: int, meaning: str, minimum: int = 1) -> Field:
    return Field(name=name, token=None, kind=int, minimum=minimum, default=default, meaning=meaning)


def _word(name: str, choices: tuple[str, ...], meaning: str) -> Field:
    return Field(name=name, token=None, kind=str, choices=choices, default=choices[0], meaning=meaning)


def _nudge(beta: float) -> tuple[Field, ...]:
    return (
        _number("beta", beta, "strength of the nudge towards the label", above=True),
        _word("sign", tuple(NudgeSign), "sign of the nudge; random: drawn for every batch"),
    )


def _phases(free: int, nudged: int) -> tuple[Field, ...]:
    return (
        _count("free_steps", free, "steps of the free phase"),
        _count("nudged_steps", nudged, "steps of the nudged phase"),
    )


def _step(step: float) -> Field:
    return _number("step", step, "step of the neurons", above=True)


SOLVER = Field(
    name="solver",
    token=None,
    kind=str,
    choices=tuple(Solver),
    default=Solver.STATE,
    absent=Solver.STATE,
    meaning="what descends while the network settles: its states, or its errors (ePC), which come to rest sooner",
)
EVALUATION_STEP = _number("eval_step", 0.0, "step of the neurons in evaluation; 0: same as in training")
THIRD_PHASE = Field(
    name="third_phase",
    token=None,
    kind=bool,
    default=False,
    meaning="add a third phase, from the nudged state, with the opposite nudge; its state replaces the free state",
)
SCHEDULE = (
    _number("decay", 1.0, "factor m of the rates: m^floor(e/decay_every) in epoch e from 0", above=True),
    _count("decay_every", 1, "epochs between two decays"),
    _count("late_from", 0, "epoch from which m is late_decay; e still counts from 0; 0: never", 0),
    _number("late_decay", 0.9, "m from epoch late_from", above=True),
    _count("last_from", 0, "epoch from which m is last_decay; 0: never", 0),
    _number("last_decay", 0.8, "m from epoch last_from", above=True),
    _number("weight_decay", 0.0, "L2 decay: every update first subtracts weight_decay times the rate times the weight"),
)
CORINFOMAX = (
    *_nudge(1.0),
    *_phases(30, 10),
    THIRD_PHASE,
    _step(0.05),
    _word("step_rule", tuple(StepRule), "constant; slow: step/(1 + slope t); loop: step/(t + 1)"),
    _number("step_slope", 0.01, "slope of the slow rule"),
    _number("step_floor", 0.001, "least step of the slow and the loop rule"),
    EVALUATION_STEP,
    _number("epsilon", 0.15, "epsilon, by which the membrane equation divides prediction errors", above=True),
    _number("forgetting", 0.99999, "lambda, the weight of the past in the correlations, at most 1", above=True),
    _number("gain", 0.5, "g, the pull of the membrane towards the rate"),
    *SCHEDULE,
)


def _check_phases(values: Mapping[str, Any], where: str) -> None:
    """Raise if the late and the last part of the schedule are out of order."""
    late, last = values["late_from"], values["last_from"]
    if last and not late:
        raise ConfigError(where, f"last_from={last} needs late_from, which is 0 (never)", hint=f"late_from={last - 1}")
    if last and last <= late:
        raise ConfigError(where, f"last_from must be > late_from, {late}, got {last}")


def _check_corinfomax(values: Mapping[str, Any], where: str) -> None:
    _check_phases(values, where)
    if values["forgetting"] > 1:
        raise ConfigError(
            where, f"forgetting must be a number <= 1, got {values['forgetting']}", hint="as in forgetting=0.99999"
        )


def _check_pc(values: Mapping[str, Any], where: str) -> None:
    _check_phases(values, where)
    if values["margin"] >= 0.5:
        raise ConfigError(where, f"margin must be a number < 0.5, got {values['margin']}", hint="as in margin=0.03")


# -- entries ------------------------------------------------------------------------------------------------


def _load(name: str) -> type:
    from hebb.energy import corinfomax, csm, ep, pc, pc_nudge, sparse

    networks = {
        "CorInfoMax": corinfomax.CorInfoMax,
        "CorInfoMaxSparse": sparse.CorInfoMaxSparse,
        "EP": ep.EP,
        "CSM": csm.CSM,
        "PC": pc.PC,
        "PCNudge": pc_nudge.PCNudge,
    }
    return networks[name]


for _entry in (
    SettlingRule(
        name="CorInfoMax",
        archs=("MLP",),
        network=lambda: _load("CorInfoMax"),
        summary="correlative information maximisation: settles with feedback weights of its own",
        source=f"{_CORINFOMAX}, section 2 and appendix",
        fields=("lr",),
        own_fields=(FEEDBACK,),
        defaults={"MLP": {"lr": 0.7}},
        settings=CORINFOMAX,
        check_settings=_check_corinfomax,
        tensors=_corinfomax,
    ),
    SettlingRule(
        name="CorInfoMaxSparse",
        archs=("MLP",),
        network=lambda: _load("CorInfoMaxSparse"),
        summary="CorInfoMax with non-negative rates whose sum is held near 1 by a threshold",
        source=f"{_CORINFOMAX}, appendix E",
        fields=("lr",),
        own_fields=(FEEDBACK, THRESHOLD),
        defaults={"MLP": {"lr": 0.7}},
        settings=CORINFOMAX,
        check_settings=_check_corinfomax,
        tensors=_corinfomax,
    ),
    SettlingRule(
        name="EP",
        archs=("MLP",),
        network=lambda: _load("EP"),
        summary="equilibrium propagation: weights descend the difference of two energies",
        source="Scellier & Bengio 2017 (Front. Comput. Neurosci. 11:24)",
        fields=("lr",),
        settings=(*_nudge(1.0), *_phases(20, 4), THIRD_PHASE, _step(0.5), EVALUATION_STEP, *SCHEDULE),
        check_settings=_check_phases,
        tensors=_ep,
    ),
    SettlingRule(
        name="CSM",
        archs=("MLP",),
        network=lambda: _load("CSM"),
        summary="contrastive similarity matching: equilibrium propagation with lateral weights in hidden layers",
        source="Qin, Mudur & Pehlevan 2021 (Neural Comput. 33:1300)",
        fields=("lr",),
        own_fields=(LATERAL,),
        settings=(*_nudge(1.0), *_phases(20, 4), _step(0.5), EVALUATION_STEP, *SCHEDULE),
        check_settings=_check_phases,
        tensors=_csm,
    ),
    SettlingRule(
        name="PC",
        archs=("MLP",),
        network=lambda: _load("PC"),
        summary="predictive coding: learns from the errors that remain when the output is clamped to the label",
        source="Whittington & Bogacz 2017 (Neural Comput. 29:1229)",
        fields=("lr",),
        defaults={"MLP": {"lr": 0.001}},
        settings=(
            _count("steps", 50, "steps of the relaxation"),
            _step(0.1),
            SOLVER,
            _number("margin", 0.03, "the label's output is clamped to 1 - margin, the others to margin"),
            _word("optimiser", (Optimiser.ADAM, Optimiser.SGD), "how the weights follow the gradient"),
            *SCHEDULE,
        ),
        check_settings=_check_pc,
        tensors=_pc,
    ),
    SettlingRule(
        name="PCNudge",
        archs=("MLP",),
        network=lambda: _load("PCNudge"),
        summary="predictive coding with a weakly nudged output",
        source="Millidge et al. 2023 (ICLR), Backpropagation at the infinitesimal inference limit",
        fields=("lr",),
        defaults={"MLP": {"lr": 0.001}},
        settings=(*_nudge(0.001), _count("steps", 50, "steps of the relaxation"), _step(0.1), SOLVER, *SCHEDULE),
        check_settings=_check_phases,
        tensors=_pc,
    ),
):
    RULES.register(_entry)
