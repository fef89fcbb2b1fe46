"""The flags of the search command, and how they change a search config. Never imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from hebb.cli import arguments, from_best, on_end
from hebb.cli.parsing import Parser, Section, boolean, count, described, natural
from hebb.config import controls, objectives, search_space
from hebb.config.search_space import SearchSpec
from hebb.config.vocabulary import Algorithm, Launcher, Role, Sampler, Scheduler
from hebb.core import commands, documents
from hebb.core.errors import ConfigError
from hebb.tuning import job_options

KEPT = (
    "no_feature_cache",
    "cache_limit",
    "gpu_exp",
    "save",
    "save_model",
    "save_best",
    "share_blocks",
    "max_failures",
    "preset_file",
    "on_end",
    "storage",
)
"""Flags that a continued search keeps as they were, unless they are given again."""
_BESIDE_RESTORE = (
    *(
        "restore",
        "extend",
        "retry_failed",
        "data_dir",
        "gpu_id",
        "device",
        "gpu_exp",
        "workers",
        "address",
        "dashboard",
    ),
    *("no_feature_cache", "cache_limit", "time_budget", "max_trials", "max_failures", "dry_run", "verbose"),
    *("save", "save_model", "save_best", "final_points", "on_end", "launcher", "slurm", "storage"),
)
NEED_RUNS = ("extend", "retry_failed", "final_points", "save", "save_model", "save_best")
"""Flags beside --restore that do something to the runs of a search, also where it is complete."""
_EXTENDING = ("seeds", "space", "num_samples")
_EXAMPLE = (
    *("--preset", "2SoftHebbCnnDigits", "--dataset", "Digits_5"),
    *("--space", "b0.layer.lr={grid: [0.05, 0.1]}"),
)
_FIRST = {
    "--config": "search config to start from (default: seed)",
    "--seeds": "the replicates (default: those of the config)",
    "--space": "domains: 'b0.layer.lr={grid: [0.01, 0.1]}'",
    "--algorithm": " | ".join(Algorithm),
    "--num-samples": "points drawn from the space",
    "--purpose": "sweep compares everything, search names a winner",
    "--metric": "what is compared (default: test_acc or val_acc)",
    "--scheduler": " | ".join(Scheduler),
    "--threads": "CPU threads of a trial (default: its share)",
    "--restore": "continue an interrupted search",
    "--folder-name": "name of the search (default: preset and config)",
    "--estimate": "print the hours and the disk it takes, then stop",
}

Flags = argparse._ArgumentGroup


def parser(purpose: str) -> Parser:
    """Return the parser of the command; ``purpose`` says in a sentence what it does."""
    description = described(purpose, commands.line("search", *_EXAMPLE), "--space")
    flags = Parser(description, prog=commands.name("search"))
    arguments.add_network_flags(flags)
    from_best.add_flag(flags)
    _add_space_flags(flags.section(Section.SEARCH))
    arguments.add_pack_flag(flags, "train N seeds of a configuration in one trial, each in its own run folder;")
    _add_choice_flags(flags.section(Section.COMPARISON))
    _add_scheduler_flags(flags.section(Section.STOPPING))
    _add_budget_flags(flags.section(Section.BUDGET))
    _add_resource_flags(flags.section(Section.MACHINE))
    _add_result_flags(flags.section(Section.STORAGE))
    arguments.add_run_flags(flags)
    on_end.add_flag(flags)
    flags.section(Section.INSTEAD).add_argument(
        "--estimate",
        action="store_true",
        help="time the real steps on this machine, print the hours and disk of the search, then stop",
    )
    flags.rule_out("--estimate", "--dry-run", "does not run a step")
    flags.rule_out(
        "--save-model", "--save false", "keeps no run", clash=lambda options: options.save_model and not options.save
    )
    flags.rule_out(
        "--save-best",
        "--save false",
        "keeps no run",
        clash=lambda options: "save_best" in options.given and options.save_best and not options.save,
    )
    flags.require_beside("--extend", "--restore", "names the search")
    flags.require_beside("--retry-failed", "--restore", "names the search")
    flags.require_beside("--model-name", "--resume", "says that a model is loaded")
    flags.put_first(arguments.FIRST | _FIRST)
    return flags


def _add_space_flags(group: Flags) -> None:
    """Add the flags that say what is searched, and how."""
    group.add_argument(
        "--config", default="seed", metavar="NAME|FILE", help="search config (default: seed, which runs seeds 0 to 3)"
    )
    group.add_argument("--purpose", metavar="WHAT", help="sweep (compares everything) or search (selects a winner)")
    group.add_argument(
        "--seeds", type=natural, nargs="+", metavar="N", help="seeds to run, instead of those of the config"
    )
    group.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="number added to every seed of the config (default: 0)",
    )
    group.add_argument(
        "--space",
        nargs="+",
        action="extend",
        metavar="PATH=DOMAIN",
        help="add or replace domains of the space: 'b0.layer.lr={loguniform: [0.001, 0.1]}'",
    )
    group.add_argument(
        "--with-controls",
        action="store_true",
        help="run each configuration beside its controls, on the same seeds: blocks frozen as drawn, back-prop inside "
        "each block, and back-prop end to end; print the differences seed by seed",
    )
    group.add_argument(
        "--search-block", type=int, metavar="N", help="block that bX stands for in the search config (default: 0)"
    )
    group.add_argument(
        "--algorithm",
        metavar="NAME",
        help=f"{' | '.join(Algorithm)} (default: grid for lists of values, else random)",
    )
    group.add_argument("--sampler", metavar="NAME", help=f"{' | '.join(Sampler)}, of algorithm optuna (default: tpe)")
    group.add_argument(
        "--warm-start",
        nargs="+",
        metavar="SEARCH",
        help="earlier searches whose results Optuna's model begins with, if they fit the space and all else is equal",
    )
    group.add_argument(
        "--num-samples",
        type=count,
        metavar="N",
        help="number of points to draw from the space (default: the config's, else 1)",
    )
    group.add_argument(
        "--search-seed", type=natural, metavar="N", help="seed of the points that are drawn (default: 0)"
    )


def _add_choice_flags(group: Flags) -> None:
    """Add the flags that say by which metric, and on which images, configurations are compared."""
    group.add_argument(
        "--metric",
        nargs="+",
        metavar="NAME",
        help=f"{' | '.join(search_space.METRICS)} (default: test_acc, or val_acc with validation); several make a "
        f"Pareto front, after the first also {' | '.join(objectives.COSTS)}",
    )
    group.add_argument(
        "--mode", nargs="+", metavar="WAY", help="max | min, one for each metric (default: what fits each metric)"
    )
    group.add_argument(
        "--constraint",
        dest="constraints",
        nargs="+",
        action="extend",
        metavar="BOUND",
        help="bounds on metrics or costs, as 'parameters <= 300000'; what breaks one of "
        f"{', '.join(objectives.STATIC)} is not trained",
    )
    notes = {
        Role.SUP: " (default: true for purpose search, else false; a search selects on the test set only with "
        "--validation-sup false --metric test_acc)",
        Role.UNSUP: " (default: true for purpose search, else false)",
    }
    for kind, note in notes.items():
        group.add_argument(
            f"--validation-{kind}",
            type=boolean,
            nargs="?",
            const=True,
            metavar="BOOL",
            help=f"hold out 20 %% of the training images of --dataset-{kind}{note}",
        )
    group.add_argument(
        "--final-seeds",
        type=int,
        metavar="N",
        help="train the winner of a search on all training images with N new seeds (default: 3)",
    )
    group.add_argument(
        "--final-points",
        type=count,
        nargs="+",
        default=(),
        metavar="N",
        help="with several metrics: train these points of the front again, by their numbers (default: all)",
    )


def _add_scheduler_flags(group: Flags) -> None:
    """Add the flags that stop configurations early."""
    group.add_argument("--scheduler", metavar="NAME", help=f"{' | '.join(Scheduler)} (default: none)")
    group.add_argument("--grace", type=int, metavar="N", help="stop nothing before step N (default: 1)")
    group.add_argument(
        "--reduction", type=int, metavar="N", help="at each comparison, let one trial in N continue (default: 3)"
    )
    group.add_argument(
        "--probe-every",
        type=int,
        default=0,
        metavar="N",
        help="report a quick linear probe to the scheduler after every N-th Hebbian phase (default: 0, none)",
    )


def _add_budget_flags(group: Flags) -> None:
    """Add the flags that say when a search ends and how it continues."""
    group.add_argument("--time-budget", metavar="TIME", help="stop after 90s, 30m, 1.5h or 2d; --restore continues")
    group.add_argument("--max-trials", type=count, metavar="N", help="start at most N trials; --restore continues")
    group.add_argument(
        "--max-failures",
        type=int,
        default=1,
        metavar="N",
        help="retry a trial up to N times when its worker dies or raises an error (default: 1)",
    )
    group.add_argument(
        "--restore",
        metavar="FOLDER",
        help="continue an interrupted search, given by its folder or name; finished runs are not run again",
    )
    group.add_argument(
        "--extend",
        action="store_true",
        help="with --restore: add the values of --seeds, --num-samples and --space to the search",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="with --restore: also run trials again whose own code or weights failed, not only those of a mishap",
    )


def _add_resource_flags(group: Flags) -> None:
    """Add the flags that say where trials run."""
    group.add_argument("--gpu-exp", type=int, default=1, metavar="N", help="trials that share one GPU (default: 1)")
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="trials that run at the same time (default: as many as the cores allow)",
    )
    group.add_argument(
        "--share-blocks",
        type=boolean,
        default=True,
        metavar="BOOL",
        help="train the first blocks that trials have in common only once; the results do not change (default: true)",
    )
    group.add_argument(
        "--address", metavar="HOST:PORT", help="run on this Ray cluster, or 'auto' (default: Ray on this machine)"
    )
    group.add_argument("--dashboard", action="store_true", help="show Ray's dashboard, on the loopback address only")
    group.add_argument(
        "--launcher",
        metavar="NAME",
        help=f"{' | '.join(Launcher)} (default: ray); slurm submits each trial as a job and needs no Ray; "
        "local starts the same jobs on this machine",
    )
    group.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help=f"what each job takes: {' '.join(job_options.NAMES)}; or a YAML file with such keys",
    )


def _add_result_flags(group: Flags) -> None:
    """Add the flags that say what is kept, and under which name."""
    group.add_argument("--folder-name", metavar="NAME", help="name of the search (default: names of preset and config)")
    group.add_argument("--model-name", metavar="NAME", help="model that --resume loads (default: the preset's name)")
    group.add_argument("--save-model", action="store_true", help="keep the trained model of every trial")
    group.add_argument(
        "--storage",
        metavar="URL|FILE",
        help="keep the Optuna study in a database, as sqlite:///study.db, or in a journal file, for optuna-dashboard",
    )
    group.add_argument(
        "--save-best",
        type=boolean,
        default=True,
        metavar="BOOL",
        help="keep the trained models of the best configuration and of its final runs (default: true)",
    )
    group.add_argument(
        "--save",
        type=boolean,
        default=True,
        metavar="BOOL",
        help="keep the run folders of the trials when the search is complete (default: true)",
    )


def beside_restore(words: Iterable[str]) -> list[str]:
    """Return the flags, with their values, that may stand beside --restore; a stored search has the others."""
    kept, keep = [], False
    for word in words:
        if word.startswith("--"):
            keep = word.partition("=")[0].removeprefix("--").replace("-", "_") in _BESIDE_RESTORE
        if keep:
            kept.append(word)
    return kept


def check_restore(options: argparse.Namespace) -> None:
    """Raise for flags that a continued search would ignore."""
    allowed = (*_BESIDE_RESTORE, *(_EXTENDING if options.extend else ()))
    for name in sorted(options.given):
        if name in allowed:
            continue
        flag = _flag(name)
        if name in _EXTENDING:
            raise ConfigError(
                flag, "changes the search that --restore continues", hint="--extend adds it to the search"
            )
        raise ConfigError(
            "--restore", f"{flag} cannot be combined with --restore, which continues the search as it was started"
        )


def spec(options: argparse.Namespace) -> SearchSpec:
    """Read the search config, with the changes that flags make to it."""
    changes = {n: getattr(options, n) for n in search_space.CHANGES if getattr(options, n) is not None}
    if "space" in changes:
        changes["space"] = domains_of(changes["space"])
    if options.with_controls:
        changes["space"] = changes.get("space", {}) | controls.domain()
    changed = search_space.load(options.config, changes, {name: _flag(name) for name in changes})
    if options.with_controls:
        search_space.check_controls(changed, "--with-controls")
    if options.search_seed is not None and changed.plan.algorithm == Algorithm.GRID:
        raise ConfigError("--search-seed", "needs points that are drawn, and a grid runs every point")
    return changed


def places(options: argparse.Namespace, spec: SearchSpec) -> dict[str, str]:
    """Return the flags that the user wrote, by the places of a search config that errors name."""
    where = f"search config '{spec.name}'"
    flags = _places(name for name in search_space.CHANGES if getattr(options, name) is not None)
    by_place = {f"{where}, {key}": flag for key, flag in flags.items()}
    if options.with_controls:
        by_place[f"{where}, {controls.PATH}"] = "--with-controls"
    paths = domains_of(options.space or [])
    if paths.keys() >= {axis.name for axis in spec.axes}:
        by_place[f"{where},"] = "--space"  # nothing of the space is the config's own
    return by_place | {f"{where}, {path}": f"--space {path}" for path in paths}


def _places(changes: Iterable[str]) -> dict[str, str]:
    """Return the flags of changes by the places of the values that they change."""
    return {search_space.place_of(name): _flag(name) for name in changes}


def _flag(name: str) -> str:
    if name == "constraints":
        return "--constraint"
    return f"--{name.replace('_', '-')}"


def domains_of(texts: list[str]) -> dict[str, object]:
    """Read ``PATH=DOMAIN`` texts, whose domains are YAML."""
    domains = {}
    for text in texts:
        path, separator, domain = text.partition("=")
        if not separator or not path or not domain:
            hint = "for example 'b0.layer.lr={grid: [0.01, 0.1]}'"
            raise ConfigError("--space", f"must be PATH=DOMAIN, got '{text}'", hint=hint)
        domains[path] = documents.parse_yaml(domain, f"--space {path}")
    return domains
