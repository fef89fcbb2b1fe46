"""Every flag of every verb, given a bad value: the message begins with the flag as it was typed.

Without it an error names a field, or a flag that the user never wrote, and a new flag is never tried with a bad value.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hebb.cli import evaluate, listing, post_hoc, resume, run_config, search, train
from hebb.cli.analysis import command as analysis
from hebb.cli.parsing import Parser
from hebb.cli.verbs import main
from hebb.core.errors import ConfigError

NETWORK = "SoftKrotov-c4-k3-p1-t1:bn:triangle:avg_2_2_0 BP:flatten"

SHARED = {
    "--preset": ("nope", "'Sof-c8 BP'", "''"),
    "--dataset-sup": ("nope", "''", "npz:nope.npz"),
    "--dataset-unsup": ("nope",),
    "--dataset": ("nope",),
    "--set": (
        "nope=1",
        "b0",
        "b0.layer.lr=x",
        "b9.layer.lr=1",
        "seed=-1",
        "dataset_sup.samples=99999",
        "classifier.lr=-1",
    ),
    "--protocol": ("nope",),
    "--plugin": ("nope.py", "no_such_module"),
    "--preset-file": ("nope.json", "."),
    "--training-mode": ("nope", "''"),
    "--training-blocks": ("9", "x", "0 0"),
    "--probe": ("nope", "linear linear"),
    "--probe-blocks": ("9 --probe linear", "0 0 --probe linear", "x", "0"),
    "--seed": ("-1", "x", "1.5", "1 --seed 2"),
    "--gpu-id": ("x", "-1"),
    "--device": ("x", "cpu --gpu-id 0"),
    "--curve-points": ("-1", "x"),
    "--tf32": ("x",),
    "--threads": ("0", "x", "5000", "1 --threads 2"),
    "--cache-limit": ("x", "-1", "inf", "3 --no-feature-cache"),
    "--data-dir": ("file", "''"),
    "--resume": ("nope", "all without_classifier"),
}
SAVED = {"--save": ("maybe",), "--checkpoint-every": ("0", "x"), "--on-end": ()}
TRAIN = {
    **SHARED,
    "--from-best": ("nope", "a:b", "nope:2"),
    **SAVED,
    "--validation": ("maybe",),
    "--pack-seeds": ("0", "x"),
    "--model-name": ("a/b", "''"),
    "--list": ("nope", "presets nope"),
    "--run-config": ("nope.json", "empty.json"),
    "--resume-run": ("nope",),
    "--evaluate": ("nope",),
    "--export-features": ("x.npz", "x.txt --evaluate m"),
    "--save-model": ("--save false",),
}
SEARCH = {
    **{flag: values for flag, values in SHARED.items() if flag != "--resume"},
    "--resume": ("nope",),
    "--list": ("nope", "configs nope"),
    "--pack-seeds": ("0",),
    "--config": ("nope", "nope.yaml", "."),
    "--purpose": ("find", "''"),
    "--seeds": ("-1", "x", "1 1", "1 --seeds 2"),
    "--space": (
        *(
            "b0.layer.lr=3",
            "b0.layer.lr",
            "'b0.layer.lr={gird: [1]}'",
            "'b9.layer.lr={grid: [1]}'",
            "'b0.layer.lr={grid: [1'",
        ),
        *("'b0.layer.lr={grid: [x]}'", "'b0.layer.lr={grid: [0.1, 0.1]}'", "'b0.layer.lr={uniform: [2, 1]}'"),
        *("'seed={grid: [1]}'", "'b0.layer.kernel_size={grid: [99]}'", "'x={joint: [{b0.layer.lr: 1, b0.nope: 2}]}'"),
        *("'b0.layer.lr={grid: [1], when: {b1.pool: 1}}'", "'b0.layer.lr={grid: [1, 1.0]}'"),
    ),
    "--search-block": ("0", "x"),
    "--algorithm": ("bayes", "random", "grid --space 'b0.layer.lr={uniform: [1, 2]}'"),
    "--sampler": (
        *("bayes", "gp", "gp --algorithm hyperopt --space 'b0.layer.lr={uniform: [1, 2]}'"),
        "cmaes --algorithm optuna --space 'b0.layer.lr={choice: [1, 2]}'",
        *(
            f"{name} --algorithm optuna --space 'b0.layer.lr={{choice: [1, 2]}}' "
            "'b0.layer.radius={uniform: [1, 2], when: {b0.layer.lr: 1}}'"
            for name in ("gp", "nsga2")
        ),
    ),
    "--from-best": ("nope", "a:b", "nope:2"),
    "--warm-start": ("nope", "nope --algorithm optuna --space 'b0.layer.lr={uniform: [1, 2]}'"),
    "--storage": ("nope/s.db --algorithm optuna --space 'b0.layer.lr={uniform: [1, 2]}'", "s.db"),
    "--num-samples": ("0", "x", "3", "3 --algorithm random --space 'b0.layer.lr={grid: [1, 2]}'"),
    "--search-seed": ("-1", "x", "3"),
    "--metric": ("nope", "val_acc", "test_acc nope", "parameters", "test_acc test_acc", "test_acc activity_sparsity"),
    "--mode": ("up", "max min", "max --metric test_acc seconds", "max up --metric test_acc seconds"),
    "--constraint": ("nope", "'nope <= 3'", "'parameters <= x'", "'parameters <= 1'", "'val_acc > 3'"),
    "--final-points": ("0", "x", "1", "1 --purpose search"),
    "--validation-sup": ("maybe",),
    "--validation-unsup": ("maybe",),
    "--final-seeds": ("x", "-1", "3"),
    "--scheduler": ("ahsa", "''"),
    "--grace": ("x", "3", "0 --scheduler asha", "9999 --scheduler asha", "2 --scheduler hyperband"),
    "--reduction": ("x", "1 --scheduler asha", "3 --scheduler median", "3"),
    "--probe-every": ("x", "-1", "1"),
    "--time-budget": ("soon", "3", "-1h", "0s"),
    "--max-trials": ("0", "x"),
    "--max-failures": ("-1", "x"),
    "--restore": ("nope", "nope --list presets", "nope --seed 0"),
    "--extend": ("",),
    "--retry-failed": ("",),
    "--gpu-exp": ("0", "x", "2 --launcher slurm"),
    "--workers": ("0", "x", "2 --launcher slurm"),
    "--share-blocks": ("maybe",),
    "--dashboard": ("--address auto",),
    "--folder-name": ("a/b", "''"),
    "--model-name": ("x",),
    "--save": ("maybe",),
    "--on-end": (),
    "--save-model": ("--save false",),
    "--save-best": ("maybe", "true --save false"),
    "--estimate": ("--dry-run",),
    "--address": ("auto --launcher slurm",),  # any word; only Ray can tell
    "--launcher": ("slrum", "slurm --scheduler asha"),
    "--slurm": ("time=2h", "nope=1 --launcher slurm", "time=5 --launcher slurm", "partition=a --launcher local"),
}
POST_HOC = {**SHARED, "--model-name": ("a/b", "''"), "--list": ("nope",), "--resume-run": ("nope",)}
DEVICE = {flag: SHARED[flag] for flag in ("--gpu-id", "--device")}
STORED = {**DEVICE, **{flag: SHARED[flag] for flag in ("--plugin", "--data-dir")}}
RESUME = {**STORED, **SAVED, "--cache-limit": ("x",)}
EVALUATE = {
    **STORED,
    "--dataset-sup": ("nope",),
    "--set": ("nope=1", "b0.layer.lr=1", "dataset_sup.nope=1"),
    "--preset-file": ("nope.json",),
    "--export-features": ("x.txt", "nope/x.npz"),
}
RUN_CONFIG = {
    **SAVED,
    **{flag: SHARED[flag] for flag in ("--plugin", "--data-dir", "--set", "--resume")},
    "--cache-limit": ("x", "3 --no-feature-cache"),
    "--model-name": ("a/b",),
    "--run-config": (),  # it is the subject
}
TABLES: dict[str, tuple[str, Parser, dict[str, tuple[str, ...]]]] = {
    "train": ("train --dry-run", train.parser(), TRAIN),
    "search": ("search", search.parser(), SEARCH),
    "post-hoc": ("post-hoc --dry-run", post_hoc.parser(), POST_HOC),
    "resume": ("resume cut", resume.parser(), RESUME),
    "evaluate": ("evaluate m", evaluate.parser(), EVALUATE),
    "run-config": ("train --run-config m/config.json --dry-run", run_config.parser(), RUN_CONFIG),
    "list": ("list presets", listing.parser(), {"--plugin": ("nope.py",), "--preset-file": ("nope.json",)}),
}

SELECTION = {
    "--preset": ("nope",),
    "--dataset": ("nope",),
    "--where": ("nope=1", "seed", "seed=9"),
    "--out": ("file",),
    "--name": ("a/b",),
    "--data-dir": ("file",),
    "--plugin": ("nope.py",),
}
WITHOUT_RUNS = {flag: SELECTION[flag] for flag in ("--out", "--name", "--data-dir", "--plugin")}
METRIC = {"--metric": ("nope",)}
BY = {"--by": ("nope", "preset preset")}
SEED, IMAGES = {"--seed": ("-1", "x")}, {"--images": ("0",)}
RECIPE = {**WITHOUT_RUNS, "--scale": ("nope",)}
EXPERIMENT = {**WITHOUT_RUNS, "--set": ("nope=1", "dt", "dtype=x"), "--threads": ("0",)}
ANALYSIS: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "runs": ("m", SELECTION),
    "table": ("m", {**SELECTION, **METRIC, **BY, "--with": ("nope",)}),
    "curves": ("m", {**SELECTION, **METRIC, **BY, "--most": ("0",)}),
    "aggregate": (
        "m",
        {
            **SELECTION,
            **METRIC,
            **BY,
            "--tasks": ("nope", "dataset dataset"),
            "--baseline": ("nope",),
            "--repeats": ("0", "99"),
        },
    ),
    "compare": ("m n", {**SELECTION, **METRIC, **BY, "--baseline": ("nope",)}),
    "depth": ("m", {**SELECTION, **METRIC, "--by": ("nope",), "--published": ("9",)}),
    "cost": ("m", {**SELECTION, **METRIC, **BY, "--cost": ("nope",), "--published": ("9", "3")}),
    "temperature": ("m", {**SELECTION, **METRIC}),
    "radius": ("m", {**SELECTION, **METRIC}),
    "convergence": ("m", {**SELECTION, **METRIC, "--window": ("0", "999")}),
    "angles": ("m", {**SELECTION, "--by": (), "--number": ()}),  # it needs a settling network first
    "posthoc": ("m", {**SELECTION, "--by": ()}),  # it needs a post-hoc run first
    "filters": (
        "m",
        {**SELECTION, **DEVICE, "--block": ("9", "x"), "--view": ("nope",), "--order": ("nope",), "--most": ("0",)},
    ),
    "fields": (
        "m",
        {
            **SELECTION,
            **DEVICE,
            **SEED,
            **IMAGES,
            "--block": ("9", "x"),
            "--show": ("nope",),
            "--neurons": ("0",),
            "--patches": ("0",),
            "--steps": ("0",),
            "--step": ("0", "x"),
            "--radius": ("0", "-1"),
        },
    ),
    "embed": (
        "m",
        {
            **SELECTION,
            **DEVICE,
            **SEED,
            **IMAGES,
            "--blocks": ("9", "x"),
            "--method": ("nope",),
            "--components": ("0",),
            "--perplexity": ("0",),
            "--neighbours": ("0",),
        },
    ),
    "robust": (
        "m",
        {
            **SELECTION,
            **DEVICE,
            **SEED,
            **IMAGES,
            "--kinds": ("nope",),
            "--noise": ("-1",),
            "--l2": ("x",),
            "--linf": ("-1",),
            "--loss": ("nope",),
            "--steps": ("0",),
            "--restarts": ("0",),
        },
    ),
    "interpolate": (
        "m",
        {
            **SELECTION,
            **DEVICE,
            "--classes": ("0 0", "0 99", "x y"),
            "--prototypes": ("nope",),
            "--points": ("0", "1"),
            "--radius": ("-1", "x"),
            "--steps": ("0",),
        },
    ),
    "record": (
        "m --out r",
        {
            **{flag: values for flag, values in SELECTION.items() if flag not in ("--out", "--name")},
            "--metric": ("nope", "nope --published 3 --source x"),
            "--published": ("x", "3"),
            "--epochs": ("x", "0", "2"),
            "--source": ("x",),
            "--sd": ("x", "1", "-1 --published 5 --source x"),
            "--n": ("0", "3"),
            "--what": ("x",),
            "--why": ("x",),
            "--unit": ("x",),
            "--name": ("x/y",),
            "--out": (),
            "--title": (),  # another place, and any text
        },
    ),
    "checklist": ("nope", {flag: WITHOUT_RUNS[flag] if flag == "--data-dir" else () for flag in WITHOUT_RUNS}),
    "report": ("nope", {flag: WITHOUT_RUNS[flag] if flag == "--data-dir" else () for flag in WITHOUT_RUNS}),
    "evidence": ("", {**WITHOUT_RUNS, "--page": ("file",)}),
    "toy": ("", EXPERIMENT),
    "spiking": ("", EXPERIMENT),
    "stdp": ("", EXPERIMENT),
    "figure": ("1", {**RECIPE, "--search-flags": ('"--a \'b"',)}),
    "figures": ("", RECIPE),
}


def flags_of(parser: Parser) -> set[str]:
    """The first name of every flag that takes a value."""
    return {action.option_strings[0] for action in parser._actions if action.option_strings and action.nargs != 0}


@pytest.mark.parametrize("name", TABLES)
def test_every_flag_of_a_command_is_in_the_table(name: str) -> None:
    _, parser, table = TABLES[name]
    assert flags_of(parser) <= set(table)


@pytest.mark.parametrize("name", analysis.VERBS)
def test_every_flag_of_an_analysis_is_in_the_table(name: str) -> None:
    assert flags_of(analysis.parser(analysis.VERBS[name])) == set(ANALYSIS[name][1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run, which is also the current one, and files that are no folders."""
    folder = tmp_path_factory.mktemp("flags")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEBB_HOME", str(folder))
        (folder / "file").write_text("no marks\n")
        (folder / "empty.json").write_text("")
        changes = "dataset_sup.epochs=1 dataset_sup.samples=40 dataset_unsup.samples=40"
        main(shlex.split(f"train --preset '{NETWORK}' --dataset Digits --threads 1 --model-name m --set {changes}"))
        networks = folder / "hebb" / "result" / "network"
        shutil.copytree(networks / "m", networks / "cut", ignore=shutil.ignore_patterns("result.json"))
        for name, stored in (("m", "m"), ("n", "m")):
            shutil.copytree(networks / stored, folder / name)
        yield folder


def refused(line: str, flag: str) -> None:
    with pytest.raises(ConfigError) as raised:
        main(shlex.split(line))
    text = str(raised.value)
    place = text.splitlines()[0].partition(": ")[0]
    assert place == flag or place.startswith((f"{flag} ", f"{flag},")), text
    assert place.count(flag) == 1, f"said twice: {text}"
    assert len(text.splitlines()) <= 3


@pytest.mark.parametrize("verb", ["train", "search", "post-hoc"])
def test_a_dry_run_looks_at_stored_blocks(home: Path, verb: str) -> None:
    for name, message in (("nope/b0", "no stored block nope/b0"), ("m/b0", r"resume=m/b0: weights must be \(7,")):
        network = f"Soft-c7-k3-p1-t1:bn:triangle:max_2_2_0:resume={name} BP:flatten"
        with pytest.raises(ConfigError, match=f"b0: {message}"):
            main([verb, "--dry-run", "--dataset", "Digits", "--preset", network])


LINES = [
    (start, flag, value) for start, _, table in TABLES.values() for flag, values in table.items() for value in values
]
DRAWN = [(f"{name} {runs}", flag, value) for name, (runs, t) in ANALYSIS.items() for flag in t for value in t[flag]]


@pytest.mark.parametrize(("start", "flag", "value"), LINES, ids=[" ".join(line) for line in LINES])
def test_an_error_begins_with_the_flag(home: Path, start: str, flag: str, value: str) -> None:
    other_use = flag in ("--list", "--resume-run", "--evaluate", "--run-config", "--export-features")
    refused(f"{start.removesuffix(' --dry-run') if other_use else start} {flag} {value}", flag)


@pytest.mark.parametrize(("start", "flag", "value"), DRAWN, ids=[" ".join(line) for line in DRAWN])
def test_an_error_of_an_analysis_begins_with_the_flag(home: Path, start: str, flag: str, value: str) -> None:
    refused(f"analysis {start} {flag} {value}", flag)
