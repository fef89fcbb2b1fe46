"""Replay recorded plasticity steps through our layers.

    python tests/golden_replay.py FILE...

Prints one line ``NAME max_abs_error`` per file: the largest difference over u, dw, w, b and convergence. Exits with
1 if one exceeds 1e-5, with 2 if a file cannot be used. ``tests/golden/README.md`` describes the format.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hebb import builtin
from hebb.config import catalog
from hebb.config.registry import RULES
from hebb.config.specs import make_layer
from hebb.core.errors import ConfigError, HebbError
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer
from hebb.rules import rates

TOLERANCE = 1e-5
_OTHER_NAMES = {"bias": "add_bias", "out_features": "out_channels"}


def build(config: dict[str, object]) -> HebbLayer:
    """Make the layer that a file's ``config`` describes."""
    arch = {"conv2d": "CNN", "linear": "MLP"}[str(config["layer"])]
    rule = RULES.get(str(config["method"]), "method")
    legal = rule.fields_on(arch)
    ours = {_OTHER_NAMES.get(key, key): value for key, value in config.items()}
    values = {name: value for name, value in ours.items() if name in legal}
    if values.get("lr_decay") not in (None, "linear", "exp"):
        values["lr_decay"] = "constant"
    values.update({"speed": 7, "lr_div": 96})
    spec = make_layer(rule.name, arch, values, catalog.load().defaults, "config")
    if arch == "CNN":
        return ConvHebbLayer(spec, int(str(config["in_channels"])), spec.out_channels)
    return LinearHebbLayer(spec, int(str(config["in_features"])), spec.out_channels)


def replay(path: Path) -> float:
    """Return the largest difference between the file and our layer."""
    with np.load(path) as stored:
        file = {key: stored[key] for key in stored.files}
    config = json.loads(str(file["config"]))
    layer = build(config)
    steps = sum(key[0] == "x" and key[1:].isdigit() for key in file)
    ratio = float(config.get("lr_decay_ratio") or 0)
    updates = float(config.get("lr_decay_nb_epochs") or 0) / ratio if ratio else 0.0
    layer.weight.copy_(torch.from_numpy(file["w0"]))
    if layer.bias is not None and "b0" in file:
        layer.bias.copy_(torch.from_numpy(file["b0"]))
    worst = 0.0
    for step in range(steps):
        labels = torch.from_numpy(file[f"labels{step}"]) if f"labels{step}" in file else None
        x = layer.prepare(torch.from_numpy(file[f"x{step}"]))
        u = layer.respond(x)
        dw, db = layer.plasticity(x, u, labels)
        worst = max(worst, _difference(u, file, f"u{step}"), _difference(dw, file, f"dw{step}"))
        layer.step(dw, db, rates.scheduled(layer.spec, step, updates))
        worst = max(worst, _difference(layer.weight, file, f"w{step + 1}"))
        if layer.bias is not None:
            worst = max(worst, _difference(layer.bias, file, f"b{step + 1}"))
    return max(worst, _difference(layer.convergence(), file, "convergence"))


def _difference(ours: torch.Tensor, file: dict[str, np.ndarray], key: str) -> float:
    if key not in file:
        return 0.0
    theirs = torch.from_numpy(np.asarray(file[key]))
    if ours.shape != theirs.shape:
        raise ConfigError(key, f"shape {tuple(theirs.shape)} in the file, {tuple(ours.shape)} in our layer")
    gap = (ours - theirs).abs().max().item()
    return gap if gap == gap else float("inf")


def main(arguments: list[str]) -> int:
    """Replay every file named on the command line."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    builtin.load()
    status = 0
    for name in arguments:
        try:
            error = replay(Path(name))
        except (HebbError, OSError, ValueError, KeyError) as problem:
            print(f"{name}: {problem}", file=sys.stderr)
            return 2
        print(f"{Path(name).stem} {error:.3g}")
        status = max(status, int(error > TOLERANCE))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
