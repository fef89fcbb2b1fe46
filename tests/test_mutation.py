"""The injected defects are still injectable: their lines are in the code, and their tests exist.

Without it ``make mutate`` would stop at the first line that a refactoring has changed, and nobody would run it again.
"""

from __future__ import annotations

from collections import Counter

import mutation
import pytest


@pytest.mark.parametrize("defect", mutation.DEFECTS, ids=lambda defect: defect.what)
def test_the_line_of_a_defect_occurs_once(defect: mutation.Defect) -> None:
    count = (mutation.ROOT / defect.file).read_text().count(defect.old)
    assert count == 1, f"mutation.py must quote {defect.file} as it is now: {defect.old!r}"
    assert defect.new != defect.old


def test_every_defect_has_a_name_of_its_own() -> None:
    assert [what for what, count in Counter(d.what for d in mutation.DEFECTS).items() if count > 1] == []


def test_the_tests_of_every_defect_exist() -> None:
    assert {defect.floor for defect in mutation.DEFECTS if not defect.seen_by} <= set(mutation.NEAR)
    seen_by = {f"devices/{defect.seen_by.split()[0]}" for defect in mutation.ON_DEVICES}
    names = seen_by | {name for names in mutation.NEAR.values() for name in names}
    assert [name for name in names if not (mutation.ROOT / "tests" / name).exists()] == []
