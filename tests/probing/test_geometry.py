"""Numbers of a representation by algebra on made-up outputs; the short probe and the measures of a run.

Without it dimensionality and decorrelation would be plausible numbers of something else.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor
from torch.nn import functional as F

from hebb.data import images
from hebb.probing import geometry, probes, readout

LPL = "LPL-c6-k3-p1:relu:max_2_2_0:warmup=0 LPL-c8-k3-p1:relu:warmup=0 BP:flatten"


def numbers(z: Tensor, labels: Tensor | None = None) -> dict[str, float | None]:
    return geometry.measure(0, z, torch.zeros(len(z), dtype=torch.int64) if labels is None else labels).numbers


def spread(*deviations: float) -> Tensor:
    """Return outputs whose covariance is diagonal with these deviations, exactly: the corners of a box."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(deviations)).view(-1, len(deviations)).double()
    return corners * torch.tensor(deviations, dtype=torch.float64) * ((len(corners) - 1) / len(corners)) ** 0.5


@pytest.mark.parametrize("deviations", [(1, 1, 1, 1), (3, 1, 0.5), (2, 0, 0), (1, 2)])
def test_dimensionality_and_variance_of_a_known_spectrum(deviations: tuple[float, ...]) -> None:
    found = numbers(spread(*deviations) + 5)
    eigenvalues = [d * d for d in deviations]
    assert found["dimensionality"] == pytest.approx(sum(eigenvalues) ** 2 / sum(v * v for v in eigenvalues))
    assert found["variance"] == pytest.approx(sum(eigenvalues) / len(eigenvalues))
    assert found["silent"] == sum(d == 0 for d in deviations) / len(deviations)
    assert found["covariance"] == pytest.approx(0, abs=1e-20)
    assert found["activity"] == pytest.approx(5)


def test_dimensionality_does_not_depend_on_axes_or_scale() -> None:
    torch.manual_seed(0)
    z = spread(3, 1, 0.5, 0.1)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert numbers(7 * z @ rotation)["dimensionality"] == pytest.approx(numbers(z)["dimensionality"])


def test_published_dimensionalities_are_of_batches_and_of_classes() -> None:
    """Two batches of 256, one with one dimension and one with two; classes that have one each."""
    line, plane = spread(1, 0).repeat(64, 1), spread(1, 1).repeat(64, 1)
    found = numbers(torch.cat([line, plane]), torch.cat([torch.zeros(256), torch.ones(256)]).long())
    assert found["dimensionality_batch"] == pytest.approx(1.5)
    assert found["dimensionality_class"] == pytest.approx(1.5)
    assert found["dimensionality"] == pytest.approx((1 + 0.5) ** 2 / (1 + 0.25))


def test_decorrelation() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 5000, dtype=torch.float64)
    found = numbers(torch.stack([a, 2 * a, torch.zeros_like(a)], dim=1))
    assert found["correlation"] == pytest.approx(1)
    assert numbers(torch.stack([a, b], dim=1))["correlation"] == pytest.approx(0, abs=0.05)
    want = torch.cov(torch.stack([a, 2 * a, torch.zeros_like(a)]))[0, 1] ** 2 * 2 / 6
    assert found["covariance"] == pytest.approx(float(want))


def test_cosines_and_radii_by_loops() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 1, 2, 0, 0, -1])
    z = torch.randn(10, 4, dtype=torch.float64) + 3 * F.one_hot(labels.clamp(min=0), 4)
    found = numbers(z, labels)
    known = labels >= 0
    centred, labels = z[known] - z[known].mean(dim=0), labels[known]
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    cosine = {pair: float(F.cosine_similarity(centred[pair[0]], centred[pair[1]], dim=0)) for pair in pairs}
    same = [cosine[i, j] for i, j in pairs if labels[i] == labels[j]]
    other = [cosine[i, j] for i, j in pairs if labels[i] != labels[j]]
    assert found["within_cosine"] == pytest.approx(sum(same) / len(same))
    assert found["across_cosine"] == pytest.approx(sum(other) / len(other))
    centres = torch.stack([centred[labels == c].mean(dim=0) for c in range(3)])
    radii = [(centred[labels == c] - centres[c]).square().sum(dim=1).mean().sqrt() for c in range(3)]
    assert found["class_radius"] == pytest.approx(float(sum(radii)) / 3 / centred.square().sum(dim=1).mean() ** 0.5)
    correlation = torch.corrcoef(centres)
    assert found["centre_correlation"] == pytest.approx(float((correlation.sum() - 3) / 6))


def test_perfect_classes_and_no_classes() -> None:
    """Images equal within a class: cosine 1, radius 0. Labels by chance: both cosines near 0, radius near 1."""
    labels = torch.arange(400) % 4
    found = numbers(F.one_hot(labels).double(), labels)
    assert found["within_cosine"] == pytest.approx(1)
    assert found["across_cosine"] == pytest.approx(-1 / 3)
    assert found["class_radius"] == pytest.approx(0, abs=1e-12)
    torch.manual_seed(0)
    found = numbers(torch.randn(400, 30), labels)
    assert found["within_cosine"] == pytest.approx(0, abs=0.02)
    assert found["class_radius"] == pytest.approx(1, abs=0.03)


def test_collapsed_outputs_have_no_geometry() -> None:
    found = numbers(torch.full((20, 3), 2.0), torch.arange(20) % 2)
    assert (found["variance"], found["silent"], found["activity"]) == (0, 1, 2)
    assert found["dimensionality"] is None
    assert found["correlation"] is None


def test_one_image_and_one_neuron_leave_numbers_undefined() -> None:
    """One image has no variance that could be 0, and centres of one neuron no correlation."""
    one = geometry.measure(0, torch.rand(1, 3), torch.tensor([0])).numbers
    assert (one["silent"], one["variance"], one["dimensionality"]) == (None, None, None)
    narrow = geometry.measure(0, torch.rand(6, 1), torch.arange(6) % 2).numbers
    assert (narrow["centre_correlation"], narrow["correlation"]) == (None, None)


def test_images_without_labels_have_the_numbers_that_need_none() -> None:
    torch.manual_seed(0)
    z = torch.randn(300, 5)
    unlabelled, labelled = numbers(z, torch.full((300,), -1)), numbers(z, torch.arange(300) % 3)
    without = {name for name, number in unlabelled.items() if number is None}
    assert without == {
        "dimensionality_class",
        "within_cosine",
        "across_cosine",
        "class_radius",
        "centre_correlation",
    }
    assert all(unlabelled[name] == labelled[name] for name in unlabelled.keys() - without)


# -- the short probe ----------------------------------------------------------------------------------------


def test_the_short_probe_is_twenty_epochs_of_adam() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(1100, 7), torch.arange(1100) % 3
    x[:, 0] += labels
    found = probes.fit_short(4, (x, labels), {"val": None, "test": (x, labels)}, 3, torch.Generator().manual_seed(1))
    linear = torch.nn.Linear(7, 3)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-(7**-0.5), 7**-0.5, generator=drawn)
    optimiser = torch.optim.Adam(linear.parameters(), lr=1e-3)
    for step in range(60):  # three batches of 512, 512 and 76 images, twenty times
        start = 512 * (step % 3)
        optimiser.zero_grad()
        F.cross_entropy(linear(x[start : start + 512]), labels[start : start + 512]).backward()
        optimiser.step()
    hits = (linear(x).argmax(dim=1) == labels).double().mean().item()
    assert (found.block, found.kind, found.val_acc) == (4, "short", None)
    assert found.train_acc == found.test_acc == pytest.approx(100 * hits)


def test_a_run_measures_its_blocks(tmp_path: Path) -> None:
    made = small.config(LPL, mode="consecutive", probes=("short", "geometry"))
    result = small.run(made, tmp_path / "run")
    assert [(p.block, p.kind) for p in result.probes] == [(0, "short"), (1, "short")]
    assert [g.block for g in result.geometry] == [0, 1]
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["geometry"] == [{"block": g.block, **g.numbers} for g in result.geometry]
    split = images.load(made.dataset_sup, Path("nowhere"), 0, torch.device("cpu")).test
    z = torch.cat([result.network(x, stop=2) for x, _ in split.batches(100)]).mean(dim=(2, 3)).detach()
    assert result.geometry[1].numbers["variance"] == pytest.approx(float(z.var(dim=0).mean()), rel=1e-4)
    found, labels = readout.features(result.network, split, [(1, probes.averaged)])
    assert torch.allclose(found[1, probes.averaged], z, atol=1e-6)
    assert torch.equal(labels, split.labels)
    assert all(v is None or math.isfinite(v) for g in result.geometry for v in g.numbers.values())
