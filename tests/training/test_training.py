"""``train.run``: phases in order, equal bits, resuming, validation, divergence, records.

Without it a seed, an order or a validation set could be ignored, and accuracies would look normal.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small
import torch
from torch import nn

from hebb.config import plan
from hebb.config.phase import Phase
from hebb.config.serialise import run_from_json
from hebb.config.vocabulary import Role
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data import images
from hebb.nn import model
from hebb.probing import readout
from hebb.storage import folders, records
from hebb.training import engine, train
from hebb.training.epoch import Epoch

NETWORKS = {
    "cnn": small.CNN,
    "deep": small.DEEP,
    "bp": small.BP,
    "mixed": small.MIXED,
    "mlp": small.MLP,
    "hebbian classifier": small.HEBBIAN_CLASSIFIER,
    "bcm": "BCM-c8-k3-p1:bn:triangle:surround=3 BP:flatten",
    "affine norm and residual": "BP-c8-k3-p1:bn_affine:leaky:max_2_2_0:residual BP:flatten",
    "sphere": "SPHeRe-c8-k3-p1-ls0.01:bn_affine:leaky:max_2_2_0:residual BP:flatten",
    "scff": "SCFF-c8-k3-p1:relu:max_2_2_0 BP:flatten",
}


def weights(result: train.Result) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in result.network.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in {*first, *second})


@pytest.mark.parametrize("mode", plan.MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_in_every_mode(name: str, mode: str) -> None:
    """Twice the same bits; every block's weights move; the last row carries a test accuracy above chance."""
    made = small.config(NETWORKS[name], "dataset_sup.epochs=4", "classifier.lr=0.02", mode=mode)
    first, second = small.run(made), small.run(made)
    assert equal(weights(first), weights(second))
    assert [{**r, "images_per_second": 0} for r in first.rows] == [{**r, "images_per_second": 0} for r in second.rows]
    start = model.build(made).state_dict()
    for i in range(len(made.network.blocks)):
        assert not torch.equal(
            first.network.state_dict()[f"blocks.{i}.layer.weight"], start[f"blocks.{i}.layer.weight"]
        )
    assert first.metrics["test_acc"] > 20


def test_seed_varies_initialisation_and_order() -> None:
    first, second = (small.run(small.config(seed=s)) for s in (0, 1))
    assert not torch.equal(first.network[0].layer.weight, second.network[0].layer.weight)
    at = [
        Epoch(seed=s, phase=plan.phases(small.config())[0], phase_index=p, epoch=e)
        for s, p, e in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    orders = [tuple(torch.randperm(50, generator=a.order()).tolist()) for a in at]
    assert len(set(orders)) == 4


def test_frozen_blocks_do_not_move() -> None:
    made = small.config(small.DEEP, training_blocks=(1,))
    start, end = model.build(made).state_dict(), weights(small.run(made))
    moved = {name for name in end if name.endswith("weight") and not torch.equal(start[name], end[name])}
    assert moved == {"blocks.1.layer.weight"}


def test_end_to_end_and_blockwise_back_prop_differ() -> None:
    """By default one phase trains all BP blocks; with bp_blockwise every phase moves one block alone."""
    together = small.config(small.BP)
    apart = small.config(small.BP, bp_blockwise=True)
    assert [p.blocks for p in plan.phases(together)] == [(0, 1, 2)]
    assert [p.blocks for p in plan.phases(apart)] == [(0,), (1,), (2,)]
    assert not equal(weights(small.run(together)), weights(small.run(apart)))


# -- the random arm -------------------------------------------------------------------------------------------


def test_calibration_normalises_frozen_blocks() -> None:
    """After the pass a frozen block's input has mean 0 and variance 1 over the data, and its weights stay random."""
    made = small.config(small.DEEP, training_blocks=(2,))
    result = small.run(made)
    assert equal(
        {"w": model.build(made)[1].layer.weight},
        {"w": result.network[1].layer.weight},  # type: ignore[dict-item]
    )
    data = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu")).train
    x = images.as_float(data.images)
    for i in range(2):
        norm = result.network[i].before[0]
        assert isinstance(norm, nn.BatchNorm2d)
        y = norm(x)
        assert y.mean((0, 2, 3)).abs().max() < 0.05
        assert (y.var((0, 2, 3)) - 1).abs().max() < 0.1
        x = result.network[i](x)


def test_calibrated_momentum_is_put_back() -> None:
    result = small.run(small.config(small.DEEP, training_blocks=(2,)))
    norm = result.network[0].before[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1


# -- engine ---------------------------------------------------------------------------------------------------


def test_hebbian_epoch_is_layer_steps_in_the_seeded_order() -> None:
    """The engine adds nothing: its epoch equals a loop over ``layer.learn``."""
    made = small.config("Soft-c7-t2-lr0.1:flatten BP", "dataset_unsup.batch_size=64")
    phase = plan.phases(made)[0]
    split = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu")).train
    at = Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    ours, by_hand = model.build(made), model.build(made)
    engine.hebbian(ours, split, at, lambda n: None)
    order = torch.randperm(len(split), generator=at.order())
    layer = by_hand[0].hebb
    assert layer is not None
    for index in order.split(64):
        layer.learn(split.images[index].flatten(1).float() / 255)
    assert torch.equal(ours[0].layer.weight, layer.weight)


def test_back_prop_epoch_is_adam_on_the_cross_entropy() -> None:
    made = small.config("BP-c9:flatten:relu BP")
    phase = plan.phases(made)[0]
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train
    at = Epoch(seed=0, phase=phase, phase_index=0, epoch=0)
    ours, by_hand = model.build(made), model.build(made)
    scores = engine.backprop(ours, split, at, torch.optim.Adam(ours.parameters(), lr=1e-3), lambda n: None)
    optimiser, losses = torch.optim.Adam(by_hand.parameters(), lr=1e-3), []
    for index in torch.randperm(len(split), generator=at.order()).split(20):
        loss = nn.functional.cross_entropy(by_hand(split.images[index].float() / 255), split.labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert torch.allclose(ours[0].layer.weight, by_hand[0].layer.weight)
    assert scores.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_evaluation_is_per_sample() -> None:
    """Mean loss and accuracy do not depend on the batch size."""
    made = small.run(small.config()).network
    split = images.load(small.config().dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test
    whole, parts = engine.evaluate(made, split, 10_000), engine.evaluate(made, split, 7)
    logits = made(images.as_float(split.images))
    assert whole.loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.accuracy == whole.accuracy == 100 * (logits.argmax(1) == split.labels).double().mean().item()


def test_neuron_labels_of_a_known_layer() -> None:
    """Neuron i wins class i, neuron 2 never wins: its label is irrelevant; accuracy is counted by hand."""
    made = model.build(small.config("Soft-c3-t1:flatten", "b0.layer.radius=1"))
    layer = made[0].hebb
    assert layer is not None
    layer.weight.zero_()
    layer.weight[0, 0], layer.weight[1, 1] = 1.0, 1.0
    layer.weight[2] = -1.0
    pictures = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    for i, pixel in enumerate([0, 0, 1, 1, 0, 1]):  # the last two are won by the other class's neuron
        pictures[i].view(-1)[pixel] = 255
    split = images.Split(pictures, labels)
    train_acc, none, test_acc = readout.neuron_label_accuracies(
        made, 0, split, [None, images.Split(pictures[:4], labels[:4])]
    )
    assert train_acc == pytest.approx(100 * 4 / 6)
    assert none is None
    assert test_acc == 100


@pytest.mark.parametrize("mode", plan.MODES)
def test_hebbian_divergence_names_block_and_update(mode: str) -> None:
    made = small.config(small.DEEP, "b1.layer.lr=1e30", "b1.layer.adaptive=0", "b1.layer.lr_decay=constant", mode=mode)
    with pytest.raises(DivergenceError, match=r"block b1 .* update \d+ of epoch 1"):
        small.run(made)


def test_loss_divergence_names_block_and_update() -> None:
    with pytest.raises(DivergenceError, match=r"loss of backprop b0 b1 is not finite from update \d+ of epoch 1"):
        small.run(small.config("BP-c9:flatten:relu BP", "classifier.lr=1e30"))


# -- validation -----------------------------------------------------------------------------------------------


def test_validation_keeps_the_test_set_closed_until_the_end() -> None:
    made = small.config(small.CNN, "dataset_sup.epochs=3", "dataset_sup.validation=0.2", "dataset_unsup.validation=0.2")
    rows = small.run(made).rows
    assert all(row["test_acc"] is None for row in rows[:-1])
    assert rows[-1]["test_acc"] is not None
    assert all(row["val_acc"] is not None for row in rows if row["kind"] == "backprop")


def test_a_classifier_trains_on_the_held_images() -> None:
    """A fifth of 200 images is 40; the blocks below have seen the others, and no image is left for validation."""
    counts: list[int] = []

    class Counts(train.Report):
        def phase(self, index: int, phase: Phase, epoch: int, images: int) -> None:
            counts.append(images)

    made = small.config(small.CNN, "dataset_sup.held=true", *(f"dataset_{role}.validation=0.2" for role in Role))
    rows = train.run(made, Counts(), place=train.Place(datasets=Path("nowhere"))).rows
    assert counts == [160, 40]
    assert rows[-1]["test_acc"] is not None
    assert all(row["val_acc"] is None for row in rows if row["kind"] == "backprop")


# -- records and resuming -------------------------------------------------------------------------------------


def test_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = small.config(small.CNN, "dataset_sup.epochs=2")
    result = small.run(made, folder)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events")}
    assert names == {"config.json", "environment.json", "metrics.jsonl", "blocks.jsonl", "checkpoint", "result.json"}
    config = json.loads((folder / "config.json").read_text())
    assert [p["kind"] for p in config.pop("phases")] == ["hebbian", "backprop"]
    assert run_from_json(config, "config.json") == result.config
    rows = folders.read_rows(folder / "metrics.jsonl")
    assert rows == result.rows
    assert [tuple(row) for row in rows] == [records.COLUMNS] * 3
    assert [row["step"] for row in rows] == [10, 20, 30]
    environment = json.loads((folder / "environment.json").read_text())
    assert set(environment) >= {"commit", "dirty", "versions", "machine", "paths", "data_sha256"}
    assert json.loads((folder / "result.json").read_text())["metrics"] == rows[-1]
    assert str(tmp_path) not in (folder / "config.json").read_text()


def test_tensorboard_has_scalars_and_filters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = small.run(small.config(), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert "weights/b0 filters" in events.Tags()["images"]
    last = events.Scalars("accuracy/test")[-1]
    assert (last.step, last.value) == (result.metrics["step"], pytest.approx(result.metrics["test_acc"]))
    layer = result.network[0].hebb
    assert layer is not None
    assert layer.bias is None
    names = events.Tags()["scalars"]
    assert not [name for name in names if "bias" in name]  # only what exists
    assert min(names) == "accuracy/test"  # TensorBoard sorts its groups
    radius = events.Scalars("training b0/radius_mean")[-1].value
    assert radius == pytest.approx(layer.radius().mean().item())


def test_the_model_of_a_finished_run_is_kept_or_not(tmp_path: Path) -> None:
    kept = small.run(small.config(), tmp_path / "kept")
    small.run(small.config(), tmp_path / "dropped", keep_model=False)
    assert not (tmp_path / "dropped" / "checkpoint").exists()
    fresh = model.build(small.config(seed=9))
    model.load_weights(fresh, tmp_path / "kept" / folders.CHECKPOINT)
    assert equal(weights(kept), fresh.state_dict())


class Stop(train.Report):
    """Interrupts the run after a number of epochs' progress calls."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def progress(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batches", [1, 9, 10, 11, 25, 39, 55])
@pytest.mark.parametrize("network", ["cnn", "mixed"])
def test_a_continued_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path, network: str, batches: int) -> None:
    changes = ("dataset_sup.epochs=4", "dataset_unsup.epochs=2", "dataset_sup.print_freq=2")
    made = small.config(NETWORKS[network], *changes)
    whole = small.run(made, tmp_path / "whole")
    place = train.Place(datasets=Path("nowhere"), folder=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train.run(made, Stop(batches), place=place)
    assert folders.state(tmp_path / "cut") == "interrupted"
    again = small.run(made, tmp_path / "cut", carry_on=True)
    assert equal(weights(whole), weights(again))
    strip = lambda rows: [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]  # noqa: E731
    assert strip(again.rows) == strip(whole.rows)
    assert strip(folders.read_rows(tmp_path / "cut" / "metrics.jsonl")) == strip(whole.rows)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    small.run(small.config(), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--overwrite"):
        small.run(small.config(seed=1), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    small.run(small.config(seed=1), tmp_path / "run", overwrite=True)


def test_bad_data_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "digits.npz").write_bytes(b"not an archive")
    place = train.Place(datasets=tmp_path, folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"digits\.npz"):
        train.run(small.config(), place=place)
    assert not (tmp_path / "run").exists()


def test_stored_weights_as_a_start(tmp_path: Path) -> None:
    """resume=all starts from every stored weight; without_classifier keeps the last block's own."""
    stored = small.run(small.config(), tmp_path / "stored")
    path = tmp_path / "stored" / folders.CHECKPOINT
    frozen = small.config(resume="all", training_blocks=(1,), seed=3)
    result = small.run(frozen, resume_from=path)
    assert torch.equal(result.network[0].layer.weight, stored.network[0].layer.weight)
    assert [p.kind for p in plan.phases(frozen)] == ["backprop"]  # the statistics came along
    with pytest.raises(ConfigError, match="resume"):
        small.run(frozen)
    with pytest.raises(ConfigError, match="not the checkpoint"):
        small.run(small.config(resume="all", resume_sha256="0" * 64), resume_from=path)
