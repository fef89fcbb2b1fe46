"""Which stored runs are replicates: seeds of one configuration, each once.

Without these checks a mean would hold runs that differ in more than their seed, and its deviation would mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import small
import stored_runs

from hebb.analysis import aggregate, compare, cost, curves, groups, record, replicates, runs, table
from hebb.analysis.runs import StoredRun
from hebb.config import controls
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind, Resume
from hebb.core.errors import ConfigError

TINY = ("dataset_sup.samples=40", "dataset_unsup.samples=40")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    home = tmp_path_factory.mktemp("groups")
    stored_runs.single(home, "one", small.config("2SoftHebbCnnDigits", *TINY))
    return runs.read([home]).runs[0]


def like(run: StoredRun, name: str, seed: int = 0, *changes: str, preset: str = "2SoftHebbCnnDigits") -> StoredRun:
    """Return a run that some values and the seed tell from another."""
    config = small.config(preset, *TINY, *changes, seed=seed)
    return replace(run, folder=Path(name), search=None, config=config)


Gather = Callable[[Sequence[StoredRun]], object]
BY_PRESET: dict[str, Gather] = {
    "table": lambda stored: table.compute(stored, "test_acc", ["preset"]),
    "compare": lambda stored: compare.compute({"one": stored, "other": stored}),
    "aggregate": lambda stored: aggregate.scores(stored, "test_acc", ["preset"], ["dataset"]),
    "curves": lambda stored: curves.compute(stored, "test_acc", ["preset"]),
    "cost": lambda stored: cost.compute(stored, "seconds", ["preset"]),
}


@pytest.mark.parametrize("gather", BY_PRESET)
def test_runs_of_different_configurations_are_no_seeds(gather: str, run: StoredRun) -> None:
    """Even where no seed occurs twice; the message names the runs, what differs, and a way to choose."""
    pooled = [like(run, "a"), like(run, "b", 1), like(run, "c", 2, "dataset_unsup.epochs=2")]
    says = "a and c are not seeds of one configuration: they differ in dataset_unsup.epochs\n"
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        BY_PRESET[gather](pooled)
    assert "--where dataset_unsup.epochs=1" in str(caught.value)
    BY_PRESET[gather](pooled[:2])


def test_groups_are_no_finer_than_what_makes_them(run: StoredRun) -> None:
    """Two networks on one dataset are one group by dataset, which is refused, and not two by their names."""
    both = [like(run, "a"), like(run, "b", 1, preset="2HardCnnDigits")]
    assert len(set(groups.labels(both, ["dataset"]))) == 1
    with pytest.raises(ConfigError, match="a and b are not seeds of one configuration"):
        curves.compute(both, "test_acc", ["dataset"])


def test_a_difference_without_a_path_is_named(run: StoredRun) -> None:
    blockwise = replace(run, folder=Path("b"), config=replace(run.config, seed=1, training_blocks=(1,)))
    with pytest.raises(ConfigError, match=r"they differ in training_blocks\nname the runs of one configuration"):
        groups.check([run, blockwise], ["x", "x"])


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 7},
        {"threads": 2},
        {"device": DeviceKind.CPU},
        {"probes": ("linear",)},
        {"curve_points": 3},
        {"resume": Resume.ALL, "resume_sha256": "0" * 64},
    ],
)
def test_seeds_may_differ_in_what_changes_no_result(changed: dict[str, object], run: StoredRun) -> None:
    """Machine, measurements, and the checkpoint that each seed starts from; not in whether there is one."""

    def configuration(**values: object) -> RunConfig:
        return groups.configuration(replace(run.config, **values))

    base = {"resume": Resume.ALL, "resume_sha256": "1" * 64} if "resume" in changed else {}
    assert configuration(**base) == configuration(**changed)
    assert configuration(resume=Resume.ALL, resume_sha256="1" * 64) != configuration()


def test_what_changes_no_result_is_not_named_as_the_difference(run: StoredRun) -> None:
    other = replace(run, folder=Path("b"), config=replace(run.config, seed=1, compile=True, training_blocks=(1,)))
    with pytest.raises(ConfigError, match=r"they differ in training_blocks\n"):
        groups.check([run, other], ["x", "x"])


def test_runs_from_other_checkpoints(run: StoredRun) -> None:
    """Each seed may start from its own; one seed from two is no repetition, and a record has a single config."""
    starts = [
        replace(
            run, folder=Path(name), config=replace(run.config, seed=seed, resume=Resume.ALL, resume_sha256=name * 64)
        )
        for name, seed in (("a", 0), ("b", 1), ("c", 1))
    ]
    groups.check(starts[:2], ["x", "x"])
    with pytest.raises(ConfigError, match="b and c have the same seed and start from different checkpoints"):
        groups.check(starts, ["x"] * 3)
    with pytest.raises(ConfigError, match="start from different checkpoints, and the config of a record names one"):
        record.lines(starts[:2])


def test_a_run_under_two_names_counts_once(run: StoredRun) -> None:
    with pytest.raises(ConfigError, match="a and b are one configuration with the same seed\nname one of them"):
        groups.check([like(run, "a"), like(run, "b")], [0, 0])
    groups.check([like(run, "a"), like(run, "b")], [0, 1])


def test_what_the_columns_do_not_say(run: StoredRun) -> None:
    """Other networks differ in their blocks, as their names say; epochs and batches are no part of a network."""
    soft, hard = like(run, "a"), like(run, "b", 0, "dataset_unsup.batch_size=5", preset="2HardCnnDigits")
    assert groups.unsaid([soft, hard], ["preset", "dataset"]) == (
        f"not the same in all groups: dataset_unsup.batch_size ({soft.config.dataset_unsup.batch_size}, 5)"
    )
    assert groups.unsaid([soft, hard], ["preset", "dataset_unsup.batch_size"]) == ""
    faster = like(run, "c", 0, "b0.layer.lr=0.5")
    rate = soft.value("b0.layer.lr")
    assert groups.unsaid([soft, faster], ["preset"]) == f"not the same in all groups: b0.layer.lr ({rate}, 0.5)"
    assert groups.unsaid([soft, faster], ["b*.layer.lr"]) == ""
    assert groups.unsaid([soft, like(run, "d", 3)], []) == ""


def test_a_control_has_no_published_value(run: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-prop under the name of the preset is another network, with a line of its own."""
    file = tmp_path / "published.csv"
    head = "figures,dataset,by,series,depth,mean,sd,source,chosen\n"
    file.write_text(f"{head}rules,Digits,preset,{run.preset},1,90.5,,a paper,last epoch\n")
    monkeypatch.setattr("hebb.analysis.published.FILE", file)
    arms = [
        replace(
            run, folder=Path(arm), config=small.config(run.preset, *TINY, f"control={arm}"), choice={controls.PATH: arm}
        )
        for arm in ("learned", "backprop")
    ]
    lines = cost.compute(arms, "seconds", ["control"], figure="rules").set_index("control")
    assert lines.loc["learned", "published"] == 90.5
    assert lines["published"].isna()["backprop"]
    names = [text.get_text() for text in cost.draw(lines.reset_index()).legends[0].get_texts()]
    assert sorted(names[:2]) == ["2SoftHebbCnnDigits (published 90.50)", "2SoftHebbCnnDigits, control backprop"]


def test_what_no_run_measured_is_no_figure(run: StoredRun) -> None:
    with pytest.raises(ConfigError, match="--metric: none of these runs measured 'val_acc'"):
        cost.compute([run], "seconds", metric="val_acc")
    with pytest.raises(ConfigError, match="--cost: none of these runs measured 'val_loss'"):
        cost.compute([run], "val_loss")
    assert str(replicates.unmeasured("R1")).startswith("--metric: none of these runs measured 'R1'")
