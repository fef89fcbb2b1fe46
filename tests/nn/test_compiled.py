"""Compiled steps learn what plain steps learn, without a graph for every step; products in bfloat16.

Without it `--compile` could train another network, faster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from conftest import ROOT, Command
from torch._dynamo.testing import CompileCounterWithBackend

from hebb.config import catalog, plan
from hebb.config.registry import RULES, HebbianRule
from hebb.config.specs import RunConfig
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.kernels import loops, paired
from hebb.nn import compiled as compiling
from hebb.nn import model
from hebb.training import engine
from hebb.training.epoch import Epoch

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
OWN = {"KWTA": "-n2", "SupervisedSoftKrotov": "-t2"}
METHODS = [(rule.name, arch) for rule in RULES.entries() if isinstance(rule, HebbianRule) for arch in rule.archs]
MORE = {
    "scheduled": "SoftKrotov-c8-k3-p1-t0.7-lr0.05-v0:bn BP:flatten",
    "grouped": "Soft-c8-k3-p1-t0.7 Soft-c8-k3-s2-g2-e1-p1:bn_after:triangle BP:flatten",
    "bias": "Soft-c30-t12-lr0.045-b1:flatten:normnorm BP",
    "dropout": "Soft-c30-t2-lr0.045:flatten:bn:drop_0.5 BP",
    "cubic": "Soft-c8-k3-p1-lb3:bn BP:flatten",
}


COSINE = ("HardInstar", "TemporalInstar", "BCM")
"""Rules whose filters on images of one channel are signs: many neurons answer alike, and rounding decides who wins."""


def network(method: str, arch: str) -> str:
    own, below = OWN.get(method, ""), "SoftKrotov-c6-k3-p1-t0.7:bn " if method in COSINE else ""
    return f"{below}{method}{own}-c10-k3-p1:bn BP:flatten" if arch == "CNN" else f"{method}{own}-c10:flatten:bn BP"


OFTEN = (
    *("SoftKrotov CNN", "Krotov MLP", "KWTA CNN", "Sanger MLP", "BCM CNN", "TemporalInstar CNN"),
    *("SupervisedSoftKrotov MLP", *MORE),
)
"""Networks whose steps take every way through a layer; the signals of the others are tried by `make slow`."""
NETWORKS = {**{f"{method} {arch}": network(method, arch) for method, arch in METHODS}, **MORE}


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """One thread, and what the process compiles with as it was."""
    threads, limit = torch.get_num_threads(), torch._dynamo.config.recompile_limit
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch._dynamo.config.recompile_limit = limit
    torch._dynamo.reset()


def ten_steps(text: str, **fields: object) -> RunConfig:
    """Every Hebbian phase makes ten updates, the last of them with five images in place of ten.

    With seed 0 two neurons win a pixel by currents that are equal to the last bit, and how a compiler rounds would
    decide who learns; with this seed no currents are.
    """
    made = small.config(text, **{"seed": 1, **fields})
    data = replace(made.dataset_sup, samples=95, batch_size=10)
    return replace(made, dataset_sup=data, dataset_unsup=data)


def learn(made: RunConfig) -> model.Network:
    """Make the updates of the Hebbian phases."""
    trained = model.build(made)
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).train
    for index, phase in enumerate(plan.phases(made)):
        if phase.kind == "hebbian":
            at = Epoch(seed=0, phase=replace(phase, blocks=tuple(range(phase.top + 1))), phase_index=index, epoch=0)
            engine.hebbian(trained, split, at, lambda _: None)
    return trained


def assert_alike(one: model.Network, other: model.Network) -> None:
    for name, tensor in other.state_dict().items():
        found, expected = one.state_dict()[name].double(), tensor.double()
        gap = float((found - expected).abs().max())
        scale = 1 if "weight" in name else max(1.0, float(expected.abs().max()))  # variances can be large
        assert gap <= 1e-5 * scale, (name, gap)


def counted(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Capture graphs as they are compiled, and run them without a compiler of C++."""
    counter, compile_ = CompileCounterWithBackend("aot_eager"), torch.compile

    def replaced(function: Callable[..., Any], *, mode: str | None, **options: Any) -> Any:
        assert mode is None  # CUDA graphs are for GPUs
        return compile_(function, backend=counter, **options)

    monkeypatch.setattr(torch, "compile", replaced)
    monkeypatch.setattr(compiling, "missing", lambda device: None)
    return counter


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.slow]) for name in NETWORKS]
)
def test_ten_captured_steps_are_ten_plain_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for each block and batch size, whatever the rate and the number of the update."""
    made = ten_steps(NETWORKS[name])
    plain = learn(made)
    counter = counted(monkeypatch)
    compiled = learn(replace(made, compile=True))
    assert_alike(compiled, plain)
    learning = plain.hebbian()
    # a block that learns is in two phases where there are two, from one start: the graphs of the first are used again
    assert counter.frame_count == 2 * len(learning)
    for (_, one), (_, other) in zip(compiled.hebbian(), learning, strict=True):
        assert one.update_count == other.update_count == 10
        assert int(one.finite_updates) == 10
        assert torch.allclose(one.gate_mass, other.gate_mass, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["SoftKrotov CNN", "Krotov MLP"])
def test_captured_steps_of_large_batches_use_no_loop_of_numba(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph fuses its own passes, and torch cannot trace the question for the threads."""
    monkeypatch.setattr(loops, "WORTH", 1)
    made = ten_steps(NETWORKS[name])
    plain = learn(made)
    counted(monkeypatch)
    assert_alike(learn(replace(made, compile=True)), plain)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_compiled_steps_are_ten_plain_ones(name: str) -> None:
    """The same with the real compiler."""
    made = ten_steps(NETWORKS[name])
    assert compiling.missing(torch.device("cpu")) is None
    assert_alike(learn(replace(made, compile=True)), learn(made))


def test_a_rule_that_looks_at_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph cannot branch on a number of the batch, as a rule of one's own may."""

    def signal(u: torch.Tensor, layer: object, labels: torch.Tensor | None) -> torch.Tensor:
        return u if float(u.sum()) > 0 else -u

    counted(monkeypatch)
    block = model.build(small.config(compile=True))[0].train()
    assert block.hebb is not None
    block.hebb.rule = replace(block.hebb.rule, signal=signal)
    with torch.no_grad(), pytest.raises(ConfigError, match="SoftKrotov cannot be compiled"):
        block.learn(torch.rand(5, 1, 8, 8))


def test_steps_below_back_prop_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their graph is torch's own: in a joint phase a compiled network has the bits of a plain one."""
    made = small.config(small.MIXED, mode="simultaneous")
    counter = counted(monkeypatch)
    one, other = (small.run(replace(made, compile=compiled)).network for compiled in (True, False))
    assert counter.frame_count == 0
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())


def test_without_a_compiler_a_run_goes_on(tmp_path: Path) -> None:
    """One line says so, and the run is stored as what it was: a plain one, which a compiled one may not become."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    environment |= {"PATH": str(tmp_path), "HEBB_HOME": str(tmp_path / "home")}
    words = [str(ROOT / "multi_layer.py"), "--preset", small.CNN, "--compile", "--model-name", "x"]
    shorter = ["--set", "dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_sup.epochs=1"]
    done = subprocess.run(
        [sys.executable, *words, *shorter], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("--compile")]
    assert len(warnings) == 1
    assert "is ignored, because torch.compile does not work here" in warnings[0]
    assert "Traceback" not in done.stderr
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "x"
    assert json.loads((folder / "config.json").read_text())["compile"] is False


def test_a_compiled_run_is_continued_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "missing", lambda device: "no compiler")
    made = small.config(compile=True)
    assert not compiling.resolved(made, torch.device("cpu")).compile
    with pytest.raises(ConfigError, match="no compiler"):
        compiling.resolved(made, torch.device("cpu"), required=True)


def test_what_is_not_compiled(inside: Command) -> None:
    done = inside("multi_layer.py", "--preset", "2EPMNIST", "--dataset", "MNIST_settle", "--compile", "--dry-run")
    assert done.returncode == 2
    assert "compile" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ConfigError, match="Hebbian"):
        small.config(small.BP, compile=True)
    with pytest.raises(ConfigError, match="only a classifier"):
        small.config("BP:flatten", "compute_dtype=bfloat16")
    with pytest.raises(ConfigError, match="settles"):
        small.config("EP-c16:flatten EP", "compute_dtype=bfloat16")
    with pytest.raises(ConfigError, match="compiled"):
        plan.phases(small.config(compile=True, pack=(0, 1)))


# -- bfloat16 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SoftKrotov CNN", "Soft MLP", "scheduled"])
def test_products_in_bfloat16(name: str) -> None:
    """They are rounded to 8 bits, and nothing else is: a current is off by 2^-8 of the sum of its terms at most."""
    made = ten_steps(NETWORKS[name])
    blocks = [model.build(replace(made, compute_dtype=kind))[0].train() for kind in ("float32", "bfloat16")]
    full, narrow = (block.hebb for block in blocks)
    assert full is not None
    assert narrow is not None
    x = blocks[0].before(torch.rand(9, 1, 8, 8))
    start = full.weight.clone()
    most = full.currents(full.prepare(x).abs(), start.abs())  # the sum of the sizes of the terms
    plain, rounded = full.learn(x, 0.05), narrow.learn(x, 0.05)
    gap = (plain - rounded).abs()
    assert gap.max() > 0
    assert (gap <= 3 * 2**-8 * most).all()  # input, weight and result are rounded
    assert rounded.dtype == narrow.weight.dtype == narrow.gate_mass.dtype == torch.float32
    moves = [(layer.weight - start).flatten() for layer in (full, narrow)]
    assert torch.cosine_similarity(*moves, dim=0) > 0.99
    assert (narrow.weight != narrow.weight.bfloat16()).float().mean() > 0.9  # the sum is not rounded


DESCENDING = {
    "BP CNN": "BP-c6-k3-p1-b1:bn:relu:max_2_2_0 BP:flatten",
    "BP CNN by Winograd's way": "BP-c32-k3-p1:bn:relu BP-c64-k3-p1:bn:relu BP:flatten",
    "BP MLP": "BP-c12:flatten:relu BP",
    "FA": "FA-c20:flatten:relu FA",
    "LPL": "LPL-c6-k3-p1-ls0.01:relu:warmup=0 BP:flatten",
    "SCFF CNN": "SCFF-c6-k3-p1-ls0.01:relu:warmup=0 BP:flatten",
    "SCFF MLP": "SCFF-c12:flatten:relu BP",
    "LPL alone": "LPL-c6-k3-p1-ls0.01:relu:warmup=0",
    "SCFF without a classifier": "SCFF-c12:flatten:relu SCFF-c16:relu",
}


@pytest.mark.parametrize("name", DESCENDING)
def test_products_with_gradients_in_bfloat16(name: str) -> None:
    """Answers and gradients of a layer below the classifier are rounded, and float32 as ever; the classifier is not."""
    made = small.config(DESCENDING[name])
    full, narrow = (model.build(replace(made, compute_dtype=kind)) for kind in ("float32", "bfloat16"))
    for i in range(len(full)):
        x = full[i].before(torch.rand(9, *full[i].shapes.into)).requires_grad_()
        found = []
        for network in (full, narrow):
            u = network[i].layer(x)
            towards = torch.linspace(-1, 1, u.numel()).view_as(u)
            found.append([u, *torch.autograd.grad(u, (x, *network[i].layer.parameters()), towards)])
        for plain, rounded in zip(*found, strict=True):
            assert rounded.dtype == torch.float32
            assert torch.equal(plain, rounded) == (full[i].spec.layer.method in ("BP", "FA") and i == len(full) - 1)
            assert torch.cosine_similarity(plain.flatten(), rounded.flatten(), dim=0) > 0.999


def test_a_module_of_a_plugin_that_knows_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "PairedLinear", torch.nn.Linear)
    with pytest.raises(ConfigError, match=r"b0 is made by SCFF, whose module has no 'product_dtype'"):
        model.build(small.config(DESCENDING["SCFF MLP"], "compute_dtype=bfloat16"))


def test_bfloat16_learns_as_well_on_digits() -> None:
    """Within a point, which is the spread of seeds there."""
    preset, found = catalog.load().network("2SoftHebbCnnDigits"), []
    data = catalog.load().dataset("Digits_20", "test")
    for kind in ("float32", "bfloat16"):
        made = replace(small.config(small.CNN), network=preset, dataset_sup=data, dataset_unsup=replace(data, epochs=1))
        result = small.run(replace(made, compute_dtype=kind))
        found.append((result.metrics["test_acc"], result.network[0].weight))
    assert not torch.equal(found[0][1], found[1][1])
    assert found[0][0] > 95
    assert abs(found[0][0] - found[1][0]) < 1
