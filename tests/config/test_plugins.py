"""A rule from outside, by the real command lines: known everywhere, remembered, refused when it is not itself.

Without it a run could be repeated with a rule whose source has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Command

NETWORK = "TopTwo-c6-k3-share0.2:bn:triangle:max_2_2_0 BP:flatten"
SMALL = ("--dataset", "Digits_1", "--set", "dataset_sup.samples=60", "dataset_unsup.samples=60", "--threads", "1")


EXAMPLE = '''"""The winner learns, and so does the runner-up, by a share of its own."""

from hebb import Field, HebbianRule, register
from hebb.config.fields import HEBBIAN


def top_two(u, layer, labels):
    import torch

    first, second = u.topk(2, dim=1).indices.split(1, dim=1)
    return torch.zeros_like(u).scatter(1, second, layer.share).scatter(1, first, 1.0)


share = Field(name="share", token="share", kind=float, minimum=0, default=0.5, meaning="of the runner-up")
register(
    HebbianRule(name="TopTwo", summary="two learn", source="here", fields=HEBBIAN, own_fields=(share,), signal=top_two)
)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "top_two.py"
    path.write_text(EXAMPLE)
    return path


def model(tmp_path: Path, name: str) -> Path:
    return tmp_path / "home" / "hebb" / "result" / "network" / name


def config(tmp_path: Path, name: str = "mine") -> dict[str, object]:
    return json.loads((model(tmp_path, name) / "config.json").read_text())


def rows(tmp_path: Path, name: str) -> list[dict[str, object]]:
    lines = (model(tmp_path, name) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def test_a_plugin_is_known_everywhere(forked: Command, plugin: Path) -> None:
    listed = forked("multi_layer.py", "--plugin", "top_two.py", "--list", "methods").stdout
    assert "TopTwo" in listed
    assert "TopTwo: of the runner-up" in listed
    shown = forked("multi_layer.py", "--plugin", str(plugin), "--preset", NETWORK, "--dry-run", *SMALL).stdout
    assert "TopTwo-c6-k3-share0.2" in shown
    without = forked("multi_layer.py", "--preset", NETWORK, "--dry-run")
    assert without.returncode == 2
    assert "TopTwo" in without.stderr
    presets = plugin.with_name("mine.json")
    presets.write_text(json.dumps({"model": {"mine": {"blocks": NETWORK.split()}}}))
    flags = ("--preset-file", "mine.json", "--preset", "mine", "--dry-run")
    assert forked("multi_layer.py", "--plugin", "top_two.py", *flags).returncode == 0


def test_a_run_is_repeated_with_its_plugin(forked: Command, plugin: Path, tmp_path: Path) -> None:
    """From the recorded place without a flag, from another with one; the bits are the same."""
    first = forked("multi_layer.py", "--plugin", "top_two.py", "--preset", NETWORK, *SMALL, "--model-name", "mine")
    assert first.returncode == 0, first.stderr
    digest = hashlib.sha256(plugin.read_bytes() + b"\0").hexdigest()
    assert config(tmp_path)["plugins"] == [{"name": str(plugin), "sha256": digest}]
    stored = ("--run-config", str(model(tmp_path, "mine") / "config.json"))
    assert forked("multi_layer.py", *stored, "--model-name", "again").returncode == 0
    assert rows(tmp_path, "again") == rows(tmp_path, "mine")

    plugin.rename(tmp_path / "moved.py")
    missing = forked("multi_layer.py", *stored, "--model-name", "other")
    assert missing.returncode == 2
    assert str(plugin) in missing.stderr
    assert "--plugin" in missing.stderr
    assert not model(tmp_path, "other").exists()
    moved = forked("multi_layer.py", *stored, "--plugin", "moved.py", "--model-name", "other")
    assert moved.returncode == 0, moved.stderr
    assert rows(tmp_path, "other") == rows(tmp_path, "mine")
    assert config(tmp_path, "other")["plugins"] == [{"name": str(tmp_path / "moved.py"), "sha256": digest}]

    plugin.write_text(EXAMPLE.replace("1.0)", "0.9)"))
    changed = forked("multi_layer.py", *stored, "--model-name", "changed")
    assert changed.returncode == 2
    assert "changed since the run" in changed.stderr
    assert len(changed.stderr.splitlines()) <= 3
    evaluated = forked("multi_layer.py", "--evaluate", "again", "--plugin", "moved.py")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_carries_the_plugin_to_its_workers(command: Command, plugin: Path, tmp_path: Path) -> None:
    """The space reads its own token; each trial's config.json repeats the trial alone."""
    (tmp_path / "shares.yaml").write_text("seeds: [0]\nspace:\n  b0.layer.share: {grid: [0.1, 0.9]}\n")
    done = command(
        "ray_search.py",
        *("--plugin", "top_two.py", "--preset", NETWORK, *SMALL),
        *("--config", "shares.yaml", "--folder-name", "found"),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "b0.layer.share=0.9" in done.stdout
    trials = sorted((tmp_path / "home" / "hebb" / "search" / "found" / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        assert json.loads((trial / "config.json").read_text())["plugins"][0]["name"] == str(plugin)
    alone = command("multi_layer.py", "--run-config", str(trials[0] / "config.json"), "--model-name", "alone")
    assert alone.returncode == 0, alone.stderr
    stored = [json.loads(line) for line in (trials[0] / "metrics.jsonl").read_text().splitlines()]
    assert rows(tmp_path, "alone") == [{k: v for k, v in r.items() if k != "images_per_second"} for r in stored]


# -- packages and installed distributions -----------------------------------------------------------------------

REMEMBER = """
import json, sys
sys.path.insert(0, {root!r})
from hebb.cli import arguments, run_config, train
from hebb.config import serialise
command = run_config if "--run-config" in sys.argv else train
options = command.parser().parse(sys.argv[1:])
run = command.resolve(options, arguments.load_catalog(options))
print(json.dumps(serialise.to_json(run)))
"""


def resolved(tmp_path: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Print the config.json of a run that is not made; ``path`` is a folder of importable modules."""
    return subprocess.run(
        [sys.executable, "-c", REMEMBER.format(root=str(ROOT)), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(path or "")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def remembered(tmp_path: Path, *arguments: str, path: Path | None = None) -> list[dict[str, str]]:
    """Return the plugins that a run would remember, and leave its config.json in ``run.json``."""
    done = resolved(tmp_path, *arguments, path=path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "run.json").write_text(done.stdout)
    return json.loads(done.stdout)["plugins"]


def test_a_run_carries_its_plugin_to_another_process(plugin: Path, tmp_path: Path) -> None:
    """A worker unpickles a config, then loads what it needs; the plugin comes along, and no other version of it."""
    give = (
        "import pickle, sys; sys.path.insert(0, {root!r})\n"
        "from hebb import builtin\n"
        "from hebb.config import catalog, plugins, specs\n"
        "builtin.load()\n"
        "plugins.load(['top_two.py'])\n"
        "known = catalog.load()\n"
        "data = known.dataset('Digits', '')\n"
        "run = specs.RunConfig(network=known.network({network!r}), mode='successive', dataset_sup=data,\n"
        "                       dataset_unsup=data)\n"
        "import dataclasses\n"
        "run = dataclasses.replace(run, plugins=plugins.of_run(run))\n"
        "open('run.pickle', 'wb').write(pickle.dumps(run))\n"
    )
    take = (
        "import pickle, sys; sys.path.insert(0, {root!r})\n"
        "from hebb import builtin\n"
        "run = pickle.load(open('run.pickle', 'rb'))\n"
        "builtin.load(run.plugins)\n"
        "print(run.network.blocks[0].layer.rule.name)\n"
    )

    def python(code: str) -> subprocess.CompletedProcess[str]:
        text = code.format(root=str(ROOT), network=NETWORK)
        return subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    assert python(give).returncode == 0
    assert python(take).stdout == "TopTwo\n"
    plugin.write_text(EXAMPLE + "\n")
    assert "changed since the run" in python(take).stderr


def package(folder: Path) -> Path:
    """Write the example as a package that imports its own module."""
    made = folder / "my_rules"
    made.mkdir(parents=True)
    (made / "__init__.py").write_text("from . import top_two\n")
    (made / "top_two.py").write_text(EXAMPLE)
    return made


def test_a_folder_and_a_module_are_plugins(tmp_path: Path) -> None:
    made = package(tmp_path / "here")
    (first,) = remembered(tmp_path, "--plugin", "my_rules", "--preset", NETWORK, path=tmp_path / "here")
    (second,) = remembered(tmp_path, "--plugin", "here/my_rules", "--preset", NETWORK)
    assert (first["name"], second["name"]) == ("my_rules", str(made))
    assert first["sha256"] == second["sha256"]
    assert remembered(tmp_path, "--run-config", "run.json") == [second]
    (made / "top_two.py").write_text(EXAMPLE + "\n")
    assert "changed since the run" in resolved(tmp_path, "--run-config", "run.json").stderr


def test_an_installed_distribution_is_a_plugin(tmp_path: Path) -> None:
    """Its entry point is enough; only runs that use its rule remember it."""
    site = tmp_path / "site"
    package(site)
    about = site / "my_rules-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rules\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[hebb.plugins]\nmine = my_rules\n")
    assert remembered(tmp_path, "--preset", "Hard-c4:flatten BP", path=site) == []
    changed = remembered(tmp_path, "--preset", "Hard-c4:flatten BP", "--set", "b0.method=TopTwo", path=site)
    assert remembered(tmp_path, "--preset", NETWORK, path=site) == changed
    assert [entry["name"] for entry in changed] == ["my_rules"]
    assert remembered(tmp_path, "--run-config", "run.json", path=site) == changed
    assert "my_rules" in resolved(tmp_path, "--run-config", "run.json").stderr
    (about / "entry_points.txt").write_text("[hebb.plugins]\nmine = my_roles\n")
    assert "installed plugin 'mine' of my-rules" in resolved(tmp_path, path=site).stderr


# -- refusals ---------------------------------------------------------------------------------------------------

RULE = """
from hebb.config.registry import RULES, Field, HebbianRule, Rule
RULES.register(HebbianRule(name={!r}, summary="", source="", signal=lambda u, layer, labels: u, own_fields=({}), {}))
"""
LOSS = """
from hebb.config.registry import RULES, LocalRule
RULES.register(LocalRule(name="Mine", summary="", source="", loss=lambda views, layer, context: {}))
"""
TAKEN = "Field(name='radix', token='k', kind=float, meaning=''),"
DIGIT = "Field(name='radix', token='k2', kind=float, meaning=''),"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nowhere.py", None, "does not exist"),
        ("nowhere", None, "no module 'nowhere'"),
        ("no.where", None, "no module 'no.where'"),
        ("folder", "", "no __init__.py"),
        ("rule.py", "x = (\n", "SyntaxError"),
        ("rule.py", "import nothing_of_the_kind\n", "nothing_of_the_kind"),
        ("rule.py", "raise SystemExit(7)\n", "SystemExit"),
        ("rule.py", "x = 1\n", "must register a rule"),
        ("rule.py", RULE.format("sOFT", "", ""), "registered twice"),
        ("rule.py", RULE.format("My-Rule", "", ""), "name must be letters and digits, as in Soft2, got 'My-Rule'"),
        ("rule.py", RULE.format("Mine", TAKEN, ""), "token 'k' of 'radix' is taken by 'kernel_size'"),
        ("rule.py", RULE.format("Mine", DIGIT, ""), "token of 'radix' must be letters, got 'k2'"),
        ("rule.py", RULE.format("Mine", "", "learning='hebbian'"), "argument 'learning'"),
        ("rule.py", RULE.format("Mine", "", "").replace("signal", "bias_step"), "argument: 'signal'"),
        ("rule.py", RULE.format("Mine", "", "").replace("(HebbianRule(", "(Rule("), "must be HebbianRule(...)"),
        (
            "rule.py",
            RULE.format("Mine", "", "learning='local'").replace("(HebbianRule(", "(Rule("),
            "must be LocalRule(",
        ),
        ("rule.py", RULE.format("Mine", "", "fields=('radiusses',)"), "'radiusses'"),
        ("rule.py", LOSS, "fields of a LocalRule must include LOCAL"),
        ("rule.txt", RULE.format("Mine", "", ""), "rule.txt"),
    ],
)
def test_bad_plugins(forked: Command, tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif text is not None:
        (tmp_path / name).write_text(text)
    done = forked("multi_layer.py", "--plugin", f"./{name}" if name == "rule.txt" else name, "--list", "methods")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: --plugin ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "home").exists()
