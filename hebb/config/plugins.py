"""Rules, activations, datasets and modes from outside: a Python file, a package, or an installed distribution.

A plugin is a module that registers entries when it is imported (``RULES.register(HebbianRule(...))``). It is named on
the command line (``--plugin PATH_OR_MODULE``), or an installed distribution names it under the entry-point group
``hebb.plugins`` and it is always there. A run remembers its plugins, each with a digest of its source, so that the
same code, and no other, is loaded when the run is repeated, continued, or carried to another process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from hebb.config import hooks, plan
from hebb.config.fields import FIELDS, LOCAL, token_table
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES, HebbianRule, LocalRule, Rule
from hebb.config.specs import PluginSpec, RunConfig
from hebb.core import streams, user_code
from hebb.core.errors import ConfigError
from hebb.core.user_code import UserCodeError

GROUP = "hebb.plugins"
"""Entry-point group in which an installed distribution names its plugin modules."""


@dataclass(frozen=True)
class _Loaded:
    """A plugin of this process and the names it registered, in lower case."""

    spec: PluginSpec
    names: frozenset[str]
    asked: bool


_LOADED: dict[str, _Loaded] = {}
"""Plugins by digest."""


def load(names: Iterable[str], where: str = "--plugin") -> None:
    """Load the plugins that a user names; one that is already there is not loaded again.

    Args:
        names: paths of Python files or package folders, or importable modules.
        where: the place an error names.
    """
    for name in names:
        _load(name, f"{where} {name}", asked=True)


def load_installed() -> None:
    """Load the plugins of installed distributions."""
    from importlib import metadata  # some 20 ms, which --help does without

    for point in metadata.entry_points(group=GROUP):
        owner = "" if point.dist is None else f" of {point.dist.name}"
        _load(point.module, f"installed plugin '{point.name}'{owner}")


def of_run(config: RunConfig) -> tuple[PluginSpec, ...]:
    """Return the plugins a run depends on: those asked for, and installed ones whose entries it uses."""
    used = {config.mode.lower(), config.dataset_sup.dataset.lower(), config.dataset_unsup.dataset.lower()}
    for block in config.network.blocks:
        used.add(block.layer.method.lower())
        used |= {block.activation.name.lower()} if block.activation else set()
    return tuple(plugin.spec for plugin in _LOADED.values() if plugin.asked or plugin.names & used)


def require(specs: Iterable[PluginSpec], where: str) -> None:
    """Load the plugins that a stored run names; the source must be that of the run."""
    for spec in specs:
        if spec.sha256 in _LOADED:
            continue
        place = f"{where}, plugin '{spec.name}'"
        source_of(spec, place)
        _load(spec.name, place, asked=True)


def source_of(spec: PluginSpec, where: str) -> Path:
    """Return the file, or the package folder, of a plugin that a stored run names; nothing of it is executed.

    Raises:
        ConfigError: where it is gone, or is no longer the source of the run.
    """
    try:
        source = path_of(spec.name, where)
        sha256 = digest(source)
    except ConfigError as error:
        raise ConfigError(
            where, f"the run needs it, and {_reason(error)}", hint="--plugin names it where it lies now"
        ) from None
    if sha256 != spec.sha256:
        raise ConfigError(
            where,
            f"its source has changed since the run ({sha256[:10]} now, {spec.sha256[:10]} then)",
            hint="--plugin PATH names the version of the run; its first command with --overwrite starts again",
        )
    return source


def described(code: CodeType) -> str | None:
    """Say what a function of a plugin is for, as in ``signal of TopTwo`` or ``mode 'twice'``; None if it only helps."""
    modes = (f"mode '{name}'" for name, function in plan.MODES.items() if user_code.code_of(function) is code)
    return hooks.described(code) or next(modes, None)


def explanation(error: BaseException, folders: Iterable[Path] = ()) -> UserCodeError | None:
    """Return the error of a plugin's code, with plugin, file and line; None for other errors.

    Args:
        error: any error.
        folders: run folders that keep the traceback; without any a temporary file does.
    """
    return user_code.explanation(error, described, folders)


def path_of(name: str, where: str) -> Path:
    """Return the file, or the package folder, that a plugin's name means; nothing of it is executed."""
    if _is_path(name):
        path = Path(name).absolute()
        if path.is_dir() and not (path / "__init__.py").exists():
            raise ConfigError(where, f"folder {path} has no __init__.py")
        if not path.exists():
            raise ConfigError(where, f"{path} does not exist")
        return path
    module = None
    with _explained(where), contextlib.suppress(ModuleNotFoundError, ValueError):
        module = importlib.util.find_spec(name)
    origin = Path((module.origin if module else None) or "nowhere")
    if not origin.is_file():
        raise ConfigError(
            where, f"no module '{name}' can be imported", hint="a file is named by its path, as ./rule.py"
        )
    return origin.parent if module and module.submodule_search_locations else origin


def digest(source: Path) -> str:
    """Return the SHA-256 of a file, or of all Python files of a package with their names."""
    return digest_of(sources(source), package=source.is_dir())


def sources(source: Path) -> dict[str, bytes]:
    """Return the files that a plugin's digest covers, by their names in its package."""
    if source.is_file():
        return {source.name: source.read_bytes()}
    return {file.relative_to(source).as_posix(): file.read_bytes() for file in sorted(source.rglob("*.py"))}


def digest_of(files: Mapping[str, bytes], *, package: bool) -> str:
    """Return the digest of a plugin with these files; ``package``: their names are part of it."""
    total = hashlib.sha256()
    for name, content in files.items():
        if package:
            total.update(name.encode() + b"\0")
        total.update(content + b"\0")
    return total.hexdigest()


def _reason(error: ConfigError) -> str:
    return str(error).splitlines()[0].partition(": ")[2]


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name or os.sep in name or Path(name).is_dir()


def _load(name: str, where: str, asked: bool = False) -> None:
    """Import a plugin and note what it registered."""
    source = path_of(name, where)
    sha256 = digest(source)
    if sha256 in _LOADED:
        if asked and not _LOADED[sha256].asked:
            _LOADED[sha256] = _Loaded(_LOADED[sha256].spec, _LOADED[sha256].names, True)
        return
    before = _names()  # a look-up, so what comes with the project is registered first and a clash is the plugin's
    stored = str(source) if _is_path(name) else name
    user_code.add(source, stored)
    with _process_kept(where), _explained(where, source):
        if _is_path(name):
            _import_path(source, sha256)
        else:
            importlib.import_module(name)
        _check_entries(before)
    registered = frozenset(_names() - before)
    if not registered:
        raise ConfigError(
            where,
            "must register a rule, activation, dataset or mode, got none",
            hint="RULES.register(HebbianRule(...))",
        )
    _LOADED[sha256] = _Loaded(PluginSpec(name=stored, sha256=sha256), registered, asked)


def _check_entries(before: set[str]) -> None:
    """Raise for an entry that a plugin registered, and that could not be read or run."""
    registries: tuple[Any, ...] = (RULES, ACTIVATIONS, DATASETS)
    for entry in (entry for registry in registries for entry in registry.entries()):
        if entry.name.lower() not in before:
            if isinstance(entry, Rule):
                _check(entry)
            hooks.check(entry)
    for name in set(plan.MODES) - before:
        hooks.check_mode(name, plan.MODES[name])


def _check(rule: Rule) -> None:
    """Raise for a rule that the grammar could not read or the layers could not run."""
    where = f"method '{rule.name}'"
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", rule.name):
        raise ConfigError(where, f"name must be letters and digits, as in Soft2, got '{rule.name}'")
    if isinstance(rule, LocalRule) and not set(LOCAL) <= set(rule.fields):
        missing = " ".join(name for name in LOCAL if name not in rule.fields)
        raise ConfigError(
            where, f"fields of a LocalRule must include LOCAL, got none of {missing}", hint="fields=LOCAL"
        )
    for name in rule.fields:
        if name not in FIELDS:
            raise ConfigError(where, f"unknown shared field '{name}'", given=name, choices=FIELDS)
    if isinstance(rule, HebbianRule) and "add_bias" in rule.fields and rule.bias_step is None:
        raise ConfigError(where, "the field add_bias needs a bias_step, got none")
    for entry in rule.own_fields:
        shared = token_table().get(entry.token or "")
        if entry.token is not None and not re.fullmatch("[A-Za-z_]+", entry.token):
            raise ConfigError(where, f"token of '{entry.name}' must be letters, got '{entry.token}'")
        if shared is not None and shared.name != entry.name:
            raise ConfigError(where, f"token '{entry.token}' of '{entry.name}' is taken by '{shared.name}'")


def _names() -> set[str]:
    registries: tuple[Any, ...] = (RULES, ACTIVATIONS, DATASETS)
    return {entry.name.lower() for registry in registries for entry in registry.entries()} | set(plan.MODES)


def _import_path(source: Path, sha256: str) -> ModuleType:
    """Import a file or package under a name of its own, so that two plugins of one file name do not meet."""
    name = f"hebb_plugin_{source.stem.replace('-', '_')}_{sha256[:8]}"
    package = source.is_dir()
    spec = importlib.util.spec_from_file_location(
        name,
        source / "__init__.py" if package else source,
        submodule_search_locations=[str(source)] if package else None,
    )
    if spec is None or spec.loader is None:
        raise ConfigError(str(source), "is not a Python file, whose name ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _process_kept(where: str) -> Iterator[None]:
    """Come back to the working folder, and raise where the body changes the output or the numbers of the process."""
    folder, before = _working_folder(), _of_torch()
    try:
        with streams.reopened() as taken:
            yield
    finally:
        if folder is not None and _working_folder() != folder:
            os.chdir(folder)  # what the user typed is relative to it
    if taken:
        problem = f"closes or redirects sys.{taken[0]}, must leave it to the command"
        raise ConfigError(where, problem, hint="print to a file of your own: print(..., file=log)")
    for name, value in _of_torch().items():
        if value != before[name]:
            problem = f"sets torch's {name} to {value} for everything, must leave it {before[name]}"
            raise ConfigError(where, problem, hint="name it where you make a tensor: torch.zeros(3, device=u.device)")


def _working_folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it has been removed
        return None


def _of_torch() -> dict[str, str]:
    """Return the state of torch that its functions read; a process that has not imported it has the defaults."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {"default device": "cpu", "default dtype": "torch.float32", "gradients": "on"}
    return {
        "default device": str(torch.get_default_device()),
        "default dtype": str(torch.get_default_dtype()),
        "gradients": "on" if torch.is_grad_enabled() else "off",
    }


@contextlib.contextmanager
def _explained(where: str, source: Path | None = None) -> Iterator[None]:
    """Turn whatever a plugin raises while it is imported into a ``ConfigError`` that names the plugin and the line."""
    try:
        yield
    except ConfigError as error:
        said = str(error).removeprefix(f"{source}: ") if where.endswith(Path(error.place).name) else str(error)
        problem = error.problem if isinstance(error, UserCodeError) else said
        raise ConfigError(_at(where, error), " ".join(problem.split())) from None
    except (Exception, SystemExit) as error:
        problem = f"cannot be loaded: {user_code.summary(error)}"
        raise ConfigError(_at(where, error), problem, hint=_import_hint(error, source)) from error


def _import_hint(error: BaseException, source: Path | None) -> str | None:
    """Say how a plugin reaches a file beside it; None for other errors."""
    module = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    beside = module and source is not None and (source.parent / f"{module.partition('.')[0]}.py").exists()
    if not beside and "relative import" not in str(error):
        return None
    return "several files are a package: a folder with __init__.py, whose files say 'from . import other'"


def _at(where: str, error: BaseException) -> str:
    """Add the line of the plugin at which it failed; of a package also the file."""
    place = user_code.line_of(error)
    if place is None:
        return where
    file, line = place
    return f"{where}, line {line}" if where.endswith(Path(file).name) else f"{where}, {file}, line {line}"
