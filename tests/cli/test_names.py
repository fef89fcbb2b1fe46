"""The names under which runs and searches are stored unless one is given.

Without it a run could be stored under a name that a shell takes apart, or be trained again under a second name.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from hebb.cli import arguments, search, train
from hebb.config import catalog
from hebb.storage import folders

CATALOG = catalog.load()
TWO = "'Hard-c64-k5:bn:triangle_0.7:max_2_2_0 BP:flatten'"


def name_of(line: str, home: Path) -> str:
    words = shlex.split(f"{line} --data-dir {home} --dataset Digits")
    run = train.resolve(train.parser().parse(words), CATALOG)
    return arguments.plain_name(run, folders.Home(home).network)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("2SoftHebbCnnDigits", "2SoftHebbCnnDigits"),
        (TWO, "Hard-c64+BP-*"),
        ("'Soft-c9:flatten BP'", "Soft-c9+BP-*"),
        ("'Soft-c9:flatten:relu BP-c7:relu Soft-c5:relu BP'", "Soft-c9+BP-c7+Soft-c5+BP-*"),
        (
            "'Soft-c9:flatten:relu Soft-c8:relu Soft-c7:relu Soft-c6:relu Soft-c5:relu BP'",
            "Soft-c9+Soft-c8+2more+Soft-c5+BP-*",
        ),
        ("'PC-c100:flatten PC'", "PC-c100+PC-*"),
        ("'Soft-lr0.1-c9:flatten BP'", "Soft-c9+BP-*"),
    ],
)
def test_names(network: str, name: str, tmp_path: Path) -> None:
    """They need no quotes, and fit into a file name with what is added to them."""
    given = name_of(f"--preset {network}", tmp_path)
    assert re.fullmatch(re.escape(name).replace(r"\*", "[0-9a-f]{10}"), given)
    assert shlex.quote(given) == given
    assert folders.checked_name(given, "--model-name") == given
    assert len(given) < 60


def test_the_same_run_has_the_same_name_and_others_have_others(tmp_path: Path) -> None:
    lines = [TWO, f"{TWO} --seed 1", f"{TWO} --set b0.layer.lr=0.3", TWO.replace("k5", "k3"), f"{TWO} --validation"]
    names = [name_of(f"--preset {line}", tmp_path) for line in lines]
    assert len(set(names)) == len(names)
    assert name_of(f"--preset {TWO}", tmp_path) == names[0]


@pytest.mark.parametrize("suffix", ["", "-s0"])
def test_what_an_earlier_version_stored_keeps_its_name(suffix: str, tmp_path: Path) -> None:
    """So it is refused or continued as before: runs, packs and searches."""
    digest = name_of(f"--preset {TWO}", tmp_path).rpartition("-")[2]
    folders.Home(tmp_path).network(f"inline-{digest}{suffix}").mkdir(parents=True)
    assert name_of(f"--preset {TWO}", tmp_path) == f"inline-{digest}"
    words = shlex.split(f"--preset {TWO} --data-dir {tmp_path} --config {ROOT}/search_configs/one_seed.yaml")

    def folder() -> str:
        return search.resolve(search.parser().parse(words), CATALOG).folder.name

    first = folder()
    assert re.fullmatch(r"Hard-c64\+BP-[0-9a-f]{10}-one_seed", first)
    earlier = first.replace("Hard-c64+BP", "inline")
    (tmp_path / "hebb" / "search" / earlier).mkdir(parents=True)
    assert folder() == earlier
