"""``train.run`` on networks that settle: bits, interruptions, failures, records, presets, command lines.

Without it a settling network could die, or continue with other bits, without a word.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from conftest import ROOT, Command

from hebb.config import catalog, plan
from hebb.config.registry import DATASETS, RULES, SettlingRule
from hebb.core import seeds
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data import images
from hebb.energy import diagnostics
from hebb.nn import model
from hebb.storage import folders
from hebb.training import settling, train

CATALOG = catalog.load()
METHODS = [rule.name for rule in RULES.entries() if isinstance(rule, SettlingRule)]
DIGITS = {name: f"2{name}Digits" for name in METHODS}
PUBLISHED = list(csv.DictReader((ROOT / "tests" / "data" / "settling.csv").read_text().splitlines()))


def weights(result: train.Result) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in result.network.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in {*first, *second})


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "images_per_second": 0} for row in rows]


# -- learning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_repeats_itself(method: str) -> None:
    """Twice the same bits; better than four times chance after 15 epochs of 200 images; loss and accuracy fit."""
    made = small.config(DIGITS[method], "dataset_sup.epochs=15", "dataset_sup.print_freq=5")
    first, second = small.run(made), small.run(made)
    assert equal(weights(first), weights(second))
    assert timeless(first.rows) == timeless(second.rows)
    assert [row["test_acc"] is not None for row in first.rows] == [e in (1, 5, 10, 15) for e in range(1, 16)]
    assert {(row["kind"], row["blocks"]) for row in first.rows} == {("settle", "b0 b1")}
    assert first.metrics["test_acc"] > 40
    assert first.metrics["train_loss"] < first.rows[0]["train_loss"]
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test
    x, labels = next(split.batches(len(split)))
    outputs = first.network(x)
    targets = torch.nn.functional.one_hot(labels, 10).float()
    assert first.metrics["test_loss"] == pytest.approx(float(((outputs - targets) ** 2).mean()), rel=1e-4)
    assert first.metrics["test_acc"] == pytest.approx(100 * float((outputs.argmax(1) == labels).float().mean()))


@pytest.mark.parametrize("mode", plan.MODES)
def test_in_every_mode_the_network_learns_as_a_whole(mode: str) -> None:
    phases = plan.phases(small.config("EP-c9:flatten EP-c8 EP", mode=mode))
    assert [(phase.kind, phase.blocks, phase.data) for phase in phases] == [("settle", (0, 1, 2), "sup")]


def test_an_epoch_is_a_loop_over_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded order, seeded signs, the schedule's factor, and nothing else."""
    made = small.config("settle:decay=0.5 CorInfoMax-c9-lr0.5:flatten CorInfoMax-lf0.1", "dataset_sup.epochs=2")
    ours = small.run(made)
    by_hand = model.build(made)
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train
    assert by_hand.energy is not None
    for epoch in range(2):
        order = torch.randperm(len(split), generator=seeds.generator(0, "order", 0, 0, epoch))
        drawn = torch.randint(2, (10,), generator=seeds.generator(0, "nudge", 0, 0, epoch))
        for index, up in zip(order.split(20), drawn.tolist(), strict=True):
            x = split.images[index].flatten(1).float() / 255
            target = torch.eye(10)[split.labels[index]]
            by_hand.energy.learn(x, target, 1 if up else -1, 0.5**epoch)
    assert equal(weights(ours), by_hand.state_dict())


def test_the_seed_varies_initial_weights_order_and_sign() -> None:
    first, second = (model.build(small.config("EP-c9:flatten EP", seed=s)) for s in (0, 1))
    assert not torch.equal(first[0].layer.weight, second[0].layer.weight)
    signs = [torch.randint(2, (64,), generator=seeds.generator(s, "nudge", 0, 0, e)) for s in (0, 1) for e in (0, 1)]
    assert len({tuple(found.tolist()) for found in signs}) == 4


@pytest.mark.parametrize("batches", [1, 9, 10, 25])
@pytest.mark.parametrize("method", METHODS)
def test_a_continued_run_has_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, method: str, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, Adam's moments, rows, and what was seen of the blocks."""
    monkeypatch.setattr(settling, "LOOK_EVERY", 3)
    made = small.config(f"settle:decay=0.9 {method}-c9:flatten {method}", "dataset_sup.epochs=3")
    whole = small.run(made, tmp_path / "whole")

    class Stop(train.Report):
        left = batches

        def progress(self, images: int) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.run(made, Stop(), place=train.Place(datasets=Path("nowhere"), folder=tmp_path / "cut"))
    again = small.run(made, tmp_path / "cut", carry_on=True)
    assert equal(weights(whole), weights(again))
    assert timeless(again.rows) == timeless(whole.rows)
    looks = [(tmp_path / name / folders.LOOKS).read_text() for name in ("whole", "cut")]
    assert looks[0] == looks[1]
    assert [json.loads(line)["update"] for line in looks[0].splitlines()] == [
        10 * e + k for e in range(3) for k in (1, 4, 7, 10)
    ]


# -- records ------------------------------------------------------------------------------------------------


def test_what_is_recorded_of_the_blocks(tmp_path: Path) -> None:
    """Angles are those of the weights; TensorBoard has them by update."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = small.config("CorInfoMax-c9:flatten CorInfoMax-c7-lf0.1 CorInfoMax-lf0.1", "dataset_sup.batch_size=200")
    result = small.run(made, tmp_path / "run")
    (look,) = folders.read_rows(tmp_path / "run" / folders.LOOKS)
    assert look["update"] == 1
    assert set(look["blocks"]) == {"b0", "b1", "b2"}
    assert "angle" not in look["blocks"]["b0"]
    for i in (1, 2):
        layer = result.network[i].layer
        cosine = (layer.weight * layer.feedback.T).sum() / (layer.weight.norm() * layer.feedback.norm())
        assert look["blocks"][f"b{i}"]["angle"] == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-3)
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train
    hidden = result.network(next(split.batches(settling.PROBE))[0], stop=1)
    assert look["blocks"]["b0"]["sparsity"] == pytest.approx(100 * float((hidden == 0).float().mean()), abs=1e-3)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("training b2/angle")] == [
        (1, pytest.approx(look["blocks"]["b2"]["angle"], rel=1e-5))
    ]


def test_feedback_alignment_records_its_angle(tmp_path: Path) -> None:
    seen = {}

    class Watch(train.Report):
        def row(self, row: folders.Row, blocks: dict[str, Any]) -> None:
            seen.update({name: info.scalars for name, info in blocks.items()})

    made = small.config("FA-c30:flatten:relu FA", "dataset_sup.epochs=20", "classifier.lr=0.005")
    result = train.run(made, Watch(), place=train.Place(datasets=Path("nowhere")))
    assert set(seen) == {"b1"}
    assert seen["b1"]["angle"] == pytest.approx(diagnostics.alignment(result.network[1].layer))
    assert seen["b1"]["angle"] < 85  # the forward weights turn towards the feedback weights
    assert result.metrics["test_acc"] > 60


def test_the_published_schedule_and_loss_of_back_prop() -> None:
    changes = ("classifier.loss=mse", "classifier.schedule=decay", "classifier.decay=0.5", "classifier.decay_every=2")
    result = small.run(small.config("BP-c30:flatten:relu BP", "dataset_sup.epochs=5", *changes))
    assert [row["lr"] for row in result.rows] == [pytest.approx(0.001 * f) for f in (1, 1, 0.5, 0.5, 0.25)]
    assert result.metrics["test_loss"] < 0.15  # the mean of ten squared errors, not a cross-entropy


# -- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PC", "PCNudge", "CorInfoMaxSparse"])
def test_weights_that_are_not_finite_stop_the_run(method: str) -> None:
    text = f"{'settle:optimiser=sgd ' if method == 'PC' else ''}{method}-c9-lr1e30:flatten {method}-lr1e30"
    with pytest.raises(DivergenceError, match=r"b\d (is|are) not finite after update \d+ of the run, in epoch 1"):
        small.run(small.config(text, "dataset_sup.epochs=3"))


@pytest.mark.parametrize(
    ("step", "words"), [("0.3", "the same for 100 different images"), ("3", "one answer to 100 different images")]
)
def test_a_dead_output_stops_the_run(step: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linear factor of a step is 1 - step (2/eps + g): far above the stable step rates stick to their bounds."""
    monkeypatch.setattr(settling, "LEARNT", 15)
    text = f"settle:step={step} CorInfoMax-c30-lr1:flatten CorInfoMax-lf0.15"
    with pytest.raises(DivergenceError, match=rf"output is dead: {words} after update \d+ of the run"):
        small.run(small.config(text, "dataset_sup.epochs=3"))


def test_one_class_alone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "LEARNT", 2)
    made = small.config("EP-c9-lr0.1:flatten EP", "dataset_sup.classes=3", "dataset_sup.samples=none")
    assert small.run(made).metrics["train_acc"] == 100


# -- presets ------------------------------------------------------------------------------------------------


def test_every_published_network_is_a_preset() -> None:
    ours = {
        n
        for n, m in CATALOG.models.items()
        if m.source.startswith("published runs of Supervised") and m.network.settles
    }
    assert ours == {row["preset"] for row in PUBLISHED}


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["preset"])
def test_published_hyper_parameters(row: dict[str, str]) -> None:
    """Sizes, rates and settings of the paper's tables; what a table leaves out is the same in all of its runs."""
    model_entry = CATALOG.models[row["preset"]]
    network, sizes = model_entry.network, [int(n) for n in row["sizes"].split()]
    data = CATALOG.datasets[f"{row['dataset']}_settle"]
    entry = DATASETS.get(data.dataset, "test")
    made = model.Network(network, entry.shape(None, "test"), entry.classes)
    assert [tuple(made[i].layer.weight.shape) for i in range(len(made))] == list(zip(sizes[1:], sizes, strict=False))
    layers = [block.layer for block in network.blocks]
    assert {layer.method for layer in layers} == {row["method"]}
    for field, token in (("lr", "lr"), ("lr_feedback", "lf"), ("lr_threshold", "lt")):
        if row[token]:
            found = [getattr(layer, field) for layer in layers]
            want = [float(v) for v in row[token].split()]
            assert found[-len(want) :] == want
    if row["lm"]:
        assert {layer.lr_lateral for layer in layers[:-1]} == {float(row["lm"])}
    assert network.settle is not None
    for item in row["settings"].split():
        name, _, text = item.partition("=")
        value = getattr(network.settle, name)
        assert value == (text if isinstance(value, str) else float(text)), name
    assert (data.epochs, data.batch_size, data.print_freq) == (50, 20, 1)
    assert data.deviations == (3 if "CIFAR" in row["dataset"] else 0)
    for number in row["published"].split():
        assert number in model_entry.description


def test_pixels_in_units_of_three_deviations(shared_data: Path) -> None:
    spec = CATALOG.datasets["CIFAR10_settle"]
    split = images.load(spec, shared_data, 0, torch.device("cpu")).test
    raw = split.images[:4].float() / 255
    x, _ = next(split.batches(4))
    for channel, (mean, std) in enumerate(((0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010))):
        assert torch.allclose(x[:, channel], (raw[:, channel] - mean) / (3 * std), atol=1e-6)


# -- command lines ------------------------------------------------------------------------------------------


def test_train_evaluate_and_start_again(inside: Command, tmp_path: Path) -> None:
    run = ("--preset", "2EPDigits", "--dataset", "Digits_settle", "--set", "dataset_sup.epochs=2", "--threads", "1")
    done = inside("multi_layer.py", *run, "--model-name", "ep", "--probe", "linear", "neuron")
    assert done.returncode == 0, done.stderr
    (probe,) = [line.split() for line in done.stdout.splitlines() if line.startswith("b0 ")]
    assert probe[1] == "linear"
    assert float(probe[-1]) > 80
    assert "note: --probe neuron measures nothing" in done.stdout + done.stderr
    assert "phase 0: settle b0 b1" in done.stdout
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "ep"
    stored = json.loads((folder / "result.json").read_text())
    again = inside("multi_layer.py", "--run-config", str(folder / "config.json"), "--model-name", "again")
    assert again.returncode == 0, again.stderr
    rows = [folders.read_rows(folder.with_name(name) / "metrics.jsonl") for name in ("ep", "again")]
    assert timeless(rows[0]) == timeless(rows[1])
    measured = inside("multi_layer.py", "--evaluate", "ep", "--export-features", str(tmp_path / "f.npz"))
    assert measured.returncode == 0, measured.stderr
    assert f"accuracy {stored['metrics']['test_acc']:.2f} %" in measured.stdout
    import numpy as np

    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (359, 100)
        assert found["logits"].shape == (359, 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "EP-c9:flatten CSM"], ["b1", "CSM", "EP"]),
        (["--preset", "EP-c9:flatten BP"], ["b1", "BP", "EP"]),
        (["--preset", "EP-c9:flatten:relu EP"], ["b0", "activation"]),
        (["--preset", "EP-c9:flatten:bn EP"], ["b0", "operation"]),
        (["--preset", "EP-c9:flatten EP:flatten"], ["b1", "operation"]),
        (["--preset", "EP-c9-k3 EP:flatten"], ["EP", "CNN"]),
        (["--preset", "EP-c9-lf0.1:flatten EP"], ["lf", "lr"]),
        (["--preset", "CorInfoMax-c9-lf0.1:flatten CorInfoMax"], ["b0", "feedback"]),
        (["--preset", "EP-c9 EP"], ["flatten"]),
        (["--preset", "settle:betta=1 EP-c9:flatten EP"], ["betta", "'beta'"]),
        (["--preset", "settle:beta EP-c9:flatten EP"], ["beta", "name=value"]),
        (["--preset", "settle:beta=1,beta=2 EP-c9:flatten EP"], ["beta", "twice"]),
        (["--preset", "EP-c9:flatten settle:beta=1 EP"], ["settle", "before the blocks"]),
        (["--preset", "settle:beta=1 Soft-c9:flatten BP"], ["settle", "EP"]),
        (["--preset", "2EPDigits", "--training-blocks", "1"], ["--training-blocks", "a settling network"]),
        (["--preset", "2EPDigits", "--bp-blockwise"], ["--bp-blockwise"]),
        (["--preset", "2EPDigits", "--set", "settle.gain=1"], ["settle.gain", "EP"]),
        *(
            (["--preset", f"2{name}Digits", "--set", "settle.solver=error"], [f"{name} has no", "of PC, PCNudge"])
            for name in ("CorInfoMax", "CorInfoMaxSparse", "EP", "CSM")
        ),
        (["--preset", "settle:solver=error EP-c9:flatten EP"], ["EP has no setting 'solver'", "of PC, PCNudge"]),
        (["--preset", "2PCDigits", "--set", "settle.solver=eror"], ["solver must be state or error", "'error'"]),
        (["--preset", "2PCDigits_error", "--pack-seeds", "2"], ["settles", "pack"]),
        (
            ["--preset", "2EPDigits", "--set", "stop.patience=1"],
            ["stop", "Hebbian phases early, but 2EPDigits has none"],
        ),
        (
            ["--preset", "2EPDigits", "--set", "stop.convergence=0.1"],
            ["stop", "Hebbian phases early, but 2EPDigits has none"],
        ),
        (["--preset", "2EPDigits", "--set", "dataset_sup.deviations=3"], ["deviations", "Digits"]),
        (
            ["--dataset", "CIFAR10", "--set", "dataset_sup.deviations=3", "dataset_sup.standardise=true", "--dry-run"],
            ["CIFAR10", "standardise and deviations"],
        ),
        (["--preset", "2CnnDigits", "--set", "classifier.loss=huber"], ["classifier.loss", "mse"]),
        (["--preset", "2CnnDigits", "--set", "classifier.decay=0"], ["classifier.decay"]),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_bad_input(arguments: list[str], words: list[str]) -> None:
    from hebb.cli import train as multi_layer

    with pytest.raises(ConfigError) as caught:
        multi_layer.main(
            [*arguments, "--dataset", "Digits", "--dry-run"] if "--dataset" not in arguments else arguments
        )
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("settle", "words"),
    [
        ({"betta": 1}, ["model 'Mine'", "settle", "'beta'"]),
        ({"beta": "strong"}, ["model 'Mine'", "beta", "strong"]),
        ([1], ["model 'Mine'", "settle", "object"]),
    ],
)
def test_bad_settings_in_a_preset_file(tmp_path: Path, settle: object, words: list[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"model": {"Mine": {"blocks": ["EP-c9:flatten", "EP"], "settle": settle}}}))
    with pytest.raises(ConfigError) as caught:
        catalog.load(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_dry_run_and_lists_show_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    from hebb.cli import train as multi_layer

    assert multi_layer.main(["--preset", "3CorInfoMaxCIFAR100", "--dataset", "CIFAR100_settle", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "free_steps 50" in shown
    # forward, feedback and lateral weights, by hand
    total = 2000 * 3072 + 2000**2 + 2 * 2000 * 1000 + 1000**2 + 2 * 1000 * 100 + 100**2
    assert f"{total:,}" in shown
    assert "125,000 updates" in shown
    assert multi_layer.main(["--list", "methods"]) == 0
    listed = capsys.readouterr().out
    for setting in ("third_phase", "forgetting", "eval_step", "weight_decay"):
        assert setting in listed


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_goes_on_when_a_network_fails(command: Command, tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text("seeds: [0]\nspace: {settle.step: {grid: [0.05, 0.3]}}\n")
    run = ("--preset", "2CorInfoMaxDigits", "--dataset", "Digits_settle", "--set", "dataset_sup.epochs=4")
    done = command("ray_search.py", *run, "--config", str(tmp_path / "steps.yaml"), "--folder-name", "s")
    assert done.returncode == 1, done.stderr
    assert "the output is dead" in done.stdout
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("settle.step=0.05 ")]
    assert line.split()[1] == "1"
