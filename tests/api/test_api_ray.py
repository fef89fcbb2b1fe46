"""Whose Ray it is: ``hebb.search`` uses one that is initialised, and else starts and stops its own.

Without it a search in a notebook could shut down the cluster that the notebook works with, or leave processes behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hebb

pytestmark = pytest.mark.ray

PRESET = "SoftKrotov-c8-k3-p1-t1-lr0.05:bn:triangle:max_2_2_0 BP:flatten"


def search() -> None:
    hebb.search(PRESET, data="Digits", seeds=(0,), threads=1, workers=1, overrides={"dataset_sup.samples": 100}).close()


def test_ray_belongs_to_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from hebb.tuning.ray_session import Resources, ray, session

    assert not ray.is_initialized()
    with session(Resources(cpus=1, gpu=0)):
        search()
        assert ray.is_initialized()
    assert not ray.is_initialized()
    search()
    assert not ray.is_initialized()
