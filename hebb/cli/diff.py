"""Print what differs between two stored runs, two searches, or a run and a search, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hebb.cli import arguments, describe
from hebb.cli.parsing import Parser
from hebb.core import commands
from hebb.storage import folders

if TYPE_CHECKING:
    from hebb.analysis.difference import Curve, Difference
    from hebb.analysis.matching import Pair

_VERB = "diff"


def parser() -> Parser:
    """Return the parser of the command."""
    flags = Parser(__doc__ or "", prog=commands.name(_VERB))
    flags.add_argument("left", metavar="A", help="a run or a search: its name, or its folder")
    flags.add_argument("right", metavar="B", help="the run or search to compare it with")
    flags.add_argument("--json", action="store_true", help="print JSON")
    flags.add_argument("--exit-code", action="store_true", help="end with exit code 1 where something differs")
    arguments.add_home_flag(flags)
    return flags


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    home = folders.Home.find(options.data_dir)
    left, right = (folders.stored_folder(name, home, _VERB) for name in (options.left, options.right))
    from hebb.analysis import difference

    differs = difference.of(left, right)
    if options.json:
        print(json.dumps({"left": str(left), "right": str(right), **asdict(differs)}, indent=1, allow_nan=False))
    else:
        _print(differs, options.left, options.right)
    return int(bool(differs) and options.exit_code)


def _print(differs: Difference, left: str, right: str) -> None:
    """Print a table for each kind of difference."""
    out = describe.console()
    if not differs:
        out.print(f"the same: {left} and {right}", soft_wrap=True)
        return
    for side, name in (("A", left), ("B", right)):
        out.print(f"{side}: {name}", soft_wrap=True)
    _table("values", ("part", "value", "A", "B"), [(c.part, c.path, c.left, c.right) for c in differs.changes])
    _table("metrics", ("metric", "differs from update", "A", "B", "largest", "at"), list(map(_cells, differs.curves)))
    for source in differs.sources:
        out.print(source.text, soft_wrap=True, markup=False)
    by_metric: dict[str, list[Pair]] = {}
    for pair in differs.pairs:
        by_metric.setdefault(pair.metric, []).append(pair)
    columns = ("configuration", "n", "A", "B", "B - A", "95 % interval")
    for metric in differs.metrics:
        _table(f"mean {metric}", columns, list(map(_cells_of_pair, by_metric.pop(metric, []))))
    heads = ("metric", "configurations that differ", "largest B - A", "in")
    _table("means of other metrics", heads, [_largest(metric, pairs) for metric, pairs in by_metric.items()])


def _cells(curve: Curve) -> tuple[object, ...]:
    return curve.metric, curve.step, *map(_number, (curve.left, curve.right)), _signed(curve.largest), curve.at


def _cells_of_pair(pair: Pair) -> tuple[object, ...]:
    interval = None if pair.low is None or pair.high is None else f"{pair.low:+.4g} to {pair.high:+.4g}"
    return pair.label, pair.n, _number(pair.left), _number(pair.right), _signed(pair.difference), interval


def _largest(metric: str, pairs: Sequence[Pair]) -> tuple[object, ...]:
    """Sum up the configurations in which the mean of a metric differs."""
    largest = max(pairs, key=lambda pair: abs(pair.difference))
    return metric, len(pairs), _signed(largest.difference), largest.label


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.4g}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, unless it is empty."""
    if not rows:
        return
    lines = describe.table(title, columns)
    for row in rows:
        lines.add_row(*("-" if cell is None else str(cell) for cell in row))
    describe.console().print(lines)
