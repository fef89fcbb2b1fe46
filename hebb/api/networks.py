"""``hebb.network``: a network as an ``nn.Module``."""

from __future__ import annotations

from collections.abc import Sequence

from hebb import builtin
from hebb.api.arguments import checked
from hebb.config import catalog
from hebb.core.errors import ConfigError
from hebb.nn.model import Network


@checked
def network(preset: str, *, input_shape: Sequence[int], classes: int, seed: int = 0) -> Network:
    """Build a network with its initial weights.

    Args:
        preset: a name of ``preset.json``, or the network itself, such as ``"Soft-c96-k5-p2:bn:relu BP:flatten"``.
        input_shape: (C, H, W) of an image.
        classes: number of labels, the width of the last block.
        seed: of the initial weights.

    Returns:
        An ``nn.Module`` on the CPU: ``net(x)`` maps images (B, C, H, W), in [0, 1] as networks of this package are
        trained, to logits (B, classes). ``net[i]`` is block i, and ``net[i].learn(x)`` makes a Hebbian update of it.
        ``net(x)`` never learns.

    Raises:
        ConfigError: for a preset that does not exist, or does not fit the images.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError("input_shape", f"must be (channels, height, width), got {shape}")
    if classes < 1:
        raise ConfigError("classes", f"must be a whole number >= 1, got {classes}")
    builtin.load()
    spec = catalog.load().network(preset, "preset")
    return Network(spec, (shape[0], shape[1], shape[2]), classes).initialise(seed)
