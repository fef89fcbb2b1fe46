"""Text that people write, read in one way: numbers and switches, JSON, YAML, encodings.

Without it a rate in a file could be a word where the same rate on the command line is a number, a key given twice could
be dropped in silence, and a file saved by another editor could be refused with words about bytes.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import pytest

from hebb.core import documents
from hebb.core.errors import ConfigError
from hebb.core.values import number_or_none, read_number, read_switch

NUMBERS: list[tuple[str, int | float]] = [
    *(("0", 0), ("7", 7), ("-7", -7), ("+7", 7), ("010", 10), ("1_000", 1000), ("12_345_678", 12345678)),
    *(("1e-3", 0.001), ("1E-3", 0.001), ("1e3", 1000.0), ("1e+3", 1000.0), ("-1.5e3", -1500.0), ("1.0e-3", 0.001)),
    *((".5", 0.5), ("-.5", -0.5), ("5.", 5.0), ("0.1", 0.1), ("1_000.5", 1000.5), ("1e400", math.inf)),
]
WORDS = (
    *("1:30", "0o10", "0x10", "1_0", "_1", "1__000", "1e", "e3", ".", "+", "1.2.3", "1,5", "²", "1 000", "inf"),
    *("nan", "max_2_2_0", "1e-3x", "Soft-c8", "NaN", "=", "1-2"),
)


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers_are_read_as_people_mean_them(text: str, value: float) -> None:
    """The same number in YAML, in quotes, and on the command line."""
    assert number_or_none(text) == documents.parse_yaml(f"[{text}]", "w")[0] == read_number(text, float) == value
    assert type(documents.parse_yaml(text, "w")) is type(number_or_none(text)) is type(value)
    assert documents.parse_yaml(f"'{text}'", "w") == text, "a domain of a space, and not the file, reads quoted numbers"


@pytest.mark.parametrize(
    "text", [*(text for text, _ in NUMBERS), *WORDS, "0123456789", "12e4567890", ".inf", "yes", ""]
)
def test_text_is_read_as_it_was_written(text: str) -> None:
    """A commit may have no digit but decimal ones, or a single e among them."""
    data = {"commit": text, "list": [text, 1, 2.5, None, True]}
    assert documents.parse_yaml(documents.yaml_text(data), "w") == data


@pytest.mark.parametrize("text", WORDS)
def test_other_words_stay_words(text: str) -> None:
    assert number_or_none(text) is None
    assert documents.parse_yaml(f"a: {text}", "w") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("yes", "Yes", "on", "ON", "true", "True")),
        *((word, False) for word in ("no", "No", "off", "false", "FALSE")),
    ],
)
def test_switches_are_the_same_in_files_and_flags(text: str, value: bool) -> None:
    assert documents.parse_yaml(text, "w") is read_switch(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, None) for word in ("null", "~", "Null", "")),
        *((("." + word), math.inf) for word in ("inf", "Inf", "INF")),
        ("-.inf", -math.inf),
        ("2026-11-22", datetime.date(2026, 11, 22)),
    ],
)
def test_what_else_yaml_knows(text: str, value: object) -> None:
    assert documents.parse_yaml(text, "w") == value


MERGES = {
    "one": ("a: &a {x: 1, y: 2}\nb: {<<: *a}", {"x": 1, "y": 2}),
    "own keys win": ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"x": 1, "y": 3}),
    "own keys before it win": ("a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}", {"x": 1, "y": 3}),
    "several, the first wins": ("a: [&a {x: 1}, &b {x: 2, y: 2}]\nb: {<<: [*a, *b]}", {"x": 1, "y": 2}),
    "nested": ("a: [&a {x: 1}, &b {<<: *a, x: 2, y: 2}]\nb: {<<: *b}", {"x": 2, "y": 2}),
    "nested, of one that is merged already": (
        "a: [&a {x: 1}, &c {<<: *a, x: 2}, &d {<<: *c, x: 3}]\nb: {<<: [*d, *a]}",
        {"x": 3},
    ),
    "inline": ("b: {<<: {x: 1}, y: 2}", {"x": 1, "y": 2}),
    "inside a list": ("a: &a {x: 1}\nb: [{<<: *a, y: 1}]", [{"x": 1, "y": 1}]),
    "block": ("a: &a\n  x: 1\nb:\n  <<: *a\n  y: 1e-3", {"x": 1, "y": 0.001}),
    "anchor alone": ("a: &a [1e-3, 2]\nb: *a", [0.001, 2]),
}


def test_merged_keys_keep_their_order() -> None:
    """The first domain of a grid varies slowest."""
    text = "a: [&a {x: 1, y: 1}, &b {z: 1, x: 2}]\nb: {<<: [*a, *b], w: 1, y: 3}"
    assert list(documents.parse_yaml(text, "w")["b"].items()) == [("x", 1), ("y", 3), ("z", 1), ("w", 1)]


@pytest.mark.parametrize(("text", "value"), MERGES.values(), ids=MERGES)
def test_merge_keys_and_anchors(text: str, value: object) -> None:
    assert documents.parse_yaml(text, "w")["b"] == value


BAD_YAML = {
    "twice": ("a: 1\nb: 2\na: 3", "w, line 3: key 'a' is given twice"),
    "twice, quoted": ("{a: 1, 'a': 2}", "w: key 'a' is given twice"),
    "twice, as numbers": ("{1: 1, 1.0: 2}", "w: key '1.0' is given twice"),
    "twice, beside a merge": ("a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}", "w, line 2: key 'y' is given twice"),
    "two merges": ("a: &a {x: 1}\nb: {<<: *a, <<: *a}", "w, line 2: key '<<' is given twice\n<<: [*a, *b] merges"),
    "merge of a number": ("a: {<<: 3}", "w: is not YAML: << must merge a mapping, or a list of mappings, got a scalar"),
    "no such anchor": ("a: 1\nb: *a", "w, line 2: is not YAML: found undefined alias 'a'"),
    "tab": ("a:\n\tb: 1", "indent by spaces: YAML takes no tabs"),
    "two documents": ("a: 1\n---\nb: 2", "w, line 2: is not YAML: found another document"),
    "object": ("a: !!python/object/apply:os.getcwd []", "w: is not YAML: could not determine a constructor"),
    "key that is a list": ("{[1]: 2}", "w: is not YAML: found unhashable key"),
    "deep": ("[" * 5000, "w: is not YAML that can be read: it is nested too deeply"),
    "no such day": ("a: 2024-13-45", "w: is not YAML that can be read: month must be in 1..12"),
}


@pytest.mark.parametrize(("text", "says"), BAD_YAML.values(), ids=BAD_YAML)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        documents.parse_yaml(text, "w")
    assert str(raised.value).startswith("w")
    assert says in str(raised.value)


BAD_JSON = {
    "comma before }": ('{"a": 1,\n}', "w, line 2: is not JSON: a comma stands before '}'"),
    "comma before ]": ("[1, ]", "w, line 1: is not JSON: a comma stands before ']'"),
    "comment //": ('{"a": 1} // x', "w, line 1: is not JSON: JSON has no comments"),
    "comment #": ('{\n# x\n"a": 1}', "JSON has no comments"),
    "comment /* */": ('{"a": /* x */ 1}', "JSON has no comments"),
    "single quotes": ("{'a': 1}", "words must be in double quotes"),
    "bare key": ("{a: 1}", "w, line 1: is not JSON: expecting property name enclosed in double quotes"),
    "NaN": ('{"a": NaN}', "NaN is not a number of JSON"),
    "infinity": ('{"a": [1, -Infinity]}', "-Infinity is not a number of JSON"),
    "twice": ('{"a": 1, "b": {"c": 1, "c": 2}}', "w: key 'c' is given twice"),
    "empty": (" \n", "w: is empty, must be JSON"),
    "cut off": ('{"a": ', "w, line 1: is not JSON: it ends too early"),
    "two": ('{"a": 1} {"a": 1}', "w, line 1: is not JSON: extra data"),
    "deep": ("[" * 100000, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "says"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        documents.parse_json(text, "w")
    assert str(raised.value).startswith("w")
    assert says in str(raised.value)


WRITTEN = '{"a": "é",\r\n "b": 1}\r\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """Editors of Windows write a mark in front, or UTF-16."""
    path = tmp_path / "file"
    path.write_bytes(WRITTEN.encode(encoding))
    assert documents.read_json(path) == documents.read_yaml(path) == {"a": "é", "b": 1}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ('{"b": 1,\n"a": "é"}'.encode("latin-1"), ", line 2"),
        ('{"a": 1}'.encode("utf-16-le"), ", line 1"),
        (b"\xff\xfe\x00", ""),
        (b'{"a":\n\n"\xed\xa0\x80"}', ", line 3"),
    ],
)
def test_other_encodings_are_refused_by_line(tmp_path: Path, data: bytes, line: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for read in (documents.read_json, documents.read_yaml):
        with pytest.raises(ConfigError) as raised:
            read(path)
        assert str(raised.value) == f"{path}{line}: is not text in UTF-8\nsave it again in UTF-8"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x: no such file"):
        documents.read_json(tmp_path / "x")
    with pytest.raises(ConfigError, match="is a folder, must be a YAML file"):
        documents.read_yaml(tmp_path)
