"""A record made from stored runs: its lines are those of the runs, and ``evidence`` reads it.

Without it a record could hold numbers that its runs do not have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import stored_runs
import yaml

from hebb.analysis import evidence, runs
from hebb.cli.analysis import command
from hebb.config import catalog
from hebb.config.serialise import run_from_json
from hebb.config.specs import RunConfig
from hebb.core import documents
from hebb.core.errors import ConfigError

KNOWN = catalog.load()


def config(seed: int, width: int = 4) -> RunConfig:
    """Return a small run on Digits."""
    network = KNOWN.network(f"Soft-c{width}-k3:bn:triangle:max_4_4_0 BP:flatten")
    sup, unsup = KNOWN.dataset("Digits_1", "test"), KNOWN.dataset("Digits_1", "test")
    return RunConfig(network=network, mode="successive", dataset_sup=sup, dataset_unsup=unsup, seed=seed, device="cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of one run, and one of a wider network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEBB_HOME", str(tmp_path / "home"))
    for seed in (2, 0, 1):
        stored_runs.single(tmp_path / "home", f"s{seed}", config(seed))
    stored_runs.single(tmp_path / "home", "wide", config(3, width=6))
    return tmp_path


def write(*words: str) -> int:
    """Run the verb on the three seeds."""
    return command.main(["record", "s0", "s1", "s2", "--out", "records/mine", *words])


def test_a_record_is_what_evidence_reads(home: Path) -> None:
    words = ("--published", "50", "--source", "a paper", "--n", "4", "--what", "Digits, test accuracy")
    assert write(*words) == 0
    folder = home / "records" / "mine"
    results = [json.loads((home / f"home/hebb/result/network/s{i}/result.json").read_text()) for i in range(3)]
    frame = pd.read_csv(folder / "record.csv")
    assert list(frame["seed"]) == [0, 1, 2]
    assert list(frame["test_acc"]) == [result["metrics"]["test_acc"] for result in results]
    assert list(frame["seconds"]) == [result["seconds"] for result in results]

    (claim,) = evidence.read_one(folder).claims
    assert (claim.what, claim.unit, claim.n) == ("Digits, test accuracy", "%", 3)
    assert claim.published == evidence.Published(value=50.0, source="a paper", n=4)
    assert claim.mean == pytest.approx(frame["test_acc"].mean())
    assert [line.split("=")[-1] for line in claim.command.splitlines()] == ["0", "1", "2"]
    assert claim.config is not None
    again = run_from_json(json.loads((folder / claim.config).read_text()), claim.config)
    assert again in [config(seed) for seed in range(3)]


def test_a_record_of_several_epochs_has_a_claim_for_each(home: Path) -> None:
    rows = [
        [json.loads(row) for row in (home / f"home/hebb/result/network/s{i}/metrics.jsonl").read_text().splitlines()]
        for i in range(3)
    ]
    last = [{row["epoch"]: row["train_acc"] for row in each if row["phase"] == each[-1]["phase"]} for each in rows]
    (epoch,) = last[0].keys()
    words = ("--metric", "train_acc", "--source", "a paper", "--published", "50", "--sd", "99", "--what", "Digits")
    assert write(*words, "--epochs", str(epoch)) == 0
    (claim,) = evidence.read_one(home / "records" / "mine").claims
    assert (claim.what, claim.column) == (f"Digits after {epoch} epoch", f"train_acc_{epoch}")
    assert claim.values == {i: last[i][epoch] for i in range(3)}
    assert claim.published.sd == 99


def epochs(home: Path, values: dict[str, list[float]]) -> None:
    """Give runs the test accuracies of ten classifier epochs."""
    for name, accuracies in values.items():
        path = home / f"home/hebb/result/network/{name}/metrics.jsonl"
        *before, last = [json.loads(row) for row in path.read_text().splitlines()]
        rows = [*before, *({**last, "epoch": i, "test_acc": acc} for i, acc in enumerate(accuracies, 1))]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_mean_over_epochs(home: Path) -> None:
    epochs(home, {f"s{i}": [10.0 * i + e for e in range(1, 11)] for i in range(3)})
    words = ("--source", "a paper", "--published", "7", "8", "--what", "Digits", "--epochs", "1", "4-6")
    assert write(*words) == 0
    after, mean = evidence.read_one(home / "records" / "mine").claims
    assert (after.what, after.column) == ("Digits after 1 epoch", "test_acc_1")
    assert (mean.what, mean.column) == ("Digits, mean of epochs 4 to 6", "test_acc_4_to_6")
    assert after.values == {0: 1, 1: 11, 2: 21}
    assert mean.values == {0: 5, 1: 15, 2: 25}


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("test_loss", "nats"),
        ("R1", "neurons of radius 1"),
        ("convergence", "mean distance of the radii from 1"),
        ("parameters", "parameters"),
        ("test_acc", "%"),
    ],
)
def test_every_metric_and_cost_has_a_record(metric: str, unit: str, home: Path) -> None:
    """Radii end with the Hebbian phases, and costs are no rows of a run; more seeds keep the claim of each."""
    out = ("--out", "records/mine", "--metric", metric)
    assert command.main(["record", "s0", "s1", *out, "--published", "50", "--source", "a paper"]) == 0
    stored = {run.seed: run for run in runs.read([home / "home"]).runs if run.folder.name.startswith("s")}
    (claim,) = evidence.read_one(home / "records" / "mine").claims
    assert claim.unit == unit
    assert claim.values == {seed: pytest.approx(stored[seed].measured(metric)) for seed in (0, 1)}
    assert write("--overwrite") == 0
    (claim,) = evidence.read_one(home / "records" / "mine").claims
    assert claim.values == {seed: pytest.approx(stored[seed].measured(metric)) for seed in (0, 1, 2)}


def test_a_set_of_runs_gets_more_seeds(home: Path) -> None:
    """What was published, and what a person wrote, stays."""
    epochs(home, {f"s{i}": [10.0 * i + e for e in range(1, 11)] for i in range(3)})
    words = ("--source", "a paper", "--n", "3", "--sd", "1", "1", "--why", "one seed", "--epochs", "2", "4-6")
    first = ("record", "s0", "--out", "records/mine", "--published", "7", "5", "--what", "Digits", *words)
    assert command.main([*first, "--title", "Mine"]) == 0
    page = home / "records" / "mine" / "record.yaml"
    data = yaml.safe_load(page.read_text())
    data["claims"][0] |= {"headline": "Digits: narrow", "others": [{"value": 6, "source": "a fork"}]}
    data["machine"]["shared"] = True
    page.write_text(yaml.safe_dump(data))
    old = evidence.read_one(page.parent).claims
    assert [claim.why for claim in old] == ["one seed", None]

    with pytest.raises(ConfigError, match="--why: ours differs by"):
        write("--overwrite")  # the second mean is no longer near, and has no reason yet
    assert write("--overwrite", "--why", "few images") == 0
    record = evidence.read_one(page.parent)
    new = record.claims
    assert [claim.values for claim in new] == [{0: 2, 1: 12, 2: 22}, {0: 5, 1: 15, 2: 25}]
    assert [claim.why for claim in new] == ["one seed", "few images"]
    typed = [[(c.what, c.published, c.headline, c.others) for c in claims] for claims in (old, new)]
    assert typed[0] == typed[1]
    assert (record.title, record.machine["shared"]) == ("Mine", True)
    assert write("--overwrite", "--metric", "train_acc", "--epochs", "3") == 0  # one more column
    frame = pd.read_csv(page.parent / "record.csv")
    assert {"test_acc_2", "test_acc_4_to_6", "train_acc_3"} <= set(frame)
    assert write("--overwrite") == 0
    assert list(pd.read_csv(page.parent / "record.csv")) == list(frame)


def test_the_runs_of_a_record_need_not_be_there(home: Path) -> None:
    """Its lines stay as they are; a seed that is run again has the new line, and the commits of both are named."""
    assert (
        command.main(["record", "s0", "s1", "--out", "records/mine", "--published", "50", "--source", "a paper"]) == 0
    )
    folder = home / "records" / "mine"
    csv, page = folder / "record.csv", folder / "record.yaml"
    before = csv.read_text().splitlines()
    lines = [before[0], before[1], before[2].replace("1,", "7,", 1)]  # seed 7 has no run here
    csv.write_text("\n".join(lines) + "\n")
    data = yaml.safe_load(page.read_text())
    data["versions"]["commit"] = "0123456789"
    page.write_text(documents.yaml_text(data))
    assert write("--overwrite") == 0
    after = pd.read_csv(csv, dtype=str)
    assert list(after["seed"]) == ["0", "1", "2", "7"]
    assert ",".join(after[after["seed"] == "7"].iloc[0]) == lines[2]
    (claim,) = evidence.read_one(folder).claims
    assert sorted(claim.values) == [0, 1, 2, 7]
    assert "seed=7" in claim.command
    assert str(evidence.read_one(folder).versions["commit"]).startswith("0123456789, ")


LOSES: dict[str, tuple[Sequence[str], str]] = {
    "its configuration": (
        ("wide0", "wide1", "wide2"),
        r"runs: wide0 is no seed of the configuration in record\.config\.json",
    ),
    "its words": (("s0", "s1", "s2", "--what", "x"), "--what: changes what the record claims"),
    "its metric": (("s0", "s1", "s2", "--metric", "train_acc"), "--metric: changes what the record claims"),
    "a headline": (
        ("s0", "s1", "s2", "--metric", "train_acc", "--published", "5", "--source", "x"),
        "would lose headline and others of its claim of test_acc",
    ),
}


@pytest.mark.parametrize("case", LOSES)
def test_a_set_of_runs_loses_nothing(case: str, home: Path) -> None:
    words, says = LOSES[case]
    for seed in range(3):
        stored_runs.single(home / "home", f"wide{seed}", config(seed, width=6))
    assert write("--published", "50", "--source", "a paper") == 0
    page = home / "records" / "mine" / "record.yaml"
    data = yaml.safe_load(page.read_text())
    data["claims"][0] |= {"headline": "Digits: narrow", "others": [{"value": 6, "source": "a fork"}]}
    page.write_text(yaml.safe_dump(data))
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    with pytest.raises(ConfigError, match=says):
        command.main(["record", *words, "--out", "records/mine", "--overwrite"])
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


@pytest.mark.parametrize("column", ["largest_1", "test_acc_04", "test_acc_6_to_4", "kind_3", "words"])
def test_a_column_of_hand_is_not_lost(column: str, home: Path) -> None:
    assert write() == 0
    path = home / "records" / "mine" / "record.csv"
    pd.read_csv(path).assign(**{column: 1.0}).to_csv(path, index=False)
    with pytest.raises(ConfigError, match=f"runs have no '{column}'"):
        write("--overwrite")


def test_a_set_without_seeds_is_no_csv_of_ours(home: Path) -> None:
    assert write() == 0
    path = home / "records" / "mine" / "record.csv"
    for text, says in (("a,b\n1,2\n", "has no column 'seed'"), ("", "is not a CSV")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            write("--overwrite")


def test_a_record_holds_several_sets_of_runs(home: Path) -> None:
    published = ("--source", "a paper", "--out", "records/mine", "--published")
    assert write("--name", "narrow", "--title", "Two widths", "--published", "50", "--source", "a paper") == 0
    assert command.main(["record", "wide", "--name", "wide", *published, "60", "--what", "wide"]) == 0
    folder = home / "records" / "mine"
    record = evidence.read_one(folder)
    assert record.title == "Two widths"
    assert [(claim.runs, claim.config, claim.n) for claim in record.claims] == [
        ("narrow.csv", "narrow.config.json", 3),
        ("wide.csv", "wide.config.json", 1),
    ]
    with pytest.raises(ConfigError, match="exists already"):
        command.main(["record", "wide", "--name", "wide", *published, "70"])
    assert command.main(["record", "s1", "--name", "narrow", *published, "70", "--overwrite"]) == 0
    claims = {claim.runs: claim for claim in evidence.read_one(folder).claims}
    assert {runs: (claim.published.value, claim.n) for runs, claim in claims.items()} == {
        "wide.csv": (60.0, 1),
        "narrow.csv": (70.0, 1),
    }


def test_a_record_that_is_written_anew_forgets_all_but_what_was_typed(home: Path) -> None:
    words = ("--published", "50", "--source", "a paper")
    assert write(*words) == 0
    page = home / "records" / "mine" / "record.yaml"
    data = yaml.safe_load(page.read_text())
    others = [{"value": 49, "source": "a fork"}]
    data["claims"][0] |= {"headline": "Digits: narrow", "others": others}
    data |= {"title": "Old", "date": data["date"].replace(year=2020)}
    data["versions"] |= {"torch": "1.0", "commit": "0000000000"}
    page.write_text(yaml.safe_dump(data))
    assert write(*words, "--overwrite") == 0
    after = yaml.safe_load(page.read_text())
    assert (after["claims"][0]["headline"], after["claims"][0]["others"]) == ("Digits: narrow", others)
    assert "Old" not in after["title"]
    assert after["date"].year > 2020
    assert after["versions"]["torch"] != "1.0"
    assert "0000000000" not in str(after["versions"])
    page.write_text("claims:\n")  # nothing to keep
    assert write(*words, "--overwrite", "--title", "New") == 0
    assert evidence.read_one(page.parent).title == "New"


def test_a_record_written_by_hand_takes_more_runs(home: Path) -> None:
    """Its versions may be shorter, and it may have keys that ours lacks."""
    assert write("--name", "one", "--published", "50", "--source", "a paper", "--title", "Old") == 0
    page = home / "records" / "mine" / "record.yaml"
    data = yaml.safe_load(page.read_text())
    python = data["versions"]["python"]
    data["versions"] = {"python": python.rpartition(".")[0]}
    data["machine"] |= {"shared": True}
    data["date"] = data["date"].replace(year=2020)
    page.write_text(yaml.safe_dump(data))
    assert command.main(["record", "wide", "--name", "wide", "--out", "records/mine"]) == 0
    after = yaml.safe_load(page.read_text())
    assert (after["title"], after["machine"]["shared"], len(after["claims"])) == ("Old", True, 1)
    assert after["versions"]["torch"]
    assert after["date"] == data["date"]
    data["versions"]["python"] = "2.7"
    page.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=f"these runs have python {python}, its own 2.7"):
        command.main(["record", "wide", "--name", "other", "--out", "records/mine"])


def test_a_record_is_of_one_machine(home: Path) -> None:
    assert write("--name", "one") == 0
    page = home / "records" / "mine" / "record.yaml"
    before = page.read_text().replace("threads: 1", "threads: 8")
    page.write_text(before)
    with pytest.raises(ConfigError, match="these runs have threads 1, its own 8"):
        write("--name", "other")
    assert page.read_text() == before
    assert not page.with_name("other.csv").exists()


def test_a_reason_stands_where_there_is_a_difference(home: Path) -> None:
    words = ("--source", "a paper", "--published", "50", "--why", "few images", "--sd")
    assert write(*words, "99") == 0
    assert evidence.read_one(home / "records" / "mine").claims[0].why is None
    assert write(*words, "0.001", "--overwrite") == 0
    assert evidence.read_one(home / "records" / "mine").claims[0].why == "few images"


def test_a_record_without_a_published_number(home: Path) -> None:
    assert write("--title", "Three seeds") == 0
    record = evidence.read_one(home / "records" / "mine")
    assert (record.title, record.claims) == ("Three seeds", ())
    data = yaml.safe_load((home / "records" / "mine" / "record.yaml").read_text())
    assert data["machine"]["threads"] == 1
    with pytest.raises(ConfigError, match="exists already"):
        write()


BAD: dict[str, tuple[Sequence[str], str]] = {
    "two configurations": (
        ("s0", "wide", "--out", "r"),
        "s0 and wide are not seeds of one configuration: they differ in",
    ),
    "nowhere": (("s0",), "--out: must name the folder of the record"),
    "a source of nothing": (
        ("s0", "--out", "r", "--source", "x"),
        "--source: describes a published number, and",
    ),
    "no source": (("s0", "--out", "r", "--published", "5"), "--published: needs --source"),
    "two numbers of one epoch": (
        ("s0", "--out", "r", "--published", "5", "6", "--source", "x"),
        "--published: must be one number, got 2",
    ),
    "one number of two epochs": (
        ("s0", "--out", "r", "--published", "5", "--source", "x", "--epochs", "1", "2"),
        "--published: must be one number for each of the 2 --epochs, got 1",
    ),
    "an epoch twice": (("s0", "--out", "r", "--epochs", "1", "1-1"), "--epochs: names an epoch twice"),
    "epochs backwards": (("s0", "--out", "r", "--epochs", "6-4"), "--epochs: must be epochs from 1 on, or a range"),
    "epochs in words": (("s0", "--out", "r", "--epochs", "last"), "--epochs: must be epochs from 1 on, or a range"),
    "an epoch of many digits": (("s0", "--out", "r", "--epochs", "9" * 5000), "--epochs: must be epochs from 1 on"),
    "a cost after an epoch": (
        ("s0", "--out", "r", "--epochs", "1", "--metric", "parameters", "--published", "5", "--source", "x"),
        "--metric: parameters is not measured after every epoch",
    ),
    "epoch 0": (("s0", "--out", "r", "--epochs", "0"), "--epochs: must be epochs from 1 on, or a range"),
    "an epoch that was not measured": (
        ("s0", "--out", "r", "--epochs", "999"),
        "--epochs: s0 has no test_acc after epoch 999 of its last phase",
    ),
    "no reason": (
        ("s0", "--out", "r", "--published", "5000", "--source", "x", "--sd", "1"),
        r"--why: ours differs by -[0-9.e+]+ from 5000 \+- 1",
    ),
    "no such column": (
        ("s0", "--out", "r", "--published", "5", "--source", "x", "--metric", "val_acc"),
        "--metric: none of these runs measured 'val_acc'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case: str, home: Path) -> None:
    words, says = BAD[case]
    with pytest.raises(ConfigError, match=says):
        command.main(["record", *words])
    assert not (home / "r").exists()


def test_a_seed_twice(home: Path) -> None:
    stored_runs.single(home / "home", "again", config(0))
    with pytest.raises(ConfigError, match="again and s0 are one configuration with the same seed"):
        command.main(["record", "s0", "again", "--out", "r"])
