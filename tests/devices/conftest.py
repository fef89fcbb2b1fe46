"""Tests on pretended GPUs; ``pretended.py`` says what those are, and why these tests need a process of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from pretended import Log, gpus  # noqa: E402

from hebb.kernels import loops, matmul  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("devices")


@pytest.fixture
def small_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU's fast paths apply to small networks too, so that one that is taken on a GPU is seen."""
    monkeypatch.setattr(loops, "WORTH", 1)
    monkeypatch.setattr(matmul, "WORTH", 1)


@pytest.fixture
def log(small_is_worth: None) -> Iterator[Log]:
    """Two pretended GPUs."""
    with gpus() as log:
        yield log
