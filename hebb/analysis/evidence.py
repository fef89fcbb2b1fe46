"""The evidence: every published number that we compare with, beside ours, computed from ``records/`` alone.

A record is a folder ``records/<date>-<name>/`` with ``record.yaml``: ``title``, ``date``, ``machine``, ``versions``
and a list of ``claims`` (the attributes of ``Claim``; records/README.md shows one). A claim names a CSV of the folder,
which has one line for each seed, and a column of it. Our value is the mean of that column, n the number of lines, and
the deviation that of a sample. A record.yaml holds no number of ours, so that none can differ from its data.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from hebb.core import documents, files, shipped
from hebb.core.errors import ConfigError, said_as, within

RECORD = "record.yaml"
BEGIN, END = "<!-- evidence -->", "<!-- /evidence -->"
"""Marks around the table in a page that shows it."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published number.

    Attributes:
        value: a mean, or the value of one run.
        source: where it was published.
        sd: its standard deviation, if one is given.
        n: number of runs behind it, if known.
    """

    value: float
    source: str
    sd: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published number and the runs that are compared with it.

    Attributes:
        what: network, data and quantity, in words.
        unit: unit of the quantity.
        published: the published number.
        command: the commands that made the runs, one a line.
        config: file in the folder with the ``config.json`` of a run; None where only the command is left.
        runs: CSV in the folder, one line a seed, with a column ``seed``.
        column: column of the CSV with the quantity.
        why: why ours differs; required when it does by more than the published deviation.
        headline: ``GROUP: NAME`` of a claim that the README shows; None for all others.
        others: the same number as other groups found it when they ran the published code or their own.
        values: our values by seed, read from the CSV.
    """

    what: str
    unit: str
    published: Published
    command: str
    runs: str
    column: str
    config: str | None = None
    why: str | None = None
    headline: str | None = None
    others: tuple[Published, ...] = ()
    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """Number of runs."""
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
        """Whether our mean differs by more than the published deviation; False if there is none."""
        return self.published.sd is not None and abs(self.difference) > self.published.sd

    def check(self, where: str, hint: str) -> None:
        """Raise for a difference beyond the published deviation without a reason."""
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
        folder: the folder.
        title: what was run.
        date: the day of the runs.
        machine: properties of the machine (``processor``, ``cores``, ``gpu``, ``threads``, ...).
        versions: version by package, and ``commit`` if known.
        claims: its claims; a record of other measurements has none.
    """

    folder: Path
    title: str
    date: datetime.date
    machine: Mapping[str, object]
    versions: Mapping[str, object]
    claims: tuple[Claim, ...] = ()

    def claims_of(self, runs: str) -> list[Claim]:
        """Return the claims of a CSV of the folder."""
        return [claim for claim in self.claims if claim.runs == runs]


def default_folder() -> Path:
    """Return the folder of the shipped records.

    Raises:
        ConfigError: when the package is installed without them.
    """
    folder = shipped.path("records")
    if not folder.is_dir():
        raise ConfigError("evidence", "this installation has no records/", hint="name the folder of records to read")
    return folder


def read(folder: Path) -> list[Record]:
    """Read every record of a folder, in the order of their names.

    Raises:
        ConfigError: for a record that is incomplete, names a missing file, or differs without saying why.
    """
    if not folder.is_dir():
        raise ConfigError(str(folder), "is not a folder of records")
    records = [read_one(path.parent) for path in sorted(folder.glob(f"*/{RECORD}"))]
    if not records:
        raise ConfigError(str(folder), f"holds no record: no */{RECORD}")
    return records


def read_one(folder: Path) -> Record:
    """Read one record."""
    path = folder / RECORD
    where = f"{folder.name}/{RECORD}"
    data = documents.read_yaml(path, where)
    entries = _checked(Record, data, where, computed=("folder",))
    if not isinstance(entries["date"], datetime.date):
        raise ConfigError(where, f"date must be a day such as 2026-11-22, got '{entries['date']}'")
    for key in ("machine", "versions"):
        if not isinstance(entries[key], dict) or not entries[key]:
            raise ConfigError(where, f"{key} must be a table of names and values, got '{entries[key]}'")
    if not isinstance(entries.get("claims", []), list):
        raise ConfigError(where, f"claims must be a list, got '{entries['claims']}'")
    claims = [_claim(folder, claim, f"{where}, claim {i}") for i, claim in enumerate(entries.get("claims", []), 1)]
    return Record(**{**entries, "folder": folder, "claims": tuple(claims)})


def _claim(folder: Path, data: object, where: str) -> Claim:
    entries = _checked(Claim, data, where, computed=("values",))
    for key in ("what", "unit", "command", "runs", "column", "config", "why", "headline"):
        if key in entries and not isinstance(entries[key], str):
            raise ConfigError(where, f"{key} must be text, got '{entries[key]}'")
    if "config" in entries and not (folder / entries["config"]).is_file():
        raise ConfigError(where, f"config {entries['config']} is not in the folder")
    published = _published(entries["published"], f"{where}, published")
    if not isinstance(entries.get("others", []), list):
        raise ConfigError(where, f"others must be a list, got '{entries['others']}'")
    others = [_published(one, f"{where}, others {i}") for i, one in enumerate(entries.get("others", []), 1)]
    with within(where):
        values = _values(folder / entries["runs"], entries["column"])
    claim = Claim(**{**entries, "published": published, "others": tuple(others), "values": values})
    claim.check(where, "give the reason: the key 'why'")
    return claim


def _published(data: object, where: str) -> Published:
    entries = _checked(Published, data, where)
    kinds: dict[str, tuple[type, ...]] = {"value": (int, float), "sd": (int, float), "n": (int,), "source": (str,)}
    for key, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, kinds[key]):
            raise ConfigError(where, f"{key} cannot be '{value}'")
    published = Published(**entries)
    if published.sd is not None and not 0 <= published.sd < math.inf:
        raise ConfigError(where, f"sd must be a number >= 0, got {published.sd}")
    return published


def _checked(kind: type, data: object, where: str, computed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the entries of a mapping whose keys are the fields of ``kind``, except the ``computed`` ones."""
    legal = {field.name: field for field in fields(kind) if field.name not in computed}
    if not isinstance(data, dict):
        raise ConfigError(where, f"must be a table with the keys {' '.join(legal)}, got '{data}'")
    for key in data:
        if key not in legal:
            raise ConfigError(where, f"unknown key '{key}'", given=str(key), choices=legal)
    for name, field in legal.items():
        if field.default is MISSING and data.get(name) in (None, ""):
            raise ConfigError(where, f"'{name}' is missing")
    return {key: value for key, value in data.items() if value is not None}


def by_seed(path: Path) -> pd.DataFrame:
    """Read the CSV of a set of runs, which has one line for each seed."""
    if not path.is_file():
        raise ConfigError(f"runs {path.name}", "is not in the folder")
    try:
        data = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(path.name, f"is not a CSV: {error}") from None
    if "seed" not in data:
        raise ConfigError(path.name, "has no column 'seed'", given="seed", choices=map(str, data.columns))
    if not len(data) or data["seed"].duplicated().any():
        raise ConfigError(
            path.name, f"must have one line for each seed, and at least one, got seeds {list(data['seed'])}"
        )
    return data


def _values(path: Path, column: str) -> dict[int, float]:
    """Read a column of a CSV by seed."""
    data = by_seed(path)
    if column not in data:
        raise ConfigError(path.name, f"has no column '{column}'", given=column, choices=map(str, data.columns))
    numbers = pd.to_numeric(data[column], errors="coerce")
    if not numbers.map(math.isfinite).all():
        raise ConfigError(path.name, f"column {column} holds a value that is not a finite number")
    return {int(seed): float(value) for seed, value in zip(data["seed"], numbers, strict=True)}


def table(records: Iterable[Record]) -> pd.DataFrame:
    """Return one line a claim: its text, the numbers with sd and n, the difference, and where it stands."""
    return pd.DataFrame(
        [
            {
                "what": claim.what,
                "unit": claim.unit,
                "published": claim.published.value,
                "published_sd": math.nan if claim.published.sd is None else claim.published.sd,
                "published_n": claim.published.n or 0,
                "others": "; ".join(f"{_given(one)} ({one.source})" for one in claim.others),
                "ours": claim.mean,
                "sd": claim.sd,
                "n": claim.n,
                "difference": claim.difference,
                "source": claim.published.source,
                "why": claim.why or "",
                "record": record.folder.name,
                "headline": claim.headline or "",
            }
            for record in records
            for claim in record.claims
        ]
    )


def headlines(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of the claims that have a headline, under that name: by group, the highest value first.

    What other groups found is left out.

    Raises:
        ConfigError: when there is none.
    """
    lines = frame[frame["headline"] != ""]
    if lines.empty:
        raise ConfigError(
            "--headlines", "no claim of these records has a headline", hint="the key 'headline' of a claim"
        )
    group = lines["headline"].str.partition(": ")[0]
    order = pd.DataFrame({"group": group, "value": -lines["published"]}).sort_values(["group", "value"]).index
    return lines.assign(what=lines["headline"], others="").loc[order]


def markdown(frame: pd.DataFrame, records: str = "records") -> str:
    """Write the table for a page; ``records`` is the path from the page to the folder.

    Deviations are those of a sample. A difference with a reason has a note below the table. What other groups found has
    a column of its own if there is any.
    """
    others = frame["others"].any()
    names = ["what", "published", *(["other groups"] if others else []), "ours", "n", "difference", "record"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    notes: list[str] = []
    for line in frame.itertuples():
        mark = ""
        if line.why:
            notes.append(f"{len(notes) + 1}. {line.why}")
            mark = f" ({len(notes)})"
        cells = (
            f"{line.what} ({line.unit})",
            _number(line.published, line.published_sd) + (f" (n {line.published_n})" if line.published_n else ""),
            *([line.others] if others else []),
            f"{line.ours:.2f}" if line.n == 1 and line.unit == "%" else _number(line.ours, line.sd),
            str(line.n),
            f"{_signed(line.difference)}{mark}",
            f"[{line.record}]({records}/{line.record})",
        )
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _given(number: Published) -> str:
    """Write a published number with its deviation and n, as far as they are known."""
    return _number(number.value, math.nan if number.sd is None else number.sd) + (f", n {number.n}" if number.n else "")


def _number(value: float, sd: float) -> str:
    """Write a mean with its deviation, or a number without one, and then without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isnan(sd) else f"{value:.2f} ± {sd:.2f}"


def _signed(value: float) -> str:
    """Write a difference with its sign, unless it rounds to nothing."""
    text = f"{value:+.2f}"
    return text if text.strip("+-0.") else text[1:]


def shown(page: str) -> str:
    """Return the text between the marks of a page."""
    _, begin, rest = page.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    if not begin or not end:
        raise ConfigError("--page", f"must hold the marks {BEGIN} and {END}, which show where the table goes")
    return inside.strip("\n") + "\n"


def inserted(page: str, text: str) -> str:
    """Return the page, with ``text`` between its marks."""
    shown(page)
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}"


def insert(path: Path, text: str) -> None:
    """Put ``text`` between the marks of a file."""
    where = f"--page {path}"
    page = documents.read_text(path, "a text file", where)
    with said_as({"--page": where}):
        files.write_text(path.resolve(), inserted(page, text))
