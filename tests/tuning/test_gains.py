"""What a rule adds to its controls: paired by seed, from the runs of a search, on every page that shows it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import small
from conftest import Command
from scipy import stats

from hebb.config import catalog, controls, search_space
from hebb.config.vocabulary import Goal
from hebb.core.errors import ConfigError
from hebb.tuning import gains, trials
from hebb.tuning.search import Search

ACCURACY = {
    "learned": [97.0, 96.0, 98.5],
    "frozen": [95.0, 95.5, 95.0],
    "heads": [97.5, 96.5, 99.0],
    "backprop": [98.0, 96.0, 98.0],
}


def search_of(seeds: int, space: dict[str, object] | None = None) -> Search:
    domains = {**(space or {}), **controls.domain()}
    spec = search_space.parse({"seeds": list(range(seeds)), "space": domains}, "s", "test")
    search = Search(
        spec=spec, base=small.config(), seeds=spec.seeds, metric="test_acc", mode=Goal.MAX, folder=Path("nowhere")
    )
    return trials.planned(search, catalog.load())


def runs_of(search: Search, leave_out: tuple[tuple[str, int], ...] = ()) -> pd.DataFrame:
    lines = [
        {
            "configuration": trial.label,
            "seed": trial.config.seed,
            "status": "finished",
            "test_acc": ACCURACY[trial.choice["control"]][trial.config.seed],
        }
        for trial in search.trials
        if (trial.choice["control"], trial.config.seed) not in leave_out
    ]
    return pd.DataFrame(lines)


def test_gains_are_those_of_the_paired_test() -> None:
    search = search_of(3)
    table = gains.table(search, runs_of(search))
    assert list(table["control"]) == ["frozen", "heads", "backprop"]
    for line in table.itertuples():
        pairs = [a - b for a, b in zip(ACCURACY["learned"], ACCURACY[line.control], strict=True)]
        assert line.gain == pytest.approx(math.fsum(pairs) / 3)
        assert [float(text) for text in line.values.split()] == pytest.approx(pairs)
        if max(pairs) > min(pairs):
            test = stats.ttest_1samp(pairs, 0)
            assert (line.t, line.p) == pytest.approx((test.statistic, test.pvalue))
            assert (line.low, line.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert math.isnan(table["p"][1])  # heads differ alike on every seed
    assert table["p_holm"][0] == pytest.approx(min(1, 2 * table["p"][0]))
    first, second, third = gains.sentences(table, search.metric)
    assert first.startswith("learned against frozen: +2.00 points (95 % interval ")
    assert second == "learned against heads: −0.50 points (seed by seed −0.50, −0.50, −0.50)"
    assert "the seeds cannot tell them apart" in third
    assert "with Holm's correction for 2 tests" in first


def test_only_seeds_of_both_arms_count() -> None:
    search = search_of(3)
    runs = runs_of(search, leave_out=(("learned", 0), ("frozen", 1), ("heads", 1), ("heads", 2)))
    frame = gains.table(search, runs)
    table = frame.set_index("control")
    assert table.loc["frozen", ["n", "gain"]].tolist() == [1, 3.5]
    assert "heads" not in table.index  # no seed in common
    assert table.loc["backprop", "n"] == 2
    assert "learned against frozen: +3.50 points (one seed)" in gains.sentences(frame, search.metric)


def test_each_configuration_has_its_controls() -> None:
    search = search_of(2, {"b0.layer.out_channels": {"grid": [4, 6]}})
    lines = gains.sentences(gains.table(search, runs_of(search)), search.metric)
    assert len(lines) == 6
    assert lines[0].startswith("b0.layer.out_channels=4: learned against frozen: +1.25 points")


def test_controls_that_are_the_same_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"control=heads are the same run(.|\n)*choose these first"):
        search_of(2, {"b0.layer.lr": {"grid": [0.1, 0.2]}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--purpose", "search"), "--with-controls: compares arms"),
        (("--space", "b0.layer.lr={uniform: [0.1, 0.2]}", "--num-samples", "2"), "algorithm random draws some of them"),
        (("--preset", "3PCMNIST"), "--with-controls: 3PCMNIST settles as a whole"),
    ],
)
def test_searches_without_controls_are_refused(inside: Command, words: tuple[str, ...], message: str) -> None:
    result = inside("ray_search.py", "--with-controls", "--dry-run", *words)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.slow
def test_a_search_prints_what_the_rule_adds(command: Command, tmp_path: Path) -> None:
    words = ("--preset", small.CNN, "--dataset", "Digits_1", "--seeds", "0", "1", "--with-controls", "--threads", "1")
    result = command("ray_search.py", *words, "--folder-name", "arms")
    assert result.returncode == 0, result.stderr
    assert "8 trials" in result.stdout
    folder = next(tmp_path.rglob("controls.csv")).parent
    table = pd.read_csv(folder / "controls.csv")
    assert list(table["control"]) == ["frozen", "heads", "backprop"]
    runs = pd.read_csv(folder / "results.csv").groupby("configuration")["test_acc"].mean()
    assert list(table["mean"] - table["mean_control"]) == pytest.approx(list(table["gain"]))
    assert table["mean"][0] == pytest.approx(runs["control=learned"])
    assert "learned against backprop: " in result.stdout
    assert "learned against backprop: " in (folder / "report.html").read_text()
    compared = command("analysis.py", "compare", str(folder), "--by", "control", "--baseline", "learned")
    assert compared.returncode == 0, compared.stderr
