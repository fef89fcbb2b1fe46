"""A search that begins with what earlier ones measured, one that starts from a winner, and one whose study is kept.

Without it a model could learn of runs that are not those of its search, count a point twice after a restore, or a
dashboard show every point twice. Runs are stored as they end and not trained; one real search is in the slow tests.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import small

from hebb.api.searches import FinishedSearch
from hebb.cli import search as search_command
from hebb.cli import search_flags, train, train_flags
from hebb.config import catalog, search_space
from hebb.core.errors import ConfigError, HebbError
from hebb.storage import folders
from hebb.storage.journal import Event, Journal
from hebb.tuning import (
    driver,
    front,
    optuna_search,
    results,
    search_folder,
    search_notes,
    searchers,
    studies,
    warm_start,
    winners,
    work,
)
from hebb.tuning.observer import SearchObserver
from hebb.tuning.request import SearchRequest
from hebb.tuning.search import EarlierPoint, Search, WarmStart
from hebb.tuning.search_settings import SearchSettings
from hebb.tuning.suggestions import Parameters

CATALOG = catalog.load()
LR, WIDTH, T = "b0.layer.lr", "b0.layer.out_channels", "b0.layer.t_invert"
RATES = [0.01, 0.02, 0.05, 0.1]
OPTUNA = {"algorithm": "optuna", "samples": 4}
LOG = {"loguniform": [0.005, 0.5]}


def asked(folder: Path, space: dict[str, Any], *changes: str, network: str = small.CNN, **data: Any) -> Search:
    spec = search_space.parse({"space": space, "seeds": [0, 1], **data}, "mine", "mine.yaml")
    return SearchRequest(base=small.config(network, *changes), spec=spec, folder=folder).resolve(CATALOG)


def store(search: Search, accuracies: dict[int, list[float | None]]) -> None:
    """Store a search whose configurations, by their place, ended with these accuracies on seeds 0, 1, ..."""
    search_folder.claim(search, SearchSettings(home=folders.Home(search.folder.parents[2])))
    for i, trial in enumerate(search.trials):
        values = accuracies.get(i // len(search.seeds), [])
        if trial.config.seed < len(values):
            trial.folder.mkdir(parents=True)
            folders.write_json(trial.folder / folders.CONFIG, {})
            (trial.folder / folders.METRICS).write_text("")
            row = dict.fromkeys(results.METRIC_COLUMNS) | {"test_acc": values[trial.config.seed]}
            folders.write_json(trial.folder / folders.RESULT, {"metrics": row, "seconds": 2.0})


@pytest.fixture
def home(tmp_path: Path) -> folders.Home:
    """Four rates on two seeds: 60 and 62 %, 70 and 74 %, one seed alone, and a failure."""
    home = folders.Home(tmp_path)
    early = asked(home.search("early"), {LR: {"grid": RATES}})
    store(early, {0: [60.0, 62.0], 1: [70.0, 74.0], 2: [80.0]})
    Journal(early.folder / folders.JOURNAL).note(Event.FAILED, early.trials[6].name, reason="NaN", again=False)
    return home


def warmed(home: folders.Home, space: dict[str, Any], *changes: str, **data: Any) -> Search:
    plan = {**OPTUNA, "warm_start": ["early"], **data.pop("search", {})}
    search = asked(home.search("new"), space, *changes, search=plan, **data)
    return warm_start.begun(search, home, CATALOG)


T_OF_BASE = 1.0
TAKEN: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({LR: LOG}, [{LR: 0.01}, {LR: 0.02}]),
    ({LR: {"loguniform": [0.015, 0.5]}}, [{LR: 0.02}]),
    ({LR: {"choice": [0.02, 0.3]}}, [{LR: 0.02}]),
    ({LR: {"quniform": [0.01, 0.1, 0.01]}}, [{LR: 0.01}, {LR: 0.02}]),
    ({LR: {"quniform": [0.015, 0.1, 0.005]}}, [{LR: 0.02}]),
    ({LR: LOG, T: {"uniform": [0.5, 2]}}, [{LR: 0.01, T: T_OF_BASE}, {LR: 0.02, T: T_OF_BASE}]),
    ({LR: LOG, WIDTH: {"randint": [8, 9]}}, [{LR: 0.01, WIDTH: 8}, {LR: 0.02, WIDTH: 8}]),
    ({"both": {"joint": [{LR: 0.01, T: 1.0}, {LR: 0.02, T: 2.0}]}}, [{LR: 0.01, T: 1.0}]),
    ({WIDTH: {"choice": [8, 12]}, LR: {**LOG, "when": {WIDTH: 8}}}, [{WIDTH: 8, LR: 0.01}, {WIDTH: 8, LR: 0.02}]),
    ({"b*.layer.lr": LOG}, [{"b*.layer.lr": 0.01}, {"b*.layer.lr": 0.02}]),
]


@pytest.mark.parametrize(("space", "points"), TAKEN, ids=str)
def test_points_are_those_that_the_new_search_would_train(
    home: folders.Home, space: dict[str, Any], points: list[dict[str, Any]]
) -> None:
    warm = warmed(home, space).warm
    assert [point.choice for point in warm.points] == points
    assert {point.values["test_acc"] for point in warm.points} <= {61.0, 72.0}
    assert len(warm.points) + len(warm.left_out) == len(RATES)
    assert warm.left_out[f"early: {LR}=0.05"] == "is finished on 1 of 2 seeds"
    assert warm.left_out[f"early: {LR}=0.1"] == "failed"


REASONS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({LR: {"loguniform": [0.015, 0.5]}}, (), f"{LR}=0.01 is outside 0.015 to 0.5"),
    ({LR: {"choice": [0.02, 0.3]}}, (), f"{LR}=0.01 is not among the values here"),
    ({LR: {"quniform": [0.005, 0.1, 0.015]}}, (), f"{LR}=0.01 is between two steps"),
    ({LR: LOG, WIDTH: {"randint": [9, 12]}}, (), f"{WIDTH}=8 is outside 9 to 12"),
    ({LR: LOG, WIDTH: {"randint": [4, 8]}}, (), f"{WIDTH}=8 is outside 4 to 8"),
    ({LR: LOG, "b0.preset": {"choice": ["Soft-c8-k3-p1"]}}, (), "b0.preset is not set there"),
    ({T: {"uniform": [0.5, 2]}}, (), f"{LR} is 0.01, here 0.08"),
    ({LR: LOG}, ("dataset_sup.epochs=2",), "dataset_sup.epochs is 1, here 2"),
    ({LR: LOG}, ("dataset_sup.epochs=2", "classifier.lr=0.5", f"{WIDTH}=4"), " and 1 more"),
    ({WIDTH: {"choice": [8, 12]}, LR: {**LOG, "when": {WIDTH: 12}}}, (), f"{LR} is 0.01, here 0.08"),
]


@pytest.mark.parametrize(("space", "changes", "reason"), REASONS, ids=str)
def test_what_does_not_fit_is_left_out_by_name(
    home: folders.Home, space: dict[str, Any], changes: tuple[str, ...], reason: str
) -> None:
    try:
        text = "\n".join(search_notes.of(warmed(home, space, *changes), fresh=True))
    except ConfigError as error:
        text = str(error)
        assert text.startswith("--warm-start: nothing of early fits this search: early: ")
    assert f"early: {LR}=0.01: " in text and reason in text


def test_what_changes_no_number_does_not_matter(home: folders.Home) -> None:
    """Another way to compute, other seeds, and the readouts at the end."""
    search = asked(
        home.search("new"), {LR: LOG}, "curve_points=0", seeds=[5], search={**OPTUNA, "warm_start": ["early"]}
    )
    assert len(warm_start.begun(search, home, CATALOG).warm.points) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "--warm-start: no such folder"),
        ("late", "--warm-start: no configuration of late is finished on every seed"),
    ],
)
def test_a_search_without_results_is_refused(home: folders.Home, name: str, message: str) -> None:
    store(asked(home.search("late"), {LR: {"grid": RATES}}), {0: [1.0]})
    with pytest.raises(ConfigError, match=message):
        warmed(home, {LR: LOG}, search={"warm_start": name})


@pytest.mark.parametrize("plan", [{"algorithm": "random"}, {"algorithm": "hyperopt"}, {"sampler": "random"}])
def test_what_does_not_learn_refuses_a_warm_start(home: folders.Home, plan: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="warm_start: needs a"):
        warmed(home, {LR: LOG}, search=plan)


def values_of(trials: list[optuna.trial.FrozenTrial]) -> list[tuple[dict[str, Any], list[float]]]:
    return [(trial.params, trial.values) for trial in trials if trial.state.is_finished()]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2"])
def test_every_sampler_begins_with_the_points(home: folders.Home, sampler: str) -> None:
    """Once, also in a search that was restored from its folder alone."""
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    search = warmed(home, {LR: LOG, T: {"uniform": [0.5, 2]}}, search={"sampler": sampler})
    search_folder.claim(search, SearchSettings(home=home))
    again = search_folder.search_of(search_folder.read(search.folder), search.folder, CATALOG)
    assert (again.spec, again.warm) == (search.spec, search.warm)
    earlier = [{LR: 0.3, T: 0.7}]
    for form, repeated in ((search, []), (again, earlier)):
        model = searchers.of_search(form, repeated)
        known = model._ot_study.get_trials(deepcopy=False)  # type: ignore[attr-defined]
        assert values_of(known) == [({LR: 0.01, T: 1.0}, [61.0]), ({LR: 0.02, T: 1.0}, [72.0])]
        assert len(known) == 2
        first = model.suggest("0")
        assert first == earlier[0] if repeated else set(first or {}) == {LR, T}


@pytest.mark.filterwarnings("ignore")
def test_a_model_follows_what_it_begins_with(tmp_path: Path) -> None:
    """Twelve points say that small rates are best: the next ones are smaller than those of a cold model."""
    space = {LR: {"uniform": [0, 1]}}
    cold = asked(tmp_path, space, search=OPTUNA)
    points = tuple(
        EarlierPoint(search="early", choice={LR: (i + 0.5) / 12}, values={"test_acc": 100.0 - 8 * i}) for i in range(12)
    )
    means = []
    for warm in (WarmStart(), WarmStart(points=points)):
        model = searchers.of_search(Search(**{**vars(cold), "warm": warm}), [])
        means.append(sum(float((model.suggest(str(i)) or {})[LR]) for i in range(8)) / 8)
    assert means[1] < 0.6 * means[0]


def test_genetic_algorithms_breed_from_the_points(tmp_path: Path) -> None:
    """Fifty points are a whole generation, so the next one has parents."""
    names = (LR, T, "classifier.lr", "b1.dropout")  # a child keeps three of four values of its parents
    cold = asked(tmp_path, {name: {"uniform": [0.001, 0.9]} for name in names}, search={**OPTUNA, "sampler": "nsga2"})
    points = tuple(
        EarlierPoint(search="early", choice=dict.fromkeys(names, 0.1 + i / 1000), values={"test_acc": float(i)})
        for i in range(50)
    )
    model = searchers.of_search(Search(**{**vars(cold), "warm": WarmStart(points=points)}), [])
    children = [float(value) for i in range(10) for value in (model.suggest(str(i)) or {}).values()]
    assert sum(0.1 <= value < 0.15 for value in children) >= 20  # of 40; drawn at random they were two


def test_several_objectives_and_bounds_are_learned(home: folders.Home) -> None:
    search = warmed(
        home,
        {LR: LOG, WIDTH: {"choice": [8, 12]}},
        metric={"test_acc": "max", "seconds": "min"},
        constraints={"test_acc": ">= 65"},
    )
    model = searchers.of_search(search, [])
    trials = model._ot_study.get_trials(deepcopy=False)  # type: ignore[attr-defined]
    assert values_of(trials) == [({LR: 0.01, WIDTH: 0}, [61.0, 2.0]), ({LR: 0.02, WIDTH: 0}, [72.0, 2.0])]
    if hasattr(optuna.trial.FrozenTrial, "set_constraint"):
        assert [trial.constraints["test_acc >= 65"] > 0 for trial in trials] == [True, False]
    assert {trial.user_attrs["warm start"] for trial in trials} == {"early"}


def test_a_point_that_two_searches_measured_counts_once(home: folders.Home) -> None:
    store(asked(home.search("again"), {LR: {"grid": RATES[:2]}}), {0: [61.0, 61.0], 1: [72.0, 72.0]})
    warm = warmed(home, {LR: LOG}, search={"warm_start": ["early", "again"]}).warm
    assert [point.search for point in warm.points] == ["early", "early"]
    reasons = {reason for text, reason in warm.left_out.items() if text.startswith("again")}
    assert reasons == {"is the same point as one before it"}


def test_searches_of_before_have_no_new_keys(tmp_path: Path) -> None:
    cold = asked(tmp_path / "cold", {LR: LOG}, search=OPTUNA)
    search_folder.claim(cold, SearchSettings(home=folders.Home(tmp_path)))
    data = search_folder.read(cold.folder)
    assert "warm_start" not in data and "warm_start" not in data["spec"]["search"]


# -- the study is kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqlite:///nowhere/s.db", "there is no folder"),
        ("nowhere/s.log", "there is no folder"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("redis://h", "no study at a redis URL"),
        ("mine:s.db", "must be a URL or a file"),
        (".", "is a folder"),
        ("me:secret@host/x", "must be a URL or a file, and begins with 'me:'"),
        ("sqlite+pysqlite:///s.db", "must name a file"),
        ("SQLite:///s.db", "must name a file"),
        ("postgresql://me:secret@host/x", "must not hold a password"),
        ("postgresql://host/x?password=secret", "must not hold a password"),
        ("sqlite://me:secret@", "must not hold a password"),
    ],
)
def test_what_can_be_no_storage_is_refused(tmp_path: Path, text: str, message: str) -> None:
    search = asked(tmp_path, {LR: LOG}, search=OPTUNA)
    with pytest.raises(ConfigError, match=f"--storage: .*{message}") as error:
        studies.check(search, studies.absolute(text))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:se@cr/et@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me@corp:secret@host/x", "postgresql://me@corp:***@host/x"),
        ("mysql+pymysql://:secret@host", "mysql+pymysql://:***@host"),
        ("mysql://me@host/x?passwd=secret&a=b", "mysql://me@host/x?passwd=***&a=b"),
        ("postgresql://host/x?a=b&Password=se/c@ret", "postgresql://host/x?a=b&Password=***"),
        ("postgresql://host/x?sslpassword=secret", "postgresql://host/x?sslpassword=***"),
        *(
            (text, text)
            for text in ("postgresql://me@host:5432/x?a=b", "sqlite:////a/b@c.db", "a@b.log", "cannot reach h:1")
        ),
    ],
)
def test_a_password_is_never_shown(text: str, shown: str) -> None:
    assert studies.shown(text) == shown


def test_only_optuna_has_a_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--storage: keeps the study of algorithm optuna, .* by grid"):
        studies.check(asked(tmp_path, {LR: {"grid": [1]}}), "sqlite:///s.db")


def _no_database(path: Path) -> str:
    path.write_text("this is a text of more than a few words, and no database at all" * 20)
    return f"sqlite:///{path}"


def _locked(path: Path) -> str:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("create table x (y)")
    holder.execute("begin exclusive")
    _HELD.append(holder)
    return f"sqlite:///{path}?timeout=0.1"


_HELD: list[sqlite3.Connection] = []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_no_database, "file is not a database"),
        (_locked, "database is locked"),
        (lambda path: "nothing://me@host/x", "nothing"),
        (lambda path: "postgresql+nothing://me@host/x", "nothing"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path, broken: Callable[[Path], str], reason: str) -> None:
    search = asked(tmp_path / "s", {LR: LOG}, search=OPTUNA)
    with pytest.raises(ConfigError) as error:
        studies.of_search(search, broken(tmp_path / "s.db"))
    for holder in _HELD:
        holder.close()
    assert str(error.value).startswith("--storage: cannot keep a study in '") and reason in str(error.value)
    assert not search.folder.exists()


@pytest.mark.parametrize("form", ["sqlite:///{}/s.db", "{}/s.log"])
def test_a_study_is_readable_and_its_continuation_has_another_number(home: folders.Home, form: str) -> None:
    """Points, means, names, and what did not end; the second session repeats the first in a study of its own."""
    search, text = warmed(home, {LR: LOG}, seeds=[0, 1]), form.format(home.parent)
    maker = work.GroupMaker(search, CATALOG)
    earlier: list[Parameters] = []
    for _ in range(2):
        study = studies.of_search(search, text)
        assert optuna.get_all_study_names(studies._opened(text)) == ["new"] * bool(earlier)  # none before it is used
        model = searchers.of_search(search, earlier, study, work.Readable(maker))
        assert isinstance(model, optuna_search.QuietOptunaSearch)
        first, _ = [model.suggest(name) or {} for name in ("a", "b")]
        model.on_trial_complete("a", {"score": 55.0})
        model.close()
        earlier = earlier or [first]
    storage = studies._opened(text)
    assert sorted(optuna.get_all_study_names(storage)) == ["new", "new-2"]
    for name in ("new", "new-2"):
        kept = optuna.load_study(study_name=name, storage=storage)
        assert kept.metric_names == ["test_acc"] and kept.direction.name == "MAXIMIZE"
        trials = [trial for trial in kept.trials if "warm start" not in trial.user_attrs]
        assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL"] and len(kept.trials) == 4
        assert trials[0].params == earlier[0] and trials[0].value == 55.0
        assert trials[0].user_attrs["preset"].startswith("SoftKrotov-c8-k3")
        assert trials[0].user_attrs["configuration"].startswith(f"{LR}=")
    assert "'new-2'" in (study.note() if study else "")


class _Broken:
    """A study whose storage is away."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def add_trials(self, earlier: object) -> None:
        raise self.error


@pytest.mark.parametrize(("storage", "kind"), [(None, OSError), (optuna.storages.InMemoryStorage(), HebbError)])
def test_only_a_search_with_a_storage_blames_it(storage: Any, kind: type[Exception]) -> None:
    space = searchers.Space(())
    model = optuna_search.QuietOptunaSearch(space, metric="score", mode="max", storage=storage)
    model._ot_study = _Broken(OSError("no space left"))
    with pytest.raises(kind, match="no space left"):
        model.remember([])


class _Closing:
    def close(self) -> None:
        raise HebbError("--storage: the study can no longer be written")


def test_a_storage_that_fails_at_the_end_is_a_note() -> None:
    """The table, the winner and the report come after it."""
    lines: list[str] = []

    class Observer(SearchObserver):
        def noted(self, texts: Any) -> None:
            lines.extend(texts)

    with driver._closed(_Closing(), Observer()):
        pass
    assert lines == ["note: --storage: the study can no longer be written"]


# -- started from a winner -----------------------------------------------------------------------------------------


def named(home: folders.Home, name: str, record: dict[str, Any] | None, **more: Any) -> str:
    """Store the search of ``home`` under another name, as one that has named this winner."""
    data = search_folder.read(home.search("early"))
    folder = home.search(name)
    folder.mkdir()
    folders.write_json(folder / folders.SEARCH, {**data, "purpose": "search", **more})
    if record is not None:
        folders.write_json(folder / ("front.json" if "others" in more else "winner.json"), record)
    return name


WINNER = {
    "configuration": {LR: 0.02, "dataset_sup.epochs": 3},
    "network": "SoftKrotov-c8-k3-p1-lr0.02:bn:triangle_0.7:avg_2_2_0 BP:flatten",
    "among": 4,
    "selection": {"n": 2},
}
OTHERS = [{"metric": "seconds", "mode": "min"}]
FRONT = {"among": 4, "points": [{**WINNER, "number": 1}, {**WINNER, "number": 2, "configuration": {LR: 0.05}}]}


@pytest.mark.parametrize(
    ("record", "more", "tail", "message"),
    [
        (WINNER, {"purpose": "sweep"}, "", "x is a sweep, which names no winner"),
        (None, {}, "", "x has no winner: it has not ended"),
        (None, {"spec": {"constraints": ["train_acc <= 40"]}}, "", "on every seed and keeps train_acc <= 40"),
        ({**WINNER, "among": 3}, {}, "", "x was extended since it named its winner"),
        ({**WINNER, "selection": {"n": 1}}, {}, "", "x was extended since it named its winner"),
        (WINNER, {}, ":2", "x compares by one metric"),
        (FRONT, {"others": OTHERS}, "", "name a point of its front"),
        (FRONT, {"others": OTHERS}, ":3", "the front of x has no point 3\nlegal: x:1 x:2"),
        ({**FRONT, "points": []}, {"others": OTHERS}, ":1", "the front of x is empty"),
        ({**FRONT, "configurations": 3}, {"others": OTHERS}, ":1", "x was extended since it named its front"),
        ({**FRONT, "seeds": [0]}, {"others": OTHERS}, ":1", "x was extended since it named its front"),
        (None, {"others": OTHERS}, ":1", "x has no front: it has not ended"),
    ],
)
def test_what_has_no_winner_is_answered(
    home: folders.Home, record: dict[str, Any] | None, more: dict[str, Any], tail: str, message: str
) -> None:
    named(home, "x", record, **more)
    with pytest.raises(ConfigError) as error:
        winners.read(f"x{tail}", home)
    assert str(error.value).startswith("--from-best: ") and message in str(error.value)


def test_a_front_of_a_search_with_failures_is_complete(home: folders.Home) -> None:
    """Of its four configurations two are finished on every seed; no others are to come."""
    named(home, "front", {}, others=OTHERS)
    search = replace(asked(home.search("early"), {LR: {"grid": RATES}}), folder=home.search("front"))
    front.write(search, (), 2)
    record = folders.read_json(search.folder / "front.json")
    folders.write_json(search.folder / "front.json", {**record, "points": FRONT["points"]})
    assert winners.read("front:1", home).values == WINNER["configuration"]


def test_a_run_starts_from_a_winner(home: folders.Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Its network and its other changes, with the user's own on top; a point of a front by its number."""
    named(home, "best", WINNER)
    named(home, "front", FRONT, others=OTHERS)

    def run(*flags: str) -> Any:
        line = [*flags, "--data-dir", str(home.parent), "--dataset", "Digits"]
        return train.resolve(train.from_best.applied(train_flags.parser().parse(line), CATALOG), CATALOG)

    plain = run("--from-best", "best")
    assert plain.network.blocks[0].layer.lr == 0.02 and plain.dataset_sup.epochs == 3
    second = run("--from-best", "front:2")
    assert second.network.blocks[0].layer.lr == 0.02 and second.dataset_sup.epochs != 3
    capsys.readouterr()
    own = run("--from-best", "best", "--set", "dataset_sup.epochs=4", f"{LR}=0.03", "classifier.lr=0.1")
    assert own.network.blocks[0].layer.lr == 0.03 and own.dataset_sup.epochs == 4
    said = capsys.readouterr().out
    assert "--set dataset_sup.epochs=4 replaces its 3" in said and f"--set {LR}=0.03 replaces its 0.02" in said
    assert "classifier.lr" not in said
    other = run("--from-best", "best", "--preset", "2SoftHebbCnnDigits")
    assert other.network.name == "2SoftHebbCnnDigits" and other.dataset_sup.epochs == 3
    assert "--preset replaces its network, SoftKrotov-c8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "trained", "replaced"),
    [
        ("", ("sgd", 0.8, 0.25, 0.02), []),
        (
            "--set classifier.optimiser=adam",
            ("adam", 0.0, 0.25, 0.02),
            ["--set classifier.optimiser=adam replaces its sgd"],
        ),
        ("--set classifier.momentum=0.80", ("sgd", 0.8, 0.25, 0.02), []),
        ("--set stop.convergence=none", ("sgd", 0.8, 0.25, None), ["--set stop.convergence=none replaces its 0.02"]),
        ("--protocol krotov", ("sgd", 0.8, 0.25, 0.01), ["--protocol krotov replaces its stop.convergence=0.02"]),
        (
            "--protocol krotov_head --set classifier.lr=0.1",
            ("sgd", 0.9, 0.1, 0.02),
            [
                "--protocol krotov_head replaces its classifier.momentum=0.8",
                "--protocol krotov_head replaces its dataset_sup.epochs=3",
                "--set classifier.lr=0.1 replaces its 0.25",
            ],
        ),
    ],
)
def test_what_the_search_itself_set_comes_along(
    home: folders.Home,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    trained: tuple[str, float, float, float | None],
    replaced: list[str],
) -> None:
    """Optimiser and stopping rules, below the winner's own values, a protocol and what the user sets."""
    base = search_folder.read(home.search("early"))["base"]
    base["classifier"] |= {"optimiser": "sgd", "momentum": 0.8, "lr": 0.5}
    base["stop"] |= {"convergence": 0.02}
    choice = {LR: 0.02, "dataset_sup.epochs": 3, "classifier.lr": 0.25}
    named(home, "best", {**WINNER, "configuration": choice}, base=base)
    line = ["--from-best", "best", "--data-dir", str(home.parent), "--dataset", "Digits", *flags.split()]
    run = train.resolve(train.from_best.applied(train_flags.parser().parse(line), CATALOG), CATALOG)
    head = run.classifier
    assert (head.optimiser, head.momentum, head.lr, run.stop.convergence) == trained
    assert sorted(capsys.readouterr().out.splitlines()[1:]) == sorted(f"note: {text}" for text in replaced)


def test_python_has_what_the_search_itself_set(home: folders.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"dataset_sup.epochs": {"grid": [1, 2]}}
    store(asked(home.search("sgd"), space, "classifier.optimiser=sgd", "classifier.momentum=0.5"), {1: [60.0, 62.0]})
    monkeypatch.setattr(FinishedSearch, "_run", lambda search, trial: None)
    best = FinishedSearch(home.search("sgd"), home).best
    assert best.changes == {"classifier.optimiser": "sgd", "classifier.momentum": 0.5, "dataset_sup.epochs": 2}


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ([f"{LR}=0.020", "dataset_sup.epochs=3.0"], []),
        (["b*.layer.lr=0.02"], []),
        (["b*.layer.lr=0.2"], ["--set b*.layer.lr=0.2 replaces its 0.02"]),
        (["b*.layer.lr=0.2", f"{LR}=0.02"], []),
    ],
)
def test_what_is_replaced_is_said_by_value(
    home: folders.Home, capsys: pytest.CaptureFixture[str], changes: list[str], notes: list[str]
) -> None:
    named(home, "best", WINNER)
    line = ["--from-best", "best", "--data-dir", str(home.parent), "--set", *changes]
    train.from_best.applied(train_flags.parser().parse(line), CATALOG)
    assert capsys.readouterr().out.splitlines()[1:] == [f"note: {note}" for note in notes]


def test_a_search_starts_from_a_winner(home: folders.Home) -> None:
    """What the winner changed may be varied anew."""
    named(home, "best", WINNER)
    line = ["--from-best", "best", "--data-dir", str(home.parent), "--dataset", "Digits"]
    flags = search_flags.parser("").parse([*line, "--space", "dataset_sup.epochs={grid: [1, 2]}"])
    search = search_command.resolve(flags, CATALOG)
    assert search.base.network.blocks[0].layer.lr == 0.02
    assert [trial.config.dataset_sup.epochs for trial in search.trials[::4]] == [1, 2]


# -- the real thing ------------------------------------------------------------------------------------------------

NETWORK = "SoftKrotov-c6-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten"
LINE = ["--preset", NETWORK, "--dataset", "Digits_1", "--threads", "1", "--device", "cpu", "--workers", "1", "--seeds"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_real_search_begins_warm_is_restored_and_keeps_its_studies(
    one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search of two seeds, one warm that ends after a trial, and its continuation, which repeats that trial."""
    monkeypatch.setenv("HEBB_HOME", str(tmp_path))
    line = [*LINE, "0", "1", "--set", "dataset_sup.samples=150", "dataset_unsup.samples=100"]
    storage = f"sqlite:///{tmp_path}/s.db"
    early = ["--space", f"{LR}={{grid: [0.01, 0.1]}}", "--folder-name", "early"]
    assert search_command.main([*line, *early]) == 0
    capsys.readouterr()
    late = ["--algorithm", "optuna", "--num-samples", "2", "--warm-start", "early", "--folder-name", "late"]
    flags = ["--space", f"{LR}={{loguniform: [0.005, 0.05]}}", *late, "--max-trials", "1", "--storage", storage]
    assert search_command.main([*line, *flags]) == 0
    out = capsys.readouterr().out
    assert "the model begins with 1 of early" in out and "early: b0.layer.lr=0.1: b0.layer.lr=0.1 is outside" in out
    assert search_command.main(["--restore", "late", "--max-trials", "5", "--workers", "1"]) == 0
    assert f"the study is 'late-2' in {storage}" in capsys.readouterr().out
    first, second = (optuna.load_study(study_name=name, storage=storage).trials for name in ("late", "late-2"))
    assert (len(first), len(second)) == (2, 3)
    assert [t.params for t in first] == [t.params for t in second[:2]]
    assert [t.values for t in first] == [t.values for t in second[:2]]
    folder = folders.Home(tmp_path).search("late")
    rows = [json.loads(row) for row in (folder / folders.JOURNAL).read_text().splitlines()]
    assert [row["params"] for row in rows if row["event"] == "chosen"] == [t.params for t in second[1:]]
    assert len(search_folder.read(folder)["warm_start"]["points"]) == 1
