"""The local loss of a block: its head, and the state it needs beside the rule's formula.

The output of the block (views x B rows, one view after the other) is averaged over the map, or over ``head_map`` parts
of it each way, passes the layer's projector and classifier if it has them, and is split into views for ``rule.loss``.
A projector of the rule's own reads the maps themselves. The input of a block carries no gradient, so the loss trains
this block alone.

Shapes: B batch, C channels, H height, W width, M features that the loss compares.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hebb.config.rule import LocalRule, LossContext
from hebb.config.specs import LayerSpec
from hebb.config.vocabulary import LossSource
from hebb.core import initial, machine
from hebb.kernels.precision import Total
from hebb.nn import contracts

_FINITE = "finite"


class Pass(NamedTuple):
    """What a block computed of a batch before its activation.

    Attributes:
        inputs: (views x B, ...), the input of the block, without a graph.
        fed: the input of its layer.
        answers: u, the output of its layer.
        layer: its layer.
    """

    inputs: Tensor
    fed: Tensor
    answers: Tensor
    layer: nn.Module


class Orders(NamedTuple):
    """The orders of the batches of an epoch, drawn before it and sent to the device.

    Attributes:
        rows: int64 (updates, B), an order for each batch of B images.
        place: int64 (1,), the number of the update on the device.
    """

    rows: Tensor
    place: Tensor


def averaged(maps: Tensor, size: int) -> Tensor:
    """Average maps (B, C, H, W) to (B, C, size, size) as ``F.adaptive_avg_pool2d``.

    As two products: the gradient of the pool adds up in any order on a GPU, and would not repeat its bits.
    """
    rows, columns = (_parts(length, size, maps.dtype, maps.device) for length in maps.shape[2:])
    return rows @ (maps @ columns.T)


@functools.cache
def _parts(length: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix (size, length) whose row i averages pixels from floor(i L/s) to below ceil((i + 1) L/s).

    The updates of a run share it: making it anew takes longer than the products.
    """
    part, pixel = (torch.arange(n, device=device) for n in (size, length))
    first, end = part * length // size, ((part + 1) * length + size - 1) // size
    inside = (pixel >= first.unsqueeze(1)) & (pixel < end.unsqueeze(1))
    return inside.to(dtype) / (end - first).unsqueeze(1)


class LocalLoss(nn.Module):
    """The head and the loss of one block.

    Args:
        spec: the layer.
        width: channels or neurons of the block's output.
        classes: number of labels, for a rule that reads them.

    Attributes:
        head: projector and classifier; empty without them.
        ordered: whether an order is drawn for each batch, for ``shuffle`` or a rule with partners.
        positives: generator of the orders, the same in every block; None: torch's global generator.
        drawn: orders that ``positives`` has drawn for batches of their size; None: each batch draws its own.
        mean, variance: (M,) statistics of the previous batch, with ``stale``.
        updates: number of updates in this epoch.
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor
    _started: bool

    def __init__(self, spec: LayerSpec, width: int, classes: int) -> None:
        super().__init__()
        if not isinstance(spec.rule, LocalRule):
            raise TypeError(f"the rule of a local loss must be a LocalRule, got {spec.method}")
        self.spec, self.rule = spec, spec.rule
        self._new = True  # the loss was not called yet
        self.head, width = self._head(width, classes)
        self.positives: torch.Generator | None = None
        self.drawn: Orders | None = None
        self._sums: dict[str, Total] = {}
        self.ordered = (spec.shuffle or self.rule.partners) and spec.loss == LossSource.OWN
        self.stale = spec.stale and spec.loss == LossSource.OWN
        if self.stale:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("variance", torch.zeros(width))
            self.register_buffer("seen", torch.zeros((), dtype=torch.bool))
        self.reset_statistics()

    def _head(self, width: int, classes: int) -> tuple[nn.Module, int]:
        """Return the head and the number of features that the loss compares."""
        spec, modules = self.spec, list[nn.Module]()
        if spec.loss != LossSource.OWN:
            return nn.Sequential(), width
        if self._projects_maps:
            assert self.rule.projector is not None
            modules.append(contracts.require_module(self.rule, "projector", self.rule.projector(width, spec)))
        elif spec.projector:
            sizes = (width * spec.head_map**2, spec.projector_hidden, spec.projector_out)
            for fan_in, fan_out in itertools.pairwise(sizes):
                modules += [nn.Linear(fan_in, fan_out, bias=spec.add_bias), nn.ReLU()]
        width = spec.projector_out if spec.projector else width * spec.head_map**2
        if spec.rule.labels:
            modules.append(nn.Linear(width, classes))
            width = classes
        return nn.Sequential(*modules), width

    @property
    def _projects_maps(self) -> bool:
        return self.rule.projector is not None and self.spec.projector

    def forward(self, out: Tensor, labels: Tensor, made: Pass) -> Tensor:
        """Return the loss of a batch.

        Args:
            out: (views x B, C, H, W) or (views x B, M), the output of the block.
            labels: (views x B,) int64.
            made: how the block computed it.
        """
        views = self.read(out).chunk(self.rule.views)
        context = LossContext(
            labels=labels[: len(views[0])],
            inputs=made.inputs.chunk(self.rule.views),
            fed=made.fed.chunk(self.rule.views),
            answers=made.answers.chunk(self.rule.views),
            module=made.layer,
            order=self._order(views[0]) if self.ordered else None,
            before=self._before(views) if self.stale else None,
        )
        inputs = contracts.Inputs(views=views[0], labels=context.labels, inputs=made.inputs) if self._new else None
        terms = self.rule.loss(views, self.spec, context)
        contracts.require_terms(self.rule, terms)
        loss = torch.stack([self.spec.coefficient(name) * term for name, term in terms.items()]).sum()
        if inputs is not None:
            self._new = False
            inputs.check(self.rule, "loss", loss)
            contracts.require_gradient(self.rule, loss, made.answers)
        self._count({"loss": loss, **terms})
        return loss

    def read(self, out: Tensor) -> Tensor:
        """Return the features that the loss compares: (views x B, M), or the maps with ``pooling=0``."""
        if out.dim() == 4 and self.spec.pooling and not self._projects_maps:
            out = out.mean(dim=(2, 3)) if self.spec.head_map == 1 else averaged(out, self.spec.head_map).flatten(1)
        projected: Tensor = self.head(out)
        return projected

    def _order(self, view: Tensor) -> Tensor:
        """Draw the order of the images on the host, and send it to the device of ``view``."""
        if self.drawn is not None and len(view) == self.drawn.rows.shape[1]:
            return self.drawn.rows.index_select(0, self.drawn.place)[0]
        return machine.upload(self.draw(len(view)), view.device)

    def draw(self, images: int) -> Tensor:
        """Draw an order of that many images: any, or a cyclic shift for a rule with partners."""
        if not self.rule.partners:
            return torch.randperm(images, generator=self.positives)
        return (torch.arange(images) + torch.randint(1, images, (), generator=self.positives)) % images

    @torch.no_grad()
    def _before(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor] | None:
        """Return the statistics of the previous batch, and store those of this one."""
        before = (self.mean.clone(), self.variance.clone()) if self._started else None
        self.mean.copy_(torch.stack([z.mean(dim=0) for z in views]).mean(dim=0))
        self.variance.copy_(torch.stack([z.var(dim=0) for z in views]).mean(dim=0))
        self.seen.fill_(True)
        self._started = True
        return before

    # -- measures -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _count(self, terms: dict[str, Tensor]) -> None:
        self.updates += 1
        for name, term in {**terms, _FINITE: terms["loss"].isfinite()}.items():
            if name not in self._sums:
                self._sums[name] = Total(device=term.device)
            self._sums[name].add(term.detach())

    def means(self) -> dict[str, float]:
        """Return the mean of the loss and of each term over this epoch's updates; this waits for the device."""
        return {name: float(total) / self.updates for name, total in self.sums().items()}

    def sums(self) -> dict[str, Tensor]:
        """Return the sums of the loss and of each term over this epoch's updates, on the device."""
        return {name: total.value() for name, total in self._sums.items() if name != _FINITE}

    def finite_updates(self) -> int:
        """Count the updates of this epoch whose loss was finite."""
        return int(self._sums[_FINITE].value()) if self.updates else 0

    def reset_statistics(self) -> None:
        """Reset the sums of the terms, in place."""
        for total in self._sums.values():
            total.zero()
        self.updates = 0
        self._started = self.stale and bool(self.seen)  # read once an epoch, because it waits for the device

    # -- initialisation and training ----------------------------------------------------------------------

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights and biases of the head's products as torch does: uniform in +-1/sqrt(fan-in)."""
        for module in self.head.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                bound = initial.torch_bound(module.weight[0].numel())
                for parameter in module.parameters():
                    initial.draw_uniform(parameter, bound, generator)
