"""A rule, a dataset and a mode are added from one place each, and everything else knows them.

Without it adding a rule would need edits in places that nobody lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from conftest import ROOT

from hebb.config import catalog, grammar, plan
from hebb.config.fields import HEBBIAN, LOCAL, token_table
from hebb.config.phase import Phase
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES, BackpropRule, Dataset, Field, HebbianRule, LocalRule
from hebb.core.errors import ConfigError


@pytest.fixture
def registries() -> Iterator[None]:
    """Put the registries back as they were."""
    stored = [(r, dict(r._entries)) for r in (RULES, DATASETS)]
    modes = dict(plan.MODES)
    yield
    for found, entries in stored:
        found._entries.clear()
        found._entries.update(entries)
    plan.MODES.clear()
    plan.MODES.update(modes)


def plain_hebb(u: torch.Tensor, layer: object, labels: object) -> torch.Tensor:
    """Every neuron learns in proportion to its pre-activation, with a gain."""
    return u * layer.gain  # type: ignore[attr-defined]


@pytest.mark.usefixtures("registries")
def test_a_rule_is_one_entry(tmp_path: Path) -> None:
    gain = Field(name="gain", token="gain", kind=float, minimum=0, default=1.0, meaning="gain of the gate")
    RULES.register(
        HebbianRule(name="Toy", summary="toy", source="here", fields=HEBBIAN, own_fields=(gain,), signal=plain_hebb)
    )
    config = small.config("toy-c8-k3-p1-gain0.5-lr0.01:bn:triangle:avg_2_2_0 BP:flatten")
    assert config.network.blocks[0].layer.gain == 0.5
    assert "Toy-c8-k3-p1-lr0.01-gain0.5" in grammar.format_network(config.network, catalog.load().defaults)
    result = small.run(config, tmp_path / "run")
    assert result.metrics["test_acc"] is not None
    with pytest.raises(ConfigError, match="gain0"):
        small.config("Soft-c8-gain0.5:flatten BP")


def slow(views: tuple[torch.Tensor, ...], layer: object, context: object) -> dict[str, torch.Tensor]:
    """Views of an image should be answered alike, with a weight, and strongly."""
    first, second = views
    return {"gap": (first - second).abs().mean(), "rest": -first.std(dim=0).mean()}


@pytest.mark.usefixtures("registries")
def test_a_rule_with_a_loss_is_one_entry(tmp_path: Path) -> None:
    gap = Field(name="gap", token="gap", kind=float, minimum=0, default=1.0, meaning="weight of the difference")
    RULES.register(
        LocalRule(
            name="Slow",
            summary="toy",
            source="here",
            fields=LOCAL,
            own_fields=(gap,),
            views=2,
            loss=slow,
        )
    )
    config = small.config("slow-c8-k3-p1-gap0.5-ls0.01:relu:avg_2_2_0:warmup=0 BP:flatten", mode="consecutive")
    assert "Slow-c8-k3-p1-ls0.01-gap0.5" in grammar.format_network(config.network, catalog.load().defaults)
    result = small.run(config, tmp_path / "run")
    assert result.metrics["test_acc"] is not None
    assert result.rows[0]["train_loss"] is not None


@pytest.mark.usefixtures("registries")
def test_a_dataset_is_one_entry() -> None:
    def load(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
        count = 40 if train else 20
        labels = np.arange(count) % 2
        return (np.ones((count, 8, 8)) * labels[:, None, None] * 200).astype(np.uint8), labels

    DATASETS.register(
        Dataset(name="Halves", channels=1, height=8, width=8, classes=2, train=40, test=20, summary="x", load=load)
    )
    config = small.config(
        "BP:flatten",
        "classifier.lr=0.01",
        "dataset_sup.dataset=halves",
        "dataset_unsup.dataset=Halves",
        "dataset_sup.epochs=20",
    )
    assert small.run(config).metrics["test_acc"] == 100


@pytest.mark.usefixtures("registries")
def test_a_mode_is_one_function() -> None:
    @plan.mode
    def classifier_only(config: object) -> list[Phase]:
        return plan.successive(config)[-1:]  # type: ignore[arg-type]

    assert {row["kind"] for row in small.run(small.config(mode="classifier_only")).rows} == {"backprop"}


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", ["Soft", "soft"])
def test_a_duplicate_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="twice"):
        RULES.register(BackpropRule(name=name, summary="", source=""))


def test_entries_say_what_they_are() -> None:
    for rule in RULES.entries():
        assert rule.summary
        assert rule.source
    for entry in DATASETS.entries():
        assert entry.summary
        if entry.per_class is not None:
            assert sum(entry.per_class) == entry.train


def test_the_docs_list_every_token_part_and_method() -> None:
    """A new token would work and stay unknown to readers; ``m`` has no effect, so the table leaves it out."""
    page = (ROOT / "docs" / "strings.md").read_text()
    for token in token_table():
        assert f"`{token}`" in page or token == "m"
    for entry in (*RULES.entries(), *ACTIVATIONS.entries()):
        assert f"`{entry.name}" in page
