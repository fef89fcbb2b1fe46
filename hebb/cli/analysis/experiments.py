"""Verbs that run a small experiment of their own: a single rate neuron, a spiking network, a pairing protocol."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from hebb.cli.analysis.verb import Verb
from hebb.cli.arguments import count

if TYPE_CHECKING:
    from hebb.analysis.output import Output


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="change single values: seeds=0,1 dtype=float64; a path that does not exist lists those that do",
    )
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="CPU threads; they decide the last bits (default: 1)"
    )


def _config(options: argparse.Namespace, config: Any) -> Any:
    """Return the changed config; from here on torch has the threads that were asked for."""
    from hebb.config import experiment

    changed = experiment.change(config, options.changes)
    import torch

    torch.set_num_threads(options.threads)
    return changed


def _output(verb: str, options: argparse.Namespace, config: Any, frame: Any, figure: Any, text: str) -> Output:
    """Return the output, with the config that decides its bits as ``<name>.config.json``."""
    from hebb.analysis.output import Output
    from hebb.config import experiment

    settings = {"experiment": verb, "threads": options.threads, **experiment.to_json(config)}
    more = {".config.json": json.dumps(settings, indent=1, allow_nan=False) + "\n"}
    return Output(options.name, frame, figure=figure, text=text, more=more)


def _toy(options: argparse.Namespace) -> Output:
    from hebb.spiking.rate_neuron import ToyConfig

    config = _config(options, ToyConfig())
    from hebb.analysis import rate_neuron

    frame = rate_neuron.compute(config)
    shown = frame.pivot(index=["measure", "rule"], columns="sigma", values="mean")
    return _output(
        "toy", options, config, frame, rate_neuron.draw(frame, config), shown.to_string(float_format="{:.3f}".format)
    )


def _spiking(options: argparse.Namespace) -> Output:
    from hebb.spiking.settings import SpikingConfig

    config = _config(options, SpikingConfig())
    from hebb.analysis import spiking

    frame = spiking.compute(config, _progress if sys.stderr.isatty() else lambda done: None)
    shown = spiking.summary(frame).set_index("arm").T
    return _output(
        "spiking", options, config, frame, spiking.draw(frame, config), shown.to_string(float_format="{:.3f}".format)
    )


def _stdp(options: argparse.Namespace) -> Output:
    from hebb.spiking.settings import StdpConfig

    config = _config(options, StdpConfig())
    from hebb.analysis import stdp

    frame = stdp.compute(config)
    return _output("stdp", options, config, frame, stdp.draw(frame, config), stdp.summary(frame).to_string(index=False))


def _progress(done: float) -> None:
    print(f"\r{100 * done:5.1f} %", end="\n" if done >= 1 - 1e-9 else "", file=sys.stderr, flush=True)


VERBS = (
    Verb("toy", "which direction a single LPL neuron picks, with pull, push and both", _flags, _toy),
    Verb("spiking", "a spiking network that learns by LPL, and its ablations", _flags, _spiking),
    Verb("stdp", "the STDP window of the spiking LPL rule, by the neuron's variance and by rate", _flags, _stdp),
)
