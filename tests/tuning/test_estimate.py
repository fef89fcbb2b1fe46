"""``--estimate``: what is counted, by hand; never how long anything took.

Without it `--estimate` could promise an hour for a day.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import small
import torch
from conftest import Command

from hebb.cli import search
from hebb.config import catalog, plan
from hebb.config.vocabulary import Role
from hebb.data import images
from hebb.nn import model
from hebb.training.epoch import Scores
from hebb.tuning import estimate

EP = "EP-c12:flatten EP"


@pytest.mark.parametrize(
    ("network", "changes", "expected"),
    [
        # a network that settles tells its accuracy on the training images too, and has to settle for it
        (EP, (), [["train", "test"]]),
        (EP, ("dataset_sup.validation=0.2",), [["train", "val"]]),
        # the others know theirs from training; convolutions that learn by themselves have none
        (small.CNN, (), [[], ["test"]]),
        (small.CNN, ("dataset_sup.validation=0.2",), [[], ["val"]]),
        (small.MLP, (), [["train", "test"], ["test"]]),  # neurons are labelled by the training images
    ],
)
def test_the_splits_that_an_evaluation_reads(network: str, changes: tuple[str, ...], expected: list[list[str]]) -> None:
    config = small.config(network, *changes)
    trained, phases = model.build(config), plan.phases(config)
    data = images.load(config.dataset_sup, Path("nowhere"), 0, torch.device("cpu"))
    for index, names in enumerate(expected):
        phase, few = phases[index], next(iter(data.train.batches(40)))
        if phase.first:
            few = (trained(few[0], stop=phase.first).detach(), few[1])
        split = images.Split(*few)
        _, scores = estimate._epoch(config, trained, 1, split, phase, index)
        assert estimate._evaluation(trained, split, phase, data, scores)[1] == names


def test_mirror_images_pass_the_frozen_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the evaluation reads the training images as well: with a second an image, those read are the seconds."""
    network = "Soft-c30-t12-r10:flatten:softmax_5 Soft-c20-t12-r10:softmax_5 BP"
    both = [f"dataset_{role}.{change}" for role in Role for change in ("mirror=true", "epochs=2")]
    config = small.config(network, *both, mode="successive")
    phases = plan.phases(config)
    data = images.load(config.dataset_unsup, Path("nowhere"), 0, torch.device("cpu"))
    monkeypatch.setattr(estimate, "_read", lambda split, *_: (1.0, split))
    monkeypatch.setattr(estimate, "_epoch", lambda *_: (0.0, Scores()))
    monkeypatch.setattr(estimate, "_evaluation", lambda *_: (0.0, ["train", "test"]))
    assert (phases[1].kind, phases[1].first) == ("hebbian", 1)
    seconds = estimate._of_phase(config, model.build(config), data, phases, 1, keep=True)
    assert seconds == 2 * 200 + len(data.test)


@pytest.mark.parametrize(
    ("flags", "groups", "units"),
    [
        ("--space 'b0.layer.lr={grid: [0.1, 0.2]}'", 6, 1),
        ("--space 'b0.layer.lr={grid: [0.1, 0.2]}' --pack-seeds 2", 4, 1),
        ("--space 'b0.layer.lr={grid: [0.1, 0.2]}' --scheduler asha", 2, 3),
        ("--space 'b0.layer.lr={grid: [0.1, 0.2]}' --scheduler asha --pack-seeds 2", 2, 2),
        ("--space 'b0.layer.lr={uniform: [0.1, 0.2]}' --algorithm optuna --num-samples 5", 5, 3),
    ],
)
def test_seeds_of_a_configuration_that_is_judged_as_a_whole_are_trained_in_turn(
    flags: str, groups: int, units: int, tmp_path: Path
) -> None:
    line = f"--preset '{small.CNN}' --dataset Digits --seeds 0 1 2 --data-dir {tmp_path} {flags}"
    planned = search.resolve(search.parser().parse(shlex.split(line)), catalog.load())
    assert estimate._work(planned) == (groups, units)


@pytest.mark.parametrize(("groups", "places", "rounds"), [(6, 2, 3), (7, 2, 4), (7, 10, 1), (7, None, 1), (0, None, 0)])
def test_the_last_round_may_leave_places_empty(groups: int, places: int | None, rounds: int) -> None:
    assert estimate._rounds(groups, places) == rounds


def test_a_trial_that_no_machine_has_room_for(inside: Command) -> None:
    data = ("--preset", EP, "--dataset", "Digits", "--config", "one_seed", "--threads", "999", "--estimate")
    done = inside("ray_search.py", *data)
    assert done.returncode == 2
    assert "a trial needs 999 cores" in done.stderr


def test_the_command_says_hours_and_disk_and_leaves_nothing(inside: Command, tmp_path: Path) -> None:
    """Two configurations on two seeds and three final runs: seven runs, of which one at a time runs on one worker."""
    space = ("--space", "settle.beta={grid: [0.5, 1]}", "--purpose", "search", "--seeds", "0", "1", "--workers", "1")
    data = ("--preset", EP, "--dataset", "Digits", "--threads", "1", "--device", "cpu")
    done = inside("ray_search.py", *data, "--config", "one_seed", *space, "--estimate")
    assert done.returncode == 0, done.stderr
    costs = r"^7 runs, about .* 1 at a time on cpu with 1 thread: \d+ (s|min), [\d.]+ [kM]B"
    assert re.search(costs, done.stdout, re.M)
    assert list(tmp_path.iterdir()) == []
