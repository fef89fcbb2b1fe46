"""Stored runs as data. What is expected is read from the files of the runs by other means, or was put into them.

Without it an analysis could mix up runs, or count one that never finished.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small
import stored_runs
from hypothesis import given, settings
from random_specs import runs as random_runs

from hebb.analysis import runs
from hebb.config import catalog, overrides
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two rates, two seeds, the last run not made; a single run; an interrupted one."""
    home = tmp_path_factory.mktemp("home")
    base = small.config(small.CNN, *TINY)
    stored_runs.sweep(home, "rates", base, {"b0.layer.lr": [0.05, 0.1]}, [0, 1], leave_out=1)
    single = stored_runs.single(home, "one", small.config(small.BP, *TINY, seed=7, probes=("linear",)))
    shutil.copytree(single, single.with_name("cut"))
    (single.with_name("cut") / "result.json").unlink()
    return home


def test_reads_what_is_there(home: Path) -> None:
    stored = runs.read([home])
    assert [run.folder for run in stored.runs] == sorted(p.parent.resolve() for p in home.rglob("result.json"))
    (one,) = (run for run in stored.runs if run.search is None)
    result = json.loads((one.folder / "result.json").read_text())
    assert one.seed == 7
    assert one.measured("test_acc") == result["metrics"]["test_acc"]
    assert list(one.probes) == result["probes"] != []
    assert len(one.rows) == len((one.folder / "metrics.jsonl").read_text().splitlines())
    for run in stored.runs:
        if run.search is not None:
            assert run.search == "rates"
            assert run.choice == {"b0.layer.lr": run.value("b0.layer.lr")}


def test_stopped_and_failed_runs_are_not_called_unfinished(home: Path, tmp_path: Path) -> None:
    """A complete search has nothing left, so nothing says how to finish it."""
    search = tmp_path / "rates"
    shutil.copytree(home / "hebb" / "search" / "rates", search)
    described = json.loads((search / "search.json").read_text())
    first, last = described["trials"][0]["name"], described["trials"][-1]["name"]
    events = [
        {"event": "stopped", "group": last.rpartition("-s")[0]},
        {"event": "failed", "group": first, "reason": "r"},
    ]
    (search / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (search / "trials" / first / "result.json").unlink()
    stored = runs.read([search])
    stopped = f"stopped early by the scheduler, 1 of 4 runs: {last}"
    assert stored.describe_unfinished() == f"{stopped}; failed, 1 of 4 runs: {first}"
    assert stored.tally.sentence() == "complete: 2 of 4 ran to the end, 1 stopped early, 1 failed"
    with pytest.raises(ConfigError) as raised:
        stored.check()
    assert "finishes" not in str(raised.value)
    assert "--partial leaves them out" in str(raised.value)


def test_names_what_is_not_finished(home: Path) -> None:
    stored = runs.read([home])
    assert sorted(m.fate for m in stored.unfinished) == ["interrupted", "never started"]
    assert {m.folder.name for m in stored.unfinished} >= {"cut"}
    with pytest.raises(ConfigError, match=r"not finished, 2 of 6 runs: .*cut \(interrupted\)"):
        stored.check()


def test_a_run_named_twice_is_read_once(home: Path) -> None:
    search = home / "hebb" / "search" / "rates"
    assert len(runs.read([search, home, *sorted((search / "trials").iterdir())]).runs) == len(runs.read([home]).runs)


def test_a_single_trial_keeps_its_choice(home: Path) -> None:
    trial = next((home / "hebb" / "search" / "rates" / "trials").iterdir())
    (run,) = runs.read([trial]).runs
    assert run.search == "rates"
    assert run.choice == {"b0.layer.lr": run.value("b0.layer.lr")}


def test_radii_come_from_the_phase_that_measured_them(home: Path) -> None:
    """The classifier's rows, which are last, have none."""
    run = next(run for run in runs.read([home]).runs if run.search == "rates")
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["convergence"] is None
    assert run.measured("convergence") == [r["convergence"] for r in rows if r["kind"] == "hebbian"][-1]


def test_select(home: Path) -> None:
    every = runs.read([home]).runs
    assert {run.seed for run in runs.select(every, values={"seed": "0"})} == {0}
    assert len(runs.select(every, values={"b0.layer.lr": "5e-2"}, presets=[small.CNN])) == 2
    assert [run.seed for run in runs.select(every, values={"b0.method": "bp"})] == [7]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"presets": ["2SoftHebb"]}, "--preset: no run of '2SoftHebb'"),
        ({"datasets": ["Digit"]}, "did you mean 'Digits'"),
        ({"values": {"b0.layer.lr": "7"}, "presets": [small.CNN]}, r"no run with '7'\nlegal: 0.05 0.1"),
        ({"values": {"b0.layer.lrr": "7"}}, r"no run has a value at 'b0.layer.lrr' \(did you mean 'b0.layer.lr'\?\)"),
    ],
)
def test_nothing_chosen_is_an_error(home: Path, chosen: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        runs.select(runs.read([home]).runs, **chosen)  # type: ignore[arg-type]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        runs.read([tmp_path])
    with pytest.raises(ConfigError, match="is not a folder"):
        runs.read([tmp_path / "nothere"])


def test_frame(home: Path) -> None:
    """A column for each path in which the runs differ; the seed has one of its own."""
    sweep = [run for run in runs.read([home]).runs if run.search == "rates"]
    frame = runs.frame(sweep, ["test_acc"])
    assert list(frame.columns) == [*runs.COLUMNS[:-1], "b0.layer.lr", "test_acc", "seconds"]
    by_hand = {
        (path.parent.name, json.loads(path.read_text())["metrics"]["test_acc"])
        for path in (home / "hebb" / "search").rglob("result.json")
    }
    assert set(zip(frame["run"], frame["test_acc"], strict=True)) == by_hand


@settings(max_examples=60, deadline=None)
@given(random_runs())
def test_values_are_the_inverse_of_overrides(config: RunConfig) -> None:
    """Every value, set to what it is, changes nothing; and no part of the config is without a path."""
    values = overrides.values(config)
    assert overrides.apply(config, values, catalog.load()) == config
    for name in ("seed", "split_seed", "dataset_sup.epochs", "stop.patience", "b0.method", "b0.pool"):
        assert name in values


def test_shared_values() -> None:
    config = small.config(small.DEEP)
    values = overrides.values(config)
    assert overrides.value_at(values, "b*.layer.adaptive") == overrides.value_at(values, "b1.layer.adaptive")
    assert overrides.value_at(values, "b-1.method") == "BP"
    for path in ("b*.layer.lr", "b*.method", "b7.method", "b0.layer.lrr"):  # 0.08 and 0.005, SoftKrotov and Soft
        with pytest.raises(KeyError):
            overrides.value_at(values, path)
