"""What a group reports to schedulers and searchers; without Ray.

Without it a scheduler could stop a configuration because of one unlucky seed.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

from hebb.config.specs import RunConfig
from hebb.config.vocabulary import Goal
from hebb.core.errors import DivergenceError
from hebb.storage import folders
from hebb.training import train
from hebb.tuning import steps, worker
from hebb.tuning.observer import TrialReport
from hebb.tuning.search import Group, Trial

PLACE = train.Place(datasets=Path("nowhere"))
DEEP = ("dataset_sup.epochs=3", "dataset_unsup.epochs=2", "dataset_sup.validation=0.2", "dataset_sup.samples=60")


def make_group(folder: Path, seeds: tuple[int, ...] = (0, 1, 2), network: str = small.CNN) -> Group:
    config = small.config(network, *DEEP)
    runs = tuple(
        Trial(
            name=f"c-s{s}", label="c", choice={}, config=replace(config, seed=s), folder=folder / "trials" / f"c-s{s}"
        )
        for s in seeds
    )
    return Group(name="c", runs=runs)


def reports_of(group: Group, probe_every: int = 0, **more: Any) -> list[TrialReport]:
    """Run a group and return its reports."""
    task = worker.Task(metric="val_acc", mode=Goal.MAX, place=PLACE, probe_every=probe_every)
    reports: list[TrialReport] = []
    worker.run_group(group, task, reports.append, **more)
    return reports


def final(group: Group) -> list[float]:
    """Return what each run ended with, from its own result."""
    return [json.loads((t.folder / "result.json").read_text())["metrics"]["val_acc"] for t in group.runs]


def test_the_mean_over_finished_seeds(tmp_path: Path) -> None:
    """Three epochs on three seeds: during the first seed its own values, then the mean of those that are finished."""
    group = make_group(tmp_path)
    reports = reports_of(group)
    assert [report["step"] for report in reports] == list(range(1, 10))
    first = [row["val_acc"] for row in folders.read_rows(group.runs[0].folder / "metrics.jsonl") if row["phase"] == 1]
    a, b, c = final(group)
    assert [report["score"] for report in reports] == pytest.approx(
        [*first, a, a, (a + b) / 2, (a + b) / 2, (a + b) / 2, (a + b + c) / 3]
    )
    assert [report["n"] for report in reports] == [1, 1, 1, 1, 1, 2, 2, 2, 3]
    assert {report["phase"] for report in reports} == {1}
    assert all(type(report[key]) in (int, float) for report in reports for key in ("score", "n", "step", "value"))


def packed(group: Group, pack: tuple[int, ...] = (0, 1)) -> Group:
    """Train the seeds ``pack`` of a group together."""
    runs = [replace(t, config=replace(t.config, pack=pack)) if t.config.seed in pack else t for t in group.runs]
    return replace(group, runs=tuple(runs))


def test_a_pack_and_a_seed_by_itself(tmp_path: Path) -> None:
    """Steps count the epochs of both members; the score is their mean at the same epoch, then that of the finished."""
    group = packed(make_group(tmp_path / "whole"))
    assert [[trial.config.seed for trial in together] for together in group.packs()] == [[0, 1], [2]]
    reports = reports_of(group)
    assert [report["step"] for report in reports] == [2, 4, 6, 7, 8, 9]
    assert [report["n"] for report in reports] == [2, 2, 2, 2, 2, 3]
    epochs = [
        [row["val_acc"] for row in folders.read_rows(trial.folder / "metrics.jsonl") if row["phase"] == 1]
        for trial in group.runs[:2]
    ]
    a, b, c = final(group)
    means = [(one + other) / 2 for one, other in zip(*epochs, strict=True)]
    assert means[-1] == (a + b) / 2
    assert [report["score"] for report in reports] == pytest.approx([*means, *means[-1:] * 2, (a + b + c) / 3])

    cut = packed(make_group(tmp_path / "cut"))  # stopped in the pack, and after its end
    task = worker.Task(metric="val_acc", mode=Goal.MAX, place=PLACE)
    for step in (4, 6):

        def send(report: TrialReport, last: int = step) -> None:
            if report["step"] == last:
                raise SystemExit

        with pytest.raises(SystemExit):
            worker.run_group(cut, task, send)
    before = [(trial.folder / "result.json").stat().st_mtime_ns for trial in cut.runs[:2]]
    assert reports_of(cut) == reports
    assert [(trial.folder / "result.json").stat().st_mtime_ns for trial in cut.runs[:2]] == before


def test_a_pack_with_a_member_that_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named as the reason of the group; the other member's result is on the disk."""
    build = train.start.model.build

    def spoilt(config: RunConfig) -> Any:
        network = build(config)
        if config.seed == 1:
            network[0].weight[0, 0] = math.nan
        return network

    monkeypatch.setattr(train.start.model, "build", spoilt)
    group = packed(make_group(tmp_path, (0, 1)))
    reports = reports_of(group)
    assert reports[-1]["failed"].startswith("seed 1: the weights of block b0 are not finite")
    assert len(reports) == 1  # no mean over the members that are left
    assert [(trial.folder / "result.json").exists() for trial in group.runs] == [True, False]


def test_a_finished_run_is_on_the_disk_when_it_is_reported(tmp_path: Path) -> None:
    """A scheduler may stop the worker at any report: nothing after it may be needed."""
    group = make_group(tmp_path, (0,))
    task = worker.Task(metric="val_acc", mode=Goal.MAX, place=PLACE)
    seen = []

    def send(report: TrialReport) -> None:
        seen.append((group.runs[0].folder / "result.json").exists())

    worker.run_group(group, task, send)
    assert seen == [False, False, True]


def test_an_interrupted_group_reports_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Stopped at a report in the second seed and run again: the same reports from the start, the same results."""
    whole = reports_of(make_group(tmp_path / "whole"))
    group = make_group(tmp_path / "cut")
    task = worker.Task(metric="val_acc", mode=Goal.MAX, place=PLACE)
    reports: list[TrialReport] = []

    def send(report: TrialReport) -> None:
        reports.append(report)
        if report["step"] == 5:
            raise worker.Stop

    with pytest.raises(worker.Stop):
        worker.run_group(group, task, send)
    assert not list(tmp_path.rglob("traceback.txt")), "it has not failed"
    before = (group.runs[0].folder / "result.json").stat().st_mtime_ns
    again = reports_of(group)
    assert reports == whole[:5]
    assert again == whole
    assert (group.runs[0].folder / "result.json").stat().st_mtime_ns == before
    assert reports_of(group, last_step=6) == whole[6:]
    assert final(group) == final(make_group(tmp_path / "whole"))


def test_a_group_with_a_verdict_only_repeats_its_reports(tmp_path: Path) -> None:
    """One that a scheduler stopped in its first seed is not trained further; one that failed says so."""
    group = make_group(tmp_path)
    reports_of(Group(name="c", runs=group.runs[:1]))
    (group.runs[0].folder / "result.json").unlink()
    stopped = reports_of(group, verdict="")
    assert [report["step"] for report in stopped] == [1, 2]
    assert not group.runs[1].folder.exists()
    failed = reports_of(group, verdict="weights are not finite")
    assert failed[-1]["failed"] == "weights are not finite"
    assert failed[-1]["score"] == 0


@pytest.mark.parametrize(
    ("metric", "mode", "worst"),
    [("val_acc", "max", 0), ("R1", "max", 0), ("val_loss", "min", 1e9), ("convergence", "min", 1e9)],
)
def test_what_diverges_is_the_worst(metric: str, mode: str, worst: float, tmp_path: Path, monkeypatch: Any) -> None:
    """A model learns to avoid it, and nothing that is not finite reaches Ray."""

    def diverge(*_: Any, **__: Any) -> None:
        raise DivergenceError("weights of block b0 are not finite")

    monkeypatch.setattr(train, "run_pack", diverge)
    reports: list[TrialReport] = []
    task = worker.Task(metric=metric, mode=mode, place=PLACE)
    worker.run_group(make_group(tmp_path), task, reports.append)
    assert [(report["failed"], report["score"]) for report in reports] == [
        ("weights of block b0 are not finite", worst)
    ]
    assert math.isfinite(reports[0]["score"])


def test_a_full_disk_ends_the_search(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(train, "run_pack", full)
    (report,) = reports_of(make_group(tmp_path))
    assert "no space left" in report["halt"]


def test_an_unexpected_error_is_left_to_ray(tmp_path: Path, monkeypatch: Any) -> None:
    """It retries the trial in a new process."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(train, "run_pack", fail)
    with pytest.raises(RuntimeError, match="CUDA"):
        reports_of(make_group(tmp_path))


def test_a_probe_that_a_kill_prevented_is_made_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of a phase is written before its probe; without it the scheduler would miss a step."""
    whole = reports_of(make_group(tmp_path / "whole", (0, 1), small.DEEP), probe_every=1)
    group, probe = make_group(tmp_path / "killed", (0, 1), small.DEEP), worker.quick_probe
    for kill in (1, 1, 3):  # at the first probe, at the second, and at the second of the other seed
        count = iter(range(1, 10))

        def killed(*arguments: Any, count: Iterator[int] = count, kill: int = kill) -> float | None:
            if next(count) == kill:
                raise KeyboardInterrupt
            return probe(*arguments)

        monkeypatch.setattr(worker, "quick_probe", killed)
        with pytest.raises(KeyboardInterrupt):
            reports_of(group, probe_every=1)
    monkeypatch.setattr(worker, "quick_probe", probe)
    assert reports_of(group, probe_every=1) == whole


def test_probes(tmp_path: Path) -> None:
    """Two Hebbian phases, so two probes before the epochs of each seed; they are stored and reported again."""
    group = make_group(tmp_path, (0, 1), small.DEEP)
    reports = reports_of(group, probe_every=1)
    assert [report["step"] for report in reports] == list(range(1, 11))
    assert [report["kind"] for report in reports[:3]] == ["probe", "probe", "backprop"]
    assert reports[0]["score"] > 30  # ten classes
    assert reports_of(group, probe_every=1) == reports
    plain = reports_of(make_group(tmp_path / "plain", (0, 1), small.DEEP))
    assert [report["value"] for report in plain] == [r["value"] for r in reports if r["kind"] != "probe"]


@pytest.mark.parametrize(
    ("network", "mode", "metric", "probe_every", "want"),
    [
        (small.CNN, "successive", "val_acc", 0, steps.Steps(1, (), 3)),
        (small.DEEP, "successive", "val_acc", 1, steps.Steps(2, (0, 1), 3)),
        (small.DEEP, "successive", "val_acc", 2, steps.Steps(2, (1,), 3)),
        (small.DEEP, "successive", "convergence", 0, steps.Steps(1, (), 2)),
        (small.DEEP, "consecutive", "R1", 0, steps.Steps(0, (), 2)),
        (small.DEEP, "simultaneous", "val_acc", 0, steps.Steps(0, (), 3)),
        (small.BP, "successive", "val_loss", 1, steps.Steps(0, (), 3)),
    ],
)
def test_steps(network: str, mode: str, metric: str, probe_every: int, want: steps.Steps) -> None:
    """Hebbian phases are counted by their probes alone; accuracy comes from the classifier's phase."""
    assert steps.of_run(small.config(network, *DEEP, mode=mode), metric, probe_every) == want
