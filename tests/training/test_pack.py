"""A pack of seeds learns what its members would learn alone.

Without it members of a pack could share an order, a mask or a moment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from hebb.config import plan
from hebb.config.phase import Phase
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind
from hebb.data import images
from hebb.data.images import Split
from hebb.nn import model
from hebb.training import engine, features, pack_run, train
from hebb.training.epoch import Epoch
from hebb.training.optimiser import of_blocks
from hebb.training.pack import Pack, of_members, of_pack

SEEDS = (3, 0, 7)
NETWORKS = {
    "soft": small.CNN,
    "hard": "Hard-c8-k3-p1-lr0.05:bn:relu:max_2_2_0 BP:flatten:drop_0.5",
    "hard krotov": "HardKrotov-c8-k3-p1-a0.3-rank3-lr0.05:maxnorm:relu BP:flatten",
    "bias": "Soft-c30-t12-lr0.045-b1:flatten:normnorm:softmax_5 BP",
    "grouped": "SoftKrotov-c8-k3-p1-t1-lr0.05:bn:triangle Soft-c8-k3-s2-g2-e1:bn_after:triangle:avg_2_2_0 BP:flatten",
    "scheduled": "SoftKrotov-c8-k3-p1-t1-lr0.05-v0:bn:triangle:avg_2_2_0 BP:flatten:drop_0.5",
    "mlp": small.MLP,
    "back-prop": small.BP,
    "norm and residual": "BP-c8-k3-p1:bn_affine:leaky:max_2_2_0:residual Soft-c12-k3-p1:residual BP:flatten",
    "bcm": "BCM-c8-k3-p1:bn:relu:surround=3:dale=1 HardInstar-c8-k3-p1:bn:triangle:avg_2_2_0 BP:flatten",
    "threshold": "ThresholdInstar-c8-k3-p1:bn:triangle:avg_2_2_0 BP:flatten",
    "mixed": small.MIXED,
    "labels": small.HEBBIAN_CLASSIFIER,
}


def members(made: RunConfig) -> list[model.Network]:
    return [model.build(replace(made, seed=seed)) for seed in SEEDS]


def data_of(made: RunConfig) -> Split:
    return images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train


def ten_steps(made: RunConfig) -> RunConfig:
    """Every phase makes ten updates, the last of them smaller."""
    data = replace(made.dataset_sup, samples=95, batch_size=10)
    return replace(made, dataset_sup=data, dataset_unsup=data)


@pytest.mark.parametrize("mode", ["successive", "consecutive", "simultaneous"])
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_steps_of_a_pack_are_those_of_its_members(name: str, mode: str) -> None:
    made = ten_steps(small.config(NETWORKS[name], mode=mode))
    split, alone, packed = data_of(made), members(made), members(made)
    pack = Pack(packed)
    for index, phase in enumerate(plan.phases(made)):
        at = [Epoch(seed=seed, phase=phase, phase_index=index, epoch=0) for seed in SEEDS]
        own = [split] * len(SEEDS)
        if phase.first:  # the members read the output of their own frozen blocks
            x, _ = next(split.batches(len(split)))
            with torch.no_grad():
                own = [Split(n.eval()(x, stop=phase.first).contiguous(), split.labels) for n in alone]
        optimiser = of_blocks(made, phase, pack.learnt)
        told: list[int] = []
        if optimiser is None:
            pack.hebbian(own, at, told.append)
            scores = [engine.hebbian(n, s, a, lambda _: None) for n, s, a in zip(alone, own, at, strict=True)]
        else:
            found = pack.backprop(own, at, optimiser, told.append)
            scores = []
            for network, part, epoch in zip(alone, own, at, strict=True):
                single = train.optimiser_of(made, phase, network)
                assert single is not None
                scores.append(engine.backprop(network, part, epoch, single, lambda _: None))
            for one, other in zip(found, scores, strict=True):
                assert one.loss == pytest.approx(other.loss, rel=1e-4)
                assert one.accuracy == pytest.approx(other.accuracy, abs=1.1)  # one image of 95
        assert told == [10] * 9 + [5]
        for i, (one, other) in enumerate(zip(packed, alone, strict=True)):
            state, expected = one.state_dict(), other.state_dict()
            for key in expected:
                gap = (state[key].double() - expected[key].double()).abs().max()
                scale = 1 if "weight" in key else max(1, float(expected[key].abs().max()))  # variances can be large
                assert gap <= 1e-5 * scale, (SEEDS[i], key, gap)


def test_every_member_has_its_own_moments() -> None:
    """Adam's moments of three members, split and joined again; the number of steps is common to all."""
    weights = torch.nn.Parameter(torch.rand(3, 4, 2))
    optimiser = torch.optim.Adam([weights])
    for _ in range(2):
        weights.grad = torch.rand(3, 4, 2)
        optimiser.step()
    state = optimiser.state_dict()
    members = of_members(state, 3)
    for place, member in enumerate(members):
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(member["state"][0][moment], state["state"][0][moment][place])
        assert member["state"][0]["step"] == 2
    joined = of_pack(members)
    for moment in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(joined["state"][0][moment], state["state"][0][moment])


@pytest.mark.parametrize("change", ["feature_dtype=float32", "feature_dtype=float16", "dataset_sup.mirror=true"])
def test_features_in_one_tensor_are_those_of_each_member(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the features of a pack lie in one tensor; the bits are those of features of each member's own."""
    twice = ("dataset_sup.epochs=2", "dataset_unsup.epochs=2", change)
    made = replace(ten_steps(small.config(small.DEEP, *twice)), device=DeviceKind.CPU, pack=SEEDS)
    configs = [replace(made, seed=seed) for seed in SEEDS]
    places = [train.Place(datasets=Path("nowhere"))] * len(SEEDS)
    apart = train.run_pack(configs, places=places)
    shelves: list[features.Shelf] = []

    class Shelved(pack_run.PackRun):
        def inputs(self, phase: Phase) -> list[images.Images]:
            shelves.append(features.Shelf(members=len(SEEDS)))
            return [member.inputs(phase, shelves[-1]) for member in self.members]

    monkeypatch.setattr(pack_run, "PackRun", Shelved)
    together = train.run_pack(configs, places=places)
    taken = 0 if "mirror" in change else len(SEEDS)  # a shelf has no mirror images
    assert [shelf._taken for shelf in shelves] == [0, taken, taken]
    for one, other in zip(apart, together, strict=True):
        for name, tensor in one.network.state_dict().items():
            assert torch.equal(tensor, other.network.state_dict()[name]), name
