"""Write one file with what is needed to repeat a search or a run: configs, code, records, versions, commands."""

from __future__ import annotations

from pathlib import Path

from hebb.cli import arguments, describe
from hebb.cli.parsing import Parser, Section
from hebb.core import commands
from hebb.core.errors import ConfigError
from hebb.core.words import counted
from hebb.storage import folders

_VERB = "archive"


def parser() -> Parser:
    """Return the parser of the command."""
    flags = Parser(f"{__doc__}\n\nData are named by their digest and not packed.", prog=commands.name(_VERB))
    flags.add_argument("folder", metavar="SEARCH", help="a search or a finished run: its name, or its folder")
    storage = flags.section(Section.STORAGE)
    storage.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the archive: a file that ends in .zip or .tar.gz"
    )
    storage.add_argument("--with-models", action="store_true", help="pack the trained models that are stored, too")
    storage.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    flags.section(Section.NETWORK).add_argument(
        "--plugin",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH|MODULE",
        help="where plugins of the runs lie now; their sources must be those of the runs",
    )
    arguments.add_home_flag(flags)
    return flags


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse(argv)
    folder = folders.stored_folder(options.folder, folders.Home.find(options.data_dir), _VERB)
    from hebb.storage import archive

    archive.check_name(options.out)
    if options.out.exists() and not options.overwrite:
        raise ConfigError("--out", f"must be a new file, and '{options.out}' exists", hint="--overwrite replaces it")
    folders.check_writable(options.out.absolute().parent, "--out")
    contents = archive.write(folder, options.out, models=options.with_models, elsewhere=options.plugin)
    out = describe.console()
    runs = sum(name.endswith(f"/{folders.RESULT}") for name in contents["files"])
    size = describe.disk(options.out.stat().st_size)
    finished = counted(runs, "finished run")
    out.print(f"{contents['kind']} {contents['name']}: {finished}, {size}", soft_wrap=True)
    for plugin in contents["plugins"]:
        out.print(f"plugin: {plugin['name']}, source {plugin['sha256'][:10]}", soft_wrap=True)
    for data in contents["data"]:
        out.print(f"data, not packed: {data['dataset']}, digest {data['sha256'][:10]}", soft_wrap=True)
    out.print(f"archive: {options.out}", soft_wrap=True)
    return 0
