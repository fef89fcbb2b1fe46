"""One table of what the benchmarks have measured: what, its value, its limit, and how far from it.

    python benchmarks/summary.py hebb_data/benchmarks

Reads the JSON files of a folder, those of `make bench` or of a record, measures nothing, and prints a line for each
number that a user plans with. A limit is what the same machine did in the same run without anything around it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser
from hebb.core.errors import ConfigError

Lines = Iterator[tuple[str, float, str, float | None]]
"""What was measured, its value, the unit or what it is divided by, and its limit in the same unit."""


def main(argv: list[str]) -> int:
    """Print the table."""
    parser = Parser(__doc__ or "")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of JSON files of benchmarks")
    folder = parser.parse(argv).folder
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    reports = [report for report in reports if isinstance(report, dict) and report.get("benchmark") in LINES]
    if not reports:
        raise ConfigError(str(folder), "holds no results of benchmarks", hint="make bench writes them")
    rows = [row for report in reports for row in _rows(report)]
    harness.show(
        f"{folder}: {_circumstances(reports)}",
        rows,
        {
            "measured": "what",
            "threads": "threads:d",
            "value": "value:.2f",
            "of": "of",
            "limit": "limit:.2f",
            "x limit": "times:.2f",
        },
    )
    return 0


def _rows(report: harness.Row) -> list[harness.Row]:
    threads = report["machine"]["threads"]
    rows: list[harness.Row] = []
    for what, value, of, limit in LINES[report["benchmark"]](report):
        row: harness.Row = {"what": what, "threads": threads, "value": value, "of": of}
        if limit:
            row |= {"limit": limit, "times": value / limit}
        rows.append(row)
    return rows


def _circumstances(reports: list[harness.Row]) -> str:
    machines = {(report["machine"]["processor"], report["machine"]["cores"]) for report in reports}
    dates = sorted({report["date"][:10] for report in reports})
    commits = sorted({str(report["commit"])[:7] for report in reports})
    processors = ", ".join(f"{processor}, {cores} cores" for processor, cores in sorted(machines, key=str))
    return f"{processors}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commit {' '.join(commits)}"


def _classifier_epoch(report: harness.Row) -> Lines:
    for row in report["results"]:
        name = f"classifier epoch of {report['settings']['preset']}"
        yield name, row["ratio"], "one pass over its features", 1.0
        if "parts_ratio" in row:
            yield f"{name} again", row["parts_ratio"], "its bare parts by torch", 1.0
        if "busy_ratio" in row:
            yield f"{name} beside a busy process", row["busy_ratio"], "its quiet time", None


def _hebbian_step(report: harness.Row) -> Lines:
    for row in report["results"]:
        yield f"Hebbian step, {row['layer']} ({row['weights']})", row["ratio"], "its two convolutions", 1.0


def _krotov_step(report: harness.Row) -> Lines:
    for row in report["results"]:
        yield f"Krotov-Hopfield step, {row['weights']}", row["ratio"], "its two convolutions", 1.0


def _energy_step(report: harness.Row) -> Lines:
    for row in report["results"]:
        if "products_ratio" in row:
            yield f"batch of {row['preset']}", row["products_ratio"], "its products alone", 1.0
        if "ratio" in row:
            yield f"published code, batch of {row['preset']}", row["ratio"], "ours", None


def _published(report: harness.Row) -> Lines:
    for row in report["results"]:
        yield f"published code, {row['preset']} whole", row["ratio"], f"ours, {row['ours_s']:.0f} s", None


def _time_split(report: harness.Row) -> Lines:
    for row in report["results"]:
        if "limit_s" in row:
            yield f"{report['settings']['preset']}: {row['part']}", row["seconds"], "seconds", row["limit_s"]


def _peak_memory(report: harness.Row) -> Lines:
    for row in report["results"]:
        yield f"peak memory of {row['preset']}", row["run_gb"], "GB", row["loading_gb"]


def _growth(report: harness.Row) -> Lines:
    last = {(row["step"], row["axis"]): row for row in report["results"]}  # the row of the largest value
    for (step, axis), row in last.items():
        if row["exponent"] is not None:
            yield f"growth of {step} with {axis}", row["exponent"], "exponent of operations", 1.0


LINES: dict[str, Callable[[harness.Row], Lines]] = {
    "classifier_epoch": _classifier_epoch,
    "energy_step": _energy_step,
    "growth": _growth,
    "hebbian_step": _hebbian_step,
    "krotov_step": _krotov_step,
    "peak_memory": _peak_memory,
    "published": _published,
    "time_split": _time_split,
}
"""The lines of each benchmark, by its name."""


if __name__ == "__main__":
    run_command(main)
