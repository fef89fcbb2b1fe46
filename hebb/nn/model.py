"""The network: blocks in order. Builds, saves and loads it.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hebb.config import hooks, shapes
from hebb.config.rule import SettlingRule
from hebb.config.specs import NetworkSpec, RunConfig
from hebb.config.vocabulary import ClassifierLoss, DeviceKind, NumberType
from hebb.core import seeds
from hebb.core.errors import ConfigError
from hebb.energy.layer import SettlingLayer
from hebb.energy.network import EnergyNetwork
from hebb.nn import compiled
from hebb.nn.blocks import Block
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.local_loss import LocalLoss
from hebb.storage import checkpoints, folders


class Network(nn.Module):
    """A network of blocks.

    Args:
        spec: its blocks.
        input_shape: (C, H, W) of an image.
        classes: number of labels, the default width of the last block.

    Attributes:
        loss: the loss of its outputs (``hebb.nn.losses``).
        energy: the dynamics of a settling network.
    """

    def __init__(self, spec: NetworkSpec, input_shape: shapes.Shape, classes: int) -> None:
        super().__init__()
        self.spec = spec
        traced = shapes.trace(spec, input_shape, classes)
        layers = _settling_layers(spec, traced)
        self.blocks = nn.ModuleList(
            Block(b, s, classes=classes, settling=g) for b, s, g in zip(spec.blocks, traced, layers, strict=True)
        )
        self.loss = ClassifierLoss.CROSS_ENTROPY
        self.energy: EnergyNetwork | None = None
        if spec.settle is not None:
            self.loss = ClassifierLoss.MSE
            self.energy = _energy(spec.settling_rule)(layers, spec.settle)

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        weight: Tensor = next(iter(self.state_dict().values()))
        return weight.device

    def __getitem__(self, index: int) -> Block:
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block

    def __len__(self) -> int:
        return len(self.blocks)

    def forward(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run blocks ``start`` to ``stop`` (not included); nothing is learnt.

        A settling network settles as a whole, from an image (``start`` 0); the result is block ``stop`` - 1's activity.
        """
        if self.energy is not None:
            if start:
                raise ConfigError(
                    "start", f"must be 0, got {start}: {self.spec.name} settles as a whole, from an image"
                )
            return x if stop == 0 else self.energy.activity(self[0].before(x))[(stop or len(self)) - 1]
        for block in self.blocks[start:stop]:
            x = block(x)
        return x

    def initialise(self, seed: int) -> Network:
        """Draw all weights from ``seed``; each block has its own generator."""
        for i in range(len(self)):
            self[i].initialise(seeds.generator(seed, "initialisation", block=i))
        return self

    def hebbian(self) -> list[tuple[int, HebbLayer]]:
        """List the Hebbian layers with the index of their block."""
        layers = ((i, self[i].hebb) for i in range(len(self)))
        return [(i, layer) for i, layer in layers if layer is not None]

    def learnt(self, blocks: Iterable[int]) -> list[nn.Parameter]:
        """Return the parameters of these blocks that back-prop or a local loss trains."""
        return [parameter for i in blocks for parameter in self[i].parameters()]

    def local(self) -> list[tuple[int, LocalLoss]]:
        """List the local losses with the index of their block."""
        losses = ((i, self[i].local) for i in range(len(self)))
        return [(i, loss) for i, loss in losses if loss is not None]

    @property
    def logit_scale(self) -> float:
        """Factor that turns the output into logits.

        A Hebbian classifier has beta, because its posterior is softmax(beta u); back-prop has 1.
        """
        last = self.spec.blocks[-1]
        return float(last.layer.t_invert) if last.hebbian and last.supervised else 1.0


def _energy(rule: SettlingRule) -> Callable[..., EnergyNetwork]:
    """Return the class of a settling network; raise unless it is one and has the methods that are its own."""
    kind = rule.network()
    if not isinstance(kind, type) or not issubclass(kind, EnergyNetwork):
        raise hooks.broken(rule, "network", f"must return a subclass of EnergyNetwork, got {kind!r}")
    if missing := kind.missing():
        problem = f"must return a class with {' and '.join(missing)}, which {kind.__name__} lacks"
        raise hooks.broken(rule, "network", problem)
    return kind


def _settling_layers(spec: NetworkSpec, traced: tuple[shapes.BlockShapes, ...]) -> list[SettlingLayer | None]:
    """Make the layers of a settling network; None for blocks of other networks, which make their own."""
    if not spec.settles:
        return [None] * len(spec.blocks)
    last = len(spec.blocks) - 1
    return [
        SettlingLayer(block.layer, block_shapes.layer_in[0], block_shapes.out_channels, first=i == 0, last=i == last)
        for i, (block, block_shapes) in enumerate(zip(spec.blocks, traced, strict=True))
    ]


def build(config: RunConfig) -> Network:
    """Build and initialise the network of a run on the CPU, so that all devices start from the same bits."""
    network = Network(config.network, shapes.input_shape(config), config.classes)
    if network.energy is None:
        network.loss = ClassifierLoss(config.classifier.loss)
    if config.compute_dtype != NumberType.FLOAT32:
        _narrow(network, getattr(torch, config.compute_dtype))
    if config.compile:
        compiled.use(network[i] for i in range(len(network)))
    return network.initialise(config.seed)


def _narrow(network: Network, kind: torch.dtype) -> None:
    """Let all layers multiply in a number type, but a classifier that back-prop trains."""
    for i in range(len(network)):
        block = network[i]
        if i == len(network) - 1 and not block.spec.learns_locally:
            continue
        layer: Any = block.layer
        if not hasattr(layer, "product_dtype"):
            problem = f"b{i} is made by {block.spec.layer.method}, whose module has no 'product_dtype'"
            raise ConfigError("compute_dtype", problem, hint="leave it out")
        layer.product_dtype = kind


def load_weights(network: Network, path: Path, *, classifier: bool = True) -> None:
    """Load stored weights strictly: every tensor must exist and have the right shape.

    Args:
        network: the network to fill.
        path: a checkpoint file.
        classifier: whether to load the last block too; otherwise it keeps its initial weights.
    """
    stored = checkpoints.load(path)["model"]
    last = f"blocks.{len(network) - 1}."
    if not classifier:
        stored = {name: t for name, t in stored.items() if not name.startswith(last)}
        stored |= {name: t for name, t in network.state_dict().items() if name.startswith(last)}
    _load_strictly(network, stored, path)


def load_blocks(network: Network, layers: Path | None) -> None:
    """Load every block whose spec names a stored one (``resume=MODEL/bN``)."""
    for i, block in enumerate(network.spec.blocks):
        if block.resume is None:
            continue
        if layers is None:
            raise ConfigError(f"b{i}", f"resume={block.resume} needs a folder of stored blocks")
        path = folders.stored_block(layers, block.resume, f"b{i}")
        _load_strictly(network[i], checkpoints.load(path)["model"], path)


def save_blocks(network: Network, folder: Path) -> None:
    """Write every block to a file of its own, ``bN.pt``."""
    for i in range(len(network)):
        checkpoints.save(folder / f"b{i}.pt", {"model": network[i].state_dict()})


def _load_strictly(module: nn.Module, stored: dict[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    for name in sorted({*own, *stored}):
        if name not in stored or name not in own:
            problem = "lacks" if name in own else "has an extra"
            raise ConfigError(str(path), f"{problem} '{name}'", hint="it stores a network of another architecture")
        if own[name].shape != stored[name].shape:
            raise ConfigError(
                str(path),
                f"'{name}' must be {tuple(own[name].shape)}, got {tuple(stored[name].shape)}",
            )
    module.load_state_dict(stored)


def save(network: Network, path: Path) -> None:
    """Write the weights alone, in the form ``load_weights`` reads."""
    checkpoints.save(path, {"model": network.state_dict()})


def readable(config: RunConfig) -> RunConfig:
    """Return the config with which a stored network is looked into: on the CPU where this machine has no such GPU."""
    return config if config.device == DeviceKind.CPU else replace(config, device=DeviceKind.AUTO)


def device_of(config: RunConfig, index: int = 0) -> torch.device:
    """Return the device of a run; raise if the GPU does not exist."""
    if config.device == DeviceKind.CPU:
        return torch.device("cpu")
    if config.device == DeviceKind.MPS:
        return _apple()
    kind = DeviceKind.XPU if config.device == DeviceKind.XPU else DeviceKind.CUDA
    backend = torch.xpu if kind == DeviceKind.XPU else torch.cuda
    count = backend.device_count() if backend.is_available() else 0
    if config.device == DeviceKind.AUTO and count == 0:
        return torch.device("cpu")
    if index >= count:
        vendor = " that torch can use by xpu" if kind == DeviceKind.XPU else ""
        raise ConfigError(
            "--gpu-id or --device",
            f"this machine has no GPU {index}{vendor}" + (f", only 0 to {count - 1}" if count else ": it has none"),
            hint="give --gpu-id cpu, or leave it out to use what the machine has",
        )
    return torch.device(kind.value, index)


def _apple() -> torch.device:
    """Return the GPU of a Mac; raise where torch has none."""
    if not torch.backends.mps.is_available():
        raise ConfigError(
            "--device",
            "mps is the GPU of a Mac, and torch finds none here",
            hint="leave it out to use what the machine has",
        )
    return torch.device("mps")
