"""Every analysis on Digits runs made once here. What it writes is compared with the runs' own files, read by hand.

Without it a published figure could show a mean, spread or panel that no run has.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs
from scipy import stats

from hebb.analysis import compare, convergence, curves, depth, groups, published, runs, style
from hebb.cli.analysis import command
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.training import post_hoc, train

TINY = ("dataset_sup.samples=60", "dataset_unsup.samples=60", "classifier.lr=0.03")
SOFT1 = "Soft-c6-k3-p1-t1:bn:triangle:max_4_4_0 BP:flatten"
SOFT2 = "Soft-c6-k3-p1-t1:bn:triangle:max_2_2_0 Soft-c12-k3-p1-t1:bn:triangle:max_2_2_0 BP:flatten"
WIDE2 = SOFT2.replace("c12", "c24")
BP1 = "BP-c6-k3-p1:bn:relu:max_4_4_0 BP:flatten"
MLP = "Soft-c10-t2-lr0.05:flatten:softmax_5 BP"
HARD = "Hard-c6-k3-p1:bn:triangle:max_4_4_0 BP:flatten"
SEEDS = (0, 1)
Rows = list[dict[str, object]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Searches of two seeds, one for each analysis."""
    home = tmp_path_factory.mktemp("home")

    def sweep(name: str, network: str, axes: dict[str, list[object]] | None = None, **more: object) -> None:
        base = small.config(network, *TINY, **more)  # type: ignore[arg-type]
        stored_runs.sweep(home, name, base, axes or {}, SEEDS)

    sweep("soft1", SOFT1)
    sweep("soft2", SOFT2)
    sweep("wide2", WIDE2)
    sweep("random1", SOFT1, training_blocks=(1,))
    sweep("bp1", BP1)
    sweep("hard1", HARD)
    # neither temperature is the inverse of the other
    sweep("regimes", SOFT2, {"b*.method": ["Soft", "SoftKrotov"], "b*.layer.t_invert": [0.5, 4.0]})
    sweep("norm", MLP, {"b0.layer.radius": [0.5, 1.5]})
    sweep("linear", MLP.replace("-lr", "-v0-lr"), {"b0.layer.radius": [5.0]})
    for name, network in (("speed", HARD), ("speed-linear", HARD.replace("-p1", "-p1-v0"))):
        base = small.config(network, *TINY, "dataset_sup.epochs=4", mode="simultaneous")
        stored_runs.sweep(home, name, base, {}, SEEDS)
    settling = "settle:free_steps=5,nudged_steps=3 CorInfoMax-c12:flatten CorInfoMax"
    stored_runs.sweep(home, "angles", small.config(settling, *TINY), {}, SEEDS)
    for seed in SEEDS:
        folder = folders.Home(home).network(f"post{seed}")
        place = train.Place(datasets=Path("nowhere"), folder=folder)
        post_hoc.run(small.config(MLP, *TINY, seed=seed), train.Report(), place=place)
    return home


def results(home: Path, search: str, *, where: Callable[[dict], bool] = lambda config: True) -> list[dict]:
    """Return ``result.json`` of a search's runs whose ``config.json`` is as wanted."""
    trials = sorted((home / "hebb" / "search" / search / "trials").iterdir())
    return [
        json.loads((t / "result.json").read_text())
        for t in trials
        if where(json.loads((t / "config.json").read_text()))
    ]


def rows(home: Path, search: str) -> list[Rows]:
    trials = sorted((home / "hebb" / "search" / search / "trials").iterdir())
    return [[json.loads(line) for line in (t / "metrics.jsonl").read_text().splitlines()] for t in trials]


def check(line: pd.Series, values: Iterable[float]) -> None:
    """n, mean and deviation of a line of a table."""
    values = list(values)
    assert line["n"] == len(values) == len(SEEDS)
    assert line["mean"] == pytest.approx(statistics.fmean(values), rel=1e-9)
    assert line["sd"] == pytest.approx(statistics.stdev(values), rel=1e-7, abs=1e-9)


@pytest.fixture(scope="module")
def draw(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pd.DataFrame]:
    """Run a verb as the command does; check its three files and return the numbers."""
    out = tmp_path_factory.mktemp("out")

    def run(name: str, verb: str, *words: str) -> pd.DataFrame:
        assert command.main([verb, *words, "--data-dir", str(home), "--out", str(out), "--name", name]) == 0
        assert {path.suffix for path in out.glob(f"{name}.*")} >= {".csv", ".png", ".svg"}
        frame = pd.read_csv(out / f"{name}.csv")
        if "mean" in frame:
            assert len(frame) == 1 or frame["mean"].nunique() > 1, "numbers that are all alike would hide an exchange"
        return frame

    return run


def test_depth_by_arm(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    searches = {"soft1": ("SoftHebb", 1), "soft2": ("SoftHebb", 2), "random1": ("Random", 1), "bp1": ("BP", 1)}
    searches["hard1"] = ("Hard WTA", 1)
    lines = draw("arms", "depth", *searches).set_index(["series", "depth"])
    assert set(lines.index) == set(searches.values())
    assert list(dict.fromkeys(lines.index.get_level_values(0))) == ["SoftHebb", "Hard WTA", "Random", "BP"]
    for search, key in searches.items():
        check(lines.loc[key], [r["metrics"]["test_acc"] for r in results(home, search)])


def test_depth_by_width(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """One hidden layer is the first point of every width; neurons of the second over those of the first."""
    lines = draw("widths", "depth", "soft1", "soft2", "wide2", "--by", "width").astype({"series": str})
    lines = lines.set_index(["series", "depth"])
    assert set(lines.index) == {("2", 1), ("2", 2), ("4", 1), ("4", 2)}
    check(lines.loc[("4", 2)], [r["metrics"]["test_acc"] for r in results(home, "wide2")])
    check(lines.loc[("4", 1)], [r["metrics"]["test_acc"] for r in results(home, "soft1")])
    assert lines.loc[("2", 1), "mean"] == lines.loc[("4", 1), "mean"]


def test_published_values_stand_beside_ours(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the datasets that are there; each with the figure it is from."""
    numbers = published.read("3")
    assert numbers.set_index(["dataset", "series", "depth"]).loc[("CIFAR10", "SoftHebb", 3), "mean"] == 80.31
    assert len(numbers) == 4 * (3 + 3 + 4 + 5)  # arms x hidden layers on four datasets
    assert set(published.read("4")["series"]) == {"1", "2", "4"}
    assert published.read()["source"].str.len().min() > 10
    file = tmp_path / "published.csv"
    file.write_text(
        "figures,dataset,by,series,depth,mean,sd,source\n9,Digits,arm,BP,1,50,2,here\n9,MNIST,arm,BP,1,60,2,here\n"
    )
    monkeypatch.setattr(published, "FILE", file)
    bp = runs.read([home / "hebb" / "search" / "bp1"]).runs
    lines = depth.compute(bp, figure="9")
    assert list(lines["source"]) == ["ours", "here"]
    assert list(lines["mean"])[1] == 50
    with pytest.raises(ConfigError, match=r"no numbers of '8'\nlegal: 9"):
        depth.compute(bp, figure="8")
    with pytest.raises(ConfigError, match="figure '9' is published by arm, got --by neurons\nuse --by arm"):
        depth.compute(bp, "neurons", figure="9")
    file.write_text("figures,dataset,by,series,depth,mean,sd,source\n9,MNIST,arm,BP,1,60,2,here\n")
    with pytest.raises(ConfigError, match="figure '9' has no values for Digits\nlegal: MNIST"):
        depth.compute(bp, figure="9")


def test_temperature(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """Temperature 1 / t; R1 summed over the two Hebbian phases; the hard rule at temperature 0."""
    lines = draw("temperature", "temperature", "regimes", "hard1").set_index(["series", "temperature", "metric"])
    assert len(lines) == 2 * (2 * 2 + 1)

    def losers(config: dict) -> bool:
        layers = [block["layer"] for block in config["network"]["blocks"][:2]]
        return [(layer["method"], layer.get("t_invert")) for layer in layers] == [("SoftKrotov", 4.0)] * 2

    chosen = results(home, "regimes", where=losers)
    check(lines.loc[("SoftHebb, anti-Hebbian losers", 0.25, "test_acc")], [r["metrics"]["test_acc"] for r in chosen])
    ones = [sum(row["R1"] for row in run if row["kind"] == "hebbian") for run in rows(home, "hard1")]
    check(lines.loc[("Hard WTA (temperature 0)", 0.0, "R1")], ones)
    soft = {}
    for trial in (home / "hebb" / "search" / "regimes" / "trials").iterdir():
        config = json.loads((trial / "config.json").read_text())
        layer = config["network"]["blocks"][0]["layer"]
        counts = [json.loads(line)["R1"] or 0 for line in (trial / "metrics.jsonl").read_text().splitlines()]
        soft[layer["method"], layer["t_invert"], config["seed"]] = sum(counts)
    check(lines.loc[("SoftHebb", 2.0, "R1")], [soft["Soft", 0.5, seed] for seed in SEEDS])
    with pytest.raises(ConfigError, match="BP"):
        draw("none", "temperature", "bp1")


def test_radius(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    lines = draw("radius", "radius", "norm", "linear").set_index(["schedule", "radius"])
    assert sorted(lines.index) == [("linear decay", 5.0), ("norm-dependent rate", 0.5), ("norm-dependent rate", 1.5)]
    for radius in (0.5, 1.5):
        chosen = results(home, "norm", where=lambda c, r=radius: c["network"]["blocks"][0]["layer"]["radius"] == r)  # type: ignore[misc]
        check(lines.loc[("norm-dependent rate", radius)], [r["metrics"]["test_acc"] for r in chosen])
    check(lines.loc[("linear decay", 5.0)], [r["metrics"]["test_acc"] for r in results(home, "linear")])
    assert list(lines.sort_values("radius")["zone"]) == ["none", "partial", "learning"]


def test_convergence(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """60 images an epoch; the mean of two epochs stands at the later one."""
    lines = draw("convergence", "convergence", "speed", "speed-linear").set_index(["schedule", "metric", "examples"])
    for search, schedule in (("speed", "norm-dependent rate"), ("speed-linear", "linear decay")):
        for epoch in range(4):
            check(
                lines.loc[(schedule, "convergence", 60 * (epoch + 1))],
                [run[epoch]["convergence"] for run in rows(home, search)],
            )
    smooth = convergence.compute(runs.read([home / "hebb" / "search" / "speed"]).runs, ["R1", "test_acc"], window=2)
    assert sorted(set(smooth["examples"])) == [120, 180, 240]
    line = smooth[(smooth["metric"] == "test_acc") & (smooth["examples"] == 180)].iloc[0]
    check(line, [(run[1]["test_acc"] + run[2]["test_acc"]) / 2 for run in rows(home, "speed")])


def test_convergence_inside_the_epochs(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """Points stand at the images seen, each phase has a line of its own, and it ends with the record of its epoch."""
    stored = runs.read([home / "hebb" / "search" / "soft2"]).runs
    lines = draw("inside", "convergence", "soft2").set_index(["metric", "blocks", "examples"]).sort_index()
    steps = [row["step"] for row in stored[0].rows]
    for i, block in enumerate(("b0", "b1")):
        for metric in ("convergence", "radius_mean", "weight_change", "winner_share"):
            points = [[p for p in run.points if p.phase == i and metric in p.blocks[block]] for run in stored]
            seen = [60 * i + (p.update - i * steps[0]) * 60 // steps[0] for p in points[0]]
            assert list(lines.loc[(metric, block)].index) == seen
            for place, at in enumerate(seen):
                check(lines.loc[(metric, block, at)], [of_run[place].blocks[block][metric] for of_run in points])
        check(lines.loc[("convergence", block, 60 * (i + 1))], [run.rows[i]["convergence"] for run in stored])
        assert 60 * i in lines.loc[("R1", block)].index
    smooth = convergence.compute(runs.read([home / "hebb" / "search" / "speed"]).runs, ["weight_change"], window=2)
    assert sorted(set(smooth["examples"])) == [120, 180, 240]  # the ends of the epochs, and no other point
    with pytest.raises(ConfigError, match="did you mean 'winners'"):
        convergence.compute(stored, ["winner"])


def test_examples_are_counted_over_phases(home: Path) -> None:
    """Two Hebbian phases and a classifier, an epoch of 60 images each."""
    for run in runs.read([home / "hebb" / "search" / "soft2"]).runs:
        assert convergence.examples(run) == [60, 120, 180]


def test_curves(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    lines = draw("curves", "curves", "speed", "speed-linear", "--metric", "train_acc").set_index(["curve", "epoch"])
    assert len(lines) == 2 * 4
    assert set(lines.index.get_level_values(0)) == {"speed", "speed-linear"}
    for epoch in range(4):
        values = [run[epoch]["train_acc"] for run in rows(home, "speed-linear")]
        check(lines.loc[("speed-linear", epoch + 1)], values)
    phases = draw("phases", "curves", "soft2", "--metric", "convergence")
    assert list(phases["phase"]) == ["hebbian 1", "hebbian 2"]
    classifiers = draw("classifiers", "curves", "soft2", "bp1", "--metric", "test_acc")  # phases 2 and 0
    assert set(classifiers["phase"]) == {"backprop 1"}


def test_names_of_curves(home: Path) -> None:
    """Searches where each is one group; what differs where one search holds several, or a group several searches."""
    there = {name: runs.read([home / "hebb" / "search" / name]).runs for name in ("soft1", "random1", "norm")}
    alike = [*there["soft1"], *there["random1"]]  # one network; the blocks that learn differ
    assert groups.columns(alike) == ["preset", "dataset", "trained"]
    assert groups.labels(alike) == ["soft1"] * 2 + ["random1"] * 2
    assert groups.labels(alike, ["trained"]) == ["soft1"] * 2 + ["random1"] * 2
    assert set(groups.labels(alike, ["seed"])) == {"seed=0", "seed=1"}
    assert set(groups.labels(there["norm"])) == {f"b0.layer.radius={r}" for r in (0.5, 1.5)}
    assert [groups._named("b0.layer.lr", value, 4) for value in (0.0158384067031287, 48, "relu")] == [
        "b0.layer.lr=0.01584",
        "b0.layer.lr=48",
        "b0.layer.lr=relu",
    ]


def test_phases_are_in_the_order_of_their_numbers() -> None:
    """Ten blocks that learn one after the other: the tenth comes behind the ninth, and the classifier last."""
    phases = ["backprop 1", *(f"hebbian {i}" for i in range(1, 11))]
    assert sorted(sorted(phases), key=curves.order) == [*phases[1:], "backprop 1"]
    frame = pd.DataFrame(
        [{"curve": "a", "phase": name, "epoch": 1, "n": 1, "mean": 1.0, "sd": math.nan} for name in sorted(phases)]
    ).assign(metric="test_acc")
    titles = [panel.get_title() for panel in curves.draw(frame).axes]
    assert titles == [*phases[1:], "backprop 1"]


@pytest.mark.parametrize(
    ("metric", "most", "kept", "note"),
    [
        ("test_acc", 2, ["c", "a"], "2 of 4 curves, the best by their last test accuracy (%)"),
        ("test_loss", 2, ["d", "b"], "2 of 4 curves, the best by their last test loss (nats)"),
        ("test_acc", 4, ["a", "b", "c", "d"], ""),
        ("test_acc", 9, ["a", "b", "c", "d"], ""),
    ],
)
def test_of_many_curves_the_best_are_drawn_and_that_is_said(metric: str, most: int, kept: list[str], note: str) -> None:
    """By the last value, not by the largest: d was better once."""
    values = {"a": [1.0, 5.0], "b": [2.0, 4.0], "c": [3.0, 6.0], "d": [9.0, 1.0]}
    frame = pd.DataFrame(
        [
            {"curve": name, "phase": "backprop 1", "epoch": epoch, "n": 1, "mean": mean, "sd": math.nan}
            for name, means in values.items()
            for epoch, mean in enumerate(means, 1)
        ]
    ).assign(metric=metric)
    best, said = curves.best(frame, most)
    assert (list(dict.fromkeys(best["curve"])), said) == (kept, note)
    assert len(best) == 2 * len(kept)
    figure = curves.draw(best, said)
    assert figure.get_suptitle().replace("\n", " ") == note


@pytest.mark.parametrize(
    ("metric", "means", "scale"),
    [("test_loss", [0.2, 200.0], "log"), ("test_loss", [0.2, 2.0], "linear"), ("test_acc", [1.0, 99.0], "linear")],
)
def test_losses_that_lie_far_apart_can_all_be_read(metric: str, means: list[float], scale: str) -> None:
    figure, axes = style.figure()
    style.fit(axes, metric, pd.Series(means))
    assert axes.get_yscale() == scale
    assert figure is axes.figure


def test_counts_have_whole_ticks_from_0() -> None:
    figure, axes = style.figure()
    axes.plot([1, 2], [0, 0])
    style.fit(axes, "R1", pd.Series([0.0]))
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert ticks == [0, 1]
    assert figure is axes.figure


def test_angles(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    lines = draw("angles", "angles", "angles")
    trials = sorted((home / "hebb" / "search" / "angles" / "trials").iterdir())
    looks = [[json.loads(line) for line in (t / "blocks.jsonl").read_text().splitlines()] for t in trials]
    angles = {
        (block, look["update"]): [run[i]["blocks"][block]["angle"] for run in looks]
        for i, look in enumerate(looks[0])
        for block in look["blocks"]
        if "angle" in look["blocks"][block]
    }
    assert angles
    assert {(line.block, line.update) for line in lines.itertuples()} == set(angles)
    for _, line in lines.iterrows():
        check(line, angles[line["block"], line["update"]])
    with pytest.raises(ConfigError, match="has no measurements of a settling network"):
        draw("none", "angles", "soft1")
    with pytest.raises(ConfigError, match="did you mean 'angle'"):
        draw("none", "angles", "angles", "--number", "angel")


def test_posthoc(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """All batches of so short a training are one window: the mean of all."""
    lines = draw("posthoc", "posthoc", "post0", "post1").set_index(["metric", "examples"])
    curves = [pd.read_csv(folders.Home(home).network(f"post{seed}") / "post_hoc.csv") for seed in SEEDS]
    assert set(lines.index) == {("loss", 60), ("accuracy", 60)}
    for metric in ("loss", "accuracy"):
        check(lines.loc[(metric, 60)], [float(np.mean(curve[metric])) for curve in curves])


def test_compare_by_hand(home: Path, draw: Callable[..., pd.DataFrame]) -> None:
    """Two seeds have neither an interval nor a test, and are shown."""
    lines = draw("compare", "compare", "soft1", "bp1", "random1").set_index("group")
    base, other = ({r["seed"]: r["metrics"]["test_acc"] for r in results(home, name)} for name in ("soft1", "bp1"))
    differences = [other[seed] - base[seed] for seed in SEEDS]
    line = lines.loc["bp1"]
    assert line["reference"] == "soft1"
    assert line["n"] == 2
    assert line["difference"] == pytest.approx(statistics.fmean(differences), abs=1e-9)
    assert all(math.isnan(line[name]) for name in ("low", "high", "t", "p", "p_holm"))
    assert [float(text) for text in line["values"].split()] == pytest.approx(differences, rel=1e-9)
    assert line["test"] == "paired t-test"
    unpaired = draw("welch", "compare", "soft1", "bp1", "--unpaired").iloc[0]
    assert unpaired["test"] == "Welch's t-test"
    assert math.isnan(unpaired["p"])


def test_tests_by_their_formulas() -> None:
    """t = d sqrt(n) / sd with n - 1 degrees of freedom, or (a - b) / sqrt(va / n + vb / m) without pairs."""
    base, other = {0: 10.0, 1: 12.0, 2: 11.0, 3: 13.0}, {0: 12.0, 1: 13.0, 2: 15.0, 3: 14.0}
    differences = [other[seed] - base[seed] for seed in base]
    line = compare.of_values({"a": base, "b": other}, "test_acc").iloc[0]
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    assert line["t"] == pytest.approx(mean * math.sqrt(4) / sd, rel=1e-9)
    assert line["p"] == pytest.approx(2 * stats.t.sf(abs(line["t"]), 3), rel=1e-9)
    welch = compare.of_values({"a": base, "b": other}, "test_acc", paired=False).iloc[0]
    error = math.sqrt((statistics.variance(base.values()) + statistics.variance(other.values())) / 4)
    assert welch["t"] == pytest.approx(mean / error, rel=1e-9)


def test_the_text_of_a_comparison() -> None:
    """Rounded like the metric, signed, with Holm's correction where there are several tests."""
    base = {0: 10.0, 1: 12.0, 2: 11.0}
    one = compare.text(compare.of_values({"a": base, "b": {0: 13.0, 1: 14.0, 2: 15.0}}, "test_acc"))
    assert "b against a" in one
    assert "14.00 against 11.00" in one
    assert "+3.00" in one
    assert "+0.52 to +5.48" in one  # 3 +- 4.302653 x 1 / sqrt(3)
    assert "Holm" not in one
    others = {
        "b": {0: 13.0, 1: 14.0, 2: 15.0},
        "c": {0: 9.0, 1: 12.0, 2: 7.0},
        "d": {s: v + 1 for s, v in base.items()},
    }
    several = compare.text(compare.of_values({"a": base, **others}, "test_acc"))
    assert "p (Holm)" in several
    assert "+1.00, +1.00, +1.00" in several  # alike on every seed: no interval, and no test
    few = compare.text(compare.of_values({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 4.0}}, "test_acc"))
    assert few.endswith("no test: it takes 3 seeds that do not all differ alike")


def test_seeds_without_a_partner_are_named(home: Path) -> None:
    sides = {"base": _measured([10.0, 11.0, 12.0, 13.0], home), "other": _measured([12.0, 13.0, 14.0], home)[1:]}
    assert compare.unpaired(sides) == ("other against base: left out, as the other side lacks it: seeds 0 3 of base")
    assert compare.unpaired(dict.fromkeys(("a", "b"), sides["base"])) == ""


def test_aggregate(home: Path, draw: Callable[..., pd.DataFrame], capsys: pytest.CaptureFixture[str]) -> None:
    """Methods are searches here, on the one task of Digits; two seeds have no interval."""
    searches = ("soft1", "bp1", "random1", "--by", "search", "--baseline", "soft1", "--repeats", "100")
    lines = draw("aggregate", "aggregate", *searches)
    out = capsys.readouterr().out
    values = {name: [r["metrics"]["test_acc"] for r in results(home, name)] for name in ("soft1", "bp1", "random1")}
    lines = lines.set_index("method")
    assert {name: lines.loc[name, "mean"] for name in values} == {
        name: pytest.approx(statistics.fmean(of_seeds)) for name, of_seeds in values.items()
    }
    above = [(x > y) + 0.5 * (x == y) for x in values["bp1"] for y in values["soft1"]]
    assert lines.loc["bp1", "improvement"] == pytest.approx(statistics.fmean(above))
    assert lines["low"].isna().all()
    assert f"P(bp1 better than soft1) = {statistics.fmean(above):.2f}, 95 % interval -" in out
    with pytest.raises(ConfigError, match="not seeds of one configuration"):
        draw("twice", "aggregate", "soft1", "bp1", "--by", "dataset", "--tasks", "mode")
    with pytest.raises(ConfigError, match="did you mean 'soft1'"):
        draw("none", "aggregate", "soft1", "bp1", "--by", "search", "--baseline", "sofd1")
    with pytest.raises(ConfigError, match="has no run on"):
        draw("lacking", "aggregate", "soft1", "soft2", "--by", "search", "--tasks", "hidden")


def test_compare_refuses_what_it_cannot_pair(home: Path) -> None:
    searches = {name: runs.read([home / "hebb" / "search" / name]).runs for name in ("soft1", "bp1", "regimes")}
    with pytest.raises(ConfigError, match="must be at least two searches or folders, got 1"):
        compare.compute({"soft1": searches["soft1"]})
    with pytest.raises(ConfigError, match="not seeds of one configuration: they differ in"):
        compare.compute({"soft1": searches["soft1"], "regimes": searches["regimes"]})
    with pytest.raises(ConfigError, match="fewer than two seeds in common"):
        compare.compute({"soft1": searches["soft1"][:1], "bp1": searches["bp1"]})
    same = compare.compute({"a": searches["soft1"], "b": searches["soft1"]}).iloc[0]
    assert same["difference"] == 0
    assert all(math.isnan(same[name]) for name in ("low", "high", "p"))  # certainty is no finding
    assert compare.draw(compare.compute({"a": searches["soft1"], "b": searches["soft1"]})) is not None


@pytest.mark.parametrize("paired", [True, False])
def test_values_that_differ_alike_but_for_rounding_are_no_finding(paired: bool) -> None:
    """One image of 359 more on every seed: as floats the differences are unequal, and a test would say p < 1e-15."""
    hits = (320, 331, 317)
    fewer = {seed: 100 * count / 359 for seed, count in enumerate(hits)}
    more = {seed: 100 * (count + 1) / 359 for seed, count in enumerate(hits)}
    if not paired:
        fewer, more = ({0: values[0], 1: values[0] * (1 + 2e-16), 2: values[0]} for values in (fewer, more))
    line = compare.of_values({"a": fewer, "b": more}, "test_acc", paired=paired).iloc[0]
    assert line["difference"] == pytest.approx(100 / 359)
    assert all(math.isnan(line[name]) for name in ("low", "high", "t", "p"))


def _measured(values: list[float], home: Path) -> list[runs.StoredRun]:
    """Runs that measured these test accuracies, one a seed."""
    run = runs.read([home / "hebb" / "search" / "soft1"]).runs[0]
    return [
        dataclasses.replace(
            run, config=dataclasses.replace(run.config, seed=seed), metrics={**run.metrics, "test_acc": value}
        )
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("other", "ends"),
    [
        ([12.0, 14.0, 16.0], (4 - 4.302653 * 2 / math.sqrt(3), 4 + 4.302653 * 2 / math.sqrt(3))),  # by hand, sd 2
        ([0.0, 100.0, 50.0], (-84.2069, 100.0)),  # 40 +- 4.302653 x 50 / sqrt(3), at most 100 points apart
    ],
)
def test_the_interval_of_a_difference(other: list[float], ends: tuple[float, float], home: Path) -> None:
    groups = {"base": _measured([10.0] * 3, home), "other": _measured(other, home)}
    line = compare.compute(groups).iloc[0]
    assert (line["low"], line["high"]) == pytest.approx(ends, rel=1e-5)


def test_holm() -> None:
    """Worked by hand: 0.01 x 3, 0.02 x 2, 0.9 x 1; never falling, at most 1."""
    assert compare.holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])
    assert compare.holm([0.4, 0.5]) == pytest.approx([0.8, 0.8])
    assert compare.holm([0.02, math.nan])[0] == 0.02


@pytest.mark.parametrize("verb", ["depth", "temperature", "radius"])
def test_runs_that_are_no_replicates_are_refused(home: Path, verb: str, tmp_path: Path) -> None:
    """Two searches of one network with the same seeds, of different rates."""
    base = small.config(MLP if verb == "radius" else SOFT1, *TINY)
    stored_runs.sweep(tmp_path, "twice", base, {"b0.layer.lr": [0.01, 0.02]}, [0])
    with pytest.raises(ConfigError, match=r"--where: .* not seeds of one configuration: they differ in b0.layer.lr"):
        command.main([verb, "twice", "--data-dir", str(tmp_path)])
