"""Every path that ``--set`` and search spaces know: its legal values, its default and its meaning.

The meanings are the docstrings of the specs, so that each is written in one place.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hebb.config import controls
from hebb.config.annotations import annotations_of
from hebb.config.classifier import ClassifierSpec, StopSpec
from hebb.config.data_spec import DataSpec
from hebb.config.overrides import RUN, SWITCHES
from hebb.config.specs import BlockSpec, RunConfig
from hebb.config.vocabulary import Control

_PARTS = {
    "preset": "method and layer in one, as in a preset string: Soft-c96-k5",
    "method": "the rule; values that the new one reads as well are kept",
    "layer.NAME": "a value of the layer; `hebb list methods METHOD` has the names",
    "operation": "operations before the layer, joined by _: batchnorm2d_flatten",
    "activation": "as in a preset string: triangle_0.7",
    "pool": "as in a preset string: max_4_2_1",
}
"""Parts of a block that are written as in a preset string."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """A path, or several of the same form.

    Attributes:
        name: as in ``--set NAME=value``; ``bN`` is a block by its number, ``b*`` every Hebbian or settling block.
        legal: the legal values in words.
        default: as it would be typed; empty where the preset or the dataset's variant has it.
        meaning: what it does.
    """

    name: str
    legal: str
    default: str
    meaning: str


def paths() -> dict[str, list[Path]]:
    """Return the paths by what they belong to."""
    block = [Path(name=f"bN.{part}", legal="text", default="", meaning=meaning) for part, meaning in _PARTS.items()]
    block += _of_spec(BlockSpec, "bN.", ("dropout", "att_dropout", *SWITCHES, "resume"))
    settle = Path(
        name="settle.NAME", legal="text", default="", meaning="a setting; `hebb list methods METHOD` has the names"
    )
    data = Path(name="dataset_unsup.NAME", legal="", default="", meaning="the same names, for the unsupervised phases")
    control = Path(
        name=controls.PATH,
        legal=" | ".join(Control),
        default=Control.LEARNED,
        meaning="train a control arm in place of the network (`hebb.config.controls`)",
    )
    return {
        "blocks (b0 is the lowest, b-1 the last, b* every Hebbian or settling one)": block,
        "a network that settles": [settle],
        "data of the supervised phases and of the evaluation": _of_spec(DataSpec, "dataset_sup."),
        "data of the unsupervised phases": [data],
        "what back-prop descends, and by which optimiser": _of_spec(ClassifierSpec, "classifier."),
        "when a Hebbian phase ends early": _of_spec(StopSpec, "stop."),
        "the run": [*_of_spec(RunConfig, "", RUN), control],
    }


def _of_spec(spec: type, prefix: str, names: tuple[str, ...] = ()) -> list[Path]:
    """Return the paths of a spec's fields, or of some of them."""
    fields = {field.name: field for field in dataclasses.fields(spec)}
    meanings, hints = meanings_of(spec), typing.get_type_hints(spec)
    return [
        Path(
            name=f"{prefix}{name}",
            legal=_legal(spec, name, hints[name]),
            default=_default(fields[name].default),
            meaning=meanings.get(name, ""),
        )
        for name in names or fields
    ]


def _legal(spec: type, name: str, hint: Any) -> str:
    words = next((part for part in (hint, *typing.get_args(hint)) if _is_words(part)), None)
    if words is None:
        return annotations_of(spec)[name].legal.replace("null", "none")
    return " | ".join(words) + (" | none" if annotations_of(spec)[name].optional else "")


def _is_words(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return ""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def meanings_of(spec: type) -> dict[str, str]:
    """Return what the docstring of a class says of its attributes; nothing where Python has dropped docstrings."""
    lines = inspect.cleandoc(spec.__doc__ or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(lines)):
        names, _, meaning = entry.partition(":")
        meaning = re.sub(r"\bNone\b", "none", " ".join(meaning.split()))
        meanings |= dict.fromkeys(names.split(", "), meaning.removesuffix(".").replace("``", "`"))
    return meanings
