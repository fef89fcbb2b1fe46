"""A training mode turns the blocks into a tuple of phases: pure data that ``train.run`` executes in order.

A new mode is one function here, registered in ``MODES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from hebb.config import probed, shapes
from hebb.config.data_spec import DataSpec, held_out
from hebb.config.phase import Phase, PhaseKind
from hebb.config.registry import DATASETS
from hebb.config.rule import BackpropRule, HebbianRule
from hebb.config.specs import BlockSpec, RunConfig
from hebb.config.vocabulary import UNLABELLED, WITHOUT_LABELS, LossSource, Operation, Part, Role
from hebb.core import user_code
from hebb.core.errors import ConfigError

MODES: dict[str, Callable[[RunConfig], list[Phase]]] = {}
"""Training modes by name: config -> phases of the blocks that learn, with calibrations in between."""


def mode(function: Callable[[RunConfig], list[Phase]]) -> Callable[[RunConfig], list[Phase]]:
    """Register a training mode under the name of its function; a second one of the same name is refused."""
    if function.__name__ in MODES:
        raise ConfigError(f"mode '{function.__name__}'", "is registered twice")
    MODES[function.__name__] = function
    return function


def phases(config: RunConfig) -> tuple[Phase, ...]:
    """Return the phases of a run."""
    if config.mode not in MODES:
        raise ConfigError("mode", f"unknown mode '{config.mode}'", given=config.mode, choices=MODES)
    if config.dataset_sup.split in WITHOUT_LABELS:
        raise ConfigError(
            "dataset_sup",
            f"split '{config.dataset_sup.split}' of {config.dataset_sup.dataset} has no labels",
            hint="name it with --dataset-unsup, and a labelled one with --dataset-sup",
        )
    for role, spec in config.datasets.items():
        if spec.held and not spec.validation:
            raise ConfigError(
                f"dataset_{role}", "held trains on the validation images, but there are none", hint="validation=0.2"
            )
    planned = (_settle(config),) if config.network.settles else _of_mode(config)
    config.classifier.check()
    _check_stop(config, planned)
    _check_held(config, planned)
    if config.probes:
        probed.check(config, probed.stated(config, planned))
    if config.pack:
        _check_pack(config)
    return planned


def _check_held(config: RunConfig, planned: tuple[Phase, ...]) -> None:
    """Raise where ``validation`` is a share of so few images that it holds none out."""
    for role in dict.fromkeys(phase.data for phase in planned):
        spec = config.datasets[role]
        if spec.split != Part.SEQUENCES:
            check_held(role, spec, held_out(spec.pool_samples(), spec.validation))


def check_held(role: str, spec: DataSpec, held: int) -> None:
    """Raise unless ``held`` images are one or more, where validation asks for some."""
    if spec.validation and not held:
        images = f"{spec.pool_samples():,} training images of {spec.dataset}"
        raise ConfigError(
            f"dataset_{role}",
            f"validation={spec.validation:g} of the {images} holds none out",
            hint="more samples, a larger share, or no validation",
        )


def _of_mode(config: RunConfig) -> tuple[Phase, ...]:
    """Return the phases of the run's mode, which may be a plugin's."""
    function = MODES[config.mode]
    planned = function(config)
    if not isinstance(planned, list | tuple) or not planned or not all(isinstance(p, Phase) for p in planned):
        problem = f"must return a list of Phase, at least one, got {planned!r}"
        raise user_code.broken(function, f"mode '{config.mode}'", problem)
    return tuple(planned)


def _settle(config: RunConfig) -> Phase:
    """Return the one phase of a settling network, in which all blocks learn together in every mode."""
    if len(training(config)) < len(config.network.blocks):
        raise ConfigError(
            "--training-blocks",
            f"cannot be combined with {config.network.name}, a settling network, whose blocks all learn together",
            hint="a rate of 0 keeps the weights of a block: --set b0.layer.lr=0",
        )
    if config.bp_blockwise:
        raise ConfigError("--bp-blockwise", f"{config.network.name} has no BP block")
    return _phase(config, PhaseKind.SETTLE, training(config), Role.SUP)


def _check_stop(config: RunConfig, phases: tuple[Phase, ...]) -> None:
    """Raise for stopping rules that a phase of this run cannot follow."""
    if not config.stop.active:
        return
    if config.network.settles:
        raise ConfigError("stop", f"ends Hebbian phases early, but {config.network.name} has none", hint="leave it out")
    if any(phase.kind == PhaseKind.JOINT for phase in phases):
        raise ConfigError(
            "stop",
            "ends Hebbian phases early, but here the Hebbian and the BP blocks learn on the same batches",
            hint="use --training-mode successive or consecutive",
        )
    local = [i for phase in phases for i in phase.blocks if _block(config, i).local]
    if local:
        raise ConfigError("stop", f"compares the radius of weights with 1, but b{local[0]} learns by a loss of its own")


def _check_pack(config: RunConfig) -> None:
    """Raise for runs whose seeds cannot train together. ``Pack.rehearse`` finds the reasons that only a step shows."""
    where, hint = "--pack-seeds", "leave it out: the seeds are then trained one by one"
    if config.network.settles:
        raise ConfigError(where, f"{config.network.name} settles, which a pack cannot do", hint=hint)
    if config.compile:
        raise ConfigError(where, "the steps of a pack are not compiled", hint="leave out --compile")
    if config.stop.active:
        raise ConfigError(
            where,
            "the seeds of a pack would end Hebbian phases at different epochs",
            hint="leave out stop.* and its protocol",
        )
    for i, block in enumerate(config.network.blocks):
        if isinstance(block.layer.rule, HebbianRule) and block.layer.rule.keeps_maps:
            problem = f"b{i} keeps the maps of the last images, which a pack cannot do"
            raise ConfigError(where, problem, hint=hint)
        if block.local:
            raise ConfigError(where, f"b{i} descends a loss of its own, which a pack cannot do", hint=hint)
        if block.att_dropout:
            raise ConfigError(where, f"b{i} drops out by contrast, which a pack cannot do", hint=hint)


def described(phases: tuple[Phase, ...]) -> list[dict[str, Any]]:
    """Return the phases as JSON data, for people who read ``config.json``."""
    return [
        {"kind": p.kind, "blocks": list(p.blocks), "data": p.data, "epochs": p.epochs, "updates": p.updates}
        for p in phases
    ]


def training(config: RunConfig) -> tuple[int, ...]:
    """Return the blocks that learn."""
    chosen = config.training_blocks
    return tuple(range(len(config.network.blocks))) if chosen is None else chosen


@mode
def successive(config: RunConfig) -> list[Phase]:
    """Train the blocks one after the other from the bottom; neighbouring BP blocks form one phase."""
    result: list[Phase] = []
    for group in _groups(config):
        if group[0] not in training(config):
            result += _calibrate(config, group)
        elif _block(config, group[0]).learns_locally:
            block = _block(config, group[0])
            result.append(
                _phase(
                    config, PhaseKind.HEBBIAN, group, Role.SUP if block.supervised and not block.local else Role.UNSUP
                )
            )
        else:
            above = tuple(i for i in range(group[-1], len(config.network.blocks)) if i not in training(config))
            result += _calibrate(config, above)  # the gradient passes through these blocks
            result.append(_phase(config, PhaseKind.BACKPROP, group, Role.SUP))
    return result


@mode
def consecutive(config: RunConfig) -> list[Phase]:
    """Train all unsupervised blocks and all blocks with a loss of their own together, then the other blocks."""
    trained = training(config)
    unsupervised = tuple(i for i in trained if not _block(config, i).supervised or _block(config, i).local)
    supervised = tuple(i for i in trained if i not in unsupervised)
    frozen = tuple(i for i in range(len(config.network.blocks)) if i not in trained)
    if not unsupervised:
        return _calibrate(config, frozen) + _supervised(config, supervised)
    # frozen blocks below learning ones need their statistics first; frozen blocks above learning ones get (new)
    # statistics once the blocks below have learnt
    result = _calibrate(config, tuple(i for i in frozen if i < unsupervised[-1]))
    result.append(_phase(config, PhaseKind.HEBBIAN, unsupervised, Role.UNSUP))
    result += _calibrate(config, tuple(i for i in frozen if i > unsupervised[0]))
    return result + _supervised(config, supervised)


@mode
def simultaneous(config: RunConfig) -> list[Phase]:
    """Train all blocks on the same batches of the supervised data."""
    trained = training(config)
    frozen = tuple(i for i in range(len(config.network.blocks)) if i not in trained)
    hebbian = tuple(i for i in trained if _block(config, i).learns_locally)
    result = _calibrate(config, frozen)
    if len(hebbian) == len(trained):
        return [*result, _phase(config, PhaseKind.HEBBIAN, trained, Role.SUP)]
    if not hebbian:
        return result + _supervised(config, trained)
    return [*result, _phase(config, PhaseKind.JOINT, trained, Role.SUP)]


def post_hoc(config: RunConfig) -> Phase:
    """Return the measuring phase of the post-hoc loss: all blocks but the classifier learn on labelled images.

    Epochs and batch size are those of the unsupervised data, as when these blocks were first trained.
    """
    lower = tuple(range(len(config.network.blocks) - 1))
    if config.network.settles:
        raise ConfigError(config.network.name, "settling networks have no post-hoc loss")
    hebbian = [i for i in lower if _block(config, i).learns_locally]
    mixed = (hebbian and len(hebbian) < len(lower)) or any(_block(config, i).local for i in lower)
    if not lower or not config.network.blocks[-1].supervised or mixed:
        raise ConfigError(
            config.network.name,
            "must have Hebbian blocks, or BP blocks, below one classifier to measure a post-hoc loss",
        )
    data = replace(config.dataset_sup, epochs=config.dataset_unsup.epochs, batch_size=config.dataset_unsup.batch_size)
    kind = PhaseKind.HEBBIAN if hebbian else PhaseKind.BACKPROP
    return _phase(replace(config, dataset_sup=data), kind, lower, Role.SUP)


def _groups(config: RunConfig) -> list[tuple[int, ...]]:
    """Split the blocks for ``successive``: each Hebbian block alone, neighbouring BP or frozen blocks together.

    A block that learns from the loss of the block above is in the same group as that block.
    """
    trained = training(config)
    groups: list[tuple[int, ...]] = []
    previous: PhaseKind | None = None
    for i in range(len(config.network.blocks)):
        kind = None  # a frozen block
        if i in trained:
            kind = PhaseKind.HEBBIAN if _block(config, i).learns_locally else PhaseKind.BACKPROP
        together = kind is None or (kind == PhaseKind.BACKPROP and not config.bp_blockwise)
        together |= (
            kind == PhaseKind.HEBBIAN and i > 0 and _below_a_loss(_block(config, i - 1)) and _block(config, i).local
        )
        if groups and together and kind == previous:
            groups[-1] = (*groups[-1], i)
        else:
            groups.append((i,))
        previous = kind
    return groups


def _supervised(config: RunConfig, blocks: tuple[int, ...]) -> list[Phase]:
    """Return the phase in which the blocks that need labels learn together."""
    if not blocks:
        return []
    hebbian = [i for i in blocks if _block(config, i).learns_locally]
    if len(hebbian) == len(blocks):
        return [_phase(config, PhaseKind.HEBBIAN, blocks, Role.SUP)]
    if hebbian:
        return [_phase(config, PhaseKind.JOINT, blocks, Role.SUP)]
    if config.bp_blockwise:
        return [_phase(config, PhaseKind.BACKPROP, (i,), Role.SUP) for i in blocks]
    return [_phase(config, PhaseKind.BACKPROP, blocks, Role.SUP)]


def _calibrate(config: RunConfig, blocks: tuple[int, ...]) -> list[Phase]:
    """Return the pass that gives frozen, randomly initialised blocks their batch statistics.

    A control with random weights is fair only if its inputs are normalised like those of the trained network.
    Blocks that start from stored weights have stored statistics too.
    """
    last = len(config.network.blocks) - 1
    stored = {None: (), "all": blocks, "without_classifier": tuple(i for i in blocks if i < last)}
    normalised = tuple(
        i
        for i in blocks
        if _block(config, i).normalised and _block(config, i).resume is None and i not in stored[config.resume]
    )
    if not normalised:
        return []
    phase = Phase(
        kind=PhaseKind.CALIBRATE,
        blocks=normalised,
        data=Role.UNSUP,
        epochs=1,
        batch_size=config.dataset_unsup.batch_size,
        print_freq=1,
        updates=0,
        schedule=0.0,
        lr=None,
    )
    check_batches(config, phase)
    return [phase]


def _phase(config: RunConfig, kind: PhaseKind, blocks: tuple[int, ...], data: Role) -> Phase:
    if kind == PhaseKind.JOINT and config.bp_blockwise:
        raise ConfigError(
            "--bp-blockwise",
            "cannot be combined with a mode in which BP and Hebbian blocks learn on the same batches",
            hint="use --training-mode successive",
        )
    if kind in (PhaseKind.BACKPROP, PhaseKind.JOINT) and not config.network.blocks[-1].supervised:
        raise ConfigError(
            f"b{len(config.network.blocks) - 1}",
            f"{config.network.blocks[-1].layer.method} gives no class, so b{blocks[0]} has no loss to descend",
            hint="end the network with a BP block, as in '... BP:flatten'",
        )
    spec = config.datasets[data]
    _check_local(config, blocks, spec)
    views = max(_block(config, i).layer.rule.views for i in blocks)
    _check_views(spec, views, f"dataset_{data}")
    layers = [_block(config, i).layer for i in blocks]
    rates = [layer.lr_sup for layer in layers if isinstance(layer.rule, BackpropRule)]
    lr = None
    if rates:
        lr = min(rates) if config.classifier.lr is None else config.classifier.lr
    phase = Phase(
        kind=kind,
        blocks=blocks,
        data=data,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        print_freq=spec.print_freq,
        updates=spec.epochs * spec.updates_per_epoch(),
        schedule=spec.epochs * spec.train_samples() / spec.batch_size,
        lr=lr,
        views=views,
    )
    check_batches(config, phase)
    return phase


def check_batches(config: RunConfig, phase: Phase, images: int | None = None) -> None:
    """Raise for a batch of one image if a local loss, or a batch norm with one value per channel, would read it.

    Args:
        config: the run.
        phase: the phase.
        images: number of images in an epoch, once they are loaded; None takes the number in the dataset's entry.
    """
    spec = config.datasets[phase.data]
    count = spec.train_samples() if images is None else images
    if phase.kind == PhaseKind.SETTLE or (phase.batch_size > 1 and count % phase.batch_size != 1):
        return  # the norms of a settling network do not learn
    for i in phase.blocks:
        local = _block(config, i).local and phase.kind != PhaseKind.CALIBRATE
        if local or _normalises_one_value(config, i):
            raise ConfigError(
                f"b{i}",
                f"its {'loss' if local else 'batch norm'} needs batches of two images or more, and "
                f"{count} images in batches of {phase.batch_size} leave one alone",
                hint="choose another batch_size",
            )


def _normalises_one_value(config: RunConfig, i: int) -> bool:
    """Tell whether a batch norm of block i gets one value per channel from an image: a vector or a 1x1 map."""
    block = _block(config, i)
    if not block.normalised:
        return False
    traced = shapes.of_run(config)[i]
    before = [name for name in block.operations if name in (Operation.BATCHNORM1D, Operation.BATCHNORM2D)]
    inputs = [traced.into if name == Operation.BATCHNORM2D else traced.layer_in for name in before]
    after = [traced.layer_out] if block.batch_norm or block.affine_norm else []
    return any(prod(shape[1:]) == 1 for shape in (*inputs, *after))


def _check_local(config: RunConfig, blocks: tuple[int, ...], spec: DataSpec) -> None:
    """Raise for blocks with a local loss that cannot learn in this phase."""
    entry = DATASETS.get(spec.dataset, "dataset")
    for i in blocks:
        block = _block(config, i)
        if not block.local:
            continue
        layer, above = block.layer, i + 1
        if layer.warmup >= spec.epochs:
            raise ConfigError(
                f"b{i}",
                f"warmup must be < {spec.epochs}, the epochs on {spec.dataset}, got {layer.warmup}",
                hint=f"--set 'b*.layer.warmup={spec.epochs // 10}' or more epochs",
            )
        if layer.rule.labels and (spec.split in UNLABELLED or entry.classes != config.classes):
            raise ConfigError(
                f"b{i}", f"{layer.method} needs the labels of the classifier, but {spec.dataset} lacks them"
            )
        if not _below_a_loss(block):
            continue
        if above not in blocks or not _block(config, above).local:
            raise ConfigError(f"b{i}", f"learns from the loss of b{above}, which does not learn in the same phase")
        if not _block(config, above).layer.pooling:
            raise ConfigError(f"b{above}", f"pooling=0 compares single pixels, so b{i} cannot learn from its loss")
    learns = [i for i in blocks if not _block(config, i).learns_locally]
    crossed = [i for i in blocks if _block(config, i).local and learns and i > learns[0]]
    if crossed:
        raise ConfigError(
            f"b{crossed[0]}",
            f"learns from a local loss above b{learns[0]}, which learns by back-prop on the same batches",
            hint="--training-mode consecutive",
        )


def _check_views(spec: DataSpec, views: int, where: str) -> None:
    """Raise for data that does not fit the number of views that the phase compares."""
    if spec.split == Part.SEQUENCES and views != 2:
        raise ConfigError(where, f"{spec.dataset} gives pairs of frames, but no block in this phase compares two views")
    if views > 1 and spec.varied:
        raise ConfigError(where, "is not for two views, which vary the images already", hint="leave it out")
    if views > 1 and spec.zca:
        raise ConfigError(where, "zca whitens the images before the views are made", hint="leave it out")


def _below_a_loss(block: BlockSpec) -> bool:
    """Tell whether the block learns from the loss of the block above."""
    return block.local and block.layer.loss == LossSource.ABOVE


def _block(config: RunConfig, index: int) -> BlockSpec:
    return config.network.blocks[index]
