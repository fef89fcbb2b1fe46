"""What seeds say together: expectations by hand and from tables of Student's t, never from the code.

Without it an accuracy could be said to lie above 100 %, or two seeds that agree to be certain.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from hebb.analysis import replicates, style

NAN = math.nan
T = {3: 4.302653, 4: 3.182446}
"""t(0.975, n - 1) by n, from a table."""


def line(values: list[float], metric: str = "test_acc") -> pd.Series:
    """The line of one group of values."""
    frame = pd.DataFrame({"group": "a", "seed": range(len(values)), metric: values})
    return replicates.statistics(frame, ["group"], metric).iloc[0]


INTERVALS = [  # metric, values, low and high end; sd is worked out beside
    ("test_acc", [68.0, 70.0, 72.0, 74.0], (71 - T[4] * math.sqrt(20 / 3) / 2, 71 + T[4] * math.sqrt(20 / 3) / 2)),
    ("test_acc", [90.0, 99.0, 99.0], (96 - T[3] * math.sqrt(27) / math.sqrt(3), 100.0)),  # sd^2 = (36 + 9 + 9) / 2
    ("val_acc", [0.0, 3.0, 0.0], (0.0, 1 + T[3] * math.sqrt(3) / math.sqrt(3))),
    ("train_acc", [0.0, 100.0, 50.0], (0.0, 100.0)),
    ("test_loss", [0.0, 0.3, 0.0], (0.0, 0.1 + T[3] * 0.1)),  # sd^2 = 0.03
    ("convergence", [0.0, 0.3, 0.0], (0.0, 0.1 + T[3] * 0.1)),
    ("R1", [0.0, 3.0, 0.0], (0.0, 1 + T[3])),
    ("train_loss", [-3.0, 0.0, -3.0], (-2 - T[3], -2 + T[3])),  # that of LPL may lie below 0
]


@pytest.mark.parametrize(("metric", "values", "ends"), INTERVALS)
def test_an_interval_is_students_within_the_range_of_the_metric(
    metric: str, values: list[float], ends: tuple[float, float]
) -> None:
    got = line(values, metric)
    assert (got["low"], got["high"]) == pytest.approx(ends, rel=1e-6)
    assert got["low"] <= got["mean"] <= got["high"]


@pytest.mark.parametrize("values", [[98.0], [98.0, 99.0], [98.0, 98.0], [98.0, 98.0, 98.0], [0.1, 0.1, 0.1], [98, NAN]])
def test_no_interval_below_three_seeds_and_where_all_agree(values: list[float]) -> None:
    got = line(values)
    measured = [value for value in values if not math.isnan(value)]
    assert got["n"] == len(measured)
    assert math.isnan(got["interval"])
    assert math.isnan(got["low"])
    assert math.isnan(got["high"])
    assert [float(text) for text in got["values"].split()] == measured
    assert math.isnan(got["sd"]) == (len(measured) == 1)
    if len(measured) > 1 and len(set(measured)) == 1:
        assert got["sd"] == 0


def test_no_value_at_all() -> None:
    got = line([NAN, NAN])
    assert (got["n"], got["values"]) == (0, "")
    assert math.isnan(got["mean"])


def test_values_stand_in_the_order_of_seeds_and_groups_in_that_of_their_first_lines() -> None:
    frame = pd.DataFrame({"group": ["b", "a", "b", "a"], "seed": [10, 1, 2, 0], "test_acc": [4.0, 3.0, 2.0, 1.0]})
    lines = replicates.statistics(frame, ["group"], "test_acc")
    assert list(lines["group"]) == ["b", "a"]
    assert list(lines["values"]) == ["2 4", "1 3"]


READ = [  # values, metric, the cells that are shown
    ([98.0], "test_acc", {"sd": "-"}),
    ([98.0, 99.0], "test_acc", {"sd": "0.71", "each seed": "98.00, 99.00"}),
    ([98.0, 98.0], "test_acc", {"sd": "0.00", "each seed": "all 98.00"}),
    ([98.0] * 5, "test_acc", {"sd": "0.00", "each seed": "all 98.00"}),
    ([90.0, 99.0, 99.0], "test_acc", {"sd": "5.20", "95 % interval": "83.09 to 100.00"}),
    ([0.01, 0.02], "val_loss", {"sd": "0.0071", "each seed": "0.0100, 0.0200"}),
    ([0.0, 0.3, 0.0], "val_loss", {"sd": "0.1732", "95 % interval": "0.0000 to 0.5303"}),
]


@pytest.mark.parametrize(("values", "metric", "cells"), READ)
def test_what_people_read(values: list[float], metric: str, cells: dict[str, str]) -> None:
    frame = pd.DataFrame({"group": "a", "seed": range(len(values)), metric: values})
    assert replicates.spread_cells(replicates.statistics(frame, ["group"], metric), metric) == [cells]


def test_a_column_is_there_where_one_line_needs_it() -> None:
    values = {"a": [98.0], "b": [98.0, 99.0], "c": [90.0, 99.0, 99.0]}
    frame = pd.DataFrame([{"group": g, "seed": s, "test_acc": v} for g, vs in values.items() for s, v in enumerate(vs)])
    cells = replicates.spread_cells(replicates.statistics(frame, ["group"], "test_acc"), "test_acc")
    assert [list(cell.values()) for cell in cells] == [
        ["-", "-", "-"],
        ["0.71", "-", "98.00, 99.00"],
        ["5.20", "83.09 to 100.00", "-"],
    ]


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (98.125, "test_acc", "98.12"),
        (0.06153, "test_loss", "0.0615"),
        (NAN, "test_acc", "-"),
        (None, "test_loss", "-"),
        (3.24e32, "test_loss", "3.2e32"),
        (0.0005, "lr", "0.0005"),
        (12.0, "R1", "12"),
        (11.0 + 2 / 3, "R1", "11.7"),
        (-0.001, "test_acc", "0.00"),
        (-0.01, "test_acc", "-0.01"),
    ],
)
def test_numbers(value: float | None, metric: str, text: str) -> None:
    assert replicates.number(value, metric) == text


@pytest.mark.parametrize(
    ("n", "mean", "sd", "ends"),
    [
        (1, 98.0, NAN, (NAN, NAN)),
        (2, 98.5, math.sqrt(0.5), (98.0, 99.0)),  # the seeds 98 and 99 themselves
        (3, 99.5, 1.0, (98.5, 100.0)),
        (NAN, 80.0, 2.0, (78.0, 82.0)),  # a published deviation
    ],
)
def test_bars_reach_over_two_seeds_or_a_deviation(n: float, mean: float, sd: float, ends: tuple[float, float]) -> None:
    assert replicates.span(n, mean, sd, "test_acc") == pytest.approx(ends, nan_ok=True)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        ([1, 1], "n = 1"),
        ([2, 2], "bars: from one seed to the other, n = 2"),
        ([4, 4], "bars: ± 1 s.d., n = 4"),
        ([1, 4], "bars: ± 1 s.d., n = 1 to 4"),
        ([2, 4], "bars: ± 1 s.d., of two seeds from one to the other, n = 2 to 4"),
    ],
)
def test_the_legend_says_what_bars_show(n: list[int], text: str) -> None:
    assert style.spread(pd.DataFrame({"n": n}), "bars") == text


def test_a_single_run_has_no_bar() -> None:
    """Not even one of no length, which would have caps."""
    figure, axes = style.figure()
    lines = pd.DataFrame({"n": [1], "mean": [98.0], "sd": [NAN]})
    style.bars(axes, 0, "a", pd.Series([1.0]), lines, "test_acc")
    (bar,) = axes.collections
    assert all(math.isnan(y) for segment in bar.get_segments() for _, y in segment)
    assert replicates.mean_and_deviation(SimpleNamespace(n=1, mean=98.0, sd=NAN), "test_acc") == "98.00"
    assert figure is axes.figure


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("b0.layer.lr=0.2 b0.layer.t_invert=0.5", 30, ["b0.layer.lr=0.2", "b0.layer.t_invert=0.5"]),
        ("Soft-c48-k3-lr0.1:bn BP:flatten", 14, ["Soft-c48-k3-", "lr0.1:bn", "BP:flatten"]),
        ("short", 30, ["short"]),
        ("x" * 40, 30, ["x" * 40]),
    ],
)
def test_long_names_are_broken_where_they_may_be(text: str, width: int, lines: list[str]) -> None:
    assert style.wrapped(text, width).split("\n") == lines
