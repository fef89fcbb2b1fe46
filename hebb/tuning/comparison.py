"""One page about several searches: the best configuration of each, beside that of the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from hebb.analysis import compare, groups, replicates, style
from hebb.analysis.output import Output
from hebb.config import overrides
from hebb.core.errors import ConfigError
from hebb.tuning import charts, html_report, report_charts, results, verdict
from hebb.tuning.charts import Mark
from hebb.tuning.search_report import SearchReport


def output(folders: Sequence[Path], name: str, commands: Mapping[str, Sequence[str]]) -> Output:
    """Return the page of several searches, and a line for each as the numbers.

    Raises:
        ConfigError: where two searches have one name, or do not compare by the same metric.
    """
    reports: dict[str, SearchReport] = {}
    for folder in folders:
        if folder.name in reports:
            raise ConfigError("report", f"two searches are called '{folder.name}'")
        reports[folder.name] = html_report.read(folder)
    metrics = {(report.search.metric, report.search.mode) for report in reports.values()}
    if len(metrics) > 1:
        names = " and ".join(sorted(metric for metric, _ in metrics))
        raise ConfigError("report", f"these searches compare by {names}", hint="report takes searches of one metric")
    frame = table(reports)
    return Output(name, frame, more={".html": page(reports, frame, commands)})


def table(reports: Mapping[str, SearchReport]) -> pd.DataFrame:
    """Return a line for each search, in order: search, its best configuration, and the statistics of that."""
    lines = [report.ranking.iloc[[0]].assign(search=name) for name, report in reports.items()]
    frame = pd.concat(lines, ignore_index=True)
    return frame[["search", *(column for column in frame.columns if column != "search")]]


def page(reports: Mapping[str, SearchReport], frame: pd.DataFrame, commands: Mapping[str, Sequence[str]]) -> str:
    """Return the page as HTML."""
    first = next(iter(reports.values())).search
    metric = style.unit(first.metric)
    spreads = replicates.spread_cells(frame, first.metric)
    rows = [
        {
            "search": line.search,
            "best configuration": line.configuration,
            "mean": replicates.number(line.mean, first.metric),
            **spread,
            "n": str(line.n),
            "runs": html_report.progress(reports[line.search]),
        }
        for line, spread in zip(frame.itertuples(), spreads, strict=True)
    ]
    questions = {name: report.question for name, report in reports.items()}
    return html_report.render(
        "comparison.html.j2",
        names=list(reports),
        metric=metric,
        verdict=_verdict(reports, frame),
        chart=_chart(frame, first.metric),
        rows=rows,
        questions=questions,
        commands=commands,
    )


def _verdict(reports: Mapping[str, SearchReport], frame: pd.DataFrame) -> verdict.Verdict:
    """Say which search reached most, and how each differs from the first."""
    search = next(iter(reports.values())).search
    best = frame.loc[frame["mean"].idxmax() if search.maximises else frame["mean"].idxmin()]
    labels = {name: str(report.ranking["configuration"][0]) for name, report in reports.items()}
    values = {name: report.values_of(labels[name]) for name, report in reports.items()}
    configs = [results.trial_of(report.search, labels[name]).config for name, report in reports.items()]
    apart = groups.values_apart([(config, overrides.values(config)) for config in configs])
    unsaid = groups.sentence(apart, "searches")
    return verdict.Verdict(
        leader=str(best["search"]),
        verb=f"has the {'highest' if search.maximises else 'lowest'} mean of its best configuration",
        number=replicates.with_unit(float(best["mean"]), search.metric),
        spread=verdict.spread(best, search.metric),
        sentences=_differences(values, search.metric),
        caution="The best of each search was chosen by these runs, and more configurations flatter it more."
        + (f" {unsaid[0].upper()}{unsaid[1:]}." if unsaid else ""),
    )


def _differences(values: verdict.Values, metric: str) -> list[str]:
    """Write the difference of every search to the first, by seed where they have seeds in common."""
    (reference, base), *others = values.items()
    lines = {name: _compared(base, group, metric) for name, group in others}
    p = {name: math.nan if line is None else float(line["p"]) for name, line in lines.items()}
    corrected = dict(zip(p, compare.holm(list(p.values())), strict=True))
    tests = sum(not math.isnan(value) for value in p.values())
    sentences = []
    for name, group in others:
        line = lines[name]
        if line is None:
            gap = sum(group.values()) / len(group) - sum(base.values()) / len(base)
            sentences.append(f"{name}: {verdict.difference(gap, metric)} against {reference}; one seed has no test.")
        else:
            words = verdict.compared(pd.Series({**line, "p_holm": corrected[name]}), metric, tests, sign=1)
            sentences.append(f"{name}: {words} against {reference}.")
    return sentences


def _compared(base: Mapping[int, float], group: Mapping[int, float], metric: str) -> pd.Series | None:
    """Compare a search with the first by seed, or by Welch's test without seeds in common; None for a single run."""
    paired = len(set(base) & set(group)) > 1
    if not paired and min(len(base), len(group)) < 2:
        return None
    return compare.of_values({"first": base, "other": group}, metric, paired=paired).iloc[0]


def _chart(frame: pd.DataFrame, metric: str) -> Markup:
    """Draw a row for each search."""
    marks = [
        Mark(
            value=line.search,
            mean=float(line.mean),
            low=float(line.low),
            high=float(line.high),
            seeds=[float(text) for text in str(line.values).split()],
            title=f"{line.search}: {line.configuration}\n{replicates.mean_and_deviation(line, metric)}, n = {line.n}",
        )
        for line in frame.itertuples()
    ]
    y = report_charts.scale_of_metric(report_charts.extent(marks), metric)
    label = style.unit(metric)
    return charts.both(partial(charts.rows, marks, y, label), f"{label} of the best configuration of each search")
