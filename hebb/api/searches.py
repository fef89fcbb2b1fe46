"""``hebb.search``: seeds times a search space on Ray Tune, from Python."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebb.api import data as data_argument
from hebb.api import runs as run_api
from hebb.api.arguments import checked
from hebb.api.data import Data
from hebb.api.runs import TrainedRun
from hebb.config import catalog as catalogs
from hebb.config import controls, objectives, search_space
from hebb.config.fields import Value
from hebb.config.vocabulary import DeviceKind, Goal, Launcher
from hebb.core import files
from hebb.core.choices import choose
from hebb.core.errors import ConfigError, HebbError
from hebb.storage import folders
from hebb.storage.folders import Home
from hebb.tuning import job_options, request, search_folder, studies
from hebb.tuning import warm_start as warm
from hebb.tuning.request import SearchRequest
from hebb.tuning.search_settings import SearchSettings

if TYPE_CHECKING:
    import pandas as pd

    from hebb.tuning.observer import SearchObserver
    from hebb.tuning.search import Trial
    from hebb.tuning.search_report import SearchReport


@dataclass(frozen=True, kw_only=True)
class BestConfiguration:
    """The configuration with the best mean over its seeds, or one on the Pareto front.

    Attributes:
        values: the values of the search space, by override path.
        network: its network as a preset string.
        changes: those of the values that are not of the network, and the optimiser and stopping rules that the search
            itself set, as the ``overrides`` of ``hebb.train``.
        n: seeds that finished.
        mean: of the metric over them.
        sd: sample deviation; NaN for one seed.
        feasible: whether the means keep every constraint; True without any.
        run: its run of the first seed, whose ``run.network`` is loaded from the model that the search keeps.
    """

    values: Mapping[str, Value]
    network: str
    changes: Mapping[str, Value]
    n: int
    mean: float
    sd: float
    feasible: bool
    run: TrainedRun = field(repr=False, compare=False)


class FinishedSearch:
    """A search that has ended, read from its folder.

    A search without a folder of its own lies in a temporary one, which is removed with this object, at the end of a
    ``with`` block, or when the program ends.

    Attributes:
        folder: where it is stored.
        failed: why configurations failed, by what they change.
    """

    def __init__(
        self,
        folder: Path,
        home: Home,
        *,
        arrays: data_argument.NamedData | None = None,
        temporary: bool = False,
    ) -> None:
        self.folder, self._home, self._arrays = folder, home, arrays
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True) if temporary else None
        self.failed = dict(self._stored.failed)

    def __repr__(self) -> str:
        search, best = self._stored.search, self.best
        return f"<FinishedSearch {search.base.network.name}: {len(self.table())} configurations, best {best.mean:.2f}>"

    def __enter__(self) -> FinishedSearch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._remove is not None:
            self._remove()

    @functools.cached_property
    def _stored(self) -> SearchReport:
        from hebb.tuning import html_report

        return html_report.read(self.folder)

    @property
    def metric(self) -> str:
        """What configurations are compared by."""
        return self._stored.search.metric

    def table(self) -> pd.DataFrame:
        """Return a line for each configuration, best first.

        Its columns are the configuration, a column for each path of the search space, n, mean, sd, half-width and ends
        of the 95 % interval, the values of the seeds, and minutes.
        """
        return self._with_choices(self._stored.ranking)

    def gains(self) -> pd.DataFrame:
        """Return what the rule adds to its controls, seed by seed: a line for each control of each configuration.

        Its columns are the configuration, the control, both means, the gain (learned - control) with its 95 % interval,
        n, t and p of the paired t-test, p with Holm's correction, and the gains of the seeds. Without ``with_controls``
        there is no line.
        """
        from hebb.tuning import gains

        return gains.table(self._stored.search, self._stored.runs)

    @property
    def results(self) -> pd.DataFrame:
        """A line for each run, as in ``results.csv``, with a column for each path of the search space."""
        return self._with_choices(self._stored.runs)

    def _with_choices(self, lines: pd.DataFrame) -> pd.DataFrame:
        """Return lines with what was chosen for each, behind the configuration."""
        choices = {trial.label: trial.choice for trial in self._stored.search.trials}
        paths = dict.fromkeys(path for choice in choices.values() for path in choice)
        values = {path: [choices[label].get(path) for label in lines["configuration"]] for path in paths}
        place = list(lines.columns).index("configuration") + 1
        before, after = lines.iloc[:, :place], lines.iloc[:, place:]
        return before.assign(**values).join(after)

    @property
    def best(self) -> BestConfiguration:
        """The configuration with the best mean among those that keep every constraint, else among all (``feasible``).

        Of several metrics, the first one decides.
        """
        return self._configuration(self._stored.ranking.iloc[0], self._stored.best)

    @property
    def front(self) -> tuple[BestConfiguration, ...]:
        """The configurations that no other beats in every metric, best by the first one first; of one metric, the best.

        ``table()`` has the means of all metrics, and ``front`` and ``feasible`` as columns.
        """
        ranking = self._stored.ranking
        lines = [ranking[ranking["configuration"] == label].iloc[0] for label in self._stored.leading]
        trials = {trial.label: trial for trial in reversed(self._stored.search.trials) if trial.finished}
        return tuple(self._configuration(line, trials[str(line["configuration"])]) for line in lines)

    def _configuration(self, line: pd.Series, trial: Trial) -> BestConfiguration:
        """Return a configuration, given its line of the ranking and one of its finished runs."""
        from hebb.tuning import trials

        return BestConfiguration(
            values=dict(trial.choice),
            network=trials.network_string(trial, self._stored.catalog),
            changes=trials.training_changes(search_folder.read(self.folder)["base"], trial.choice),
            n=int(line["n"]),
            mean=float(line["mean"]),
            sd=float(line["sd"]),
            feasible=bool(line.get("feasible", True)),
            run=self._run(self._with_model(trial)),
        )

    def _with_model(self, best: Trial) -> Trial:
        """Return the run of the best configuration that kept its model; seeds that came later may lack those before."""
        same = [trial for trial in self._stored.search.trials if trial.configuration == best.configuration]
        kept = (trial for trial in same if trial.finished and (trial.folder / folders.CHECKPOINT).exists())
        return next(kept, best)

    def _run(self, trial: Trial) -> TrainedRun:
        return run_api.read_run(trial.folder, self._home, self._arrays)

    @functools.cached_property
    def runs(self) -> tuple[TrainedRun, ...]:
        """The finished runs, configuration by configuration."""
        finished = (trial for trial in self._stored.search.trials if trial.finished)
        return tuple(map(self._run, finished))

    def report(self, path: str | Path) -> Path:
        """Write the page of the search, one file that needs no network, and return its path."""
        from hebb.tuning import html_report

        path = Path(path).absolute()
        if path.suffix != ".html" or not path.parent.is_dir():
            raise ConfigError("report", f"must be a file that ends in .html, in a folder that exists, got '{path}'")
        files.write_text(path, html_report.page(self._stored, {}, self._home))
        return path


@checked
def search(
    preset: str,
    *,
    data: Data = "Digits",
    data_unsup: Data | None = None,
    space: Mapping[str, object] | None = None,
    with_controls: bool = False,
    seeds: Iterable[int] | None = None,
    algorithm: str | None = None,
    sampler: str | None = None,
    warm_start: str | Path | Iterable[str | Path] = (),
    num_samples: int | None = None,
    search_seed: int | None = None,
    scheduler: str | None = None,
    metric: str | Iterable[str] | Mapping[str, str] | None = None,
    mode: str | Iterable[str] | None = None,
    constraints: Iterable[str] | Mapping[str, object] = (),
    config: str = "seed",
    purpose: str | None = None,
    final_seeds: int | None = None,
    final_points: Iterable[int] = (),
    time_budget: float | str | None = None,
    max_trials: int | None = None,
    epochs: int | None = None,
    epochs_unsup: int | None = None,
    overrides: Mapping[str, object] | None = None,
    training_mode: str | None = None,
    training_blocks: Iterable[int] | None = None,
    protocol: Iterable[str] = (),
    probes: Iterable[str] = (),
    validation: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    launcher: str = "ray",
    slurm: Mapping[str, object] | None = None,
    storage: str | None = None,
    save_models: bool = False,
    save_best: bool = True,
    plugins: Iterable[str] = (),
    preset_file: str | Path | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    carry_on: bool = False,
    data_dir: str | Path | None = None,
    progress: bool = False,
) -> FinishedSearch:
    """Train a network over seeds and a search space. The same arguments give the same bits as ``hebb search``.

    A Ray that is initialised is used and left running; otherwise one is started, and stopped at the end.

    Args:
        preset: as in ``hebb.train``.
        data: as in ``hebb.train``.
        data_unsup: as in ``hebb.train``.
        epochs: as in ``hebb.train``.
        epochs_unsup: as in ``hebb.train``.
        overrides: as in ``hebb.train``.
        training_mode: as in ``hebb.train``.
        training_blocks: as in ``hebb.train``.
        protocol: as in ``hebb.train``.
        probes: as in ``hebb.train``.
        device: as in ``hebb.train``.
        plugins: as in ``hebb.train``.
        preset_file: as in ``hebb.train``.
        threads: CPU threads of a trial; None shares the cores among the trials that run at once.
        data_dir: as in ``hebb.train``.
        space: a domain for each override path: ``{"b0.layer.lr": {"loguniform": [0.001, 0.1]}}``, ``{"grid": [...]}``.
        with_controls: run each configuration beside its controls (``FinishedSearch.gains``): frozen as drawn, with
            back-prop inside each block, and end to end.
        seeds: the seeds of every configuration; None takes those of the search config, 0 to 3 of ``seed``.
        algorithm: ``grid``, ``random``, ``optuna`` or ``hyperopt``; None lists a space of lists and draws from others.
        sampler: how ``optuna`` suggests points: ``tpe``, ``gp``, ``random``, ``cmaes`` or ``nsga2``; None is ``tpe``.
        warm_start: earlier searches, by name or folder, whose results the model of ``optuna`` begins with.
        num_samples: configurations drawn.
        search_seed: varies what is drawn.
        scheduler: ``asha``, ``median`` or ``hyperband`` stop configurations early; ``asha-promotion`` pauses them, and
            the best go on.
        metric: what configurations are compared by; None takes ``val_acc`` with validation, else ``test_acc``. Several,
            as a list or as ``{"test_acc": "max", "parameters": "min"}``, make a Pareto front (``front``).
        mode: whether ``max`` or ``min`` of it is better, one for each metric; None is what suits each metric.
        constraints: bounds that configurations must keep: ``["parameters <= 300000"]`` or ``{"parameters": "<= 3e5"}``.
        config: a search config to start from: a shipped name or a YAML file.
        purpose: ``sweep`` reports every configuration; ``search`` names one, selected on validation images, and trains
            it again on all images.
        final_seeds: new seeds with which it does that; None makes 3.
        final_points: by several metrics, the numbers of the points of the front that are trained again; empty for all.
        time_budget: after which no trial goes on, as ``"2h"``.
        max_trials: after which no other begins.
        validation: share of the training images that is held out; None takes that of the search config.
        workers: trials at the same time; None for as many as there is room for.
        address: an existing Ray cluster.
        launcher: ``ray``; ``slurm`` submits each trial as a job, needs no Ray, and needs ``folder``; ``local`` starts
            the same jobs on this machine.
        slurm: what each job takes, as ``{"partition": "gpu", "time": "8h", "gpus": 1}``.
        storage: where the Optuna study is kept, for optuna-dashboard: ``sqlite:///study.db``, or a journal file.
        save_models: keep the trained model of every run.
        save_best: keep those of the best configuration, which ``best.run`` loads, and of its final runs.
        folder: where the search is stored; None uses a temporary folder.
        overwrite: replace the search that the folder holds.
        carry_on: continue the search in the folder, with the same arguments.
        progress: show the trials, as the command does.

    Raises:
        ConfigError: for arguments that cannot be used, before anything is written.
        HebbError: when no run could be finished.
        InterruptedRunError: when Ctrl-C ends the search; ``carry_on`` continues it in its folder.
    """
    changes = {
        "space": (dict(space or {}) | (controls.domain() if with_controls else {})) or None,
        "seeds": None if seeds is None else list(seeds),
        "algorithm": algorithm,
        "sampler": sampler,
        "warm_start": _names(warm_start),
        "num_samples": num_samples,
        "search_seed": search_seed,
        "scheduler": scheduler,
        "purpose": purpose,
        "constraints": constraints if isinstance(constraints, Mapping) else list(constraints) or None,
        "time_budget": time_budget,
        "max_trials": max_trials,
    }
    spec = search_space.load(config, {name: value for name, value in changes.items() if value is not None})
    if with_controls:
        search_space.check_controls(spec, "with_controls")
    kind, jobs = choose(Launcher, launcher, "launcher"), job_options.parse(slurm or {}, "slurm")
    if kind == Launcher.SLURM and folder is None:
        problem = "slurm needs folder=, on a disk that the nodes see: a temporary folder is of this machine"
        raise ConfigError("launcher", problem)
    request.check_installed("hebb.search", spec, kind)
    share_of_cores = jobs.threads() if kind != Launcher.RAY else request.threads_of(spec, 1, workers)
    share = spec.validation if validation is None else validation
    base, named, index = run_api.describe(
        preset,
        data=data,
        data_unsup=data_unsup,
        epochs=epochs,
        epochs_unsup=epochs_unsup,
        overrides=overrides,
        training_mode=training_mode,
        protocol=protocol,
        validation=share,
        device=device,
        plugins=plugins,
        preset_file=preset_file,
        seed=0,
        training_blocks=training_blocks,
        probes=probes,
        threads=share_of_cores if threads is None else threads,
    )
    home = Home.find(None if data_dir is None else str(data_dir))
    catalog = catalogs.load(None if preset_file is None else Path(preset_file))
    settings = SearchSettings(
        home=home,
        gpu=index if base.device == DeviceKind.CUDA else None,
        workers=workers,
        address=address,
        launcher=kind,
        jobs=jobs,
        storage=studies.absolute(storage),
        save_models=save_models,
        keep_best=save_best,
        preset_file=None if preset_file is None else Path(preset_file),
    )
    with _folder(folder) as place:
        asked = SearchRequest(
            base=base,
            spec=spec,
            folder=place,
            source="search",
            **_objectives(metric, mode),
            final_seeds=final_seeds,
            final_points=tuple(final_points),
        ).resolve(catalog)
        request.check_used(overrides or (), asked)
        job_options.check(asked, kind, jobs, arrays=bool(named.arrays))
        fresh = not (carry_on and (place / folders.SEARCH).exists())
        if fresh:
            search_folder.check_free(place, overwrite)
            asked = warm.begun(asked, home, catalog)
        else:
            search_folder.check_runs(place, "carry_on")
            asked = request.continued(asked, request.restored(place, catalog), "carry_on")
        studies.check(asked, settings.storage)
        from hebb.tuning import stages

        with _observer(progress) as observer:
            result = stages.run(asked, settings, catalog, observer, fresh=fresh)
        if not len(result.runs):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in result.failed.items())
            raise HebbError(f"no run of the search could be finished: {reasons}")
        return FinishedSearch(place, home, arrays=named, temporary=folder is None)


def _names(searches: str | Path | Iterable[str | Path]) -> list[str] | None:
    """Return the names of earlier searches; None for none."""
    names = [searches] if isinstance(searches, str | Path) else list(searches)
    return [str(name) for name in names] or None


def _objectives(
    metric: str | Iterable[str] | Mapping[str, str] | None, mode: str | Iterable[str] | None
) -> dict[str, Any]:
    """Return what is said of the first objective, and the others."""
    if metric is None or isinstance(metric, str):
        word = mode if mode is None or isinstance(mode, str) else " ".join(mode)
        goal = None if word is None else choose(Goal, word, "mode")
        return {"metric": metric, "mode": goal, "others": None if metric is None else ()}
    names = metric if isinstance(metric, Mapping) else list(metric)
    modes = [mode] if isinstance(mode, str) else mode if mode is None else list(mode)
    first, *others = objectives.objectives(names, modes, "", ("metric", "mode"))
    return {"metric": first.metric, "mode": first.mode, "others": tuple(others)}


@contextlib.contextmanager
def _folder(asked: str | Path | None) -> Iterator[Path]:
    """Yield the folder of a search; a temporary one is removed where the search fails."""
    if asked is not None:
        yield Path(asked).absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="hebb-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _observer(progress: bool) -> Iterator[SearchObserver]:
    if not progress:
        from hebb.tuning.observer import SearchObserver

        yield SearchObserver()
        return
    from hebb.cli.search_display import SearchDisplay

    display = SearchDisplay()
    try:
        yield display
    finally:
        display.close()


@checked
def load(name: str | Path, *, data_dir: str | Path | None = None) -> Any:
    """Return a stored run (``TrainedRun``) or search (``FinishedSearch``).

    Args:
        name: its folder, or its name below ``data_dir``.
        data_dir: parent folder of everything that is stored; None takes ``$HEBB_HOME``, else ``./hebb_data``.

    Raises:
        ConfigError: for a name that is neither, and for a run that is not finished.
    """
    from hebb import builtin

    builtin.load()
    home = Home.find(None if data_dir is None else str(data_dir))
    folder = folders.stored_folder(str(name), home, "load").absolute()
    if (folder / folders.SEARCH).exists():
        return FinishedSearch(folder, home)
    state = folders.state(folder)
    if state != folders.FolderState.FINISHED:
        raise ConfigError("load", f"must be a finished run or a search, and {folder} is {state}")
    return run_api.read_run(folder, home)
