"""The evidence: every published number we claim to reproduce, beside ours, from the folders of ``records/`` alone.

A record is a folder ``records/<date>-<name>/`` with ``record.yaml``: ``title``, ``date``, ``machine``, ``versions``
and a list of ``claims`` (the attributes of ``Claim``; records/README.md shows one). A claim names a CSV of the folder
with one line for each seed, and one column of it; ours is the mean of that column, n the number of its lines, and the
deviation that of a sample. No number of ours stands in a record.yaml, so that none can differ from its data.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hebb.core import shipped
from hebb.core.errors import ConfigError, within

FOLDER = shipped.path("records")
"""The records of this repository."""
RECORD = "record.yaml"
BEGIN, END = "<!-- evidence -->", "<!-- /evidence -->"
"""What stands around the table in a page that shows it."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published number.

    Attributes:
        value: a mean, or the value of one run.
        source: where it was read.
        sd: its standard deviation, where one is given.
        n: number of runs behind it, where it is known.
    """

    value: float
    source: str
    sd: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published number and the runs that stand beside it.

    Attributes:
        what: network, data and quantity, in words.
        unit: unit of the quantity.
        published: the published number.
        command: what made the runs, one line a command.
        config: file in the folder with the ``config.json`` of a run; None where only the command is left.
        runs: CSV in the folder, one line a seed, with a column ``seed``.
        column: column of the CSV with the quantity.
        why: why ours differs; wanted where it does by more than the published deviation.
        values: ours, by seed; read from the CSV.
    """

    what: str
    unit: str
    published: Published
    command: str
    runs: str
    column: str
    config: str | None = None
    why: str | None = None
    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean of the runs."""
        return math.fsum(self.values.values()) / self.n

    @property
    def sd(self) -> float:
        """Standard deviation of a sample; NaN for one run."""
        return float(pd.Series(list(self.values.values()), dtype=float).std())

    @property
    def difference(self) -> float:
        """Ours minus the published value."""
        return self.mean - self.published.value

    @property
    def outside(self) -> bool:
        """Whether ours differs by more than the published deviation; without one there is no telling."""
        return self.published.sd is not None and abs(self.difference) > self.published.sd

    def check(self, where: str, hint: str) -> None:
        """Refuse a difference beyond the published deviation for which no reason is given."""
        if self.outside and self.why is None:
            raise ConfigError(
                where,
                f"ours differs by {self.difference:+.4g} from {self.published.value:g} +- {self.published.sd:g}",
                hint=hint,
            )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A folder of evidence.

    Attributes:
        folder: where it lies.
        title: what was run.
        date: the day of the runs.
        machine: the machine, by what is known of it (``processor``, ``cores``, ``gpu``, ``threads``, ...).
        versions: version by package; ``commit`` too, where it is known.
        claims: what is claimed; a record of other measurements has none.
    """

    folder: Path
    title: str
    date: datetime.date
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()


def read(folder: Path = FOLDER) -> list[Record]:
    """Read every record of a folder, in the order of their names.

    Raises:
        ConfigError: when a record lacks something, names a file that is not there, or differs without saying why.
    """
    if not folder.is_dir():
        raise ConfigError(str(folder), "is not a folder of records")
    found = [read_one(path.parent) for path in sorted(folder.glob(f"*/{RECORD}"))]
    if not found:
        raise ConfigError(str(folder), f"holds no record: no */{RECORD}")
    return found


def read_one(folder: Path) -> Record:
    """Read one record."""
    path = folder / RECORD
    where = f"{folder.name}/{RECORD}"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(where, f"cannot be read: {' '.join(str(error).split())}") from None
    known = _checked(Record, data, where, given=("folder",))
    if not isinstance(known["date"], datetime.date):
        raise ConfigError(where, f"date wants a day, as in 2026-11-22, not '{known['date']}'")
    for key in ("machine", "versions"):
        if not isinstance(known[key], dict) or not known[key]:
            raise ConfigError(where, f"{key} wants what is known of it, by name")
    if not isinstance(known.get("claims", []), list):
        raise ConfigError(where, "claims wants a list")
    claims = [_claim(folder, entry, f"{where}, claim {i}") for i, entry in enumerate(known.get("claims", []), 1)]
    return Record(**{**known, "folder": folder, "claims": tuple(claims)})


def _claim(folder: Path, data: Any, where: str) -> Claim:
    known = _checked(Claim, data, where, given=("values",))
    printed = _checked(Published, known["published"], f"{where}, published")
    for key, value in printed.items():
        wanted = {"value": (int, float), "sd": (int, float), "n": (int,), "source": (str,)}[key]
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ConfigError(f"{where}, published", f"{key} cannot be '{value}'")
    for key in ("what", "unit", "command", "runs", "column", "config", "why"):
        if key in known and not isinstance(known[key], str):
            raise ConfigError(where, f"{key} wants words, not '{known[key]}'")
    if "config" in known and not (folder / known["config"]).is_file():
        raise ConfigError(where, f"config {known['config']} is not in the folder")
    with within(where):
        values = _values(folder / known["runs"], known["column"])
    made = Claim(**{**known, "published": Published(**printed), "values": values})
    made.check(where, "say why it does: the key 'why'")
    return made


def _checked(kind: type, data: Any, where: str, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keys of a mapping, which are those of a record's class; ``given`` are not read from the file."""
    wanted = {field.name: field for field in fields(kind) if field.name not in given}
    if not isinstance(data, dict):
        raise ConfigError(where, f"wants keys and values: {' '.join(wanted)}")
    for key in data:
        if key not in wanted:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=wanted)
    for name, field in wanted.items():
        if field.default is MISSING and data.get(name) in (None, ""):
            raise ConfigError(where, f"'{name}' is missing")
    return {key: value for key, value in data.items() if value is not None}


def _values(path: Path, column: str) -> dict[int, float]:
    """Read a column of a CSV by seed."""
    if not path.is_file():
        raise ConfigError(f"runs {path.name}", "is not in the folder")
    try:
        data = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(path.name, f"is no CSV: {error}") from None
    for name in ("seed", column):
        if name not in data:
            raise ConfigError(path.name, f"has no column '{name}'", given=name, choices=map(str, data.columns))
    if not len(data) or data["seed"].duplicated().any():
        raise ConfigError(path.name, "wants one line for each seed, and at least one")
    numbers = pd.to_numeric(data[column], errors="coerce")
    if not numbers.map(math.isfinite).all():
        raise ConfigError(path.name, f"column {column} holds something that is not a finite number")
    return {int(seed): float(value) for seed, value in zip(data["seed"], numbers, strict=True)}


def table(records: Iterable[Record]) -> pd.DataFrame:
    """Return one line a claim: what, unit, published and ours with sd and n, difference, source, why, record."""
    return pd.DataFrame(
        [
            {
                "what": claim.what,
                "unit": claim.unit,
                "published": claim.published.value,
                "published_sd": math.nan if claim.published.sd is None else claim.published.sd,
                "published_n": claim.published.n or 0,
                "ours": claim.mean,
                "sd": claim.sd,
                "n": claim.n,
                "difference": claim.difference,
                "source": claim.published.source,
                "why": claim.why or "",
                "record": record.folder.name,
            }
            for record in records
            for claim in record.claims
        ]
    )


def markdown(found: pd.DataFrame, records: str = "records") -> str:
    """Write the table for a page; ``records`` is the way from the page to the folder.

    Deviations are those of a sample. What is outside the published deviation has a note below the table.
    """
    lines = ["| what | published | ours | n | difference | record |", "|---|---|---|---|---|---|"]
    notes: list[str] = []
    for line in found.itertuples():
        mark = ""
        if line.why:
            notes.append(f"{len(notes) + 1}. {line.why}")
            mark = f" ({len(notes)})"
        cells = (
            f"{line.what} ({line.unit})",
            _number(line.published, line.published_sd) + (f" (n {line.published_n})" if line.published_n else ""),
            _number(line.ours, line.sd),
            str(line.n),
            f"{line.difference:+.2f}{mark}",
            f"[{line.record}]({records}/{line.record})",
        )
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _number(value: float, sd: float) -> str:
    """Write a mean with its deviation; a number by itself without the zeros at its end."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isnan(sd) else f"{value:.2f} ± {sd:.2f}"


def shown(page: str) -> str:
    """Return what stands between the marks of a page."""
    _, begin, rest = page.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    if not begin or not end:
        raise ConfigError("page", f"has no place for the table: {BEGIN} and {END}")
    return inside.strip("\n") + "\n"


def inserted(page: str, text: str) -> str:
    """Return the page with ``text`` between its marks."""
    shown(page)
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}"


def insert(path: Path, text: str) -> None:
    """Put ``text`` between the marks of a file."""
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    with within(str(path)):
        path.write_text(inserted(page, text), encoding="utf-8")
