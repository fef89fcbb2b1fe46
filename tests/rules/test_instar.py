"""Instars and BCM behind a cosine: the steps that the published code computed, and where the equations lead.

Without it the response, the order of a state and its signal, or what the decay takes could differ from the published
rules and still learn something.
"""

from __future__ import annotations

import functools
import math
import re

import numpy as np
import pytest
import small
import torch
from conftest import GOLDEN
from torch import Tensor
from torch.nn import functional as F

from hebb.config import catalog, plan
from hebb.config.specs import make_layer
from hebb.core.errors import ConfigError
from hebb.nn import model, response
from hebb.nn.layers import ConvHebbLayer
from hebb.rules.ranking import lower_median

FAMILY = ("HardInstar", "TemporalInstar", "ThresholdInstar", "BCM")


def layer(method: str, neurons: int, channels: int, **values: object) -> ConvHebbLayer:
    """Return a convolution of 3x3 with the rate of the stored steps."""
    fields = {"out_channels": neurons, "kernel_size": 3, "padding": 1, "lr": 0.08, **values}
    return ConvHebbLayer(make_layer(method, "CNN", fields, catalog.load().defaults, "test"), channels, neurons)


# -- steps of the published code --------------------------------------------------------------------------------

SURROUND = {"surround": 3, "sigma_excite": 1.0, "sigma_inhibit": 1.2}
SOFT = {"t_invert": 0.65, "adaptive": False, "lr_decay": "constant"}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "none": ("HardInstar", {"losers": "learn"}),
    "hard_basic": ("HardInstar", {}),
    "hard": ("HardInstar", SURROUND),
    "hard_dot": ("HardInstar", {"response": "dot"}),
    "antihard": ("HardInstar", {"losers": "unlearn"}),
    "presynaptic": ("HardInstar", {"presynaptic": "norm"}),
    "presynaptic_linear": ("HardInstar", {"presynaptic": "linear"}),
    "presynaptic_softmax": ("HardInstar", {"presynaptic": "softmax"}),
    "soft": ("SoftKrotov", SOFT),
    "bcm": ("BCM", {}),
    "optimal": ("BCM", SURROUND),
    "dale": ("BCM", {**SURROUND, "dale": True}),
    "temporal": ("TemporalInstar", {}),
    "adaptive_k1_pad0": ("ThresholdInstar", {"padding": 0, "deviations": 1}),
    "adaptive_k2_pad0": ("ThresholdInstar", {"padding": 0}),
}


@functools.cache
def golden() -> dict[str, Tensor]:
    path = GOLDEN / "rivals" / "nimmo.npz"
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_close(value: Tensor, key: str) -> None:
    torch.testing.assert_close(value, golden()[key], atol=1e-5, rtol=0, msg=lambda text: f"{key}: {text}")


@pytest.mark.parametrize("case", CASES)
def test_two_steps_are_those_of_the_published_code(case: str) -> None:
    method, values = CASES[case]
    start = golden()["adaptive.w0" if case.startswith("adaptive") else f"{case}.w_start"]
    made = layer(method, *start.shape[:2], **values)
    made.weight.copy_(start)
    for step in range(2):
        before, x = made.weight.clone(), golden()[f"x{step}"]
        assert_close(made.learn(x, 0.08), f"{case}.y{step}")
        assert_close(made.weight, f"{case}.w{step + 1}")
        if case != "dale":  # whose weights are rectified after the step: below
            torch.testing.assert_close((made.weight - before) / 0.08, golden()[f"{case}.dw{step}"], atol=1e-5, rtol=0)
        if f"{case}.theta{step}" in golden():
            assert_close(made.state.tensors()["theta"][0], f"{case}.theta{step}")
    if f"{case}.y_eval" in golden():
        assert_close(made(golden()["x0"]), f"{case}.y_eval")


def test_dales_law_reflects_the_published_changes() -> None:
    """|w + eta dw|: behind it a change and the one that leads to -(w + eta dw) are the same, so dw is compared too."""
    method, values = CASES["dale"]
    made = layer(method, 5, 3, **values)
    made.weight.copy_(golden()["dale.w_start"])
    for step in range(2):
        twin = layer(method, 5, 3, **values)
        twin.load_state_dict(made.state_dict())
        x = twin.prepare(golden()[f"x{step}"])
        change, _ = twin.plasticity(x, twin.respond(x))
        assert_close(change, f"dale.dw{step}")
        stepped = made.weight + 0.08 * golden()[f"dale.dw{step}"]
        made.learn(golden()[f"x{step}"], 0.08)
        crossed = stepped < 0
        assert 0 < crossed.sum() < 10
        torch.testing.assert_close(made.weight[crossed], -stepped[crossed], atol=1e-6, rtol=0)
        torch.testing.assert_close(made.weight[~crossed], stepped[~crossed], atol=1e-6, rtol=0)


def test_every_stored_case_is_replayed() -> None:
    stored = {key.partition(".")[0] for key in golden() if key.endswith(".dw0") and not key.startswith("depth_")}
    assert stored - set(CASES) == {"adaptive_k1_pad1", "adaptive_k2_pad1"}  # below


@pytest.mark.parametrize("deviations", [1, 2])
def test_the_padding_of_the_published_threshold_rule_is_not_ours(deviations: int) -> None:
    """It pads the map of similarities twice, so that all taps of a channel get one number; ours get one each."""
    case, w = f"adaptive_k{deviations}_pad1", golden()["adaptive.w0"]
    for step in range(2):
        x = F.pad(golden()[f"x{step}"], (1, 1, 1, 1), mode="reflect")
        similar = F.conv2d(x, w, padding=1) / w.flatten(1).norm(dim=1).view(-1, 1, 1)  # (2, 12, 10, 10)
        y = layer("ThresholdInstar", 12, 3, deviations=deviations).gate(similar)
        taps = torch.einsum("bohw,bchw->oc", y, x)[:, :, None, None]  # a correlation of 10 x 10 with 10 x 10
        change = taps - y.sum(dim=(0, 2, 3)).view(-1, 1, 1, 1) * w
        assert_close(change / change.abs().max(), f"{case}.dw{step}")
        made = layer("ThresholdInstar", 12, 3, deviations=deviations)
        made.weight.copy_(w)
        made.learn(golden()[f"x{step}"], 0.08)
        ours = (made.weight - w) / 0.08
        windows = F.unfold(x, 3).transpose(1, 2).flatten(0, 1)  # (2 * 64, 27)
        proper = windows @ F.normalize(w.flatten(1), dim=1).T
        above = proper > proper.mean(dim=1, keepdim=True) + deviations * proper.std(dim=1, keepdim=True)
        gate = torch.where(above & (proper == proper.amax(dim=1, keepdim=True)), proper.square(), 0.0)
        expected = gate.T @ windows - gate.sum(dim=0)[:, None] * w.flatten(1)
        torch.testing.assert_close(ours.flatten(1), expected / expected.abs().max(), atol=1e-5, rtol=0)
        assert (ours - golden()[f"{case}.dw{step}"]).abs().max() > 0.1
        w = golden()[f"{case}.w{step + 1}"]


# -- the response -----------------------------------------------------------------------------------------------


def test_one_channel_and_one_tap_lose_all_magnitude() -> None:
    """Weights 0.5 and -0.25 are +1 and -1 behind the norm of the tap, and so is every input."""
    made = layer("HardInstar", 2, 1, kernel_size=1, padding=0)
    made.weight.copy_(torch.tensor([0.5, -0.25]).view(2, 1, 1, 1))
    u = made(torch.tensor([2.0, -1.0]).view(1, 1, 1, 2))
    assert u[0, :, 0].T.tolist() == [[pytest.approx(1), pytest.approx(-1)], [pytest.approx(-1), pytest.approx(1)]]


def test_a_fully_connected_cosine_is_the_cosine() -> None:
    torch.manual_seed(0)
    made = small.layer("HardInstar", fan_in=6)
    made.weight.normal_()
    x = torch.randn(4, 6)
    expected = F.cosine_similarity(x[:, None], made.weight[None], dim=2)
    torch.testing.assert_close(made(x), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_cosine_knows_no_contrast_and_is_at_most_the_side(groups: int) -> None:
    """Input and weights of any tap may be scaled; the patch that is proportional to the weights reaches k."""
    torch.manual_seed(0)
    made = layer("HardInstar", 4, 4, groups=groups, padding=0).double()
    made.weight.normal_()
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    u = made(x)
    torch.testing.assert_close(made(3 * x), u)
    patch = F.normalize(made.weight, dim=1).repeat(1, groups, 1, 1)
    assert made(patch)[range(4), range(4)].flatten().tolist() == pytest.approx([3.0] * 4)
    made.weight.mul_(torch.rand(4, 1, 3, 3, dtype=torch.float64) + 0.1)
    torch.testing.assert_close(made(x), u)
    assert u.abs().max() < 3


def test_a_projection_is_the_length_along_the_filter() -> None:
    made = layer("ThresholdInstar", 8, 2, response="projection", padding=0).double()
    torch.manual_seed(0)
    made.weight.normal_()
    patch = 5 * F.normalize(made.weight.flatten(1), dim=1).view_as(made.weight)
    assert made(patch)[range(8), range(8)].flatten().tolist() == pytest.approx([5.0] * 8)


# -- surround ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "excite", "inhibit", "edge", "diagonal", "total"),
    [
        (5, 1.2, 1.3, 0.492, 0.188, 1.961),
        (3, 1.0, 1.2, 0.379, 0.069, 2.792),
        (3, 0.8, 1.1, 0.229, -0.046, 1.731),
        (5, 1.2, 1.4, 0.518, 0.220, 2.341),
    ],
)
def test_surround_kernels(side: int, excite: float, inhibit: float, edge: float, diagonal: float, total: float) -> None:
    kernel = response.surround_kernel(side, excite, inhibit)
    middle = side // 2
    assert kernel[middle, middle] == 1
    assert kernel[middle, middle + 1] == pytest.approx(edge, abs=6e-4)
    assert kernel[middle + 1, middle + 1] == pytest.approx(diagonal, abs=6e-4)
    assert kernel.sum() == pytest.approx(total, abs=6e-3)
    assert_close(kernel, f"dog.k{side}_e{excite}_i{inhibit}")


def test_surround_filters_each_channel_alone() -> None:
    """One active unit becomes the kernel around it, and other channels do not see it."""
    maps = torch.zeros(1, 3, 7, 7)
    maps[0, 1, 3, 3] = 2.0
    kernel = response.surround_kernel(5, 1.2, 1.4)
    out = response.surrounded(maps, kernel)
    torch.testing.assert_close(out[0, 1, 1:6, 1:6], 2 * kernel)
    assert out[0, [0, 2]].abs().max() == 0


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("BCM-c8-k3:surround=4", "surround must be an odd number of pixels, or 0 for none, got 4"),
        ("BCM-c8-k3:surround=3:sigma_excite=2", "sigma_excite must be less than sigma_inhibit, got 2 and 1.4"),
        ("HardInstar-c8-k3:dale=1:presynaptic=norm", "dale cannot be combined with presynaptic"),
        ("BCM-c8-k3:theta_rate=1.5", "theta_rate must be a share >= 0 and <= 1, got 1.5"),
        ("HardInstar-c8-k3:response=cos", "response must be dot, cosine or projection, got 'cos'"),
        ("HardInstar-c8:surround=3", "field (surround) does nothing for HardInstar on MLP"),
        ("ThresholdInstar-c4-k3", "deviations must be less, got 2: none of 4 competing neurons lies 1.5 above"),
        ("ThresholdInstar-c8-k3-g2", "none of 4 competing neurons"),
    ],
)
def test_options_that_do_not_fit(block: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        model.build(small.config(f"{block.replace('-c', '-p1-c') if '-k3' in block else block} BP:flatten"))


# -- laws of the weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FAMILY)
def test_dales_law_holds_from_the_start(method: str) -> None:
    torch.manual_seed(0)
    made = layer(method, 8, 3, dale=True)
    made.initialise(torch.Generator().manual_seed(0))
    assert (made.weight > 0).all()
    for _ in range(20):
        made.learn(torch.randn(4, 3, 8, 8), 0.3)
        assert (made.weight >= 0).all()


@pytest.mark.parametrize("method", FAMILY)
def test_weights_start_in_the_law_of_torch(method: str) -> None:
    made = layer(method, 50, 6)
    made.initialise(torch.Generator().manual_seed(0))
    bound = 1 / math.sqrt(6 * 9)
    assert 0.99 * bound < made.weight.abs().max() <= bound
    assert made.weight.mean().abs() < 0.05 * bound


@pytest.mark.parametrize(("kind", "power"), [("norm", 2), ("linear", 1), ("softmax", 1)])
def test_presynaptic_competition_turns_the_order_of_the_taps(kind: str, power: int) -> None:
    made = layer("HardInstar", 4, 2, presynaptic=kind).double()
    torch.manual_seed(0)
    made.weight.normal_()
    taps, competed = made.weight.flatten(2).abs(), made.effective_weight().flatten(2)
    assert (competed > 0).all() if kind != "softmax" else (competed >= 0).all()
    assert (competed.argmax(dim=2) == taps.argmin(dim=2)).all()
    torch.testing.assert_close(competed.pow(power).sum(dim=2), torch.ones(4, 2, dtype=torch.float64), atol=1e-6, rtol=0)


# -- where the equations lead -----------------------------------------------------------------------------------


def test_an_instar_ends_at_the_weighted_mean_of_what_it_wins() -> None:
    """One neuron on a fixed batch: sum u x = (sum u) w, with u the cosine of x and the w where it ends."""
    torch.manual_seed(0)
    made = small.layer("HardInstar", fan_in=5, out_channels=1).double()
    made.weight.copy_(torch.rand(1, 5))
    x = torch.rand(30, 5, dtype=torch.float64) + 0.2
    for step in range(4000):
        made.learn(x, 0.05 / (1 + step / 20))
    u = F.cosine_similarity(x, made.weight)
    torch.testing.assert_close(made.weight[0], (u @ x) / u.sum(), atol=2e-3, rtol=0)


def test_losers_learn_or_unlearn() -> None:
    u = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    gates = {
        losers: small.layer("HardInstar", losers=losers).gate(u).tolist() for losers in ("idle", "learn", "unlearn")
    }
    assert gates["idle"] == [[2, 0, 0], [0, 3, 0]]
    assert gates["learn"] == u.tolist()
    assert gates["unlearn"] == [[2, 1, -0.5], [0, 3, -1]]


def test_bcm_learns_above_its_threshold_and_unlearns_below() -> None:
    """v (v - theta) with theta = (1 - f) 1 + f mean v^2, lost samples included: f = 1/2 gives 2.5, 1 and 0.5."""
    made = small.layer("BCM", theta_rate=0.5)
    u = torch.tensor([[4.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, -1.0], [0.0, 1.0, 0.2]])
    y = made.gate(u)
    assert made.state.tensors()["theta"].tolist() == [[2.5, 0.75, 0.5]]
    assert y.tolist() == [[4 * 1.5, 0, 0], [0, 0.25, 0], [0, 0, 0], [0, 0.25, 0]]
    made.gate(torch.tensor([[1.0, 0.0, 0.0]]))
    assert made.state.tensors()["theta"].tolist() == [[1.75, 0.375, 0.25]]
    assert made.gate(torch.tensor([[1.0, 0.0, 0.0]]))[0, 0] < 0  # below theta


def test_a_stored_bcm_goes_on_where_it_was() -> None:
    torch.manual_seed(0)
    whole, parts = layer("BCM", 5, 3), layer("BCM", 5, 3)
    whole.initialise(torch.Generator().manual_seed(0))
    parts.load_state_dict(whole.state_dict())
    batches = torch.randn(4, 2, 3, 8, 8)
    for x in batches:
        whole.learn(x)
    for x in batches:
        parts.learn(x)
        again = layer("BCM", 5, 3)
        again.load_state_dict(parts.state_dict())
        parts = again
    assert torch.equal(parts.weight, whole.weight)
    assert torch.equal(parts.state.tensors()["theta"], whole.state.tensors()["theta"])


def test_temporal_threshold_is_the_mean_of_the_medians() -> None:
    """Window 3, two neurons: medians over the images seen, those of the batch included; then the largest, squared."""
    made = small.layer("TemporalInstar", out_channels=2, window=3)
    assert made.gate(torch.tensor([[1.0, 3.0]])).tolist() == [[0, 9]]  # medians 1 and 3: above 2
    assert made.gate(torch.tensor([[5.0, 5.0], [0.0, 0.5]])).tolist() == [[25, 0], [0, 0]]  # 1 and 3 again: above 2
    y = made.gate(torch.tensor([[4.0, 2.5], [3.0, 0.0]]))  # seen: 0 4 3 and 0.5 2.5 0: above 1.75
    assert y.tolist() == [[16, 0], [9, 0]]


@pytest.mark.parametrize("shape", [(7, 3), (8, 3), (1, 3), (500, 4, 6, 5), (3, 1, 2, 2)])
@pytest.mark.parametrize("unseen", [0, 1])
def test_medians_are_those_of_torch(shape: tuple[int, ...], unseen: int) -> None:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if len(maps) > unseen:
        maps[:unseen] = torch.nan
    orders = (torch.contiguous_format, torch.channels_last) if maps.dim() == 4 else (torch.contiguous_format,)
    for order in orders:
        found = lower_median(maps.contiguous(memory_format=order))
        assert torch.equal(found, maps.nanmedian(dim=0).values)
    assert lower_median(torch.full(shape, torch.nan)).isnan().all()  # of a run that diverges
    several = torch.stack([maps, -maps])
    assert torch.equal(torch.vmap(lower_median)(several)[1], lower_median(-maps))


def test_a_temporal_memory_is_of_a_pixel_and_starts_anew_with_an_epoch() -> None:
    made = layer("TemporalInstar", 3, 2, window=4)
    made.initialise(torch.Generator().manual_seed(0))
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    u = made.learn(x)
    memory = made.state.tensors()["maps"]
    assert memory.shape == (1, 4, 3, 5, 5)
    assert torch.equal(memory[0], u[2:])
    assert "state.maps" not in made.state_dict()
    made.reset_statistics()
    assert made.state.tensors()["maps"] is memory
    assert memory.isnan().all()


def test_a_winner_that_does_not_stand_out_learns_nothing() -> None:
    """Of eleven equal neurons and one above them by d, that one lies 11/12 d above the mean, sd d/sqrt(12)."""
    u = torch.full((1, 12), 0.5)
    u[0, 3] = 1.5
    for deviations, learns in ((3.1, True), (3.2, False)):  # 11/sqrt(12) = 3.175
        y = small.layer("ThresholdInstar", out_channels=12, deviations=deviations).gate(u)
        assert (y[0, 3] == 2.25) == learns
        assert y.count_nonzero() == learns


# -- presets ----------------------------------------------------------------------------------------------------


def test_a_pack_says_why_it_cannot_keep_maps() -> None:
    config = small.config("TemporalInstar-c4-k3:bn BP:flatten", pack=(0, 1))
    with pytest.raises(ConfigError, match="b0 keeps the maps of the last images, which a pack cannot do"):
        plan.phases(config)
