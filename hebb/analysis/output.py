"""The output of an analysis: the numbers, the figure drawn from them and a text, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.analysis import style
from hebb.core import files
from hebb.core.errors import ConfigError
from hebb.storage.folders import checked_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Output:
    """The output of an analysis.

    Attributes:
        name: name of its files, without their endings.
        frame: the numbers in the figure, no more and no fewer.
        figure: the figure, or None.
        text: what the command prints.
        more: texts of further files, by ending (``.md``).
        shared: texts of files that outputs of other names share, by name; those replace what is there.
    """

    name: str
    frame: pd.DataFrame
    figure: Figure | None = None
    text: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path, *, overwrite: bool = False) -> list[Path]:
        """Write ``<name>.csv``, ``.png`` and ``.svg`` into a folder, and return their paths.

        The same numbers give the same bytes. Every file appears whole, and none does if one cannot be made.

        Raises:
            ConfigError: when a file of that name exists and ``overwrite`` is false.
        """
        check_free(folder, self.name, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {**{f"{self.name}{kind}": text for kind, text in self.more.items()}, **self.shared}
        pictures = () if self.figure is None else (".png", ".svg")
        names = [f"{self.name}.csv", *texts, *(f"{self.name}{kind}" for kind in pictures)]
        paths = [folder / name for name in names]
        with files.replaced(*paths) as temporaries:
            temporary = dict(zip((".csv", *texts, *pictures), temporaries, strict=True))
            self.frame.to_csv(temporary[".csv"], index=False, lineterminator="\n")
            for name, content in texts.items():
                temporary[name].write_text(content, encoding="utf-8", errors="replace")
            if self.figure is not None:
                style.save(self.figure, temporary[".png"], "png")
                style.save(self.figure, temporary[".svg"], "svg")
        return paths


def check_free(folder: Path, name: str, overwrite: bool) -> None:
    """Raise when files of that name exist, unless they may be replaced."""
    checked_name(name, "--name")
    if folder.exists() and not folder.is_dir():
        raise ConfigError("--out", f"{folder} is not a folder")
    existing = sorted(path.name for path in folder.glob(f"{name}.*")) if folder.is_dir() else []
    if existing and not overwrite:
        hint = "--overwrite replaces it; another --name or --out keeps both"
        raise ConfigError(str(folder / existing[0]), "exists already", hint=hint)
