"""Recipes of the published figures: their commands against the published list, their errors, a real one on Digits.

Without it a recipe could draw a published figure from runs of another configuration.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import stored_runs
import yaml
from conftest import ROOT, Command

from hebb.analysis import recipes
from hebb.cli.analysis import command as analysis
from hebb.cli.analysis import recipes as figures
from hebb.config import catalog, plan, shapes
from hebb.config.registry import RULES
from hebb.config.rule import HebbianRule, LocalRule
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.storage import folders

KNOWN = catalog.load()
with open(ROOT / "tests" / "data" / "commands.csv", encoding="utf-8") as file:
    PUBLISHED = {tuple(shlex.split(row["command"])[1:]): row for row in csv.DictReader(file)}
every_recipe = pytest.mark.parametrize("name", recipes.names())
OWN = {"robustness": {4}, "rules": {8, 24}}
"""Recipes with commands of our own, and how many runs a command makes."""


IN_PIECES = ("--set", "dataset_sup.samples=2000", "dataset_sup.epochs=25")


def published(needed: recipes.TrainingCommand) -> dict[str, str]:
    """The row of the published command; B3B cuts its epoch into 25, under a name of its own."""
    words = tuple(word.removesuffix("_25") for word in needed.words)
    return PUBLISHED[needed.script, *(words[:-3] if words[-3:] == IN_PIECES else words)]


@pytest.mark.parametrize("name", sorted(set(recipes.names()) - set(OWN)))
def test_commands_are_the_published_ones(name: str) -> None:
    for needed in recipes.load(name).needed():
        assert published(needed)["stored"] == needed.name.removesuffix("_25")
        assert (needed.words[-3:] == IN_PIECES) == needed.name.endswith("_25") == (name == "B3B")


def test_an_epoch_in_pieces_is_as_many_updates() -> None:
    """50,000 images / 50 = 1,000 updates of the published epoch = 25 x 2,000 / 50."""
    for needed in recipes.load("B3B").needed():
        (run,) = figures._configs(needed, folders.Home(Path("nowhere")), KNOWN)
        assert [phase.updates for phase in plan.phases(run)] == [1000]
        assert published(needed)["phases"].endswith("x1000")


@every_recipe
def test_every_command_resolves_at_both_scales(name: str, tmp_path: Path) -> None:
    """As many runs as the table of commands says; the small scale is a tenth of the work, or less."""
    recipe, home = recipes.load(name), folders.Home(tmp_path)
    work = {}
    for scale in recipes.Scale:
        needed = recipe.needed(scale)
        assert len({n.name for n in needed}) == len(needed) > 0
        configs = {n: figures._configs(n, home, KNOWN) for n in needed}
        work[scale] = sum(phase.updates for trials in configs.values() for run in trials for phase in plan.phases(run))
        for n, trials in configs.items():
            if scale is recipes.Scale.FULL:
                assert len(trials) in (OWN[name] if name in OWN else {int(published(n)["trials"])})
            folder = home.search(n.name) if n.script == "ray_search.py" else home.network(n.name)
            expected = figures.TrainingStatus(n, folder, figures.Progress.ABSENT, len(trials), 0)
            assert figures.status_of(n, home, KNOWN) == expected
    assert work["small"] <= work["full"] / 10


def test_a_name_means_one_command() -> None:
    """Figures 1, 3 and 4 share searches, at the small scale too."""
    for scale in recipes.Scale:
        lines: dict[str, str] = {}
        for name in recipes.names():
            for needed in recipes.load(name).needed(scale):
                assert lines.setdefault(needed.name, needed.line()) == needed.line()


@every_recipe
def test_what_draws_it_is_there(name: str) -> None:
    """In every panel a verb of the command, with flags that it knows and published numbers that exist."""
    recipe = recipes.load(name)
    for verb, *flags in recipe.draw.values():
        options = analysis.parser(analysis.VERBS[verb]).parse(["runs", *flags])
        if getattr(options, "published", None):
            from hebb.analysis import published

            assert len(published.read(options.published))
        # a run that a panel names is one that the recipe trains
        assert set(options.runs) <= {"runs", *(needed.name for needed in recipe.needed())}
    for word in (recipe.title, recipe.question, recipe.source):
        assert len(word) > 5


# -- every unsupervised rule under one protocol -----------------------------------------------------------------

LEFT_OUT: dict[str, str] = {}
"""Unsupervised rules that the recipe ``rules`` does not train, each with the reason that trying it has shown."""


def of_rules() -> list[RunConfig]:
    """A run of each command of the recipe ``rules`` in which blocks learn."""
    home = folders.Home(Path("nowhere"))
    runs = [figures._configs(needed, home, KNOWN)[0] for needed in recipes.load("rules").needed()]
    return [run for run in runs if not run.training_blocks]


def unsupervised() -> set[str]:
    """Rules whose layers learn from images alone."""
    return {rule.name for rule in RULES.entries() if isinstance(rule, HebbianRule | LocalRule) and not rule.labels}


def test_every_unsupervised_rule_is_in_the_recipe_or_left_out_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {run.network.blocks[0].layer.method for run in of_rules()}
    assert trained.isdisjoint(LEFT_OUT)
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())
    assert unsupervised() == trained | set(LEFT_OUT)
    monkeypatch.setattr(RULES, "_entries", dict(RULES._entries))
    RULES.register(HebbianRule(name="Another", summary="a rule of tomorrow", source="here", signal=lambda u, *_: u))
    assert unsupervised() - trained - set(LEFT_OUT) == {"Another"}


@pytest.mark.parametrize("run", of_rules(), ids=lambda run: run.network.name)
def test_the_rules_of_the_recipe_share_a_network(run: RunConfig) -> None:
    """One rule in three convolutions of 96, 384 and 1536 filters, and the same classifier; published shapes stay."""
    *hidden, classifier = run.network.blocks
    assert len({block.layer.method for block in hidden}) == 1
    assert (classifier.layer.method, classifier.operations, classifier.dropout) == ("BP", ("flatten",), 0.5)
    wide = run.network.name == "4SPHeReCnnCIFAR"
    assert [block.layer.out_channels for block in hidden] == ([384, 768, 1536] if wide else [96, 384, 1536])
    assert [block.layer.kernel_size for block in hidden] == ([3, 3, 3] if wide else [5, 3, 3])
    features = shapes.of_run(run)[3].weights[1]
    assert features == (1536 * 2 * 2 if run.network.name == "4HardCnnCIFAR" else 1536 * 4 * 4)


GOOD: dict[str, Any] = {
    "title": "Own",
    "question": "what?",
    "source": "here",
    "draw": "table",
    "commands": [
        f"multi_layer.py --preset 'Soft-c4-k3:bn:triangle:max_4_4_0 BP:flatten' --dataset Digits_1 --threads 1 "
        f"--set dataset_sup.samples=40 dataset_unsup.samples=40 --seed {seed} --model-name s{seed}"
        for seed in (0, 1)
    ],
    "small": {"add": "--set dataset_sup.epochs=1", "leave": ["s1"]},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"titel": "x"}, "unknown key 'titel' (did you mean 'title'?)"),
    "unknown key of small": ({"small": {"ad": "--seeds 0"}}, "unknown key 'ad' (did you mean 'add'?)"),
    "no draw": ({"draw": None}, "draw: must be text, got None"),
    "no panel": ({"draw": {}}, "draw: has no panel"),
    "a panel without words": ({"draw": {"a": 5}}, "draw, a: must be text, got 5"),
    "a panel whose name is a path": ({"draw": {"a/b": "table"}}, "draw"),
    "no commands": ({"commands": []}, "commands: must be a list of command lines, at least one"),
    "a command that trains nothing": ({"commands": ["demo.py --folder-name x"]}, "'demo.py' trains nothing"),
    "a misspelt command": ({"commands": ["ray_serch.py --folder-name x"]}, "did you mean 'ray_search.py'?"),
    "a command without a name": ({"commands": ["ray_search.py --preset x"]}, "--folder-name is missing"),
    "a name twice": ({"commands": ["ray_search.py --folder-name x"] * 2}, "commands: two of them store 'x'"),
    "replacements that are no table": ({"small": {"replace": ["a"]}}, "small, replace: must be a table of words"),
    "a word that is nowhere": ({"small": {"replace": {"sed": "x"}}}, "'sed' is in no command (did you mean '--seed'?)"),
    "a name that is nowhere": ({"small": {"leave": ["s2"]}}, "no command stores 's2' (did you mean 's1'?)"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda name: name.replace(" ", "-"))
def test_bad_recipes(case: str) -> None:
    change, says = BAD[case]
    with pytest.raises(ConfigError) as raised:
        recipes.parse({**GOOD, **change}, "own", "own.yaml")
    assert str(raised.value).startswith("own.yaml")
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_a_recipe_that_does_not_say_it_all() -> None:
    with pytest.raises(ConfigError, match="'source' is missing"):
        recipes.parse({k: v for k, v in GOOD.items() if k != "source"}, "own", "own.yaml")
    with pytest.raises(ConfigError, match=r"no recipe '33'.*\nlegal: 1 2 3 4 5 B1"):
        recipes.load("33")


def test_small_scale_by_hand() -> None:
    small = {**GOOD["small"], "replace": {"Digits_1": "Digits_20"}}
    recipe = recipes.parse({**GOOD, "small": small}, "own", "own.yaml")
    (needed,) = recipe.needed(recipes.Scale.SMALL)
    assert needed.name == "s0-small"
    words = GOOD["commands"][0].replace("Digits_1", "Digits_20").replace("s0", "s0-small")
    assert needed.line() == f"python {words} --set dataset_sup.epochs=1"
    assert [n.line() for n in recipe.needed()] == [f"python {line}" for line in GOOD["commands"]]


def test_a_figure_from_half_of_its_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused until its runs are there; --run trains what is missing by the real command, and draws."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEBB_HOME", str(tmp_path / "home"))
    path, out = tmp_path / "own.yaml", tmp_path / "home" / "hebb" / "analysis"
    path.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match=r"not finished, 2 of 2: s0 \(0 of 1 runs\), s1 \(0 of 1 runs\)"):
        analysis.main(["figure", "own.yaml"])
    assert not (tmp_path / "home").exists()

    home = folders.Home.find(None)
    first = recipes.load("own.yaml").needed()[0]
    (config,) = figures._configs(first, home, KNOWN)
    kept = stored_runs.single(home.parent, "s0", config) / "result.json"
    before = kept.stat().st_mtime_ns
    done = command("analysis.py", "figure", "own.yaml", "--run")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("$ python")] == [
        f"$ python {shlex.join(shlex.split(GOOD['commands'][1]))} --data-dir {tmp_path / 'home'}"
    ]
    assert kept.stat().st_mtime_ns == before
    drawn = pd.read_csv(out / "figure-own.csv")
    results = [json.loads((home.network(f"s{i}") / "result.json").read_text())["metrics"]["test_acc"] for i in (0, 1)]
    assert list(drawn["n"]) == [2]
    assert drawn["mean"][0] == pytest.approx(sum(results) / 2)
    capfd.readouterr()
    assert analysis.main(["figure", "own.yaml", "--run", "--overwrite"]) == 0
    assert "$ python" not in capfd.readouterr().out  # nothing is trained again

    path.write_text(yaml.safe_dump({**GOOD, "commands": [c.replace("=40", "=50") for c in GOOD["commands"]]}))
    with pytest.raises(ConfigError, match="holds runs of other configurations"):
        analysis.main(["figure", "own.yaml", "--overwrite"])

    path.write_text(yaml.safe_dump(GOOD))
    (home.network("s1") / "result.json").unlink()
    assert analysis.main(["figures", "own.yaml"]) == 0
    assert list(pd.read_csv(out / "figures.csv")["state"]) == ["finished", "unfinished"]


def test_panels_read_the_runs_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of their own for each, refused before anything is drawn when one of them is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEBB_HOME", str(tmp_path / "home"))
    home, out = folders.Home.find(None), tmp_path / "out"
    panels = {"both": "table --by preset", "second": "table s1 --by preset"}
    Path("own.yaml").write_text(yaml.safe_dump({**GOOD, "draw": panels}))
    accuracies = []
    for needed in recipes.load("own.yaml").needed():
        (config,) = figures._configs(needed, home, KNOWN)
        stored = stored_runs.single(home.parent, needed.name, config) / "result.json"
        accuracies.append(json.loads(stored.read_text())["metrics"]["test_acc"])
    out.mkdir()
    (out / "figure-own-second.png").touch()
    with pytest.raises(ConfigError, match=r"figure-own-second.png: exists already"):
        analysis.main(["figure", "own.yaml", "--out", "out"])
    assert [path.name for path in out.iterdir()] == ["figure-own-second.png"]
    assert analysis.main(["figure", "own.yaml", "--out", "out", "--overwrite"]) == 0
    both, second = (pd.read_csv(out / f"figure-own-{panel}.csv") for panel in panels)
    assert (both["n"][0], second["n"][0]) == (2, 1)
    assert both["mean"][0] == pytest.approx(sum(accuracies) / 2)
    assert second["mean"][0] == pytest.approx(accuracies[1])
    Path("own.yaml").write_text(yaml.safe_dump({**GOOD, "draw": {"a": "tabel"}}))
    with pytest.raises(ConfigError, match=r"figure own, draw, a: unknown verb 'tabel' \(did you mean 'table'\?\)"):
        analysis.main(["figure", "own.yaml"])


@pytest.mark.parametrize(
    ("progress", "given"),
    [
        (figures.Progress.ABSENT, ["--workers", "2", "--threads", "1", "--gpu-id=cpu"]),
        (figures.Progress.UNFINISHED, ["--workers", "2", "--gpu-id=cpu"]),
    ],
)
def test_a_search_that_goes_on_is_given_the_flags_that_may_change(
    progress: figures.Progress, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads are those that it was begun with, and --restore refuses them."""
    lines: list[list[str]] = []

    def run(line: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        lines.append(line)
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(subprocess, "run", run)
    (needed, *_) = recipes.load("1").needed()
    status = figures.TrainingStatus(needed, tmp_path / "s", progress, 4, 2)
    figures.train(status, folders.Home(tmp_path), ["--workers", "2", "--threads", "1", "--gpu-id=cpu"])
    assert lines[0][-len(given) :] == given
    assert ("--restore" in lines[0]) == (progress is figures.Progress.UNFINISHED)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_figure_by_searches(command: Command, tmp_path: Path) -> None:
    """Published values beside ours need two searches; the small scale of a recipe, trained by Ray, then drawn."""
    network = "--preset '{}' --dataset Digits_1 --seeds 0 1 --set dataset_sup.samples=60 --folder-name {}"
    soft, deep = "Soft-c4-k3:bn:triangle:max_4_4_0 BP:flatten", "BP-c4-k3:bn:relu:max_4_4_0 BP:flatten"
    lines = [f"ray_search.py {network.format(preset, name)}" for preset, name in ((soft, "soft"), (deep, "bp"))]
    recipe = {**GOOD, "draw": "depth", "commands": lines, "small": {"add": "--set dataset_sup.epochs=2"}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(recipe))
    words = ("--run", "--scale", "small", "--search-flags", "--workers 1")
    done = command("analysis.py", "figure", "two.yaml", *words, timeout=800)
    assert done.returncode == 0, done.stderr
    drawn = pd.read_csv(tmp_path / "home" / "hebb" / "analysis" / "figure-two-small.csv").set_index("series")
    for series, name in (("SoftHebb", "soft-small"), ("BP", "bp-small")):
        results = pd.read_csv(tmp_path / "home" / "hebb" / "search" / name / "results.csv")
        assert drawn.loc[series, "mean"] == pytest.approx(results["test_acc"].mean())
        assert drawn.loc[series, "n"] == 2
