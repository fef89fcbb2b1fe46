"""The journal of a search, ``journal.jsonl``: a line for every configuration that was chosen, stopped or finished."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hebb.config.domains import Choice
from hebb.storage.folders import JOURNAL


@dataclass
class Journal:
    """What became of the configurations, in the order in which it happened.

    Attributes:
        chosen: the configurations that a model-based algorithm suggested, by the name of the group.
        suggested: the parameters of all its suggestions; it may suggest a configuration twice.
        stopped: step, score and number of seeds at which a scheduler stopped a group.
        failed: why a group failed, and whether trying again is of no use.
        torn: whether the last line is unfinished.
    """

    path: Path
    torn: bool = False
    chosen: dict[str, Choice] = field(default_factory=dict)
    suggested: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stopped: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def load(folder: Path) -> Journal:
        """Read the journal of a search; an unfinished last line (a killed search) is left out."""
        journal = Journal(folder / JOURNAL)
        if not journal.path.exists():
            return journal
        text = journal.path.read_text(encoding="utf-8")
        journal.torn = not text.endswith("\n") and text != ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                journal._take(entry)
        return journal

    def note(self, event: str, group: str, **more: Any) -> None:
        """Append a line, on the disk when this returns."""
        entry = {"event": event, "group": group, **more}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if self.torn else "") + json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.torn = False
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        event, group = entry["event"], str(entry.get("group"))
        if event == "chosen":
            self.chosen[group] = entry["choice"]
            self.suggested.append((group, entry["params"]))
        elif event in ("stopped", "failed"):
            getattr(self, event)[group] = entry
        elif event in ("finished", "again"):
            self.stopped.pop(group, None)
            self.failed.pop(group, None)
