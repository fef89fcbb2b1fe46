"""``report.html``: all that a search found on one page, in one file that opens without a network.

Everything is read from the folder of the search. Numbers are those of ``hebb.tuning.results``; curves, importance and
parallel coordinates those of ``hebb.analysis``; the filters are the picture that TensorBoard shows.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from hebb.analysis import curves, importance, parallel, runs, style
from hebb.analysis.output import Output
from hebb.cli import describe
from hebb.config import catalog
from hebb.config.domains import Axis, Choice
from hebb.core.errors import ConfigError, HebbError
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import results, search_folder
from hebb.tuning import trials as trial_list
from hebb.tuning.trials import Search, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "report"
CURVES = 6
"""Configurations whose curves are drawn."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A search as its page shows it.

    Attributes:
        search: the search, with the runs that a model-based algorithm chose.
        found: a line for each run that finished or was stopped.
        ranking: a line for each configuration with finished runs, best first, those that lack seeds last.
        final: likewise for the winner's runs on all training images; empty in a sweep.
        importance: a line for each hyper-parameter.
        failed: reasons by configuration.
        stopped: configurations that a scheduler stopped.
        options: flags and commands of ``search.json``.
    """

    search: Search
    found: pd.DataFrame
    ranking: pd.DataFrame
    final: pd.DataFrame
    importance: pd.DataFrame
    failed: Mapping[str, str]
    stopped: Sequence[str]
    options: Mapping[str, Any]

    @property
    def best(self) -> Trial:
        """A finished trial of the best configuration."""
        runs_of_it = [t for t in self.search.trials if t.label == self.ranking.iloc[0]["configuration"]]
        return next(trial for trial in runs_of_it if folders.state(trial.folder) == "finished")


def at_end(folder: Path) -> None:
    """Write the page when a search has ended, and say where; a search without a result has none."""
    try:
        output(folder).save(folder, overwrite=True)
    except HebbError as error:
        describe.console().print(f"no report: {error}", soft_wrap=True)
        return
    describe.console().print(f"report: {folder / NAME}.html", soft_wrap=True)


def output(folder: Path, name: str = NAME) -> Output:
    """Return the page of the search in a folder, and its ranking as the numbers."""
    made = read(folder)
    return Output(name, made.ranking, more={".html": page(made)})


def read(folder: Path) -> Report:
    """Read a search, finished or not.

    Raises:
        ConfigError: when the folder holds no search, or none of its runs is finished.
    """
    data = search_folder.read(folder)
    options = data["options"]
    file = options.get("preset_file")
    known = catalog.load(None if file is None else Path(file))
    search, journal = search_folder.search_of(data, folder.absolute(), known), Journal.load(folder)
    if search.spec.plan.model_based:
        search = replace(search, trials=trial_list.chosen(search, journal.chosen.values(), known))
    found = results.results(search.trials, search.metric, journal)
    summed = results.summary(found, search.metric) if len(found) else found
    if not len(summed) or not summed["n"].any():
        raise ConfigError(str(folder), "no run of this search is finished yet")
    ranking = results.ranked(summed[summed["n"] > 0], search.mode)
    # a mean over the seeds that are left would favour what fails on its bad ones
    ranking = ranking.sort_values("n", ascending=False, kind="stable", ignore_index=True)
    labels = {trial_list.configuration_name(trial): trial for trial in search.trials}
    return Report(
        search=search,
        found=found,
        ranking=ranking,
        final=_final(search, ranking, journal),
        importance=importance.compute(*_points(search, ranking)),
        failed={labels[name].label: str(e.get("reason", "")) for name, e in journal.failed.items() if name in labels},
        stopped=[labels[name].label for name in journal.stopped if name in labels],
        options=options,
    )


def _points(search: Search, ranking: pd.DataFrame) -> tuple[tuple[Axis, ...], list[Choice], list[float]]:
    """Return the space, and values and mean of each configuration that was measured."""
    choices = {trial.label: trial.choice for trial in search.trials}
    return search.spec.axes, [choices[label] for label in ranking["configuration"]], list(ranking["mean"])


def _final(search: Search, ranking: pd.DataFrame, journal: Journal) -> pd.DataFrame:
    """Return the table of the winner's runs on all training images, as far as they are finished."""
    best = results.winner(search, ranking) if search.final_seeds else None
    found = (
        pd.DataFrame()
        if best is None
        else results.results(trial_list.retrained(best, search.final_seeds), "test_acc", journal)
    )
    return results.summary(found, "test_acc") if len(found) else found


# -- the page ---------------------------------------------------------------------------------------------------


def page(report: Report) -> str:
    """Return the page as HTML; everything that is not markup of ours is escaped."""
    search = report.search
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        name=search.folder.name,
        spec=search.spec,
        network=search.base.network.name,
        data=search.base.dataset_sup.dataset,
        metric=style.unit(search.metric),
        facts=facts(report),
        configurations=lines(report.ranking),
        final=lines(report.final),
        pictures=pictures(report),
        filters=filters(report.best.folder),
        best=report.best.label,
        importance=len(report.importance) > 0,
        least=importance.LEAST,
        failed=report.failed,
        stopped=report.stopped,
        commands=commands(report),
        network_string=trial_list.network_string(report.best, catalog.load()),
    )


def facts(report: Report) -> dict[str, str]:
    """Return what there is to say of the search in a word or two each."""
    search = report.search
    done = int((report.found["status"] == "finished").sum())
    made = folders.read_json(report.best.folder / folders.ENVIRONMENT)
    machine, versions = made["machine"], made["versions"]
    return {
        "question": search.spec.description or "-",
        "network": search.base.network.name,
        "data": f"{search.base.dataset_unsup.dataset} (Hebbian), {search.base.dataset_sup.dataset} (labels)",
        "compared by": f"{style.unit(search.metric)}, {search.mode}",
        "runs": f"{done} of {search.runs} finished, seeds {' '.join(map(str, search.seeds))}",
        "commit": f"{(made['commit'] or '-')[:12]}{' with changes' if made['dirty'] else ''}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("torch", "ray", "numpy") if versions.get(name)),
        "machine": f"{machine['processor']}, {machine['cores']} cores, GPU {machine['gpu'] or 'none'}",
    }


def lines(ranking: pd.DataFrame) -> list[dict[str, str]]:
    """Return the cells of a table of configurations."""
    return [
        {
            "configuration": str(line.configuration),
            "n": str(line.n),
            "mean": f"{line.mean:.2f}",
            "sd": f"{line.sd:.2f}" if line.n > 1 else "-",
            "interval": f"{line.mean - line.interval:.2f} to {line.mean + line.interval:.2f}" if line.n > 1 else "-",
            "minutes": f"{line.minutes:.2f}",
        }
        for line in ranking.itertuples()
    ]


def pictures(report: Report) -> dict[str, str]:
    """Return the figures by their name, as addresses that hold their data."""
    search = report.search
    axes, choices, means = _points(search, report.ranking)
    made = {"curves": curves.draw(_curves(report))} if _measured(report) else {}
    frame = parallel.compute(axes, choices, means, search.metric)
    if len(frame.columns) > 1:
        made["parallel"] = parallel.draw(frame, search.mode)
    if len(report.importance):
        made["importance"] = importance.draw(report.importance)
    return {name: _inline(figure) for name, figure in made.items()}


def _measured(report: Report) -> bool:
    """Tell whether the metric has a curve; radii of a phase without neurons have none."""
    return any(row.get(report.search.metric) is not None for run in _runs(report, 1) for row in run.rows)


def _runs(report: Report, count: int) -> list[runs.StoredRun]:
    """Return the finished runs of the best configurations."""
    shown = list(report.ranking["configuration"][:count])
    found = [trial for trial in report.search.trials if trial.label in shown]
    found = [trial for trial in found if folders.state(trial.folder) == "finished"]
    return [runs.read_run(trial.folder, {"configuration": trial.label}) for trial in found]


def _curves(report: Report) -> pd.DataFrame:
    """Return the metric by epoch of the best configurations, mean and deviation over their seeds."""
    by_label: dict[str, list[runs.StoredRun]] = {label: [] for label in report.ranking["configuration"][:CURVES]}
    for run in _runs(report, CURVES):
        by_label[str(run.choice["configuration"])].append(run)
    parts = [curves.compute(found, report.search.metric, []).assign(curve=label) for label, found in by_label.items()]
    return pd.concat(parts, ignore_index=True)


def _inline(figure: Figure) -> str:
    """Return a figure as an address that holds it: an SVG, in which text stays sharp at every size."""
    file = io.BytesIO()
    style.save(figure, file, "svg")
    return _address("image/svg+xml", file.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def filters(folder: Path) -> str | None:
    """Return the last picture of the first layer's filters that a run left for TensorBoard, or None."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    if "b0/filters" not in events.Tags()["images"]:
        return None
    return _address("image/png", events.Images("b0/filters")[-1].encoded_image_string)


def commands(report: Report) -> dict[str, list[str]]:
    """Return what to type, by what it does."""
    search, best = report.search, report.best
    again = ["python", "multi_layer.py", "--run-config", str(best.folder / folders.CONFIG), "--model-name", "again"]
    made = {"the search": list(report.options.get("commands", ()))} if report.options.get("commands") else {}
    return {
        **made,
        "what is left of it": [shlex.join(["python", "ray_search.py", "--restore", str(search.folder)])],
        "the best run again, to the same bits": [shlex.join(again)],
        "this page": [shlex.join(["python", "analysis.py", "report", str(search.folder)])],
        "TensorBoard": [shlex.join(["tensorboard", "--logdir", str(search.folder / "trials")])],
    }
