"""Draw figures and tables from stored runs.

Each verb writes a PNG, an SVG and the CSV of the numbers drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hebb import builtin
from hebb.cli import arguments
from hebb.cli.analysis import experiments, pictures, recipes, reports, runs, sweeps
from hebb.cli.analysis.verb import Verb
from hebb.cli.parsing import HELP, HELP_ALL, Parser
from hebb.config import plugins
from hebb.core import commands, extras
from hebb.core.errors import ConfigError
from hebb.storage import folders


def parser(verb: Verb) -> Parser:
    """Return the parser of a verb."""
    flags = Parser(f"{verb.name}: {verb.summary}", prog=f"{commands.name('analysis')} {verb.name}")
    verb.flags(flags)
    if verb.looks:
        arguments.add_device_flags(flags)
    flags.add_argument("--out", type=Path, metavar="DIR", help=verb.out)
    flags.add_argument("--name", metavar="NAME", help=f"name of its files (default: {verb.name})")
    flags.add_argument("--overwrite", action="store_true", help="replace files of that name")
    flags.add_argument("--data-dir", metavar="DIR", help="parent folder (default: $HEBB_HOME, else ./hebb_data)")
    flags.add_argument("--plugin", nargs="+", action="extend", default=[], metavar="FILE", help="code the runs need")
    return flags


_DRAWING = {
    verb.name: verb for verb in (*runs.VERBS, *sweeps.VERBS, *experiments.VERBS, *pictures.VERBS, *reports.VERBS)
}
VERBS: dict[str, Verb] = _DRAWING | {verb.name: verb for verb in recipes.verbs(_DRAWING, parser)}


def main(argv: list[str]) -> int:
    """Run the verb that ``argv`` begins with and return the exit code."""
    if not argv or argv[0] in (*HELP, HELP_ALL):
        print(usage())
        return 0
    if argv[0] not in VERBS:
        raise ConfigError("command line", f"unknown verb '{argv[0]}'", given=argv[0], choices=VERBS)
    verb = VERBS[argv[0]]
    options = parser(verb).parse(argv[1:])
    print(_begins(verb, options), file=sys.stderr, flush=True)  # the imports alone take seconds
    extras.require(f"{commands.name('analysis')} {verb.name}", "matplotlib", "pandas", extra="analysis")
    if options.name is None:
        options.name = verb.name if verb.file_name is None else verb.file_name(options)
    folder = options.out
    if folder is None:
        folder = verb.folder(options) if verb.folder else folders.Home.find(options.data_dir).analysis

    from hebb.analysis import output

    folders.check_writable(folder, "--out")
    output.check_free(folder, options.name, options.overwrite)  # before the work, not after it
    builtin.load()
    plugins.load(options.plugin)
    for result in verb.outputs(options):
        paths = result.save(folder, overwrite=options.overwrite)
        if result.text:
            print(result.text)
        print("\n".join(str(path) for path in paths))
    return 0


def _begins(verb: Verb, options: argparse.Namespace) -> str:
    """Say what a verb reads, or that it begins."""
    places: list[object] = next(filter(None, (getattr(options, name, None) for name in ("runs", "search"))), [])
    names = [str(place) for place in places]
    if not names:
        return f"{verb.name} begins ..."
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"reading {' '.join(names[:5])}{more} ..."


def usage() -> str:
    """List the verbs."""
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS.values())
    command, example = commands.name("analysis"), commands.line("analysis", "table", "demo", "--metric", "test_acc")
    return f"{__doc__}\nexample: {example}\n\nverbs ({command} VERB --help lists the flags of one):\n{lines}"
