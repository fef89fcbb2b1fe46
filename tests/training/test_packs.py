"""Runs of a pack: whole runs of several seeds together, their folders, and how they go on after an interruption.

Without it an interrupted pack could continue with members at different positions.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_files
import pytest
import small
import torch
from conftest import Command

from hebb.cli import train as multi_layer
from hebb.config import catalog, plan
from hebb.config.registry import RULES, HebbianRule
from hebb.config.serialise import digest, run_from_json, to_json
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError, DivergenceError
from hebb.data import images
from hebb.storage import checkpoints, folders
from hebb.training import train
from hebb.training.pack import Pack

SEEDS = (5, 0, 3)
CHANGES = ("dataset_sup.epochs=3", "dataset_unsup.epochs=2", "dataset_sup.samples=120", "dataset_unsup.samples=120")


def pack(network: str = small.DEEP, *changes: str, seeds: tuple[int, ...] = SEEDS, **fields: Any) -> list[RunConfig]:
    given = {change.partition("=")[0] for change in changes}
    usual = [change for change in CHANGES if change.partition("=")[0] not in given]
    made = small.config(network, *usual, *changes, **fields)
    return [replace(made, seed=seed, pack=seeds) for seed in seeds]


def run(configs: list[RunConfig], home: Path | None = None, reports: Any = None, **place: Any) -> list[train.Result]:
    found = [None if home is None else home / f"m-s{config.seed}" for config in configs]
    return train.run_pack(
        configs, reports, places=[train.Place(datasets=Path("nowhere"), folder=folder, **place) for folder in found]
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(folder / folders.CHECKPOINT)["model"]


def rows(folder: Path) -> list[folders.Row]:
    return [{**row, "images_per_second": 0} for row in folders.read_rows(folder / folders.METRICS)]


def assert_same(one: Path, other: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    """All members have the same bits and the same rows."""
    for seed in seeds:
        first, second = one / f"m-s{seed}", other / f"m-s{seed}"
        mine, theirs = weights(first), weights(second)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert rows(first) == rows(second)
        assert (second / folders.RESULT).exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that was left in peace."""
    home = tmp_path_factory.mktemp("whole")
    run(pack(), home)
    return home


# -- what is learnt and what is written -------------------------------------------------------------------------


def test_a_member_leaves_what_a_single_run_leaves(whole: Path, tmp_path: Path) -> None:
    """The same files, rows and kind of checkpoint, of one member alone; only the pack stands in its config."""
    made = pack()
    for config in made:
        folder, alone = whole / f"m-s{config.seed}", tmp_path / f"alone{config.seed}"
        small.run(replace(config, pack=()), alone)
        files = [{p.name.partition("tfevents")[0] for p in place.rglob("*")} for place in (folder, alone)]
        assert files[0] == files[1]
        stored = json.loads((folder / folders.CONFIG).read_text())
        assert stored == {**json.loads((alone / folders.CONFIG).read_text()), "pack": list(SEEDS)}
        assert [r["step"] for r in rows(folder)] == [r["step"] for r in rows(alone)]
        mine, theirs = (checkpoints.load(place / folders.CHECKPOINT) for place in (folder, alone))
        assert mine["position"] == theirs["position"]
        sizes = [(place / folders.CHECKPOINT).stat().st_size for place in (folder, alone)]
        assert sizes[0] < 1.1 * sizes[1]  # not the tensors of all members
        result = json.loads((folder / folders.RESULT).read_text())
        assert result["seed"] == config.seed
        assert result["metrics"] == folders.read_rows(folder / folders.METRICS)[-1]


def test_accuracies_lie_within_the_spread_of_seeds(tmp_path: Path) -> None:
    """After a whole run on Digits: the mean of the pack, against single runs of the same seeds."""
    data = ("dataset_sup.samples=700", "dataset_unsup.samples=300", "dataset_sup.epochs=6")
    made = pack(small.CNN, *data, seeds=(0, 1, 2))
    together = [result.metrics["test_acc"] for result in run(made)]
    alone = [small.run(replace(config, pack=())).metrics["test_acc"] for config in made]
    assert min(alone) > 80
    assert abs(statistics.mean(together) - statistics.mean(alone)) <= statistics.stdev(alone)
    for one, other in zip(together, alone, strict=True):
        assert abs(one - other) <= max(alone) - min(alone)


def test_the_same_pack_has_the_same_bits(whole: Path, tmp_path: Path) -> None:
    run(pack(), tmp_path, keep_features=False)  # nor does it matter where features are kept
    assert_same(whole, tmp_path)


def test_frozen_random_blocks_are_calibrated_member_by_member(tmp_path: Path) -> None:
    """Batch statistics are those of single runs: nothing is learnt before them."""
    made = pack(small.DEEP, training_blocks=(2,))
    for config, result in zip(made, run(made, tmp_path), strict=True):
        alone = small.run(replace(config, pack=())).network.state_dict()
        found = result.network.state_dict()
        for name in (name for name in alone if "running" in name):
            torch.testing.assert_close(found[name], alone[name], rtol=1e-4, atol=1e-5)


def test_probes_validation_and_labels_of_every_member(tmp_path: Path) -> None:
    made = pack(small.HEBBIAN_CLASSIFIER, "dataset_sup.validation=0.2", probes=("linear", "geometry"))
    for result in run(made, tmp_path):
        assert result.metrics["val_acc"] is not None
        assert result.metrics["test_acc"] is not None
        assert all(row["test_acc"] is None for row in result.rows[:-1])
        assert [probe.block for probe in result.probes] == [0]
        assert result.geometry


# -- going on ---------------------------------------------------------------------------------------------------


class PowerError(Exception):
    """The power fails."""


@pytest.mark.parametrize("count", [2, 4, 7])
def test_a_pack_goes_on_wherever_the_writing_of_checkpoints_ends(
    count: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails at the n-th operation on a checkpoint: a file written, or one that takes its place."""
    left = count
    save, replaced = checkpoints.save, os.replace

    def failing(function: Callable[..., None], wanted: Callable[..., bool]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            nonlocal left
            if wanted(*arguments):
                if not left:
                    raise PowerError
                left -= 1
            function(*arguments)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", failing(save, lambda *_: True))
        patched.setattr(os, "replace", failing(replaced, lambda old, new: Path(old).name == folders.NEXT.name))
        with pytest.raises(PowerError):
            run(pack(), tmp_path)
    run(pack(), tmp_path, carry_on=True)
    assert_same(whole, tmp_path)
    assert not list(tmp_path.rglob(folders.NEXT.name))


def fork(home: Path, *, carry_on: bool) -> int:
    """Start the pack in a child process."""
    child = os.fork()
    if child == 0:
        run(pack(), home, carry_on=carry_on)
        os._exit(0)
    return child


@pytest.mark.parametrize("times", [1, pytest.param(12, marks=pytest.mark.survival)])
def test_killed_at_random_moments(times: int, whole: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    os.waitpid(fork(tmp_path / "first", carry_on=False), 0)
    length = time.monotonic() - began
    for k in range(times):
        home = tmp_path / str(k)
        child = fork(home, carry_on=False)
        time.sleep(random.uniform(0.1, 0.95) * length)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not all((home / f"m-s{seed}" / folders.RESULT).exists() for seed in SEEDS):
            _, status = os.waitpid(fork(home, carry_on=True), 0)
            assert status == 0
        assert_same(whole, home)


def test_killed_while_the_config_of_a_member_is_written(whole: Path, tmp_path: Path) -> None:
    """The members before have begun, this one has not."""
    home = tmp_path / "home"
    shutil.copytree(whole / "m-s5", home / "m-s5")
    for path in (home / "m-s5").iterdir():
        if path.name not in (folders.CONFIG, folders.ENVIRONMENT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (home / "m-s0").mkdir()
    (home / "m-s0" / ".0123456789ab-0.tmp").write_text("{")
    run(pack(), home, carry_on=True)
    assert_same(whole, home)


def test_a_finished_member_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    """Killed between two results the rest is written; a member that is gone is trained again, with the others' help."""
    home = tmp_path / "home"
    shutil.copytree(whole, home)
    (home / "m-s3" / folders.RESULT).unlink()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "m-s3" not in str(path)}
    run(pack(), home, carry_on=True)
    assert_same(whole, home)
    shutil.rmtree(home / "m-s3")
    run(pack(), home, carry_on=True)
    assert_same(whole, home)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if "m-s3" not in str(path)} == before


def test_a_finished_member_shares_no_blocks_without_their_rows(whole: Path, tmp_path: Path) -> None:
    """It is trained again beside the others and records nothing; a run that took its blocks would lack their rows."""
    cache, again, other = tmp_path / "cache", tmp_path / "again", tmp_path / "other"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "m-s3")
    run(pack(), again, carry_on=True, shared_blocks=cache)
    run(pack(), other, shared_blocks=cache)
    assert_same(whole, other)


def test_checkpoints_of_different_moments_are_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "home")
    for folder in (tmp_path / "home").iterdir():
        (folder / folders.RESULT).unlink()
    shutil.rmtree(tmp_path / "home" / "m-s0" / "checkpoint")
    with pytest.raises(ConfigError, match="not of one moment"):
        run(pack(), tmp_path / "home", carry_on=True)


# -- failures and refusals --------------------------------------------------------------------------------------


def test_a_member_that_diverges_leaves_the_others_alone(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member starts with a weight that is not finite: it is named, and the others have the bits they had."""
    build = train.start.model.build

    def spoilt(config: RunConfig) -> Any:
        network = build(config)
        if config.seed == 0:
            network[1].weight[0, 0] = float("nan")
        return network

    class Heard(train.Report):
        def __init__(self) -> None:
            self.errors: list[str] = []

        def failed(self, error: DivergenceError) -> None:
            self.errors.append(str(error))

    monkeypatch.setattr(train.start.model, "build", spoilt)
    reports = [Heard() for _ in SEEDS]
    with pytest.raises(DivergenceError, match="seed 0: the weights of block b1 are not finite"):
        run(pack(), tmp_path, reports)
    assert [len(report.errors) for report in reports] == [0, 1, 0]
    assert not (tmp_path / "m-s0" / folders.RESULT).exists()
    assert_same(whole, tmp_path, (5, 3))
    with pytest.raises(DivergenceError, match="seed 0"):  # continued, it says the same
        run(pack(), tmp_path, carry_on=True)


def test_when_all_members_diverge_the_pack_ends() -> None:
    with pytest.raises(DivergenceError, match=r"seed 5: .*; seed 0: .*; seed 3: "):
        run(pack(small.DEEP, "b0.layer.lr=1e30"))


def test_a_config_without_a_pack_is_read_and_named_as_before() -> None:
    """Files of the time before packs lack the key; runs by themselves keep the names of their trials."""
    alone, member = small.config(), pack(small.CNN)[0]
    data = to_json(alone)
    assert data.pop("pack") == []
    assert run_from_json(data, "config.json") == alone
    assert run_from_json(json.loads(json.dumps(to_json(member))), "config.json") == member
    assert digest(alone) != digest(replace(alone, pack=SEEDS, seed=5))
    for wrong in ((1,), (1, 1), (4, 5)):
        with pytest.raises(ConfigError):
            replace(alone, pack=wrong)


@pytest.mark.parametrize("method", [rule.name for rule in RULES.entries() if isinstance(rule, HebbianRule)])
def test_every_hebbian_rule_is_packed(method: str) -> None:
    """A step of every registered rule, for MLP and CNN; what cannot is named before anything is learnt."""
    for arch in RULES.get(method, "test").archs:
        first = f"{method}-c8-k3-p1:bn:triangle:avg_2_2_0" if arch == "CNN" else f"{method}-c8:flatten"
        made = pack(f"{first} BP:flatten" if arch == "CNN" else f"{first} BP", "dataset_sup.samples=40")
        rule = RULES.get(method, "test")
        if isinstance(rule, HebbianRule) and rule.keeps_maps:
            with pytest.raises(ConfigError, match="b0 keeps the maps of the last images"):
                plan.phases(made[0])
            continue
        members = [train.start.model.build(config) for config in made]
        Pack(members).rehearse(plan.phases(made[0]))


def test_images_that_are_streamed_are_refused(tmp_path: Path) -> None:
    """A stream has one order at a time: the members would read each other's batches."""
    spec = catalog.load().dataset(f"folder:{image_files.folder(tmp_path / 'pets')}", "test")
    configs = [replace(made, dataset_sup=spec, dataset_unsup=spec) for made in pack(small.CNN)]
    with pytest.raises(ConfigError, match=r"^--pack-seeds: the training images are too many"):
        run(configs, tmp_path / "runs", load=functools.partial(images.load, resident=0))
    assert not list((tmp_path / "runs").glob("*"))


def test_a_rule_that_looks_at_its_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule from outside that waits for the device: one message that names the phase."""
    rule = RULES.get("Soft", "test")
    monkeypatch.setitem(rule.__dict__, "signal", lambda u, layer, labels: u * float(u.max()))
    with pytest.raises(ConfigError, match=r"hebbian b0 cannot be run for several seeds at once"):
        run(pack("Soft-c8-k3-p1:bn:triangle BP:flatten"))


# -- the real command -------------------------------------------------------------------------------------------


DATA = ("--set", "dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_sup.epochs=2")
FLAGS = ("--preset", small.CNN, "--seed", "2", "--pack-seeds", "2", "--threads", "1", "--device", "cpu", *DATA)


def test_the_command(forked: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained by the real command; run again from a member's config.json; cut, and continued from one member."""
    done = forked("multi_layer.py", *FLAGS, "--model-name", "m")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 2  epoch") == done.stdout.count("seed 3  epoch") > 0
    monkeypatch.setenv("HEBB_HOME", str(tmp_path / "home"))
    home = tmp_path / "home" / "hebb" / "result" / "network"
    assert multi_layer.main(["--run-config", str(home / "m-s3" / "config.json"), "--model-name", "again"]) == 0
    for seed in (2, 3):
        one, other = home / f"m-s{seed}", home / f"again-s{seed}"
        assert all(torch.equal(t, weights(other)[name]) for name, t in weights(one).items())
        assert (tmp_path / "home" / "hebb" / "result" / "layer" / one.name / "b0.pt").exists()
        (other / "result.json").unlink()
    assert multi_layer.main(["--resume-run", str(home / "again-s3")]) == 0
    assert rows(home / "again-s2") == rows(home / "m-s2")
    for wrong, words in (
        (("--resume-run", str(home / "m-s2")), "nothing to continue"),
        ((*FLAGS, "--model-name", "m"), "holds a finished run"),
        (("--run-config", str(home / "m-s2" / "config.json"), "--set", "seed=7"), "not one of the pack's: 2 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            multi_layer.main(list(wrong))
    (home / "m-s2" / "result.json").unlink()
    (home / "m-s2").rename(home / "other")
    with pytest.raises(ConfigError, match="must end with -s2"):
        multi_layer.main(["--resume-run", str(home / "other")])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--pack-seeds", "2", "--preset", "2EPDigits"), "--pack-seeds: 2EPDigits settles"),
        (("--pack-seeds", "2", "--set", "stop.patience=1"), "--pack-seeds: the seeds of a pack would end"),
        (("--pack-seeds", "2", "--preset", "3LPLCnnDigits", "--dataset", "Digits_lpl"), "a loss of its own"),
        (("--pack-seeds", "2", "--preset", "Soft-c8-k3:attdrop_0.2 BP:flatten"), "drops out by contrast"),
        (("--pack-seeds", "0"), "must be a whole number >= 1, got '0'"),
        (("--pack-seeds", "2", "--run-config", "x.json"), "--pack-seeds: cannot be combined with --run-config"),
    ],
    ids=lambda part: None if isinstance(part, str) else part[-1],
)
def test_refusals(flags: tuple[str, ...], words: str, inside: Command) -> None:
    done = inside("multi_layer.py", *flags, "--dry-run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_says_that_it_is_a_pack(inside: Command) -> None:
    done = inside("multi_layer.py", *FLAGS, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "in 2 runs; seeds 2 3 as one pack" in done.stdout
    assert "pack" not in inside("multi_layer.py", "--seed", "2", "--dry-run").stdout
