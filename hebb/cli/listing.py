"""List presets, datasets, methods, paths of ``--set``, protocols or search configs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hebb.cli import arguments, path_list, preset_list, train_flags
from hebb.cli.describe import LIST_WIDTH, console, table
from hebb.cli.parsing import Exclusive, Parser
from hebb.config import fields, grammar, search_space
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.fields import ARCHS, Value
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES
from hebb.config.rule import Rule, SettlingRule
from hebb.config.vocabulary import Arch
from hebb.core import commands
from hebb.core.errors import ConfigError, nearest

_VERB = "list"


def parser(flag: str = _VERB, others: Callable[[], Parser] = train_flags.parser) -> Parser:
    """Return the parser of the command, in which the list follows the verb, or ``--list`` of another command."""
    flags = Parser(
        "List what can be named on a command line, or only the names that contain all of the given words.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(flag, "only prints a list", others),
    )
    flags.add_subject(flag, _VERB, dest="listing", metavar="WHAT", choices=tuple(LISTS), help=" | ".join(LISTS))
    flags.add_argument("words", nargs="*", metavar="WORD", help="what the names contain (default: all names)")
    arguments.add_catalog_flags(flags)
    return flags


def main(argv: list[str], flag: str = _VERB, others: Callable[[], Parser] = train_flags.parser) -> int:
    """Run the command and return its exit code; ``others`` makes the parser of the command that ``flag`` belongs to."""
    options = parser(flag, others).parse(argv)
    catalog = arguments.load_catalog(options)
    chosen = LISTS[options.listing]
    names = chosen.names(catalog)
    shown = {name for name in names if all(word.lower() in name.lower() for word in options.words)}
    if chosen.alone:  # the whole name of a preset is often the start of others
        shown = {name for name in shown if [name.lower()] == [word.lower() for word in options.words]} or shown
    if not shown:
        where = f"{flag if flag != _VERB else commands.name(_VERB)} {options.listing}"
        text = " ".join(options.words)
        raise ConfigError(where, f"no name contains '{text}'", given=_like(text, names), choices=dict.fromkeys(names))
    chosen.show(catalog, shown)
    return 0


def _like(text: str, names: Iterable[str]) -> str:
    """Return the name that looks most like a text or has such a word in it, else the text."""
    names = list(names)
    words = {word: name for name in reversed(names) for word in re.findall("[A-Z]*[a-z]+|[A-Z]+", name)}
    close = nearest(text, names) or words.get(nearest(text, words) or "")
    return close or text


def _print(out: Console, rows: Table) -> None:
    """Print a table that has rows."""
    if rows.row_count:
        out.print(rows)


def _dataset_names(catalog: Catalog) -> list[str]:
    return [*DATASETS.forms, *catalog.datasets]


def _datasets(catalog: Catalog, shown: Collection[str]) -> None:
    out = console(LIST_WIDTH)
    forms = {form: summary for form, summary in DATASETS.forms.items() if form in shown}
    for form, summary in forms.items():
        out.print(Text.assemble((form, "bold"), f"  {summary}"))
    if forms:
        spec = DataSpec(dataset=DATASETS.names()[0])
        out.print(
            f"  {spec.epochs} epoch in batches of {spec.batch_size}, unless you change them: "
            "--set dataset_sup.epochs=50 dataset_unsup.batch_size=10"
        )
    for entry in DATASETS.entries():
        specs = {name: s for name, s in catalog.datasets.items() if s.dataset == entry.name and name in shown}
        if not specs:
            continue
        size = f"{entry.channels}x{entry.height}x{entry.width}"
        images = f"{size}, {entry.classes} classes, {entry.train:,} + {entry.test:,} images"
        out.print(Text.assemble((entry.name, "bold"), f"  {entry.summary}; {images}"))
        variants = table("", ("variant", "epochs", "batch", "images", "other"), ("epochs", "batch", "images"))
        for name, spec in specs.items():
            numbers = (str(spec.epochs), str(spec.batch_size), f"{spec.train_samples():,}")
            variants.add_row(name, *numbers, _other_settings(spec))
        out.print(variants)


def _other_settings(spec: DataSpec) -> str:
    """Write the settings of a dataset variant in which it differs from a plain one."""
    words = [
        name
        for name in ("augmentation", "mirror", "zca", "zca_pixels", "zca_test", "mirror_test")
        if getattr(spec, name)
    ]
    words += [f"{name} {getattr(spec, name)}" for name in ("noise_std", "size") if getattr(spec, name)]
    if spec.classes is not None:
        words.append("class " + " ".join(map(str, spec.classes)))
    if spec.split != "train":
        words.append(f"split {spec.split}")
    return ", ".join(words)


def _method_names(catalog: Catalog) -> list[str]:
    names = [*RULES.names(), *fields.FIELDS, *(entry.name for entry, *_ in _own_fields())]
    return [*names, *(setting.name for setting in _settings()), *ACTIVATIONS.names()]


def _settings() -> list[fields.Field]:
    """Return the settings of networks that settle, each once."""
    rules = [rule for rule in RULES.entries() if isinstance(rule, SettlingRule)]
    return list({setting.name: setting for rule in rules for setting in rule.settings}.values())


def _methods(catalog: Catalog, shown: Collection[str]) -> None:
    out = console(LIST_WIDTH)
    whole = set(_method_names(catalog)) <= set(shown)
    for rule in RULES.entries():
        if rule.name in shown:
            out.print(Text.assemble((rule.name, "bold"), f"  {rule.summary}\n  source: {rule.source}"))
            if whole:
                _tokens_in_short(out, rule)
            else:
                _print(out, _tokens_of(catalog, rule))
    tokens = table("\nfields", ("token", "name", "legal", "MLP", "CNN", "meaning"))
    for entry in fields.FIELDS.values():
        if entry.name in shown:
            default = [_default(catalog, entry, arch) for arch in ("MLP", "CNN")]
            tokens.add_row(entry.token or "", entry.name, entry.legal, *default, entry.meaning)
    for (entry, *default), methods in _own_fields().items():
        if entry.name in shown:
            meaning = f"{' '.join(methods)}: {entry.meaning}"
            tokens.add_row(entry.token or "", entry.name, entry.legal, *default, meaning)
    _print(out, tokens)
    settings = table("\nsettings of networks that settle", ("name", "legal", "meaning"))
    for entry in _settings():
        if entry.name in shown:
            settings.add_row(entry.name, entry.legal, entry.meaning)
    _print(out, settings)
    functions = table("\nactivations", ("part", "formula"))
    for function in ACTIVATIONS.entries():
        if function.name in shown:
            parameter = "_" + function.parameter.split()[-1] if function.parameter else ""
            functions.add_row(function.name + parameter, function.formula)
    _print(out, functions)


def _tokens_in_short(out: Console, rule: Rule) -> None:
    """Print the tokens of a method, whose meanings follow in one table for all."""
    for arch in rule.archs:
        names = [e.token or e.name for e in rule.fields_on(arch).values()]
        other = [f"{name} {_written(value)}" for name, value in rule.defaults.get(arch, {}).items()]
        out.print(f"  {arch}: {' '.join(names)}" + (f" (default here: {', '.join(other)})" if other else ""))
    if isinstance(rule, SettlingRule):
        settings = [f"{s.name}={grammar.format_value(s.default, s)}" for s in rule.settings if s.default is not None]
        out.print(f"  settle: {' '.join(settings)}")


def _tokens_of(catalog: Catalog, rule: Rule) -> Table:
    """Return the tokens of a method with its own defaults, and for a network that settles its settings."""
    tokens = table("", ("token", "name", "legal", *rule.archs, "meaning"))
    entries = {entry.name: entry for arch in rule.archs for entry in rule.fields_on(arch).values()}
    for entry in entries.values():
        own = [_own_default(catalog, rule, entry, arch) for arch in rule.archs]
        tokens.add_row(entry.token or "", entry.name, entry.legal, *own, entry.meaning)
    for setting in rule.settings if isinstance(rule, SettlingRule) else ():
        default = "" if setting.default is None else grammar.format_value(setting.default, setting)
        tokens.add_row("settle", setting.name, setting.legal, *(default for _ in rule.archs), setting.meaning)
    return tokens


def _own_default(catalog: Catalog, rule: Rule, entry: fields.Field, arch: str) -> str:
    if entry.name not in rule.fields_on(Arch(arch)):
        return "-"
    own = rule.defaults.get(Arch(arch), {})
    return _written(own[entry.name]) if entry.name in own else _default(catalog, entry, arch)


def _own_fields() -> dict[tuple[fields.Field, str, str], list[str]]:
    """Return the fields that only some methods have, with their defaults, and the methods."""
    methods: dict[tuple[fields.Field, str, str], list[str]] = {}
    for rule in RULES.entries():
        for entry in rule.own_fields:
            mlp, cnn = (
                _written(rule.defaults.get(arch, {}).get(entry.name, entry.default)) if arch in rule.archs else "-"
                for arch in ARCHS
            )
            methods.setdefault((entry, mlp, cnn), []).append(rule.name)
    return methods


def _default(catalog: Catalog, entry: fields.Field, arch: str) -> str:
    """Write a field's layer default, or - if the architecture lacks the field."""
    if arch not in entry.archs:
        return "-"
    return _written(catalog.defaults[arch].get(entry.name, entry.default))


def _written(value: Value | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return grammar.number(value)


def _protocols(catalog: Catalog, shown: Collection[str]) -> None:
    protocols = table("protocols", ("name", "what", "changes", "source"))
    for name, protocol in catalog.protocols.items():
        if name in shown:
            changes = " ".join(f"{path}={value}" for path, value in protocol.changes.items())
            protocols.add_row(name, protocol.description, changes, protocol.source)
    console(LIST_WIDTH).print(protocols)


def _configs(_: Catalog, shown: Collection[str]) -> None:
    configs = table("search configs", ("name", "runs", "purpose", "answers"), ("runs",))
    for name in sorted(shown):
        spec = search_space.load(name)
        configs.add_row(name, str(spec.count() * len(spec.seeds)), spec.purpose, spec.description)
    console(LIST_WIDTH).print(configs)


@dataclass(frozen=True)
class _List:
    """A list: the names that it can show, what prints the chosen ones, and whether a whole name shows it alone."""

    names: Callable[[Catalog], Iterable[str]]
    show: Callable[[Catalog, Collection[str]], None]
    alone: bool = False


LISTS = {
    "presets": _List(lambda catalog: catalog.models, preset_list.show, alone=True),
    "datasets": _List(_dataset_names, _datasets),
    "methods": _List(_method_names, _methods),
    "paths": _List(path_list.names, path_list.show),
    "protocols": _List(lambda catalog: catalog.protocols, _protocols),
    "configs": _List(lambda _: search_space.names(), _configs),
}
