"""The journal of a search, ``journal.jsonl``: one line for every event of a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hebb.config.domains import Choice
from hebb.core.errors import ConfigError
from hebb.storage import run_names
from hebb.storage.folders import JOURNAL, Row, append_row


class Event(StrEnum):
    """What happened to a configuration."""

    CHOSEN = "chosen"
    STOPPED = "stopped"
    FAILED = "failed"
    FINISHED = "finished"
    AGAIN = "again"
    """It is tried again."""
    LEFT_OUT = "left_out"
    """It breaks a bound on what is known before a run, and is never trained."""
    ENDED = "ended"
    """The search itself came to its end; what came later is another session of it."""


def events(content: bytes, where: str) -> Iterator[Row]:
    """Yield the events of a journal; lines that a kill or a full disk has cut off are skipped.

    Raises:
        ConfigError: for a choice that lacks its values.
    """
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            entry = json.loads(line)
        except (RecursionError, ValueError):  # no JSON, or no UTF-8
            continue
        if isinstance(entry, dict) and isinstance(entry.get("event"), str):
            if entry["event"] == Event.CHOSEN and not {"choice", "params"} <= set(entry):
                raise ConfigError(f"{where}, line {number}", "lacks what was chosen", hint="put the file back")
            yield entry


@dataclass
class Journal:
    """The events of the configurations, in order.

    Attributes:
        chosen: the configurations that a model-based algorithm suggested, by group name.
        suggested: the parameters of all suggestions; a configuration may be suggested twice.
        stopped: step, score and number of seeds at which a scheduler stopped a group.
        failed: why a group failed, and whether trying again may help (``again``).
        left_out: why a group that was chosen is never trained.
        finished: groups that ran to the end, whose folders may have been removed since.
        succeeded: whether nothing failed and there is a winner, where the search has come to its end; else None.
    """

    path: Path
    chosen: dict[str, Choice] = field(default_factory=dict)
    suggested: list[tuple[str, Row]] = field(default_factory=list)
    stopped: dict[str, Row] = field(default_factory=dict)
    failed: dict[str, Row] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    succeeded: bool | None = None

    @property
    def trained(self) -> dict[str, Choice]:
        """The configurations that were suggested and are trained: those that break no bound before."""
        return {group: choice for group, choice in self.chosen.items() if group not in self.left_out}

    def planned(self, search: Mapping[str, Any]) -> dict[str, Choice]:
        """Return the values of every run by its name: those that ``search.json`` lists, and those that were chosen."""
        listed = {str(trial["name"]): trial["choice"] for trial in search["trials"]}
        seeds = [int(seed) for seed in search.get("seeds", ())]
        return listed | {run_names.of(group, s): choice for group, choice in self.trained.items() for s in seeds}

    @property
    def over(self) -> bool:
        """Whether the search has come to its end, and nothing failed that is tried again when it is continued."""
        return self.succeeded is not None and not any(entry.get("again") for entry in self.failed.values())

    @staticmethod
    def load(folder: Path) -> Journal:
        """Read the journal of a search; lines that a kill or a full disk has cut off are skipped."""
        journal = Journal(folder / JOURNAL)
        if not journal.path.exists():
            return journal
        for entry in events(journal.path.read_bytes(), str(journal.path)):
            journal._take(entry)
        return journal

    def note(self, event: Event, group: str, **more: object) -> None:
        """Append a line; it is on disk when this returns."""
        entry = {"event": event.value, "group": group, **more}
        append_row(self.path, entry)
        self._take(entry)

    def _take(self, entry: Row) -> None:
        event, group = entry["event"], str(entry.get("group"))
        self.succeeded = bool(entry.get("succeeded")) if event == Event.ENDED else None
        if event == Event.CHOSEN:
            self.chosen[group] = entry["choice"]
            self.suggested.append((group, entry["params"]))
        elif event == Event.STOPPED:
            self.stopped[group] = entry
        elif event == Event.FAILED:
            self.failed[group] = entry
        elif event == Event.LEFT_OUT:
            self.left_out[group] = str(entry.get("reason", ""))
        elif event in (Event.FINISHED, Event.AGAIN):
            self.stopped.pop(group, None)
            self.failed.pop(group, None)
        if event == Event.FINISHED:
            self.finished.add(group)
