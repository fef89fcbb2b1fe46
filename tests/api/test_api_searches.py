"""``hebb.search`` on the real Ray: the numbers of the command, the runs of ``hebb.train``, and no folder left behind.

Without it a search from Python could compare other runs than the ones it says.
"""

from __future__ import annotations

import math
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Command

import hebb
from hebb.data.sources import digits
from hebb.storage.folders import Home
from hebb.tuning import search_folder
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings

pytestmark = pytest.mark.ray

PRESET = "SoftKrotov-c8-k3-p1-t1-lr0.05:bn:triangle:max_2_2_0 BP:flatten"
SPACE = {"b0.layer.lr": {"grid": [0.01, 0.1]}}


class _AskedError(Exception):
    """Ends a search before its trials begin."""


def asked(monkeypatch: pytest.MonkeyPatch, home: Path, **arguments: Any) -> Search:
    """Return the search that arguments ask for; nothing is trained."""
    from hebb.tuning import stages

    searches: list[Search] = []

    def run(search: Search, *_: object, **__: object) -> None:
        searches.append(search)
        raise _AskedError

    monkeypatch.setattr(stages, "run", run)
    with pytest.raises(_AskedError):
        hebb.search(PRESET, **{"data": "Digits", "data_dir": home, "threads": 1, **arguments})
    return searches[0]


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, ...]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEBB_HOME", raising=False)
    (x, y), (x_test, y_test) = digits(True), digits(False)
    return x[:150], y[:150], x_test[:50], y_test[:50]


def search(data: Any, **more: Any) -> hebb.FinishedSearch:
    return hebb.search(
        PRESET, **{"data": data, "space": SPACE, "seeds": range(2), "epochs": 1, "threads": 1, "workers": 1, **more}
    )


@pytest.mark.usefixtures("one_ray")
def test_a_run_of_a_search_is_that_run_alone(arrays: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    """Every trial by itself has the same accuracy; mean and deviation by hand; nothing is left on disk."""
    with search(arrays) as found:
        folder = found.folder
        scores = {}
        for run in found.runs:
            rate = run.config.network.blocks[0].layer.lr
            alone = hebb.train(
                PRESET, data=arrays, epochs=1, threads=1, seed=run.config.seed, overrides={"b0.layer.lr": rate}
            )
            assert run.test_accuracy == alone.test_accuracy
            scores.setdefault(rate, []).append(alone.test_accuracy)
        table = found.table().set_index("configuration")
        for rate, values in scores.items():
            line = table.loc[f"b0.layer.lr={rate:g}"]
            assert (line["n"], line["mean"]) == (2, pytest.approx(np.mean(values)))
            assert line["sd"] == pytest.approx(np.std(values, ddof=1))
            assert line["b0.layer.lr"] == rate
        best = max(scores, key=lambda rate: np.mean(scores[rate]))
        assert found.best.mean == pytest.approx(np.mean(scores[best]))
        assert found.metric == "test_acc"
        rates = [run.config.network.blocks[0].layer.lr for run in found.runs]
        assert list(found.results["b0.layer.lr"]) == rates == [0.01, 0.01, 0.1, 0.1]
        page = found.report(tmp_path / "page.html")
        assert "<html" in page.read_text()
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "page.html"] in ([], ["hebb_data"])


@pytest.mark.usefixtures("one_ray")
def test_a_search_leaves_the_signals_of_the_process_alone(arrays: tuple[np.ndarray, ...]) -> None:
    """Ray Tune leaves a handler that takes the next Ctrl-C for its own; one in a thread has no say in signals."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    search(arrays).close()
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(search, arrays).result()
    assert len(found.runs) == 4
    found.close()


@pytest.mark.usefixtures("one_ray")
def test_python_gives_the_numbers_of_the_command(command: Command, tmp_path: Path) -> None:
    flags = ("--preset", PRESET, "--dataset", "Digits", "--threads", "1", "--gpu-id", "cpu", "--seeds", "0", "1")
    small = ("dataset_sup.samples=200", "dataset_unsup.samples=200")
    space = ("--space", "b0.layer.lr={loguniform: [0.01, 0.1]}", "--algorithm", "optuna", "--num-samples", "2")
    space = (*space, "--sampler", "gp")
    done = command("ray_search.py", *flags, *space, "--folder-name", "s", "--workers", "1", "--set", *small)
    assert done.returncode == 0, done.stderr
    stored = pd.read_csv(tmp_path / "home" / "hebb" / "search" / "s" / "results.csv").sort_values("trial")
    found = hebb.search(
        PRESET,
        data="Digits",
        space={"b0.layer.lr": {"loguniform": [0.01, 0.1]}},
        algorithm="optuna",
        sampler="gp",
        num_samples=2,
        seeds=(0, 1),
        threads=1,
        workers=1,
        device="cpu",
        overrides={"dataset_sup.samples": 200, "dataset_unsup.samples": 200},
        data_dir=tmp_path / "home",
        folder=tmp_path / "p",
    )
    ours = found.results.sort_values("trial")  # two trials run at once, and either may be the first
    assert list(ours["trial"]) == list(stored["trial"])
    np.testing.assert_allclose(ours["test_acc"], stored["test_acc"], rtol=1e-12)
    loaded = hebb.load(tmp_path / "p")
    pd.testing.assert_frame_equal(loaded.table(), found.table())
    assert loaded.best == found.best
    assert loaded.best.run.metrics == found.best.run.metrics
    assert {run.folder for run in loaded.runs if run.folder and (run.folder / "checkpoint").exists()} == {
        run.folder for run in loaded.runs if run.config.network == loaded.best.run.config.network
    }
    with pytest.raises(hebb.ConfigError, match="holds a search already"):
        search("Digits", folder=tmp_path / "p")
    with pytest.raises(hebb.ConfigError, match=r"carry_on: .*holds another search"):
        search("Digits", folder=tmp_path / "p", carry_on=True)


@pytest.mark.usefixtures("one_ray")
def test_a_search_is_continued_in_its_folder(arrays: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    """What is missing is trained again, to the same numbers; models are kept where that is asked for."""
    first = search(arrays, folder=tmp_path / "s", save_models=True)
    before, trial = first.results, first.runs[1].folder
    assert trial is not None
    (trial / "result.json").unlink()
    again = search(arrays, folder=tmp_path / "s", save_models=True, carry_on=True)
    timed = ["minutes"]
    pd.testing.assert_frame_equal(again.results.drop(columns=timed), before.drop(columns=timed))
    assert again.runs[0].predict(arrays[2]).shape == (50,)
    assert not math.isnan(again.best.sd)


@pytest.mark.usefixtures("one_ray")
def test_a_search_that_selects_names_a_winner(arrays: tuple[np.ndarray, ...]) -> None:
    with search(arrays, purpose="search", final_seeds=1, validation=0.25) as found:
        assert found.metric == "val_acc"
        assert len(list(found.folder.glob("final.csv"))) == 1
        assert found.best.values["b0.layer.lr"] in (0.01, 0.1)
        assert found.best.run.predict(arrays[2]).shape == (50,)
        lr = found.best.values["b0.layer.lr"]
        other = next(run for run in found.runs if run.config.network.blocks[0].layer.lr != lr)
        with pytest.raises(hebb.ConfigError, match="keeps no model"):
            other.predict(arrays[2])
        (last,) = found.folder.glob("trials/final-*")
        assert hebb.load(last).network[0].weight.shape == found.best.run.network[0].weight.shape


@pytest.mark.parametrize(
    ("arguments", "seeds"), [({}, (0, 1, 2)), ({"seeds": [4]}, (4,)), ({"seeds": range(2)}, (0, 1))]
)
def test_seeds_are_those_of_the_search_config_unless_they_are_given(
    arguments: dict[str, Any], seeds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``--config radius`` lists seeds 0 1 2, and so does ``config="radius"``."""
    assert asked(monkeypatch, tmp_path, config="radius", **arguments).seeds == seeds


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Return the arguments of a search that its folder holds; none of its trials has begun."""
    space = {"b0.layer.radius": {"geometric": {"base": 2, "from": 0, "to": 2}}}
    arguments = {
        "folder": tmp_path / "s",
        "space": space,
        "seeds": [0, 1],
        "purpose": "search",
        "final_seeds": 1,
        "validation": 0.2,
    }
    search_folder.claim(asked(monkeypatch, tmp_path, **arguments), SearchSettings(home=Home(tmp_path)))
    return {**arguments, "carry_on": True}


def test_a_geometric_domain_is_carried_on(
    begun: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its folder has the values that it lists."""
    assert len(asked(monkeypatch, tmp_path, **begun).trials) == 3 * 2


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"final_seeds": 2}, "final_seeds [2] is [2, 3]"),
        ({"seeds": [0, 1, 2]}, "seeds [0, 1] is [0, 1, 2], final_seeds [2] is [3]"),
        ({"space": {"b0.layer.radius": {"grid": [1, 2, 5]}}}, "space b0.layer.radius {'grid': [1.0, 2.0, 4.0]} is"),
        ({"overrides": {"b0.layer.lr": 0.3}}, "another search: b0.layer.lr 0.05 is 0.3\n"),
        ({"threads": 2}, "another search: threads 1 is 2\n"),
        ({"metric": "val_loss"}, "another search: metric val_acc (max) is val_loss (min)\n"),
    ],
)
def test_what_is_carried_on_is_the_same_search(
    changes: dict[str, Any], difference: str, begun: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The refusal says what differs."""
    with pytest.raises(hebb.ConfigError, match=f"carry_on: .* holds .*{re.escape(difference)}"):
        asked(monkeypatch, tmp_path, **{**begun, **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"b9.layer.lr": {"grid": [1, 2]}}}, "b9"),
        ({"space": {"b0.layer.lr": 3}}, "b0.layer.lr"),
        ({"algorithm": "bayes"}, "unknown 'bayes'|algorithm"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
        ({"overrides": {"b0.layer.lr": 0.3}}, "b0.layer.lr: is what the space varies, so its value would do nothing"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"config": "nope"}, "unknown search config 'nope'"),
        ({"carry_on": True, "data": (np.zeros((2, 4, 4)), [0])}, "data, y: must be 2 labels"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(hebb.ConfigError, match=message):
        search(**{"data": "Digits", **arguments})
