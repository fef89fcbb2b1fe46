"""The axes of figures: ticks that a reader can read values by.

Without them a logarithmic axis could have a single number on it.
"""

from __future__ import annotations

import pytest

from hebb.analysis import style


@pytest.mark.parametrize("low", [0.003, 1.0, 2.1, 90_000.0])
@pytest.mark.parametrize("times", [1.2, 1.5, 3.0, 100.0, 1e6])
def test_a_logarithmic_axis_has_two_ticks_at_least(low: float, times: float) -> None:
    """Within its ends, few enough to stand apart, and none of the minor ones with a label."""
    figure, axes = style.figure()
    style.logarithmic(axes, low, low * times)
    figure.canvas.draw()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= low * times]
    assert 2 <= len(ticks) <= 12
    assert not [label for label in axes.get_xticklabels(minor=True) if label.get_text()]


@pytest.mark.parametrize(
    ("metric", "unit"), [("test_acc", "%"), ("train_loss", "nats"), ("peak_memory", "MB"), ("seconds", "seconds")]
)
def test_units(metric: str, unit: str) -> None:
    assert style.unit_alone(metric) == unit
