"""What suggests the points of a search: settings that we name, whatever the library's own defaults are.

The points come from the real searchers, without Ray's loop; a warning is an error here.

Without it an upgrade of Optuna would search otherwise in silence, and a sampler would be tried on no space that it
cannot model.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import small

from hebb.config import search_space
from hebb.config.search_space import SearchSpec
from hebb.config.vocabulary import Goal, Sampler
from hebb.core import extras
from hebb.core.errors import ConfigError
from hebb.core.seeds import derive
from hebb.storage import folders
from hebb.tuning import samplers, search_folder, search_notes, searchers
from hebb.tuning.search import Search
from hebb.tuning.search_settings import SearchSettings
from hebb.tuning.suggestions import Parameters, choice_of

# isort: split
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

NUMBERS = {"u": {"uniform": [0, 1]}, "l": {"loguniform": [0.01, 1]}, "q": {"quniform": [0, 1, 0.25]}}
SPACES: dict[str, dict[str, Any]] = {
    "numbers": {**NUMBERS, "r": {"randint": [0, 3]}},
    "one": {"u": {"uniform": [0, 1]}},
    "lists": {"g": {"grid": [0.2, 0.4]}, "c": {"choice": ["a"]}, "j": {"joint": [{"a": 1}, {"a": 2}]}, **NUMBERS},
    "conditions": {"c": {"choice": ["a", "b"]}, **NUMBERS, "w": {"uniform": [0, 1], "when": {"c": "a"}}},
}
NOT_MODELLED = {("gp", "conditions"), ("cmaes", "conditions"), ("nsga2", "conditions"), ("cmaes", "lists")}
PAIRS = [(sampler, space) for sampler in Sampler for space in SPACES]


def spec_of(space: str, sampler: str | None = None, *, samples: int = 20, **more: Any) -> SearchSpec:
    chosen = {} if sampler is None else {"sampler": sampler}
    plan = {"algorithm": "optuna", "samples": samples, **chosen, **more.pop("search", {})}
    return search_space.parse({"space": SPACES[space], "search": plan, **more}, "mine", "mine.yaml")


def searcher(spec: SearchSpec, earlier: list[Parameters] | None = None) -> Searcher:
    search = Search(
        spec=spec, base=small.config(), seeds=(0,), metric="test_loss", mode=Goal.MIN, folder=Path("nowhere")
    )
    return searchers.of_search(search, earlier or [])


def suggested(made: Searcher, count: int, failing: int = -1) -> list[Parameters]:
    """What a searcher suggests while less is better, the sum of squares; the point ``failing`` has no loss."""
    points: list[Parameters] = []
    for i in range(count):
        point = made.suggest(str(i))
        assert isinstance(point, dict)
        points.append(point)
        score = 1e9 if i == failing else loss(point)
        made.on_trial_result(str(i), {"score": score, "training_iteration": 1})
        made.on_trial_complete(str(i), {"score": score})
    return points


def loss(point: Parameters) -> float:
    return sum(value**2 for value in point.values())


@pytest.mark.parametrize(("sampler", "space"), PAIRS)
def test_every_sampler_on_every_kind_of_space(sampler: str, space: str) -> None:
    """It gives points of the space, the same again, and others for another seed; or it is refused."""
    if (sampler, space) in NOT_MODELLED:
        problem = "models numbers alone, and g is" if space == "lists" else "does not model w, which"
        with pytest.raises(ConfigError, match=f"mine.yaml, search, sampler: {sampler} {problem}"):
            spec_of(space, sampler)
        return
    if sampler == Sampler.CMAES:
        pytest.importorskip("cmaes", reason="the extra 'test' installs it")
    spec = spec_of(space, sampler)
    count = {Sampler.GP: 12, Sampler.NSGA2: 60}.get(Sampler(sampler), 14)
    points = suggested(searcher(spec), count)
    for point in points:
        choice = choice_of(spec.axes, point)
        for axis in spec.axes:
            assert axis.active(choice) == (axis.name in point)
            if axis.count():
                assert 0 <= point[axis.name] < axis.count()
            elif axis.name in point:
                assert axis.low <= point[axis.name] <= axis.high
    assert suggested(searcher(spec), count) == points
    other = spec_of(space, sampler, search={"seed": 1})
    assert suggested(searcher(other), 3) != points[:3]


@pytest.mark.parametrize("space", SPACES)
def test_points_of_searches_that_name_no_sampler_stay_the_same(space: str) -> None:
    """Those that Ray's own TPE suggests, with Optuna 5; before that Ray's own models each domain by itself."""
    spec = spec_of(space)
    assert spec.plan.sampler == Sampler.TPE
    seed = derive(0, "searcher", epoch=0) % 2**32
    ray = OptunaSearch(searchers.Space(spec.axes), metric="score", mode="min", seed=seed)
    equal = suggested(searcher(spec), 25, failing=4) == suggested(ray, 25, failing=4)
    assert equal or int((extras.version("optuna") or "").partition(".")[0]) < 5


@pytest.mark.parametrize(("sampler", "space"), [pair for pair in PAIRS if pair not in NOT_MODELLED])
def test_a_search_goes_on_as_if_it_had_not_been_interrupted(sampler: str, space: str) -> None:
    """It suggests what it has suggested, then the points of an uninterrupted one, also after two breaks."""
    if sampler == Sampler.CMAES:
        pytest.importorskip("cmaes", reason="the extra 'test' installs it")
    spec = spec_of(space, sampler)
    count = {Sampler.GP: 13, Sampler.NSGA2: 56}.get(Sampler(sampler), 15)
    whole = suggested(searcher(spec), count)
    for cut in (3, count - 2):
        assert suggested(searcher(spec, whole[:cut]), count) == whole


@pytest.mark.parametrize("space", ["numbers", "conditions"])
def test_hyperopt_goes_on_as_if_it_had_not_been_interrupted(space: str) -> None:
    data = {"space": SPACES[space], "search": {"algorithm": "hyperopt", "samples": 14}}
    spec = search_space.parse(data, "mine", "mine.yaml")
    whole = suggested(searcher(spec), 14)
    for cut in (3, 12):
        assert suggested(searcher(spec, whole[:cut]), 14) == whole


def test_a_process_finds_the_best_beside_a_failure() -> None:
    """Of 20 random points on the unit square one lies in a quarter of a disc of area 1/20, x^2 + y^2 < 0.064."""
    space = {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}
    data = {"space": space, "search": {"algorithm": "optuna", "sampler": "gp"}}
    made = searcher(search_space.parse(data, "mine", "mine.yaml"))
    points = suggested(made, 20, failing=3)
    assert min(map(loss, points[10:])) < 0.01
    assert pickle.loads(pickle.dumps(made.__dict__))  # Ray stores its searchers
    assert [made._ot_study.trials[3].value, made._ot_study.trials[4].value] == [math.inf, loss(points[4])]


def test_a_single_domain_needs_an_optuna_that_can_adapt_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers.extras, "require", lambda *_, **__: None)
    for version, refused in (("4.0.0", True), ("4.4.1", True), ("4.5.0", False), ("5.0.0", False), ("4.10.0", False)):
        monkeypatch.setattr(samplers.extras, "version", lambda _, version=version: version)
        samplers.check_installed(spec_of("numbers", "cmaes"))
        if refused:
            with pytest.raises(ConfigError, match=rf"sampler cmaes: needs Optuna 4.5 .* got {version}"):
                samplers.check_installed(spec_of("one", "cmaes"))
        else:
            samplers.check_installed(spec_of("one", "cmaes"))


# -- what a search keeps, and says ----------------------------------------------------------------------------


def search_of(spec: SearchSpec, folder: Path, metric: str = "test_acc") -> Search:
    return Search(spec=spec, base=small.config(), seeds=(0,), metric=metric, mode=Goal.MAX, folder=folder)


def written(search: Search) -> dict[str, Any]:
    search_folder.write(search, SearchSettings(home=folders.Home(search.folder)))
    data = folders.read_json(search.folder / folders.SEARCH)
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize("sampler", Sampler)
def test_a_search_keeps_what_suggested_its_points(sampler: str, tmp_path: Path) -> None:
    data = written(search_of(spec_of("numbers", sampler), tmp_path))
    assert data["spec"]["search"]["sampler"] == sampler
    settings = samplers.SETTINGS[Sampler(sampler)]
    kept = {"library": "optuna", "version": extras.version("optuna"), "sampler": sampler, "settings": settings}
    assert data["searcher"] == kept
    assert written(search_of(spec_of("numbers", sampler), tmp_path))["searcher"] == kept  # gone on with


def test_a_search_says_when_another_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once; then the versions are the same. What every session used is kept."""
    search = search_of(spec_of("numbers", samples=30, purpose="search"), tmp_path, metric="val_acc")
    monkeypatch.setattr(samplers.extras, "version", lambda _: "4.9.0")
    written(search)
    assert search_notes.of(search, fresh=False) == []
    monkeypatch.setattr(samplers.extras, "version", lambda _: "5.0.0")
    assert search_notes.of(search, fresh=True) == []
    (note,) = search_notes.of(search, fresh=False)
    assert note.startswith("note: the search goes on with Optuna 5.0.0, and was begun with 4.9.0: ")
    kept = written(search)["searcher"]
    assert (kept["version"], [session["version"] for session in kept["continued"]]) == ("4.9.0", ["5.0.0"])
    assert search_notes.of(search, fresh=False) == []
    monkeypatch.setitem(samplers.SETTINGS, Sampler.TPE, {"group": True})
    (note,) = search_notes.of(search, fresh=False)
    assert note.startswith("note: the search goes on with other settings of its sampler: group=True, before multi")


def test_a_search_older_than_the_record_goes_on(tmp_path: Path) -> None:
    """It is TPE's, and does not pretend to know with what it was begun."""
    search = search_of(spec_of("numbers", samples=30, purpose="search"), tmp_path, metric="val_acc")
    data = written(search)
    del data["searcher"], data["spec"]["search"]["sampler"]
    folders.write_json(tmp_path / folders.SEARCH, data)
    assert search_space.parse(data["spec"], "mine", "search.json").plan == search.spec.plan
    (note,) = search_notes.of(search, fresh=False)
    assert note.endswith("and does not say which version it was begun with")
    kept = written(search)["searcher"]
    assert (kept["version"], kept["continued"][0]["version"]) == (None, extras.version("optuna"))
    assert search_notes.of(search, fresh=False) == []


STEERED, RANDOM = "is steered by the test accuracy", "at random"
NOTES = [
    ("sweep", "test_acc", {}, [STEERED]),
    ("sweep", "test_loss", {"algorithm": "hyperopt"}, [STEERED]),
    ("sweep", "test_acc", {"samples": 10}, [STEERED, RANDOM]),
    ("sweep", "val_acc", {}, []),
    ("sweep", "convergence", {}, []),
    ("sweep", "test_acc", {"algorithm": "random", "samples": 3}, []),
    ("sweep", "test_acc", {"sampler": "random", "samples": 3}, []),
    ("search", "val_acc", {}, []),
    ("search", "val_acc", {"sampler": "nsga2", "samples": 50}, [RANDOM]),
    ("search", "val_acc", {"sampler": "nsga2", "samples": 51}, []),
    ("search", "val_acc", {"sampler": "gp", "samples": 5}, [RANDOM]),
    ("search", "val_acc", {"sampler": "cmaes", "samples": 2}, []),
    ("search", "val_acc", {"algorithm": "hyperopt", "samples": 10}, [RANDOM]),
]


@pytest.mark.parametrize(("purpose", "metric", "plan", "parts"), NOTES)
def test_what_a_user_should_know_first(
    purpose: str, metric: str, plan: dict[str, Any], parts: list[str], tmp_path: Path
) -> None:
    search = search_of(spec_of("numbers", purpose=purpose, search=plan), tmp_path, metric)
    notes = search_notes.of(search, fresh=True)
    assert len(notes) == len(parts)
    for note, part in zip(notes, parts, strict=True):
        assert note.startswith("note: ")
        assert part in note
