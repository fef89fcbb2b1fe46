"""Records against sums by hand and against the files they were taken from; broken ones are refused.

Without it the table of published numbers could disagree with the records behind it.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from hebb.analysis import evidence, evidence_figure
from hebb.cli.analysis import command
from hebb.core.errors import ConfigError

GOOD = {
    "title": "t",
    "date": "2026-11-22",
    "machine": {"processor": "p"},
    "versions": {"torch": "2"},
    "claims": [
        {
            "what": "net | data",
            "unit": "%",
            "published": {"value": 60.0, "sd": 2.5, "n": 4, "source": "table 1"},
            "command": "python multi_layer.py",
            "config": "config.json",
            "runs": "runs.csv",
            "column": "acc",
        }
    ],
}


def record(tmp_path: Path, csv: str = "seed,acc\n0,59\n1,62\n2,65\n", **claim: object) -> Path:
    """Write a record with changes in its claim; a key that is given as None is left out."""
    folder = tmp_path / "2026-11-22-x"
    folder.mkdir(parents=True)
    changed = {k: v for k, v in {**GOOD["claims"][0], **claim}.items() if v is not None}
    text = yaml.safe_dump({**GOOD, "claims": [changed]}).replace("'2026-11-22'", "2026-11-22")
    (folder / "record.yaml").write_text(text)
    (folder / "runs.csv").write_text(csv)
    (folder / "config.json").write_text("{}")
    return folder


def test_mean_deviation_and_difference_are_those_of_the_csv(tmp_path: Path) -> None:
    record(tmp_path)
    (line,) = evidence.table(evidence.read(tmp_path)).to_dict("records")
    assert line["ours"] == pytest.approx((59 + 62 + 65) / 3)
    assert line["sd"] == pytest.approx(3.0)  # sqrt((9 + 0 + 9)/2)
    assert line["n"] == 3
    assert line["difference"] == pytest.approx(2.0)
    assert (line["published"], line["published_sd"], line["published_n"]) == (60.0, 2.5, 4)
    text = evidence.markdown(evidence.table(evidence.read(tmp_path)))
    assert "| net \\| data (%) | 60.00 ± 2.50 (n 4) | 62.00 ± 3.00 | 3 | +2.00 |" in text


def test_one_run_has_no_deviation(tmp_path: Path) -> None:
    record(tmp_path, csv="seed,acc\n0,61.5\n")
    frame = evidence.table(evidence.read(tmp_path))
    assert math.isnan(frame["sd"][0])
    assert "| 61.50 | 1 | +1.50 |" in evidence.markdown(frame)


def test_what_other_groups_found_has_a_column_of_its_own(tmp_path: Path) -> None:
    thesis = {"value": 61.3, "sd": 0.1, "n": 3, "source": "a thesis"}
    record(tmp_path, others=[thesis, {"value": 59, "source": "a fork"}])
    text = evidence.markdown(evidence.table(evidence.read(tmp_path)))
    assert "| what | published | other groups | ours |" in text
    assert "| 60.00 ± 2.50 (n 4) | 61.30 ± 0.10, n 3 (a thesis); 59 (a fork) | 62.00 ± 3.00 |" in text


def test_what_is_outside_the_published_deviation_says_why(tmp_path: Path) -> None:
    folder = record(tmp_path, published={**GOOD["claims"][0]["published"], "sd": 1.9})
    with pytest.raises(ConfigError, match=r"claim 1: ours differs by \+2 from 60 \+- 1.9\n.*why"):
        evidence.read(tmp_path)
    shutil.rmtree(folder)
    record(tmp_path, published={**GOOD["claims"][0]["published"], "sd": 1.9}, why="another batch size")
    text = evidence.markdown(evidence.table(evidence.read(tmp_path)))
    assert "+2.00 (1)" in text
    assert "1. another batch size" in text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"colunm": "acc"}, r"unknown key 'colunm' \(did you mean 'column'\?\)"),
        ({"published": None}, "'published' is missing"),
        ({"published": {"value": 1.0}}, "'source' is missing"),
        ({"published": {"value": "x", "source": "s"}}, "value cannot be 'x'"),
        ({"config": "other.json"}, "other.json is not in the folder"),
        ({"runs": "other.csv"}, "other.csv: is not in the folder"),
        ({"column": "accuracy"}, r"has no column 'accuracy' \(did you mean 'acc'\?\)"),
        ({"others": {"value": 1}}, "others must be a list"),
        ({"others": [{"value": 1}]}, "claim 1, others 1: 'source' is missing"),
        ({"csv": "seed,acc\n0,1\n0,2\n"}, "one line for each seed"),
        ({"csv": "seed,acc\n"}, "one line for each seed"),
        ({"csv": "seed,acc\n0,nan\n"}, "not a finite number"),
        ({"csv": "seed,acc\n0,much\n"}, "not a finite number"),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    record(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=problem) as caught:
        evidence.read(tmp_path)
    assert str(caught.value).startswith("2026-11-22-x/record.yaml")


def test_an_installation_without_records_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence.shipped, "path", lambda name: tmp_path / name)
    with pytest.raises(ConfigError, match=r"evidence: this installation has no records/\nname the folder"):
        command.main(["evidence", "--out", str(tmp_path)])


@pytest.mark.parametrize("text", ["", "- 1", "title: [", "title: t\nclaims: 3", "date: soon"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "record.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"r/record\.yaml"):
        evidence.read(tmp_path)


def test_headlines_stand_by_group_and_value(tmp_path: Path) -> None:
    for name, headline, value in (
        ("a", "B: low", 50.0),
        ("b", "B: high", 60.5),
        ("c", "A: one", 40.0),
        ("d", None, 70.0),
    ):
        folder = record(tmp_path / name, headline=headline, published={"value": value, "source": "s"})
        folder.rename(tmp_path / f"2026-11-22-{name}")
    frame = evidence.table(evidence.read(tmp_path))
    assert list(evidence.headlines(frame)["what"]) == ["A: one", "B: high", "B: low"]
    (panels, names) = zip(
        *[
            (panel.get_title(), [tick.get_text() for tick in panel.get_yticklabels()])
            for panel in evidence_figure.draw(evidence.headlines(frame)).axes
        ],
        strict=True,
    )
    assert [title.partition(",")[0] for title in panels] == ["A", "B"]
    assert list(names) == [["one"], ["high", "low"]]
    with pytest.raises(ConfigError, match="--headlines: no claim"):
        evidence.headlines(frame[frame["headline"] == ""])


def test_a_page_shows_what_stands_between_its_marks() -> None:
    page = f"before\n{evidence.BEGIN}\nold\n{evidence.END}\nafter\n"
    changed = evidence.inserted(page, "new\n")
    assert changed == f"before\n{evidence.BEGIN}\nnew\n{evidence.END}\nafter\n"
    assert evidence.shown(changed) == "new\n"
    with pytest.raises(ConfigError, match="must hold the marks"):
        evidence.shown("a page")


# -- the records of this repository ----------------------------------------------------------------------------

RECORDS = ROOT / "records"


def rows(name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (RECORDS / name).read_text().splitlines()]


def claims(folder: str) -> dict[str, evidence.Claim]:
    return {claim.column: claim for claim in evidence.read_one(RECORDS / folder).claims}


def test_every_folder_is_a_record() -> None:
    folders = [path for path in RECORDS.iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        record = evidence.read_one(folder)
        assert folder.name.startswith(f"{record.date}-")
        assert (folder / "README.md").exists()


@pytest.mark.parametrize(("shown", "more"), [("README.md", ["--headlines"]), ("docs/evidence.md", [])])
def test_a_page_of_ours_shows_what_the_command_prints(
    shown: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``hebb analysis evidence --page docs/evidence.md`` and ``--headlines --page README.md`` bring them up to date."""
    shutil.copytree(RECORDS, tmp_path / "records")  # links lead from the page to the folder
    page = tmp_path / shown
    page.parent.mkdir(exist_ok=True)
    page.write_text(f"a\n{evidence.BEGIN}\nold\n{evidence.END}\nb\n")
    flags = [str(tmp_path / "records"), *more, "--out", str(tmp_path), "--page", str(page)]
    assert [command.main(["evidence", *flags]) for _ in range(2)] == [0, 0]
    text = evidence.shown((ROOT / shown).read_text())
    assert capsys.readouterr().out.startswith(text.replace("](../", "]("))
    assert page.read_text() == f"a\n{evidence.BEGIN}\n{text}{evidence.END}\nb\n"
    lines = pd.read_csv(tmp_path / "evidence.csv")
    assert len(lines) == sum(line.startswith("| ") for line in text.splitlines()) - 1
    assert (tmp_path / "evidence.png").exists()
    with pytest.raises(ConfigError, match="must hold the marks"):
        command.main(["evidence", "--out", str(tmp_path), "--page", str(ROOT / "CONTRIBUTING.md")])


def test_the_figure_of_all_claims_has_the_differences_in_percent() -> None:
    frame = evidence.table(evidence.read(RECORDS))
    figure = evidence_figure.draw_all(frame)
    shares = frame[frame["unit"] == "%"]
    (panel,) = figure.axes
    points = next(line for line in panel.lines if len(line.get_xdata()) == len(shares))
    assert list(points.get_xdata()) == list(shares["difference"])
    assert [bar.get_width() for bar in panel.patches] == pytest.approx(list(2 * shares["published_sd"].fillna(0)))
    assert [label.get_text() for label in panel.get_yticklabels()] == list(shares["record"].unique())


def test_ours_are_the_numbers_of_the_stored_runs() -> None:
    hebbian, first, second = rows("2026-11-22-first-runs/cifar10-metrics.jsonl")
    by_column = claims("2026-11-22-first-runs")
    assert by_column["convergence"].values is not None
    by_hand = {"R1": hebbian["R1"], "test_acc_1": first["test_acc"], "test_acc_2": second["test_acc"]}
    assert {name: dict(by_column[name].values) for name in by_hand} == {k: {0: v} for k, v in by_hand.items()}
    files = {0: "", 2: "-s2", 3: "-s3"}
    speed = RECORDS / "2026-11-22-speed"
    timed = {
        seed: json.loads((speed / f"published-2SoftHebbCnnCIFAR{end}.json").read_text()) for seed, end in files.items()
    }
    ours = {seed: measured["results"][0]["accuracy"]["ours"] for seed, measured in timed.items()}
    *_, last = rows("2026-11-22-speed/2SoftHebbCnnCIFAR-s1-metrics.jsonl")
    (whole,) = (c for c in evidence.read_one(speed).claims if c.runs == "2SoftHebbCnnCIFAR.csv")
    assert dict(whole.values) == {**ours, 1: last["test_acc"]}
