"""Every benchmark in its smallest form: the numbers it writes must fit together. Never how long anything took.

Without it a ratio could compare different work.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small
import torch
from conftest import ROOT, Command
from torch.nn import functional as F

from benchmarks import (
    energy_step,
    growth,
    harness,
    hebbian_step,
    lpl_step,
    published,
    published_code,
    samplers,
    stored_scale,
    time_split,
)
from hebb.config import catalog, domains, plan
from hebb.config.specs import RunConfig

CPU = torch.device("cpu")


def numbers(command: Command, tmp_path: Path, name: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run a benchmark on one thread and return the JSON it writes, whose common part is checked."""
    out = tmp_path / "out" / f"{name}.json"  # named before the last arguments, which may follow a --
    done = command(
        f"benchmarks/{name}.py", *arguments[:1], "--threads", "1", "--out", str(out), *arguments[1:], **options
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(out.read_text())
    assert data["benchmark"] == name
    assert data["machine"]["threads"] == 1
    assert data["machine"]["cores"] == os.cpu_count()
    assert data["versions"]["torch"] == importlib.metadata.version("torch")
    assert data["date"][:4].isdigit()
    for row in data["results"]:
        assert all(value > 0 for key, value in row.items() if key.endswith(("_ms", "_s", "_gb")) and key[:4] != "all_")
    last = data["results"][-1]
    assert f"{last['ratio' if 'ratio' in last else 'operations_ratio']:.2f}" in done.stdout  # where nothing was timed
    return data


def test_krotov_step(command: Command, tmp_path: Path) -> None:
    flags = ("--batch-size=1", "--steps", "2", "--warm-up", "1", "--rank", "3", "--lebesgue-p", "3")
    data = numbers(command, tmp_path, "krotov_step", *flags)
    shapes = [("96x3x5x5", "1x3x32x32", 2.5), ("128x96x3x3", "1x96x16x16", 1.3), ("192x128x3x3", "1x128x16x16", 1.3)]
    assert [(row["weights"], row["input"], row["most"]) for row in data["results"]] == shapes
    assert data["settings"]["rank"] == 3
    for row in data["results"]:
        assert row["floor_ms"] == row["forward_ms"] + row["gradient_ms"]
        assert row["ratio"] == pytest.approx(row["step_ms"] / row["floor_ms"])


def test_curves(command: Command, tmp_path: Path) -> None:
    """Digits has 144 updates in its Hebbian epoch, and so 14 points, ten updates apart or more."""
    flags = ("--preset=2SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--repeats", "2")
    (row,) = numbers(command, tmp_path, "curves", *flags)["results"]
    assert (row["updates"], row["points"]) == (144, 14)
    assert row["ratio"] == pytest.approx(row["point_ms"] / row["update_ms"])
    assert row["share_percent"] == pytest.approx(100 * 14 / 144 * row["ratio"])


def test_pack(command: Command, tmp_path: Path) -> None:
    small = ("dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_sup.epochs=2")
    flags = ("--preset=2SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_50", "--seeds", "2")
    rows = numbers(command, tmp_path, "pack", *flags, "--set", *small)["results"]
    assert [row["what"] for row in rows] == ["epochs of hebbian b0", "epochs of backprop b1", "whole run"]
    for row in rows:
        alone = [row["all_s"][f"seed {seed}"][0] for seed in (0, 1)]
        assert row["sequence_s"] == pytest.approx(sum(alone))
        assert row["ratio"] == pytest.approx(row["pack_s"] / (sum(alone) / 2))
        assert row["ratio_sequence"] == pytest.approx(row["pack_s"] / sum(alone))
    whole = rows[-1]["all_s"]
    for name, seconds in whole.items():  # the epochs are part of the whole
        assert rows[0]["all_s"][name][0] + rows[1]["all_s"][name][0] < seconds[0]


def test_hebbian_step(command: Command, tmp_path: Path) -> None:
    flags = ("--preset=3SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--steps", "3", "--warm-up", "1")
    rows = numbers(command, tmp_path, "hebbian_step", *flags, "--batch-size", "7")["results"]
    run = RunConfig(
        network=catalog.load().network("3SoftHebbCnnDigits"),
        mode="successive",
        dataset_sup=catalog.load().dataset("Digits_1", "test"),
        dataset_unsup=catalog.load().dataset("Digits_1", "test"),
    )
    hebbian = [phase for phase in plan.phases(run) if phase.kind == "hebbian"]
    assert [row["layer"] for row in rows] == [f"b{phase.top}" for phase in hebbian]
    for row in rows:
        medians = {name: result["median"] for name, result in row["all_ms"].items()}
        assert row["batch_size"] == 7 and row["input"].startswith("7x")
        assert {result["n"] for result in row["all_ms"].values()} == {3}
        assert row["step_ms"] == medians["step"]
        pairs = [medians[f"forward {layout}"] + medians[f"gradient {layout}"] for layout in hebbian_step.LAYOUTS]
        assert row["floor_ms"] == pytest.approx(min(pairs))
        assert row["floor_ms"] == pytest.approx(row["forward_ms"] + row["gradient_ms"])
        assert row["ratio"] == pytest.approx(row["step_ms"] / row["floor_ms"])


@pytest.mark.slow
def test_a_compiled_hebbian_step(command: Command, tmp_path: Path) -> None:
    """The compiled steps stand beside the others, each with the floor that was measured between them."""
    flags = (
        "--preset=2SoftHebbCnnDigits",
        "--dataset-unsup",
        "Digits_1",
        "--steps",
        "3",
        "--warm-up",
        "1",
        "--compile",
    )
    done = numbers(command, tmp_path, "hebbian_step", *flags, "--compute-dtype", "bfloat16")
    (row,) = done["results"]
    medians = {name: result["median"] for name, result in row["all_compiled_ms"].items()}
    floor = min(medians[f"forward {kind}"] + medians[f"gradient {kind}"] for kind in hebbian_step.LAYOUTS)
    assert row["compiled_ms"] == medians["step"]
    assert row["compiled_ratio"] == pytest.approx(row["compiled_ms"] / floor)
    assert done["settings"]["compile"] is True
    assert done["settings"]["compute_dtype"] == "bfloat16"


def test_lpl_step(command: Command, tmp_path: Path) -> None:
    flags = ("--preset=3LPLCnnDigits", "--dataset", "Digits", "--batch-size", "6", "--steps", "3")
    (row,) = numbers(command, tmp_path, "lpl_step", *flags)["results"]
    medians = {name: result["median"] for name, result in row["all_ms"].items()}
    assert row["step_ms"] == medians.pop("step")
    for kind in ("whole", "blocks"):
        assert row[f"{kind}_ms"] == min(medians[f"{kind} {layout}"] for layout in lpl_step.LAYOUTS)
    assert row["ratio"] == pytest.approx(row["step_ms"] / row["whole_ms"])
    assert row["ratio_blocks"] == pytest.approx(row["step_ms"] / row["blocks_ms"])
    refused = command("benchmarks/lpl_step.py", "--preset", "2SoftHebbCnnCIFAR")
    assert refused.returncode == 2 and "no block with a loss of its own" in refused.stderr


def test_the_bare_convolutions_are_forward_and_weight_gradient() -> None:
    """Against autograd: the gradient of sum(y * conv(x, w)) with respect to w, in both layouts."""
    options = hebbian_step.parse(["--preset", "3SoftHebbCnnDigits", "--dataset-unsup", "Digits_1"])
    run = hebbian_step.config(options)
    network = hebbian_step.model.build(run)
    split = hebbian_step.images.load(run.dataset_unsup, Path("nowhere"), 0, CPU).train
    layer = network[0].hebb
    assert isinstance(layer, hebbian_step.ConvHebbLayer)
    padded, bare = hebbian_step._bare(network, layer, split, 5)
    weight = layer.weight.clone().requires_grad_()
    u = F.conv2d(padded, weight)
    (u * layer.gate(u.detach())).sum().backward()
    assert weight.grad is not None
    for layout in hebbian_step.LAYOUTS:
        torch.testing.assert_close(bare[f"forward {layout}"](), u.detach())
        torch.testing.assert_close(bare[f"gradient {layout}"](), weight.grad, atol=1e-3, rtol=1e-4)


def test_a_preset_without_a_hebbian_convolution_is_refused(command: Command) -> None:
    done = command("benchmarks/hebbian_step.py", "--preset", "2SoftMlpDigits", "--dataset-unsup", "Digits_1")
    assert done.returncode == 2
    assert "no convolution" in done.stderr and "Traceback" not in done.stderr


def test_classifier_epoch(command: Command, tmp_path: Path) -> None:
    flags = ("--preset=2SoftHebbCnnDigits", "--dataset-sup", "Digits_50", "--images", "100", "--repeats", "3", "--busy")
    [row] = numbers(command, tmp_path, "classifier_epoch", *flags, "--one-thread")["results"]
    assert row["parts_ratio"] == pytest.approx(row["epoch_s"] / row["parts_s"])
    assert row["busy_ratio"] == pytest.approx(row["busy_s"] / row["epoch_s"])
    assert row["one_ratio"] == pytest.approx(row["epoch_s"] / row["one_s"])
    assert 0 < row["cores"] < 2
    assert row["images"] == 100
    assert row["features"] == catalog_features("2SoftHebbCnnDigits")
    assert {result["n"] for result in row["all_s"].values()} == {3}
    assert row["ratio"] == pytest.approx(row["epoch_s"] / row["pass_s"])
    assert row["pass_gb_per_s"] == pytest.approx(4 * 100 * row["features"] / row["pass_s"] / 1e9)


def test_time_split(command: Command, tmp_path: Path) -> None:
    """The parts are those of the run and fill its time; the limits count what the shapes say."""
    flags = ("--preset=2SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_5")
    report = numbers(command, tmp_path, "time_split", *flags)
    rows = {row["part"]: row for row in report["results"]}
    whole = rows[time_split.WHOLE]["seconds"]
    assert set(rows) == {
        *("hebbian epochs", "features", "backprop epochs", "evaluation", "checkpoints"),
        *(time_split.START, time_split.WHOLE),
    }
    assert sum(row["seconds"] for row in rows.values()) == pytest.approx(2 * whole)
    assert all(row["seconds"] > 0 for row in rows.values())
    assert rows["features"]["ratio"] == pytest.approx(rows["features"]["seconds"] / rows["features"]["limit_s"])


def test_the_limits_of_a_run_count_its_operations_and_its_bytes() -> None:
    run = small.config(
        "Soft-c8-k3-p1:bn:triangle:avg_2_2_0 BP:flatten", "dataset_sup.epochs=3"
    )  # 200 images, 359 tests
    hebbian, classifier, features = 8 * 9 * 64, 128 * 10, 128
    macs = time_split.limits_of(run, time_split.Speed(macs=1, bytes=math.inf, fresh=math.inf))
    assert macs["hebbian epochs"] == 2 * hebbian * 200
    assert macs["backprop epochs"] == 2 * classifier * 3 * 200
    assert macs["features"] == hebbian * (200 + 359)
    assert macs["evaluation"] == classifier * 359 * 3
    stored = time_split.limits_of(run, time_split.Speed(macs=math.inf, bytes=math.inf, fresh=1))
    assert stored["features"] == 4 * features * (200 + 359)
    assert stored["evaluation"] == 0


@pytest.mark.parametrize("record", sorted((ROOT / "records").glob("*-speed"), key=str), ids=lambda path: path.name)
def test_the_summary_of_a_record_has_its_numbers(record: Path, command: Command) -> None:
    done = command("benchmarks/summary.py", str(record))
    assert done.returncode == 0, done.stderr
    for path in record.glob("published-*.json"):
        [row] = json.loads(path.read_text(encoding="utf-8"))["results"]
        assert f"{row['ratio']:.2f}" in done.stdout


def test_a_folder_without_results_has_no_summary(command: Command, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    done = command("benchmarks/summary.py", str(tmp_path))
    assert done.returncode == 2
    assert "holds no results of benchmarks" in done.stderr


def catalog_features(preset: str) -> int:
    """Inputs of the classifier of a preset on Digits, from its shapes."""
    from hebb.config import shapes

    network = catalog.load().network(preset)
    return shapes.trace(network, (1, 8, 8), 10)[-1].weights[1]


def test_growth_is_the_exponent_of_time_over_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, clock = iter(range(1, 4)), [0.0]
    monkeypatch.setattr(harness, "now", lambda device: clock[0])

    def prepare(axis: str, value: int) -> growth.Step:
        assert axis == "width"
        place = next(draws)

        def step() -> None:
            clock[0] += 0.02 * 2 ** (0.5 * place)

        return growth.Step(step, 10**6 * 2**place)

    options = argparse.Namespace(steps=1)
    rows = growth.series("step", "width", (8, 16, 32), prepare, options)
    assert [row["mega"] for row in rows] == [2, 4, 8]
    assert rows[0]["exponent"] is None
    assert [row["exponent"] for row in rows[1:]] == pytest.approx([0.5, 0.5])
    growth.draw(rows, tmp_path / "growth.svg")
    assert "width" in (tmp_path / "growth.svg").read_text(encoding="utf-8")


def test_growth_counts_both_passes_through_the_convolutions_and_the_products_that_settle() -> None:
    assert growth._hebbian("width", 24).operations == 2 * 10 * 24 * 3 * 25 * 32 * 32
    step = growth._settling(growth.SettlingSize(width=16, depth=1, batch=5), "PC")
    inputs, hidden = 784 * 16, 16 * 10
    steps, others = 50, 2  # products of the hidden layer: two a step, forward pass, gradient
    assert step.operations == 5 * (inputs * 2 + hidden * (2 * steps + others))  # the images: drive and gradient


def test_peak_memory(command: Command, tmp_path: Path) -> None:
    data = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_1")
    [row] = numbers(command, tmp_path, "peak_memory", "--presets=2SoftHebbCnnDigits", *data)["results"]
    assert row["ratio"] == pytest.approx(row["run_gb"] / row["loading_gb"])
    assert row["run_gb"] > row["loading_gb"] > 0.05  # a process with torch in it


def test_memory_of_stl10(command: Command, tmp_path: Path) -> None:
    rows = numbers(command, tmp_path, "memory_stl10", "--images=1000", "--updates", "1")["results"]
    peaks = [row["peak_gb"] for row in rows]
    assert peaks == sorted(peaks)
    assert rows[-1]["images_gb"] == pytest.approx(1000 * 3 * 96 * 96 / 1e9)
    assert rows[-1]["ratio"] == pytest.approx(peaks[-1] / rows[-1]["images_gb"])


# -- the published code -------------------------------------------------------------------------------------


def test_published_against_a_stand_in(command: Command, tmp_path: Path) -> None:
    """Our run, the stand-in's steps, and the sum: 5,000 steps, 3 epochs and 3 evaluations at a print_freq of 2."""
    checkout, data = tmp_path / "checkout", tmp_path / "data"
    checkout.mkdir()
    for name in ("utils", "model", "train", "engine", "dataset", "log", "multi_layer"):
        (checkout / f"{name}.py").write_text((ROOT / "tests" / "stand_in.py").read_text())
    (checkout / "presets.json").write_text(json.dumps({"2SoftHebbCnnCIFAR": {"of": "2SoftHebbCnnCIFAR"}}))
    few_images(data)
    flags = ("--warm-up", "1", "--steps", "4", "--classifier-images", "100")
    ours = ("--", "--set", "dataset_sup.epochs=3", "dataset_sup.print_freq=2", "dataset_unsup.batch_size=50")
    [row] = numbers(command, tmp_path, "published", f"--published={checkout}", *flags, *ours, datasets=data)["results"]
    steps, epoch, evaluation = row["parts"]
    assert (steps["count"], epoch["count"], evaluation["count"]) == (1000, 3, 3)  # 50,000 images in batches of 50
    assert steps["measured"] == 4
    assert epoch["measured"] == 128  # 100 images are 2 batches of 64
    for part in row["parts"]:
        assert part["seconds"] == pytest.approx(part["one_s"] * part["count"])
    assert row["published_is"] == "computed"
    assert row["published_s"] == pytest.approx(sum(part["seconds"] for part in row["parts"]))
    assert row["ratio"] == pytest.approx(row["published_s"] / row["ours_s"])
    assert len(row["smoke_test"]) == 3
    accuracy = row["accuracy"]
    assert accuracy["published"] is accuracy["published_first_epoch"] is None
    # the stand-in computes the published network on the same test images: one image in 100 may lie on a boundary
    assert accuracy["ours_measured_by_published"]["accuracy"] == pytest.approx(accuracy["ours"], abs=1.01)
    assert not list(checkout.rglob("*.pyc"))


def few_images(folder: Path) -> None:
    """Write a CIFAR-10 of 200 + 100 images whose brightness tells the class."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 200), ("test", 100)):
        labels = rng.integers(10, size=count)
        arrays[f"y_{part}"] = labels
        arrays[f"x_{part}"] = (20 * labels[:, None, None, None] + rng.integers(60, size=(count, 32, 32, 3))).astype(
            "uint8"
        )
    np.savez(folder / "cifar10.npz", **arrays)


def test_published_against_the_checkout(command: Command, tmp_path: Path, shared_data: Path) -> None:
    """The published code agrees about the accuracy of our network on all test images."""
    checkout = os.environ.get("HEBB_PUBLISHED")
    if checkout is None:
        pytest.skip("$HEBB_PUBLISHED names no checkout of the published code")
    flags = ("--warm-up", "1", "--steps", "2", "--classifier-images", "10000")
    ours = ("--", "--set", "dataset_sup.epochs=1", "dataset_unsup.batch_size=1000")
    result = numbers(command, tmp_path, "published", f"--published={checkout}", *flags, *ours, datasets=shared_data)
    accuracy = result["results"][0]["accuracy"]
    assert accuracy["ours_measured_by_published"]["images"] == 10_000
    assert accuracy["ours_measured_by_published"]["accuracy"] == pytest.approx(accuracy["ours"], abs=0.03)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--published", "nowhere"), "no checkout"),
        (("--published", "{checkout}", "--whole", "--steps", "9"), "leave out --steps"),
        (("--published", "{checkout}", "--", "--set", "b0.layer.lr=0.1"), "what is learnt"),
        (("--published", "{checkout}", "--", "--set", "dataset_sup.samples=9"), "what is learnt"),
        (("--published", "{checkout}", "--preset", "2SoftMlpMNIST"), "2SoftMlpMNIST"),
    ],
)
def test_what_would_compare_different_things_is_refused(
    command: Command, tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    for name in ("multi_layer.py", "presets.json"):
        (tmp_path / name).touch()
    done = command("benchmarks/published.py", *(flag.format(checkout=tmp_path) for flag in flags))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def test_a_checkout_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no module named einops')")
    with pytest.raises(published.HebbError, match="exit code 1\nno module named einops"):
        published._started([published.sys.executable, str(tmp_path / "broken.py")], "it")


@pytest.mark.parametrize(
    ("epochs", "print_freq", "times"), [(50, 10, 6), (1, 10, 1), (10, 3, 5), (9, 3, 4), (2, 1, 2), (3, 100, 2)]
)
def test_evaluations_are_counted_as_a_run_makes_them(epochs: int, print_freq: int, times: int) -> None:
    """After epoch 1, every ``print_freq``-th and the last: 1, 10, 20, 30, 40, 50 for CIFAR10_50."""
    assert published.evaluations(epochs, print_freq) == times


def test_the_parts_of_the_published_time() -> None:
    """By hand: 4 steps at a median of 2 s, 2 epochs of 3 batches scaled from the last 2, 2 evaluations of 5 s."""
    run = RunConfig(
        network=catalog.load().network("2SoftHebbCnnCIFAR"),
        mode="successive",
        dataset_sup=published.replace(catalog.load().dataset("CIFAR10_50", ""), epochs=2, batch_size=20_000),
        dataset_unsup=published.replace(catalog.load().dataset("CIFAR10_1", ""), batch_size=12_500),
    )
    answer = {
        "hebbian": [{"blocks": [0], "batches": 4, "seconds": [2.0, 1.0, 9.0]}],
        "classifier": {"seconds": [100.0, 6.0], "images": [20_000, 20_000], "batches": 3},
        "evaluation": {"seconds": [2.0, 3.0], "images": [1000, 1000], "batches": 2},
    }
    parts = published._parts(answer, plan.phases(run))
    assert [part["seconds"] for part in parts] == [4 * 2.0, 2 * 3 * 6.0, 2 * 5.0]
    answer["hebbian"][0]["batches"] = 5  # type: ignore[index]
    with pytest.raises(published.HebbError, match="other updates"):
        published._parts(answer, plan.phases(run))


def test_a_timed_loader_counts_the_work_and_ends_early() -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(10, 1), torch.zeros(10))
    timed = published_code.Timed(torch.utils.data.DataLoader(data, batch_size=4), most=2)
    for _ in timed:
        time.sleep(0.02)  # a lower bound is sure
    assert timed.images == [4, 4] and len(timed) == 2
    assert all(seconds >= 0.02 for seconds in timed.seconds) and len(timed.seconds) == 2


# -- the harness ----------------------------------------------------------------------------------------------


def test_functions_take_turns_and_warm_up_uncounted() -> None:
    calls: list[str] = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = harness.in_turns(functions, CPU, repeats=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(seconds[name]) for name in "ab"] == [3, 3]


def test_summary() -> None:
    result = harness.summary([0.001 * i for i in range(1, 12)])
    assert result == pytest.approx({"median": 6.0, "p10": 2.0, "p90": 10.0, "n": 11})
    assert harness.summary([0.5], unit=1.0)["median"] == 0.5


def test_make_bench_names_every_benchmark() -> None:
    done = subprocess.run(
        ["make", "-n", "bench", "gpu", "PUBLISHED=somewhere"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shared = {"__init__", "before_torch", "harness", "published_code", "energy_published"}
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert path.stem in shared or f"benchmarks/{path.name}" in done.stdout, path.name
        assert path.stem in shared or path.name in (ROOT / "benchmarks" / "README.md").read_text()


# -- networks that settle -----------------------------------------------------------------------------------


def test_a_batch_of_every_network_that_settles(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = command("benchmarks/energy_step.py", "--steps=1", "--warm-up=1", "--threads=1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["results"]
    assert [row["preset"] for row in rows] == list(energy_step.PRESETS)
    assert all(0 < row["ours_p10_ms"] <= row["ours_ms"] for row in rows)
    assert all(row["products_ratio"] == pytest.approx(row["ours_ms"] / row["products_ms"]) for row in rows)


def test_products_of_a_batch_are_counted_and_repeated_in_their_order_of_memory() -> None:
    x, weight, bias = torch.rand(3, 5), torch.rand(7, 5), torch.rand(7)

    def step() -> None:
        torch.addmm(bias, x, weight.T)
        torch.rand(7, 3).addmm_(weight, x.T)
        F.linear(x, weight, bias)

    products = energy_step.Products.of(step)
    assert products.operations == 3 * 2 * 3 * 5 * 7
    assert [(a.shape, b.shape) for a, b, _ in products.pairs] == [((3, 5), (5, 7)), ((7, 5), (5, 3)), ((3, 5), (5, 7))]
    assert all(b.stride() == (1, 5) for _, b, _ in products.pairs)
    assert products.pairs[0][1] is products.pairs[2][1]
    products.repeat()
    assert all(torch.equal(out, a @ b) for a, b, out in products.pairs)


def solved(command: Command, folder: Path, method: str, repeats: int) -> dict[str, Any]:
    flags = (f"--methods={method}", "--layers", "12-9-9-9-3", "--updates", "3", f"--repeats={repeats}")
    (row,) = numbers(command, folder, "solvers", *flags)["results"]
    assert row["network"] == f"{method} 12-9x3-3"
    return row


UP = 2 * 20 * (9 * 9 + 9 * 9 + 9 * 3)
"""Operations of a pass of 20 images from the lowest hidden layer to the classes, or back."""


@pytest.mark.parametrize("method", ["PC", "PCNudge"])
def test_solvers_are_counted_alike_each_time(command: Command, tmp_path: Path, method: str) -> None:
    """Steps and products to the equilibrium; deep networks need fewer when their errors descend."""
    row = solved(command, tmp_path, method, 0)
    assert row == solved(command, tmp_path, method, 0)
    assert 0 < row["error_steps"] < row["state_steps"]
    for solver in ("state", "error"):
        tried = row[f"all_{solver}_steps"]
        assert tried[f"{row[f'{solver}_step']:g}"] == row[f"{solver}_steps"] == min(filter(None, tried.values()))
    assert row["operations_ratio"] == pytest.approx(row["state_mflop"] / row["error_mflop"])
    assert "ratio" not in row
    # per step a product up and one down for each of three pairs of layers; the way up is taken once more at the start,
    # after the product of the images, and neither the updates of the errors nor those of the states need others
    images = 2 * 20 * 12 * 9
    for solver in ("state", "error"):
        assert row[f"{solver}_mflop"] * 1e6 == pytest.approx(images + UP + 2 * UP * row[f"{solver}_steps"])


def test_errors_of_a_weak_nudge_come_there_by_their_step_alone(command: Command, tmp_path: Path) -> None:
    """From 0, e after T steps lacks (1 - 2 step)^T of itself, to first order in beta, however deep the network is."""
    row = solved(command, tmp_path, "PCNudge", 0)
    for step, steps in row["all_error_steps"].items():
        theory = math.log(1e-4) / math.log(1 - 2 * float(step))
        assert math.ceil(theory) <= steps <= max(theory + 1, 1.06 * theory)


def test_solvers_are_timed_in_turns(command: Command, tmp_path: Path) -> None:
    row = solved(command, tmp_path, "PC", 2)
    assert row["ratio"] == pytest.approx(row["state_ms"] / row["error_ms"])


def test_settling_against_the_checkout(command: Command, tmp_path: Path) -> None:
    """The published code and ours have the same weights after five batches, to the rounding of single precision."""
    checkout = os.environ.get("HEBB_PUBLISHED_ENERGY")
    if checkout is None:
        pytest.skip("$HEBB_PUBLISHED_ENERGY names no checkout of the published code")
    flags = (f"--published={checkout}", "--steps=1", "--warm-up=1")
    for row in numbers(command, tmp_path, "energy_step", *flags)["results"]:
        assert row["difference"] < {"3PCMNIST": 1e-4, "3PCNudgeMNIST": 1e-3}.get(row["preset"], 1e-5)
        assert row["ratio"] == pytest.approx(row["published_ms"] / row["ours_ms"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--published", "nowhere"), "no checkout"), (("--presets", "2SoftMlpMNIST"), "2SoftMlpMNIST")],
)
def test_what_settling_cannot_be_compared_with(command: Command, flags: tuple[str, ...], words: str) -> None:
    done = command("benchmarks/energy_step.py", *flags)
    assert done.returncode == 2
    assert words in done.stderr


# -- samplers -----------------------------------------------------------------------------------------------


def test_samplers_on_a_planted_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is 0 at the optimum alone; more points come nearer, and a model comes nearer than chance."""
    best = {"rule": "Soft", "t_invert": 0.1 * 100**0.7, "power": 0.6, "lr": 0.001 * 1000**0.6, "radius": 1 + 29 / 4}
    for space in samplers.SPACES:
        axes = domains.parse(samplers.SPACES[space], space)
        assert samplers.loss(axes, best) == pytest.approx(0)
        assert samplers.loss(axes, {**best, "lr": 0.001}) == pytest.approx(0.6**2)
    hard = {"rule": "Hard", "momentum": 0.4, "noise": 1.6, "lr": 0.001 * 1000**0.3, "radius": best["radius"]}
    assert samplers.loss(domains.parse(samplers.SPACES["conditional"], "x"), hard) == pytest.approx(0.05)
    monkeypatch.setattr(samplers, "BUDGETS", {"plain": (10, 40)})
    few, many = samplers.measure("plain", "tpe", samplers.VARIANTS["tpe"], repeats=3)
    _, chance = samplers.measure("plain", "random", samplers.VARIANTS["random"], repeats=3)
    assert all(after <= before for before, after in zip(few["each"], many["each"], strict=True))
    assert many["mean"] == pytest.approx(np.mean(many["each"]))
    assert many["error"] == pytest.approx(np.std(many["each"], ddof=1) / 3**0.5)
    assert many["mean"] < chance["mean"]


# -- stored searches ----------------------------------------------------------------------------------------


def test_growth_of_a_command_is_taken_from_the_next_smaller_search() -> None:
    """By hand: eight times the trials in four times the time is an exponent of 2/3."""
    rows: list[harness.Row] = [
        {"command": "runs", "trials": 100, "cpu_s": 2.0, "mb": 50.0},
        {"command": "runs", "trials": 1, "cpu_s": 1.9, "mb": 49.0},
        {"command": "table", "trials": 500, "cpu_s": 7.0, "mb": 70.0},
        {"command": "runs", "trials": 800, "cpu_s": 8.0, "mb": 57.0},
    ]
    more = stored_scale.since(rows[3], rows)
    assert more == {
        "ms_per_trial": pytest.approx(6000 / 700),
        "kb_per_trial": pytest.approx(10.0),
        "exponent": pytest.approx(2 / 3),
    }
    assert stored_scale.since(rows[2], rows) == {}


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_of_copies_is_a_whole_one(tmp_path: Path) -> None:
    """Every command finds all runs, each with its own configuration and seed, and a restored search trains none."""
    folder = stored_scale.store(tmp_path, 8)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert len(written) == 8
    for name in ("runs", "restore"):
        stored_scale.called(list(stored_scale.COMMANDS[name]), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")} == written
    table = pd.read_csv(folder / "results.csv")
    assert set(table.status) == {"finished"}
    pairs = set(zip(table.configuration, table.seed, strict=True))
    assert pairs == {(f"b0.layer.lr={rate}", seed) for rate in ("0.01", "0.0101") for seed in range(4)}
