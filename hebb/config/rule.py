"""What a learning method is: one of four records, by the way in which its layers learn.

Shapes: u and y are (M, C) with M samples times output pixels and C neurons; a rule with a state sees them as maps,
(B, C, H, W), or (B, C) in a fully connected layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hebb.config.fields import ARCHS, FIELDS, GEOMETRY, Field, LayerFields, Value
from hebb.config.vocabulary import Learning, Response
from hebb.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

Check = Callable[[Mapping[str, Any], str], None]
"""``check(values, where)`` raises for values that do not fit each other."""


class Signal(Protocol):
    """The plastic gate of a Hebbian rule (see ``hebb.rules``)."""

    def __call__(self, u: Tensor, layer: LayerFields, labels: Tensor | None, /) -> Tensor:
        """Return y in the shape of u, (B, C, ...); the competition is over dimension 1, and u is not written to."""
        ...


Tensors = Mapping[str, "Tensor"]


class StateSignal(Protocol):
    """The plastic gate of a Hebbian rule that keeps a state."""

    def __call__(self, u: Tensor, layer: LayerFields, labels: Tensor | None, state: Tensors, /) -> Tensor:
        """Return y in the shape of u, (B, C, ...), from the state that ``advance`` returned for this batch."""
        ...


class Advance(Protocol):
    """How a state follows the batches."""

    def __call__(self, u: Tensor, layer: LayerFields, state: Tensors, /) -> Tensors:
        """Return the new tensors of the state, in the shapes of the old ones, for u (B, C, ...); write to neither."""
        ...


@dataclass(frozen=True)
class Softmax:
    """A plastic gate that is the softmax of beta u over the neurons.

    Attributes:
        beta: the inverse temperature, positive.
        signed: whether y has the other sign where u is not the largest.
    """

    beta: float
    signed: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        if not number or not 2.0**-126 <= self.beta < 2.0**128:
            raise ValueError(f"beta must be a positive number of type float32, got {self.beta!r}")

    def of(self, u: Tensor) -> Tensor:
        """Return y (M, C) for u (M, C)."""
        y = (self.beta * u).softmax(dim=1)
        return y.where(u == u.amax(dim=1, keepdim=True), -y) if self.signed else y


class DeclaredSoftmax(Protocol):
    """What a Hebbian rule says of its signal."""

    def __call__(self, layer: LayerFields, /) -> Softmax | None:
        """Return the softmax that the signal of a layer is, or None where it is none."""
        ...


class WeightLaw(Protocol):
    """A law that turns weights into weights."""

    def __call__(self, weight: Tensor, layer: LayerFields, /) -> Tensor:
        """Return weights in the shape of ``weight``, (C, fan-in) or (C, C_in, k, k), which is not written to."""
        ...


class Decay(Protocol):
    """What a Hebbian rule takes from sum_b y x."""

    def __call__(self, y: Tensor, u: Tensor, weight: Tensor, layer: LayerFields, /) -> Tensor:
        """Return (neurons, fan-in) for y and u (M, neurons) and weight (neurons, fan-in)."""
        ...


class StateStart(Protocol):
    """The state of a layer that has seen nothing."""

    def __call__(self, shape: tuple[int, ...], layer: LayerFields, /) -> Tensor:
        """Return the tensor for neurons (C,), or for their maps (C, H, W)."""
        ...


@dataclass(frozen=True, kw_only=True)
class State:
    """A tensor that a Hebbian rule keeps from update to update; each group of channels has its own.

    Attributes:
        name: its name; it is stored as ``layer.state.NAME``.
        start: its value at the start.
        maps: whether ``start`` is called with the shape of a map of u, (C, H, W), and not with (C,). Such a state is
            large: it is made when the layer first learns, starts anew with every epoch and is not stored.
    """

    name: str
    start: StateStart
    maps: bool = False


class Initialise(Protocol):
    """The initial weights of a Hebbian rule."""

    def __call__(self, shape: tuple[int, ...], layer: LayerFields, generator: Generator, /) -> Tensor:
        """Draw weights of the given shape."""
        ...


class BiasStep(Protocol):
    """The change of a bias before it is divided by its largest entry."""

    def __call__(self, y: Tensor, bias: Tensor, layer: LayerFields, /) -> Tensor:
        """Return db (C,) for y (B, C, ...)."""
        ...


@dataclass(frozen=True, kw_only=True)
class LossContext:
    """What a local loss may read beside the views.

    Attributes:
        labels: (B,) int64, the same for every view; -1 where there is none.
        inputs: what the block got for each view, (B, C, H, W) or (B, N), before its operations; no gradient flows
            through it.
        fed: what its layer got, after the operations.
        answers: what its layer made of that: u, with its graph.
        module: the layer.
        order: (B,) a random order of the images, or a cyclic shift for a rule with ``partners``, the same for every
            block of the step; None leaves them as they are.
        before: mean and variance (M,) of the batch before, each averaged over its views; None at the first step.
    """

    labels: Tensor
    inputs: tuple[Tensor, ...]
    fed: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]
    module: Any
    order: Tensor | None = None
    before: tuple[Tensor, Tensor] | None = None


class LossTerms(Protocol):
    """The loss of a layer of its own (see ``hebb.rules``)."""

    def __call__(self, views: tuple[Tensor, ...], layer: LayerFields, context: LossContext, /) -> dict[str, Tensor]:
        """Return the terms by name; they are summed with the layer's fields of the same names as coefficients."""
        ...


class LayerModule(Protocol):
    """The layer of a block."""

    def __call__(self, fan_in: int, width: int, layer: LayerFields, /) -> Module:
        """Return a module from (B, fan_in, H, W) or (B, fan_in) to u, with ``weight`` and maybe ``initialise``.

        ``compute_dtype`` needs an attribute ``product_dtype``, which a run sets to torch's type for its products; u has
        the type of its input nevertheless.
        """
        ...


class Projector(Protocol):
    """What a local loss reads in place of the block's output."""

    def __call__(self, width: int, layer: LayerFields, /) -> Module:
        """Return a module from (B, width, H, W) or (B, width) to (B, ``projector_out``); its weights learn too."""
        ...


class StoredTensors(Protocol):
    """The tensors that a layer of a settling network stores."""

    def __call__(self, fan_in: int, width: int, first: bool, last: bool, /) -> dict[str, tuple[tuple[int, ...], float]]:
        """Return shape and bound by name; a tensor starts uniform in +-bound (``lateral``: ``hebb.energy.layer``)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One learning method, as the grammar, the layers and the trainer see it; the base of the four records.

    Attributes:
        name: canonical name, the first word of a preset string.
        summary: one line for ``--list methods``.
        source: paper and equation.
        fields: names of the shared fields (``hebb.config.fields``) it reads besides the layer's geometry.
        own_fields: fields that only this rule has.
        defaults: per architecture, the defaults in which it departs from ``preset.json``.
        archs: the architectures it is defined for.
        views: how many views of an image a batch must carry.
        mode: training mode of a network with such a block, where none is asked for; None has no preference.
        labels: whether the rule reads the labels.
        check: raises for values of a layer that do not fit each other.
    """

    learning: ClassVar[Learning]

    name: str
    summary: str
    source: str
    fields: tuple[str, ...] = ()
    own_fields: tuple[Field, ...] = ()
    defaults: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    archs: tuple[str, ...] = ARCHS
    views: int = 1
    mode: str | None = None
    labels: bool = False
    check: Check | None = None

    def __new__(cls, *values: Any, **named: Any) -> Rule:
        """Raise for the base itself, which stood for all four records once."""
        if cls is Rule:
            kinds: tuple[type[Rule], ...] = (HebbianRule, LocalRule, BackpropRule, SettlingRule)
            kind = next((k for k in kinds if k.learning == named.get("learning", Learning.HEBBIAN)), HebbianRule)
            raise ConfigError(
                f"method '{named.get('name', '')}'",
                f"Rule(...) must be {kind.__name__}(...)",
                hint=f"write {kind.__name__}, and leave out learning=",
            )
        return super().__new__(cls)

    def fields_on(self, arch: str) -> dict[str, Field]:
        """Return the fields that the rule reads on an architecture, by name, in the order of the table."""
        names = {*GEOMETRY, *self.fields}
        shared = {name: entry for name, entry in FIELDS.items() if name in names}
        own = {entry.name: entry for entry in self.own_fields}
        return {name: entry for name, entry in (shared | own).items() if arch in entry.archs}


@dataclass(frozen=True, kw_only=True)
class HebbianRule(Rule):
    """A layer-local rule whose step the layer makes: dw = sum_b y x - (sum_b y u) w.

    Attributes:
        signal: the plastic gate y; with a state, its last argument is the state that ``advance`` returned.
        softmax: says that the signal of a layer is a softmax. A convolution then computes it in one pass with its
            products, where that takes less time than to call the signal.
        decay: what is taken from sum_b y x; None: (sum_b y u) w. A decay of its own sees what ``effective`` makes
            of w.
        effective: the weights as the input meets them; None: sign(w)|w|^(p-1).
        project: what the weights become after a step; None: they stay.
        rivals: the response by which neurons compete; None: the one that the layer passes on.
        state: what the rule keeps from update to update.
        advance: the state of this batch; it comes before the signal.
        initialise: the initial weights; None: the layer's own, of mean radius R.
        floor: what is added to the largest entry of a change before it divides the change.
        answers_updated: while it learns, the block passes on what it answers after the update and with running
            batch statistics; else what it answered before it, with those of the batch.
        bias_step: the change of the bias; None: the rule has no bias.
    """

    learning: ClassVar[Learning] = Learning.HEBBIAN

    signal: Signal | StateSignal
    softmax: DeclaredSoftmax | None = None
    decay: Decay | None = None
    effective: WeightLaw | None = None
    project: WeightLaw | None = None
    rivals: Response | None = None
    state: tuple[State, ...] = ()
    advance: Advance | None = None
    initialise: Initialise | None = None
    floor: float = 1e-30
    answers_updated: bool = False
    bias_step: BiasStep | None = None

    def __post_init__(self) -> None:
        if bool(self.state) != (self.advance is not None):
            raise ConfigError(f"rule '{self.name}'", "must have both a state and a function advance, or neither")
        if self.softmax is not None and (self.labels or self.state or self.rivals or self.decay):
            problem = "cannot declare a softmax and have labels, a state, rivals or a decay of its own"
            raise ConfigError(f"rule '{self.name}'", problem)

    @property
    def keeps_maps(self) -> bool:
        """Whether the state holds maps of u."""
        return any(state.maps for state in self.state)


@dataclass(frozen=True, kw_only=True)
class LocalRule(Rule):
    """A loss of the layer's own, which an optimiser descends.

    Attributes:
        loss: the terms of the loss.
        module: makes the layer, which draws its weights by ``initialise(generator)`` if it has that; None: a linear map
            or a convolution.
        partners: whether ``context.order`` is drawn: a cyclic shift of the images by 1 to B - 1.
        projector: makes the projector of a layer with ``projector=1``; None: an MLP on the mean over the map.
        decoupled: whether ``weight_decay`` is that of AdamW (Loshchilov & Hutter 2019) on every parameter: each update
            first multiplies all of them by 1 - rate times decay. If not, it is a penalty in the gradient of weights.
    """

    learning: ClassVar[Learning] = Learning.LOCAL

    loss: LossTerms
    module: LayerModule | None = None
    partners: bool = False
    projector: Projector | None = None
    decoupled: bool = False


@dataclass(frozen=True, kw_only=True)
class BackpropRule(Rule):
    """The gradient of the network's loss, which an optimiser descends."""

    learning: ClassVar[Learning] = Learning.BACKPROP


@dataclass(frozen=True, kw_only=True)
class SettlingRule(Rule):
    """A network that settles and learns as a whole (``hebb.energy``).

    Attributes:
        settings: the settings of the network, each with a default.
        check_settings: raises for settings that do not fit each other.
        tensors: what a layer stores.
        network: returns the subclass of ``hebb.energy.network.EnergyNetwork``.
    """

    learning: ClassVar[Learning] = Learning.SETTLE

    settings: tuple[Field, ...] = ()
    check_settings: Check | None = None
    tensors: StoredTensors
    network: Callable[[], type]
