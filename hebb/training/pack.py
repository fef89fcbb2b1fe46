"""A pack: several seeds of one network in one process, trained by the same operations.

The tensors of the members are stacked, and the engine's step runs on them under ``torch.vmap``, so rules, layers and
blocks are the same code as in single runs. A convolution of S members becomes one with S groups. A member learns what
it would learn alone, up to the order of sums. A pack pays off on a GPU that a single network leaves idle; on a CPU it
is faster to train the members one after the other.

Shapes: S seeds (members), B images in a batch, N images in a split, K classes.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hebb.config.phase import Phase, PhaseKind
from hebb.core import machine
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data.images import Split
from hebb.kernels.channels_last import Conv2d, Flatten
from hebb.kernels.private_torch import bind
from hebb.nn.blocks import Dropout
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer
from hebb.nn.losses import loss
from hebb.nn.model import Network
from hebb.nn.noise import Noise
from hebb.nn.state import RuleState
from hebb.training import engine
from hebb.training.curves import Curves
from hebb.training.epoch import Epoch, Progress, Scores
from hebb.training.features import Behind, Frozen

Tensors = dict[str, Tensor]
_PREFIX = "network."


class Pack:
    """Networks of one architecture on one device, whose tensors become views of the stacked ones.

    Attributes:
        members: the networks, which always hold what the pack has learnt. Evaluate, measure and save them one by one;
            do not move them to another device, and load weights only in place.
        failed: errors of the members that cannot learn any more, by index. The pack still computes these members:
            they do not affect the others, but removing them would change the order of the others' sums.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        self.members = list(members)
        self.failed: dict[int, DivergenceError] = {}
        self._step = _Step(copy.deepcopy(self.members[0]))
        self._network = self._step.network
        for module in self._network.modules():
            if isinstance(module, ConvHebbLayer | Conv2d | Flatten):
                module.channels_last = False  # torch.vmap knows one order of the dimensions
            if isinstance(module, HebbLayer | RuleState):
                module.unchecked.clear()  # torch.vmap looks at no value; ``rehearse`` does
        self._state: Tensors = {}
        for name, tensor in _tensors(self._network).items():
            stacked = torch.stack([_tensors(member)[name].detach() for member in self.members])
            for i, member in enumerate(self.members):
                bind(member, name, stacked[i])
            self._state[_PREFIX + name] = nn.Parameter(stacked) if isinstance(tensor, nn.Parameter) else stacked

    @property
    def device(self) -> torch.device:
        """The device of all members."""
        return self.members[0].device

    def learnt(self, blocks: Iterable[int]) -> list[nn.Parameter]:
        """Return the stacked parameters of these blocks, in the order of a single network's."""
        names = [f"blocks.{i}.{name}" for i in blocks for name, _ in self._network[i].named_parameters()]
        learnt = (self._state[f"{_PREFIX}{name}"] for name in names)
        return [parameter for parameter in learnt if isinstance(parameter, nn.Parameter)]

    def run_epoch(
        self,
        splits: Sequence[Split],
        epochs: Sequence[Epoch],
        optimiser: torch.optim.Optimizer | None,
        progress: Progress,
        curves: Curves | None = None,
    ) -> list[Scores]:
        """Run ``engine.run_epoch`` for every member; ``progress`` is called once per batch."""
        phase = epochs[0].phase
        if phase.kind == PhaseKind.CALIBRATE:
            tells = [progress, *[lambda _: None] * (len(splits) - 1)]
            members = zip(self.members, splits, epochs, tells, strict=True)
            return [engine.calibrate(member, split, at, tell) for member, split, at, tell in members]
        if not phase.descends:
            return self.hebbian(splits, epochs, progress, curves)
        assert optimiser is not None
        return self.backprop(splits, epochs, optimiser, progress, curves)

    def hebbian(
        self, splits: Sequence[Split], epochs: Sequence[Epoch], progress: Progress, curves: Curves | None = None
    ) -> list[Scores]:
        """Run ``engine.hebbian`` for every member, each on its own split and in its own order."""
        phase = epochs[0].phase
        with self._training(epochs), torch.no_grad():
            if curves is not None:
                curves.begin()
            for update, x, labels in self._batches(splits, epochs):
                self._vmapped(engine.hebbian_step, phase, update)(self._state, x, labels, self._factors(x, phase))
                if curves is not None:
                    curves.update()
                if (update + 1) % engine.CHECK_EVERY == 0:
                    self._check(epochs)
                progress(labels.shape[1])
            self._check(epochs)
        return [Scores() for _ in self.members]

    def backprop(
        self,
        splits: Sequence[Split],
        epochs: Sequence[Epoch],
        optimiser: torch.optim.Optimizer,
        progress: Progress,
        curves: Curves | None = None,
    ) -> list[Scores]:
        """Run ``engine.backprop`` for every member; ``optimiser`` updates the stacked parameters of the phase."""
        phase = epochs[0].phase
        total = engine.Sums(splits[0].labels.device, len(self.members))
        with self._training(epochs):
            if curves is not None:
                curves.begin()
            for update, x, labels in self._batches(splits, epochs):
                step = self._vmapped(engine.backprop_step, phase, update)
                logits, weights = step(self._state, x, labels, self._factors(x, phase))  # (S, B, K)
                losses = torch.vmap(functools.partial(loss, self.members[0].loss))(logits, labels)  # (S,)
                optimiser.zero_grad(set_to_none=True)
                losses.sum().backward()  # no weight is shared: each member gets the gradient of its own loss
                optimiser.step()
                self._write_back(weights)
                total.add(losses.detach(), logits.detach(), labels)
                if curves is not None:
                    curves.update(total)
                if (update + 1) % engine.CHECK_EVERY == 0:
                    self._check(epochs, total)
                progress(labels.shape[1])
            self._check(epochs, total)
        return total.each()

    def rehearse(self, phases: Iterable[Phase]) -> None:
        """Try a step of every phase on a copy; raise when ``torch.vmap`` cannot run it, for example a plugin's rule."""
        device = self.members[0][0].weight.device
        for phase in phases:
            if phase.kind == PhaseKind.CALIBRATE:
                continue
            self._network.eval()
            for i in phase.blocks:
                block = self._network[i].train()
                layer = self.members[0][i].hebb
                if layer is not None:
                    layer.rehearse(block.shapes.layer_in)
            size = (len(self.members), 2)
            x = torch.rand(*size, *self._network[phase.first].shapes.into, device=device)
            labels = torch.zeros(size, dtype=torch.int64, device=device)
            factors = {name: torch.ones(*size, *shape, device=device) for name, shape, _ in self._dropouts(phase)}
            state = {name: tensor.detach().clone() for name, tensor in self._state.items()}
            try:
                if not phase.descends:
                    with torch.no_grad():
                        self._vmapped(engine.hebbian_step, phase, 0)(state, x, labels, factors)
                else:
                    learnt = [t.requires_grad_() for n, t in state.items() if isinstance(self._state[n], nn.Parameter)]
                    logits, _ = self._vmapped(engine.backprop_step, phase, 0)(state, x, labels, factors)
                    torch.autograd.grad(logits.sum(), learnt, allow_unused=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                why = " ".join(str(error).split())[:200]
                raise ConfigError(
                    "--pack-seeds",
                    f"{phase.describe()} cannot be run for several seeds at once: {why}",
                    hint="leave it out: the seeds are then trained one by one",
                ) from None
        self._network.eval()

    # -- one step of all members --------------------------------------------------------------------------

    def _vmapped(self, step: Callable[..., Tensor], phase: Phase, update: int) -> Callable[..., tuple[Tensor, Tensors]]:
        """Return ``step`` of the engine as a function of stacked tensors.

        The function returns the stacked result and, in a joint phase, the new Hebbian weights: a step with gradients
        cannot write them in place.
        """

        def one(state: Tensors, x: Tensor, labels: Tensor, factors: Tensors) -> tuple[Tensor, Tensors]:
            for name, factor in factors.items():
                module = self._network.get_submodule(name)
                assert isinstance(module, Dropout)
                module.noise = _DrawnNoise(factor)
            result = functional_call(self._step, state, (step, x, labels, phase, update))
            replaced = self._plastic(phase) if phase.kind == PhaseKind.JOINT else ()
            return result, {name: state[name] for name in replaced}

        return torch.vmap(one)

    def _plastic(self, phase: Phase) -> list[str]:
        """Return the names of the Hebbian weights and biases of a phase."""
        layers = [(i, layer) for i, layer in self._network.hebbian() if i in phase.blocks]
        return [f"{_PREFIX}blocks.{i}.layer.{name}" for i, layer in layers for name in layer.state_dict()]

    @torch.no_grad()
    def _write_back(self, replaced: Tensors) -> None:
        for name, tensor in replaced.items():
            self._state[name].copy_(tensor)

    def _batches(self, splits: Sequence[Split], epochs: Sequence[Epoch]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (number of the update, x (S, B, ...), labels (S, B))."""
        phase = epochs[0].phase
        update = epochs[0].epoch * phase.updates_per_epoch(len(splits[0]))
        behind = _behind(splits, phase) if self.device.type != "cpu" else None
        if behind is not None:
            splits = [replace(split, finish=behind.finish) for split in splits]
        for x, labels in self._gathered(splits, epochs):
            yield update, x if behind is None else self._through(behind.frozen, x, labels, phase), labels
            update += 1

    @torch.no_grad()
    def _through(self, frozen: Frozen, x: Tensor, labels: Tensor, phase: Phase) -> Tensor:
        """Send the images of all members (S, B, ...) through their own frozen blocks at once."""
        features, _ = self._vmapped(_below, phase, 0)(self._state, frozen.filled(x, dim=1), labels, {})
        return frozen.rounded(features[:, : x.shape[1]])

    def _gathered(self, splits: Sequence[Split], epochs: Sequence[Epoch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x (S, B, ...), labels (S, B))."""
        size, device = epochs[0].phase.batch_size, splits[0].labels.device
        shared = _shared(splits)
        if shared is not None:
            orders = torch.stack([torch.randperm(len(splits[0]), generator=at.order()) for at in epochs])  # (S, N)
            if len(shared) > len(splits[0]):  # each member reads its own part
                orders += len(splits[0]) * torch.arange(len(splits))[:, None]
            images = shared.images
            assert isinstance(images, Tensor)
            for places in machine.upload(orders, images.device).split(size, dim=1):
                x, labels = shared.take(places.flatten())  # one gather for all members
                yield x.unflatten(0, places.shape), labels.view(places.shape)
            return
        own = [s.batches(size, at.order(), at.augmentation(device)) for s, at in zip(splits, epochs, strict=True)]
        for batches in zip(*own, strict=True):
            yield torch.stack([x for x, _ in batches]), torch.stack([labels for _, labels in batches])

    def _factors(self, x: Tensor, phase: Phase) -> Tensors:
        """Draw the dropout factors of every member from its own noise: name of the module -> (S, B, ...)."""
        factors = {}
        for name, shape, drop in self._dropouts(phase):
            drawn = [_noise(member, name).factors((x.shape[1], *shape), drop, x.device) for member in self.members]
            factors[name] = torch.stack(drawn)
        return factors

    def _dropouts(self, phase: Phase) -> Iterator[tuple[str, tuple[int, ...], float]]:
        """List the dropouts of a phase: name, shape of what a sample sends through it, probability."""
        for i in phase.blocks:
            for name, module in self._network[i].named_modules(prefix=f"blocks.{i}"):
                if isinstance(module, Dropout):
                    yield name, self._network[i].shapes.layer_in, module.p

    @contextmanager
    def _training(self, epochs: Sequence[Epoch]) -> Iterator[None]:
        """Put the blocks of the phase in training mode, in the pack and its members, and freeze the rest."""
        phase = epochs[0].phase
        self._network.eval()
        for i in phase.blocks:
            layer = self._network[i].train().hebb
            if layer is not None:
                layer.update_count = 0
        for i in range(len(self._network)):
            for parameter in self.learnt([i]):
                parameter.requires_grad_(i in phase.blocks)
        with ExitStack() as stack:
            for member, at in zip(self.members, epochs, strict=True):
                stack.enter_context(engine.training(member, at))
            yield

    def _check(self, epochs: Sequence[Epoch], total: engine.Sums | None = None) -> None:
        """Note the members with an update that was not finite; raise when all members have failed."""
        for place, (member, at) in enumerate(zip(self.members, epochs, strict=True)):
            if place in self.failed:
                continue
            for i, layer in self._network.hebbian():
                own = member[i].hebb
                assert own is not None
                own.update_count = layer.update_count
            try:
                engine.check_updates(member, at.phase, at.epoch)
                if total is not None:
                    total.check(at.phase, at.epoch, place)
            except DivergenceError as error:
                self.failed[place] = DivergenceError(f"seed {at.seed}: {error}")
        self.raise_failed(every=True)

    def raise_failed(self, *, every: bool = False) -> None:
        """Raise when any member has failed; with ``every``, only when all have."""
        if len(self.failed) >= (len(self.members) if every else 1):
            raise DivergenceError("; ".join(str(self.failed[place]) for place in sorted(self.failed)))


def of_members(state: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split the state of the pack's optimiser into one state for each member."""
    return [
        {
            **state,
            "state": {
                number: {key: _part(value, place) for key, value in of_one.items()}
                for number, of_one in state["state"].items()
            },
        }
        for place in range(count)
    ]


def _part(value: Any, place: int) -> Any:
    """Return a member's part of a moment; the number of steps is the same for all."""
    return value[place] if isinstance(value, Tensor) and value.dim() else value


def of_pack(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the members' states into the state of the pack's optimiser: the inverse of ``of_members``."""

    def joined(number: int, key: str) -> Any:
        values = [state["state"][number][key] for state in states]
        return torch.stack(values) if isinstance(values[0], Tensor) and values[0].dim() else values[0]

    moments = {number: {key: joined(number, key) for key in of_one} for number, of_one in states[0]["state"].items()}
    return {**states[0], "state": moments}


class _Step(nn.Module):
    """Wraps a step of the engine as a module, so that ``functional_call`` can replace the network's tensors."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, step: Callable[..., Tensor], x: Tensor, labels: Tensor, phase: Phase, update: int) -> Tensor:
        return step(self.network, x, labels, phase, update)


class _DrawnNoise(Noise):
    """Dropout factors that were drawn before."""

    def __init__(self, drawn: Tensor) -> None:
        self.drawn = drawn

    def drop_out(self, x: Tensor, drop: float) -> Tensor:
        return x * self.drawn


def _below(network: Network, x: Tensor, labels: Tensor, phase: Phase, update: int) -> Tensor:
    """Run the blocks below a phase, as a step of the engine that learns nothing."""
    features: Tensor = network(x, stop=phase.first)
    return features


def _behind(splits: Sequence[Split], phase: Phase) -> Behind | None:
    """Return how batches are read behind frozen blocks that compute them anew; None where a phase keeps features.

    There the members compute their own, so that a machine without room for them gives the same bits.
    """
    finish = splits[0].finish
    return finish if isinstance(finish, Behind) and not phase.keeps_features else None


def _shared(splits: Sequence[Split]) -> Split | None:
    """Return one split from which a batch of all members is gathered at once; None where there is none.

    Either all members read the same images, or their features lie one after the other in one tensor.
    """
    if all(split.images is splits[0].images and split.finish is splits[0].finish for split in splits):
        return splits[0] if splits[0].gathers else None
    stacked = splits[0].stacked
    if stacked is None or any(split.stacked is not stacked for split in splits):
        return None
    return Split(stacked, splits[0].labels.repeat(len(splits)))


def _tensors(network: Network) -> Tensors:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _noise(network: Network, name: str) -> Noise:
    module = network.get_submodule(name)
    assert isinstance(module, Dropout)
    assert module.noise is not None
    return module.noise
