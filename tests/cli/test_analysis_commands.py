"""Every verb of ``analysis.py``: what it says of itself, what it refuses, what it leaves on the disk.

Without it a verb could lose a flag, or leave half a figure behind.
"""

from __future__ import annotations

import math
import re
import shutil
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import small
import stored_runs
from conftest import Command

from hebb.analysis import groups, runs, style, table
from hebb.analysis.output import Output
from hebb.cli.analysis import command as analysis
from hebb.core.errors import ConfigError
from hebb.storage import folders

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100")


@pytest.mark.parametrize("name", analysis.VERBS)
class TestEveryVerb:
    def test_summary(self, name: str) -> None:
        verb = analysis.VERBS[name]
        assert re.fullmatch(r"[a-z]\w*", verb.name)
        assert 20 < len(verb.summary) < 100
        assert not verb.summary.endswith(".")
        assert re.search(rf"^  {name} +{re.escape(verb.summary)}$", analysis.usage(), re.MULTILINE)

    def test_help(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Every flag has a word of help."""
        with pytest.raises(SystemExit) as end:
            analysis.main([name, "--help"])
        assert end.value.code == 0
        assert analysis.VERBS[name].summary.split()[0] in capsys.readouterr().out
        flags = analysis.parser(analysis.VERBS[name])._actions
        assert [action.dest for action in flags if not action.help] == []

    @pytest.mark.parametrize("arguments", [["--overwrit"], ["--nosuchflag", "3"], ["--out"]])
    def test_bad_flags(self, name: str, arguments: list[str]) -> None:
        with pytest.raises(ConfigError) as raised:
            analysis.main([name, "nothere", *arguments])
        assert raised.value.exit_code == 2

    def test_what_is_not_there(self, name: str, tmp_path: Path) -> None:
        """No run, no search, no recipe of that name; nothing is written."""
        with pytest.raises(ConfigError):
            analysis.main([name, "nothere", "--data-dir", str(tmp_path / "home"), "--out", str(tmp_path / "out")])
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent folder with a search of two rates and three seeds."""
    home = tmp_path_factory.mktemp("home")
    stored_runs.sweep(home, "rates", small.config(small.CNN, *TINY), {"b0.layer.lr": [0.05, 0.1]}, [0, 1, 2])
    return home


def test_values_within_a_search_are_compared(rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate 0.05 against the baseline 0.1, seed by seed; and it says at once what it reads."""
    flags = ["--data-dir", str(rates), "--out", str(tmp_path)]
    assert analysis.main(["compare", "rates", "--by", "b0.layer.lr", "--baseline", "0.10", *flags]) == 0
    assert capsys.readouterr().err == "reading rates ...\n"
    line = pd.read_csv(tmp_path / "compare.csv").iloc[0]
    assert (line["group"], line["reference"], line["n"]) == ("b0.layer.lr=0.05", "b0.layer.lr=0.1", 3)
    stored = runs.frame(runs.read([rates]).runs, ["test_acc"], ["b0.layer.lr"])
    means = stored.groupby("b0.layer.lr")["test_acc"].mean()
    assert line["difference"] == pytest.approx(means[0.05] - means[0.1])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--by", "b0.layer.lr", "--baseline", "0.2"], "--baseline: no run has b0.layer.lr=0.2"),
        (["--by", "b0.layer.lr", "--baseline", "0.1", "3"], "must be one value for each of b0.layer.lr, got 0.1 3"),
        (["--by", "b0.layer.lrr"], "has no single value at 'b0.layer.lrr'"),
        (["--baseline", "rate"], "is none of RUNS: 'rate' (did you mean 'rates'?)"),
        (["--by", "preset"], "must be at least two"),
        (["--by", "seed"], "they differ in b0.layer.lr"),
        ([], "--by compares the values of one of its columns"),
    ],
)
def test_sides_that_there_are_not(flags: list[str], says: str, rates: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        analysis.main(["compare", "rates", *flags, "--data-dir", str(rates), "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_searches_over_different_keys_share_a_table(rates: Path) -> None:
    """The keys that differ are columns; a run that lacks one has an empty cell, and labels leave it out."""
    first = runs.read([rates]).runs[0]

    def made(network: str, change: str, seed: int) -> runs.StoredRun:
        config = small.config(network, change, seed=seed)
        return replace(first, folder=Path(f"{network}-{change}-{seed}"), search=None, config=config)

    soft, hard = "Soft-c8-k3-p1-t1-lr0.08:bn:relu BP:flatten", "Hard-c8-k3-p1-lr0.08:bn:relu BP:flatten"
    both = [made(soft, f"b0.layer.t_invert={t}", s) for t in (1, 2) for s in (0, 1)]
    both += [made(hard, f"b0.layer.lr={rate}", s) for rate in (0.1, 0.2) for s in (0, 1)]
    frame = table.compute(both, "test_acc")
    assert list(frame["n"]) == [2, 2, 2, 2]
    assert list(frame["b0.layer.lr"]) == [0.08, 0.08, 0.1, 0.2]
    assert frame["b0.layer.t_invert"].tolist()[:2] == [1, 2]
    assert frame["b0.layer.t_invert"].isna().tolist() == [False, False, True, True]
    assert list(table.cells(frame)["b0.layer.t_invert"])[2:] == ["-", "-"]
    names = list(dict.fromkeys(groups.labels(both)))
    assert len(names) == 4
    assert names[2] == f"{hard}, b0.layer.lr=0.1"


def test_runs_show_what_tells_them_apart(rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rates of the search, as the table of a paper would write them, and no value that all share."""
    assert analysis.main(["runs", "rates", "--data-dir", str(rates), "--out", str(tmp_path)]) == 0
    head, *lines = (line.split() for line in capsys.readouterr().out.splitlines()[:7])
    assert head == ["run", "preset", "dataset", "seed", "b0.layer.lr", "train_acc", "val_acc", "test_acc", "seconds"]
    assert sorted((line[-5], line[-6]) for line in lines) == [(lr, seed) for lr in ("0.05", "0.1") for seed in "012"]
    assert {line[-3] for line in lines} == {"-"}


def test_table_by_hand(rates: Path, forked: Command, tmp_path: Path) -> None:
    """n, mean, deviation and Student's interval, by their formulas; t(0.975, 2) = 4.302653 (any table)."""
    shutil.copytree(rates, tmp_path / "home")
    done = forked("analysis.py", "table", "rates", "--by", "b0.layer.lr")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "home" / "hebb" / "analysis"
    assert sorted(p.name for p in out.iterdir()) == ["table.csv", "table.md", "table.tex"]
    made = pd.read_csv(out / "table.csv").set_index("b0.layer.lr")
    found = runs.frame(runs.read([rates]).runs, ["test_acc"], ["b0.layer.lr"])
    assert set(made.index) == {0.05, 0.1}
    for rate, line in made.iterrows():
        values = list(found[found["b0.layer.lr"] == rate]["test_acc"])
        mean = math.fsum(values) / 3
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / 2)
        assert line["n"] == 3
        assert line["mean"] == pytest.approx(mean, rel=1e-12)
        assert line["sd"] == pytest.approx(sd, rel=1e-9)
        assert line["high"] - line["mean"] == pytest.approx(4.302653 * sd / math.sqrt(3), rel=1e-6)
        assert line["mean"] - line["low"] == pytest.approx(line["interval"], rel=1e-9)
        written = f"{mean:.2f} ± {sd:.2f}"
        assert written in (out / "table.md").read_text()
        assert written.replace("±", r"$\pm$") in (out / "table.tex").read_text()
        assert written in done.stdout
    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        analysis.main(["table", "rates", "--data-dir", str(tmp_path / "home")])
    assert analysis.main(["table", "rates", "--data-dir", str(tmp_path / "home"), "--overwrite"]) == 0


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(rates: Path) -> None:
    with pytest.raises(ConfigError, match=r"they differ in b0.layer.lr\nadd what matters to --by; --where chooses one"):
        table.compute(runs.read([rates]).runs, "test_acc", ["preset"])


@pytest.mark.parametrize(("metric", "says"), [("test_ac", "did you mean 'test_acc'"), ("val_acc", "none of these")])
def test_metrics_that_were_not_measured(rates: Path, metric: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        table.compute(runs.read([rates]).runs, metric)


def test_unfinished_runs_are_named(rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(rates, tmp_path / "home")
    trial = next((tmp_path / "home" / "hebb" / "search" / "rates" / "trials").iterdir())
    (trial / folders.RESULT).unlink()
    line = ["table", "rates", "--data-dir", str(tmp_path / "home"), "--metric", "test_loss"]
    with pytest.raises(ConfigError, match=rf"not finished, 1 of 6 runs: {trial.name} \(interrupted\)"):
        analysis.main(line)
    assert analysis.main([*line, "--partial"]) == 0
    printed = capsys.readouterr()
    assert trial.name in printed.err
    assert pd.read_csv(tmp_path / "home" / "hebb" / "analysis" / "table.csv")["n"].sum() == 5


def test_latex_and_markdown_of_awkward_names() -> None:
    shown = pd.DataFrame({"a_b": ["50 % & c|d", "x^2 ± {1}"]})
    assert table.latex(shown).splitlines()[2:6] == [
        r"a\_b \\",
        r"\midrule",
        r"50 \% \& c|d \\",
        r"x\^{}2 $\pm$ \{1\} \\",
    ]
    assert table.markdown(shown).splitlines()[2] == r"| 50 % & c\|d |"


@style.drawn
def picture(title: str) -> object:
    figure, axes = style.figure(1, 2)
    axes[0].plot([1, 2], [3, 4], **style.line(0))
    style.label(axes[0], "epoch", style.unit("test_acc"), title)
    return figure


def test_output_is_whole_repeatable_and_not_replaced(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.1, 1 / 3]})
    made = [Output("o", frame, picture("t"), more={".md": "m"}).save(tmp_path / name) for name in "ab"]
    assert [p.name for p in made[0]] == ["o.csv", "o.md", "o.png", "o.svg"]
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
    assert made[0][2].read_bytes().startswith(b"\x89PNG")
    assert xml.etree.ElementTree.parse(made[0][3]).getroot().tag.endswith("svg")
    assert pd.read_csv(made[0][0])["x"].tolist() == [0.1, 1 / 3]
    with pytest.raises(ConfigError, match="exists already"):
        Output("o", frame).save(tmp_path / "a")
    broken = Output("o", frame, picture(r"$\nosuchcommand$"))
    with pytest.raises(ValueError, match="nosuchcommand"):
        broken.save(tmp_path / "a", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["o.csv", "o.md", "o.png", "o.svg"]
    assert made[0][2].read_bytes() == made[1][2].read_bytes()


def test_style_leaves_the_callers_settings_alone() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        picture("t")
        assert dict(matplotlib.rcParams) == before


def test_lines_can_be_told_apart() -> None:
    seen = {tuple(style.line(i).values()) for i in range(28)}
    assert len(seen) == 28
    assert len({(style.line(i)["color"], style.line(i)["marker"]) for i in range(28)}) == 28
    assert style.unit("test_acc") == "test accuracy (%)"
    assert style.unit("val_loss") == "validation loss (nats)"
