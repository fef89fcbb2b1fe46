"""Verbs that look into a stored network: its filters, what its neurons look for, maps of its layers, attacks on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebb.cli import arguments
from hebb.cli.analysis.verb import Verb, add_selection, selected
from hebb.config.registry import read_number
from hebb.core.errors import ConfigError
from hebb.storage.folders import Home

if TYPE_CHECKING:
    from hebb.analysis.output import Output
    from hebb.analysis.runs import StoredRun
    from hebb.analysis.subject import Subject


def _one(options: argparse.Namespace) -> Subject:
    """Load the one run that was chosen."""
    chosen = selected(options)
    if len(chosen) > 1:
        names = " ".join(run.folder.name for run in chosen[:5])
        raise ConfigError(
            "runs", f"{len(chosen)} are chosen and one is wanted: {names}", hint="name its folder, or --where seed=0"
        )
    return _load(chosen[0], options)


def _load(run: StoredRun, options: argparse.Namespace) -> Subject:
    from hebb.analysis import subject

    return subject.load(run, Home.find(options.data_dir))


def _number(text: str) -> float:
    """Read a number that is not negative."""
    found = read_number(text, float)
    if found is None or found < 0:
        raise argparse.ArgumentTypeError(f"a number of 0 or more is wanted, not '{text}'")
    return float(found)


def _positive(text: str) -> float:
    """Read a number above 0."""
    found = _number(text)
    if found == 0:
        raise argparse.ArgumentTypeError("a number above 0 is wanted, not 0")
    return found


def _block(text: str) -> int:
    """Read the number of a block, as 1 or b1."""
    digits = text.removeprefix("b")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"a block is wanted, as 0 or b0, not '{text}'")
    return int(digits)


def _layer(text: str) -> int | None:
    """Read a block, or ``input``: None."""
    return None if text == "input" else _block(text)


def _add_block(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block", type=_block, default=0, metavar="N", help="block to look at (default: 0)")


def _add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=f"seed of {what} (default: 0)")


# -- filters ----------------------------------------------------------------------------------------------


def _filters_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    _add_block(parser)
    parser.add_argument(
        "--view",
        metavar="HOW",
        help="weights (of block 0), mean (over the input channels), image (through the receptive field, activations "
        "left out) (default: weights of block 0, else image)",
    )
    parser.add_argument(
        "--order",
        default="deviation",
        metavar="HOW",
        help="falling deviation of the weights, falling radius, or index (default: deviation)",
    )
    parser.add_argument("--most", type=arguments.count, default=120, metavar="N", help="filters shown (default: 120)")


def _filters(options: argparse.Namespace) -> Output:
    studied = _one(options)

    from hebb.analysis import filters
    from hebb.analysis.output import Output

    block = studied.checked(options.block)
    view = filters.view_of(studied.blocks, block, options.view)
    frame = filters.table(studied.blocks, block, view=view, order=options.order, most=options.most)
    total = len(studied.blocks[block].weight)
    shown = (
        f"{len(frame)} of {total} filters by {options.order}" if len(frame) < total else f"filters by {options.order}"
    )
    title = f"{studied.name}, b{block}: {shown}\n{filters.VIEWS[view]}, each stretched to its own range"
    return Output(options.name, frame, filters.draw(frame, title))


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
    parser.add_argument("--neurons", type=arguments.count, metavar="N", help="random neurons (default: 72; patches: 5)")
    parser.add_argument("--patches", type=arguments.count, default=10, metavar="N", help="for a neuron (default: 10)")
    parser.add_argument("--images", type=arguments.count, metavar="N", help="first test images (default: all)")
    parser.add_argument("--steps", type=arguments.count, default=500, metavar="N", help="of the ascent (default: 500)")
    parser.add_argument(
        "--step", type=_positive, default=1e-3, metavar="X", help="its length, in units of the radius (default: 0.001)"
    )
    parser.add_argument("--radius", type=_positive, default=1.0, metavar="X", help="norm of an image (default: 1)")
    parser.add_argument(
        "--signed", action="store_true", help="allow negative pixels, which the published ones have not"
    )
    _add_seed(parser, "the choice of neurons and of the start")


def _fields(options: argparse.Namespace) -> Output:
    if options.show not in ("images", "patches"):
        raise ConfigError("--show", f"unknown '{options.show}'", given=options.show, choices=("images", "patches"))
    studied = _one(options)
    return (_field_images if options.show == "images" else _field_patches)(studied, options)


def _field_images(studied: Subject, options: argparse.Namespace) -> Output:
    from hebb.analysis import neurons, preferred_images
    from hebb.analysis.output import Output
    from hebb.core import seeds

    block = studied.checked(options.block)
    isolated = neurons.isolate(studied.blocks, block)
    weight = studied.blocks[block].weight
    chosen = neurons.choose(weight, options.neurons or 72, options.seed, block).to(weight.device)
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
    sign = "pixels of any sign" if options.signed else "no negative pixel"
    title = (
        f"{studied.name}, b{block}: what {len(frame)} random neurons of {len(weight)} answer to most\n"
        f"{height}x{width} pixels, {options.steps} steps of projected gradient, {sign}"
    )
    return Output(options.name, frame, preferred_images.draw_images(frame, title))


def _field_patches(studied: Subject, options: argparse.Namespace) -> Output:
    from hebb.analysis import neurons, preferred_images, receptive
    from hebb.analysis.output import Output

    block = studied.checked(options.block)
    if studied.network.energy is not None:
        raise ConfigError("network", "settles as a whole: its neurons have no receptive field of their own")
    weight = studied.blocks[block].weight
    chosen = neurons.choose(weight, options.neurons or 5, options.seed, block).to(weight.device)
    tops = preferred_images.strongest(
        studied.pre_activation(block), studied.pixels(options.images), chosen, options.patches
    )
    specs, shapes = [b.spec for b in studied.blocks], [b.shapes for b in studied.blocks]
    frame = preferred_images.patch_table(
        tops, chosen, lambda row, column: receptive.box(specs, shapes, block, row, column)
    )
    count = studied.count(options.images)
    title = (
        f"{studied.name}, b{block}: the patches of {count:,} test images\n"
        "with the largest pre-activation (the number above)"
    )
    return Output(options.name, frame, preferred_images.draw_patches(frame, studied.images(set(frame["image"])), title))


# -- embed ------------------------------------------------------------------------------------------------


def _embed_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--blocks",
        type=_layer,
        nargs="+",
        metavar="N",
        help="blocks whose output is embedded, and input, the pixels (default: input and the last but one)",
    )
    parser.add_argument("--method", default="tsne", metavar="NAME", help="tsne or umap (default: tsne)")
    parser.add_argument(
        "--images", type=arguments.count, default=2000, metavar="N", help="first test images (default: 2000)"
    )
    parser.add_argument("--mean", action="store_true", help="read each channel's mean over the map, not the whole map")
    parser.add_argument(
        "--components", type=arguments.count, default=100, metavar="N", help="principal components (default: 100)"
    )
    parser.add_argument("--perplexity", type=_positive, default=50.0, metavar="X", help="of t-SNE (default: 50)")
    parser.add_argument("--neighbours", type=arguments.count, default=15, metavar="N", help="of UMAP (default: 15)")
    _add_seed(parser, "components and map")


def _embed(options: argparse.Namespace) -> Output:
    studied = _one(options)

    from hebb.analysis import embed
    from hebb.analysis.output import Output

    blocks: Sequence[int | None] = options.blocks or (None, max(len(studied.blocks) - 2, 0))
    layers, labels = studied.features(blocks, options.images, mean=options.mean)
    frame = embed.table(
        layers,
        labels,
        options.method,
        seed=options.seed,
        components=options.components,
        perplexity=options.perplexity,
        neighbours=options.neighbours,
    )
    title = f"{studied.name}: {len(labels):,} test images of {studied.run.dataset}"
    return Output(options.name, frame, embed.draw(frame, options.method, title))


# -- robust -----------------------------------------------------------------------------------------------


def _robust_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--kinds", nargs="+", default=["noise", "l2", "linf"], metavar="KIND", help="noise, l2, linf (default: all)"
    )
    for kind, what in (
        ("noise", "deviations of the noise"),
        ("l2", "radii of the L2 ball"),
        ("linf", "of the Linf ball"),
    ):
        parser.add_argument(f"--{kind}", type=_number, nargs="+", metavar="X", help=f"{what}, pixels being in [0, 1]")
    parser.add_argument(
        "--loss",
        nargs="+",
        default=["margin"],
        metavar="NAME",
        help="what an attack raises: margin, cross_entropy, or both one after the other (default: margin)",
    )
    parser.add_argument("--steps", type=arguments.count, default=20, metavar="N", help="of an attack (default: 20)")
    parser.add_argument(
        "--restarts",
        type=arguments.count,
        default=2,
        metavar="N",
        help="attacks, from random starts but one (default: 2)",
    )
    parser.add_argument(
        "--images", type=arguments.count, default=1000, metavar="N", help="first test images (default: 1000)"
    )
    _add_seed(parser, "noise and starts")


def _robust(options: argparse.Namespace) -> Output:
    chosen = selected(options)
    datasets = sorted({run.dataset for run in chosen})
    if len(datasets) > 1:
        raise ConfigError("runs", f"of different datasets: {' '.join(datasets)}", hint="--dataset chooses one")

    import pandas as pd

    from hebb.analysis import robust
    from hebb.analysis.output import Output
    from hebb.core import seeds

    kinds = list(dict.fromkeys(options.kinds))
    for kind in kinds:
        robust.check(kind, getattr(options, kind, None) or (0.0,), options.loss)
    frames = []
    for run in chosen:
        studied = _load(run, options)
        for kind in kinds:
            with studied.attackable(kind != "noise") as logits:
                found = robust.measure(
                    logits,
                    studied.labelled(options.images),
                    kind,
                    getattr(options, kind) or robust.STRENGTHS[kind],
                    losses=options.loss,
                    steps=options.steps,
                    restarts=options.restarts,
                    generator=seeds.generator(options.seed, f"attack {kind}"),
                )
            frames.append(found.assign(arm=run.preset, run=run.folder.name, kind=kind))
    single = pd.concat(frames, ignore_index=True)
    frame = robust.summary(single)
    runs = single[["arm", "run", "kind", "strength", "accuracy", "images", "no_gradient"]]
    shown = frame.round({"mean": 2, "sd": 2, "no_gradient": 1}).to_string(index=False, na_rep="-")
    more = {".runs.csv": runs.to_csv(index=False, lineterminator="\n")}
    return Output(options.name, frame, robust.draw(frame), text=shown, more=more)


# -- interpolate ------------------------------------------------------------------------------------------


def _interpolate_flags(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--classes", type=int, nargs=2, default=[0, 1], metavar="C", help="labels (default: 0 1)")
    parser.add_argument(
        "--prototypes",
        default="mean",
        metavar="WHAT",
        help="mean (of a class's training images) or neurons (mean weights of the first layer's neurons that win it) "
        "(default: mean)",
    )
    parser.add_argument("--points", type=arguments.count, default=11, metavar="N", help="images in a row (default: 11)")
    parser.add_argument(
        "--radius",
        type=_number,
        default=0.3,
        metavar="X",
        help="of the ball in the middle, in units of the prototypes' distance (default: 0.3)",
    )
    parser.add_argument("--steps", type=arguments.count, default=100, metavar="N", help="of gradient (default: 100)")


def _interpolate(options: argparse.Namespace) -> Output:
    studied = _one(options)

    from hebb.analysis import interpolate
    from hebb.analysis.output import Output

    first, last = options.classes
    a, b = studied.prototypes(options.prototypes, (first, last))
    with studied.attackable(True) as logits:
        t, straight = interpolate.line(a, b, options.points)
        moved = interpolate.generated(logits, straight, t, (first, last), radius=options.radius, steps=options.steps)
        frame = interpolate.table(logits, {"line": straight, "generated": moved}, t, (first, last))
    kind = "class means" if options.prototypes == "mean" else "mean weights of the neurons of a class"
    title = f"{studied.name}: from class {first} to class {last}\nprototypes: {kind}"
    return Output(options.name, frame, interpolate.draw(frame, title))


VERBS = (
    Verb("filters", "the filters of a block, sorted (Journe et al., figure B.5)", _filters_flags, _filters),
    Verb(
        "fields",
        "what neurons look for: best images, or best patches of the data (figures 2, 5)",
        _fields_flags,
        _fields,
    ),
    Verb("embed", "the test images in a layer, in two dimensions by t-SNE or UMAP (figure 5)", _embed_flags, _embed),
    Verb("robust", "accuracy under noise and under L2 and Linf attacks, arm beside arm", _robust_flags, _robust),
    Verb("interpolate", "images between the prototypes of two classes", _interpolate_flags, _interpolate),
)
