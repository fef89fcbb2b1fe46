"""The list of presets: a line each, by the rule of the first block; a single one with all that is known of it.

Scripts read the list: whatever the width, a preset is one line that starts with two spaces and its name. A description
that does not fit ends in an ellipsis; the preset alone has all of it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection

from rich.text import Text

from hebb.cli.describe import LIST_WIDTH, console, table
from hebb.config import grammar
from hebb.config.catalog import Catalog, Model
from hebb.config.registry import RULES
from hebb.core import commands
from hebb.core.words import counted

_MORE = " …"
_LEAST = 20
"""Columns of a description that are shown on the narrowest terminal."""


def show(catalog: Catalog, shown: Collection[str]) -> None:
    """Print presets; those that are the same network stand in one line."""
    networks = _alike(catalog, shown)
    if len(networks) == 1:
        _one(catalog, next(iter(networks.values())))
        return
    out = console(LIST_WIDTH)
    groups: dict[str, list[list[str]]] = {}
    for names in networks.values():
        groups.setdefault(catalog.models[names[0]].network.blocks[0].layer.method, []).append(names)
    for method, presets in groups.items():
        summary = _shortened(RULES.get(method, "rule").summary, max(out.width - len(method) - 2, _LEAST))
        out.print(Text.assemble((method, "bold"), f"  {summary}"), soft_wrap=True)
        width = max(len(names[0]) for names in presets)
        for names in presets:
            start = f"  {names[0]:<{width}}  "
            described = _described(catalog.models[names[0]], names[1:])
            room = max(out.width - len(start), _LEAST)
            out.print(start + _shortened(described, room), soft_wrap=True)
    again = commands.line("list", "presets", "WORD")
    text = f"{counted(len(shown), 'preset')}; {again} shows those whose names have it, and all of a single one"
    out.print(f"\n{textwrap.fill(text, out.width)}", soft_wrap=True)


def _alike(catalog: Catalog, shown: Collection[str]) -> dict[object, list[str]]:
    """Return the names of each network, the first one first."""
    networks: dict[object, list[str]] = {}
    for name, model in catalog.models.items():
        if name in shown:
            key = (model.network.blocks, model.network.settle, model.network.mode)
            networks.setdefault(key, []).append(name)
    return networks


def _described(model: Model, aliases: Collection[str]) -> str:
    also = f"(also {', '.join(aliases)}) " if aliases else ""
    return f"{also}{model.description}"


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines, all but the first indented."""
    return textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _titled(name: str, text: str, width: int) -> Text:
    """Return a name in bold and what is said of it."""
    titled = Text(_wrapped(f"{name}  {text}", width))
    titled.stylize("bold", 0, len(name))
    return titled


def _shortened(text: str, width: int) -> str:
    """Return as many words as fit, without a parenthesis that would stay open."""
    start = textwrap.shorten(text, width, placeholder=_MORE)
    return re.sub(rf" \([^)]*{_MORE}$", _MORE, start)


def _one(catalog: Catalog, names: list[str]) -> None:
    """Print everything about a preset."""
    model = catalog.models[names[0]]
    out = console(LIST_WIDTH)
    out.print(_titled(names[0], _described(model, names[1:]), out.width), soft_wrap=True)
    facts = {"source": model.source, "note": model.comment, "training mode": model.network.mode or ""}
    for name, fact in facts.items():
        if fact:
            out.print(_wrapped(f"  {name}: {fact}", out.width), soft_wrap=True)
    blocks = table("", ("block", "written out"))
    for i, block in enumerate(model.network.blocks):
        blocks.add_row(f"b{i}", grammar.format_block(block, catalog.defaults))
    out.print(blocks)
    if model.network.settle is not None:
        settings = ", ".join(f"{name} {value}" for name, value in model.network.settle.values)
        out.print(_wrapped(f"settles with {settings}", out.width), soft_wrap=True)
