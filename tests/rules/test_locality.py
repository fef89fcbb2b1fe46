"""Layer-local losses train their own block alone, in the training that a run makes.

Without it a gradient could leak from a block to the one below, as back-prop, and a rule would be credited with it.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import small
import torch
from torch import Tensor

from hebb.config.registry import RULES
from hebb.config.vocabulary import Arch, Learning
from hebb.nn import model

BLOCKS = {Arch.CNN: ("{}-c6-k3-p1:relu:max_2_2_0", "{}-c5-k3-p1:relu"), Arch.MLP: ("{}-c6:flatten:relu", "{}-c5:relu")}
TOP = {Arch.CNN: "BP:flatten", Arch.MLP: "BP"}
LOCAL = [(rule.name, Arch(a)) for rule in RULES.entries() if rule.learning == Learning.LOCAL for a in rule.archs]


@functools.cache
def blocks(method: str, arch: Arch, depth: int, mode: str) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Return all tensors of each local block before and after a run of ten updates."""
    text = " ".join([*(block.format(method) for block in BLOCKS[arch][:depth]), TOP[arch]])
    changes = [f"b{i}.layer.warmup=0" for i in range(depth)]
    run = small.config(text, *changes, mode=mode)
    start, done = model.build(run), small.run(run).network
    assert done is not None
    before, after = (
        [{name: tensor.clone() for name, tensor in network[i].state_dict().items()} for i in range(depth)]
        for network in (start, done)
    )
    return before, after


@pytest.mark.parametrize("mode", ["consecutive", "simultaneous"])
@pytest.mark.parametrize(("method", "arch"), LOCAL)
def test_what_stands_above_does_not_train_a_block(method: str, arch: Arch, mode: str) -> None:
    """Block 0 ends with the same bits with block 1 and without it, although both learn on the same batches."""
    (start, above), (end, top) = blocks(method, arch, 2, mode)
    alone = blocks(method, arch, 1, mode)[1][0]
    assert end.keys() == alone.keys()
    assert [name for name in end if not torch.equal(end[name], alone[name])] == []
    for before, after in ((start, end), (above, top)):
        still = [name for name in before if torch.equal(before[name], after[name])]
        assert "layer.weight" in before
        assert "layer.weight" not in still


@pytest.mark.parametrize(("method", "arch"), LOCAL)
def test_the_loss_of_the_classifier_does_not_train_a_block(method: str, arch: Arch) -> None:
    """All at once or the classifier after the blocks: the local blocks end alike."""
    together, before = (blocks(method, arch, 2, mode)[1] for mode in ("simultaneous", "consecutive"))
    for ours, theirs in itertools.zip_longest(together, before):
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
