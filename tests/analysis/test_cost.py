"""Accuracy against cost: means by hand, the published value beside ours, and who is a group.

Without it a point could stand at the cost of another network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs

from hebb.analysis import cost, runs
from hebb.analysis.runs import StoredRun
from hebb.config import costs
from hebb.core.errors import ConfigError

CHANGES = ("dataset_sup.samples=60", "dataset_unsup.samples=60")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredRun, ...]:
    """Two passes, two seeds, probed by nearest neighbours."""
    home = tmp_path_factory.mktemp("cost")
    base = small.config("2SoftHebbCnnDigits", *CHANGES, probes=("knn",))
    folder = stored_runs.sweep(home, "s", base, {"dataset_unsup.epochs": [1, 2]}, [0, 1])
    return runs.read([folder], "s").runs


def test_a_point_is_the_mean_of_its_seeds(stored: tuple[StoredRun, ...]) -> None:
    lines = cost.compute(stored, "images_seen")
    assert lines["images_seen"].tolist() == [60 + 60, 2 * 60 + 60]
    assert lines["n"].tolist() == [2, 2]
    for line, group in zip(lines.itertuples(), (stored[:2], stored[2:]), strict=True):
        values = [run.metrics["test_acc"] for run in group]
        assert line.mean == pytest.approx(np.mean(values))
        assert line.sd == pytest.approx(np.std(values, ddof=1))
        assert line.seconds == pytest.approx(np.mean([run.seconds for run in group]))
        assert line.multiply_accumulates == costs.static(group[0].config)["multiply_accumulates"]
        near = [probe["test_acc"] for run in group for probe in run.probes if probe["kind"] == "knn"]
        assert line.kNN == pytest.approx(np.mean(near))
    text = cost.text(lines)
    assert "kNN" in text
    assert "published" not in text


def test_a_cost_may_be_the_metric_itself(stored: tuple[StoredRun, ...]) -> None:
    lines = cost.compute(stored, "seconds", metric="seconds")
    assert lines["mean"].tolist() == pytest.approx(lines["seconds"].tolist())
    assert not [name for name in lines if name != name.strip()]


def test_the_published_value_is_that_of_preset_and_dataset(
    stored: tuple[StoredRun, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how it was chosen; another dataset's is not taken, and a network without one has none."""
    file = tmp_path / "published.csv"
    head = "figures,dataset,by,series,depth,mean,sd,source,chosen\n"
    other = "rules,CIFAR10,preset,2SoftHebbCnnDigits,1,71,,a paper of another dataset,\n"
    file.write_text(f"{head}{other}rules,Digits,preset,2SoftHebbCnnDigits,1,90.5,,a paper,best on test images\n")
    monkeypatch.setattr("hebb.analysis.published.FILE", file)
    lines = cost.compute(stored, "seconds", figure="rules")
    assert lines["published"].tolist() == [90.5, 90.5]
    assert set(lines["chosen"]) == {"best on test images"}
    assert "best on test images" in cost.text(lines)
    file.write_text(head + other)
    with pytest.raises(ConfigError, match="--published: has no value for these presets on these datasets"):
        cost.compute(stored, "seconds", figure="rules")


def test_the_figure_has_a_line_for_each_network_the_best_first(stored: tuple[StoredRun, ...]) -> None:
    lines = cost.compute(stored, "images_seen")
    drawn = cost.draw(lines)
    assert drawn.legends[0].get_texts()[0].get_text() == "2SoftHebbCnnDigits"
    assert drawn.axes[0].get_xscale() == "log"
    assert drawn.axes[0].get_xlabel() == "images seen while learning"
    frozen = lines.assign(trained=["b1", "all"], mean=[60.0, 70.0])
    names = [text.get_text() for text in cost.draw(frozen).legends[0].get_texts()]
    assert names[:2] == ["2SoftHebbCnnDigits", "2SoftHebbCnnDigits, only b1 trained"]


def test_each_dataset_has_a_line_of_its_own(stored: tuple[StoredRun, ...]) -> None:
    """No line joins points of two datasets, and the legend tells them apart."""
    lines = cost.compute(stored, "images_seen").assign(dataset=["Digits", "MNIST"], mean=[60.0, 70.0])
    figure = cost.draw(lines)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["2SoftHebbCnnDigits on MNIST", "2SoftHebbCnnDigits on Digits"]
    drawn = [list(line.get_xdata()) for line in figure.axes[0].get_lines() if len(line.get_xdata())]
    assert max(map(len, drawn)) == 1


def test_published_values_stand_beside_the_panel_and_apart_from_each_other(stored: tuple[StoredRun, ...]) -> None:
    """Each at its own height, in the colour and marker of its network; equal ones do not cover each other."""
    lines = cost.compute(stored, "images_seen")
    bare = cost.draw(lines).axes[0]
    networks = [lines.assign(preset=name, published=value) for name, value in (("a", 80.0), ("b", 80.0), ("c", 20.0))]
    figure = cost.draw(pd.concat([*networks, lines.assign(preset="d", published=np.nan)]))
    panel = figure.axes[0]
    theirs = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert len(panel.lines) == 4 * len(bare.lines) + 3
    assert sorted(float(line.get_ydata()[0]) for line in theirs) == [20, 80, 80]
    places = [float(line.get_xdata()[0]) for line in theirs]
    assert min(places) > 1  # of the panel's width
    assert len(set(places)) == 2
    assert len({(line.get_color(), line.get_marker()) for line in theirs}) == 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == ["a (published 80.00)", "b (published 80.00)", "c (published 20.00)", "d"]
    assert "hollow, at the right: published" in names[-1].replace("\n", " ")


def test_seeds_that_do_not_differ_are_refused(stored: tuple[StoredRun, ...]) -> None:
    with pytest.raises(ConfigError, match="one configuration with the same seed"):
        cost.compute((*stored, stored[0]), "seconds")
    with pytest.raises(ConfigError, match="--cost"):
        cost.compute(stored, "nope")


def test_groups_are_those_that_by_names(stored: tuple[StoredRun, ...]) -> None:
    lines = cost.compute(stored, "seconds", ["dataset_unsup.epochs"])
    assert lines["group"].tolist() == ["dataset_unsup.epochs=1", "dataset_unsup.epochs=2"]
