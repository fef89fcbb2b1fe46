"""Verbs that look into a stored network: filters, preferred images, maps of its layers, attacks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from hebb.cli import arguments
from hebb.cli.analysis.verb import Verb, add_selection, drawn, selected
from hebb.cli.parsing import count, natural, real_number
from hebb.core.choices import choose
from hebb.core.errors import ConfigError
from hebb.storage.folders import CHECKPOINT, SEARCH, Home

if TYPE_CHECKING:
    import pandas as pd

    from hebb.analysis.output import Output
    from hebb.analysis.robust import Attack, Loss
    from hebb.analysis.runs import StoredRun
    from hebb.analysis.subject import Subject


_positive, _at_least_zero = real_number(0, above=True), real_number(0)


class _Show(StrEnum):
    """What ``fields`` shows of a neuron."""

    IMAGES = "images"
    PATCHES = "patches"


def _one(options: argparse.Namespace) -> Subject:
    """Load the network of the one run that the flags choose; of a search it is that of the best configuration."""
    runs = selected(options)
    if len(runs) > 1:
        runs = _of_best(runs) or runs
    if len(runs) > 1:
        names = " ".join(run.folder.name for run in runs[:5])
        raise ConfigError(
            "runs", f"must be one run, got {len(runs)}: {names}", hint="name its folder, or --where seed=0"
        )
    return _load(runs[0], options)


def _of_best(runs: Sequence[StoredRun]) -> tuple[StoredRun, ...]:
    """Return the run to draw of those of one search, and say which: of the best configuration if that is among them.

    The others have no model, unless the search keeps all. Nothing is returned for runs of several searches.
    """
    searches = {run.folder.parent.parent if run.search else None for run in runs}
    folder = searches.pop()
    if searches or folder is None or not (folder / SEARCH).exists():
        return ()
    from hebb.tuning import html_report

    best = html_report.read(folder).best.configuration
    stored = [run for run in runs if (run.folder / CHECKPOINT).exists()] or runs
    chosen = min(stored, key=lambda run: (not run.folder.name.startswith(f"{best}-s"), run.seed))
    values = " ".join(f"{path}={value}" for path, value in chosen.choice.items())
    print(f"of {folder.name}: {values or chosen.preset} seed={chosen.seed}", file=sys.stderr)
    return (chosen,)


def _load(run: StoredRun, options: argparse.Namespace) -> Subject:
    from hebb.analysis.subject import load

    device = arguments.device(options)
    return load(run, Home.find(options.data_dir), device.kind, device.index)


def _block(text: str) -> int:
    """Read the number of a block, written 1 or b1."""
    digits = text.removeprefix("b")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a block, such as 0 or b0, got '{text}'")
    return int(digits)


def _layer(text: str) -> int | None:
    """Read the number of a block, or ``input`` as None."""
    return None if text == "input" else _block(text)


def _add_block(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block", type=_block, default=0, metavar="N", help="block to look at (default: 0)")


def _add_seed(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help=f"seed of {purpose} (default: 0)")


def _subtitled(subject: Subject, block: int, line: str, second: str) -> str:
    """Return a figure title of two lines about a block."""
    return f"{subject.name}, b{block}: {line}\n{second}"


# -- filters ----------------------------------------------------------------------------------------------


def _filters_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    _add_block(parser)
    parser.add_argument(
        "--view",
        metavar="HOW",
        help="weights (block 0 only), mean (over the input channels) or image (what the neuron computes on the image "
        "without the activations below) (default: weights for block 0, else image)",
    )
    parser.add_argument(
        "--order",
        default="learned",
        metavar="HOW",
        help="learned (radius 1 first, by the share of 1000 test images' places that a neuron wins, then the radius "
        "nearest 1), deviation of the weights or radius, largest first, or index (default: learned)",
    )
    parser.add_argument("--most", type=count, default=120, metavar="N", help="filters shown (default: 120)")


def _filters(options: argparse.Namespace) -> Output:
    subject = _one(options)

    from hebb.analysis import filters
    from hebb.analysis.filters import Order, View

    block = subject.checked(options.block)
    view = filters.view_of(subject.blocks, block, options.view and choose(View, options.view, "--view"))
    order = choose(Order, options.order, "--order")
    share, note = filters.shares(subject, block) if order == Order.LEARNED else (None, "")
    frame = filters.table(subject.blocks, block, view=view, order=order, most=options.most, share=share)
    total = len(subject.blocks[block].weight)
    sorting = filters.sorting(subject.blocks[block], order)
    shown = f"{len(frame)} of {total} filters, {sorting}" if len(frame) < total else f"filters, {sorting}"
    title = _subtitled(subject, block, shown, f"{filters.SUBTITLES[view]}, each stretched to its own range")
    return replace(drawn(options, frame, partial(filters.draw, title=title)), text=note)


# -- fields -----------------------------------------------------------------------------------------------


def _fields_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    _add_block(parser)
    parser.add_argument(
        "--show",
        default="images",
        metavar="WHAT",
        help="images (found by projected gradient) or patches (of the test images) (default: images)",
    )
    parser.add_argument("--neurons", type=count, metavar="N", help="random neurons (default: 72; patches: 5)")
    parser.add_argument("--patches", type=count, default=10, metavar="N", help="patches of each neuron (default: 10)")
    parser.add_argument("--images", type=count, metavar="N", help="first test images (default: all)")
    parser.add_argument("--steps", type=count, default=500, metavar="N", help="gradient steps (default: 500)")
    parser.add_argument(
        "--step",
        type=_positive,
        default=1e-3,
        metavar="X",
        help="length of a step, in units of the radius (default: 0.001)",
    )
    parser.add_argument("--radius", type=_positive, default=1.0, metavar="X", help="norm of an image (default: 1)")
    parser.add_argument("--signed", action="store_true", help="allow negative pixels; the published images have none")
    _add_seed(parser, "the choice of neurons and of the start")


def _fields(options: argparse.Namespace) -> Output:
    show = choose(_Show, options.show, "--show")
    subject = _one(options)
    return _best_images(subject, options) if show is _Show.IMAGES else _best_patches(subject, options)


def _best_images(subject: Subject, options: argparse.Namespace) -> Output:
    from hebb.analysis import neurons, preferred_images
    from hebb.core import seeds

    block = subject.checked(options.block)
    isolated = neurons.isolate(subject.blocks, block)
    weight = subject.blocks[block].weight
    chosen = neurons.choose(weight, options.neurons or 72, options.seed, block).to(weight.device)
    note = _neurons_note(options.neurons, len(weight), block)
    frame = preferred_images.best_images(
        isolated,
        chosen,
        steps=options.steps,
        step=options.step,
        radius=options.radius,
        positive=not options.signed,
        generator=seeds.generator(options.seed, "ascent", block=block),
    )
    _, height, width = isolated.shape
    sign = "pixels of any sign" if options.signed else "no negative pixels"
    title = _subtitled(
        subject,
        block,
        f"preferred images of {_neurons(len(frame), len(weight))}",
        f"{height}x{width} pixels, {options.steps} steps of projected gradient, {sign}",
    )
    return replace(drawn(options, frame, partial(preferred_images.draw_images, title=title)), text=note)


def _neurons(shown: int, total: int) -> str:
    """Say which neurons of a block are shown."""
    return f"all {total} neurons" if shown == total else f"{shown} random neurons of {total}"


def _neurons_note(asked: int | None, total: int, block: int) -> str:
    """Say that a block has fewer neurons than were asked for; empty if it has as many."""
    return f"--neurons {asked}: b{block} has {total}, and all of them are shown" if asked and asked > total else ""


def _best_patches(subject: Subject, options: argparse.Namespace) -> Output:
    from hebb.analysis import neurons, preferred_images, receptive
    from hebb.analysis.output import Output

    block = subject.checked(options.block)
    neurons.check_receptive_field(subject.blocks)
    weight = subject.blocks[block].weight
    chosen = neurons.choose(weight, options.neurons or 5, options.seed, block).to(weight.device)
    tops = preferred_images.strongest(
        subject.pre_activation(block), subject.pixels(options.images), chosen, options.patches
    )
    specs, shapes = [b.spec for b in subject.blocks], [b.shapes for b in subject.blocks]
    frame = preferred_images.patch_table(
        tops, chosen, partial(receptive.box, specs, shapes, block), partial(receptive.reach, specs, shapes, block)
    )
    title = _subtitled(
        subject,
        block,
        f"the patches of {subject.count(options.images):,} test images for {_neurons(len(chosen), len(weight))}",
        "with the largest pre-activation, which is the number above",
    )
    figure = preferred_images.draw_patches(frame, subject.images(set(frame["image"])), title)
    return Output(options.name, frame, figure, text=_neurons_note(options.neurons, len(weight), block))


# -- embed ------------------------------------------------------------------------------------------------


def _embed_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--blocks",
        type=_layer,
        nargs="+",
        metavar="N",
        help="blocks whose outputs are embedded; input is the pixels (default: input and the last block but one)",
    )
    parser.add_argument("--method", default="tsne", metavar="NAME", help="tsne or umap (default: tsne)")
    parser.add_argument("--images", type=count, default=2000, metavar="N", help="first test images (default: 2000)")
    parser.add_argument("--mean", action="store_true", help="embed each channel's mean over the map, not the whole map")
    parser.add_argument(
        "--components", type=count, default=100, metavar="N", help="principal components (default: 100)"
    )
    parser.add_argument("--perplexity", type=_positive, default=50.0, metavar="X", help="of t-SNE (default: 50)")
    parser.add_argument("--neighbours", type=count, default=15, metavar="N", help="of UMAP (default: 15)")
    _add_seed(parser, "components and map")


def _embed(options: argparse.Namespace) -> Output:
    subject = _one(options)

    from hebb.analysis import embed
    from hebb.analysis.embed import Method

    method = choose(Method, options.method, "--method")
    blocks: Sequence[int | None] = options.blocks or (None, max(len(subject.blocks) - 2, 0))
    layers, labels = subject.features(blocks, options.images, mean=options.mean)
    frame = embed.table(
        layers,
        labels,
        method,
        seed=options.seed,
        components=options.components,
        perplexity=options.perplexity,
        neighbours=options.neighbours,
    )
    title = f"{subject.name}: {len(labels):,} test images of {subject.run.dataset}"
    return drawn(options, frame, partial(embed.draw, method=method, title=title))


# -- robust -----------------------------------------------------------------------------------------------


def _robust_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--kinds", nargs="+", default=["noise", "l2", "linf"], metavar="KIND", help="noise, l2, linf (default: all)"
    )
    for kind, strengths in (
        ("noise", "deviations of the noise"),
        ("l2", "radii of the L2 ball"),
        ("linf", "radii of the Linf ball"),
    ):
        parser.add_argument(
            f"--{kind}", type=_at_least_zero, nargs="+", metavar="X", help=f"{strengths}; pixels are in [0, 1]"
        )
    parser.add_argument(
        "--loss",
        nargs="+",
        default=["margin"],
        metavar="NAME",
        help="loss functions the attack increases, tried in turn: margin, cross_entropy (default: margin)",
    )
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="steps of an attack (default: 20)")
    parser.add_argument(
        "--restarts",
        type=count,
        default=2,
        metavar="N",
        help="starts of an attack: the image, then random points of the ball (default: 2)",
    )
    parser.add_argument("--images", type=count, default=1000, metavar="N", help="first test images (default: 1000)")
    _add_seed(parser, "noise and starts")


def _with_model(runs: Sequence[StoredRun]) -> Sequence[StoredRun]:
    """Return the runs that kept their model, or all where none did; say how many are left out."""
    stored = [run for run in runs if (run.folder / CHECKPOINT).exists()]
    if stored and len(stored) < len(runs):
        print(f"left out: {len(runs) - len(stored)} of {len(runs)} runs, which kept no model", file=sys.stderr)
    return stored or runs


def _robust(options: argparse.Namespace) -> Output:
    runs = _with_model(selected(options))
    datasets = sorted({run.dataset for run in runs})
    if len(datasets) > 1:
        raise ConfigError("runs", f"must share a dataset, got {' '.join(datasets)}", hint="--dataset chooses one")

    import pandas as pd

    from hebb.analysis import groups, robust
    from hebb.analysis.output import Output
    from hebb.analysis.robust import Attack, Loss

    arms = groups.labels(runs)
    groups.check(runs, arms, "--where")
    attacks = [choose(Attack, word, "--kinds") for word in dict.fromkeys(options.kinds)]
    losses = [choose(Loss, word, "--loss") for word in options.loss]
    frames = []
    for run, arm in zip(runs, arms, strict=True):
        subject = _load(run, options)
        for attack in attacks:
            measured = _attacked(subject, attack, losses, options)
            frames.append(measured.assign(arm=arm, run=run.folder.name, seed=run.seed, kind=attack.value))
    single = pd.concat(frames, ignore_index=True)
    frame = robust.summary(single)
    by_run = single[["arm", "run", "kind", "strength", "accuracy", "images", "no_gradient"]]
    shown = frame.round({"mean": 2, "sd": 2, "no_gradient": 1}).to_string(index=False, na_rep="-")
    more = {".runs.csv": by_run.to_csv(index=False, lineterminator="\n")}
    return Output(options.name, frame, robust.draw(frame), text=shown, more=more)


def _attacked(subject: Subject, attack: Attack, losses: Sequence[Loss], options: argparse.Namespace) -> pd.DataFrame:
    """Return the accuracy of a network at each strength of an attack."""
    from hebb.analysis import robust
    from hebb.analysis.robust import Attack
    from hebb.core import seeds

    with subject.logits(differentiable=attack is not Attack.NOISE) as logits:
        return robust.measure(
            logits,
            subject.labelled(options.images),
            attack,
            getattr(options, attack) or robust.STRENGTHS[attack],
            losses=losses,
            steps=options.steps,
            restarts=options.restarts,
            generator=seeds.generator(options.seed, f"attack {attack}"),
        )


# -- interpolate ------------------------------------------------------------------------------------------


def _interpolate_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--classes", type=int, nargs=2, default=[0, 1], metavar="C", help="labels (default: 0 1)")
    parser.add_argument(
        "--prototypes",
        default="mean",
        metavar="WHAT",
        help="what stands for a class: mean (of its training images) or neurons (mean weights of the first layer's "
        "neurons that win it) (default: mean)",
    )
    parser.add_argument("--points", type=count, default=11, metavar="N", help="images in a row (default: 11)")
    parser.add_argument(
        "--radius",
        type=_at_least_zero,
        default=0.3,
        metavar="X",
        help="radius of the ball in the middle, in units of the prototypes' distance (default: 0.3)",
    )
    parser.add_argument("--steps", type=count, default=100, metavar="N", help="gradient steps (default: 100)")


def _interpolate(options: argparse.Namespace) -> Output:
    subject = _one(options)

    from hebb.analysis import interpolate
    from hebb.analysis.interpolate import Prototype

    first, last = options.classes
    prototype = choose(Prototype, options.prototypes, "--prototypes")
    a, b = subject.prototypes(prototype, (first, last))
    with subject.logits() as logits:
        t, straight = interpolate.line(a, b, options.points)
        moved = interpolate.generated(logits, straight, t, (first, last), radius=options.radius, steps=options.steps)
        frame = interpolate.table(logits, {"line": straight, "generated": moved}, t, (first, last))
    kind = "class means" if prototype is Prototype.MEAN else "mean weights of the neurons of a class"
    title = f"{subject.name}: from class {first} to class {last}\nprototypes: {kind}"
    return drawn(options, frame, partial(interpolate.draw, title=title))


VERBS = tuple(
    replace(verb, looks=True)
    for verb in (
        Verb("filters", "the filters of a block, sorted (Journe et al., figure B.5)", _filters_flags, _filters),
        Verb(
            "fields",
            "preferred images of neurons, or their best patches of the data (figures 2, 5)",
            _fields_flags,
            _fields,
        ),
        Verb(
            "embed", "the test images in a layer, in two dimensions by t-SNE or UMAP (figure 5)", _embed_flags, _embed
        ),
        Verb("robust", "accuracy under noise and under L2 and Linf attacks, arms side by side", _robust_flags, _robust),
        Verb("interpolate", "images between the prototypes of two classes", _interpolate_flags, _interpolate),
    )
)
