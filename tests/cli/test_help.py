"""The help of every verb: short at first, whole on demand.

Without it a flag could be missing from the whole help, or the short one grow past a screen.
"""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from hebb.cli import describe, verbs
from hebb.cli.analysis import command as analysis
from hebb.cli.parsing import Parser
from hebb.config import catalog
from hebb.core.errors import ConfigError

SCREEN, WIDTH = 44, 100
PARSERS = {
    **{name: importlib.import_module(verb.module).parser for name, verb in verbs.VERBS.items() if name != "analysis"},
    **{f"analysis {name}": lambda verb=verb: analysis.parser(verb) for name, verb in analysis.VERBS.items()},
}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["hebb"])


def words(text: str) -> set[str]:
    """Return the flags that begin a line of a help text."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("  -")]
    return {flag for line in lines for flag in re.findall(r"--[\w-]+", re.split(r"  | [^-]", line)[0])}


@pytest.mark.parametrize("name", PARSERS)
def test_the_short_help_fits_a_screen_and_the_whole_one_has_every_flag(name: str) -> None:
    parser: Parser = PARSERS[name]()
    short, whole = parser.format_help(), parser.format_help(whole=True)
    assert len(short.splitlines()) <= SCREEN
    assert "--help-all" in short
    assert words(whole) == set(parser.flags())
    left_out = words(whole) - words(short)
    assert not left_out or re.search(r"--help-all lists \d+ more flags", short)
    assert max(map(len, whole.splitlines())) <= 100
    for flag in words(short):  # a line each, in which nothing is cut
        assert f"{flag} " in whole or f"{flag}," in whole or f"{flag}\n" in whole
    assert parser.format_help() == short  # asking for one leaves the other as it was


@pytest.mark.parametrize("verb", ["train", "search", "post-hoc"])
def test_the_common_flags_take_a_line_each(verb: str) -> None:
    lines = PARSERS[verb]().format_help().splitlines()
    flags = [line for line in lines if line.startswith("  --")]
    assert len(flags) >= 16
    assert max(len(line) for line in lines if line.startswith(" ")) <= 80


@pytest.mark.parametrize("arguments", [["--help-all"], ["train", "--help-all"], ["demo", "--help-all"]])
def test_all_flags_are_asked_for_as_help_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert verbs.main(arguments) == 0
    except SystemExit as end:
        assert not end.code
    assert "--help-all" in capsys.readouterr().out


def test_a_flag_that_is_not_in_the_short_help_is_suggested() -> None:

    with pytest.raises(ConfigError, match=r"did you mean '--checkpoint-every'[\s\S]*hebb train --help-all lists"):
        PARSERS["train"]().parse(["--checkpoint-evry", "3"])


@pytest.mark.parametrize(
    ("flag", "path"),
    [
        ("--epochs", "dataset_sup.epochs"),
        ("--epochs=5", "dataset_sup.epochs"),
        ("--batch_size", "dataset_sup.batch_size"),
        ("--lr", "b0.layer.lr"),
        ("--weight-decay", "classifier.weight_decay"),
    ],
)
def test_a_flag_of_other_programs_is_answered_with_the_path(flag: str, path: str) -> None:
    for verb in ("train", "search"):
        with pytest.raises(ConfigError, match=rf"unknown argument '{flag}'\n--set {re.escape(path)}="):
            PARSERS[verb]().parse([flag, "3"])
    with pytest.raises(ConfigError, match="lists the flags"):  # it has no --set
        PARSERS["completion"]().parse(["bash", flag])


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (2500, "2.5 kB"), (45_300, "45 kB"), (3.21e6, "3.2 MB"), (5e10, "50 GB")],
)
def test_a_size_has_the_unit_that_fits(size: float, text: str) -> None:
    assert describe.disk(size) == text


@pytest.mark.parametrize(
    "words",
    [
        ("presets",),
        ("presets", "3PCNudgeMNIST"),
        ("methods",),
        ("methods", "Soft"),
        ("datasets",),
        ("protocols",),
        ("configs",),
    ],
)
def test_a_list_that_goes_to_a_pipe_fits_100_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert max(map(len, listed(capsys, *words))) <= WIDTH


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert verbs.main(["list", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_presets_are_a_line_each_in_the_groups_of_their_rules(capsys: pytest.CaptureFixture[str]) -> None:
    """Every name stands there once: with its description, or as the alias of a network that is named before."""
    models = catalog.load().models
    lines = listed(capsys, "presets")
    rows = [line for line in lines if line.startswith("  ")]
    named = [line.split()[0] for line in rows]
    aliases = [
        name.rstrip(",)") for line in rows if "(also " in line for name in line.split("(also ")[1].split(")")[0].split()
    ]
    assert sorted([*named, *aliases]) == sorted(models)
    assert "SoftKrotovCnnCIFAR" in aliases
    assert "2SoftHebbCnnCIFAR" in named
    group = lines.index(next(line for line in lines if line.startswith("EP  ")))
    assert lines[group + 1].startswith("  2EPMNIST ")
    assert len(lines) == len(rows) + len({models[name].network.blocks[0].layer.method for name in models}) + 2


def test_presets_that_contain_a_word_and_all_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split()[0] for line in listed(capsys, "presets", "digits") if line.startswith("  ")]
    assert sorted(rows) == sorted(name for name in catalog.load().models if "Digits" in name)
    one = "\n".join(listed(capsys, "presets", "2SoftHebbCnnDigits"))
    for part in ("source: this project", "b0     SoftKrotov-c48-k3-p1", "b1     BP:flatten"):
        assert part in one


def test_the_whole_name_of_a_preset_shows_it_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """2SoftHebbCnnCIFAR_max begins with this name, too."""
    lines = listed(capsys, "presets", "2softhebbcnncifar")
    assert lines[0].startswith("2SoftHebbCnnCIFAR  ")
    assert any(line.lstrip().startswith("b1 ") for line in lines)


@pytest.mark.parametrize("form", ["folder:PATH", "npz:FILE"])
def test_own_data_are_listed_and_in_the_short_help(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys, "datasets", form.partition(":")[0])
    assert lines[0].startswith(f"{form}  your own")
    assert "--set dataset_sup.epochs=" in lines[1]
    for verb in ("train", "search"):
        short = PARSERS[verb]().format_help()
        assert re.search(rf"--dataset-sup NAME .*{form}", short)
        assert "--plugin" in short
        assert f"example: hebb {verb} --preset" in short


@pytest.mark.parametrize(("word", "near"), [("krotv", "Krotov"), ("SoftHebCnn", "SoftHebb"), ("imagnet", "ImNet")])
def test_a_word_that_no_preset_contains(word: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"no name contains '{word}' \(did you mean '\w*{near}\w*'\?\)"):
        verbs.main(["list", "presets", word])


def test_a_method_with_the_meaning_and_default_of_each_token(capsys: pytest.CaptureFixture[str]) -> None:
    """The defaults are those of the method; a settling one lists the settings of its network too."""
    lines = listed(capsys, "methods", "HardKrotov")
    rows = {line.split()[0]: line for line in lines}
    assert re.match(r"rank +ranking_param +a whole number >= 2 +3 +3 +rank k of the neuron", rows["rank"])
    assert re.match(r"lr +lr +a number >= 0 +0\.05 +0\.009 +Hebbian rate", rows["lr"])
    settles = listed(capsys, "methods", "PCNudge")
    assert any(re.match(r"lr +lr +a number >= 0 +0\.001 ", line) for line in settles)
    assert any(re.match(r"settle +beta +a number > 0 +0\.001 ", line) for line in settles)
