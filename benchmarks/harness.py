"""What the benchmarks share: clocks, the machine, the table and the JSON file.

A ratio is measured in one process where that is possible, its two sides in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hebb.cli import describe
from hebb.cli.parsing import Parser, count
from hebb.core import machine
from hebb.core.threads import cores
from hebb.kernels import private_torch
from hebb.storage import records

STEPS, WARM_UP = 50, 10
"""Measured repetitions, whose median counts, and those before them."""

Function = Callable[[], object]
Row = dict[str, Any]


def add_flags(parser: Parser) -> None:
    """Add the flags of every benchmark."""
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads (default: one per core)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers there as JSON")


def set_threads(threads: int | None) -> int:
    """Let torch use ``threads``, by default one per core, and return their number."""
    number = cores() if threads is None else threads
    machine.keep_freed_memory()  # as a run does
    torch.set_num_threads(number)
    private_torch.flush_subnormals(True)  # as every run does
    return number


def now(device: torch.device) -> float:
    """Return the time in seconds, after the device has done all that was asked of it."""
    machine.wait_for(device)
    return time.perf_counter()


def in_turns(
    functions: Mapping[str, Function], device: torch.device, repeats: int = STEPS, warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Run all functions ``warm_up`` times, then ``repeats`` times, one after the other, and return their seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(warm_up + repeats):
        for name, spent in once(functions, device).items():
            if i >= warm_up:
                seconds[name].append(spent)
    return seconds


def once(functions: Mapping[str, Function], device: torch.device) -> dict[str, float]:
    """Run each function once and return the seconds each took."""
    seconds = {}
    for name, function in functions.items():
        began = now(device)
        function()
        seconds[name] = now(device) - began
    return seconds


def summary(seconds: Sequence[float], unit: float = 1e-3) -> Row:
    """Return median, tenth and ninetieth percentile in ``unit`` seconds, and the number of values."""
    tenths = statistics.quantiles(seconds, n=10, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 9
    return {
        "median": statistics.median(seconds) / unit,
        "p10": tenths[0] / unit,
        "p90": tenths[-1] / unit,
        "n": len(seconds),
    }


def circumstances(threads: int) -> Row:
    """Describe date, code, versions and machine; ``load`` is the number of processes that wanted a core."""
    environment = records.environment({}, {}, None)
    code = {name: environment[name] for name in ("commit", "dirty", "command", "python", "versions")}
    where = {**environment["machine"], "usable_cores": cores(), "threads": threads}
    where["load"] = [round(load, 2) for load in os.getloadavg()]
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **code, "machine": where}


def write(out: Path | None, name: str, threads: int, settings: Row, results: Sequence[Row], **more: Any) -> None:
    """Write settings, circumstances and results of benchmark ``name`` to ``out``, if it is given."""
    if out is None:
        return
    data = {"benchmark": name, **circumstances(threads), "settings": settings, "results": list(results), **more}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(data, indent=1, default=str) + "\n", encoding="utf-8")
    describe.console().print(f"numbers: {out.absolute()}", soft_wrap=True)


def show(title: str, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Print rows as a table.

    Args:
        title: stands above it.
        rows: what it shows.
        columns: header -> ``key`` or ``key:format``; a column with a format is aligned to the right.
    """
    numbers = [header for header, column in columns.items() if ":" in column]
    table = describe.table("", columns, numbers)
    table.title = None
    for row in rows:
        table.add_row(*(_cell(row, column) for column in columns.values()))
    out = describe.console()
    out.print(title, soft_wrap=True)
    out.print(table)


def _cell(row: Row, column: str) -> str:
    key, _, form = column.partition(":")
    value = row.get(key)
    return "-" if value is None else format(value, form)


def peak_bytes(maxrss: int) -> int:
    """Return ``ru_maxrss`` in bytes: the system counts in kilobytes, macOS in bytes."""
    return maxrss if sys.platform == "darwin" else maxrss * 1024
