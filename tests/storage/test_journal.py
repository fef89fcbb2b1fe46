"""The journal of a search as kills and full disks leave it: each line is a file and what is read from it.

Without it a broken line could stop a search from being restored, or an event be lost in silence.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hebb.core.errors import ConfigError
from hebb.storage.folders import JOURNAL
from hebb.storage.journal import Event, Journal

FAILED = b'{"event": "failed", "group": "a", "reason": "x"}\n'


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        (b"", set()),
        (FAILED, {"a"}),
        (FAILED + FAILED[:20], {"a"}),
        (FAILED[:-1], {"a"}),  # all but the newline
        (FAILED[:20] + b"\n" + FAILED, {"a"}),  # a torn line, and the search that went on
        (FAILED + b"\xff\x00\x84", {"a"}),
        (FAILED.replace(b"\n", b"\r\n"), {"a"}),
        (b'3\n{"event": 3}\n' + FAILED, {"a"}),
        (FAILED + b"[" * 100_000, {"a"}),
    ],
)
def test_a_journal_that_is_not_whole(content: bytes, failed: set[str], tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    journal = Journal.load(tmp_path)
    assert set(journal.failed) == failed
    journal.note(Event.FAILED, "b")
    assert set(Journal.load(tmp_path).failed) == failed | {"b"}


@pytest.mark.parametrize("same", [True, False])
def test_a_torn_line_is_cut_off(same: bool, tmp_path: Path) -> None:
    """A full disk tore it, perhaps in this session; other programs then read the lines of the journal, too."""
    journal = Journal.load(tmp_path)
    journal.note(Event.FAILED, "a", reason="x")
    with open(journal.path, "ab") as file:
        file.write(FAILED[:20])
    journal = journal if same else Journal.load(tmp_path)
    journal.note(Event.FAILED, "b", reason="y")
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [(line["event"], line["group"]) for line in lines] == [("failed", "a"), ("failed", "b")]
    assert set(Journal.load(tmp_path).failed) == {"a", "b"}


def test_a_choice_without_its_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(FAILED + b'{"event": "chosen", "group": "a"}\n')
    with pytest.raises(ConfigError, match=rf"{JOURNAL}, line 2: lacks what was chosen"):
        Journal.load(tmp_path)
