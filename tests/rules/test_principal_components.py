"""Plain Hebb, Oja, Sanger and k winners: where their equations lead, worked out from the covariance of the data.

Without it rules could converge to other directions than their theory says.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.config import catalog
from hebb.config.specs import make_layer
from hebb.nn.hebb_layer import HebbLayer
from hebb.nn.layers import ConvHebbLayer, LinearHebbLayer

VARIANCES = (4.0, 2.0, 1.0, 0.3, 0.1)


def layer(method: str, neurons: int = 3, arch: str = "MLP", fan_in: int = 5, **values: object) -> HebbLayer:
    """Return a layer with small random weights."""
    given = {"out_channels": neurons, **({"kernel_size": 1} if arch == "CNN" else {}), **values}
    spec = make_layer(method, arch, given, catalog.load().defaults, "test")
    made = (ConvHebbLayer if arch == "CNN" else LinearHebbLayer)(spec, fan_in, neurons).double()
    made.weight.copy_(0.3 * torch.randn(made.weight.shape, generator=torch.Generator().manual_seed(1)))
    return made


def cloud() -> tuple[Tensor, Tensor]:
    """Return 400 points whose second moments are exactly a rotation of ``VARIANCES``, and the axes as rows."""
    generator = torch.Generator().manual_seed(0)
    axes, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    points, _ = torch.linalg.qr(torch.randn(400, 5, generator=generator, dtype=torch.float64))
    return points * 400**0.5 * torch.tensor(VARIANCES, dtype=torch.float64).sqrt() @ axes.T, axes.T


def train(made: HebbLayer, x: Tensor, steps: int, rate: float = 0.1) -> None:
    for _ in range(steps):
        made.learn(x, rate)


def test_the_cloud_has_its_axes() -> None:
    x, axes = cloud()
    moments = x.T @ x / 400
    assert torch.allclose(moments, axes.T @ torch.diag(torch.tensor(VARIANCES, dtype=torch.float64)) @ axes)


@pytest.mark.parametrize("arch", ["MLP", "CNN"])
def test_oja_finds_the_first_component(arch: str) -> None:
    """Every neuron, up to its sign, at radius 1; a map is as many points as it has pixels."""
    x, axes = cloud()
    made = layer("Oja", arch=arch)
    train(made, x.T.reshape(1, 5, 20, 20) if arch == "CNN" else x, 500)
    along = made.weight.flatten(1) @ axes[0]
    assert along.abs().tolist() == pytest.approx([1] * 3, abs=1e-9)
    assert made.radius().tolist() == pytest.approx([1] * 3, abs=1e-9)


def test_oja_leaves_every_other_component() -> None:
    """The other unit eigenvectors are fixed points too, and unstable: a push of 1e-3 ends at the first."""
    x, axes = cloud()
    for i, axis in enumerate(axes):
        made = layer("Oja", neurons=1)
        made.weight.copy_(axis[None])
        u = made.respond(x)
        assert float(made.change(x, u, u).abs().max()) < 1e-9 * 400
        made.weight.add_(1e-3 * axes[0])
        train(made, x, 600)
        assert float((made.weight @ axes[0]).abs()) == pytest.approx(1, abs=1e-6), i


@pytest.mark.parametrize("arch", ["MLP", "CNN"])
def test_sanger_finds_the_components_in_order(arch: str) -> None:
    x, axes = cloud()
    made = layer("Sanger", neurons=4, arch=arch)
    train(made, x.T.reshape(1, 5, 20, 20) if arch == "CNN" else x, 6000)
    assert torch.allclose((made.weight.flatten(1) @ axes.T).abs(), torch.eye(4, 5, dtype=torch.float64), atol=1e-6)
    assert (made.respond(x).square().mean(0).tolist() if arch == "MLP" else VARIANCES[:4]) == pytest.approx(
        VARIANCES[:4], rel=1e-4
    )


@pytest.mark.parametrize("form", ["linear", "tanh"])
def test_sanger_is_its_sum_written_out(form: str) -> None:
    """dw_i = mean_b y_i (x - sum_{j<=i} y_j w_j), neuron by neuron and sample by sample."""
    x, _ = cloud()
    made = layer("Sanger", neurons=4, form=form)
    w = made.weight.clone()
    expected = torch.zeros_like(w)
    for sample in x[:30]:
        y = w @ sample
        y = y.tanh() if form == "tanh" else y
        for i in range(4):
            expected[i] += y[i] * (sample - sum(y[j] * w[j] for j in range(i + 1))) / 30
    made.learn(x[:30], 0.01)
    assert torch.allclose(made.weight, w + 0.01 * expected, atol=1e-12)


def test_hebb_is_power_iteration() -> None:
    """With the mean over the samples w_t = (I + rate C)^t w_0: no bound, and the direction of the first component."""
    x, axes = cloud()
    made = layer("Hebb", normaliser="mean")
    start = made.weight.clone()
    train(made, x, 40, 0.05)
    growth = torch.diag((1 + 0.05 * torch.tensor(VARIANCES, dtype=torch.float64)) ** 40)
    assert torch.allclose(made.weight, start @ axes.T @ growth @ axes)
    assert (made.radius() > 50).all()
    train(made, x, 400, 0.05)
    assert torch.allclose((F.normalize(made.weight) @ axes[0]).abs(), torch.ones(3, dtype=torch.float64))


def test_hebb_grows_by_the_rate_at_most_when_normalised() -> None:
    """By default the largest entry of the change is 1, so the largest weight grows linearly, not exponentially."""
    x, _ = cloud()
    made = layer("Hebb")
    start = float(made.weight.abs().max())
    train(made, x, 100, 0.1)
    assert float(made.weight.abs().max()) <= start + 100 * 0.1 + 1e-9


# -- k winners --------------------------------------------------------------------------------------------------


def test_n_neurons_win() -> None:
    u = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.0, 5.0, 4.0, 6.0]])
    assert layer("KWTA", 4, winners=2).gate(u).tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    maps = torch.randn(2, 4, 3, 3)
    assert layer("KWTA", 4, winners=3).gate(maps).sum(1).eq(3).all()


def test_one_winner_is_hard() -> None:
    x, _ = cloud()
    one, hard = layer("KWTA", winners=1), layer("Hard", adaptive=False)
    u = one.respond(x)
    assert torch.allclose(one.plasticity(x, u)[0], hard.plasticity(x, u)[0], atol=1e-12)


def test_instar_holds_the_mean_of_what_a_neuron_wins() -> None:
    """The fixed point is the centre of the neuron's own cluster, as in k-means, whatever its length."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[3.0, 0, 0, 0, 0], [0, 2.0, 0, 0, 0], [0, 0, 0.8, 0, 0]], dtype=torch.float64)
    x = (centres[:, None] + 0.02 * torch.randn(3, 50, 5, generator=generator, dtype=torch.float64)).flatten(0, 1)
    made = layer("KWTA", winners=1, pull="instar")
    made.weight.copy_(centres.sign())
    for step in range(4000):
        made.learn(x, 0.02 * (1 - step / 4000))
    assert torch.allclose(made.weight, x.view(3, 50, 5).mean(1), atol=1e-3)
    oja = layer("KWTA", winners=1)
    oja.weight.copy_(centres.sign())
    for step in range(4000):
        oja.learn(x, 0.02 * (1 - step / 4000))
    assert oja.radius().tolist() == pytest.approx([1] * 3, abs=1e-2)
