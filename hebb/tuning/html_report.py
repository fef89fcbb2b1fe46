"""``report.html``: everything a search found, on one page in one file that needs no network.

Everything is read from the folder of the search. The numbers are those of ``hebb.tuning.results``, the answer that of
``hebb.tuning.verdict``, the drawings those of ``hebb.tuning.report_charts``. The page holds its style, its script and
Tablesort, which sorts the table (MIT; its licence stands beside it).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from hebb.analysis import fates, importance, replicates, runs, style
from hebb.analysis.output import Output
from hebb.config.domains import Axis, Choice
from hebb.config.vocabulary import Goal
from hebb.core.commands import quoted
from hebb.core.errors import ConfigError
from hebb.storage import folders
from hebb.storage.journal import Journal
from hebb.tuning import (
    charts,
    front,
    gains,
    question,
    report_charts,
    report_filters,
    report_front,
    report_table,
    results,
    search_folder,
    trials,
    verdict,
)
from hebb.tuning.search import Search
from hebb.tuning.search_report import SearchReport

NAME = "report"
CURVES = 6
"""Configurations whose curves are drawn."""
_FILES = Path(__file__).with_name("html_report_files")


Commands = Callable[[SearchReport], Mapping[str, Sequence[str]]]
"""Returns what to type, by what it does."""


def output(folder: Path, home: folders.Home, name: str = NAME, *, commands: Commands | None = None) -> Output:
    """Return the page of the search in a folder, and its ranking as the numbers; ``home`` is that of ``page``."""
    report = read(folder)
    typed = {} if commands is None else commands(report)
    return Output(name, report.ranking, more={".html": page(report, typed, home)})


def read(folder: Path) -> SearchReport:
    """Read a search, finished or not.

    Raises:
        ConfigError: when the folder holds no search, or none of its runs is finished.
    """
    search, journal, presets, data = search_folder.stored(folder, "report")
    table = results.read(search.trials, search.metric, journal, search.beside)
    summary = results.summary(table, search.metric, search.beside) if len(table) else table
    if not len(summary):
        raise ConfigError(str(folder), "no run of this search is finished yet")
    if not summary["n"].any():
        raise ConfigError(str(folder), f"no finished run of this search has measured {search.metric}")
    ranking = results.ranked(results.judged(summary[summary["n"] > 0], search), search)
    return SearchReport(
        search=search,
        runs=results.marked(table, ranking),
        ranking=ranking,
        leading=results.best(search, ranking),
        tally=results.tally(search, search.trials, journal),
        final=_final(search, ranking, journal),
        importance=importance.compute(*_points(search, ranking)),
        failed=_by_label(search, {name: str(entry.get("reason", "")) for name, entry in journal.failed.items()}),
        stopped=list(_by_label(search, dict.fromkeys(journal.stopped, ""))),
        fates=report_table.fates_of(search, journal),
        to_come=results.to_come(search, journal),
        commands=data["options"].get("commands", ()),
        catalog=presets,
    )


def _by_label(search: Search, groups: Mapping[str, str]) -> dict[str, str]:
    """Return what is said of groups by the label of their configuration, with the seeds where it is not all of them."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for group, text in groups.items():
        for trial in search.trials:
            if fates.holds(group, trial.name) and not trial.finished:
                seeds.setdefault((trial.label, text), []).append(trial.config.seed)
    return {
        label if len(some) == len(search.seeds) else f"{label}, {report_table.seeds_of(some)}": text
        for (label, text), some in seeds.items()
    }


def _points(search: Search, ranking: pd.DataFrame) -> tuple[tuple[Axis, ...], list[Choice], list[float]]:
    """Return the space, and the values and mean of each configuration that was measured."""
    choices = {trial.label: trial.choice for trial in search.trials}
    return search.spec.axes, [choices[label] for label in ranking["configuration"]], list(ranking["mean"])


def _final(search: Search, ranking: pd.DataFrame, journal: Journal) -> pd.DataFrame:
    """Return the summary of the runs of the winner, or of the front, on all images, as far as they are finished."""
    labels = results.best(search, ranking) if search.final_seeds else []
    best = [results.trial_of(search, label) for label in (labels if search.several else labels[:1])]
    table = results.read(trials.final_of(search, best), "test_acc", journal)
    return results.summary(table, "test_acc") if len(table) else table


# -- the page ---------------------------------------------------------------------------------------------------


def page(report: SearchReport, commands: Mapping[str, Sequence[str]], home: folders.Home) -> str:
    """Return the page as HTML; everything but our own markup is escaped.

    ``home`` may have the images for the shares of wins, where they are neither where the runs read them nor beside the
    search.
    """
    search = report.search
    curves = _curves(report)
    table = report_table.of_report(report)
    best = [trial for trial in search.trials if trial.label == report.best.label]
    return render(
        "report.html.j2",
        name=search.folder.name,
        question=report.question,
        verdict=verdict.of_search(search, report.runs, report.ranking, report.leading, report.final),
        gains=gains.sentences(gains.table(search, report.runs), search.metric),
        metric=style.unit(search.metric),
        selects=search.selects,
        progress=progress(report),
        facts=facts(report),
        answer=report_charts.answer(report),
        multiples=report_charts.multiples(report),
        heat=report_charts.heat(report),
        strands=report_charts.strands(report),
        most_drawn=report_charts.MOST if len(report.ranking) > report_charts.MOST else 0,
        several=len(search.spec.axes) > 1,
        importance=list(report.importance.itertuples()),
        unjudged=unjudged(report),
        least=importance.LEAST,
        table=table,
        measured=measured(report),
        final=lines(report.final, "test_acc"),
        front=report_front.charts_of(report),
        points=points(report),
        objectives=verdict.compared_by(search),
        bounds=", ".join(map(str, search.constraints)),
        left_out=search.left_out,
        curves=curves,
        curves_shown=curves_shown(report),
        filters=report_filters.of_configuration(best, home),
        failed=report.failed,
        commands={
            **commands,
            "the best network": [quoted("--preset", trials.network_string(report.best, report.catalog))],
        },
    )


def points(report: SearchReport) -> dict[str, list[str]]:
    """Return the points of the front as words to paste, by what they are; none by one metric."""
    if not report.search.several:
        return {}
    table = {}
    for point in front.points(report.search, report.ranking, report.catalog):
        values = ", ".join(report_front.named(metric, value) for metric, value in point.values.items())
        table[f"{point.number}. {point.trial.label}: {values}"] = [quoted(*point.words)]
    return table


def render(template: str, **values: object) -> str:
    """Return a page with its style and scripts inside, and a policy that lets no other script run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FILES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_text("tablesort.min.js"), _text("report.js")]
    return environment.get_template(template).render(
        style=Markup(_text("report.css")),
        scripts=[Markup(script) for script in scripts],
        licence=Markup(_text("tablesort.LICENCE.txt")),
        policy=" ".join(map(_hash, scripts)),
        shades=range(charts.SHADES),
        **values,
    )


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what a content security policy calls a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def facts(report: SearchReport) -> dict[str, str]:
    """Return the facts at the head of the page, by their name."""
    search = report.search
    description = question.description(search.spec, search.seeds)
    environment = folders.read_json(report.best.folder / folders.ENVIRONMENT)
    machine, versions = environment["machine"], environment["versions"]
    return {
        **({"search config": f"{search.spec.name}: {description}"} if description else {}),
        "network": search.base.network.name,
        "data": question.data(search),
        "compared by": "; ".join(
            f"{style.unit(one.metric)}, {'larger' if one.mode == Goal.MAX else 'smaller'} is better"
            for one in search.objectives
        ),
        **({"constraints": ", ".join(map(str, search.constraints))} if search.constraints else {}),
        "runs": progress(report),
        "commit": f"{(environment['commit'] or '-')[:12]}{' with changes' if environment['dirty'] else ''}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("torch", "ray", "numpy") if versions.get(name)),
        "machine": f"{machine['processor']}, {machine['cores']} cores, GPU {machine['gpu'] or 'none'}",
    }


def progress(report: SearchReport) -> str:
    """Say how many runs ran to the end, what became of the others, and whether any is left."""
    tally, seeds = report.tally, report_table.seeds_of(report.search.seeds)
    if tally.ended_early:
        return f"{tally.sentence(report.search.spec.scheduler.name)}; {seeds}"
    left = "" if tally.complete else f"; not complete: {tally.others()}"
    return f"{tally.finished} of {tally.total} finished, {seeds}{left}"


def lines(ranking: pd.DataFrame, metric: str) -> list[dict[str, str]]:
    """Return the cells of a table of configurations; the terminal shows the same."""
    spreads = replicates.spread_cells(ranking, metric)
    return [
        {
            "configuration": str(line.configuration),
            "n": str(line.n),
            "mean": replicates.number(line.mean, metric),
            **spread,
            "minutes a run": replicates.minutes(line.minutes),
        }
        for line, spread in zip(ranking.itertuples(), spreads, strict=True)
    ]


def curves_shown(report: SearchReport) -> str:
    """Say which of the configurations have curves; empty where all have."""
    measured, total = len(report.ranking), _configurations(report)
    if measured > CURVES:
        return f"{CURVES} of {total} configurations, the best by {style.unit(report.search.metric)}"
    return f"{measured} of {total} configurations, those with a finished run" if measured < total else ""


def unjudged(report: SearchReport) -> list[str]:
    """Return the hyper-parameters of which the importance is not known, because some configurations lack them."""
    judged = set(report.importance["parameter"])
    return [report_charts.name_of(axis) for axis in report_charts.varied(report) if axis.name not in judged]


def measured(report: SearchReport) -> str:
    """Say which of the configurations have a finished run, and so a mean; empty where all have."""
    with_mean, total = len(report.ranking), _configurations(report)
    has = "has" if with_mean == 1 else "have"
    return f"{with_mean} of {total} configurations {has} a finished run" if with_mean < total else ""


def _configurations(report: SearchReport) -> int:
    """Return the number of configurations, with those that a model-based algorithm has yet to choose."""
    return report.tally.total // len(report.search.seeds)


def _runs(report: SearchReport, count: int) -> list[runs.StoredRun]:
    """Return the finished runs of the best configurations."""
    shown = set(report.ranking["configuration"][:count])
    best = [trial for trial in report.search.trials if trial.label in shown and trial.finished]
    return [runs.read_run(trial.folder, {"configuration": trial.label}) for trial in best]


def _curves(report: SearchReport) -> tuple[Markup, list[tuple[int, str]], str] | None:
    """Return the metric by epoch of the best configurations, mean and deviation over their seeds."""
    by_label: dict[str, list[runs.StoredRun]] = {label: [] for label in report.ranking["configuration"][:CURVES]}
    for run in _runs(report, CURVES):
        by_label[str(run.choice["configuration"])].append(run)
    return report_charts.epochs(by_label, report.search.metric)
