"""Verbs that draw the published figures from stored runs of any network they make sense for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hebb.cli.analysis.verb import Verb, add_by, add_metric, add_selection, selected
from hebb.cli.arguments import count

if TYPE_CHECKING:
    from hebb.analysis.output import Output

# bad input is found before pandas and matplotlib are imported


def _depth_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)
    parser.add_argument(
        "--by", default="arm", metavar="SERIES", help="arm, width (second layer to first) or neurons (default: arm)"
    )
    parser.add_argument("--published", metavar="FIGURE", help="published values beside ours: 1, 3, 4 (default: none)")


def _depth(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import depth
    from hebb.analysis.output import Output

    made = depth.compute(chosen, options.by, metric=options.metric, figure=options.published)
    return Output(options.name, made, depth.draw(made), text=made.to_string(index=False, na_rep="-"))


def _with_metric(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_metric(parser)


def _temperature(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import temperature
    from hebb.analysis.output import Output

    made = temperature.compute(chosen, options.metric)
    return Output(options.name, made, temperature.draw(made))


def _radius(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import radius
    from hebb.analysis.output import Output

    made = radius.compute(chosen, options.metric)
    return Output(options.name, made, radius.draw(made))


def _convergence_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    default = ("convergence", "R1", "train_loss", "test_acc")
    parser.add_argument(
        "--metric", nargs="+", default=default, metavar="NAME", help=f"panels (default: {' '.join(default)})"
    )
    parser.add_argument(
        "--window", type=count, default=1, metavar="N", help="epochs of the moving average (default: 1, none)"
    )


def _convergence(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import convergence
    from hebb.analysis.output import Output

    made = convergence.compute(chosen, options.metric, window=options.window)
    return Output(options.name, made, convergence.draw(made))


def _angles_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_by(parser, "a line")
    parser.add_argument(
        "--number",
        default="angle",
        metavar="NAME",
        help="angle, sparsity, activity, correlation, weight_norm (default: angle)",
    )


def _angles(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import angles
    from hebb.analysis.output import Output

    made = angles.compute(chosen, options.by, number=options.number)
    return Output(options.name, made, angles.draw(made))


def _posthoc_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_by(parser, "a line")


def _posthoc(options: argparse.Namespace) -> Output:
    chosen = selected(options)

    from hebb.analysis import post_hoc
    from hebb.analysis.output import Output

    made = post_hoc.compute(chosen, options.by)
    return Output(options.name, made, post_hoc.draw(made))


VERBS = (
    Verb("depth", "accuracy by depth, arm and width, beside the published values", _depth_flags, _depth),
    Verb("temperature", "accuracy and converged neurons over the temperature", _with_metric, _temperature),
    Verb("radius", "accuracy over the initial radius, for each schedule of the rate", _with_metric, _radius),
    Verb("convergence", "radii, rate and accuracy over the examples seen", _convergence_flags, _convergence),
    Verb("angles", "angle of forward and feedback weights of networks that settle", _angles_flags, _angles),
    Verb("posthoc", "post-hoc loss and accuracy over the examples seen", _posthoc_flags, _posthoc),
)
