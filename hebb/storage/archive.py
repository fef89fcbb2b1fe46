"""An archive: one file with what is needed to repeat a run or a search, to be sent to someone else.

archive.json         what it holds: kind, name, commands, plugins and data with their digests, a digest of each file
search/  or  run/    the records, named as in the folder of the search or the run
plugins/DIGEST/      the sources of each plugin
presets.json         the user's own presets, of a search that was started with some

The same records give the same bytes. Whoever wrote a file that is read may be hostile: nothing is unpacked by its
names, nothing is read beyond the sizes it states, and nothing in it is executed here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import hebb
from hebb.config import plugins
from hebb.config.specs import PluginSpec
from hebb.core import commands, documents, files, locks
from hebb.core.errors import ConfigError
from hebb.storage import folders, kept_code

ENDINGS = (".zip", ".tar.gz", ".tgz")
"""What the name of an archive ends with."""
SEARCH, RUN = "search", "run"
PRESETS = "presets.json"

_MANIFEST = "archive.json"
_FORMAT = 1
_OF_SEARCH = (folders.SEARCH, folders.JOURNAL, "results.csv", "winner.json", "front.json", "final.csv")
_OF_RUN = (
    *(folders.CONFIG, folders.ENVIRONMENT, folders.METRICS, folders.LOOKS, folders.WARNINGS),
    *(folders.POST_HOC, folders.RESULT),
)
_SMALL, _RATIO = 64 << 20, 300
"""Bytes that any archive may hold, and bytes a larger one may hold for each of its own: records shrink 20 times."""
_MOST = 1_000_000  # files
_PADDING = 1 << 20  # bytes after the last file of a tar
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HARMLESS = (stat.S_IFREG, 0)  # kinds of an entry of a zip file: a plain file, or not stated


@dataclass(frozen=True)
class Packed:
    """A plugin in an archive.

    Attributes:
        spec: its name and digest, as the runs name it.
        place: the folder of its sources in the archive.
        path: its file or package folder, below that.
        package: whether it is a package.
        files: its sources, by their names in the archive.
    """

    spec: PluginSpec
    place: str
    path: str
    package: bool
    files: Mapping[str, bytes] = field(repr=False)

    def __str__(self) -> str:
        lines = sum(content.count(b"\n") for content in self.files.values())
        return f"{self.path} (source {self.spec.sha256[:10]}, {lines} lines)"


@dataclass(frozen=True)
class Archive:
    """The content of an archive, without models.

    Attributes:
        path: the file.
        sha256: its digest.
        kind: search or run.
        name: that of the search or the run.
        plugins: the code that its runs need.
        files: the records, by their names below ``search/`` or ``run/``.
        presets: the user's own presets; None without.
    """

    path: Path
    sha256: str
    kind: str
    name: str
    plugins: tuple[Packed, ...]
    files: Mapping[str, bytes] = field(repr=False)
    presets: bytes | None = field(repr=False, default=None)

    def data(self, name: str) -> Mapping[str, Any]:
        """Return the object in one of the records."""
        where = f"{self.path}, {name}"
        if name not in self.files:
            raise ConfigError(where, "is missing from the archive")
        return documents.as_object(documents.parse_json(_text(self.files[name], where), where), where)

    def rows(self, name: str) -> list[folders.Row]:
        """Return the lines of one of the records; none where it is absent."""
        where = f"{self.path}, {name}"
        lines = _text(self.files.get(name, b""), where).splitlines()
        return [dict(documents.as_object(documents.parse_json(line, where), where)) for line in lines]

    def runs(self) -> list[str]:
        """List the folders of the finished runs, by their names below the search; of a single run the empty one."""
        tail = f"/{folders.RESULT}"
        return [""] if self.kind == RUN else [n.removesuffix(tail) for n in self.files if n.endswith(tail)]


def check_name(path: Path) -> None:
    """Raise unless the name of a file ends as that of an archive does."""
    if not path.name.endswith(ENDINGS) or path.name in ENDINGS:
        raise ConfigError("--out", f"must be a file that ends in {' or '.join(ENDINGS[:2])}, got '{path}'")
    if not path.absolute().parent.is_dir():
        raise ConfigError("--out", f"must be a file in a folder that exists, got '{path}'")


# -- written ----------------------------------------------------------------------------------------------------


def write(folder: Path, out: Path, *, models: bool = False, elsewhere: Iterable[str] = ()) -> Mapping[str, Any]:
    """Write the archive of a search or a run, whole or not at all, and return its table of contents.

    Args:
        folder: of the search, or of the run.
        out: the file; its ending says which kind it is.
        models: whether it holds the trained models too.
        elsewhere: files or folders of plugins that no longer lie where the runs name them.

    Raises:
        ConfigError: for what is running or has no finished run, and for a plugin whose source has changed since.
    """
    kind = SEARCH if (folder / folders.SEARCH).exists() else RUN
    content = dict(_records(folder, kind, models=models))
    configs = _objects(content, folders.CONFIG)
    stored = documents.as_object(documents.read_json(folder / folders.SEARCH), str(folder)) if kind == SEARCH else {}
    bases = [stored["base"]] if isinstance(stored.get("base"), dict) else []
    packed = _packed([*bases, *configs.values()], folder, tuple(elsewhere))
    sources = {name: text for plugin in packed for name, text in plugin.files.items()}
    own = _presets(stored)
    everything: dict[str, Path | bytes] = {f"{kind}/{name}": path for name, path in content.items()}
    everything |= sources | ({} if own is None else {PRESETS: own})
    environments = _objects(content, folders.ENVIRONMENT)
    contents = {
        "format": _FORMAT,
        "written_by": f"hebb {hebb.__version__}",
        "kind": kind,
        "name": folder.absolute().name,
        "commands": _commands(stored, environments.values()),
        "plugins": [
            {"name": p.spec.name, "sha256": p.spec.sha256, "place": p.place, "path": p.path, "package": p.package}
            for p in packed
        ],
        "data": _data(configs, environments),
        "files": {name: _described(source) for name, source in sorted(everything.items())},
    }
    text = (json.dumps(contents, indent=1, allow_nan=False) + "\n").encode()
    with files.replaced(out) as (temporary,):
        writer = _write_zip if out.name.endswith(".zip") else _write_tar
        writer(temporary, [(_MANIFEST, text), *sorted(everything.items())])
    return contents


def _records(folder: Path, kind: str, *, models: bool) -> Iterator[tuple[str, Path]]:
    """Yield the files of a search or a run that belong into its archive, by name."""
    if kind == RUN:
        state = folders.state(folder)
        if state != folders.FolderState.FINISHED:
            raise ConfigError("archive", f"must name a search or a finished run, and {folder} is {state}")
        yield from _of_run(folder, "", models=models)
        return
    holder = locks.holder(folder / folders.LOCKS / folders.SEARCH)
    if holder is not None:
        raise ConfigError("archive", f"{folder} is being run by {holder}", hint="wait until it ends")
    yield from ((name, folder / name) for name in _OF_SEARCH if (folder / name).is_file())
    trials = sorted(path.parent for path in (folder / folders.TRIALS).glob(f"*/{folders.CONFIG}"))
    if not any((trial / folders.RESULT).exists() for trial in trials):
        raise ConfigError("archive", f"{folder} holds no finished run", hint="--save false keeps none")
    for trial in trials:
        yield from _of_run(trial, f"{folders.TRIALS}/{trial.name}/", models=models)


def _of_run(folder: Path, before: str, *, models: bool) -> Iterator[tuple[str, Path]]:
    names = (*_OF_RUN, *((folders.CHECKPOINT.as_posix(),) if models else ()))
    yield from ((before + name, folder / name) for name in names if (folder / name).is_file())


def _objects(content: Mapping[str, Path], name: str) -> dict[Path, Mapping[str, Any]]:
    """Read the files of a name, by the folder of their run; a run that was killed early may lack one."""
    paths = [path for path in content.values() if path.name == name]
    return {path.parent: documents.as_object(documents.read_json(path), str(path)) for path in paths}


def _packed(configs: Iterable[Mapping[str, Any]], folder: Path, elsewhere: Sequence[str]) -> list[Packed]:
    """Read the sources of all plugins that the runs in a folder need; each must be what it was when they ran."""
    specs = {spec.sha256: spec for config in configs for spec in specs_in(config)}
    moved = {plugins.digest(path): path for path in (plugins.path_of(name, f"--plugin {name}") for name in elsewhere)}
    packed = []
    for sha256, spec in sorted(specs.items()):
        source = moved.get(sha256) or kept_code.source_of(spec, folder, f"archive, plugin '{spec.name}'")
        place = kept_code.place(sha256)
        base = f"{place}/{source.name}/" if source.is_dir() else f"{place}/"
        content = {base + name: text for name, text in plugins.sources(source).items()}
        packed.append(Packed(spec, place, f"{place}/{source.name}", source.is_dir(), content))
    return packed


def specs_in(config: Mapping[str, Any]) -> list[PluginSpec]:
    """Return the plugins that a stored config names; nothing else of it is read."""
    listed = config.get("plugins") or []
    good = isinstance(listed, list) and all(
        isinstance(p, dict) and isinstance(p.get("name"), str) and isinstance(p.get("sha256"), str) for p in listed
    )
    if not good:
        raise ConfigError("plugins", f"must be a list of names with their digests, got {listed!r}")
    return [PluginSpec(name=p["name"], sha256=p["sha256"]) for p in listed]


def _presets(stored: Mapping[str, Any]) -> Path | None:
    options = stored.get("options")
    name = options.get("preset_file") if isinstance(options, dict) else None
    if name is None:
        return None
    if not Path(name).is_file():
        raise ConfigError("archive", f"the presets of the search are gone: no such file '{name}'")
    return Path(name)


def _commands(stored: Mapping[str, Any], environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the commands that began and continued a search, or the one of a run."""
    options = stored.get("options")
    if isinstance(options, dict):
        return [str(line) for line in options.get("commands", [])]
    return [commands.quoted(*environment["command"]) for environment in environments if environment.get("command")]


def _data(
    configs: Mapping[Path, Mapping[str, Any]], environments: Mapping[Path, Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Name the datasets of all runs with the digests of what they were trained on."""
    named = {}
    for run, environment in environments.items():
        for role, digest in documents.part(environment, "data_sha256").items():
            name = documents.part(configs.get(run, {}), f"dataset_{role}").get("dataset")
            named[str(name), str(digest)] = {"dataset": str(name), "sha256": str(digest)}
    return [named[key] for key in sorted(named)]


def _described(source: Path | bytes) -> dict[str, object]:
    with _opened(source) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _opened(source: Path | bytes) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _write_zip(path: Path, entries: Iterable[tuple[str, Path | bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in entries:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, _size(source)
            with _opened(source) as file, archive.open(info, "w") as target:
                shutil.copyfileobj(file, target)


def _write_tar(path: Path, entries: Iterable[tuple[str, Path | bytes]]) -> None:
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, source in entries:
            info = tarfile.TarInfo(name)
            info.size = _size(source)
            with _opened(source) as file:
                archive.addfile(info, file)


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


# -- read -------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """A file in an archive: its name, its size, and how its content is read."""

    name: str
    size: int
    read: Callable[[], bytes]


def read(path: Path) -> Archive:
    """Read an archive and check all of it; nothing in it is executed, and nothing is written.

    Raises:
        ConfigError: for a file that is no archive of ours, is not whole, or tries to do harm.
    """
    if not path.is_file():
        raise ConfigError("rerun", f"no such file '{path}'")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    opener = _entries_of_zip if zipfile.is_zipfile(path) else _entries_of_tar
    with _refused(path):
        content = _checked(path, opener(path))
    contents = documents.as_object(documents.parse_json(_text(content.pop(_MANIFEST), str(path)), str(path)), str(path))
    kind, name = _kind(path, contents)
    for record in contents["files"]:
        if not record.startswith((f"{kind}/", f"{kept_code.PLUGINS}/")) and record != PRESETS:
            raise ConfigError(str(path), f"holds '{record}', which no {kind} has")
    packed = tuple(_plugin(path, entry, content) for entry in contents.get("plugins", ()))
    records = {name.removeprefix(f"{kind}/"): text for name, text in content.items() if name.startswith(f"{kind}/")}
    return Archive(path, sha256, kind, name, packed, records, content.get(PRESETS))


def _kind(path: Path, contents: Mapping[str, Any]) -> tuple[str, str]:
    """Return kind and name of what the archive holds."""
    if contents.get("format") != _FORMAT:
        raise ConfigError(
            str(path), f"has format {contents.get('format')}, and this version of hebb reads format {_FORMAT}"
        )
    if contents.get("kind") not in (SEARCH, RUN) or not isinstance(contents.get("plugins", []), list):
        raise ConfigError(str(path), f"its {_MANIFEST} does not describe an archive of hebb")
    return contents["kind"], folders.checked_name(str(contents.get("name")), str(path))


def _plugin(path: Path, entry: object, content: Mapping[str, bytes]) -> Packed:
    """Return a plugin of the archive, whose sources must have the digest that the runs name."""
    try:
        values = documents.as_object(entry, str(path))
        spec = PluginSpec(name=str(values["name"]), sha256=str(values["sha256"]))
        place, source, package = str(values["place"]), str(values["path"]), values["package"] is True
    except (ConfigError, KeyError, ValueError):
        raise ConfigError(str(path), f"its {_MANIFEST} does not describe a plugin: {entry!r}") from None
    sources = {n: text for n, text in content.items() if (n.startswith(f"{source}/") if package else n == source)}
    inner = {PurePosixPath(n).relative_to(source).as_posix() if package else n: text for n, text in sources.items()}
    ordered = {name: inner[name] for name in sorted(inner, key=PurePosixPath)}
    own = source.startswith(f"{place}/") and place.startswith(f"{kept_code.PLUGINS}/")
    if not own or not sources or plugins.digest_of(ordered, package=package) != spec.sha256:
        raise ConfigError(str(path), f"does not hold the source of plugin '{spec.name}' that its digest names")
    return Packed(spec, place, source, package, sources)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in a line that a file is no archive, or is damaged."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
        *(NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error),
    ) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(path), "is not a whole archive", hint=" ".join(str(error).split())[:200]) from None


def _checked(path: Path, entries: Iterable[_Entry]) -> dict[str, bytes]:
    """Return the content of all files but models, after checking names, sizes and digests."""
    room = _room(path)
    content: dict[str, bytes] = {}
    names: set[str] = set()
    listed: Mapping[str, Any] = {}
    for entry in entries:
        _check_entry(path, entry.name, names)
        room -= entry.size
        if room < 0:
            raise _too_large(path)
        if not names:
            if entry.name != _MANIFEST:
                raise ConfigError(str(path), f"is not an archive that hebb wrote: it does not begin with {_MANIFEST}")
            content[_MANIFEST] = entry.read()
            listed = _listed(path, content[_MANIFEST])
        elif not entry.name.endswith(f"/{folders.CHECKPOINT.as_posix()}"):
            content[entry.name] = entry.read()
            _check_content(path, entry.name, content[entry.name], listed)
        names.add(entry.name)
    if not names:
        raise ConfigError(str(path), "is empty")
    missing = sorted(listed.keys() - names)
    if missing:
        raise ConfigError(str(path), f"is not a whole archive: '{missing[0]}' is missing")
    return content


def _room(path: Path) -> int:
    """Return the bytes that the archive may hold, unpacked."""
    return max(_SMALL, _RATIO * path.stat().st_size)


def _too_large(path: Path) -> ConfigError:
    return ConfigError(str(path), "would unpack to far more than an archive of its size holds")


def _check_entry(path: Path, name: str, names: set[str]) -> None:
    pure = PurePosixPath(name)
    outside = pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or "\0" in name
    if outside or name != pure.as_posix():
        raise ConfigError(str(path), f"holds a file with a path that leads elsewhere: {name!r}")
    if name in names:
        raise ConfigError(str(path), f"holds '{name}' twice")
    if len(names) >= _MOST:
        raise ConfigError(str(path), f"holds more than {_MOST:,} files")


def _listed(path: Path, text: bytes) -> Mapping[str, Any]:
    contents = documents.parse_json(_text(text, str(path)), str(path))
    listed = contents.get("files") if isinstance(contents, dict) else None
    if not isinstance(listed, dict):
        raise ConfigError(str(path), f"its {_MANIFEST} does not describe an archive of hebb")
    return listed


def _check_content(path: Path, name: str, content: bytes, listed: Mapping[str, Any]) -> None:
    if name not in listed:
        raise ConfigError(str(path), f"holds '{name}', which its {_MANIFEST} does not list")
    expected = listed[name].get("sha256") if isinstance(listed[name], dict) else None
    if hashlib.sha256(content).hexdigest() != expected:
        raise ConfigError(str(path), f"holds '{name}' with another digest than its {_MANIFEST} states")


def _entries_of_zip(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir() or stat.S_IFMT(info.external_attr >> 16) not in _HARMLESS:
                raise ConfigError(str(path), f"holds '{info.filename}', which is a link or a folder, not a file")
            if info.flag_bits & 1:
                raise ConfigError(str(path), f"holds '{info.filename}', which is encrypted")
            if info.compress_type not in _COMPRESSIONS:
                raise ConfigError(str(path), f"holds '{info.filename}', which hebb has not compressed")
            yield _Entry(info.filename, info.file_size, lambda info=info: archive.read(info))  # type: ignore[misc]


class _Unpacked(gzip.GzipFile):
    """The tar in a gzip file, which raises beyond the size that it may have.

    Long names lie in headers, which ``tarfile`` reads whole before it names the size of anything.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path, self._room = path, _room(path)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next ``size`` bytes."""
        content = super().read(size)
        self._room -= len(content)
        if self._room < 0:
            raise _too_large(self._path)
        return content


def _entries_of_tar(path: Path) -> Iterator[_Entry]:
    with open(path, "rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            raise ConfigError(str(path), "is neither a zip nor a tar.gz file")
    with _Unpacked(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            if not member.isreg():
                raise ConfigError(str(path), f"holds '{member.name}', which is a link or a folder, not a file")
            file = archive.extractfile(member)
            assert file is not None, "a plain file has a content"
            yield _Entry(member.name, member.size, file.read)
        rest = archive.fileobj
        if rest is not None and len(rest.read(_PADDING + 1)) > _PADDING:  # its end has the checksum of the whole
            raise ConfigError(str(path), "goes on after its end")


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(where, "is not text in UTF-8") from None
