"""What needs no torch runs without it, and says in numbers what will be trained.

Help, lists, dry runs and every mistake of configuration take well under a second,
because torch, torchvision, scikit-learn and Ray are not imported. The parameter counts, updates and defaults
expected here are worked out by hand, or read in the README of the published code.

Without it help would take seconds, and a dry run could announce what is not trained.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Command
from light import light

from hebb.config import catalog
from hebb.config.serialise import to_json
from hebb.config.specs import RunConfig


@pytest.mark.parametrize("alone", [True, False])
def test_the_block_holds(alone: bool, tmp_path: Path) -> None:
    """The control: a run does ask for torch, and ends without it."""
    found = light(tmp_path, "multi_layer.py", "--dataset", "Digits_1", alone=alone)
    assert "torch" in found.asked
    assert found.code != 0


SCRIPTS = ("multi_layer.py", "ray_search.py", "demo.py")
DONE = [
    *(f"{script} {rest}" for script in SCRIPTS for rest in ("--help", "-h", "--help-all", "--dry-run")),
    *(
        f"{script} --list {what}"
        for script in SCRIPTS
        for what in ("presets", "datasets", "methods", "paths", "configs")
    ),
    "multi_layer.py --dry-run --preset 6SoftHebbCnnImNet --dataset ImageNet_1160",
    "multi_layer.py --dry-run --gpu-id 3 --validation",
    "multi_layer.py --dry-run --train simultaneous --training-blocks 1",
    "ray_search.py --dry-run --config radius --preset 2SoftMlpMNIST --dataset-unsup MNIST_1-32 --dataset-sup MNIST_10",
    "ray_search.py --dry-run --config regimes --validation-sup",
    "analysis.py --help",
    "analysis.py table --help",
]


NEW = ("multi_layer.py --dry-run", "ray_search.py --dry-run", "demo.py --help", "analysis.py --help")
"""Lines that are also run in a process of their own, one for each script."""


@pytest.mark.parametrize(("line", "alone"), [*((line, False) for line in DONE), *((line, True) for line in NEW)])
def test_done_without_torch(line: str, alone: bool, tmp_path: Path) -> None:
    found = light(tmp_path, *shlex.split(line), alone=alone)
    assert found.code == 0, found.err
    assert found.asked == []
    assert found.err == ""
    assert len(found.out.splitlines()) > 3
    assert "\x1b" not in found.out, "an escape sequence, though stdout is not a terminal"
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "flag": "multi_layer.py --presett 2CnnDigits",
    "flag of ray_search": "ray_search.py --resume-run x",
    "flag of demo": "demo.py --pretrain",
    "value of a flag": "multi_layer.py --save perhaps",
    "verb": "analysis.py tabl mine",
    "runs": "analysis.py table nothere",
    "list": "multi_layer.py --list preset",
    "preset": "multi_layer.py --preset 2SoftHebbCnnCIFA",
    "preset of ray_search": "ray_search.py --preset 2SoftHebbCnnCIFA",
    "preset of demo": "demo.py --preset 2SoftHebbCnnCIFA",
    "preset file": "multi_layer.py --preset-file nothere.json",
    "dataset": "multi_layer.py --dataset CIFAR",
    "sizes": "multi_layer.py --dataset-sup Digits --dataset-unsup MNIST",
    "method": "multi_layer.py --preset 'Sof-c8-k3:bn BP:flatten'",
    "token": "multi_layer.py --preset 'Soft-c8-kk3:bn BP:flatten'",
    "unused token": "multi_layer.py --preset 'Soft-c8-k3-a1:bn BP:flatten'",
    "activation": "multi_layer.py --preset 'Soft-c8-k3:trangle BP:flatten'",
    "pool": "multi_layer.py --preset 'Soft-c8-k3:max_2 BP:flatten'",
    "shape": "multi_layer.py --preset 'Soft-c8-k9:bn BP:flatten'",
    "flatten": "multi_layer.py --preset 'Soft-c8-k3:bn BP'",
    "loss": "multi_layer.py --train simultaneous --preset 'BP-c8-k3 Soft-c10:flatten'",
    "mode": "multi_layer.py --training-mode succesive",
    "training block": "multi_layer.py --training-blocks 9",
    "override": "multi_layer.py --set b0.layer.lrr=1",
    "override value": "multi_layer.py --set dataset_sup.epochs=0",
    "seed": "multi_layer.py --seed -1",
    "threads": "multi_layer.py --threads 0",
    "GPU": "multi_layer.py --gpu-id first",
    "GPU of ray_search": "ray_search.py --gpu-id first",
    "device": "multi_layer.py --gpu-id 0 --device cpu",
    "model name": "multi_layer.py --model-name ../x",
    "folder name": "ray_search.py --folder-name ../x",
    "resume": "multi_layer.py --resume all",
    "resume of ray_search": "ray_search.py --resume all",
    "resume-run": "multi_layer.py --resume-run nothere",
    "run config": "multi_layer.py --run-config nothere.json",
    "run config beside preset": "multi_layer.py --run-config nothere.json --preset 2CnnDigits",
    "search config": "ray_search.py --config sed",
    "search file": "ray_search.py --config nothere.yaml",
    "metric": "ray_search.py --metric test_ac",
    "samples": "ray_search.py --num-samples 5",
    "stored search": "ray_search.py --folder-name mine",
    "stored run": "multi_layer.py --model-name mine",
    "GPU of an interrupted run": "multi_layer.py --resume-run {folder} --gpu-id first",
}


@pytest.mark.parametrize("line", [pytest.param(line, id=name.replace(" ", "-")) for name, line in REFUSED.items()])
def test_refused_without_torch(line: str, tmp_path: Path) -> None:
    run = tmp_path / "home" / "hebb" / "result" / "network" / "mine"
    search = tmp_path / "home" / "hebb" / "search" / "mine"
    if "mine" in line:
        for folder, name in ((run, "config.json"), (run, "result.json"), (search, "search.json")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
    if "{folder}" in line:
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(_config()))
    found = light(tmp_path, *shlex.split(line.format(folder=run)))
    assert found.asked == []
    assert found.code == 2
    assert "Traceback" not in found.err
    assert next(text for text in found.err.splitlines() if not text.endswith(" ...")).startswith("error: ")


def _config() -> dict[str, object]:
    """Return the content of the ``config.json`` of a run."""
    known = catalog.load()
    data = known.dataset("Digits", "test")
    network = known.network("2CnnDigits")
    return to_json(RunConfig(network=network, mode="successive", dataset_sup=data, dataset_unsup=data))


@pytest.mark.parametrize("line", ["--help", "--dry-run", "--list presets", "--preset nonsense"])
def test_well_under_a_second(line: str, tmp_path: Path) -> None:
    """Measured in CPU time, which other processes on the machine do not stretch much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    light(tmp_path, "multi_layer.py", *line.split(), alone=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


# -- the dry run --------------------------------------------------------------------------------------------


@pytest.fixture
def command(inside: Command) -> Command:
    """What is printed is the same in this process."""
    return inside


def cells(text: str, first: str) -> list[str]:
    """Return the words of the only line whose first word is ``first``."""
    found = [line.split() for line in text.splitlines() if line.split()[:1] == [first]]
    assert len(found) == 1, text
    return found[0]


CIFAR = ("--preset", "4SoftHebbCnnCIFAR", "--dataset-unsup", "CIFAR10_1", "--dataset-sup", "CIFAR10_50")

# conv: c_out c_in k^2 weights, (W + 2p - k)/s + 1 pixels; pool: (W + 2p - k)/s + 1, rounded down
NETWORK = {
    "b0": ("3x32x32", "96x16x16", 96 * 3 * 5 * 5),  # conv 32 + 4 - 5 + 1 = 32, pool (32 + 2 - 4)/2 + 1 = 16
    "b1": ("96x16x16", "384x8x8", 384 * 96 * 3 * 3),  # conv 16 + 2 - 3 + 1 = 16, pool (16 + 2 - 4)/2 + 1 = 8
    "b2": ("384x8x8", "1536x4x4", 1536 * 384 * 3 * 3),  # conv 8 + 2 - 3 + 1 = 8, pool (8 - 2)/2 + 1 = 4
    "b3": ("1536x4x4", "10", 1536 * 4 * 4 * 10 + 10),  # 24,576 features to 10 classes, and biases
}


def test_counts_by_hand() -> None:
    assert [f"{count:,}" for *_, count in NETWORK.values()] == ["7,200", "331,776", "5,308,416", "245,770"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_dry_run_prints_the_network(script: str, command: Command) -> None:
    done = command(script, "--dry-run", *CIFAR)
    assert done.returncode == 0, done.stderr
    for name, (into, out, count) in NETWORK.items():
        row = cells(done.stdout, name)
        assert row[-3:] == [into, out, f"{count:,}"]
    assert [f"{sum(count for *_, count in NETWORK.values()):,}"] in [line.split() for line in done.stdout.splitlines()]


def phases(text: str) -> list[list[str]]:
    """Return the words of the rows of phases: number, kind, blocks, data, epochs, batch, updates."""
    rows = [line.split() for line in text.splitlines()]
    return [row for row in rows if len(row) > 5 and row[0].isdigit() and row[1] in ("hebbian", "backprop", "joint")]


def test_phases_one_block_after_the_other(command: Command) -> None:
    """50,000 images / 10 = 5,000 updates a Hebbian block; 50 epochs x ceil(50,000 / 64) = 50 x 782 = 39,100."""
    done = command("multi_layer.py", "--dry-run", *CIFAR)
    assert "successive" in done.stdout
    found = phases(done.stdout)
    assert [row[:3] for row in found] == [
        ["0", "hebbian", "b0"],
        ["1", "hebbian", "b1"],
        ["2", "hebbian", "b2"],
        ["3", "backprop", "b3"],
    ]
    assert [row[-3:] for row in found] == [["1", "10", "5,000"]] * 3 + [["50", "64", "39,100"]]
    assert "54,100 updates" in done.stdout  # 3 x 5,000 + 39,100


@pytest.mark.parametrize("script", ["demo.py", "multi_layer.py"])
def test_phases_all_hebbian_blocks_together(script: str, command: Command) -> None:
    """``demo.py`` is what its text says; the same flags give the same table."""
    flags = () if script == "demo.py" else (*CIFAR, "--training-mode", "consecutive")
    done = command(script, "--dry-run", *flags)
    assert "consecutive" in done.stdout
    found = phases(done.stdout)
    assert [row[:2] for row in found] == [["0", "hebbian"], ["1", "backprop"]]
    assert found[0][2:5] == ["b0", "b1", "b2"]
    assert [row[-3:] for row in found] == [["1", "10", "5,000"], ["50", "64", "39,100"]]
    assert "44,100 updates" in done.stdout


def test_validation_holds_out_a_fifth(command: Command) -> None:
    """40,000 images: 4,000 updates of 10, and 50 x 625 of 64."""
    done = command("multi_layer.py", "--dry-run", *CIFAR, "--validation")
    assert [row[-1] for row in phases(done.stdout)] == ["4,000"] * 3 + ["31,250"]


def test_a_search_counts_its_runs(command: Command) -> None:
    """Four seeds from 0; ``--seed`` is added to each."""
    done = command("ray_search.py", "--dry-run", *CIFAR)
    assert "4 trials" in done.stdout
    assert "seeds 0 1 2 3" in done.stdout
    assert "216,400 in 4 runs" in done.stdout  # 4 x 54,100
    assert "seeds 10 11 12 13" in command("ray_search.py", "--dry-run", *CIFAR, "--seed", "10").stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--preset", "2SoftHebbCnnCIFAR"), "network 2SoftHebbCnnCIFAR"),
        (("--dataset", "CIFAR100"), "CIFAR100, 50,000 images"),
        (("--dataset-sup", "CIFAR10_10"), "CIFAR10, 50,000 images"),
        (("--training-mode", "successive"), "phases (successive)"),
        (("--train", "simultaneous"), "phases (simultaneous)"),
        (("--set", "seed=4"), "seed 4,"),
    ],
)
def test_flags_win_over_those_of_the_demo(flags: tuple[str, ...], says: str, command: Command) -> None:
    """As the text of ``demo.py`` promises: every flag of ``multi_layer.py`` works and wins."""
    done = command("demo.py", "--dry-run", *flags)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


# -- the flags of the published README ----------------------------------------------------------------------

SHARED_FLAGS = (
    "preset",
    "dataset-sup",
    "dataset-unsup",
    "training-mode",
    "resume",
    "model-name",
    "training-blocks",
    "seed",
    "gpu-id",
    "gpu_id",
    "save",
)
README = {
    "multi_layer.py": (*SHARED_FLAGS, "validation"),
    "ray_search.py": (
        *SHARED_FLAGS,
        "metric",
        "folder-name",
        "num-samples",
        "validation-sup",
        "validation-unsup",
        "gpu-exp",
        "config",
    ),
}
DEFAULTS = [  # script, flag, what --help-all must call its default
    ("multi_layer.py", "resume", "None"),
    ("multi_layer.py", "model-name", "preset"),
    ("multi_layer.py", "training-blocks", "all"),
    ("multi_layer.py", "seed", "0"),
    ("multi_layer.py", "gpu-id", "GPU 0"),
    ("multi_layer.py", "save", "true"),
    ("multi_layer.py", "validation", "false"),
    ("ray_search.py", "resume", "None"),
    ("ray_search.py", "metric", "test_acc"),
    ("ray_search.py", "training-blocks", "all"),
    ("ray_search.py", "seed", "0"),
    ("ray_search.py", "gpu-id", "GPU 0"),
    ("ray_search.py", "save", "true"),
    ("ray_search.py", "validation-sup", "false"),
    ("ray_search.py", "validation-unsup", "false"),
    ("ray_search.py", "config", "seed"),
]


@pytest.fixture(scope="module")
def helps() -> dict[str, dict[str, str]]:
    """What ``--help-all`` says about each flag, by script and flag."""
    found = {}
    for script in README:
        text = subprocess.run(
            [sys.executable, str(ROOT / script), "--help-all"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        entries = re.split(r"\n  (?=-)", text)[1:]  # "--gpu-id N|cpu, --gpu_id N|cpu", two spaces or a new line, text
        heads = [re.split(r"  |\n", entry, maxsplit=1)[0] for entry in entries]
        found[script] = {
            flag: " ".join(entry.split())
            for head, entry in zip(heads, entries, strict=True)
            for flag in re.findall(r"--([\w-]+)", head)
        }
    return found


@pytest.mark.parametrize(("script", "flag"), [(script, flag) for script, flags in README.items() for flag in flags])
def test_published_flag(script: str, flag: str, helps: dict[str, dict[str, str]]) -> None:
    assert flag in helps[script]


@pytest.mark.parametrize(("script", "flag", "default"), DEFAULTS)
def test_published_default(script: str, flag: str, default: str, helps: dict[str, dict[str, str]]) -> None:
    stated = re.findall(r"\(default: ([^)]*)\)", helps[script][flag])
    assert len(stated) == 1, helps[script][flag]
    assert re.search(rf"\b{default}\b", stated[0])


@pytest.mark.parametrize(
    "line",
    [
        "multi_layer.py --seed 0 --resume None --save True --validation False --training-blocks 0 1 2 3",
        "ray_search.py --seed 0 --resume None --save True --validation-sup False --validation-unsup False"
        " --metric test_acc --config seed --num-samples 1 --gpu-exp 1 --training-blocks 0 1 2 3",
    ],
)
def test_published_defaults_change_nothing(line: str, command: Command) -> None:
    script, *flags = line.split()
    plain = command(script, "--dry-run", *CIFAR)
    given = command(script, "--dry-run", *CIFAR, *flags)
    assert given.returncode == plain.returncode == 0, given.stderr
    assert given.stdout == plain.stdout


@pytest.mark.parametrize("flag", ["--gpu-id", "--gpu_id"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_spellings_of_the_gpu(script: str, flag: str, command: Command) -> None:
    assert "device cuda" in command(script, "--dry-run", flag, "0").stdout
    assert "device cpu" in command(script, "--dry-run", flag, "cpu").stdout


def test_published_example_of_a_search(command: Command) -> None:
    """``--dataset`` sets both datasets and ``--train`` is the training mode."""
    line = "--dataset CIFAR10 --train consecutive --preset 2HebbCnn --folder-name test0"
    done = command("ray_search.py", "--dry-run", *line.split())
    assert done.returncode == 0, done.stderr
    assert "network 2HebbCnn" in done.stdout
    assert "phases (consecutive)" in done.stdout
    found = phases(done.stdout)
    assert len(found) == 2
    assert all("CIFAR10," in row and row[-3:] == ["50", "64", "39,100"] for row in found)


def test_published_example_of_a_run(command: Command) -> None:
    line = "--gpu-id 2 --preset SoftKrotovCnnCIFAR --dataset-unsup CIFAR10_1 --dataset-sup CIFAR10_50"
    done = command("multi_layer.py", "--dry-run", *line.split())
    assert done.returncode == 0, done.stderr
    assert "device cuda" in done.stdout


def test_output_is_plain_without_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape sequences in a file, also where the environment names a colourful terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for line in ("multi_layer.py --dry-run", "multi_layer.py --help", "demo.py --list datasets", "ray_search.py --x"):
        done = command(*line.split())
        assert "\x1b" not in done.stdout + done.stderr


# -- threads ------------------------------------------------------------------------------------------------

_WATCH = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(f"torch comes with {os.environ.get('GOMP_SPINCOUNT')}", flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path[0] = %r
runpy.run_path(script, run_name="__main__")
"""
RUNS = (
    "multi_layer.py --dataset Digits_1",
    "ray_search.py --dataset Digits_1",
    "post_hoc_loss.py --dataset Digits_1",
    "demo.py --dataset Digits_1",
    "hebb/__main__.py train --dataset Digits_1",
)
BENCHMARKS = ("classifier_epoch", "energy_step", "hebbian_step", "krotov_step", "lpl_step", "pack")


def spins(line: str, folder: Path, **environment: str) -> str:
    """What GOMP_SPINCOUNT is when a command asks for torch, where it ends."""
    script, *words = line.split()
    rest = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _WATCH % str(ROOT), str(ROOT / script), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**rest, "HEBB_HOME": str(folder / "home"), **environment},
    )
    return done.stdout.rpartition("torch comes with ")[2].strip() or done.stderr


@pytest.mark.parametrize("line", [*RUNS, *(f"benchmarks/{name}.py" for name in BENCHMARKS)])
def test_idle_threads_are_told_how_to_wait_before_torch_reads_it(line: str, tmp_path: Path) -> None:
    """Torch reads the variable when it is loaded; set later, Krotov's ranking silently takes twice the time."""
    assert spins(line, tmp_path) == "10000"


@pytest.mark.parametrize(
    ("variable", "value", "expected"), [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "active", "None")]
)
def test_what_the_user_says_of_waiting_threads_stays(variable: str, value: str, expected: str, tmp_path: Path) -> None:
    assert spins(RUNS[0], tmp_path, **{variable: value}) == expected


def test_import_changes_nothing_outside_the_package() -> None:
    """A library that changes its host's environment or threads makes other code slower, and nobody finds out why."""
    code = (
        "import os, sys; before = dict(os.environ); import hebb; hebb.Field, hebb.HebbianRule, hebb.register\n"
        "assert dict(os.environ) == before and not {'torch', 'numpy', 'ray', 'rich'} & set(sys.modules)\n"
        "for name in hebb.__all__: getattr(hebb, name)\n"
        "assert {*hebb.__all__} <= {*dir(hebb)}; from hebb import *\n"
        "try: hebb.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('a name that does not exist')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


SLOW = {"importlib.metadata", "tempfile", "email.message", "numpy", "pandas"}
"""Modules of 5 ms and more that no help needs."""


@pytest.mark.parametrize("script", ["multi_layer.py", "ray_search.py"])
def test_help_imports_no_slow_module(script: str, tmp_path: Path) -> None:
    """Each of them makes every help and every mistake of a flag some hundredths slower, one by one unnoticed."""
    line = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {row.rsplit("|", 1)[-1].strip() for row in done.stderr.splitlines() if row.startswith("import time:")}
    assert "hebb.cli.arguments" in imported, "the table is read"
    assert not imported & SLOW
