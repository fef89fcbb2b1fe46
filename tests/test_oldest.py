"""Every promise of ``pyproject.toml`` has a lower bound, which ``make oldest`` installs.

Without it a dependency without a bound would be tested in its newest version alone.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import oldest
import pytest


def test_every_dependency_has_a_pin() -> None:
    project = tomllib.loads(oldest.PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    pins = oldest.pins(list(extras))
    names = {pin.partition("==")[0] for pin in pins}
    assert {"torch", "numpy", "ray", "pytest"} <= names
    bounds = {*project["dependencies"], *(text for texts in extras.values() for text in texts)}
    assert len(pins) == len([text for text in bounds if not text.startswith(project["name"])])


def test_pins_are_the_lower_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pyproject.toml"
    project = '[project]\nname = "me"\ndependencies = ["a>=1.2"]\n'
    path.write_text(f'{project}optional-dependencies = {{x = ["b[c]>=2", "d==3"], y = ["me[x]", "e>=4"]}}\n')
    monkeypatch.setattr(oldest, "PYPROJECT", path)
    assert oldest.pins([]) == ["a==1.2"]
    assert oldest.pins(["x"]) == ["a==1.2", "b==2", "d==3"]
    assert oldest.pins(["y"]) == ["a==1.2", "b==2", "d==3", "e==4"]


def test_a_dependency_without_a_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "me"\ndependencies = ["a"]\n')
    monkeypatch.setattr(oldest, "PYPROJECT", path)
    with pytest.raises(SystemExit, match="got a"):
        oldest.pins([])
