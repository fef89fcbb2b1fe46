"""Kill a search with SIGKILL at random moments, restore it each time, and compare with an uninterrupted one.

    python tests/kill_search.py FOLDER KILLS TRIALS [KIND] [FLAG...]

KIND is ``grid`` (the default) or another one of ``KINDS``. Prints ``moment (s)  finished trials`` a line, and exits 1
when a finished trial was touched or, without a scheduler among the flags or with one that ``--workers 1`` makes
repeatable, when the final tables, the points that were chosen, the front or the winner differ in more than the time.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
NETWORK = "SoftKrotov-c8-k3-p1-t1-lr0.08-lp0.5:bn:triangle_0.7:avg_2_2_0 BP:flatten:drop_0.2"
DATA = ("--dataset-unsup", "Digits_1", "--dataset-sup", "Digits", "--threads", "1", "--device", "cpu")
SIZE = ("--set", "dataset_sup.epochs=12", "dataset_sup.print_freq=1", "dataset_sup.samples=500")
ONE_BY_ONE = ("--workers", "1")  # a model learns the results in the order of the points
LR = "b0.layer.lr={loguniform: [0.01, 0.2]}"
WIDTH = "b0.layer.out_channels={randint: [4, 13]}"
WIDTHS = "b0.layer.out_channels={grid: [4, 8, 12]}"
BASE = (*DATA, *SIZE, "--config", "one_seed", "--seeds", "0", "1")
BOUNDS = ("--constraint", "parameters <= 4000", "train_acc >= 5")
OBJECTIVES = ("--metric", "train_acc", "multiply_accumulates", *BOUNDS)
FINAL = ("--purpose", "search", "--final-seeds", "2")
EARLY = ("--space", "b0.layer.lr={grid: [0.02, 0.05, 0.1, 0.15]}", *FINAL, "--metric", "val_acc")
FROM_EARLY = ("--from-best", "early", "--warm-start", "early", *FINAL, "--metric", "val_acc")


def _drawn(sampler: str, *more: str) -> tuple[str, ...]:
    return ("--algorithm", "optuna", "--sampler", sampler, "--space", LR, WIDTH, *ONE_BY_ONE, *more)


KINDS: dict[str, tuple[str, ...]] = {
    "grid": (),
    **{sampler: _drawn(sampler) for sampler in ("tpe", "gp", "random", "nsga2")},
    **{f"front-{sampler}": _drawn(sampler, *OBJECTIVES) for sampler in ("tpe", "nsga2")},
    "warm": _drawn("tpe", *FROM_EARLY),
    "final": (*FINAL, "--metric", "val_acc"),
    "final-points": (*FINAL, "--metric", "val_acc", "multiply_accumulates", "--final-points", "1", "--space", WIDTHS),
}
"""Flags of each kind of search; one whose points a model chooses has as many of them as the others have radii."""
PATIENCE = 240.0  # seconds until the first trial must have begun, on a machine that is busy


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Start ``ray_search.py`` with everything below ``folder``."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "ray_search.py"), *flags],
        env={**os.environ, "HEBB_HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def flags_of(trials: int, more: tuple[str, ...]) -> tuple[str, ...]:
    """Return the flags of a search of half as many radii, or points of the kind, on two seeds."""
    kind, flags = (more[0], more[1:]) if more and more[0] in KINDS else ("grid", more)
    radii = ", ".join(str(1 + 2 * i) for i in range(trials // 2))
    own = KINDS[kind]
    space = (
        ("--num-samples", str(trials // 2))
        if "--algorithm" in own
        else ("--space", f"b0.layer.radius={{grid: [{radii}]}}")
    )
    network = () if "--from-best" in own else ("--preset", NETWORK)
    return (*network, *BASE, *space, *own, "--folder-name", "s", *flags)


def search_early(home: Path) -> None:
    """Run the whole search from which a kind with ``--from-best`` and ``--warm-start`` begins."""
    process = start(home, "--preset", NETWORK, *BASE, *EARLY, "--folder-name", "early")
    out, _ = process.communicate()
    assert process.returncode == 0, out


def finished(search: Path) -> dict[str, str]:
    """Return a digest of every file of the finished trials, with the time it was written.

    Models are left out: a search keeps those of its best configuration, which another may become.
    """
    digests = {}
    for result in search.glob("trials/*/result.json"):
        for path in result.parent.rglob("*"):
            if path.is_file() and path.parent.name != "checkpoint":
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                digests[str(path.relative_to(search))] = f"{path.stat().st_mtime_ns} {digest}"
    return digests


def _changed(before: dict[str, str], search: Path) -> int:
    now = finished(search)
    return sum(now.get(name) != digest for name, digest in before.items())


def table(search: Path, name: str = "results.csv") -> pd.DataFrame:
    """Return the results of a search without its times."""
    return pd.read_csv(search / name).drop(columns="minutes")


def outcome(search: Path) -> dict[str, object]:
    """Return what a search ended with, without its times: tables, points in their order, front and winner."""
    journal = [json.loads(line) for line in (search / "journal.jsonl").read_text().splitlines() if line[:1] == "{"]
    return {
        **{path.name: table(search, path.name).to_csv() for path in search.glob("*.csv")},
        **{path.name: path.read_text() for path in search.glob("*.json") if path.name in ("front.json", "winner.json")},
        "chosen": [(line["group"], line["params"]) for line in journal if line["event"] == "chosen"],
        "left out": sorted({line["group"] for line in journal if line["event"] == "left_out"}),
    }


def wait_for_trials(search: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a trial is being trained that was not before."""
    deadline = time.monotonic() + PATIENCE
    began = time.time_ns()
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_mtime_ns > began for path in search.glob("trials/*/metrics.jsonl")):
            return
        time.sleep(0.02)


def main(folder: Path, kills: int, trials: int, more: tuple[str, ...]) -> int:
    """Run once undisturbed, then once with ``kills`` times SIGKILL."""
    whole, cut = folder / "whole", folder / "cut"
    again = ONE_BY_ONE if ONE_BY_ONE[0] in flags_of(trials, more) else ()  # a search does not keep it
    if FROM_EARLY[0] in flags_of(trials, more):
        search_early(whole)
        search_early(cut)
    peace = start(whole, *flags_of(trials, more))
    wait_for_trials(whole / "hebb" / "search" / "s", peace)
    began = time.monotonic()
    out, _ = peace.communicate()
    length = time.monotonic() - began
    assert peace.returncode == 0, out
    search = cut / "hebb" / "search" / "s"
    moments = random.Random(int.from_bytes(os.urandom(4), "little"))
    process = start(cut, *flags_of(trials, more))
    before: dict[str, str] = {}
    touched = lost = 0
    for k in range(kills):
        wait_for_trials(search, process)
        moment = moments.uniform(0.0, length / (kills - k))
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        touched += _changed(before, search)
        before = finished(search)
        print(f"{moment:.2f}  {len({name.split('/')[1] for name in before})}", flush=True)
        process = start(cut, "--restore", str(search), *again)
        if k < kills - 1:
            continue
        out, _ = process.communicate()
        assert process.returncode == 0, out
    touched += _changed(before, search)
    different: list[str] = []
    if "--scheduler" in more and "--workers" not in more:  # one worker hears the same reports in the same order
        trials_before = {name.split("/")[1] for name in before}
        lost = len(trials_before - set(table(search).trial))
    else:
        expected, reached = outcome(whole / "hebb" / "search" / "s"), outcome(search)
        different = [name for name in {**expected, **reached} if expected.get(name) != reached.get(name)]
    print(
        f"touched {touched}, lost {lost}, {' '.join(['DIFFERENT', *different]) if different else 'equal'}", flush=True
    )
    return int(bool(touched or lost or different))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:])))
