"""Steps that other people's code computed: ours must repeat them, and the stored files must be whole.

Without it every rule could satisfy its own equation and still differ from the published algorithm.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN, ROOT

STEPS = sorted(GOLDEN.glob("*.npz"))
RIVALS = GOLDEN / "rivals"
BRACES = re.compile(r"\{([^}]*)\}")
ROW = re.compile(r"^\| `([^`]+)` \| (-|\([\d, ]*\)) \|", re.MULTILINE)
SECTION = re.compile(r"^## (\w+)\.npz.*?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = dict(SECTION.findall((RIVALS / "README.md").read_text()))


def replay(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "golden_replay.py"), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_our_layers_repeat_the_published_steps() -> None:
    """Breaks on any change of rate, normaliser, order of operations or padding that the rules' equations allow."""
    done = replay(*STEPS)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = dict(line.split() for line in done.stdout.splitlines())
    assert set(errors) == {path.stem for path in STEPS}
    assert all(float(error) <= 1e-5 for error in errors.values())


def test_every_published_step_is_here() -> None:
    """A file lost from the repository would silently be one replay fewer."""
    conv = {"conv_hard", "conv_soft", "conv_softkrotov", "conv_softkrotov_constantlr"}
    assert {path.stem for path in STEPS} == {*conv, "linear_hard", "linear_soft", "linear_softkrotov"}
    assert all({"x2", "u2", "dw2", "w3", "convergence"} <= set(arrays(path)) for path in STEPS)


@pytest.mark.parametrize("key", ["u1", "dw0", "w3", "convergence"])
def test_a_replay_notices_a_difference(tmp_path: Path, key: str) -> None:
    """A replay that compared nothing would pass every file."""
    bent = arrays(STEPS[0])
    bent[key] = bent[key] + 1e-3
    np.savez(tmp_path / "bent.npz", **bent)
    done = replay(tmp_path / "bent.npz")
    assert done.returncode == 1
    assert done.stdout.startswith("bent 0.001")


def test_a_replay_of_a_missing_file_says_so(tmp_path: Path) -> None:
    done = replay(tmp_path / "none.npz")
    assert done.returncode == 2
    assert "none.npz" in done.stderr
    assert "Traceback" not in done.stderr


# -- rivals ---------------------------------------------------------------------------------------------------


def expand(pattern: str) -> list[str]:
    """Every key that a pattern with braces stands for, as a shell expands it."""
    parts = BRACES.split(pattern)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def test_braces_expand_as_in_a_shell() -> None:
    assert expand("{a,b}.x{0,1}") == ["a.x0", "a.x1", "b.x0", "b.x1"]
    assert expand("plain") == ["plain"]


def test_every_rival_has_a_section() -> None:
    assert set(SECTIONS) == {path.stem for path in RIVALS.glob("*.npz")}


@pytest.mark.parametrize("rival", SECTIONS)
def test_a_rival_holds_what_its_page_says(rival: str) -> None:
    """A truncated or renamed array would be noticed only by whoever implements the method, years later."""
    shapes = {key: shape for pattern, shape in ROW.findall(SECTIONS[rival]) for key in expand(pattern)}
    stored = arrays(RIVALS / f"{rival}.npz")
    assert set(stored) == set(shapes)
    wrong = {key: stored[key].shape for key, shape in shapes.items() if shape not in ("-", str(stored[key].shape))}
    assert not wrong
    assert all(np.isfinite(array).all() for array in stored.values())
    assert not [key for key, array in stored.items() if ".f64." in key and array.dtype != np.float64]


@pytest.mark.parametrize("rival", SECTIONS)
def test_gradients_have_the_shape_of_their_parameters(rival: str) -> None:
    stored = arrays(RIVALS / f"{rival}.npz")
    for key, array in stored.items():
        parameter = re.sub(r"(^|\.)(distance\.)?(g\w*|adamw1)\.", r"\1p.", key, count=1)
        if parameter in stored:
            assert array.shape == stored[parameter].shape, key
