"""Evaluating, probing and exporting stored models; single blocks; the post-hoc loss.

Without it a probe could be trained on the images it is measured on.
"""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import small
import torch
from conftest import Command
from torch.nn import functional as F

from hebb.analysis.post_hoc import moving_average, write_figure
from hebb.cli import describe
from hebb.cli import post_hoc as command
from hebb.config import plan
from hebb.core.errors import ConfigError, HebbError
from hebb.data import images
from hebb.nn import model
from hebb.probing import geometry, probes, readout
from hebb.storage import checkpoints, folders
from hebb.training import engine, post_hoc, train
from hebb.training.epoch import Epoch


def digits(**changes: object) -> images.Images:
    return images.load(small.config(**changes).dataset_sup, Path("nowhere"), 0, torch.device("cpu"))  # type: ignore[arg-type]


# -- evaluate -------------------------------------------------------------------------------------------------


def test_evaluating_a_stored_model(inside: Command, tmp_path: Path) -> None:
    """Accuracy and loss are those of the run's last row; features give the logits through the last block."""
    data = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_10", "--threads", "1")
    assert inside("multi_layer.py", *data, "--model-name", "m").returncode == 0
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "m"
    last = json.loads((folder / "result.json").read_text())["metrics"]
    file = tmp_path / "out" / "features.npz"
    file.parent.mkdir()
    for name in ("m", str(folder)):
        file.unlink(missing_ok=True)  # an existing file is never replaced
        done = inside("multi_layer.py", "--evaluate", name, "--export-features", str(file))
        assert done.returncode == 0, done.stderr
        assert f"accuracy {last['test_acc']:.2f} %, loss {last['test_loss']:.4f}" in done.stdout
    stored = np.load(file)
    assert stored["features"].shape == (359, 48, 4, 4)
    assert 100 * np.mean(stored["logits"].argmax(1) == stored["labels"]) == pytest.approx(last["test_acc"])
    per_class = [line.split() for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert sum(int(words[1]) for words in per_class) == 359
    weighted = sum(int(n) * float(a) for _, n, a in per_class) / 359
    assert weighted == pytest.approx(last["test_acc"], abs=0.01)

    for arguments, message in (
        (("--evaluate", "nobody"), "nobody"),
        (("--evaluate", "m", "--dataset-sup", "CIFAR10"), "3x32x32"),
        (("--evaluate", "m", "--dataset-sup", "CIFAR100"), "100 classes"),
        (("--evaluate", "m", "--seed", "3"), "--seed"),
        (("--evaluate", "m", "--set", "b0.layer.lr=1"), "would change the stored model"),
        (("--export-features", "x.npz"), "--evaluate"),
    ):
        done = inside("multi_layer.py", *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr


# -- probes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_probes_separate_what_is_separable(kind: str) -> None:
    """Two classes apart in one of five dimensions of unlike scales; a probe without standardisation would miss it."""
    torch.manual_seed(0)
    scale = torch.tensor([1e-3, 1e3, 1.0, 1.0, 1.0])
    labels = torch.arange(400) % 2
    x = torch.randn(400, 5)
    x[:, 0] += 8 * labels
    halves = ((x * scale)[:200], labels[:200]), ((x * scale)[200:], labels[200:])
    found = probes.fit(kind, 3, halves[0], {"val": None, "test": halves[1]})
    assert (found.block, found.kind, found.val_acc) == (3, kind, None)
    assert found.test_acc is not None
    assert found.test_acc > 99


def test_features_are_pooled_block_outputs() -> None:
    network = small.run(small.config(small.DEEP)).network
    split = digits().test
    wanted = [(0, probes.pooled), (1, probes.averaged)]
    outputs, labels = readout.features(network, split, wanted, most=33)
    found = outputs[0, probes.pooled]
    whole = network(images.as_float(split.images), stop=1)  # (N, 8, 4, 4)
    assert torch.allclose(found, F.avg_pool2d(whole, 2).flatten(1)[:33], atol=1e-5)
    assert torch.equal(labels, split.labels[:33])
    assert torch.allclose(outputs[1, probes.averaged], network[1](whole).mean(dim=(2, 3))[:33], atol=1e-5)


@pytest.mark.parametrize("preset", ["EP-c6 EP-c5 EP", "CorInfoMax-c6 CorInfoMax-c5 CorInfoMax", "PC-c6 PC-c5 PC"])
def test_probes_of_a_settling_network_read_its_free_state(preset: str) -> None:
    """Not the drive W x + b of its layers: rates lie in [0, 1], and an epoch measures the same mean activity."""
    first, *rest = preset.split()
    made = small.config(f"{first}:flatten {' '.join(rest)}", probes=("geometry", "linear"))
    result = small.run(made)
    network, split = result.network, digits().test
    assert network.energy is not None
    states = network.energy.predict(images.as_float(split.images).flatten(1))
    outputs, _ = readout.features(network, split, [(0, probes.averaged), (1, probes.averaged)])
    for i in (0, 1):
        assert torch.allclose(outputs[i, probes.averaged], states[i], atol=1e-5)
        activity = result.geometry[i].numbers["activity"]
        assert activity == pytest.approx(float(states[i].mean()), abs=1e-4)
        if made.network.blocks[0].layer.method == "EP":
            assert 0 <= activity <= 1


def test_probes_of_a_run(tmp_path: Path) -> None:
    made = small.config(small.DEEP, probes=("linear", "knn", "neuron"))
    result = small.run(made, tmp_path / "run")
    assert [(p.block, p.kind) for p in result.probes] == [
        (b, kind) for b in (0, 1) for kind in ("linear", "knn", "neuron")
    ]
    assert all(p.test_acc is not None and p.test_acc > 15 for p in result.probes)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["probes"] == [vars(p) for p in result.probes]
    only = small.run(small.config(small.DEEP, probes=("linear",), probe_blocks=(1,)))
    assert [(p.block, p.kind) for p in only.probes] == [(1, "linear")]
    assert [{**r, "images_per_second": 0} for r in only.rows] == [{**r, "images_per_second": 0} for r in result.rows]


def by_class(split: images.Split) -> images.Split:
    """Store a split as a folder lists it: class by class."""
    assert isinstance(split.images, torch.Tensor)
    order = split.labels.argsort(stable=True)
    return replace(split, images=split.images[order], labels=split.labels[order])


def test_probes_of_images_stored_by_class_see_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 100 of 1,438 images are of one class; a probe of 100 drawn ones tells ten classes apart."""
    measured: list[int] = []
    monkeypatch.setattr(geometry, "measure", lambda _, x, labels: measured.append(len(labels.unique())))
    made = small.config(probes=("linear", "geometry"), probe_samples=100, probe_blocks=(0,))
    spec = replace(made.dataset_sup, samples=None)
    whole = images.load(spec, Path("nowhere"), 0, torch.device("cpu"))
    data = images.Images(train=by_class(whole.train), val=None, read_test=lambda: by_class(whole.test), sha256="")
    assert len(data.train.labels[:100].unique()) == 1
    readout.check(made, "Digits", data)
    (linear,), _ = readout.probe(made, model.build(made), data)
    assert linear.test_acc is not None
    assert linear.test_acc > 60
    assert measured == [10]


def test_batches_of_the_short_probe_hold_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it reads all images: sorted by class its last batches would be of the last class."""
    read: list[torch.Tensor] = []
    fitted = probes.fit_short
    monkeypatch.setattr(probes, "fit_short", lambda *args: [read.append(args[1][1]), fitted(*args)][1])
    made = small.config(probes=("short",), probe_blocks=(0,))
    whole = images.load(replace(made.dataset_sup, samples=None), Path("nowhere"), 0, torch.device("cpu"))
    data = images.Images(train=by_class(whole.train), val=None, read_test=lambda: by_class(whole.test), sha256="")
    readout.probe(made, model.build(made), data)
    (labels,) = read
    assert len(labels) == 1438
    assert min(len(piece.unique()) for piece in labels.split(probes.SHORT_BATCH)) == 10


def test_probes_of_images_in_random_order_read_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets such as CIFAR-10 are stored so; what was measured on them holds."""
    made = small.config(small.CNN, probes=("linear",), probe_samples=100, probe_blocks=(0,))
    read: list[torch.Tensor] = []
    monkeypatch.setattr(probes, "fit", lambda kind, block, train, others: read.append(train[1]))
    readout.probe(made, model.build(made), digits())
    assert torch.equal(read[0], digits().train.labels[:100])


def test_neuron_labels_of_a_convolution() -> None:
    """Channel 0 answers to bright pixels, channel 1 to dark ones: images of one kind each are told apart."""
    network = model.build(small.config("Hard-c2-k1:relu BP:flatten"))
    layer = network[0].hebb
    assert layer is not None
    layer.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    pictures = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    pictures[:, :, 0] = 200  # channel 0 wins a row of every image (and, by the tie at 0, the rest)
    layer.weight[1] = 0.5
    network[0].layer.register_forward_hook(lambda m, i, u: u - torch.tensor([0.3, 0.0]).view(1, 2, 1, 1))
    pictures[::2, :, 1:4] = 200
    labels = torch.tensor([1, 0, 1, 0, 1, 0])
    split = images.Split(pictures, labels)
    train_acc, test_acc = readout.neuron_label_accuracies(network, 0, split, [split])
    assert train_acc == test_acc == 100


# -- single blocks --------------------------------------------------------------------------------------------


def test_a_stored_block_starts_another_network(tmp_path: Path) -> None:
    place = {"layers": tmp_path / "layer", "store_blocks": "first"}
    stored = small.run(small.config(small.CNN), **place)
    assert sorted(p.name for p in (tmp_path / "layer" / "first").iterdir()) == ["b0.pt", "b1.pt"]
    taken = small.DEEP.replace(":bn:triangle_0.7:max_2_2_0", ":bn:triangle_0.7:max_2_2_0:resume=first/b0")
    made = small.config(taken, training_blocks=(1, 2))
    assert [p.kind for p in plan.phases(made)] == ["hebbian", "backprop"]  # its statistics came along
    other = small.run(made, layers=tmp_path / "layer")
    for name, tensor in stored.network[0].state_dict().items():
        assert torch.equal(tensor, other.network[0].state_dict()[name])


@pytest.mark.parametrize(
    ("name", "message"), [("frist/b0", "did you mean 'first/b0'"), ("first/b1", r"(lacks|has an extra) '")]
)
def test_a_stored_block_must_be_there_and_fit(tmp_path: Path, name: str, message: str) -> None:
    small.run(small.config(small.CNN), layers=tmp_path, store_blocks="first")
    with pytest.raises(ConfigError, match=message):
        small.run(small.config(small.CNN.replace(":bn", f":bn:resume={name}", 1)), layers=tmp_path)


# -- post-hoc loss --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["Soft-c20-t2-r5:flatten:softmax_5 BP", "BP-c20:flatten:relu BP"])
def test_post_hoc_loss(tmp_path: Path, network: str) -> None:
    """The first value is the loss of the initial lower block under the trained classifier, by hand."""
    made = small.config(network, "dataset_sup.epochs=3", "classifier.lr=0.01", "dataset_unsup.epochs=2")
    curve = post_hoc.run(made, train.Report(), place=train.Place(datasets=Path("nowhere"), folder=tmp_path / "run"))
    assert curve[:, 0].tolist() == [20 * k for k in range(1, 21)]  # 2 epochs of 200 images in batches of 20
    network_ = model.build(made)
    trained = model.build(made)
    model.load_weights(trained, tmp_path / "run" / folders.CHECKPOINT)
    network_[1].load_state_dict(trained[1].state_dict())
    split = digits().train
    phase = plan.post_hoc(made)
    order = torch.randperm(
        200,
        generator=Epoch(seed=0, phase=phase, phase_index=2 if "Soft" in network else 1, epoch=0).order(),
    )
    x, y = split.images[order[:20]].float() / 255, split.labels[order[:20]]
    logits = network_(x)
    assert curve[0, 1] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-4)
    assert curve[0, 2] == pytest.approx(100 * (logits.argmax(1) == y).float().mean().item())
    write_figure(curve, tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").glob("post_hoc.*")} == {"post_hoc.csv", "post_hoc.png", "post_hoc.svg"}
    assert np.allclose(np.loadtxt(tmp_path / "run" / "post_hoc.csv", delimiter=",", skiprows=1), curve, rtol=1e-5)


def test_post_hoc_loss_starts_from_stored_weights(tmp_path: Path) -> None:
    """The first value is the loss of the stored lower block under the classifier that was trained on it."""
    first = small.config("Soft-c20-t2-r5:flatten:softmax_5 BP", "dataset_unsup.epochs=2", seed=3)
    small.run(first, tmp_path / "first")
    stored = tmp_path / "first" / folders.CHECKPOINT
    made = replace(first, seed=0, resume="all", resume_sha256=checkpoints.sha256(stored))
    place = train.Place(datasets=Path("nowhere"), folder=tmp_path / "run", resume_from=stored)
    curve = post_hoc.run(made, train.Report(), place=place)
    network = model.build(made)
    model.load_weights(network, tmp_path / "run" / folders.CHECKPOINT)
    network[0].load_state_dict(small.run(first).network[0].state_dict())
    split, phase = digits().train, plan.post_hoc(made)
    order = torch.randperm(200, generator=Epoch(seed=0, phase=phase, phase_index=2, epoch=0).order())[:20]
    logits = network(split.take(order)[0])
    assert curve[0, 1] == pytest.approx(F.cross_entropy(logits, split.labels[order]).item(), rel=1e-4)


def test_an_interrupted_post_hoc_loss_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In training and in the measurement: the same curve, without training twice; a full disk names the command."""
    words = ["--data-dir", str(tmp_path)]
    asked = [*words, "--preset", "Soft-c4-k3-p1-t1:bn:triangle:max_2_2_0 BP:flatten", "--dataset", "Digits"]
    asked += ["--threads", "1", "--set", "dataset_sup.epochs=1", "dataset_unsup.epochs=1"]
    assert command.main([*asked, "--model-name", "whole"]) == 0
    home = folders.Home(tmp_path)
    failures = {"train": KeyboardInterrupt(), "measure": OSError(errno.ENOSPC, "full")}
    places = {"train": (engine, "run_epoch"), "measure": (engine, "post_hoc")}
    for name, failure in failures.items():
        with monkeypatch.context() as patch, pytest.raises(HebbError, match=f"post-hoc --resume-run .*{name} cont"):
            patch.setattr(*places[name], Mock(side_effect=failure))
            command.main([*asked, "--model-name", name])
        assert command.main([*words, "--resume-run", name]) == 0
        curve = (home.network(name) / folders.POST_HOC).read_bytes()
        assert curve == (home.network("whole") / folders.POST_HOC).read_bytes()
    assert "phase 0" not in capsys.readouterr().out.rpartition("done in")[2], "the finished training is only read"
    with pytest.raises(ConfigError, match="there is nothing to continue"):
        command.main([*words, "--resume-run", "whole"])


def test_post_hoc_back_prop_lowers_the_loss(tmp_path: Path) -> None:
    made = small.config(
        "BP-c20:flatten:relu BP", "dataset_sup.epochs=10", "classifier.lr=0.01", "dataset_unsup.epochs=8"
    )
    curve = post_hoc.run(made, train.Report(), place=train.Place(datasets=Path("nowhere")))
    assert curve[-10:, 1].mean() < 0.5 * curve[:3, 1].mean()


@pytest.mark.parametrize("network", ["BP:flatten", "Soft-c8:flatten", small.MIXED])
def test_post_hoc_wants_one_kind_below_a_classifier(network: str) -> None:
    with pytest.raises(ConfigError, match="post-hoc"):
        plan.post_hoc(small.config(network))


def test_moving_average() -> None:
    curve = np.stack([np.arange(1, 101), np.arange(100.0), np.zeros(100)], axis=1)
    smooth = moving_average(curve)
    assert smooth.shape == (51, 3)
    assert smooth[0].tolist() == pytest.approx([50, 24.5, 0])


@pytest.mark.parametrize(
    ("preset", "blocks", "noted"),
    [
        ("BP-c6:flatten:relu BP", None, True),
        ("EP-c6:flatten EP", None, True),
        (small.DEEP, (2,), True),
        (small.DEEP, None, False),
    ],
)
def test_labels_of_neurons_that_nothing_has_are_noted(preset: str, blocks: tuple[int, ...] | None, noted: bool) -> None:
    """A probe of nothing was left out without a word."""
    config = small.config(preset, probes=("neuron",), probe_blocks=blocks)
    says = "note: --probe neuron measures nothing: no block that is probed has a Hebbian rule"
    assert (says in describe.notes(config, plan.phases(config))) == noted
