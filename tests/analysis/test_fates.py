"""What became of the runs of a search, counted by hand.

Without it a complete search whose scheduler stopped most runs would read as unfinished.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hebb.analysis import fates
from hebb.analysis.fates import Fate
from hebb.storage.folders import FolderState
from hebb.storage.journal import Event, Journal

COUNTS = [  # ran to the end, stopped, failed, interrupted, never started, to come; what is said
    ((20, 0, 0, 0, 0, 0), "complete: 20 of 20 ran to the end"),
    ((3, 5, 0, 0, 0, 0), "complete: 3 of 8 ran to the end, 5 stopped early by asha"),
    ((6, 0, 2, 0, 0, 0), "complete: 6 of 8 ran to the end, 2 failed"),
    ((3, 2, 1, 1, 1, 0), "not complete: 3 of 8 ran to the end, 2 stopped early by asha, 1 failed, 1 interrupted, "
     "1 never started"),
    ((3, 1, 0, 0, 0, 4), "not complete: 3 of 8 ran to the end, 1 stopped early by asha, 4 never started"),
    ((0, 0, 0, 0, 2, 0), "not complete: 0 of 2 ran to the end, 2 never started"),
]  # fmt: skip


@pytest.mark.parametrize(("counts", "text"), COUNTS)
def test_tallies(counts: tuple[int, ...], text: str) -> None:
    finished, *others, to_come = counts
    order = (Fate.STOPPED, Fate.FAILED, Fate.INTERRUPTED, Fate.NEVER_STARTED)
    each = [fate for fate, number in zip(order, others, strict=True) for _ in range(number)]
    tally = fates.tally([*([None] * finished), *each], to_come=to_come)
    assert tally.sentence("asha") == text
    assert tally.total == sum(counts)


@pytest.mark.parametrize(
    ("group", "name", "holds"),
    [
        ("abc", "abc-s0", True),  # a configuration
        ("abc-s0", "abc-s0", True),  # a run
        ("abc-s0+1+12", "abc-s12", True),  # a pack
        ("abc-s0+1+12", "abc-s2", False),
        ("abc-s1", "abc-s10", False),
        ("abc", "abd-s0", False),
        ("final-abc-s2", "final-abc-s2", True),
        ("abc", "final-abc-s2", False),
    ],
)
def test_groups_hold_their_runs(group: str, name: str, holds: bool) -> None:
    assert fates.holds(group, name) is holds


def test_the_folder_decides_before_the_journal(tmp_path: Path) -> None:
    """A run that failed, was tried again and finished is finished; a stopped one keeps its fate in any state."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.note(Event.STOPPED, "abc", step=1)
    journal.note(Event.FAILED, "abd-s0", reason="r", again=True)
    assert fates.of_run(FolderState.FINISHED, journal, "abd-s0") is None
    assert fates.of_run(FolderState.INTERRUPTED, journal, "abd-s0") == Fate.FAILED
    assert fates.of_run(FolderState.INTERRUPTED, journal, "abc-s0") == Fate.STOPPED
    assert fates.of_run(FolderState.ABSENT, journal, "abc-s1") == Fate.STOPPED
    assert fates.of_run(FolderState.ABSENT, journal, "abd-s1") == Fate.NEVER_STARTED
    assert fates.of_run(FolderState.INTERRUPTED, journal, "abe-s1") == Fate.INTERRUPTED
