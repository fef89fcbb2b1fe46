"""The journal of a search as kills and full disks leave it: each line is a file and what is read from it.

Without it a broken line could stop a search from being restored, or an event be lost in silence.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hebb.core.errors import ConfigError
from hebb.storage.folders import JOURNAL
from hebb.storage.journal import Event, Journal

FAILED = b'{"event": "failed", "group": "a", "reason": "x"}\n'


@pytest.mark.parametrize(
    ("content", "failed", "torn"),
    [
        (b"", set(), False),
        (FAILED, {"a"}, False),
        (FAILED + FAILED[:20], {"a"}, True),
        (FAILED[:20] + b"\n" + FAILED, {"a"}, False),  # a torn line, and the search that went on
        (FAILED + b"\xff\x00\x84", {"a"}, True),
        (FAILED.replace(b"\n", b"\r\n"), {"a"}, False),
        (b'3\n{"event": 3}\n' + FAILED, {"a"}, False),
    ],
)
def test_a_journal_that_is_not_whole(content: bytes, failed: set[str], torn: bool, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    journal = Journal.load(tmp_path)
    assert (set(journal.failed), journal.torn) == (failed, torn)
    journal.note(Event.FAILED, "b")
    assert set(Journal.load(tmp_path).failed) == failed | {"b"}


def test_a_choice_without_its_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(FAILED + b'{"event": "chosen", "group": "a"}\n')
    with pytest.raises(ConfigError, match=rf"{JOURNAL}, line 2: lacks what was chosen"):
        Journal.load(tmp_path)
