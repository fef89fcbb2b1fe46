"""A search as it is asked for, and the checks that turn it into a ``Search``. Imports neither Ray nor torch.

Every field is the command-line flag of its name, with the same default; errors name the flag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hebb.config import domains, objectives, overrides, plan, probed, search_space
from hebb.config.catalog import Catalog
from hebb.config.objectives import Objective
from hebb.config.phase import PhaseKind
from hebb.config.search_space import SearchPlan, SearchSpec
from hebb.config.specs import VALIDATION_SHARE, RunConfig
from hebb.config.vocabulary import Algorithm, Goal, Launcher, Purpose, Sampler, Scheduler
from hebb.core import commands, extras
from hebb.core.errors import ConfigError
from hebb.core.threads import cores
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import job_options, samplers, search_folder, steps, trials
from hebb.tuning.search import Search, final_seeds, packs_of

FINAL_SEEDS = 3
_OF_HEBBIAN = ("convergence", "R1", "winner_entropy")
"""What is measured of the neurons of Hebbian blocks while they learn."""
_OF_RAY = ("ray", "optuna")
"""Packages of a search that its jobs do without."""


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search as it is asked for.

    Attributes:
        base: the run that the space changes; its seed is 0.
        spec: the search config: space, seeds, algorithm, scheduler and budget.
        folder: where the search is stored.
        source: the search config, as errors name it.
        seed: added to every seed of the search config.
        search_block: the block that ``bX`` stands for; None is block 0.
        metric: what configurations are compared by; None takes that of the search config, else an accuracy.
        mode: ``max`` or ``min``; None is what suits the metric.
        others: what they are compared by beside the metric; None takes those of the search config where it gives the
            metric, too.
        final_seeds: runs of the winner, or of every point of the front, on all training images; None makes 3.
        final_points: numbers of the points of the front that get them; empty for all.
        pack_seeds: seeds of a configuration that are trained together.
        probe_every: report a quick probe to the scheduler after every so many Hebbian phases; 0 makes none.
        resume_from: checkpoint with the initial weights, for a base with ``resume``.
    """

    base: RunConfig
    spec: SearchSpec
    folder: Path
    source: str = "search config"
    seed: int = 0
    search_block: int | None = None
    metric: str | None = None
    mode: Goal | None = None
    others: tuple[Objective, ...] | None = None
    final_seeds: int | None = None
    final_points: tuple[int, ...] = ()
    pack_seeds: int = 1
    probe_every: int = 0
    resume_from: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("final_seeds", 0), ("probe_every", 0), ("pack_seeds", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')}", f"must be a whole number >= {least}, got {value}")
        if self.metric is not None and self.metric not in search_space.METRICS:
            problem = f"unknown metric '{self.metric}'"
            raise ConfigError("--metric", problem, given=self.metric, choices=search_space.METRICS)
        if self.base.seed:
            raise ConfigError("--set seed", "a search has its own seeds", hint="--seed N is added to each of them")
        if self.final_seeds is not None and self.spec.purpose == Purpose.SWEEP:
            raise ConfigError("--final-seeds", f"search config '{self.spec.name}' is a sweep, which names no winner")
        if self.final_points and self.spec.purpose == Purpose.SWEEP:
            raise ConfigError("--final-points", f"search config '{self.spec.name}' is a sweep, which trains none again")

    def resolve(self, catalog: Catalog) -> Search:
        """Return the search, with every trial of it checked; nothing is written."""
        spec = trials.on_block(self.spec, self.search_block, self.base)
        metric, mode = _metric(self, spec)
        others = _others(self, spec)
        seeds = tuple(self.seed + seed for seed in spec.seeds)
        count = FINAL_SEEDS if self.final_seeds is None else self.final_seeds
        search = Search(
            spec=spec,
            base=self.base,
            seeds=seeds,
            metric=metric,
            mode=mode,
            final_seeds=final_seeds(seeds, count) if spec.purpose == Purpose.SEARCH else (),
            folder=self.folder,
            resume_from=self.resume_from,
            pack_seeds=self.pack_seeds,
            packs=packs_of(seeds, self.pack_seeds),
            probe_every=self.probe_every,
            others=others,
            final_points=self.final_points,
        )
        _check_beside(self, search)
        search = trials.planned(search, catalog)
        check_points(search)
        check_steps(search)
        return search


def check_installed(feature: str, spec: SearchSpec, launcher: Launcher = Launcher.RAY) -> None:
    """Raise where a package that a search or its algorithm needs is not installed; nothing is imported."""
    if launcher != Launcher.RAY:
        job_options.check_installed(launcher)
        extras.require(feature, *(name for name in extras.SEARCH if name not in _OF_RAY), extra="slurm")
        return
    extras.require(feature, *extras.SEARCH, extra="search")
    if spec.plan.model_based:
        algorithm = spec.plan.algorithm
        extras.require(f"search algorithm {algorithm}", algorithm, extra=extras.EXTRAS[algorithm])
        samplers.check_installed(spec)


def validation_share(spec: SearchSpec, held_out: bool | None) -> float:
    """Return the share of training images to hold out; ``held_out`` overrides the search config."""
    if held_out is None:
        return spec.validation
    return (spec.validation or VALIDATION_SHARE) if held_out else 0.0


def threads_of(spec: SearchSpec, pack_seeds: int, workers: int | None) -> int:
    """Return the CPU threads of a trial where the cores are shared among all that run at once."""
    count = spec.count() * (1 if spec.grouped else -(-len(spec.seeds) // pack_seeds))
    return max(1, cores() // min(count, cores(), workers or count))


def _metric(request: SearchRequest, spec: SearchSpec) -> tuple[str, Goal]:
    """Return what configurations are compared by, and whether ``max`` or ``min`` of it is better."""
    validated, selects = request.base.validated, spec.purpose == Purpose.SEARCH
    metric = request.metric or spec.metric or ("val_acc" if validated or selects else "test_acc")
    _check_split(request, spec, metric, _place_of_metric(request, spec))
    stated = spec.mode if metric == (spec.metric or metric) else None
    return metric, Goal(request.mode or stated or objectives.better(metric))


def _check_split(request: SearchRequest, spec: SearchSpec, metric: str, where: str) -> None:
    """Raise where a metric is of images that there are not, or that must not decide."""
    validated, selects = request.base.validated, spec.purpose == Purpose.SEARCH
    if metric.startswith("val") and not validated:
        hint = "--metric test_acc selects on the test set" if selects else None
        raise ConfigError(where, f"there is no {metric} without --validation-sup", hint=hint)
    if metric.startswith("test") and validated and selects:
        raise ConfigError(
            where,
            f"a search with validation images cannot select on {metric}",
            hint="--validation-sup false --metric test_acc selects on the test set",
        )
    if metric.startswith("test") and validated and spec.grouped:
        raise ConfigError(
            where, f"with validation images {metric} is known only at the end of a run, too late to act on"
        )


def _others(request: SearchRequest, spec: SearchSpec) -> tuple[Objective, ...]:
    """Return what configurations are compared by beside the metric."""
    others = request.others
    if others is None:
        others = spec.others if request.metric in (None, spec.metric) else ()
    where = _place_of_others(request)
    for other in others:
        _check_split(request, spec, other.metric, where)
    if others:
        _check_several(spec, where)
    return others


def _place_of_metric(request: SearchRequest, spec: SearchSpec) -> str:
    """Return where the metric stands, as errors name it."""
    return f"{request.source}, metric" if spec.metric and not request.metric else "--metric"


def _place_of_others(request: SearchRequest) -> str:
    """Return where the further metrics stand, as errors name it."""
    return "--metric" if request.others is not None else f"{request.source}, metric"


def _by_one_number(plan: SearchPlan) -> Algorithm | Sampler | None:
    """Return what suggests points by one number alone; None where nothing does."""
    if plan.algorithm == Algorithm.HYPEROPT:
        return plan.algorithm
    return plan.sampler if plan.sampler == Sampler.CMAES else None


def _check_several(spec: SearchSpec, where: str) -> None:
    """Raise for what suggests points by one number alone."""
    name = _by_one_number(spec.plan)
    if name is not None:
        several = "--algorithm optuna takes" if name == Algorithm.HYPEROPT else "--sampler tpe, nsga2 or gp take"
        raise ConfigError(where, f"{name} suggests by one metric, got several", hint=f"{several} several")


def _check_beside(request: SearchRequest, search: Search) -> None:
    """Raise for a bound or a cost that the runs of this search cannot measure, or its sampler not model."""
    name, where = _by_one_number(search.spec.plan), "--constraint"
    for bound in search.constraints:
        _check_split(request, search.spec, bound.metric, where)
        if name is not None and not bound.static:
            problem = f"{name} cannot model {bound}, which is known after a run"
            hint = "sampler tpe, gp and nsga2 do; algorithm random and grid need no model"
            raise ConfigError(where, problem, hint=hint)
    _check_recorded(request, search)


def _check_recorded(request: SearchRequest, search: Search) -> None:
    """Raise for a metric or a cost that the runs of this search do not record."""
    compared = {other.metric for other in search.others}
    compete = _compete(search)
    for name in (search.metric, *search.beside):
        where = _place_of_others(request) if name in compared else "--constraint"
        where = _place_of_metric(request, search.spec) if name == search.metric else where
        if name in _OF_HEBBIAN and not compete:
            raise ConfigError(where, f"{name} needs blocks that compete, and no block of this network is Hebbian")
        if name == "winner_entropy" and search.base.curve_points == 0:
            raise ConfigError(where, "winner_entropy is read off learning curves, and there are no --curve-points")
        if name == "peak_memory" and search.packs:
            problem = "peak_memory of one seed cannot be told from that of the others of its pack"
            raise ConfigError(where, problem, hint="--pack-seeds 1 trains each seed by itself")
        if name == "activity_sparsity" and not search.base.network.settles:
            problem = "activity_sparsity is recorded of settling networks alone"
            raise ConfigError(where, problem, hint="winner_entropy says how Hebbian blocks share the wins")


def _compete(search: Search) -> bool:
    """Tell whether Hebbian blocks learn in the base, or may in what the space makes of it."""
    blocks, learn = search.base.network.blocks, (PhaseKind.HEBBIAN, PhaseKind.JOINT)
    phases = [phase for phase in plan.phases(search.base) if phase.kind in learn]
    other_rules = any(path.endswith((".preset", ".method")) for path in search.spec.paths())
    return other_rules or any(blocks[i].hebbian for phase in phases for i in phase.blocks)


def check_points(search: Search) -> None:
    """Raise for points of a front where there is none."""
    if search.final_points and not search.several:
        raise ConfigError("--final-points", "needs several metrics: one metric has a winner and no front")
    if any(number < 1 for number in search.final_points):
        raise ConfigError("--final-points", f"must be whole numbers >= 1, got {min(search.final_points)}")
    most = search.spec.count() - len(search.left_out)
    if any(number > most for number in search.final_points):
        problem = f"must be at most {most}, the number of configurations, got {max(search.final_points)}"
        raise ConfigError("--final-points", problem, hint="the points of a front are numbered from 1, best first")


def check_steps(search: Search) -> None:
    """Raise for a scheduler that could never stop anything, and for probes that nothing can use."""
    if search.probe_every:
        _check_probes(search)
    if not search.stops_early:
        return
    configs = [trial.config for trial in search.trials] or [search.base]
    last = max(steps.of_run(config, search.metric, search.probe_every).count for config in configs) * len(search.seeds)
    grace = search.spec.scheduler.grace
    if grace > last:
        raise ConfigError(
            f"search config '{search.spec.name}', scheduler, grace",
            f"must be at most the last step, {last}, got {grace}: nothing would ever be stopped",
            hint="steps are the epochs of the classifier, over all seeds",
        )


def _check_probes(search: Search) -> None:
    chosen, scheduler = search.spec.plan, search.spec.scheduler.name
    if not search.metric.endswith("_acc"):
        raise ConfigError("--probe-every", f"a probe gives an accuracy, and the metric is {search.metric}")
    if not search.stops_early:
        raise ConfigError(
            "--probe-every",
            "needs a scheduler, which is what acts on the probes",
            hint="choose --scheduler asha, asha-promotion or hyperband",
        )
    if chosen.model_based or scheduler == Scheduler.MEDIAN:
        raise ConfigError(
            "--probe-every",
            f"{chosen.algorithm if chosen.model_based else scheduler} would compare accuracies of probes with those of "
            "the classifier",
            hint="asha, asha-promotion and hyperband compare only what was measured at the same step",
        )
    for config in [trial.config for trial in search.trials] or [search.base]:
        probed.check_linear("--probe-every", probed.stated(config, plan.phases(config)))


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What is added to a stored search.

    Attributes:
        seeds: further replicates of every configuration.
        samples: further points drawn from the space; None adds none.
        space: further points of listed domains, by the name of the domain.
    """

    seeds: tuple[int, ...] = ()
    samples: int | None = None
    space: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.seeds or self.space) and self.samples is None:
            raise ConfigError("--extend", "adds nothing", choices=("--seeds", "--num-samples", "--space"))


def restored(
    folder: Path,
    catalog: Catalog,
    *,
    extension: Extension | None = None,
    time: float | None = None,
    count: int | None = None,
    final_points: tuple[int, ...] = (),
) -> Search:
    """Return the search that a folder holds.

    Args:
        folder: the folder of the search.
        catalog: presets and datasets.
        extension: what is added to the search.
        time: a new time budget in seconds.
        count: a new limit on the trials that begin.
        final_points: other points of the front to be trained again.
    """
    data, where = search_folder.read(folder), str(folder / folders.SEARCH)
    if extension is not None:
        data = _extended(data, extension, where)
    search = search_folder.search_of(data, folder, catalog)
    if count is not None and count < 1:
        raise ConfigError("--max-trials", f"must be a whole number >= 1, got {count}")
    plan = search.spec.plan
    plan = replace(plan, time=plan.time if time is None else time, trials=plan.trials if count is None else count)
    search = replace(search, spec=replace(search.spec, plan=plan), final_points=final_points or search.final_points)
    if final_points:
        check_points(search)
        if extension is None and Journal.load(folder).succeeded is not None:
            _check_stored_points(search)
    return search


def check_used(changes: Iterable[str], search: Search) -> None:
    """Raise for a change of the base at a path that the space sets in every configuration: it would do nothing."""
    network = search.base.network
    always = [path for axis in search.spec.axes if not axis.when for path in axis.paths()]
    varied = {name for path in always for name in overrides.single(path, network)}
    for path in changes:
        names = overrides.single(path, network)
        if all(name in varied or _replaced(name, varied) for name in names):
            problem = "is what the space varies, so its value would do nothing"
            raise ConfigError(f"--set {path}", problem, hint="leave it out, or take it out of the space")


def _replaced(path: str, varied: Collection[str]) -> bool:
    """Tell whether ``bN.preset`` of the space replaces the layer that a path belongs to."""
    block, _, part = path.partition(".")
    return f"{block}.preset" in varied and part.partition(".")[0] in ("layer", "method")


def continued(asked: Search, begun: Search, where: str) -> Search:
    """Return the search that a folder holds, which must be the one that is asked for, but for its device.

    Args:
        asked: what is asked for; the points of the front to be trained again are taken from it.
        begun: the search in the folder.
        where: what asks for it, as errors name it.
    """
    same_device = replace(asked, base=replace(asked.base, device=begun.base.device))
    changed = overrides.differing(_described(begun), _described(same_device))
    if changed:
        hint = f"{commands.line('search', '--restore', begun.folder, '--extend')} adds seeds and samples to it"
        raise ConfigError(where, f"{begun.folder} holds another search: {', '.join(changed)}", hint=hint)
    return replace(begun, final_points=asked.final_points)


def _described(search: Search) -> dict[str, object]:
    """Return everything that decides what a search does, as its folder has it."""
    data = search_folder.to_data(search.spec)
    parts = {f"{name} {key}": value for name in ("space", "search", "scheduler") for key, value in data[name].items()}
    compared = ", ".join(f"{one.metric} ({one.mode})" for one in search.objectives)
    seeds = {"seeds": list(search.seeds), "final_seeds": list(search.final_seeds)}
    others = {name: data.get(name) for name in ("purpose", "validation", "constraints")}
    return {**parts, "metric": compared, **seeds, **others, **overrides.everything(search.base)}


def _check_stored_points(search: Search) -> None:
    """Raise for points that the front of a search that has come to its end has not."""
    present = search_folder.points_of_front(search.folder)
    missing = sorted(set(search.final_points) - set(present))
    if present and missing:
        got = " ".join(map(str, missing))
        raise ConfigError("--final-points", f"must be points of the front, {' '.join(map(str, present))}, got {got}")


def _extended(data: Mapping[str, Any], extension: Extension, where: str) -> dict[str, Any]:
    """Return the content of ``search.json`` with what is added."""
    spec = search_space.parse(data["spec"], str(data["config"]), where)
    seeds = (*data["seeds"], *extension.seeds)
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(
            "--seeds",
            f"must be distinct whole numbers >= 0 that the search has not used, got "
            f"{' '.join(map(str, extension.seeds))}",
        )
    if extension.space and spec.plan.algorithm == Algorithm.RANDOM:
        problem = "would change the points that this search has drawn, so that their trials no longer count"
        raise ConfigError("--space", problem, hint="--num-samples draws more points")
    spec = replace(spec, plan=_more_samples(spec.plan, extension.samples), seeds=seeds)
    axes = {axis.name: axis for axis in spec.axes}
    for more in domains.parse(extension.space, "--space"):
        if more.name not in axes:
            raise ConfigError("--space", f"{more.name} is no domain of this search", given=more.name, choices=axes)
        axes[more.name] = axes[more.name].extended(more, "--space")
    spec = replace(spec, axes=tuple(axes.values()))
    final = final_seeds(seeds, len(data["final_seeds"]))
    packs = [*data.get("packs", ()), *packs_of(extension.seeds, data.get("pack_seeds", 1))]
    return {**data, "spec": search_folder.to_data(spec), "seeds": seeds, "packs": packs, "final_seeds": list(final)}


def _more_samples(plan: SearchPlan, samples: int | None) -> SearchPlan:
    if samples is None:
        return plan
    if plan.algorithm == Algorithm.GRID or samples < 1:
        problem = f"must be a whole number >= 1, got {samples}" if samples < 1 else "a grid has no samples to add to"
        raise ConfigError("--num-samples", problem, hint="--space adds points to its lists, --seeds adds replicates")
    return replace(plan, samples=plan.samples + samples)


def folder_of(name: str, home: folders.Home) -> Path:
    """Return the folder of a search, given by its path or by its name below ``home``."""
    folder = Path(name).absolute()
    return folder if folder.is_dir() or "/" in name else home.search(name)
