"""The short names ``train``, ``engine`` and ``model``: the very modules of the package, wherever they are imported.

If a door were a module of its own, it would hold a second copy of every class, and an object pickled under one name
would be foreign under the other. mypy reads this file, so the names below must be visible to it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

import engine
import hebb
import model
import train
from hebb.config import rule
from hebb.nn import model as nn_model
from hebb.training import engine as training_engine
from hebb.training import train as training_train

STEP: Callable[..., object] = engine.hebbian_step
NETWORK: type[nn_model.Network] = model.Network
RUN: Callable[..., object] = train.run
RULE: type[rule.Rule] = hebb.HebbianRule


def test_a_door_is_the_module_itself() -> None:
    assert engine is training_engine
    assert model is nn_model
    assert train is training_train
    assert (training_engine.hebbian_step, nn_model.Network, training_train.run) == (STEP, NETWORK, RUN)


def test_what_is_pickled_through_a_door_is_that_of_the_package() -> None:
    assert pickle.loads(pickle.dumps(train.run)) is training_train.run
    assert b"hebb.nn.model" in pickle.dumps(model.Network)


@pytest.mark.parametrize("first", ["train", "hebb.training.train"])
def test_the_order_of_imports_does_not_matter(first: str, tmp_path: Path) -> None:
    """In a process of its own: by the door first, or by the package first."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {first}\nimport train, hebb.training.train as t"
    subprocess.run([sys.executable, "-c", f"{code}\nassert train is t"], check=True, cwd=tmp_path)


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_door_pickles_through_a_ray_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from hebb.tuning.ray_session import ray

    def found_in_a_worker(step: object, network: object, run: object) -> tuple[bool, ...]:
        """Compare what was sent with what a worker imports under the short names."""
        import engine
        import hebb.training.train
        import model
        import train

        return step is engine.hebbian_step, network is model.Network, run is hebb.training.train.run is train.run

    remote = ray.remote(num_cpus=1)(found_in_a_worker)
    assert ray.get(remote.remote(engine.hebbian_step, model.Network, train.run), timeout=120) == (True, True, True)
