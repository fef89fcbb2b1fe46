"""The command ``hebb`` and its verbs, called where the package is installed: from an empty folder.

Without it an installed hebb could find its presets only inside the repository.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from light import light

from hebb.cli import (
    arguments,
    completion,
    demo,
    evaluate,
    listing,
    post_hoc,
    resume,
    run_config,
    search,
    search_request,
    train,
)
from hebb.cli.analysis import command
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser, boolean, count, gigabytes
from hebb.cli.verbs import VERBS, main
from hebb.core import commands, extras
from hebb.core.errors import ConfigError, HebbError
from hebb.storage import folders
from hebb.tuning import search_folder

MAIN = "hebb/__main__.py"


def test_the_verbs_fit_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} ", text, re.MULTILINE) for verb in VERBS)
    assert len(text.splitlines()) <= 2 * 24


@pytest.mark.parametrize("line", ["--help", *(f"{verb} --help" for verb in VERBS), "list presets", "demo --dry-run"])
def test_help_and_lists_are_instant_from_an_empty_folder(line: str, tmp_path: Path) -> None:
    done = light(tmp_path, MAIN, *line.split())
    assert (done.code, done.err, done.asked) == (0, "", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_be_loaded(verb: str) -> None:
    assert callable(VERBS[verb].load())
    if verb != "analysis":
        importlib.import_module(VERBS[verb].module).parser()


def test_the_nearest_verb_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown verb 'serch' \(did you mean 'search'\?\)"):
        main(["serch"])


@pytest.mark.parametrize("what", ["presets", "datasets", "methods", "paths", "protocols", "configs"])
def test_a_list_is_that_of_the_script(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", what])
    by_verb = capsys.readouterr().out
    train.main(["--list", what])
    assert capsys.readouterr().out == by_verb
    assert len(by_verb.splitlines()) > 3


def test_the_demo_is_that_of_the_makefile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """``make demo`` and ``hebb demo`` are one thing; a flag of one's own wins."""
    assert re.search(r"^demo: .*\n\t\S*hebb demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert main(["demo", "--dry-run", "--data-dir", str(tmp_path)]) == 0
    assert "4 trials" in capsys.readouterr().out
    main(["demo", "--dry-run", "--preset", "2HardCnnDigits", "--dataset", "Digits_1", "--seeds", "5"])
    text = capsys.readouterr().out
    assert "network 2HardCnnDigits" in text
    assert "x seeds 5" in text
    assert "1,000" not in text, "--dataset replaces both datasets"


@pytest.mark.parametrize("line", ["demo --help", "demo --seeds 5 -h"])
def test_the_help_of_the_demo_says_what_it_does(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The defaults in the help of a search are not those of the demo."""
    assert main(line.split()) == 0
    text = capsys.readouterr().out
    assert "default" not in text
    assert "2SoftHebbCnnDigits" in text
    assert "Every flag of hebb search works here too" in text
    assert "python demo.py, trains the published network 4SoftHebbCnnCIFAR on CIFAR-10" in text
    demo.main(["--help"])
    assert "The other demo, hebb demo, is a small search on digits" in capsys.readouterr().out


def test_the_demo_replaces_itself_and_no_other_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would delete the trials of a user's own search called demo."""
    home = ["--data-dir", str(tmp_path)]
    begun: list[list[str]] = []
    monkeypatch.setattr(search, "main", lambda argv: begun.append(argv) or 0)
    networks = ("--preset", "2SoftHebbCnnDigits")
    own = (*networks, "--dataset-unsup", "Digits_1", "--dataset-sup", "Digits_50")
    for words, replaces in ((own, True), ((*own, "--seeds", "7"), False), ((*networks, "--dataset", "Digits"), False)):
        options = search.parser().parse([*words, *home, "--folder-name", "demo"])
        resolved = search.resolve(options, arguments.load_catalog(options))
        resolved.folder.mkdir(parents=True, exist_ok=True)
        search_folder.write(resolved, search_request.settings(options, folders.Home(tmp_path)))
        if replaces:
            assert main(["demo", *home]) == 0
            assert begun[-1][-1] == "--overwrite"
        else:
            with pytest.raises(ConfigError, match=r"holds a search that is not the demo\nanother --folder-name"):
                main(["demo", *home])
            main(["demo", *home, "--dry-run"])
    main(["demo", *home, "--folder-name", "free"])
    assert "--overwrite" not in begun[-1]


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help_is_a_word_too(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert "--version prints the version" in capsys.readouterr().out


def test_the_nearest_flag_of_the_command_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown flag '--verson' \(did you mean '--version'\?\)"):
        main(["--verson"])


def test_a_help_text_names_only_flags_of_its_command() -> None:
    assert "--evaluate" not in evaluate.parser().format_help()
    assert "with --evaluate: write" in train.parser().format_help(whole=True)
    text = " ".join(search.parser().format_help(whole=True).split())
    assert text.count("a search selects on the test set only with") == 1
    record = " ".join(command.parser(command.VERBS["record"]).format_help().split())
    assert "--out DIR folder of the record, such as records/2026-11-22-mine (required)" in record
    assert "source ~/.hebb-completion.bash" in completion.parser().format_help()


# -- places that cannot be used ---------------------------------------------------------------------------------

NOWHERE = "/dev/null/x"


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        (f"train --dataset Digits_1 --data-dir {NOWHERE}", "--data-dir"),
        (f"search --dataset Digits_1 --data-dir {NOWHERE}", "--data-dir"),
        (f"demo --data-dir {NOWHERE}", "--data-dir"),
        (f"post-hoc --dataset Digits_1 --data-dir {NOWHERE}", "--data-dir"),
        (f"analysis table m --out {NOWHERE}", "--out"),
    ],
)
def test_a_place_without_write_access_is_bad_input(line: str, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}: must be a folder you may write to, got '{NOWHERE}'"):
        main(line.split())


def test_a_variable_that_names_such_a_place_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEBB_HOME", NOWHERE)
    with pytest.raises(ConfigError, match=rf"^\$HEBB_HOME: must be a folder you may write to, got '{NOWHERE}'"):
        main(["train", "--dataset", "Digits_1"])


def test_features_go_to_a_new_file_in_a_folder_that_exists(tmp_path: Path) -> None:
    """NumPy would append .npz to another name, and replace a file; the model is not even looked for."""
    (tmp_path / "old.npz").write_text("mine")
    for name, problem in (
        ("x.txt", "must be a file that ends in .npz, got"),
        ("", "must be a file that ends in .npz, got"),
        ("old.npz", "must be a new file, and"),
        ("none/x.npz", "must be a file in a folder that exists, got"),
    ):
        with pytest.raises(ConfigError, match=f"^--export-features: {problem} '{re.escape(str(tmp_path / name))}'"):
            main(["evaluate", "m", "--export-features", str(tmp_path / name)])
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]


def test_a_run_to_continue_is_given_by_its_name(tmp_path: Path) -> None:
    home = folders.Home(tmp_path)
    for folder, file in ((home.network("tiny"), "config.json"), (home.search("ss"), "search.json")):
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    (home.network("tiny") / "result.json").write_text("{}")
    home.network("short").mkdir()
    (home.network("short") / "config.json").write_text("{}")
    place = ["--data-dir", str(tmp_path)]
    with pytest.raises(ConfigError, match="tiny is finished"):
        main(["resume", "tiny", *place])
    for name in ("shortt", str(home.network("shortt"))):
        with pytest.raises(ConfigError, match=r"\(did you mean 'short'\?\)\nlegal: short$"):
            main(["resume", name, *place])
    for verb in ("resume", "evaluate"):
        for name in ("ss", str(home.search("ss"))):
            with pytest.raises(
                ConfigError, match=f"^{verb}: {name} is a search; hebb search --restore {name} continues"
            ):
                main([verb, name, *place])


# -- flags that exclude each other ------------------------------------------------------------------------------

EXCLUDED = [
    ("--resume-run DIR --seed 3", "--seed", "--resume-run", "continues the run as it was started"),
    ("--seed=3 --resume-run=DIR", "--seed", "--resume-run", "continues the run as it was started"),
    ("--resume-run DIR --preset 2CnnDigits", "--preset", "--resume-run", "continues"),
    ("--resume-run DIR --overwrite", "--overwrite", "--resume-run", "continues"),
    ("--resume-run DIR --run-config FILE", "--run-config", "--resume-run", "continues"),
    ("--evaluate MODEL --seed 3", "--seed", "--evaluate", "measures a model as it was stored"),
    ("--evaluate MODEL --dataset-unsup Digits", "--dataset-unsup", "--evaluate", "measures"),
    ("--run-config FILE --seed 0", "--seed", "--run-config", "already fixes the run"),
    ("--run-config FILE --threads 1", "--threads", "--run-config", "already fixes the run"),
    ("--run-config FILE --dataset Digits", "--dataset", "--run-config", "already fixes the run"),
    ("--list presets --seed 1", "--seed", "--list", "only prints a list"),
]


@pytest.mark.parametrize(("line", "flag", "beside", "reason"), EXCLUDED)
def test_a_flag_that_would_be_ignored_is_refused(line: str, flag: str, beside: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        train.main(line.split())
    assert str(refused.value).startswith(f"{flag}: cannot be combined with {beside}, which {reason}")


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_a_verb_refuses_what_belongs_to_training(verb: str) -> None:
    with pytest.raises(ConfigError, match=f"--seed: cannot be combined with {verb}, which"):
        main([verb, "X", "--seed", "3"])


@pytest.mark.parametrize("verb", ["resume", "evaluate", "list"])
def test_a_verb_needs_its_subject(verb: str) -> None:
    with pytest.raises(ConfigError, match=": must be given"):
        main([verb])


def test_a_list_without_its_name_says_which_lists_there_are() -> None:
    with pytest.raises(
        ConfigError, match="WHAT: must be given\nlegal: presets datasets methods paths protocols configs"
    ):
        main(["list"])


def test_an_unknown_flag_beside_another_use_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean '--data-dir'"):
        train.main(["--resume-run", "DIR", "--data-dr", "x"])


def test_every_flag_of_another_use_is_one_of_the_script() -> None:
    """Otherwise ``multi_layer.py --help`` would hide a flag that it takes."""
    flags = set(train.parser().flags())
    for module in (resume, evaluate, run_config, listing):
        assert set(module.parser("--x").flags()) - {"--x"} <= flags
    assert set(train.OTHER_USES) <= flags


# -- what is printed to type next -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("/usr/bin/hebb", "hebb resume '/a b/run'"),
        ("/lib/hebb/__main__.py", "python -m hebb resume '/a b/run'"),
        (str(ROOT / "multi_layer.py"), f"python {ROOT}/multi_layer.py --resume-run '/a b/run'"),
        (str(ROOT / "ray_search.py"), f"python {ROOT}/multi_layer.py --resume-run '/a b/run'"),
        ("/my/own/demo.py", "hebb resume '/a b/run'"),
    ],
)
def test_the_command_to_type_next_is_one_that_works(
    called: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the user called us; a script of the user's own may be called like one of ours."""
    monkeypatch.setattr(sys, "argv", [called])
    assert commands.line("resume", Path("/a b/run")) == expected


def test_a_search_in_the_way_is_continued_by_a_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hebb"])
    folder = tmp_path / "a search"
    folder.mkdir()
    (folder / "search.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"\nhebb search --restore '{re.escape(str(folder))}' continues it;"):
        search_folder.check_free(folder, overwrite=False)


def test_a_script_of_the_current_folder_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["ray_search.py"])
    assert commands.line("search", "--restore", "x") == "python ray_search.py --restore x"
    assert commands.line("analysis", "report", "x") == "python analysis.py report x"


def test_a_run_is_trained_measured_and_trained_again_by_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way, in a folder whose name has a space; what an unfinished run's message says works as typed."""
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HEBB_HOME", str(place / "home"))
    monkeypatch.setattr(sys, "argv", ["hebb"])
    tiny = ("--dataset", "Digits_1", "--set", "dataset_sup.samples=40", "dataset_unsup.samples=40", "--threads", "1")
    device = ("--device", "cpu")
    assert main(["train", "--preset", "2SoftHebbCnnDigits", *tiny, *device, "--model-name", "m"]) == 0
    folder = place / "home" / "hebb" / "result" / "network" / "m"
    compare = capsys.readouterr().out.partition("compare: ")[2].splitlines()[0]
    assert shlex.split(compare) == ["tensorboard", "--logdir", str(place / "home" / "hebb" / "tensorboard")]
    result = json.loads((folder / "result.json").read_text())
    assert main(["evaluate", "m", *device]) == 0
    assert f"accuracy {result['metrics']['test_acc']:.2f} %" in capsys.readouterr().out
    assert main(["train", "--run-config", str(folder / "config.json"), "--model-name", "again"]) == 0
    again = json.loads((folder.with_name("again") / "result.json").read_text())
    assert again["metrics"]["test_acc"] == result["metrics"]["test_acc"]

    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match="holds an interrupted run") as refused:
        main(["train", "--preset", "2SoftHebbCnnDigits", *tiny, *device, "--model-name", "m"])
    line = next(line for line in str(refused.value).splitlines() if "continues it" in line)
    words = shlex.split(line.partition(" continues it")[0])
    assert words == ["hebb", "resume", str(folder)]
    assert main(words[1:]) == 0
    assert json.loads((folder / "result.json").read_text())["metrics"]["test_acc"] == result["metrics"]["test_acc"]


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ({"config.json": "{}", "traceback.txt": "x", "metrics.jsonl": ""}, False),  # failed in its first epoch
        ({"config.json": "{}", "traceback.txt": "x"}, False),
        ({"config.json": "{}", "traceback.txt": "x", "metrics.jsonl": "{}"}, True),
        ({"config.json": "{}", "traceback.txt": "x", "checkpoint/last.pt": "x"}, True),
        ({"config.json": "{}", "traceback.txt": "x", "checkpoint/next.pt": "x"}, True),
        ({"config.json": "{}", "traceback.txt": "x", "result.json": "{}"}, True),
        ({"config.json": "{}"}, True),  # interrupted, not failed
        ({"notes.txt": "mine", "traceback.txt": "x"}, True),
    ],
)
def test_only_a_run_that_failed_with_nothing_to_lose_is_replaced(
    files: dict[str, str], refused: bool, tmp_path: Path
) -> None:
    """Its plugin has been mended, so it cannot continue, and the same command shall start again."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) if refused else contextlib.nullcontext():
        folders.refuse_existing(tmp_path, overwrite=False)


# -- packages that are not installed ----------------------------------------------------------------------------


DRAWN = "--space 'b0.layer.lr={uniform: [0.01, 0.1]}' --num-samples 2"


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("ray", "search --dataset Digits_1"),
        ("optuna", "search --dataset Digits_1"),
        ("hyperopt", "search --algorithm hyperopt --space 'b0.layer.lr={uniform: [0.01, 0.1]}' --num-samples 2"),
        ("scipy", f"search --algorithm optuna --sampler gp {DRAWN}"),
        ("cmaes", f"search --algorithm optuna --sampler cmaes {DRAWN}"),
        ("matplotlib", "post-hoc --preset 2HardMLPMNIST --dataset-unsup MNIST_1-1 --dataset-sup MNIST_100"),
        ("pandas", "analysis evidence"),
        ("shtab", "completion bash"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package: str, line: str, tmp_path: Path) -> None:
    """One message before any work, not an unexpected ModuleNotFoundError hours later."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / MAIN), *shlex.split(line)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "HEBB_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"needs {package}, which is not installed" in done.stderr
    assert f"pip install 'hebb-learning[{extras.EXTRAS[package]}]'" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "home").exists()


def test_any_import_of_an_optional_package_is_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The net below the checks: wherever the import stands, also of a part of the package."""

    def run(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'umap.plot'", name="umap.plot")

    monkeypatch.setattr(sys, "argv", ["hebb"])
    with pytest.raises(SystemExit) as end:
        run_command(run)
    assert end.value.code == 2
    assert "needs umap, which is not installed\npip install 'hebb-learning[umap]'" in capsys.readouterr().err


def test_the_extras_are_those_of_the_distribution() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    for package, extra in extras.EXTRAS.items():
        name = {"umap": "umap-learn"}.get(package, package)
        assert any(re.match(rf"{name}\b", line) for line in declared[extra]), package
        assert not any(re.match(rf"{name}\b", line) for line in project["dependencies"]), package
    with pytest.raises(HebbError):
        extras.require("a test", "no_such_package", extra="none")


# -- completion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_verbs_flags_and_names(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in (*VERBS, "--resume-run", "--num-samples", "2SoftHebbCnnDigits", "CIFAR10_50", "presets", "filters"):
        assert word in text, word


def test_bash_completes_a_verb_and_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    main(["completion", "bash"])
    (tmp_path / "hebb.sh").write_text(capsys.readouterr().out)

    def completed(*words: str) -> list[str]:
        script = (
            f"source hebb.sh; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            f"_shtab_hebb hebb {words[-1]} {words[-2]}; echo ${{COMPREPLY[@]}}"
        )
        return subprocess.check_output(["bash", "-c", script], text=True, cwd=tmp_path).split()

    assert completed("hebb", "se") == ["search"]
    assert completed("hebb", "train", "--preset", "2SoftHebbCnnD") == ["2SoftHebbCnnDigits"]


# -- the parser -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "text", "problem"),
    [
        (boolean, "perhaps", "must be true or false, got 'perhaps'"),
        (gigabytes, "-1", "must be a number of gigabytes >= 0, got '-1'"),
        (count, "0", "must be a whole number >= 1, got '0'"),
    ],
)
def test_a_value_of_the_wrong_kind(read: object, text: str, problem: str) -> None:
    parser = Parser("")
    parser.add_argument("--x", type=read)
    with pytest.raises(ConfigError, match=re.escape(problem)):
        parser.parse(["--x", text])


@pytest.mark.parametrize("module", [train, post_hoc, search, demo], ids=lambda module: module.__name__)
def test_help_is_grouped(module: object) -> None:
    """At most a handful of flags outside a group."""
    text = module.parser().format_help(whole=True)
    assert text.startswith("usage: ")
    for title in ("network and data:", "training:", "machine:", "storage:"):
        assert f"\n{title}\n" in text
