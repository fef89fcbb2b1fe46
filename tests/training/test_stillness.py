"""A rule that moves no weight is said to: without it a gate of zeros trains to 91 %, and nobody notices.

A line of the table is a rule, its network, and the warning that its run must print and keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import small
from conftest import Command

from hebb.config import plan, plugins
from hebb.config.registry import RULES
from hebb.core import user_code
from hebb.core.errors import ConfigError
from hebb.nn import model
from hebb.storage import checkpoints, folders, records
from hebb.training import start
from hebb.training import train as trainer
from hebb.tuning import results
from hebb.tuning.search import Trial

IMAGES = ("dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_unsup.epochs=3", "dataset_sup.epochs=3")
SMALL = ("--threads", "1", "--device", "cpu", "--model-name", "still", "--dataset", "Digits")

PLUGIN = """
import torch
from hebb import HebbianRule, LocalRule, SettlingRule, register
from hebb.config.fields import HEBBIAN, LOCAL
from hebb.config.registry import RULES
from hebb.energy.ep import EP

class Net(EP):
    def change(self, *arguments):
        pass

ep = RULES.get("EP", "")
same = dict(summary="", source="")
register(HebbianRule(name="Zeros", fields=HEBBIAN, signal=lambda u, layer, labels: torch.zeros_like(u), **same))
register(LocalRule(name="Flat", fields=LOCAL, loss=lambda views, layer, context: {"pull": 0 * views[0].sum()},
                   defaults={"CNN": {"warmup": 0, "weight_decay": 0.0}}, **same))
register(SettlingRule(name="Stone", archs=("MLP",), fields=("lr",), settings=ep.settings, network=lambda: Net,
                      tensors=ep.tensors, **same))
"""


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Forget the plugin of a test."""
    tables = [(table, dict(table)) for table in (RULES._entries, plugins._LOADED, user_code._SOURCES)]  # type: ignore[list-item]
    yield
    for table, entries in tables:
        table.clear()
        table.update(entries)  # type: ignore[arg-type]


def train(inside: Command, tmp_path: Path, network: str, *flags: str, changes: tuple[str, ...] = ()) -> str:
    (tmp_path / "still.py").write_text(PLUGIN)
    words = ("--plugin", "still.py", "--preset", network, *SMALL, *flags, "--set", *IMAGES, *changes)
    done = inside("multi_layer.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept(tmp_path: Path, name: str = "still") -> list[str]:
    path = tmp_path / "home" / "hebb" / "result" / "network" / name / "warnings.jsonl"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []


CNN = "{}-c6-k3:bn:triangle:max_2_2_0 BP:flatten"
WARNINGS = [
    ("Zeros", CNN.format("Zeros"), (), ["warning: block 0: Zeros moved none of its 54 weights in epoch 1"]),
    (
        "Zeros in every mode",
        CNN.format("Zeros"),
        ("--training-mode", "simultaneous"),
        ["warning: block 0: Zeros moved none of its 54 weights in epoch 1"],
    ),
    (
        "one of two blocks",
        "Hard-c6-k3:bn:triangle Zeros-c40-k5:bn:triangle BP:flatten",
        (),
        ["warning: block 1: Zeros moved none of its 6,000 weights in epoch 1"],
    ),
    (
        "a loss without a slope",
        CNN.format("Flat"),
        (),
        ["warning: block 0: Flat moved none of its 54 weights in epoch 1"],
    ),
    (
        "a settling network",
        "Stone-c16:flatten Stone",
        (),
        [
            "warning: block 0: Stone moved none of its 1,024 weights in epoch 1",
            "warning: block 1: Stone moved none of its 160 weights in epoch 1",
        ],
    ),
]


@pytest.mark.parametrize(("what", "network", "flags", "says"), WARNINGS, ids=[what for what, *_ in WARNINGS])
def test_a_rule_that_moves_no_weight(
    inside: Command, tmp_path: Path, what: str, network: str, flags: tuple[str, ...], says: list[str]
) -> None:
    """Once for a block and a phase, in the output and in the run folder."""
    output = train(inside, tmp_path, network, *flags)
    assert [line.strip() for line in output.splitlines() if "moved none" in line] == says
    assert kept(tmp_path) == says


def test_a_rate_of_zero_is_no_fault(inside: Command, tmp_path: Path) -> None:
    output = train(inside, tmp_path, CNN.format("Hard"), changes=("b0.layer.lr=0",))
    assert "warning" not in output
    assert output.count("block 0: its rate is 0, so its 54 weights stay as they are") == 1


def test_members_of_a_pack_are_warned_of_apart(inside: Command, tmp_path: Path) -> None:
    output = train(inside, tmp_path, CNN.format("Zeros"), "--pack-seeds", "2")
    for seed in (0, 1):
        assert f"seed {seed}  warning: block 0: Zeros moved none of its 54 weights in epoch 1" in output
        assert len(kept(tmp_path, f"still-s{seed}")) == 1


@pytest.mark.parametrize("network", [CNN.format("Hard"), CNN.format("LPL-warmup2"), "EP-c16:flatten EP"])
def test_what_learns_is_not_warned_of(inside: Command, tmp_path: Path, network: str) -> None:
    """Nor is a loss whose schedule starts at a rate of 0."""
    warmup = ("b0.layer.warmup=2",) if "LPL" in network else ()
    output = train(inside, tmp_path, network.replace("-warmup2", ""), changes=warmup)
    assert "moved none" not in output
    assert kept(tmp_path) == []


class _Listener(trainer.Report):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warning(self, text: str) -> None:
        self.texts.append(text)


def test_a_shared_block_repeats_its_warning(tmp_path: Path) -> None:
    """A trial that takes a block from the cache warns as the one that trained it, and a search counts both."""
    config = small.config(small.CNN, "b0.layer.lr=0")
    trials, texts = [], []
    for name in ("first", "second"):
        listener = _Listener()
        place = trainer.Place(datasets=tmp_path, folder=tmp_path / name, shared_blocks=tmp_path / "blocks")
        trainer.run(config, listener, place=place)
        trials.append(Trial(name=name, label="", choice={}, config=config, folder=tmp_path / name))
        texts.append(listener.texts)
    assert texts[0] == texts[1]
    assert len(texts[0]) == 1
    assert (tmp_path / "first" / folders.WARNINGS).read_text() == (tmp_path / "second" / folders.WARNINGS).read_text()
    assert results.warnings(trials) == {texts[0][0]: 2}


ROW = json.dumps(dict.fromkeys(records.COLUMNS) | {"phase": 0, "epoch": 1}) + "\n"
SECOND = ROW.replace('"epoch": 1', '"epoch": 2')


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (folders.METRICS, b"3\n", ", line 1: does not hold a row of a run"),
        (folders.METRICS, b"{}\n", ": does not hold the rows of a run"),
        (folders.METRICS, b"junk\n", ": must have one row for each epoch before the checkpoint"),
        (folders.METRICS, b"\xff\x00\n" + ROW.encode(), ", line 1: does not hold a row of a run"),
        (folders.METRICS, (ROW + "{half\n" + SECOND).encode(), ", line 2: does not hold a row of a run"),
        (folders.METRICS, (ROW + ROW + SECOND).encode(), ": must have one row for each epoch before the checkpoint"),
        (folders.METRICS, SECOND.encode(), ": must have one row for each epoch before the checkpoint"),
        (folders.METRICS, ROW.encode(), ": must have one row for each epoch before the checkpoint"),
        (folders.WARNINGS, b"{}\n", ", line 1: does not hold a row of a run"),
        (folders.LOOKS, b"{}\n", ", line 1: does not hold a row of a run"),
        (folders.LOOKS, b"\x84\x00\n{}\n", ", line 1: does not hold a row of a run"),
    ],
)
def test_damaged_records_are_not_continued(name: str, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / folders.METRICS).write_text("")
    (tmp_path / name).write_bytes(text)
    position = (0, 0, 0) if name != folders.METRICS else (0, 2, 9)
    with pytest.raises(ConfigError, match=f"{name}{message}"):
        records.Recorder(tmp_path, position)


def test_a_last_line_that_is_not_whole_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / folders.METRICS
    path.write_text(ROW + SECOND + SECOND[:20])
    assert len(folders.read_rows(path)) == 2
    recorder = records.Recorder(tmp_path, (0, 2, 9))
    recorder.close()
    assert path.read_text() == ROW + SECOND
    path.write_text(ROW + SECOND[:20])
    folders.append_row(path, json.loads(SECOND))
    assert path.read_text() == ROW + SECOND


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"seed": 0', '"seed": 1', "has changed since the run started"),
        ('"batch_size": 20', '"batch_size": 10', "has changed since the run started"),
        ('"dataset": "folder:/a"', '"dataset": "folder:/b"', None),  # where it lies now; its digest is compared
        ('"name": "/a/rule.py"', '"name": "/b/rule.py"', None),
        ('"seed": 0', '  "seed":   0', None),
    ],
)
def test_a_config_edited_by_hand_is_not_continued(before: str, after: str, message: str | None, tmp_path: Path) -> None:
    data = {"dataset": "folder:/a", "batch_size": 20}
    plugins = [{"name": "/a/rule.py", "sha256": "0"}]
    path = tmp_path / folders.CONFIG
    folders.write_json(path, {"seed": 0, "dataset_sup": data, "dataset_unsup": data, "plugins": plugins})
    started = records.with_config({}, path)
    path.write_text(path.read_text().replace(before, after))
    assert after in path.read_text()
    if message is None:
        assert records.with_config(started, path) == started
    else:
        with pytest.raises(ConfigError, match=message):
            records.with_config(started, path)
    assert records.with_config({}, path)["config_sha256"], "a run of an old version goes on"


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ({"phase": 0, "epoch": 99, "step": 1}, "is at phase 0, epoch 99, which the run does not have"),
        ({"phase": 7, "epoch": 0, "step": 1}, "is at phase 7, epoch 0, which the run does not have"),
        ({"phase": 0, "epoch": -1, "step": 1}, "holds weights, and not the position of a run"),
        ({"phase": 0, "epoch": "a", "step": 1}, "holds weights, and not the position of a run"),
        ({"phase": 0, "epoch": 1}, "holds weights, and not the position of a run"),
        (None, "holds weights, and not the position of a run"),
    ],
)
def test_a_checkpoint_at_no_position_of_the_run(position: object, message: str, tmp_path: Path) -> None:
    config = small.config()
    network = model.build(config)
    checkpoints.save(tmp_path / folders.CHECKPOINT, {"model": network.state_dict(), "position": position})
    place = trainer.Place(datasets=tmp_path, folder=tmp_path, carry_on=True)
    with pytest.raises(ConfigError, match=message):
        start._continued(network, plan.phases(config), place)
