"""Files that people write: text, JSON and YAML, read in one way, with errors that name the line.

A file may be in UTF-8, with or without a byte order mark, or in UTF-16 with one. A key given twice is an error in both
languages. Numbers in YAML are those of ``hebb.core.values``, as on the command line: ``1e-3`` is one, and ``1:30`` is a
word.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hebb.core.errors import ConfigError
from hebb.core.values import number_or_none

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ConfigError: for a file that is absent, cannot be read, or is not JSON.
    """
    return parse_json(read_text(path, "a JSON file"), str(path))


def as_object(data: object, where: str) -> Mapping[str, Any]:
    """Return what must be an object of JSON."""
    if not isinstance(data, Mapping):
        raise ConfigError(where, f"must be an object, got {data!r}")
    return data


def part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object inside another; an empty one where it is absent, or something else."""
    inner = data.get(name)
    return inner if isinstance(inner, dict) else {}


def read_yaml(path: Path, where: str | None = None) -> Any:
    """Read a YAML file; ``where`` names it in errors, by default its path.

    Raises:
        ConfigError: for a file that is absent, cannot be read, or is not YAML.
    """
    where = str(path) if where is None else where
    return parse_yaml(read_text(path, "a YAML file", where), where)


def read_text(path: Path, kind: str, where: str | None = None) -> str:
    """Read a file of text; ``kind`` says what it must be, and ``where`` names it in errors, by default its path.

    Raises:
        ConfigError: for a file that is absent, cannot be read, or is in another encoding.
    """
    where = str(path) if where is None else where
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(where, "no such file") from None
    except IsADirectoryError:
        raise ConfigError(where, f"is a folder, must be {kind}") from None
    except OSError as error:
        raise ConfigError(where, f"cannot be read: {error.strerror}") from None
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    start = data.find(0)  # in UTF-8 no text has a zero byte, and UTF-16 without a mark has many
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start
    else:
        if start < 0 or encoding == "utf-16":
            return text
    line = "" if encoding == "utf-16" else f", line {data.count(10, 0, start) + 1}"
    raise ConfigError(f"{where}{line}", "is not text in UTF-8", hint="save it again in UTF-8")


# -- JSON -------------------------------------------------------------------------------------------------------


class _TwiceError(Exception):
    """A key stands twice in a JSON object."""


def parse_json(text: str, where: str) -> Any:
    """Read JSON; ``where`` names its place.

    Raises:
        ConfigError: for anything else, a key given twice, and NaN or Infinity, which are no numbers of JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {_reason(text, error)}" if text.strip() else "is empty, must be JSON"
        raise ConfigError(f"{where}, line {error.lineno}" if text.strip() else where, problem) from None
    except _TwiceError as error:
        raise ConfigError(where, f"key '{error}' is given twice") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(where, f"is not JSON that can be read: {_sentence(error)}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return mapping


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _reason(text: str, error: json.JSONDecodeError) -> str:
    """Say what is wrong at the place of an error, where it is something that other languages have."""
    before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if after.startswith(("//", "/*", "#")):
        return "JSON has no comments"
    if after.startswith(("}", "]")) and before.endswith(","):
        return f"a comma stands before '{after[0]}'"
    if before.endswith(",") and error.msg.startswith("Illegal trailing comma"):
        return "a comma stands after the last entry"
    if after.startswith("'"):
        return "words must be in double quotes"
    message = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
    return f"{message} at column {error.colno}" if after else "it ends too early"


def _sentence(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]


# -- YAML -------------------------------------------------------------------------------------------------------


def yaml_text(data: object) -> str:
    """Write YAML that ``parse_yaml`` reads as it is: text that looks like a number, as a commit may, is quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes what the reader would take for a number."""

        def represent_str(self, text: str) -> Any:
            number = number_or_none(text) is not None or _UNBOUNDED.fullmatch(text)
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="'" if number else None)

    Dumper.add_representer(str, Dumper.represent_str)
    written: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return written


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML without running code; ``where`` names its place.

    Raises:
        ConfigError: for anything else, and for a key given twice, which PyYAML overlooks.
    """
    import yaml

    def place(mark: Any) -> str:
        return where if mark is None or "\n" not in text.strip() else f"{where}, line {mark.line + 1}"

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        tab = error.problem is not None and "'\\t'" in error.problem
        hint = "indent by spaces: YAML takes no tabs" if tab else None
        problem = str(error.problem).removeprefix("but ")
        raise ConfigError(place(error.problem_mark), f"is not YAML: {problem}", hint=hint) from None
    except _TwiceInYamlError as error:
        hint = "<<: [*a, *b] merges several; the first one wins" if error.key == "<<" else None
        raise ConfigError(place(error.mark), f"key '{error.key}' is given twice", hint=hint) from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(where, f"is not YAML that can be read: {_sentence(error)}") from None


class _TwiceInYamlError(Exception):
    """A key stands twice in a mapping."""

    def __init__(self, key: object, mark: Any) -> None:
        super().__init__(key)
        self.key, self.mark = key, mark


@functools.cache
def _loader() -> type[Any]:
    """Return the loader of YAML; PyYAML is imported here and not before."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Reads numbers as the command line does, and refuses a key given twice."""

        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LEFT_OUT]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            plain = kind is yaml.ScalarNode and implicit[0]
            if plain and (number_or_none(value) is not None or _UNBOUNDED.fullmatch(value)):
                return _NUMBER
            return super().resolve(kind, value, implicit)

        def compose_mapping_node(self, anchor: Any) -> Any:
            """Compare the keys before a merge key (``<<``) adds those of other mappings, which they override."""
            node = super().compose_mapping_node(anchor)
            keys = []
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    name = key.value if key.tag == _MERGE else self.construct_object(key)
                    if name in keys:
                        raise _TwiceInYamlError(name, key.start_mark)
                    keys.append(name)
            return node

        def flatten_mapping(self, node: Any) -> None:
            """Put the keys of merged mappings first: the node's own win, then those of the first mapping.

            PyYAML 6.0.4 lets the last win where one of the mappings merges another itself.
            """
            merges = [value for key, value in node.value if key.tag == _MERGE]
            node.value = own = [pair for pair in node.value if pair[0].tag != _MERGE]
            pairs: dict[tuple[str, Any], Any] = {}
            for value in merges:
                for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(other, yaml.MappingNode):
                        problem = f"<< must merge a mapping, or a list of mappings, got a {other.id}"
                        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=other.start_mark)
                    self.flatten_mapping(other)
                    inner = {(pair[0].tag, str(pair[0].value)): pair for pair in other.value}
                    pairs |= {key: pair for key, pair in inner.items() if key not in pairs}
            node.value = [*pairs.values(), *own]

        def construct_number(self, node: Any) -> int | float:
            number = number_or_none(node.value)
            return float(node.value.replace(".", "", 1)) if number is None else number

    Loader.add_constructor(_NUMBER, Loader.construct_number)
    return Loader


_MERGE = "tag:yaml.org,2002:merge"
_LEFT_OUT = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "value")}
"""Kinds of plain words that PyYAML would read in its own way, or not at all."""
_NUMBER = "tag:hebb:number"
_UNBOUNDED = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
