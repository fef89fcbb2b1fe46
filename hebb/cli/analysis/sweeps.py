"""Verbs that draw the published figures from the stored runs of any network to which they apply.

Each finds bad input before it imports pandas and matplotlib.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hebb.cli.analysis.verb import Verb, add_by, add_selection, add_selection_and_metric, drawn, selected
from hebb.cli.parsing import count
from hebb.config.objectives import COSTS

if TYPE_CHECKING:
    from hebb.analysis.output import Output


def _depth_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    parser.add_argument(
        "--by", default="arm", metavar="SERIES", help="arm, width (second layer to first) or neurons (default: arm)"
    )
    parser.add_argument("--published", metavar="FIGURE", help="published values beside ours: 1, 3, 4 (default: none)")


def _depth(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import depth
    from hebb.analysis.output import Output

    frame = depth.compute(runs, options.by, metric=options.metric, figure=options.published)
    return Output(options.name, frame, depth.draw(frame), text=depth.text(frame))


def _cost_flags(parser: argparse.ArgumentParser) -> None:
    add_selection_and_metric(parser)
    add_by(parser, "a point")
    parser.add_argument(
        "--cost", default="images_seen", metavar="NAME", help=f"on the axis: {' '.join(COSTS)} (default: images_seen)"
    )
    parser.add_argument("--published", metavar="TABLE", help="published values beside ours: rules (default: none)")


def _cost(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import cost
    from hebb.analysis.output import Output

    lines = cost.compute(runs, options.cost, options.by, metric=options.metric, figure=options.published)
    return Output(options.name, lines, cost.draw(lines), text=cost.text(lines))


def _temperature(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import temperature

    return drawn(options, temperature.compute(runs, options.metric), temperature.draw)


def _radius(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import radius

    return drawn(options, radius.compute(runs, options.metric), radius.draw)


def _convergence_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    default = ("convergence", "R1", "radius_mean", "weight_change", "winner_share", "train_loss", "test_acc")
    parser.add_argument(
        "--metric",
        nargs="+",
        default=default,
        metavar="NAME",
        help=f"panels, drawn if they were measured (default: {' '.join(default)})",
    )
    parser.add_argument(
        "--window", type=count, default=1, metavar="N", help="epochs of the moving average (default: 1, no average)"
    )


def _convergence(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import convergence

    return drawn(options, convergence.compute(runs, options.metric, window=options.window), convergence.draw)


def _add_selection_and_lines(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_by(parser, "a line")


def _angles_flags(parser: argparse.ArgumentParser) -> None:
    _add_selection_and_lines(parser)
    parser.add_argument(
        "--number",
        default="angle",
        metavar="NAME",
        help="angle, sparsity, activity, correlation, weight_norm (default: angle)",
    )


def _angles(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import angles

    return drawn(options, angles.compute(runs, options.by, number=options.number), angles.draw)


def _post_hoc(options: argparse.Namespace) -> Output:
    runs = selected(options)

    from hebb.analysis import post_hoc

    return drawn(options, post_hoc.compute(runs, options.by), post_hoc.draw)


VERBS = (
    Verb("depth", "accuracy by depth, arm and width, beside the published values", _depth_flags, _depth),
    Verb("cost", "accuracy against what it cost, beside the published values", _cost_flags, _cost),
    Verb("temperature", "accuracy and converged neurons over temperature", add_selection_and_metric, _temperature),
    Verb("radius", "accuracy over the initial radius, by learning-rate schedule", add_selection_and_metric, _radius),
    Verb("convergence", "radii, loss and accuracy over the examples seen", _convergence_flags, _convergence),
    Verb("angles", "angle between forward and feedback weights of settling networks", _angles_flags, _angles),
    Verb("posthoc", "post-hoc loss and accuracy over the examples seen", _add_selection_and_lines, _post_hoc),
)
