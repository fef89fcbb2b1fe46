"""The contract as an author of rules uses it: a folder outside the repository, with a rule and three lines of test.

Without it ``hebb.testing`` could lean on our conftest, or pass rules that break the equation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

RULE = '''"""{summary}."""

from hebb.config.fields import HEBBIAN
from hebb.config.registry import RULES, {record}


def signal(u, layer, labels):
    """{summary}."""
    import torch

    {body}


RULES.register({record}(name="Mine", summary="{summary}", source="here", fields=HEBBIAN, signal=signal))
'''

TEST = """\
import mine
from hebb.testing import RuleContract
class TestMine(RuleContract): method = "Mine"
"""

INSTAR = "return torch.zeros_like(u).scatter(1, u.argmax(dim=1, keepdim=True), 1.0)"

BROKEN = {
    "torch.zeros_like(u)[:, :1]": "the gate y has the shape of u",
    "u.relu_()": "the signal leaves u as it is",
    "u if u.max() > 0 else -u": "torch.vmap gives the signals of two networks as two calls do",
    "torch.zeros_like(u).index_fill(0, torch.tensor([0]), 1.0)": "the order of the samples does not matter",
    "u * torch.arange(u.shape[1])": "renaming inputs and neurons renames the change",
    "u - u.sum(dim=0)": "a batch shown twice gives the same change",
}
"""Signals, and the law that each breaks."""


def check(folder: Path, body: str, method: str = "Mine") -> subprocess.CompletedProcess[str]:
    """Write a rule and its test into a folder, and run pytest there."""
    (folder / "mine.py").write_text(RULE.format(summary="A rule of my own", record="HebbianRule", body=body))
    (folder / "test_mine.py").write_text(TEST.replace('"Mine"', f'"{method}"'))
    return run(folder)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_rule_outside_the_repository_passes(tmp_path: Path) -> None:
    done = check(tmp_path, INSTAR)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(("signal", "law"), BROKEN.items())
def test_a_broken_rule_names_the_law_it_breaks(tmp_path: Path, signal: str, law: str) -> None:
    done = check(tmp_path, f"return {signal}")
    assert done.returncode == 1, done.stdout
    assert f"Mine breaks a law: {law}" in done.stdout


def test_a_softmax_that_is_not_the_signal_breaks_a_law(tmp_path: Path) -> None:
    check(tmp_path, "return (2 * u).softmax(dim=1)")
    mine = tmp_path / "mine.py"
    mine.write_text(f"from hebb.config.rule import Softmax\n{mine.read_text()}")
    for beta, breaks in ((1.0, True), (2.0, False)):
        text = mine.read_text()
        mine.write_text(text.replace("signal=", f"softmax=lambda layer: Softmax({beta}), signal=", 1))
        done = run(tmp_path)
        assert ("Mine breaks a law: a softmax that is declared is the signal" in done.stdout) == breaks, done.stdout
        mine.write_text(text)


@pytest.mark.parametrize(("method", "message"), [("", "the name of a registered rule"), ("BP", "a Hebbian rule")])
def test_a_contract_without_a_rule_says_so(tmp_path: Path, method: str, message: str) -> None:
    done = check(tmp_path, INSTAR, method)
    assert done.returncode != 0
    assert f"TestMine.method must be {message}" in done.stdout + done.stderr
