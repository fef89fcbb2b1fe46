"""The real commands train LPL on Digits: a preset by name, its rivals, the ablations as a search, bad input.

Without it LPL could work in tests of its parts and not from the command line.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, Command

from hebb.storage import folders

SMALL = ("dataset_unsup.epochs=2", "dataset_unsup.samples=150", "dataset_sup.epochs=4", "b*.layer.warmup=1")
DATA = ("--dataset-unsup", "Digits_lpl", "--dataset-sup", "Digits_20", "--gpu-id", "cpu", "--threads", "1")


@pytest.fixture
def command(inside: Command) -> Command:
    """In this process, which has torch already."""
    return inside


def test_a_preset_by_name_with_its_readouts(command: Command, tmp_path: Path) -> None:
    flags = ("--preset", "3LPLCnnDigits", *DATA, "--probe", "short", "linear", "geometry", "--model-name", "m")
    done = command("multi_layer.py", *flags, "--set", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "phase 0: hebbian b0 b1" in done.stdout
    assert "pull" in done.stdout and "decorr" in done.stdout
    stored = json.loads((tmp_path / "home/hebb/result/network/m/result.json").read_text())
    assert stored["metrics"]["test_acc"] > 30
    assert [(p["block"], p["kind"]) for p in stored["probes"]] == [(b, k) for b in (0, 1) for k in ("short", "linear")]
    assert all(g["dimensionality"] >= 1 for g in stored["geometry"])
    config = json.loads((tmp_path / "home/hebb/result/network/m" / folders.CONFIG).read_text())
    assert config["mode"] == "consecutive"
    again = command(
        "multi_layer.py", "--run-config", str(tmp_path / "home/hebb/result/network/m/config.json"), "--model-name", "n"
    )
    assert again.returncode == 0, again.stderr
    other = json.loads((tmp_path / "home/hebb/result/network/n/result.json").read_text())
    assert (other["probes"], other["geometry"]) == (stored["probes"], stored["geometry"])


@pytest.mark.parametrize(
    "changes",
    [
        ("b*.layer.pooling=0",),
        ("b*.layer.projector=1", "b*.layer.projector_hidden=32", "b*.layer.projector_out=16"),
        ("b*.layer.loss=above", "b1.layer.loss=own"),
        ("b*.method=SupervisedLPL",),
        ("b*.method=ContrastiveLPL", "b*.layer.projector_hidden=32"),
        ("b*.layer.stale=1", "b*.layer.shuffle=1"),
    ],
)
def test_variants_by_overrides(changes: tuple[str, ...], command: Command) -> None:
    tiny = ("dataset_unsup.epochs=1", "dataset_unsup.samples=150", "dataset_sup.epochs=1", "b*.layer.warmup=0")
    done = command("multi_layer.py", "--preset", "3LPLCnnDigits", *DATA, "--set", *tiny, *changes)
    assert done.returncode == 0, done.stderr
    assert "b1: loss " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "b0.layer.pol=0"), "did you mean"),
        (("--set", "b*.layer.warmup=40"), "warmup must be < 40"),
        (("--set", "b0.layer.loss=beneath"), "own or above"),
        (("--set", "b*.layer.loss=above"), "b1: learns from the loss of b2"),
        (("--set", "dataset_unsup.view_area=2"), "view_area"),
        (("--preset", "LPL-c8-k3-decor5:relu BP:flatten"), "did you mean 'decorr5'"),
        (("--preset", "LPL-c8-k3-t1:relu BP:flatten"), "does nothing for LPL"),
        (("--probe", "geometri"), "did you mean 'geometry'"),
        (("--dataset-unsup", "Shapes3D_sequence"), "did you mean 'Shapes3D_sequences'"),
    ],
)
def test_bad_input_is_answered_in_three_lines(command: Command, arguments: tuple[str, ...], message: str) -> None:
    flags = {"--preset": "3LPLCnnDigits", "--dataset-unsup": "Digits_lpl"}
    words = [word for flag, value in flags.items() if flag not in arguments for word in (flag, value)]
    done = command("multi_layer.py", *words, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 3


@pytest.mark.ray
@pytest.mark.slow
def test_the_ablations_as_a_search(one_ray: None, command: Command, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "search_configs" / "lpl_ablations.yaml").read_text())
    config["space"]["terms"]["joint"] = config["space"]["terms"]["joint"][:3:2]  # all terms, and without the push
    config["seeds"] = [0]
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(config))
    flags = ("--preset", "3LPLCnnDigits", *DATA, "--config", str(tmp_path / "few.yaml"), "--folder-name", "s")
    changes = ("dataset_unsup.epochs=20", "dataset_sup.epochs=10", "dataset_unsup.samples=400")
    done = command("ray_search.py", *flags, "--set", *changes)
    assert done.returncode == 0, done.stdout + done.stderr
    results = pd.read_csv(tmp_path / "home/hebb/search/s/results.csv").set_index("configuration").test_acc
    collapsed = results[[name for name in results.index if "push=0" in name]]
    assert len(results) == 2 and len(collapsed) == 1
    assert collapsed.iloc[0] < results.max() - 20
