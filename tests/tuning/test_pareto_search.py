"""Searches by several metrics and with constraints: what is planned, who is on the front, what Optuna learns.

Without it a search could train what a bound rules out, name a winner that breaks one, or put a failed configuration on
the front. Runs are stored as they end and not trained; one real search by the command line is in the slow tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small

from hebb.analysis import runs as stored_runs
from hebb.cli import search, search_flags, verbs
from hebb.config import catalog, costs, search_space
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.journal import Event, Journal
from hebb.tuning import front as front_of
from hebb.tuning import html_report, report_front, request, results, search_folder, trials
from hebb.tuning.request import SearchRequest
from hebb.tuning.search import Search, Trial
from hebb.tuning.search_settings import SearchSettings

CATALOG = catalog.load()
WIDTHS = [4, 8, 16, 32]
BASE = ["--preset", "2SoftHebbCnnDigits", "--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_5"]
SPACE = ["--space", "b0.layer.out_channels={grid: [4, 8, 16, 32]}"]


def planned(folder: Path, **data: Any) -> Search:
    space = {"b0.layer.out_channels": {"grid": WIDTHS}}
    spec = search_space.parse({"space": space, "seeds": [0, 1], **data}, "widths", "widths.yaml")
    return SearchRequest(base=small.config(small.CNN), spec=spec, folder=folder).resolve(CATALOG)


def resolved(*flags: str) -> Search:
    return search.resolve(search_flags.parser("").parse([*BASE, *flags]), CATALOG)


def finish(trial: Trial, accuracy: float | None, seconds: float = 1.0) -> None:
    """Store a result, as a run that ends does."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    folders.write_json(trial.folder / folders.CONFIG, {})
    (trial.folder / folders.METRICS).write_text("")
    metrics = dict.fromkeys(results.METRIC_COLUMNS) | {"test_acc": accuracy}
    folders.write_json(trial.folder / folders.RESULT, {"metrics": metrics, "seconds": seconds})


def table_of(found: Search, accuracies: dict[int, list[float | None]], seconds: dict[int, float] | None = None) -> Any:
    """Return the ranking of a search whose configurations reached these accuracies, by their widths and seeds."""
    for trial in found.trials:
        width = int(str(trial.choice["b0.layer.out_channels"]))
        values = accuracies.get(width, [])
        seed = trial.config.seed
        if seed < len(values):
            finish(trial, values[seed], (seconds or {}).get(width, 1.0))
    runs = results.read(found.trials, found.metric, Journal.load(found.folder), found.beside)
    return results.ranked(results.judged(results.summary(runs, found.metric, found.beside), found), found)


def front(found: Search, table: Any) -> list[int]:
    labels = results.best(found, table)
    return [int(str(results.trial_of(found, label).choice["b0.layer.out_channels"])) for label in labels]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({4: [50, 50], 8: [60, 60], 16: [70, 70], 32: [80, 80]}, [32, 16, 8, 4]),
        ({4: [80, 80], 8: [60, 60], 16: [70, 70], 32: [50, 50]}, [4]),
        ({4: [60, 80], 8: [70, 70], 16: [90, 90], 32: [90, 90]}, [16, 4]),  # equal means: the cheaper one
        ({4: [None, 99], 8: [60, 60], 16: [70, 70], 32: [70.0, 70.0]}, [16, 8]),  # a number that there is not
        ({4: [99], 8: [60, 60], 16: [70, 70]}, [16, 8]),  # a mean over surviving seeds, and one that never ran
        ({4: [None, None]}, []),
    ],
)
def test_the_front_is_of_means_over_all_seeds(
    accuracies: dict[int, list[float | None]], expected: list[int], tmp_path: Path
) -> None:
    """Best by the first metric first."""
    found = planned(tmp_path, metric=["test_acc", "multiply_accumulates"])
    assert front(found, table_of(found, accuracies)) == expected


@pytest.mark.parametrize(
    ("constraints", "left_out", "expected"),
    [
        ({"seconds": "<= 10"}, [], [16, 8, 4]),
        ({"seconds": "<= 10", "test_acc": "> 55"}, [], [16, 8]),
        ({"multiply_accumulates": "< 10000"}, [16, 32], [8, 4]),
        ({"parameters": ">= 1000", "test_acc": ">= 99"}, [4], []),
    ],
)
def test_constraints(constraints: dict[str, str], left_out: list[int], expected: list[int], tmp_path: Path) -> None:
    """A static bound decides before, any other in the table; what breaks one is not on the front, and ranks below."""
    found = planned(tmp_path, metric=["test_acc", "multiply_accumulates"], constraints=constraints)
    assert [label for width in left_out for label in found.left_out if label.endswith(f"={width}")] == list(
        found.left_out
    )
    assert found.runs == len(found.trials) == 2 * (len(WIDTHS) - len(left_out))
    reached = {4: [50.0, 50.0], 8: [60.0, 60.0], 16: [70.0, 70.0], 32: [80.0, 80.0]}
    table = table_of(found, {w: [*a] for w, a in reached.items()}, {32: 60.0})
    assert front(found, table) == expected
    assert list(table["feasible"]) == sorted(table["feasible"], reverse=True)


def test_what_a_scheduler_stopped_has_its_static_costs(tmp_path: Path) -> None:
    """It has no result and no time; it is in results.csv with what is known, and not on the front."""
    found = planned(tmp_path, metric=["test_acc", "parameters", "seconds"], seeds=[0])
    stopped, *others = found.trials
    stopped.folder.mkdir(parents=True)
    folders.write_json(stopped.folder / folders.CONFIG, {})
    row = dict.fromkeys(results.METRIC_COLUMNS) | {"test_acc": 99.0}
    folders.append_row(stopped.folder / folders.METRICS, row)
    Journal.load(tmp_path).note(Event.STOPPED, stopped.configuration, step=1, score=99.0, n=1)
    for trial in others:
        finish(trial, 50.0)
    runs = results.read(found.trials, found.metric, Journal.load(tmp_path), found.beside)
    assert runs.set_index("trial").loc[stopped.name, "parameters"] == costs.static(stopped.config)["parameters"]
    assert runs.set_index("trial")["seconds"].isna().sum() == 1
    table = results.judged(results.summary(runs, found.metric, found.beside), found)
    assert front(found, results.ranked(table, found)) == [8]


def test_nothing_is_known_of_the_bounds_of_what_was_stopped(tmp_path: Path) -> None:
    """Its place for ``feasible`` is empty in results.csv; the others keep a bound or break it."""
    found = planned(tmp_path, metric="test_acc", constraints={"seconds": "<= 10"})
    table_of(found, {4: [50, 50], 8: [60, 60]}, {8: 60.0})
    runs = results.read(found.trials, found.metric, Journal.load(tmp_path), found.beside)
    table = results.judged(results.summary(runs, found.metric, found.beside), found)
    stopped = runs.iloc[:1].assign(configuration="stopped", status="stopped")
    lines = results.marked(pd.concat([runs, stopped]), table)
    assert list(lines["feasible"].astype(object).where(lines["feasible"].notna(), None)) == [
        True,
        True,
        False,
        False,
        None,
    ]
    path = results.write(lines, tmp_path / "results.csv")
    assert path.read_text().splitlines()[-1].endswith(",")


def test_a_winner_keeps_every_bound(tmp_path: Path) -> None:
    found = planned(tmp_path, metric="test_acc", constraints={"seconds": "<= 10"})
    table = table_of(found, {4: [50, 50], 32: [80, 80]}, {32: 60.0})
    assert front(found, table) == [4]
    everything = planned(tmp_path / "free", metric="test_acc")
    free = table_of(everything, {4: [50, 50], 32: [80, 80]}, {32: 60.0})
    assert front(everything, free) == [32]
    assert not {"feasible", "front"} & set(free)


def test_one_metric_is_stored_as_before(tmp_path: Path) -> None:
    """No new key in search.json, and no new column."""
    found = planned(tmp_path, metric="test_acc")
    search_folder.claim(found, SearchSettings(home=folders.Home(tmp_path)))
    data = search_folder.read(tmp_path)
    assert not {"others", "final_points"} & set(data)
    assert data["spec"]["metric"] == "test_acc"
    assert "constraints" not in data["spec"]
    assert not found.beside


def test_a_continued_search_asks_the_same(tmp_path: Path) -> None:
    found = planned(
        tmp_path, metric={"test_acc": "max", "seconds": "min"}, constraints=["parameters <= 1000", "seconds < 9"]
    )
    search_folder.claim(found, SearchSettings(home=folders.Home(tmp_path)))
    again = search_folder.search_of(search_folder.read(tmp_path), tmp_path, CATALOG)
    assert again.objectives == found.objectives
    assert again.constraints == found.constraints
    assert again.trials == found.trials
    assert again.left_out == found.left_out
    assert found.left_out


def test_the_flags(tmp_path: Path) -> None:
    asked = resolved(*SPACE, "--metric", "test_acc", "parameters", "--constraint", "parameters <= 1500")
    assert [(one.metric, one.mode) for one in asked.objectives] == [("test_acc", "max"), ("parameters", "min")]
    assert list(asked.left_out.values()) == ["parameters 2,714, must be <= 1,500", "parameters 5,418, must be <= 1,500"]
    turned = resolved(*SPACE, "--metric", "test_acc", "parameters", "--mode", "min", "max")
    assert [one.mode for one in turned.objectives] == ["min", "max"]
    assert not resolved(*SPACE, "--metric", "test_loss", "--mode", "max").several


OPTUNA = ["--space", "b0.layer.out_channels={randint: [4, 32]}", "--num-samples", "4", "--algorithm"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([*SPACE, "--metric", "test_acc", "paramters"], "--metric: unknown metric 'paramters'"),
        ([*SPACE, "--metric", "test_acc", "seconds", "--mode", "max"], "--mode: must be left out, or be one of max"),
        ([*SPACE, "--metric", "parameters", "test_acc"], "--metric: must begin with what a run measures by epoch"),
        ([*SPACE, "--metric", "test_acc", "val_acc"], "--metric: there is no val_acc without --validation-sup"),
        ([*SPACE, "--constraint", "parameters"], "--constraint: must be a metric, one of <= >= < >, and a number"),
        ([*SPACE, "--constraint", "parameters <= 1"], "--constraint: leaves no configuration: b0.layer.out_channels=4"),
        ([*SPACE, "--constraint", "val_acc > 1"], "--constraint: there is no val_acc without --validation-sup"),
        ([*SPACE, "--metric", "test_acc", "activity_sparsity"], "--metric: activity_sparsity is recorded of settling"),
        ([*OPTUNA, "hyperopt", "--metric", "test_acc", "seconds"], "--metric: hyperopt suggests by one metric"),
        (
            [*OPTUNA, "optuna", "--sampler", "cmaes", "--metric", "test_acc", "seconds"],
            "--metric: cmaes suggests by one metric",
        ),
        ([*OPTUNA, "hyperopt", "--constraint", "seconds < 9"], "--constraint: hyperopt cannot model seconds < 9"),
        ([*SPACE, "--final-points", "1"], "--final-points: search config 'seed' is a sweep"),
        (
            [*SPACE, "--purpose", "search", "--metric", "val_acc", "parameters", "--final-points", "1", "9"],
            "--final-points: must be at most 4, the number of configurations, got 9",
        ),
        (
            [*OPTUNA, "random", "--purpose", "search", "--metric", "val_acc", "parameters", "--final-points", "5"],
            "--final-points: must be at most 4, the number of configurations, got 5",
        ),
        (
            [*SPACE, "--purpose", "search", "--final-points", "1"],
            "--final-points: needs several metrics",
        ),
    ],
)
def test_what_cannot_be_asked(flags: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(*flags)
    assert str(error.value).startswith(says)


def test_points_that_a_front_lacks_are_refused_once_it_is_stored(tmp_path: Path) -> None:
    """Before anything is run again; while the search goes on they may still come."""
    found = planned(tmp_path, metric=["test_acc", "seconds"], purpose="search", validation=0)
    search_folder.claim(found, SearchSettings(home=folders.Home(tmp_path)))
    front_of.write(found, [], 4)
    folders.write_json(tmp_path / search_folder.FRONT, {"points": [{"number": 1}, {"number": 2}]})
    assert request.restored(tmp_path, CATALOG, final_points=(1, 3)).final_points == (1, 3)
    Journal.load(tmp_path).note(Event.ENDED, "", succeeded=True)
    with pytest.raises(ConfigError, match="--final-points: must be points of the front, 1 2, got 3"):
        request.restored(tmp_path, CATALOG, final_points=(1, 3))
    assert request.restored(tmp_path, CATALOG, final_points=(2,)).final_points == (2,)
    assert request.restored(tmp_path, CATALOG, final_points=(3,), extension=request.Extension(seeds=(7,)))
    assert front_of.absent([9], [1, 2]) == "--final-points: the front has no point 9; it has 1 2"


def test_a_point_that_was_left_out_is_no_unfinished_run(tmp_path: Path) -> None:
    """The journal says so, and neither the trials of the search nor the stored runs count it."""
    data = {"search": {"algorithm": "optuna", "samples": 2}, "space": {"b0.layer.out_channels": {"randint": [4, 33]}}}
    found = planned(tmp_path, metric=["test_acc", "parameters"], constraints={"parameters": "<= 1500"}, **data)
    search_folder.claim(found, SearchSettings(home=folders.Home(tmp_path)))
    journal = Journal.load(tmp_path)
    for width in (8, 32):
        choice = {"b0.layer.out_channels": width}
        name = trials.replicates(found, choice, "x", CATALOG)[0].configuration
        journal.note(Event.CHOSEN, name, params=choice, choice=choice)
        if width == 32:
            journal.note(Event.LEFT_OUT, name, reason="parameters 5,418, must be <= 1,500")
    again = trials.at_points(found, Journal.load(tmp_path).chosen.values(), CATALOG)
    assert (len(again.trials), list(again.left_out)) == (2, ["b0.layer.out_channels=32"])
    assert len(stored_runs.read([tmp_path]).unfinished) == 2


def test_what_optuna_learns(tmp_path: Path) -> None:
    """Objectives in order, bounds by how much they are broken; a failure has the worst of the others."""
    pytest.importorskip("ray")
    pytest.importorskip("optuna")
    from hebb.tuning import searchers

    data = {"search": {"algorithm": "optuna", "samples": 9}, "space": {"b0.layer.out_channels": {"randint": [4, 33]}}}
    bounds = ["parameters <= 1000", "seconds < 9"]
    found = planned(tmp_path, metric=["test_acc", "multiply_accumulates"], constraints=bounds, **data)
    searcher: Any = searchers.of_search(found, [])
    reports: dict[str, dict[str, Any]] = {
        "first fails": {"failed": "it diverged", "score": 0.0},
        "good": {"score": 80.0, "beside/multiply_accumulates": 5.0, "beside/parameters": 900.0, "beside/seconds": 3.0},
        "slow": {"score": 70.0, "beside/multiply_accumulates": 9.0, "beside/parameters": 900.0, "beside/seconds": 18.0},
        "large": {"left_out": "too large", "score": 0.0, "beside/multiply_accumulates": 7.0, "beside/parameters": 2e3},
        "fails": {"failed": "it diverged", "score": 0.0},
    }
    for name, report in reports.items():
        searcher.suggest(name)
        searcher.on_trial_complete(name, report)
    searcher.suggest("dies")
    searcher.on_trial_complete("dies", error=True)
    told = searcher._ot_study.trials
    assert [trial.values for trial in told] == [None, [80.0, 5.0], [70.0, 9.0], [70.0, 7.0], [70.0, 9.0], None]
    if hasattr(told[1], "constraints"):
        assert [max(trial.constraints.values()) <= 0 for trial in told[1:5]] == [True, False, False, False]
    assert "b0.layer.out_channels" in searcher.suggest("next")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_samplers_take_several_metrics(sampler: str, tmp_path: Path) -> None:
    """Beyond their random points they suggest from what they learned, with bounds that some points break."""
    pytest.importorskip("ray")
    pytest.importorskip("optuna")
    from hebb.tuning import searchers

    plan = {"algorithm": "optuna", "samples": 60, "sampler": sampler}
    space = {"b0.layer.out_channels": {"randint": [4, 33]}, "b0.layer.lr": {"loguniform": [0.001, 0.1]}}
    bounds = ["parameters <= 3000", "test_acc > 20"]
    found = planned(tmp_path, metric=["test_acc", "seconds"], constraints=bounds, search=plan, space=space)
    searcher: Any = searchers.of_search(found, [])
    for i in range({"nsga2": 53}.get(sampler, 13)):
        point = searcher.suggest(str(i))
        width = float(point["b0.layer.out_channels"])
        report = {"score": 50 + width, "beside/seconds": width, "beside/parameters": 169 * width}
        searcher.on_trial_complete(str(i), report if i % 4 else {"failed": "x", "score": 0.0})
    assert len(searcher._ot_study.trials) == {"nsga2": 53}.get(sampler, 13)


def test_the_plot(tmp_path: Path) -> None:
    """A dot for each configuration on every seed, at its means; the front is numbered, what breaks a bound hollow."""
    found = planned(
        tmp_path, metric=["test_acc", "multiply_accumulates"], constraints={"test_acc": ">= 55"}, seeds=[0, 1]
    )
    search_folder.claim(found, SearchSettings(home=folders.Home(tmp_path)))
    table_of(found, {4: [50, 50], 8: [60, 60], 16: [58, 58], 32: [80, 80]})
    report = html_report.read(tmp_path)
    dots = {dot.title.splitlines()[0].rpartition("=")[2]: dot for dot in report_front._dots(report, found.others[0])}
    assert {width: (dot.y, dot.number, dot.feasible) for width, dot in dots.items()} == {
        "4": (50, 0, False),
        "8": (60, 2, True),
        "16": (58, 0, True),
        "32": (80, 1, True),
    }
    for trial in found.trials:
        width = str(trial.choice["b0.layer.out_channels"])
        assert dots[width].x == costs.static(trial.config)["multiply_accumulates"]
    ((drawing, text),) = report_front.charts_of(report)
    looks = [str(drawing).count(f'class="hit {look}"') for look in ("best", "pale", "broken")]
    assert looks == [4, 2, 2]  # for a desk and for a phone
    assert "hollow dots break a constraint" in text


@pytest.mark.slow
def test_a_real_search_that_is_interrupted_ends_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line with Ray and Optuna: three trials, then the rest; the front is that of the stored runs."""
    flags = [*BASE, "--set", "dataset_sup.samples=100", "dataset_unsup.samples=100", "--threads", "1"]
    flags += ["--space", "b0.layer.out_channels={randint: [4, 60]}", "--algorithm", "optuna", "--num-samples", "6"]
    flags += ["--seeds", "0", "--metric", "val_acc", "multiply_accumulates", "--constraint", "parameters <= 6000"]
    flags += ["--purpose", "search", "--final-seeds", "1", "--data-dir", str(tmp_path), "--folder-name", "front"]
    assert search.main([*flags, "--max-trials", "3"]) == 0
    assert search.main(["--restore", "front", "--data-dir", str(tmp_path), "--max-trials", "9"]) == 0
    folder = folders.Home(tmp_path).search("front")
    report, stored = html_report.read(folder), folders.read_json(folder / "front.json")
    assert [point["configuration"] for point in stored["points"]] == [
        results.trial_of(report.search, label).choice for label in report.leading
    ]
    assert all(point["final"]["n"] == 1 for point in stored["points"])
    assert len(report.search.left_out) == len(Journal.load(folder).left_out)
    assert len(report.search.trials) + len(report.search.left_out) == 6
    for trial in report.search.trials:
        assert costs.static(trial.config)["parameters"] <= 6000
    printed = capsys.readouterr().out
    assert f"front 1: {report.leading[0]}" in printed
    assert "winner:" not in printed
    packed = str(tmp_path / "front.zip")
    assert verbs.main(["archive", "front", "--out", packed, "--data-dir", str(tmp_path)]) == 0
    assert verbs.main(["rerun", packed, "--workers", "1", "--data-dir", str(tmp_path / "elsewhere")]) == 0
    again = folders.Home(tmp_path / "elsewhere").search("front-rerun")
    assert folders.read_json(again / "front.json") == stored
