"""Random legal specs for hypothesis: every method of the registry, every value of every field."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import reject, settings
from hypothesis import strategies as st

from hebb.config import catalog, plan
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.fields import Value
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES, Field, Rule, SettlingRule
from hebb.config.settle import make_settle
from hebb.config.specs import (
    ActivationSpec,
    BlockSpec,
    LayerSpec,
    NetworkSpec,
    PoolSpec,
    RunConfig,
    make_layer,
)
from hebb.config.vocabulary import ClassifierLoss, Operation
from hebb.core.errors import ConfigError

DEFAULTS = catalog.load().defaults
SMALL = settings(max_examples=80, deadline=None, derandomize=True, database=None)
"""The same examples in every run, and no folder left behind."""

FORMS = [(rule, arch) for rule in RULES.entries() if not isinstance(rule, SettlingRule) for arch in rule.archs]
SETTLING = [(rule, arch) for rule in RULES.entries() if isinstance(rule, SettlingRule) for arch in rule.archs]
PROBABILITIES = st.just(0.0) | st.floats(0, 1, exclude_max=True)
SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.5])


def numbers(minimum: float, above: bool = False) -> st.SearchStrategy[float]:
    """Return floats of every size, many of which Python writes with an exponent."""
    small = st.integers(-320, 30).map(lambda power: float(f"1e{power}")).filter(lambda x: x > minimum)
    whole = st.integers(int(minimum) + 1, 10**6).map(float)
    return small | whole | st.floats(minimum, 1e30, exclude_min=above, allow_nan=False, allow_infinity=False)


def value(entry: Field) -> st.SearchStrategy[Value]:
    """Return legal values of a field."""
    if entry.kind is bool:
        return st.booleans()
    if entry.kind is str:
        return st.sampled_from(entry.choices)
    minimum = entry.minimum or 0
    if entry.kind is int:
        return st.integers(int(minimum) + entry.above, 10**5)
    return numbers(minimum, entry.above)


@st.composite
def layers(draw: st.DrawFn, forms: Sequence[tuple[Rule, str]] = FORMS) -> LayerSpec:
    """Draw a layer; fields that are not drawn keep their default."""
    rule, arch = draw(st.sampled_from(forms))
    values: dict[str, Value] = {}
    for name, entry in rule.fields_on(arch).items():
        if name == "kernel_size" or draw(st.booleans()):
            values[name] = draw(value(entry))
    bare = make_layer(rule.name, arch, {"kernel_size": 1} if arch == "CNN" else {}, DEFAULTS, "bare")
    if rule.check is not None:
        try:
            rule.check({**dict(bare.values), **values}, "drawn")
        except ConfigError:
            reject()  # a combination that the rule itself refuses
    return make_layer(rule.name, arch, values, DEFAULTS, "drawn")


@st.composite
def activations(draw: st.DrawFn) -> ActivationSpec:
    """Draw an activation, with a parameter where it takes one."""
    entry = draw(st.sampled_from(ACTIVATIONS.entries()))
    if entry.parameter is None:
        return ActivationSpec(name=entry.name)
    return ActivationSpec(name=entry.name, parameter=draw(numbers(0, above=True)))


@st.composite
def pools(draw: st.DrawFn) -> PoolSpec:
    """Draw a pool whose padding is at most half its kernel."""
    kernel = draw(st.integers(1, 9))
    return PoolSpec(
        kind=draw(st.sampled_from(("max", "avg"))),
        kernel_size=kernel,
        stride=draw(st.integers(1, 9)),
        padding=draw(st.integers(0, kernel // 2)),
    )


@st.composite
def blocks(draw: st.DrawFn) -> BlockSpec:
    """Draw a block with any of its parts."""
    return BlockSpec(
        layer=draw(layers()),
        operations=tuple(name for name in Operation if draw(st.booleans())),
        activation=draw(st.none() | activations()),
        pool=draw(st.none() | pools()),
        dropout=draw(PROBABILITIES),
        att_dropout=draw(PROBABILITIES),
        batch_norm=draw(st.booleans()),
    )


@st.composite
def settling(draw: st.DrawFn) -> NetworkSpec:
    """Draw a network that settles, with some of its settings."""
    rule, arch = form = draw(st.sampled_from(SETTLING))
    drawn = [draw(layers([form])) for _ in range(draw(st.integers(1, 3)))]
    if hasattr(drawn[0], "lr_feedback"):  # b0 has no feedback weights
        first = {name: v for name, v in drawn[0].values if name != "lr_feedback"}
        drawn[0] = make_layer(rule.name, arch, first, DEFAULTS, "drawn")
    flatten = ("flatten",) if draw(st.booleans()) else ()
    blocks = tuple(BlockSpec(layer=layer, operations=() if i else flatten) for i, layer in enumerate(drawn))
    settings = {entry.name: draw(value(entry)) for entry in rule.settings if draw(st.booleans())}
    try:
        return NetworkSpec(name="drawn", blocks=blocks, settle=make_settle(rule, settings, "drawn"))
    except ConfigError:
        reject()  # a combination that the rule itself refuses


stacked = st.lists(blocks(), min_size=1, max_size=3).map(lambda b: NetworkSpec(name="drawn", blocks=tuple(b)))
networks = stacked | settling()


@st.composite
def data(draw: st.DrawFn) -> DataSpec:
    """Draw a dataset and the way through it."""
    entry = draw(st.sampled_from(DATASETS.entries()))
    split = draw(st.sampled_from([name for name in entry.splits if name not in ("test", "val")]))
    zca = draw(st.booleans())
    validation = draw(SHARES)
    standardise = not zca and not entry.mean and draw(st.booleans())
    labels = st.lists(st.integers(0, entry.classes - 1), min_size=1, max_size=3, unique=True).map(tuple)
    return DataSpec(
        dataset=entry.name,
        epochs=draw(st.integers(1, 1000)),
        batch_size=draw(st.integers(1, 500)),
        print_freq=draw(st.integers(1, 100)),
        samples=draw(st.none() | st.integers(1, 10)),
        classes=draw(st.none() | labels) if split == "train" else None,
        augmentation=(augmentation := draw(st.booleans())),
        mirror=not augmentation and draw(st.booleans()),
        zca_smoothing=draw(st.floats(1e-6, 10)) if zca else 0.1,
        zca_pixels=zca and draw(st.booleans()),
        zca_test=zca and draw(st.booleans()),
        mirror_test=draw(st.booleans()),
        noise_std=draw(numbers(0)),
        zca=zca,
        split=split,
        size=draw(st.none() | st.integers(1, 300)),
        validation=validation,
        held=validation > 0 and split != "sequences" and draw(st.booleans()),
        standardise=standardise,
        deviations=0.0 if zca or standardise or entry.statistics is None else draw(numbers(0)),
        zoom=1.0 if zca else draw(st.floats(1, 10)),
        view_area=draw(st.floats(0, 1, exclude_min=True)),
        **{name: draw(st.floats(0, 1)) for name in ("view_flip", "view_colour", "view_gray", "view_blur")},
    )


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    """Draw a whole run."""
    network = draw(networks)
    chosen = st.lists(st.integers(0, len(network.blocks) - 1), min_size=1).map(tuple)
    classifier = ClassifierSpec(
        loss=draw(st.sampled_from(ClassifierLoss)),
        lr=draw(st.none() | numbers(0, above=True)),
        weight_decay=draw(numbers(0)),
        schedule=draw(st.sampled_from(("step", "cosine", "decay", "constant"))),
        optimiser=draw(st.sampled_from(("adam", "sgd"))),
        momentum=draw(PROBABILITIES),
        restart=draw(st.none() | st.integers(1, 100)),
        restart_growth=draw(st.integers(1, 5)),
        decay=draw(st.floats(0, 1, exclude_min=True)),
        decay_every=draw(st.integers(1, 100)),
        decay_after=draw(st.integers(0, 100)),
    )
    waits = st.none() | numbers(0, above=True)
    resume = draw(st.sampled_from((None, "all", "without_classifier")))
    seed = draw(st.integers(0, 2**63 - 1))
    others = draw(st.sets(st.integers(0, 2**31), max_size=3)) - {seed}
    digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
    return RunConfig(
        network=dataclasses.replace(network, mode=draw(st.none() | st.sampled_from(sorted(plan.MODES)))),
        mode=draw(st.sampled_from(sorted(plan.MODES))),
        dataset_sup=draw(data()),
        dataset_unsup=draw(data()),
        training_blocks=draw(st.none() | chosen),
        bp_blockwise=draw(st.booleans()),
        classifier=classifier,
        stop=StopSpec(convergence=draw(waits), patience=draw(waits)),
        seed=seed,
        pack=(*sorted(others), seed) if others else (),
        split_seed=draw(st.integers(0, 2**31)),
        threads=draw(st.integers(1, 64)),
        device=draw(st.sampled_from(("auto", "cpu", "cuda"))),
        resume=resume,
        resume_sha256=None if resume is None else draw(digests),
    )
