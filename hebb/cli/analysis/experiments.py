"""Verbs that run a small experiment of their own: a single rate neuron, a spiking network, a pairing protocol."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, TypeVar

from hebb.cli.analysis.verb import Verb
from hebb.cli.arguments import add_changes
from hebb.cli.parsing import count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hebb.analysis.output import Output

Config = TypeVar("Config")


def _flags(parser: argparse.ArgumentParser) -> None:
    add_changes(parser, "seeds=0,1 dtype=float64; an unknown path lists the legal ones")
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="CPU threads; the last bits depend on them (default: 1)"
    )


def _prepared(options: argparse.Namespace, config: Config) -> Config:
    """Return the config as the flags change it, and give torch its threads."""
    from hebb.config import experiment

    changed = experiment.change(config, options.changes)
    import torch

    torch.set_num_threads(options.threads)
    return changed


def _output(
    verb: str, options: argparse.Namespace, config: object, frame: pd.DataFrame, figure: Figure, shown: str
) -> Output:
    """Return the output, with everything that decides its bits as ``<name>.config.json``."""
    from hebb.analysis.output import Output
    from hebb.config import experiment

    settings = {"experiment": verb, "threads": options.threads, **experiment.to_json(config)}
    more = {".config.json": json.dumps(settings, indent=1, allow_nan=False) + "\n"}
    return Output(options.name, frame, figure=figure, text=shown, more=more)


def _toy(options: argparse.Namespace) -> Output:
    from hebb.spiking.rate_neuron import ToyConfig

    config = _prepared(options, ToyConfig())
    from hebb.analysis import rate_neuron

    frame = rate_neuron.compute(config)
    means = frame.pivot(index=["measure", "rule"], columns="sigma", values="mean")
    return _output("toy", options, config, frame, rate_neuron.draw(frame, config), _rounded(means))


def _spiking(options: argparse.Namespace) -> Output:
    from hebb.spiking.settings import SpikingConfig

    config = _prepared(options, SpikingConfig())
    from hebb.analysis import spiking

    frame = spiking.compute(config, _progress if sys.stderr.isatty() else lambda share: None)
    summary = spiking.summary(frame).set_index("arm").T
    return _output("spiking", options, config, frame, spiking.draw(frame, config), _rounded(summary))


def _stdp(options: argparse.Namespace) -> Output:
    from hebb.spiking.settings import StdpConfig

    config = _prepared(options, StdpConfig())
    from hebb.analysis import stdp

    frame = stdp.compute(config)
    shown = stdp.summary(frame).to_string(index=False)
    return _output("stdp", options, config, frame, stdp.draw(frame, config), shown)


def _rounded(frame: pd.DataFrame) -> str:
    return str(frame.to_string(float_format="{:.3f}".format, na_rep="-"))


def _progress(share: float) -> None:
    print(f"\r{100 * share:5.1f} %", end="\n" if share >= 1 - 1e-9 else "", file=sys.stderr, flush=True)


VERBS = (
    Verb("toy", "the direction that a single LPL neuron picks, with pull, push and both", _flags, _toy),
    Verb("spiking", "a spiking network that learns by LPL, and its ablations", _flags, _spiking),
    Verb("stdp", "the STDP window of the spiking LPL rule, by the neuron's variance and by rate", _flags, _stdp),
)
