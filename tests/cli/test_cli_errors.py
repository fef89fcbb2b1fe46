"""Mistakes on the real command lines: each ends with exit code 2 and one message, and leaves nothing behind.

A message is ``error: PLACE: problem (did you mean 'NEAREST'?)``, then the legal choices, then a hint: three lines
at most. The place, the legal choices and the nearest match are named, nothing is ignored in silence, and bad input
ends with exit code 2.

Without it a typing error could train the wrong network for hours, or end in a traceback.
"""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Command

from hebb.core.errors import ConfigError, within

Tree = dict[str, bytes | None]
NETWORK = "SoftKrotov-c4-k3-p1-t1:bn:triangle:avg_2_2_0 BP:flatten"
TINY = "--dataset Digits_1 --set dataset_sup.samples=40 dataset_unsup.samples=40 --threads 1"
MNIST = "--preset Soft-c8-t12:flatten:softmax_5\\ BP --dataset MNIST_1-32 --threads 1"


@pytest.fixture
def command(inside: Command) -> Command:
    """Hundreds of mistakes, in one process."""
    return inside


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, without a network and without colours, wherever the tests run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # refuses at once
    for name in ("no_proxy", "NO_PROXY", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)


def tree(folder: Path) -> Tree:
    """Return every file below ``folder`` with its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def message(done: subprocess.CompletedProcess[str], *says: str, code: int = 2) -> str:
    """Check the form of a refusal and what it says; return its first line, which names the place.

    A line that says what is being read may stand before it.
    """
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert "unexpected" not in done.stderr, "our defect, not the user's mistake"
    assert lines, "no message"
    assert lines[0].startswith("error: ")
    assert all(line.strip() for line in lines), "an empty line"
    assert len(lines) <= 3, done.stderr
    for word in says:
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"
    return lines[0]


@dataclass(frozen=True)
class Case:
    """A command line that is refused.

    Attributes:
        line: script (without .py) and arguments, as in a shell; it runs in a folder of its own.
        place: what the first line of the message must name.
        near: the nearest legal choice, where there is one.
        says: more that the message must hold.
        files: files of that folder by name; what is not text is written as JSON.
    """

    name: str
    line: str
    place: str
    near: str | None = None
    says: tuple[str, ...] = ()
    files: dict[str, object] = field(default_factory=dict)


def _one(name: str, network: str, place: str, near: str | None = None, *says: str) -> Case:
    """A network written out that is refused."""
    return Case(name, f"multi_layer --preset '{network}'", place, near, says)


def _set(name: str, change: str, near: str | None = None, *says: str, place: str = "") -> Case:
    """A ``--set`` that is refused; the path is the place."""
    return Case(name, f"multi_layer --set '{change}'", place or change.partition("=")[0], near, says)


def _space(name: str, text: str, place: str, near: str | None = None, *says: str) -> Case:
    """A search config of one's own that is refused; no trial is started."""
    return Case(name, "ray_search --dry-run --config mine.yaml", place, near, says, {"mine.yaml": text})


def _presets(name: str, data: object, place: str, near: str | None = None, *says: str) -> Case:
    """A preset file that is refused."""
    return Case(name, "multi_layer --preset-file my.json --dry-run", place, near, says, {"my.json": data})


def _blocks(*blocks: object) -> dict[str, object]:
    return {"model": {"mine": {"blocks": list(blocks)}}}


NAMES = [
    Case("preset", "multi_layer --preset 2SoftHebbCnnCIFA", "--preset", "2SoftHebbCnnCIFAR", ("--list presets",)),
    Case("preset-ray", "ray_search --preset 2HardCnnDigit", "--preset", "2HardCnnDigits"),
    Case("preset-demo", "demo --preset 4SoftHebCnnCIFAR", "--preset", "4SoftHebbCnnCIFAR"),
    Case("dataset-sup", "multi_layer --dataset-sup CIFR10_50", "--dataset-sup", "CIFAR10_50", ("--list datasets",)),
    Case("dataset-unsup", "multi_layer --dataset-unsup Digitz", "--dataset-unsup", "Digits"),
    Case("dataset", "multi_layer --dataset Digit", "--dataset:", "Digits"),
    Case("mode", "multi_layer --training-mode succesive", "--training-mode", "successive", ("consecutive",)),
    Case("metric", "ray_search --metric test_ac", "--metric", "test_acc", ("val_acc",)),
    Case("metric-closed", "ray_search --metric val_acc", "--metric", None, ("--validation-sup",)),
    Case("config", "ray_search --config sed", "--config", "seed", ("one_seed", "radius", "regimes")),
    Case("list", "multi_layer --list preset", "--list", "presets", ("datasets", "methods", "configs")),
    Case("list-ray", "ray_search --list confgs", "--list", "configs"),
    Case("list-nothing", "multi_layer --list", "--list"),
    Case("flag", "multi_layer --presett 2CnnDigits", "--presett", "--preset"),
    Case("flag-ray", "ray_search --num-sample 1", "--num-sample", "--num-samples"),
    Case("flag-demo", "demo --dry-rn", "--dry-rn", "--dry-run"),
    Case("flag-underscore", "multi_layer --dataset_sup Digits", "--dataset_sup", "--dataset-sup"),
    Case("flag-of-ray", "multi_layer --folder-name x", "--folder-name"),
    Case("word", "multi_layer 2CnnDigits", "the word '2CnnDigits' belongs to no flag"),
    Case("training-block", "multi_layer --training-blocks 5", "--training-blocks", None, ("0 to 1",)),
    Case("training-block-negative", "multi_layer --training-blocks -1", "--training-blocks", None, ("0 to 1",)),
    Case("dataset-both-ways", "multi_layer --dataset Digits --dataset-sup Digits", "--dataset"),
]

NUMBERS = [
    Case("seed", "multi_layer --seed -1", "seed", None, ("-1",)),
    Case("seed-ray", "ray_search --seed -1", "--seed", None, ("-1",)),
    Case("seed-word", "multi_layer --seed one", "error: --seed: must be a whole number >= 0, got 'one'"),
    Case("threads-word", "multi_layer --threads two", "error: --threads: must be a whole number >= 1, got 'two'"),
    Case("blocks-word", "multi_layer --training-blocks x", "error: --training-blocks: must be a whole number, got 'x'"),
    Case("no-value", "multi_layer --set", "error: --set: needs a value"),
    Case("value-of-a-switch", "multi_layer --dry-run=3", "error: --dry-run: takes no value, got '3'"),
    Case("threads", "multi_layer --threads 0", "threads"),
    Case("num-samples", "ray_search --num-samples 5", "--num-samples", None, ("seeds",)),
    Case("num-samples-0", "ray_search --num-samples 0", "--num-samples"),
    Case("gpu-exp", "ray_search --gpu-exp 0", "--gpu-exp"),
    Case("save", "multi_layer --save perhaps", "--save", None, ("true or false", "perhaps")),
    Case("gpu-id", "multi_layer --gpu-id first", "--gpu-id", None, ("first", "cpu")),
    Case("gpu-id-negative", "multi_layer --gpu-id -1", "--gpu-id", None, ("-1", "cpu")),
    Case("gpu-id-unicode", "multi_layer --gpu-id ² --dry-run", "--gpu-id", None, ("²",)),
    Case("device", "multi_layer --device cude", "--device", "cuda", ("cpu",)),
    Case("device-unicode", "multi_layer --device cuda:² --dry-run", "--device", None, ("cuda:²",)),
    Case("device-contradicts", "multi_layer --gpu-id 0 --device cpu", "--device", None, ("--gpu-id 0",)),
    Case("device-contradicts-ray", "ray_search --gpu-id cpu --device cuda", "--device", None, ("--gpu-id cpu",)),
]

EMPTY = [
    Case("preset", "multi_layer --dry-run --preset ''", "--preset"),
    Case("preset-space", "multi_layer --dry-run --preset ' '", "--preset"),
    Case("dataset", "multi_layer --dry-run --dataset ''", "--dataset"),
    Case("dataset-sup", "multi_layer --dry-run --dataset-sup ''", "--dataset-sup"),
    Case("dataset-unsup", "multi_layer --dry-run --dataset-unsup ''", "--dataset-unsup"),
    Case("mode", "multi_layer --dry-run --training-mode ''", "--training-mode"),
    Case("config", "ray_search --dry-run --config ''", "--config"),
    Case("metric", "ray_search --dry-run --metric ''", "--metric"),
    Case("model-name", "multi_layer --dry-run --model-name ''", "--model-name"),
    Case("folder-name", "ray_search --dry-run --folder-name ''", "--folder-name"),
    Case("model-name-space", "multi_layer --dry-run --model-name 'a b'", "--model-name"),
    Case("model-name-path", "multi_layer --dry-run --model-name ../x", "--model-name"),
    Case("folder-name-path", "ray_search --dry-run --folder-name ../x", "--folder-name"),
    Case("set", "multi_layer --set b0.layer.lr=", "--set", None, ("b0.layer.lr=",)),
    Case("set-no-equals", "multi_layer --set b0.layer.lr", "--set", None, ("must be path=value, got",)),
    Case("set-no-path", "multi_layer --set =3", "--set", None, ("must be path=value, got",)),
]

NETWORKS = [
    _one("method", "Sof-c8-k3:bn BP:flatten", "b0 'Sof-c8-k3", "Soft", "SoftKrotov", "HardKrotov"),
    _one("method-second", "Soft-c8-k3:bn PB:flatten", "b1 'PB", "BP"),
    _one("token", "Soft-c8-kk3:bn BP:flatten", "b0 'Soft-c8-kk3'", "k3", "legal: "),
    _one("token-unknown", "Soft-c8-k3-q3:bn BP:flatten", "b0 'Soft-c8-k3-q3'", None, "'q3'", "legal: "),
    _one("token-no-value", "Soft-c8-k:bn BP:flatten", "b0 'Soft-c8-k'", None, "'k'"),
    _one("token-twice", "Soft-c8-c9-k3:bn BP:flatten", "b0 'Soft-c8-c9-k3'", None, "'c'", "twice"),
    _one("token-zero", "Soft-c8-k3-t0:bn BP:flatten", "b0 'Soft-c8-k3-t0'", None, "t_invert", "> 0"),
    _one("token-unused", "Soft-c8-k3-a2:bn BP:flatten", "b0 'Soft-c8-k3-a2'", None, "'a'", "delta", "Soft on CNN"),
    _one("token-unused-mlp", "Soft-c8-e1:flatten BP", "b0 'Soft-c8-e1'", None, "'e'", "Soft on MLP"),
    _one("token-unused-bp", "Soft-c8-k3:bn BP-t2:flatten", "b1 'BP-t2'", None, "'t'", "BP on MLP"),
    _one("token-inert", "Soft-c8-k3-m2:bn BP:flatten", "b0 'Soft-c8-k3-m2'", None, "'m'"),
    _one("activation", "Soft-c8-k3:bn:trangle_0.7 BP:flatten", "b0 'Soft-c8-k3:bn:trangle_0.7'", "triangle"),
    _one("activation-zero", "Soft-c8-k3:bn:triangle_0 BP:flatten", "b0 '", None, "triangle_0", "> 0"),
    _one("activation-without", "Soft-c8-k3:bn:relu_2 BP:flatten", "b0 '", None, "relu_2", "no parameter"),
    _one("pool", "Soft-c8-k3:mux_2_2_0 BP:flatten", "b0 'Soft-c8-k3:mux_2_2_0'", "max_k_s_p"),
    _one("pool-numbers", "Soft-c8-k3:max_2_2 BP:flatten", "b0 'Soft-c8-k3:max_2_2'", None, "three whole numbers"),
    _one("pool-unicode", "Soft-c8-k3:max_²_2_0 BP:flatten", "b0 'Soft-c8-k3:max_²_2_0'"),
    _one("pool-padding", "Soft-c8-k3:max_2_2_9 BP:flatten", "max_2_2_9", None, "half"),
    _one("part", "Soft-c8-k3:bnn BP:flatten", "b0 'Soft-c8-k3:bnn'", "bn"),
    _one("part-twice", "Soft-c8-k3:relu:tanh BP:flatten", "b0 'Soft-c8-k3:relu:tanh'", None, "tanh"),
    _one("dropout", "Soft-c8-k3:bn BP:flatten:drop_1", "b1 '", None, "drop_1", "probability"),
    _one("kernel", "Soft-c8-k9:bn BP:flatten", "b0", None, "9 pixels", "1x8x8"),
    _one("kernel-deep", "Soft-c8-k3:max_2_2_0 Hard-c8-k5 BP:flatten", "b1", None, "1x8x8 -> b0 8x3x3"),
    _one("pool-large", "Soft-c8-k3:max_7_7_0 BP:flatten", "b0", None, "7 pixels", "1x8x8"),
    _one("reflect", "Soft-c8-k3-p8:bn BP:flatten", "b0", None, "reflect", "8 pixels", "1x8x8"),
    _one("flatten", "Soft-c8-k3:bn BP", "b1", None, "8x6x6", "flatten"),
    _one("flatten-alone", "BP", "b0", None, "1x8x8", "flatten"),
    _one("width", "Soft-k3:bn BP:flatten", "b0", None, "c96"),
    _one("classes", "Soft-c8-k3:bn BP-c7:flatten", "b1", None, "number of classes, 10"),
    _one("rank", "HardKrotov-c8-k3-rank9:bn BP:flatten", "b0", None, "rank 9", "8 competing"),
    _one("groups", "Soft-c9-k3-g2:bn BP:flatten", "b0", None, "2 groups"),
    Case("loss", "multi_layer --train simultaneous --preset 'BP-c8-k3:bn Soft-c10:flatten'", "b1", None, ("BP",)),
    Case(
        "sizes",
        "multi_layer --dataset-sup Digits --dataset-unsup MNIST_1-32",
        "dataset_unsup",
        None,
        ("MNIST", "1x28x28", "Digits", "1x8x8"),
    ),
]

OVERRIDES = [
    _set("key", "b0.layer.lrr=1", "layer.lr"),
    _set("key-short", "b0.lr=1", "layer.lr"),
    _set("key-part", "b0.pol=max_2_2_0", "pool"),
    _set("key-data", "dataset_sup.epoch=2", "dataset_sup.epochs"),
    _set("key-classifier", "classifier.lrr=2", "classifier.lr"),
    _set("key-top", "sede=1", "seed"),
    _set("key-foreign", "b0.layer.delta=1", None, "SoftKrotov on CNN"),
    _set("block", "b7.layer.lr=1", None, "2SoftHebbCnnDigits", "b0 b1"),
    _set("block-unicode", "b².layer.lr=1"),
    _set("value", "b0.layer.lr=fast", None, "lr must be a number >= 0, got 'fast'"),
    _set("value-negative", "b0.layer.lr=-1", None, "lr must be a number >= 0, got -1"),
    _set("value-nan", "b0.layer.lr=nan", None, "lr must be a number >= 0, got 'nan'"),
    _set("value-inf", "b0.layer.lr=inf", None, "lr must be a number >= 0 and <= 1e+30, got inf"),
    _set("value-comma", "b0.layer.lr=0,1", None, "0,1"),
    _set("value-word", "b0.layer.padding_mode=reflct", "reflect", "circular"),
    _set("value-epochs", "dataset_sup.epochs=0", None, "0"),
    _set("value-half", "dataset_sup.epochs=1.5", None, "whole number", "1.5"),
    _set("value-noise", "dataset_sup.noise_std=nan", None, "nan"),
    _set("value-dataset", "dataset_sup.dataset=Digi", "Digits"),
    _set("value-split", "dataset_sup.split=tset", "test", place="Digits"),
    _set("value-class", "dataset_sup.classes=11", None, "11", place="Digits"),
    _set("value-rate", "classifier.lr=nan", None, "nan"),
    _set("value-schedule", "classifier.schedule=steps", "step", "constant"),
    _set("value-seed", "seed=-1", None, "-1"),
    _set("method", "b0.method=Sofft", "Soft"),
    _set("preset", "b0.preset=Soft-c8-kk3", "k3"),
    _set("activation", "b0.activation=trangle", "triangle"),
    _set("pool", "b0.pool=mux_2_2_0", "max_k_s_p"),
    _set("operation", "b1.operation=flaten", "flatten"),
    Case("twice", "multi_layer --set seed=1 --set seed=2", "seed", None, ("twice",)),
    _set("value-points", "curve_points=-1", None, "a whole number >= 0, got -1"),
    Case("points", "multi_layer --set curve_points=1 --curve-points 2", "--set curve_points", None, ("contradicts",)),
]

SPACES = [
    Case("absent", "ray_search --config nothere.yaml", "nothere.yaml"),
    Case("folder", "ray_search --config mine.yaml", "mine.yaml", files={"mine.yaml/x": "a folder"}),
    _space("malformed", "seeds: [0\nspace: {", "mine.yaml", None, "line 2"),
    _space("list", "- 1\n", "mine.yaml"),
    _space("tag", "!!python/object/apply:os.system ['touch hacked']\n", "mine.yaml"),
    _space("key", "sedes: [0]\n", "mine.yaml", "seeds", "space"),
    _space("seeds", "seeds: [0, 0]\n", "mine.yaml", None, "seeds", "distinct"),
    _space("purpose", "purpose: sweeep\n", "mine.yaml", "sweep", "search"),
    _space("metric", "metric: test_ac\n", "mine.yaml", "test_acc"),
    _space("metric-closed", "metric: val_acc\n", "mine.yaml", None, "--validation-sup"),
    _space("domain", "space: {b0.layer.lr: {gird: [1]}}\n", "mine.yaml", "grid", "b0.layer.lr", "geometric"),
    _space("path", "space: {b0.layer.lrr: {grid: [1]}}\n", "b0.layer.lrr", "layer.lr", "'mine'"),
    _space("value", "space: {b0.layer.lr: {grid: [1, -1]}}\n", "b0.layer.lr", None, "'mine'", "-1"),
    _space(
        "overflow", "space: {b0.layer.lr: {geometric: {base: 10, from: 1, to: 400}}}\n", "mine", None, "b0.layer.lr"
    ),
    _space("same-run-twice", "space: {b0.layer.lr: {grid: [0.1, '0.1']}}\n", "mine"),
    _space("same-run-behind-another", "space: {'b*.layer.lr': {grid: [1, 2]}, b0.layer.lr: {grid: [3]}}\n", "mine"),
]

SEARCHES = [
    Case("scheduler", "ray_search --scheduler ahsa", "--scheduler", "asha", ("hyperband",)),
    Case("algorithm", "ray_search --algorithm optna", "--algorithm", "optuna", ("random",)),
    Case("algorithm-without-space", "ray_search --algorithm random", "--algorithm", None, ("space",)),
    Case("purpose", "ray_search --purpose serach", "--purpose", "search"),
    Case("mode", "ray_search --mode maxi", "--mode", "max"),
    Case("seeds", "ray_search --seeds 1 1", "--seeds", None, ("distinct",)),
    Case("space", "ray_search --space b0.layer.lr", "--space", None, ("PATH=DOMAIN",)),
    Case("space-yaml", "ray_search --space 'b0.layer.lr={grid: ['", "--space b0.layer.lr"),
    Case("space-domain", "ray_search --space 'b0.layer.lr={gird: [1]}'", "b0.layer.lr", "grid"),
    Case("space-path", "ray_search --dry-run --space 'b0.layer.lrr={grid: [1]}'", "b0.layer.lrr", "layer.lr"),
    Case(
        "space-bounds",
        "ray_search --dry-run --algorithm optuna --space 'b0.layer.lr={uniform: [-1, 1]}'",
        "b0.layer.lr",
        None,
        ("-1",),
    ),
    Case("model-path", "ray_search --algorithm optuna --space 'b9.layer.lr={uniform: [0.1, 1]}'", "b9.layer.lr", "b1"),
    Case("time", "ray_search --time-budget soon", "--time-budget", None, ("1.5h",)),
    Case("max-trials", "ray_search --max-trials 0", "--max-trials"),
    Case("max-failures", "ray_search --max-failures -1", "--max-failures"),
    Case("workers", "ray_search --workers 0", "--workers"),
    Case("grace", "ray_search --scheduler asha --grace 10000", "grace", None, ("last step",)),
    Case("reduction", "ray_search --scheduler asha --reduction 1", "--reduction"),
    Case("grace-of-none", "ray_search --grace 3", "--grace", None, ("none",)),
    Case("probes-of-nobody", "ray_search --probe-every 1", "--probe-every", None, ("--scheduler",)),
    Case("probes-and-median", "ray_search --probe-every 1 --scheduler median", "--probe-every", None, ("asha",)),
    Case("probes-of-a-loss", "ray_search --probe-every 1 --scheduler asha --metric test_loss", "--probe-every"),
    Case("restore", "ray_search --restore nothere", "--restore"),
    Case("restore-empty", "ray_search --restore mine", "--restore", files={"mine/x": "a folder"}),
    Case("restore-with-others", "ray_search --restore mine --preset 2HardCnnDigits", "--restore", None, ("--preset",)),
    Case("extend", "ray_search --extend", "--extend", None, ("--restore",)),
    Case("seeds-of-a-restored-one", "ray_search --restore mine --seeds 3", "--seeds", None, ("--extend",)),
    Case("dashboard", "ray_search --dashboard --address auto", "--dashboard"),
]

PRESET_FILES = [
    Case("absent", "multi_layer --preset-file nothere.json", "nothere.json"),
    Case("folder", "multi_layer --preset-file my.json", "my.json", files={"my.json/x": "a folder"}),
    _presets("not-json", "{'model': ", "my.json", None, "JSON"),
    _presets("list", [], "my.json"),
    _presets("key", {"modle": {}}, "my.json", "model"),
    _presets("model-key", {"model": {"mine": {"blokcs": []}}}, "my.json, model 'mine'", "blocks"),
    _presets("no-blocks", {"model": {"mine": {}}}, "my.json, model 'mine'", None, "blocks"),
    _presets("block-token", _blocks("Soft-c8-kk3:bn", "BP:flatten"), "my.json, model 'mine', b0", "k3"),
    _presets("block-method", _blocks("Soft-c8-k3:bn", "PB:flatten"), "my.json, model 'mine', b1", "BP"),
    _presets("block-key", _blocks({"presett": "BP"}), "my.json, model 'mine', b0", "preset"),
    _presets("block-number", _blocks(3), "my.json, model 'mine', b0"),
    _presets("block-dropout", _blocks({"preset": "BP", "dropout": "x"}), "my.json, model 'mine', b0"),
    _presets(
        "block-norm", _blocks({"preset": "BP", "operation": "flatten", "batch_norm": "no"}), "my.json, model 'mine', b0"
    ),
    _presets("block-arch", _blocks({"preset": "Soft-c8-k3", "arch": "CN"}), "my.json, model 'mine', b0", "CNN"),
    _presets("mode", {"model": {"mine": {"blocks": ["BP:flatten"], "mode": "succesive"}}}, "my.json", "successive"),
    _presets("name", {"model": {"Soft-x": {"blocks": ["BP:flatten"]}}}, "my.json, model 'Soft-x'"),
    _presets("layer-key", {"layer": {"CNN": {"lrr": 1}}}, "my.json", "lr", "CNN"),
    _presets("layer-value", {"layer": {"CNN": {"lr": "x"}}}, "my.json", None, "CNN", "lr"),
    _presets("data-name", {"dataset": {"Digi": {}}}, "my.json", "Digits"),
    _presets("data-key", {"dataset": {"Digits": {"q": {"epoch": 1}}}}, "my.json", "epochs", "'q'"),
    _presets("data-type", {"dataset": {"Digits": {"q": {"epochs": "1"}}}}, "my.json", None, "'q'", "epochs"),
    _presets("data-value", {"dataset": {"Digits": {"q": {"epochs": 0}}}}, "my.json", None, "'q'", "epochs"),
    _presets("data-classes", {"dataset": {"Digits": {"q": {"classes": ["one"]}}}}, "my.json", None, "'q'", "classes"),
]

TABLES = {
    "names": NAMES,
    "searches": SEARCHES,
    "numbers": NUMBERS,
    "empty": EMPTY,
    "networks": NETWORKS,
    "overrides": OVERRIDES,
    "spaces": SPACES,
    "preset files": PRESET_FILES,
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{table}-{case.name}") for table, cases in TABLES.items() for case in cases]
)
def test_mistake(case: Case, command: Command, tmp_path: Path) -> None:
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    before = tree(tmp_path)
    script, *arguments = shlex.split(case.line)
    done = command(f"{script}.py", *arguments)
    first = message(done, *case.says)
    assert case.place in first, f"the place {case.place!r} is not in: {first}"
    if case.near is not None:
        assert f"did you mean '{case.near}'" in first, f"{case.near!r} is not offered in: {first}"
    assert tree(tmp_path) == before
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("--learning-rate", ("--training-mode", "--train", "--threads")),
        ("nope", ("compare", "compile")),
    ],
)
def test_only_a_close_word_is_suggested(word: str, choices: tuple[str, ...]) -> None:
    assert "did you mean" not in str(ConfigError("here", "unknown", given=word, choices=choices))


def test_a_long_list_shows_the_five_nearest() -> None:
    words = [f"variant_{i}" for i in range(90)] + ["Digits_50"]
    legal = str(ConfigError("here", "unknown", given="Digit_50", choices=words)).splitlines()[1]
    assert legal.startswith("legal: Digits_50 variant_")
    assert legal.endswith(" ... (91 in all)")
    assert len(legal.split()) == len(["legal:", *"12345", "...", "(91", "in", "all)"])


def test_an_error_survives_the_way_from_a_worker() -> None:
    """Ray pickles the error of a trial; its message must arrive."""
    error = ConfigError("--preset", "unknown preset 'a'", given="a", choices=("b", "c"), hint="look again")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("classifier.lr", "--set classifier.lr: must be > 0"),
        ("lr", "--set classifier.lr, lr: must be > 0"),
        ("--set classifier.lr", "--set classifier.lr: must be > 0"),
    ],
)
def test_a_place_is_said_once(place: str, text: str) -> None:
    """A place that the outer one ends with is not repeated; any other follows it."""
    with pytest.raises(ConfigError) as error, within("--set classifier.lr"):
        raise ConfigError(place, "must be > 0")
    assert str(error.value) == text


@pytest.mark.parametrize("flag", ["--resume-run", "--evaluate", "--list", "--run-config"])
def test_help_in_place_of_a_value(flag: str, command: Command) -> None:
    """The help of another use of the command needs no value for its flag."""
    done = command("multi_layer.py", flag, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


def test_a_seed_is_never_rounded(command: Command) -> None:
    """2^53 + 1 is the first whole number that a float does not hold."""
    done = command("multi_layer.py", "--dry-run", "--set", "seed=9007199254740993")
    assert "seed 9007199254740993," in done.stdout


@pytest.mark.parametrize("where", ["--set", "space"])
def test_seed_of_a_search_is_not_ignored(where: str, command: Command, tmp_path: Path) -> None:
    """``seed`` is a legal path: given to a search, it varies the seeds, or it is refused."""
    (tmp_path / "mine.yaml").write_text(
        "seeds: [0]\n" + ("space: {seed: {grid: [5, 6]}}\n" if where == "space" else "")
    )
    change = ["--set", "seed=5"] if where == "--set" else []
    done = command("ray_search.py", "--dry-run", "--config", "mine.yaml", *change)
    if done.returncode == 0:
        assert "seeds 5" in done.stdout
    else:
        assert "seed" in message(done)


@pytest.mark.parametrize("arguments", [("--list", "presets"), ("--dry-run",)])
def test_a_reader_that_goes_away(arguments: tuple[str, ...]) -> None:
    """``... | head`` is no failure and prints no message."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, str(ROOT / "multi_layer.py"), *arguments],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 0


# -- devices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["multi_layer.py", "ray_search.py", "demo.py"])
def test_an_absent_gpu_is_no_error_of_a_dry_run(script: str, command: Command, tmp_path: Path) -> None:
    done = command(script, "--dry-run", "--gpu-id", "3")
    assert done.returncode == 0, done.stderr
    assert "device cuda" in done.stdout
    assert done.stderr == ""
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "line",
    [f"multi_layer.py {TINY} --gpu-id 3", f"multi_layer.py {TINY} --device cuda:3", f"ray_search.py {TINY} --gpu-id 3"],
)
def test_an_absent_gpu_is_an_error_when_the_run_starts(line: str, command: Command, tmp_path: Path) -> None:
    first = message(command(*shlex.split(line)), "GPU 3")
    assert line.split()[-2] in first, "the flag that asked for it is the place"
    assert tree(tmp_path) == {}


# -- data ---------------------------------------------------------------------------------------------------


def test_missing_data_say_where_to_put_them(command: Command, tmp_path: Path) -> None:
    """The folder is the one that HEBB_DATASETS names; if it is a mistyped name, no such folder is made."""
    folder = tmp_path / "datasets"
    done = command("multi_layer.py", *shlex.split("--preset 2SoftHebbCnnCIFAR --dataset CIFAR10_1"), datasets=folder)
    assert done.returncode in (1, 2)
    first = message(done, "cifar10.npz", "x_train", "HEBB_DATASETS", str(folder), code=done.returncode)
    assert "CIFAR10" in first
    assert tree(tmp_path) == {}


IMAGES = np.zeros((20, 28, 28), dtype=np.uint8)
LABELS = (np.arange(20) % 10).astype(np.uint8)
WHOLE = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"x_train": None}, ("x_train",), id="no-x_train"),
        pytest.param({"x_train": IMAGES / 255}, ("float64", "uint8"), id="float-images"),
        pytest.param(None, ("truncated",), id="truncated"),
    ],
)
def test_bad_npz(change: dict[str, np.ndarray] | None, says: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    path = tmp_path / "data" / "mnist.npz"
    path.parent.mkdir()
    np.savez(path, **{name: array for name, array in {**WHOLE, **(change or {})}.items() if array is not None})
    if change is None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = tree(tmp_path)
    first = message(command("multi_layer.py", *shlex.split(MNIST), datasets=path.parent), *says)
    assert str(path) in first
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"y_train": LABELS + 0.5}, "label", id="half-labels"),
        pytest.param({"y_train": np.full(20, "a")}, "label", id="labels-in-words"),
        pytest.param({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "test", id="no-test-image"),
    ],
)
def test_bad_npz_is_found_before_training(change: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    """Read in this process, because there are many: what would fail late or be rounded is refused at once."""
    import torch

    from hebb.config.data_spec import DataSpec
    from hebb.data import images

    np.savez(tmp_path / "mnist.npz", **{**WHOLE, **change})
    with pytest.raises(ConfigError) as found:
        images.load(DataSpec(dataset="MNIST"), tmp_path, 0, torch.device("cpu"))
    assert "mnist.npz" in str(found.value)
    assert says in str(found.value)


def test_an_array_called_npz(tmp_path: Path) -> None:
    """``np.save`` in place of ``np.savez``, a common slip."""
    from hebb.config.registry import DATASETS
    from hebb.data import sources

    with open(tmp_path / "mnist.npz", "wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(ConfigError, match=r"mnist\.npz"):
        sources.read(DATASETS.get("MNIST", "test"), tmp_path, train=True)


# -- runs that are there ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent folder with one finished run, called tiny; copy it before you touch it."""
    home = tmp_path_factory.mktemp("finished") / "home"
    arguments = ["--preset", NETWORK, *shlex.split(TINY), "--gpu-id", "cpu", "--save", "true", "--model-name", "tiny"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "multi_layer.py"), *arguments],
        cwd=home.parent,
        env={**os.environ, "HEBB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    return home


@pytest.fixture
def tiny(finished_home: Path, tmp_path: Path) -> Path:
    """The folder of a finished run, in the parent folder that ``command`` uses."""
    shutil.copytree(finished_home, tmp_path / "home")
    return tmp_path / "home" / "hebb" / "result" / "network" / "tiny"


def _cut(folder: Path) -> None:
    path = folder / "checkpoint" / "last.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _interrupt(folder: Path) -> None:
    (folder / "result.json").unlink()


def _other_data(folder: Path) -> None:
    """Record the digest of other data than there are now, as if the files had been replaced since."""
    path = folder / "environment.json"
    environment = json.loads(path.read_text())
    environment["data_sha256"]["sup"] = "0" * 64
    path.write_text(json.dumps(environment))


def _no_preparation(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "line", "place", "says"),
    [
        pytest.param(
            _no_preparation, f"--preset '{NETWORK}' {TINY} --model-name tiny", "/tiny", ("--overwrite",), id="finished"
        ),
        pytest.param(
            _interrupt,
            f"--preset '{NETWORK}' {TINY} --model-name tiny",
            "/tiny",
            ("--resume-run", "--overwrite"),
            id="interrupted",
        ),
        pytest.param(
            _cut, f"--preset '{NETWORK}' {TINY} --resume tiny --model-name b", "last.pt", ("truncated",), id="truncated"
        ),
        pytest.param(
            _no_preparation,
            f"--preset 2SoftMlpDigits {TINY} --resume tiny --model-name b",
            "last.pt",
            ("b0: weights must be (200, 64), got (4, 1, 3, 3)", "other shapes"),
            id="mismatch",
        ),
        pytest.param(
            _no_preparation,
            f"--preset '{NETWORK.replace('c4', 'c5')}' {TINY} --resume tiny --model-name b",
            "last.pt",
            ("(4,", "(5,"),
            id="mismatch-shape",
        ),
        pytest.param(
            _no_preparation,
            f"--preset '{NETWORK}' {TINY} --resume all --model-name tiny --overwrite",
            "--overwrite",
            ("--resume", "--model-name"),
            id="overwrites-its-source",
        ),
        pytest.param(_no_preparation, f"{TINY} --resume tny", "--resume", ("did you mean 'tiny'",), id="nearest-model"),
        pytest.param(_no_preparation, f"{TINY} --resume all", "--resume", ("tiny",), id="nothing-to-resume"),
        pytest.param(_no_preparation, f"{TINY} --resume all tiny b", "--resume", ("all tiny b",), id="two-models"),
        pytest.param(_no_preparation, "--resume-run {folder}", "--resume-run", ("finished",), id="resume-run-finished"),
        pytest.param(_no_preparation, "--resume-run {home}", "--resume-run", ("nothing",), id="resume-run-no-run"),
        pytest.param(_no_preparation, "--resume-run nothere", "--resume-run", ("nothere",), id="resume-run-absent"),
        pytest.param(_cut, "--resume-run {folder} --seed 1", "--resume-run", ("--seed",), id="resume-run-with-seed"),
        pytest.param(
            lambda folder: (_interrupt(folder), _cut(folder)),
            "--resume-run {folder}",
            "last.pt",
            ("truncated",),
            id="resume-run-truncated",
        ),
        pytest.param(
            _interrupt, "--resume-run {folder} --gpu-id 3", "--gpu-id", ("GPU 3",), id="resume-run-on-an-absent-gpu"
        ),
        pytest.param(
            lambda folder: (_interrupt(folder), (folder / "config.json").write_text("{")),
            "--resume-run {folder}",
            "config.json",
            ("JSON",),
            id="resume-run-broken-config",
        ),
        pytest.param(
            lambda folder: (_interrupt(folder), (folder / "environment.json").write_text("[]")),
            "--resume-run {folder}",
            "environment.json",
            (),
            id="resume-run-broken-environment",
        ),
        pytest.param(
            lambda folder: (_interrupt(folder), (folder / "environment.json").unlink()),
            "--resume-run {folder}",
            "environment.json",
            ("is missing", "start a new run"),
            id="resume-run-without-environment",
        ),
        pytest.param(
            lambda folder: (_interrupt(folder), _other_data(folder)),
            "--resume-run {folder}",
            "environment.json",
            ("the data have changed since the run started", "dataset_sup"),
            id="resume-run-on-other-data",
        ),
    ],
)
def test_stored_run_is_kept(
    prepare: Callable[[Path], object],
    line: str,
    place: str,
    says: tuple[str, ...],
    tiny: Path,
    command: Command,
    tmp_path: Path,
) -> None:
    prepare(tiny)
    before = tree(tmp_path)
    done = command("multi_layer.py", *shlex.split(line.format(folder=tiny, home=tmp_path / "home")))
    assert place in message(done, *says)
    assert tree(tmp_path) == before


def test_nothing_to_resume_in_an_empty_home(command: Command, tmp_path: Path) -> None:
    for line in ("multi_layer.py --resume all", "ray_search.py --resume without_classifier", "demo.py --resume all"):
        assert "--resume" in message(command(*line.split()), "no stored model in", "no model is stored")
    assert tree(tmp_path) == {}


# -- stored configs -----------------------------------------------------------------------------------------


def _changed(*path: str | int, to: object) -> Callable[[dict], object]:
    """Return a function that sets one value deep inside a config."""

    def change(data: dict) -> dict:
        inner: dict = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return data

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda _: "{", ("JSON",), id="broken"),
        pytest.param(lambda _: "", ("JSON",), id="empty"),
        pytest.param(lambda _: [], (), id="list"),
        pytest.param(lambda _: {}, ("network",), id="nothing"),
        pytest.param(_changed("sed", to=1), ("'sed'", "did you mean 'seed'"), id="unknown-key"),
        pytest.param(_changed("seed", to="x"), ("seed", "'x'"), id="seed-word"),
        pytest.param(_changed("seed", to=-1), ("seed", "-1"), id="seed-negative"),
        pytest.param(_changed("mode", to="succesive"), ("did you mean 'successive'",), id="mode"),
        pytest.param(_changed("training_blocks", to=[7]), ("7", "0 to 1"), id="blocks-absent"),
        pytest.param(_changed("training_blocks", to=["b0"]), ("training_blocks",), id="blocks-words"),
        pytest.param(_changed("training_blocks", to=1), ("training_blocks",), id="blocks-number"),
        pytest.param(_changed("phases", to=[]), ("phases",), id="phases-none"),
        pytest.param(_changed("phases", to=["hebbian"]), ("phases",), id="phases-words"),
        pytest.param(_changed("dataset_sup", "epochs", to="1"), ("dataset_sup", "epochs"), id="epochs-word"),
        pytest.param(_changed("dataset_sup", "epochs", to=0), ("dataset_sup", "epochs"), id="epochs-0"),
        pytest.param(_changed("dataset_sup", "classes", to=["0"]), ("dataset_sup", "classes"), id="classes-words"),
        pytest.param(_changed("dataset_sup", "classes", to=3), ("dataset_sup", "classes"), id="classes-number"),
        pytest.param(_changed("dataset_sup", "dataset", to="Digi"), ("did you mean 'Digits'",), id="dataset"),
        pytest.param(_changed("network", "blocks", to=[]), ("block",), id="no-block"),
        pytest.param(_changed("network", "blocks", 0, "operations", to=None), ("b0",), id="operations-none"),
        pytest.param(_changed("network", "blocks", 0, "operations", to=[3]), ("b0",), id="operations-number"),
        pytest.param(_changed("network", "blocks", 0, "layer", "lr", to="x"), ("b0", "lr"), id="lr-word"),
        pytest.param(_changed("network", "blocks", 0, "layer", "method", to="Sof"), ("b0", "'Soft'"), id="method"),
        pytest.param(_changed("network", "blocks", 0, "dropout", to=2), ("b0", "dropout"), id="dropout"),
        pytest.param(_changed("network", "blocks", 0, "activation", "parameter", to=-1), ("b0", "-1"), id="power"),
    ],
)
def test_bad_run_config(
    change: Callable[[dict], object], says: tuple[str, ...], finished_home: Path, command: Command, tmp_path: Path
) -> None:
    data = json.loads((finished_home / "hebb/result/network/tiny/config.json").read_text())
    content = change(data)
    (tmp_path / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))
    before = tree(tmp_path)
    done = command("multi_layer.py", "--dry-run", "--run-config", "run.json")
    assert "run.json" in message(done, *says)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "place", "says"),
    [
        ("--run-config nothere.json", "nothere.json", ()),
        ("--run-config {folder}", "/tiny", ()),
        ("--run-config {folder}/config.json --preset 2CnnDigits", "--run-config", ("--preset",)),
        ("--run-config {folder}/config.json --seed 0", "--run-config", ("--seed",)),
        ("--run-config {folder}/config.json --resume-run {folder}", "--resume-run", ("--run-config",)),
        ("--run-config {folder}/config.json --set b7.layer.lr=1", "--set b7.layer.lr", ("b0 b1",)),
    ],
)
def test_run_config_has_its_own_rules(
    line: str, place: str, says: tuple[str, ...], tiny: Path, command: Command, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    done = command("multi_layer.py", *shlex.split(line.format(folder=tiny)))
    assert place in message(done, *says)
    assert tree(tmp_path) == before


# -- searches that are there --------------------------------------------------------------------------------


def _search_folder(home: Path) -> None:
    """Write what an earlier search left."""
    trial = home / "hebb" / "search" / "mine" / "trials" / "0123456789-s0"
    trial.mkdir(parents=True)
    (trial / "result.json").write_text("{}")
    (trial.parent.parent / "search.json").write_text("{}")


def test_stored_search_is_kept(command: Command, tmp_path: Path) -> None:
    _search_folder(tmp_path / "home")
    before = tree(tmp_path)
    done = command("ray_search.py", *shlex.split(f"{TINY} --gpu-id cpu --folder-name mine"))
    assert "search/mine" in message(done, "--overwrite", "--folder-name")
    assert tree(tmp_path) == before


def test_a_post_hoc_loss_does_not_replace_the_model_that_it_starts_from(
    tiny: Path, command: Command, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    line = f"--preset '{NETWORK}' {TINY} --resume all tiny --model-name tiny --overwrite"
    assert "--overwrite" in message(command("post_hoc_loss.py", *shlex.split(line)), "--resume", "--model-name")
    assert tree(tmp_path) == before


def test_a_search_does_not_replace_the_model_that_it_starts_from(tiny: Path, command: Command, tmp_path: Path) -> None:
    _search_folder(tmp_path / "home")
    trial = tmp_path / "home" / "hebb" / "search" / "mine" / "trials" / "tiny"
    shutil.copytree(tiny, trial)
    before = tree(tmp_path)
    line = f"--preset '{NETWORK}' {TINY} --gpu-id cpu --folder-name mine --resume all '{trial}' --overwrite"
    assert "--overwrite" in message(command("ray_search.py", *shlex.split(line)), "--resume", "--folder-name")
    assert tree(tmp_path) == before


@pytest.mark.ray
def test_a_search_that_cannot_start_replaces_nothing(command: Command, tmp_path: Path) -> None:
    """More threads than cores is refused before ``--overwrite`` deletes the earlier search."""
    _search_folder(tmp_path / "home")
    before = tree(tmp_path)
    line = "--dataset Digits_1 --threads 100000 --gpu-id cpu --folder-name mine --overwrite"
    message(command("ray_search.py", *line.split()), "100000", "threads")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("multi_layer.py --resume al tiny", "(did you mean 'all'?)"),
        ("multi_layer.py --preset '2SoftMlpDigits BP'", "a preset name must stand alone, got '2SoftMlpDigits BP'"),
        ("ray_search.py --restore sss", "no such folder"),
        ("analysis.py figure nope.yaml", "no such file 'nope.yaml'"),
        ("ray_search.py --config .", "is a folder, must be a YAML file"),
    ],
)
def test_says_what_is_missing_or_misspelt(command: Command, tmp_path: Path, line: str, says: str) -> None:
    message(command(*shlex.split(line)), says)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["--probe", "liner"], "error: --probe: "),
        (["--probe", "linear", "--probe-blocks", "5"], "error: --probe-blocks: "),
        (["--seed", "-1"], "error: --seed: "),
        (["--threads", "0"], "error: --threads: "),
    ],
)
def test_an_error_names_the_flag(inside: Command, arguments: list[str], start: str) -> None:
    """And not the field that the flag sets, which nobody typed."""
    done = inside("multi_layer.py", *arguments, "--dry-run")
    assert (done.returncode, done.stderr.startswith(start)) == (2, True), done.stderr
