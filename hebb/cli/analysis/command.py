"""Draw figures and tables from stored runs: analysis.py VERB RUNS ... -> PNG, SVG and the CSV of the numbers drawn.

python analysis.py table demo --metric test_acc
"""

from __future__ import annotations

from pathlib import Path

from hebb import builtin
from hebb.cli import arguments
from hebb.cli.analysis import experiments, pictures, recipes, reports, runs, sweeps
from hebb.cli.analysis.verb import Verb
from hebb.config import plugins
from hebb.core.errors import ConfigError
from hebb.storage import folders


def parser(verb: Verb) -> arguments.Parser:
    """Return the parser of a verb."""
    made = arguments.Parser(f"{verb.name}: {verb.summary}", prog=f"analysis.py {verb.name}")
    verb.flags(made)
    made.add_argument("--out", type=Path, metavar="DIR", help="where its files go (default: hebb/analysis, see README)")
    made.add_argument("--name", metavar="NAME", help=f"of its files (default: {verb.name})")
    made.add_argument("--overwrite", action="store_true", help="replace files of that name")
    made.add_argument("--data-dir", metavar="DIR", help="parent folder (default: $HEBB_HOME, else ./hebb_data)")
    made.add_argument("--plugin", nargs="+", action="extend", default=[], metavar="FILE", help="code the runs need")
    return made


_DRAWING = {
    verb.name: verb for verb in (*runs.VERBS, *sweeps.VERBS, *experiments.VERBS, *pictures.VERBS, *reports.VERBS)
}
VERBS: dict[str, Verb] = _DRAWING | {verb.name: verb for verb in recipes.verbs(_DRAWING, parser)}


def main(argv: list[str]) -> int:
    """Run a verb and return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] not in VERBS:
        raise ConfigError("command line", f"unknown verb '{argv[0]}'", given=argv[0], choices=VERBS)
    verb = VERBS[argv[0]]
    options = parser(verb).parse(argv[1:])
    if options.name is None:
        options.name = verb.name if verb.file_name is None else verb.file_name(options)
    folder = options.out
    if folder is None:
        folder = verb.folder(options) if verb.folder else folders.Home.find(options.data_dir).analysis

    from hebb.analysis import output

    output.check_free(folder, options.name, options.overwrite)  # before the work, not after it
    builtin.load()
    plugins.load(options.plugin)
    for made in verb.outputs(options):
        written = made.save(folder, overwrite=options.overwrite)
        if made.text:
            print(made.text)
        print("\n".join(str(path) for path in written))
    return 0


def usage() -> str:
    """List the verbs."""
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS.values())
    return f"{__doc__}\nverbs (analysis.py VERB --help):\n{lines}"
