"""The list of presets: a line each, by the rule of the first block; a single one with all that is known of it."""

from __future__ import annotations

from collections.abc import Collection

from rich.text import Text

from hebb.cli.describe import console, counted, table
from hebb.config import grammar
from hebb.config.catalog import Catalog, Model
from hebb.config.registry import RULES
from hebb.core import commands


def show(catalog: Catalog, shown: Collection[str]) -> None:
    """Print presets; those that are the same network stand in one line."""
    networks = _alike(catalog, shown)
    if len(networks) == 1:
        _one(catalog, next(iter(networks.values())))
        return
    out = console()
    groups: dict[str, list[list[str]]] = {}
    for names in networks.values():
        groups.setdefault(catalog.models[names[0]].network.blocks[0].layer.method, []).append(names)
    width = max(len(names[0]) for names in networks.values())
    for method, presets in groups.items():
        out.print(Text.assemble((method, "bold"), f"  {RULES.get(method, 'rule').summary}"), soft_wrap=True)
        for names in presets:
            text = f"  {names[0]:<{width}}  {_described(catalog.models[names[0]], names[1:])}"
            out.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    again = commands.line("list", "presets", "WORD")
    out.print(
        f"\n{counted(len(shown), 'preset')}; {again} lists those whose names contain it, and shows all of a single one"
    )


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


def _one(catalog: Catalog, names: list[str]) -> None:
    """Print everything about a preset."""
    model = catalog.models[names[0]]
    out = console()
    out.print(Text.assemble((names[0], "bold"), f"  {_described(model, names[1:])}"), soft_wrap=True)
    facts = {"source": model.source, "note": model.comment, "training mode": model.network.mode or ""}
    for name, fact in facts.items():
        if fact:
            out.print(f"  {name}: {fact}", soft_wrap=True)
    blocks = table("", ("block", "written out"))
    for i, block in enumerate(model.network.blocks):
        blocks.add_row(f"b{i}", grammar.format_block(block, catalog.defaults))
    out.print(blocks)
    if model.network.settle is not None:
        out.print(f"settles with {', '.join(f'{name} {value}' for name, value in model.network.settle.values)}")
