"""Interquartile mean, probability of improvement and profiles, against their definitions and scipy's rank test.

Without it a paper could print an interval of something else.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hebb.analysis import aggregate


def draws(seed: int, *counts: int, shift: float = 0.0) -> list[np.ndarray]:
    """Return scores of a method, one array for each task."""
    random = np.random.default_rng(seed)
    return [shift + 10 * task + random.normal(50, 2, count).round(1) for task, count in enumerate(counts)]


def test_the_interquartile_mean_is_that_of_the_middle_half_of_all_runs() -> None:
    tasks = draws(0, 4, 8)
    ordered = sorted(np.concatenate(tasks))
    frame = aggregate.compute({"a": tasks}, "test_acc", repeats=50)
    assert frame["iqm"][0] == pytest.approx(np.mean(ordered[3:9]))
    assert frame["n"][0] == 12
    assert math.isnan(frame["improvement"][0])


@pytest.mark.parametrize(("metric", "sign"), [("test_acc", 1), ("test_loss", -1)])
def test_the_probability_of_improvement_is_the_mean_of_the_rank_tests(metric: str, sign: int) -> None:
    first, second = draws(1, 5, 7), draws(2, 6, 4, shift=1.0)
    frame = aggregate.compute({"first": first, "second": second}, metric, repeats=50).set_index("method")
    of_tasks = [
        stats.mannwhitneyu(sign * x, sign * y).statistic / (len(x) * len(y)) for x, y in zip(second, first, strict=True)
    ]
    assert frame["improvement"]["second"] == pytest.approx(np.mean(of_tasks))
    assert frame["reference"]["second"] == "first"
    assert frame["improvement_low"]["second"] <= frame["improvement"]["second"] <= frame["improvement_high"]["second"]


def test_equal_methods_improve_with_one_half() -> None:
    tasks = draws(3, 4, 4)
    frame = aggregate.compute({"a": tasks, "b": tasks}, "test_acc", repeats=50)
    assert frame["improvement"][1] == pytest.approx(0.5)


def test_the_interval_covers_the_mean_of_a_task_as_often_as_it_says() -> None:
    """Of a hundred experiments of twenty normal scores, whose interquartile mean is the mean."""
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(70, 3, 20)
        low, high = aggregate._interval(aggregate._iqm, [values], 300)
        covered += low <= 70 <= high
    assert 84 <= covered <= 99  # a percentile bootstrap of twenty covers a little less than 95 %


def test_seeds_are_drawn_again_within_their_task() -> None:
    """Two tasks of equal scores each: whatever is drawn, the mean of the middle is the same."""
    low, high = aggregate._interval(aggregate._iqm, [np.full(4, 20.0), np.full(4, 80.0)], 100)
    assert (low, high) == (50.0, 50.0)


def test_there_is_no_interval_without_width() -> None:
    """Every seed of the one is better than every seed of the other: that is no certainty."""
    frame = aggregate.compute({"a": [np.full(4, 20.0)], "b": [np.full(4, 80.0)]}, "test_acc", repeats=50)
    assert list(frame["iqm"]) == [20.0, 80.0]
    assert frame["improvement"][1] == 1.0
    assert frame[["low", "high", "improvement_low", "improvement_high"]].isna().all(axis=None)


def test_there_is_no_interval_below_three_seeds() -> None:
    frame = aggregate.compute({"a": draws(4, 2, 5), "b": draws(5, 5, 5)}, "test_acc", repeats=50)
    assert math.isnan(frame["low"][0])
    assert not math.isnan(frame["low"][1])
    assert math.isnan(frame["improvement_low"][1])


@pytest.mark.parametrize("metric", ["test_acc", "test_loss"])
def test_a_profile_is_the_share_of_runs_beyond_each_threshold(metric: str) -> None:
    methods = {"a": draws(6, 3, 5), "b": draws(7, 4, 4)}
    frame = aggregate.profiles(methods, metric, repeats=20)
    for name, rows in frame.groupby("method"):
        values = np.concatenate(methods[str(name)])
        for row in rows.itertuples():
            beyond = values < row.tau if metric == "test_loss" else values > row.tau
            assert row.share == pytest.approx(beyond.mean())
            assert row.low <= row.share <= row.high
        assert rows["share"].is_monotonic_increasing if metric == "test_loss" else rows["share"].is_monotonic_decreasing


def test_the_same_runs_have_the_same_interval() -> None:
    methods = {"a": draws(8, 5), "b": draws(9, 5)}
    first, second = (aggregate.compute(methods, "test_acc", repeats=100) for _ in range(2))
    assert first.equals(second)
