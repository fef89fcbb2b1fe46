"""List presets, datasets, methods, protocols or search configs."""

from __future__ import annotations

from collections.abc import Callable

from hebb.cli import arguments, train_flags
from hebb.cli.describe import console, table
from hebb.cli.parsing import Exclusive, Parser
from hebb.config import fields, grammar, search_space
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.fields import ARCHS, Value
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES
from hebb.config.rule import SettlingRule
from hebb.core import commands
from hebb.core.errors import ConfigError

_VERB = "list"


def parser(flag: str = _VERB) -> Parser:
    """Return the parser of the command, in which the list follows the verb or the flag ``--list``."""
    flags = Parser(
        "List what can be named on a command line.",
        prog=commands.name(_VERB),
        exclusive=Exclusive(flag, "only prints a list", train_flags.parser),
    )
    flags.add_subject(flag, _VERB, dest="listing", metavar="WHAT", choices=tuple(LISTS), help=" | ".join(LISTS))
    arguments.add_catalog_flags(flags)
    return flags


def main(argv: list[str], flag: str = _VERB) -> int:
    """Run the command and return its exit code."""
    options = parser(flag).parse(argv)
    print_list(options.listing, arguments.load_catalog(options), flag)
    return 0


def print_list(name: str, catalog: Catalog, where: str = "--list") -> None:
    """Print one of the lists; ``where`` is the place an error names."""
    if name not in LISTS:
        raise ConfigError(where, f"unknown list '{name}'", given=name, choices=LISTS)
    LISTS[name](catalog)


def _presets(catalog: Catalog) -> None:
    presets = table(f"{len(catalog.models)} presets", ("name", "what", "source"))
    for name, model in catalog.models.items():
        presets.add_row(name, model.description, model.source)
    console().print(presets)


def _datasets(catalog: Catalog) -> None:
    out = console()
    for entry in DATASETS.entries():
        size = f"{entry.channels}x{entry.height}x{entry.width}"
        out.print(
            f"[bold]{entry.name}[/bold]  {entry.summary}; {size}, {entry.classes} classes, "
            f"{entry.train:,} + {entry.test:,} images"
        )
        variants = table("", ("variant", "epochs", "batch", "images", "other"), ("epochs", "batch", "images"))
        for name, spec in catalog.datasets.items():
            if spec.dataset == entry.name:
                numbers = (str(spec.epochs), str(spec.batch_size), f"{spec.train_samples():,}")
                variants.add_row(name, *numbers, _other_settings(spec))
        out.print(variants)


def _other_settings(spec: DataSpec) -> str:
    """Write the settings of a dataset variant in which it differs from a plain one."""
    words = [name for name in ("augmentation", "zca") if getattr(spec, name)]
    words += [f"{name} {getattr(spec, name)}" for name in ("noise_std", "size") if getattr(spec, name)]
    if spec.classes is not None:
        words.append("class " + " ".join(map(str, spec.classes)))
    if spec.split != "train":
        words.append(f"split {spec.split}")
    return ", ".join(words)


def _methods(catalog: Catalog) -> None:
    out = console()
    for rule in RULES.entries():
        out.print(f"[bold]{rule.name}[/bold]  {rule.summary}\n  source: {rule.source}")
        for arch in rule.archs:
            names = [e.token or e.name for e in rule.fields_on(arch).values()]
            other = [f"{name} {_written(value)}" for name, value in rule.defaults.get(arch, {}).items()]
            out.print(f"  {arch}: {' '.join(names)}" + (f" (default here: {', '.join(other)})" if other else ""))
        if isinstance(rule, SettlingRule):
            out.print(
                "  settle: "
                + " ".join(
                    f"{s.name}={grammar.format_value(s.default, s)}" for s in rule.settings if s.default is not None
                ),
                soft_wrap=True,
            )
    tokens = table("\nfields", ("token", "name", "legal", "MLP", "CNN", "meaning"))
    for entry in fields.FIELDS.values():
        default = [_default(catalog, entry, arch) for arch in ("MLP", "CNN")]
        tokens.add_row(entry.token or "", entry.name, entry.legal, *default, entry.meaning)
    for (entry, *default), methods in _own_fields().items():
        tokens.add_row(entry.token or "", entry.name, entry.legal, *default, f"{' '.join(methods)}: {entry.meaning}")
    out.print(tokens)
    settings = table("\nsettings of networks that settle", ("name", "legal", "meaning"))
    for entry in {
        s.name: s for rule in RULES.entries() if isinstance(rule, SettlingRule) for s in rule.settings
    }.values():
        settings.add_row(entry.name, entry.legal, entry.meaning)
    out.print(settings)
    functions = table("\nactivations", ("part", "formula"))
    for function in ACTIVATIONS.entries():
        functions.add_row(
            function.name + ("_" + function.parameter.split()[-1] if function.parameter else ""), function.formula
        )
    out.print(functions)


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


def _protocols(catalog: Catalog) -> None:
    protocols = table("protocols", ("name", "what", "changes", "source"))
    for name, protocol in catalog.protocols.items():
        changes = " ".join(f"{path}={value}" for path, value in protocol.changes.items())
        protocols.add_row(name, protocol.description, changes, protocol.source)
    console().print(protocols)


def _configs(_: Catalog) -> None:
    configs = table("search configs", ("name", "runs", "purpose", "answers"), ("runs",))
    for name in search_space.names():
        spec = search_space.load(name)
        configs.add_row(name, str(spec.count() * len(spec.seeds)), spec.purpose, spec.description)
    console().print(configs)


LISTS: dict[str, Callable[[Catalog], None]] = {
    "presets": _presets,
    "datasets": _datasets,
    "methods": _methods,
    "protocols": _protocols,
    "configs": _configs,
}
