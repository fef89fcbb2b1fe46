"""The sources of plugins, as runs used them: kept in the folder of a run, or once in that of its search.

plugins/DIGEST/    a file, or the folder of a package, as in an archive

Nothing here is executed: an archive packs it, and a comparison shows what has changed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from hebb.config import plugins
from hebb.config.specs import PluginSpec
from hebb.core.errors import ConfigError
from hebb.storage import folders

PLUGINS = "plugins"
"""Folder with the sources."""


def place(sha256: str) -> str:
    """Return the folder of a plugin's sources, below that of a run or an archive."""
    return f"{PLUGINS}/{sha256[:16]}"


def keep(run: Path, specs: Iterable[PluginSpec]) -> None:
    """Keep the sources of the plugins of a run that begins; those of another process may come first."""
    for spec in specs:
        target = _owner(run) / place(spec.sha256)
        if target.exists():
            continue
        source = plugins.source_of(spec, f"plugin '{spec.name}'")
        target.parent.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
        try:
            for name, content in plugins.sources(source).items():
                path = unfinished / source.name / name if source.is_dir() else unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            unfinished.chmod(0o755)
            try:
                unfinished.rename(target)
            except OSError:
                if not target.exists():  # else another trial was first
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def source_of(spec: PluginSpec, folder: Path, where: str) -> Path:
    """Return the file or the package folder of a plugin: what was kept, else what lies where the run named it.

    Args:
        spec: the plugin, as a run names it.
        folder: of the run or the search.
        where: the place that an error names.

    Raises:
        ConfigError: where no source has the digest of the run.
    """
    for path in sorted((_owner(folder) / place(spec.sha256)).glob("*")):
        with contextlib.suppress(OSError):
            if plugins.digest(path) == spec.sha256:
                return path
    return plugins.source_of(spec, where)


def texts(spec: PluginSpec, folder: Path) -> dict[str, str] | None:
    """Return the sources of a plugin by the names of its files; None where there are none with its digest."""
    try:
        source = source_of(spec, folder, spec.name)
    except (ConfigError, OSError):
        return None
    return {name: text.decode(errors="replace") for name, text in plugins.sources(source).items()}


def _owner(run: Path) -> Path:
    """Return the folder that keeps the sources of a run: its own, or that of its search."""
    above = run.absolute().parent
    return above.parent if above.name == folders.TRIALS and (above.parent / folders.SEARCH).exists() else run
