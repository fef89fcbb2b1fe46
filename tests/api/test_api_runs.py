"""``hebb.network`` and ``hebb.train``: what Python trains has the bits of the command line, and leaves nothing behind.

Without it a script could train another network than the command of the same arguments, and nobody would see it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

import hebb
from hebb.core.errors import InterruptedRunError
from hebb.data import memory
from hebb.data.sources import digits
from hebb.storage import checkpoints
from hebb.training.run import Run

PRESET = "SoftKrotov-c12-k3-p1-t1-lr0.05:bn:triangle:max_2_2_0 BP:flatten:drop_0.2"
WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, ...]:
    """Return 200 digits and 60 test digits, uint8; the working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEBB_HOME", raising=False)
    (x, y), (x_test, y_test) = digits(True), digits(False)
    return x[:200], y[:200], x_test[:60], y_test[:60]


def train(arrays: Any, **more: Any) -> hebb.TrainedRun:
    return hebb.train(PRESET, data=arrays, epochs=2, threads=1, **more)


def test_a_network_is_a_module() -> None:
    """Logits of the shape asked for; the same seed gives the same weights; a forward pass learns nothing."""
    net = hebb.network(PRESET, input_shape=(1, 8, 8), classes=7, seed=3)
    assert isinstance(net, torch.nn.Module)
    again = hebb.network(PRESET, input_shape=(1, 8, 8), classes=7, seed=3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert net.eval()(torch.rand(5, 1, 8, 8)).shape == (5, 7)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(tensor, again.state_dict()[name])


def test_python_gives_the_bits_of_the_command(forked: Command, tmp_path: Path) -> None:
    """The same run by name: every number of the result and every weight."""
    flags = ("--dataset", "Digits", "--seed", "2", "--threads", "1", "--gpu-id", "cpu", "--model-name", "m")
    changes = ("dataset_sup.epochs=2", "dataset_sup.samples=300", "dataset_unsup.samples=200", "b0.layer.lr=0.02")
    done = forked("multi_layer.py", "--preset", PRESET, *flags, "--set", *changes)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "m"
    stored = json.loads((folder / "result.json").read_text())
    overrides = {"dataset_sup.samples": 300, "dataset_unsup.samples": 200, "b0.layer.lr": 0.02}
    run = hebb.train(PRESET, data="Digits", epochs=2, seed=2, threads=1, device="cpu", overrides=overrides)
    timed = ("images_per_second",)
    assert {k: v for k, v in run.metrics.items() if k not in timed} == {
        k: v for k, v in stored["metrics"].items() if k not in timed
    }
    weights = checkpoints.load(folder / "checkpoint" / "last.pt")["model"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.network.state_dict().items())


def test_arrays_give_the_bits_of_an_npz_file(arrays: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    from_file = hebb.train(PRESET, data=f"npz:{tmp_path / 'a.npz'}", epochs=2, threads=1)
    from_memory = train(arrays)
    for name, tensor in from_memory.network.state_dict().items():
        assert torch.equal(tensor, from_file.network.state_dict()[name])
    assert from_memory.test_accuracy == from_file.test_accuracy


def test_floats_are_taken_as_they_are(arrays: tuple[np.ndarray, ...]) -> None:
    """uint8 over 255 are the same numbers, and so is the training; channels may come last."""
    x, y, x_test, y_test = arrays
    pixels = train(arrays)
    floats = train(
        (np.float32(x[..., None]) / np.float32(255), y, np.float32(x_test[..., None]) / np.float32(255), y_test)
    )
    for name, tensor in floats.network.state_dict().items():
        assert torch.equal(tensor, pixels.network.state_dict()[name])


def test_nothing_is_kept_without_a_folder(arrays: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    run = train(arrays)
    assert list(tmp_path.iterdir()) == []
    assert run.folder is None
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_labels_come_back_as_they_were_given(arrays: tuple[np.ndarray, ...]) -> None:
    x, y, x_test, y_test = arrays
    run = train((x, WORDS[y], x_test, WORDS[y_test]))
    assert list(run.classes) == sorted(WORDS)
    predicted = run.predict(x_test)
    assert predicted.dtype.kind == "U"
    assert 100 * np.mean(predicted == WORDS[y_test]) == pytest.approx(run.test_accuracy)


def test_what_a_finished_run_offers(arrays: tuple[np.ndarray, ...]) -> None:
    """Features are those of the network by hand, and an answer does not depend on the images beside it."""
    run = train(arrays, probes=["linear", "geometry"])
    x = arrays[2]
    with torch.no_grad():
        by_hand = run.network[0](torch.from_numpy(x[:, None]).float() / 255)
    np.testing.assert_allclose(run.features(x), by_hand.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run.logits(x)[7], run.logits(x[7:8])[0])
    assert run.logits(x).shape == (60, 10)
    assert list(run.history["kind"]) == ["hebbian", "backprop", "backprop"]
    curve = run.curves[run.curves["block"] == "b0"]
    assert list(curve["update"]) == sorted(set(curve["update"]))
    assert curve["convergence"].iloc[-1] == run.history["convergence"].iloc[0]
    assert [probe["kind"] for probe in run.probes] == ["linear"]
    spectrum = np.linalg.eigvalsh(np.cov(run.features(x).mean(axis=(2, 3)).astype(float).T))
    (shape,) = run.geometry
    assert shape["block"] == 0
    assert shape["dimensionality"] == pytest.approx(spectrum.sum() ** 2 / np.square(spectrum).sum(), rel=1e-4)
    assert run.metrics["epoch"] == 2
    assert "test" in repr(run)


def test_without_test_images_there_is_no_test_accuracy(arrays: tuple[np.ndarray, ...]) -> None:
    run = train(arrays[:2], probes=["linear", "knn", "neuron", "short", "geometry"], validation=0.2)
    assert run.test_accuracy is None
    assert run.metrics["val_acc"] is not None
    assert {probe["test_acc"] for probe in run.probes} == {None}


def test_unlabelled_images_train_the_hebbian_blocks(arrays: tuple[np.ndarray, ...]) -> None:
    """The same images without labels give the same Hebbian weights."""
    labelled, unlabelled = train(arrays), train(arrays, data_unsup=arrays[0])
    assert torch.equal(labelled.network[0].layer.weight, unlabelled.network[0].layer.weight)


def test_a_run_in_a_folder_is_loaded_by_name(arrays: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "mine"
    run = train(arrays, folder=folder, probes=["geometry"])
    for place, where in ((folder, {}), ("mine", {"data_dir": tmp_path / "home"})):
        loaded = hebb.load(place, **where)
        assert isinstance(loaded, hebb.TrainedRun)
        assert loaded.metrics == json.loads(json.dumps(run.metrics))
        np.testing.assert_array_equal(loaded.predict(arrays[2]), run.predict(arrays[2]))
        assert loaded.geometry == json.loads(json.dumps(run.geometry))
        assert loaded.geometry
    with pytest.raises(hebb.ConfigError, match="holds a finished run"):
        train(arrays, folder=folder)
    with pytest.raises(hebb.ConfigError, match="load: 'miné' is not a folder"):
        hebb.load("miné", data_dir=tmp_path / "home")


def test_an_interrupted_run_is_continued_to_the_same_bits(
    arrays: tuple[np.ndarray, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, store = train(arrays), Run.store

    def store_and_stop(self: Run) -> None:
        store(self)
        if self.state.position[:2] == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "store", store_and_stop)
        with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
            train(arrays, folder=tmp_path / "run")
    others = (255 - arrays[0], *arrays[1:])
    with pytest.raises(hebb.ConfigError, match=r"carry_on: .*holds another run: dataset_sup.dataset"):
        train(others, folder=tmp_path / "run", carry_on=True)
    with pytest.raises(hebb.ConfigError, match=r"carry_on: .*holds another run: b0.layer.lr 0.05 is 0.1"):
        train(arrays, folder=tmp_path / "run", carry_on=True, overrides={"b0.layer.lr": 0.1})
    run = train(arrays, folder=tmp_path / "run", carry_on=True)
    for name, tensor in run.network.state_dict().items():
        assert torch.equal(tensor, whole.network.state_dict()[name])
    again = train(arrays, folder=tmp_path / "run", carry_on=True)  # finished: returned as it is
    assert again.metrics == json.loads(json.dumps(run.metrics))


def test_the_command_cannot_continue_without_the_arrays(
    arrays: tuple[np.ndarray, ...], tmp_path: Path, forked: Command
) -> None:
    """It says who can; a table of the run needs no images."""
    train(arrays, folder=tmp_path / "run")
    assert forked("analysis.py", "table", str(tmp_path / "run")).returncode == 0
    (tmp_path / "run" / "result.json").unlink()
    done = forked("multi_layer.py", "--resume-run", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "the arrays of this run are not in this process" in done.stderr
    assert "hebb.train with the same arrays" in done.stderr


GOOD = np.zeros((4, 6, 6), np.uint8)
LABELS = np.array([0, 1, 0, 1])
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "one array": (lambda: (GOOD,), "must be .x, y. or .x, y, x_test, y_test., got images without labels"),
    "three arrays": (lambda: (GOOD, LABELS, GOOD), "got 3 arrays"),
    "a number": (lambda: 3, "must be a name, .*got int"),
    "numbers for arrays": (lambda: (3.0, 1), "data, x: must be an array, got float"),
    "a number for labels": (lambda: (GOOD[:1], 1), "data, y: must be an array, got int"),
    "nothing for images": (lambda: (None, LABELS), "data, x: must be an array, got NoneType"),
    "whole numbers": (lambda: (GOOD.astype(int), LABELS), "data, x: must be uint8 or floats, got int64"),
    "NaN": (lambda: (np.full((4, 6, 6), np.nan), LABELS), "data, x: must be finite numbers, got NaN"),
    "one image": (lambda: (GOOD[0, 0], LABELS[:1]), "data, x: images must be"),
    "a movie": (lambda: (np.zeros((4, 2, 6, 6, 3), np.uint8), LABELS), "data, x: images must be"),
    "no image": (lambda: (GOOD[:0], LABELS[:0]), "data, x: must hold an image"),
    "too few labels": (lambda: (GOOD, LABELS[:3]), "data, y: must be 4 labels, one for each image, got .3,."),
    "two ones in a row": (lambda: (GOOD, np.ones((4, 2))), "data: y must hold one label for each image, or one-hot"),
    "fractions": (lambda: (GOOD, LABELS / 2), "data: y must hold labels, whole numbers, got 0.5"),
    "no number": (lambda: (GOOD, LABELS * np.nan), "data: y must hold labels, whole numbers, got nan"),
    "dates": (lambda: (GOOD, LABELS.astype("M8[s]")), "data: y must hold labels, whole numbers or text, got datetime"),
    "ragged": (lambda: (GOOD, np.array([[1], [1, 2], 3, 4], object)), "rows of several lengths"),
    "text and numbers": (lambda: (GOOD, LABELS.astype(str), GOOD, LABELS), "must both hold numbers, or both text"),
    "masked values": (lambda: (np.ma.masked_less(GOOD + 1, 2), LABELS), "data, x: has masked values"),
    "a layout that may be two": (lambda: (GOOD[:, None, :3, :3].repeat(3, 1), LABELS), r"may be \(N, H, W, C\) or"),
    "a new class in the test part": (
        lambda: (GOOD, LABELS, GOOD, LABELS + 1),
        "y_test holds class 2, and y has no image of it",
    ),
    "test images of another size": (lambda: (GOOD, LABELS, GOOD[:, 1:], LABELS), "x_test must be like x, 1x6x6 uint8"),
    "test images of another type": (lambda: (GOOD, LABELS, GOOD / 255.0, LABELS), "x_test must be like x"),
    "words": (lambda: (np.array(["a", "b"]), LABELS[:2]), "data, x: must be uint8 or floats"),
    "lists of different lengths": (lambda: ([[1, 2], [3]], [0, 1]), "data, x: must be an array, got list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_cannot_be_used_are_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(hebb.ConfigError, match=message):
        train(data())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training_mode": "successiv"}, "training_mode: unknown mode 'successiv' .did you mean 'successive'"),
        ({"overrides": {"b0.layer.rl": 0.1}}, "overrides b0.layer.rl: "),
        ({"protocol": "nothing"}, "protocol: unknown protocol 'nothing'"),
        ({"device": "gpu"}, "device: unknown device 'gpu'"),
        ({"device": "cuda:x"}, "device: unknown device 'cuda:x'"),
        ({"data": "Digitz"}, "data: unknown dataset 'Digitz' .did you mean 'Digits'"),
        ({"data_unsup": "Digitz"}, "data_unsup: unknown dataset"),
        ({"seed": -1}, "seed: must be a whole number >= 0"),
        ({"carry_on": True}, "carry_on: needs a folder"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(hebb.ConfigError, match=message):
        hebb.train(PRESET, **arguments)


def test_a_warning_above_one() -> None:
    with pytest.warns(UserWarning, match="x: floats are taken as they are, and these reach 255"):
        memory.images(np.full((1, 2, 2), 255.0), "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory.images(np.ones((1, 2, 2)), "x")


def test_layouts_are_those_of_npz_files() -> None:
    """(N, H, W), (N, H, W, C), (N, C, H, W) and rows (N, D); a tensor with a gradient too."""
    image = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(memory.images(image, "x"), image)
    np.testing.assert_array_equal(memory.images(image.transpose(0, 2, 3, 1), "x"), image)
    np.testing.assert_array_equal(memory.images(image[:, 0], "x"), image[:, :1])
    assert memory.images(image.reshape(2, 60), "x").shape == (2, 1, 1, 60)
    assert memory.images(torch.rand(2, 7, requires_grad=True), "x").dtype == np.float32


def test_arrays_are_forgotten_with_the_run(arrays: tuple[np.ndarray, ...]) -> None:
    """Many runs in one process would otherwise fill the memory."""
    before = len(memory._REGISTERED)
    run = train(arrays)
    assert len(memory._REGISTERED) == before + 1
    del run
    assert len(memory._REGISTERED) == before


def test_progress_is_that_of_the_command(arrays: tuple[np.ndarray, ...], capsys: pytest.CaptureFixture[str]) -> None:
    train(arrays)
    assert capsys.readouterr().out == ""
    train(arrays, progress=True)
    printed = capsys.readouterr().out
    assert "phase 0: hebbian b0, 1 epoch of 200 images" in printed
    assert "test accuracy" in printed
