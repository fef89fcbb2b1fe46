"""When a Hebbian phase ends, what a learning block leaves alone, and the back-prop optimisers of the protocols.

Without it phases could stop too early, too late, or forget their patience after a restart.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import small
import torch
from conftest import Command
from torch import Tensor, nn

from hebb.config import catalog, overrides, plan, serialise
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.registry import RULES, HebbianRule
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.nn import model
from hebb.rules import rates
from hebb.storage import folders
from hebb.training import early_stop, engine, train
from hebb.training.epoch import Epoch

# -- the rules, on numbers ------------------------------------------------------------------------------------


class Layer:
    """Stands for a layer whose c is given, update by update."""

    def __init__(self, numbers: list[float]) -> None:
        self.weight = torch.zeros(1)
        self._numbers = iter(numbers)

    def norm_error(self) -> Tensor:
        return torch.tensor(next(self._numbers))


def epochs(spec: StopSpec, *layers: list[float], epoch: int = 2) -> int | None:
    """Return the epoch (from 1) after which a phase of two updates an epoch ends; None if it never does."""
    watch = early_stop.Watch(spec, [Layer(numbers) for numbers in layers], epoch)  # type: ignore[arg-type, list-item]
    for update in range(len(layers[0])):
        watch.update()
        if (update + 1) % epoch == 0 and watch.done():
            return (update + 1) // epoch
    return None


FALLING = [8.0, 4.0, 2.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("spec", "layers", "end"),
    [
        (StopSpec(convergence=0.3), [FALLING], 3),
        (StopSpec(convergence=0.25), [FALLING], None),  # below, not at
        (StopSpec(convergence=1.1), [[8.0, 1.0, 0.5, 2.0, 0.5, 1.0]], 1),
        (StopSpec(convergence=1.1), [[8.0, 2.0, 0.5, 2.0, 0.5, 1.0]], 3),  # the last of an epoch counts
        (StopSpec(convergence=0.3), [FALLING, [9.0] * 6], None),  # every block
        (StopSpec(patience=1), [FALLING], None),
        (StopSpec(patience=1), [[8.0, 4.0, 5.0, 4.5, 4.2, 4.1]], 2),
        (StopSpec(patience=1), [[8.0, 4.0, 5.0, 3.9, 4.2, 4.1]], 3),
        (StopSpec(patience=1.5), [[8.0, 4.0, 5.0, 4.5, 4.2, 4.1]], 3),
        (StopSpec(patience=1), [[8.0] * 6], 2),  # a neuron that never wins: equal is no progress
        (StopSpec(patience=1), [[8.0] * 6, FALLING], None),  # some block still learns
        (StopSpec(convergence=2.5, patience=9), [FALLING], 2),
    ],
)
def test_when_a_phase_ends(spec: StopSpec, layers: list[list[float]], end: int | None) -> None:
    assert epochs(spec, *layers) == end


def test_nan_is_no_progress() -> None:
    assert epochs(StopSpec(convergence=1, patience=1), [8.0, math.nan, math.nan, math.nan, 1.0, 1.0]) == 2


# -- the rules, in a run ----------------------------------------------------------------------------------------

NETWORK = "Krotov-c8-k3-lb2-rank2-lr0.5:bn:relu:max_2_2_0:lr_fall=0.1 BP:batchnorm2d:flatten"
CHANGES = ("dataset_unsup.epochs=9", "dataset_unsup.batch_size=40")


def hebbian_rows(result: train.Result) -> list[int]:
    return [row["epoch"] for row in result.rows if row["kind"] == "hebbian"]


def by_hand(stop: StopSpec, cap: int) -> tuple[int, Tensor]:
    """Train the first block update by update, and return the epochs it took and its weights."""
    made = small.config(NETWORK, *CHANGES)
    network, phase = model.build(made), plan.phases(made)[0]
    split = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu")).train
    layer = network[0].train().hebb
    assert layer is not None
    least, waited, update = math.inf, 0, 0
    for epoch in range(cap):
        at = Epoch(seed=0, phase=phase, phase_index=0, epoch=epoch)
        c = math.inf
        for x, _ in split.batches(40, at.order()):
            with torch.no_grad():
                network[0].learn(x, rates.scheduled(layer.spec, update, phase.schedule, phase.epochs))
            c = float((layer.weight.flatten(1).square().sum(1) - 1).abs().max())
            waited = 0 if c < least else waited + 1
            least, update = min(c, least), update + 1
        if (stop.convergence and c < stop.convergence) or (stop.patience and waited >= stop.patience * 5):
            return epoch + 1, layer.weight
    return cap, layer.weight


@pytest.mark.parametrize("stop", [{"convergence": 1.3}, {"patience": 2.4}, {"patience": 90.0}, {"convergence": 1e-6}])
def test_a_run_ends_its_phase_where_the_loop_by_hand_does(stop: dict[str, float]) -> None:
    made = small.config(NETWORK, *CHANGES, *(f"stop.{name}={value}" for name, value in stop.items()))
    result = small.run(made)
    ended, weight = by_hand(StopSpec(**stop), 9)
    assert hebbian_rows(result) == list(range(1, ended + 1))
    assert ended < 9 or stop in ({"patience": 90.0}, {"convergence": 1e-6})  # the cap
    assert torch.equal(result.network[0].weight, weight)
    assert result.rows[-1]["kind"] == "backprop"


class Stop(train.Report):
    """Interrupts the run after so many batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def progress(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batches", [3, 11, 19])
def test_a_continued_run_stops_where_the_uninterrupted_one_does(tmp_path: Path, batches: int) -> None:
    """What was the least c, and how long ago, is in the checkpoint."""
    made = small.config(NETWORK, *CHANGES, "stop.patience=3.4")
    whole = small.run(made)
    assert 2 < hebbian_rows(whole)[-1] < 9
    with pytest.raises(KeyboardInterrupt):
        train.run(made, Stop(batches), place=train.Place(datasets=Path("nowhere"), folder=tmp_path / "cut"))
    again = small.run(made, tmp_path / "cut", carry_on=True)
    first, second = whole.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert hebbian_rows(again) == hebbian_rows(whole)


def test_nothing_stops_by_default() -> None:
    assert not small.config().stop.active
    assert hebbian_rows(small.run(small.config(NETWORK, *CHANGES)))[-1] == 9


def test_stopping_has_no_place_in_a_joint_phase() -> None:
    with pytest.raises(ConfigError, match="successive"):
        plan.phases(small.config(NETWORK, "stop.patience=1", mode="simultaneous"))


# -- locality -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [rule.name for rule in RULES.entries() if isinstance(rule, HebbianRule)])
def test_a_learning_block_touches_nothing_but_itself(method: str) -> None:
    """Training block 1 of three leaves every other tensor bit-equal, and every gradient, its own included."""
    block = f"{method}-c10" if RULES.get(method, "test").labels else f"{method}-c10-k3:bn:relu"
    below, above = "Soft-c8-k3-p1:bn:triangle", "BP:flatten"
    flat = ":flatten" if RULES.get(method, "test").labels else ""
    made = small.config(f"{below} {block}{flat} {above}")
    network = model.build(made)
    phase = next(p for p in plan.phases(made) if p.blocks == (1,))
    split = images.load(made.dataset_unsup, Path("nowhere"), 0, torch.device("cpu")).train
    with torch.no_grad():
        split = images.Split(network.eval()(images.as_float(split.images), stop=1), split.labels)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    engine.hebbian(network, split, Epoch(seed=0, phase=phase, phase_index=0, epoch=0), lambda n: None)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "blocks.1.layer.weight" in moved
    assert all(name.startswith("blocks.1.") for name in moved)
    assert all((parameter.grad == 7).all() for parameter in network.parameters())  # type: ignore[union-attr]


# -- the classifier's optimiser -------------------------------------------------------------------------------------


def classifier(**values: object) -> ClassifierSpec:
    return ClassifierSpec(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("first", "growth", "total"), [(10, 2, 150), (7, 1, 30), (4, 3, 60)])
def test_cosine_restarts_are_torch_s(first: int, growth: int, total: int) -> None:
    spec = classifier(schedule="cosine", restart=first, restart_growth=growth)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, first, growth)
    for epoch in range(total):
        factor = rates.classifier_factor(spec, epoch, total)
        assert 0.05 * factor == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_150_epochs_end_with_the_fourth_cycle() -> None:
    spec = classifier(schedule="cosine", restart=10, restart_growth=2)
    tops = [epoch for epoch in range(150) if rates.classifier_factor(spec, epoch, 150) == 1]
    assert tops == [0, 10, 30, 70]
    assert rates.classifier_factor(spec, 150, 150) == 1


def test_one_cosine_without_restarts_spans_the_phase() -> None:
    spec = classifier(schedule="cosine")
    found = [rates.classifier_factor(spec, epoch, 8) for epoch in range(8)]
    assert found == pytest.approx([(1 + math.cos(math.pi * e / 8)) / 2 for e in range(8)])


@pytest.mark.parametrize(("after", "every"), [(0, 1), (0, 3), (10, 2), (7, 5), (30, 1)])
def test_the_decay_begins_after_its_epochs(after: int, every: int) -> None:
    spec = classifier(schedule="decay", decay=0.5, decay_every=every, decay_after=after)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda e: 0.5 ** max(0, (e - after) // every))
    for epoch in range(25):
        assert rates.classifier_factor(spec, epoch, 25) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        theirs.step()


def test_sgd_with_momentum_is_the_textbook_loop() -> None:
    """The speed is m v + g, the step rate v, with the rate of the epoch."""
    made = small.config(
        "Soft-c5-t1:flatten:relu BP",
        "dataset_sup.epochs=3",
        *("classifier.optimiser=sgd", "classifier.momentum=0.9", "classifier.lr=0.3", "classifier.schedule=cosine"),
        training_blocks=(1,),
    )
    result = small.run(made)
    phase = plan.phases(made)[-1]
    network = model.build(made).eval()
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train
    weights = [p.detach().clone().requires_grad_() for p in network[1].layer.parameters()]
    speeds = [torch.zeros_like(w) for w in weights]
    for epoch in range(3):
        at = Epoch(seed=0, phase=phase, phase_index=0, epoch=epoch)
        rate = 0.3 * (1 + math.cos(math.pi * epoch / 3)) / 2
        for x, labels in split.batches(phase.batch_size, at.order()):
            with torch.no_grad():
                features = network[0](x)
            loss = nn.functional.cross_entropy(nn.functional.linear(features, *weights), labels)
            for i, gradient in enumerate(torch.autograd.grad(loss, weights)):
                speeds[i] = 0.9 * speeds[i] + gradient
            weights = [(w - rate * v).detach().requires_grad_() for w, v in zip(weights, speeds, strict=True)]
    assert torch.allclose(result.network[1].weight, weights[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["classifier.momentum=0.9"], "does nothing for adam"),
        (["classifier.restart=5"], "does nothing for schedule step"),
        (["classifier.restart_growth=3", "classifier.schedule=constant"], "does nothing for schedule constant"),
        (["classifier.restart_growth=3", "classifier.schedule=cosine"], "does nothing for one cycle"),
        (["classifier.decay=0.5"], "does nothing for schedule step"),
        (["classifier.decay_every=2", "classifier.schedule=cosine"], "does nothing for schedule cosine"),
        (["classifier.decay_after=2"], "does nothing for schedule step"),
    ],
)
def test_what_would_do_nothing_is_refused(changes: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan.phases(small.config(small.CNN, *changes))


# -- protocols ----------------------------------------------------------------------------------------------------


def test_the_published_head() -> None:
    known = catalog.load()
    made = overrides.apply(small.config(), known.protocol(["krotov_head"]), known)
    assert (made.dataset_sup.epochs, made.dataset_sup.batch_size) == (150, 64)
    assert made.classifier == ClassifierSpec(
        optimiser="sgd", lr=0.05, momentum=0.9, schedule="cosine", restart=10, restart_growth=2
    )


@pytest.mark.parametrize("name", catalog.load().protocols)
def test_every_protocol_holds_for_every_network(name: str) -> None:
    """It names no block, it can be written down, and two seconds of work say that it runs."""
    known = catalog.load()
    assert known.protocols[name].description
    assert known.protocols[name].source
    for network in (NETWORK, small.BP):
        made = overrides.apply(small.config(network), known.protocol([name]), known)
        plan.phases(made)
        assert serialise.run_from_json(serialise.to_json(made), "test") == made


KROTOV = (
    "--preset",
    "2KrotovCnnDigits",
    "--dataset",
    "Digits",
    "--protocol",
    "krotov",
    "krotov_head",
    "--threads",
    "1",
)


@pytest.fixture
def command(inside: Command) -> Command:
    """In this process, which has torch already."""
    return inside


def test_the_command_lines(command: Command, tmp_path: Path) -> None:
    """The Digits preset under the published protocols, with a shorter head; ``--set`` has the last word."""
    short = ("--set", "dataset_sup.epochs=10", "dataset_sup.print_freq=10")
    done = command("multi_layer.py", *KROTOV, *short, "--model-name", "krotov")
    assert done.returncode == 0, done.stderr
    home = tmp_path / "home" / "hebb" / "result" / "network" / "krotov"
    rows = folders.read_rows(home / "metrics.jsonl")
    hebbian = [row for row in rows if row["kind"] == "hebbian"]
    assert 2 <= len(hebbian) < 20  # it stopped before the cap
    assert rows[-1]["epoch"] == 10
    assert rows[-1]["test_acc"] > 97
    lists = command("multi_layer.py", "--list", "protocols")
    assert "classifier.restart=10" in " ".join(lists.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--protocol", "krotov_hed"), "did you mean 'krotov_head'?"),
        (("--protocol", "krotov", "krotov_mlp"), "dataset_unsup.batch_size"),
        (("--protocol", "krotov_head", "--set", "classifier.optimiser=adam"), "does nothing for adam"),
        (("--set", "classifier.optimiser=sdg"), "did you mean 'sgd'?"),
        (("--set", "classifier.schedule=cosin"), "did you mean 'cosine'?"),
        (("--set", "classifier.momentum=1"), "must be a number >= 0 and < 1, got 1.0"),
        (("--set", "stop.patience=0"), "must be a number > 0, got 0.0"),
        (("--set", "stop.patiense=1"), "did you mean 'stop.patience'?"),
        (("--set", "stop.convergence=soon"), "must be a number, got 'soon'"),
        (("--preset", "Krotov-c4-k3-rank5:relu BP:flatten"), "rank 5 exceeds the 4 competing neurons"),
        (("--preset", "Krotov-c8-k3-g4-rank3:relu BP:flatten"), "rank 3 exceeds the 2 competing neurons"),
        (("--preset", "KWTA-c4-n5:flatten:relu BP"), "number of winners 5 exceeds the 4"),
        (("--preset", "Krotov-c4-k3-rank1:relu BP:flatten"), "a whole number >= 2"),
        (("--preset", "Krotov-c4-k3-t1:relu BP:flatten"), "token 't' (t_invert) does nothing for Krotov"),
        (("--preset", "Krotov-c4-k3-r1:relu BP:flatten"), "token 'r' (radius) does nothing for Krotov"),
        (("--preset", "Krotov-c4-k3-b1:relu BP:flatten"), "token 'b' (add_bias) does nothing for Krotov"),
        (("--preset", "Krotov-c4-k3:relu:normaliser=filters BP:flatten"), "did you mean 'filter'?"),
        (
            ("--preset", "Krotov-c4-k3:relu:lr_decay=exp BP:flatten"),
            "lr_decay must be floor, linear or constant, got 'exp'",
        ),
    ],
)
def test_bad_input(command: Command, arguments: tuple[str, ...], says: str) -> None:
    done = command("multi_layer.py", *arguments, "--dry-run")
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 3
