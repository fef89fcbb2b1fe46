"""One table of what the benchmarks have measured: what, its value, its limit, and how far from it.

    python benchmarks/summary.py hebb_data/benchmarks

Reads the JSON files of a folder, those of `make bench` or of a record, measures nothing, and prints a line for each
number that a user plans with. A limit is what the same machine did in the same run without anything around it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from hebb.cli.entry import run_command
from hebb.cli.parsing import Parser
from hebb.core.errors import ConfigError


class Quantity(NamedTuple):
    """What a line of the table shows of a result that has it; its texts name values of the result and of the settings.

    Attributes:
        what: what was measured.
        value: key of its value.
        of: the unit, or what it is divided by.
        limit: the limit in the same unit, or its key; None for none.
    """

    what: str
    value: str
    of: str
    limit: float | str | None = None


LINES = {
    "classifier_epoch": (
        Quantity("classifier epoch of {preset}", "ratio", "one pass over its features", 1.0),
        Quantity("classifier epoch of {preset} again", "parts_ratio", "its bare parts by torch", 1.0),
        Quantity("classifier epoch of {preset} beside a busy process", "busy_ratio", "its quiet time"),
        Quantity("classifier epoch of {preset} on all threads", "one_ratio", "that on one thread"),
    ),
    "energy_step": (
        Quantity("batch of {preset}", "products_ratio", "its products alone", 1.0),
        Quantity("published code, batch of {preset}", "ratio", "ours"),
    ),
    "growth": (Quantity("growth of {step} with {axis}", "exponent", "exponent of operations", 1.0),),
    "hebbian_step": (Quantity("Hebbian step, {layer} ({weights})", "ratio", "its two convolutions", 1.0),),
    "krotov_step": (Quantity("Krotov-Hopfield step, {weights}", "ratio", "its two convolutions", 1.0),),
    "peak_memory": (Quantity("peak memory of {preset}", "run_gb", "GB", "loading_gb"),),
    "published": (Quantity("published code, {preset} whole", "ratio", "ours, {ours_s:.0f} s"),),
    "time_split": (Quantity("{preset}: {part}", "seconds", "seconds", "limit_s"),),
}
"""The lines of each benchmark, by its name."""


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
    results = report["results"]
    if report["benchmark"] == "growth":  # the largest value of each series
        results = {(row["step"], row["axis"]): row for row in results}.values()
    numbers = [{**report["settings"], **row} for row in results]
    rows = [_row(quantity, values) for values in numbers for quantity in LINES[report["benchmark"]]]
    return [{**row, "threads": report["machine"]["threads"]} for row in rows if row is not None]


def _row(quantity: Quantity, values: harness.Row) -> harness.Row | None:
    """Return the cells of a quantity; None where it was not measured."""
    value, limit = values.get(quantity.value), quantity.limit
    if isinstance(limit, str):
        if limit not in values:
            return None
        limit = values[limit]
    if value is None:
        return None
    row = {"what": quantity.what.format_map(values), "value": value, "of": quantity.of.format_map(values)}
    return {**row, "limit": limit, "times": value / limit} if limit else row


def _circumstances(reports: list[harness.Row]) -> str:
    machines = {(report["machine"]["processor"], report["machine"]["cores"]) for report in reports}
    dates = sorted({report["date"][:10] for report in reports})
    commits = sorted({str(report["commit"])[:7] for report in reports})
    processors = ", ".join(f"{processor}, {cores} cores" for processor, cores in sorted(machines, key=str))
    return f"{processors}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commit {' '.join(commits)}"


if __name__ == "__main__":
    run_command(main)
