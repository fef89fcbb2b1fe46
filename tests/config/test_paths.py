"""The list of paths is complete, and says of each what it does.

Without it a setting could exist that no list and no page names.
"""

from __future__ import annotations

import re

import pytest
import small

from hebb.config import catalog, controls, overrides, paths

LISTED = {path.name: path for group in paths.paths().values() for path in group}


def listed(path: str) -> str:
    """Return the name under which a path of a run is listed."""
    path = re.sub(r"^b\d+\.", "bN.", path)
    return re.sub(r"^(bN\.layer|settle|dataset_unsup)\..*", r"\1.NAME", path)


@pytest.mark.parametrize("network", [small.CNN, small.BP, "EP-c16:flatten EP"])
def test_every_path_of_a_run_is_listed(network: str) -> None:
    config = small.config(network)
    assert {listed(path) for path in overrides.values(config)} <= set(LISTED)


def test_every_listed_path_can_be_set() -> None:
    known = {listed(path) for text in (small.CNN, "EP-c16:flatten EP") for path in overrides.values(small.config(text))}
    assert set(LISTED) - known == {"bN.preset", controls.PATH}


@pytest.mark.parametrize("name", LISTED)
def test_every_path_has_a_meaning(name: str) -> None:
    assert re.match(r"\S.*[^.\s]$", LISTED[name].meaning)


@pytest.mark.parametrize("name", [name for name, path in LISTED.items() if path.default not in ("", "none")])
def test_a_listed_default_is_one_that_can_be_typed(name: str) -> None:
    config = small.config(small.CNN)
    path = name.replace("bN", "b1")
    changed = overrides.apply(config, {path: LISTED[name].default}, catalog.load())
    if name != controls.PATH:
        value = overrides.values(changed)[path]
        assert str(value).lower() == LISTED[name].default


def test_words_are_listed_as_choices() -> None:
    assert LISTED["classifier.schedule"].legal == "step | cosine | decay | constant"
    assert LISTED["tf32"].legal == "none | convolutions | all"
    assert LISTED["dataset_sup.samples"].legal == "a whole number or none"
