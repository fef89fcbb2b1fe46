"""What a search found, in sentences: what leads, by how much, against what, and whether its seeds can tell.

The statistics are those of ``hebb.analysis.replicates`` (mean, deviation, interval) and ``hebb.analysis.compare``
(difference seed by seed, paired t-test, Holm's correction).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hebb.analysis import compare, replicates, style
from hebb.config import objectives, overrides
from hebb.config.data_spec import DataSpec, held_out
from hebb.config.registry import DATASETS
from hebb.config.vocabulary import Part
from hebb.tuning import results
from hebb.tuning.search import Search

LEVEL = 0.05
"""Level of the tests."""
_HANDFUL = 10
"""Images, of all seeds, that say more than the difference of two accuracies does."""
_ROUNDING = 0.01
"""Images by which an accuracy is off because it was stored as a number with digits."""
Values = Mapping[str, Mapping[int, float]]
"""The metric by configuration and seed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of a search.

    Attributes:
        leader: what leads; empty where nothing is varied.
        verb: how it leads.
        number: its mean, with the unit.
        spread: how sure it is.
        sentences: by how much, against what.
        final: number and spread of the final runs; empty without any.
        caution: what a reader should know before quoting the number; may be empty.
    """

    leader: str
    verb: str
    number: str
    spread: str
    sentences: Sequence[str]
    final: tuple[str, str] | None = None
    caution: str = ""


def of_search(
    search: Search, runs: pd.DataFrame, ranking: pd.DataFrame, leading: Sequence[str], final: pd.DataFrame
) -> Verdict:
    """Return the verdict on a search.

    Args:
        search: the search.
        runs: a line for each run, as ``results.read``.
        ranking: a line for each configuration, best first.
        leading: the best and those of the same mean.
        final: the summary of the winner's runs on all training images; may be empty.
    """
    if search.several:
        return _of_front(search, ranking, leading)
    metric, first = search.metric, ranking.iloc[0]
    values = values_of(runs, metric)
    complete = _complete(search, values, ranking)
    unsure = doubt(search, runs, ranking, leading)
    sentences = _ties(leading) if len(leading) > 1 else []
    if leading and leading[0] in complete:
        sentences += _against(search, values, leading, complete)
    return Verdict(
        leader=str(first["configuration"]) if len(search.spec.paths()) else "",
        verb=_verb(search, leading, len(complete), unsure),
        number=replicates.with_unit(first["mean"], metric),
        spread=spread(first, metric),
        sentences=sentences,
        final=_final(final),
        caution=" ".join(filter(None, (unsure, _flattery(search, leading, len(complete), len(final) > 0)))),
    )


def _of_front(search: Search, ranking: pd.DataFrame, leading: Sequence[str]) -> Verdict:
    """Return the verdict on a search by several metrics, whose answer is a front and no winner."""
    first = ranking.iloc[0] if not leading else ranking[ranking["configuration"] == leading[0]].iloc[0]
    names = compared_by(search)
    end = "highest" if search.maximises else "lowest"
    several = f"of the {len(leading)} configurations that nothing beats in {names}"
    verb = f"has the {end} {style.unit(search.metric)} {several}"
    if len(leading) == 1:
        verb = f"is at least as good as every other configuration in {names}"
    return Verdict(
        leader=str(first["configuration"]) if len(search.spec.paths()) else "",
        verb=verb if leading else f"comes first so far; nothing is on the front of {names} yet",
        number=replicates.with_unit(first["mean"], search.metric),
        spread=spread(first, search.metric),
        sentences=[],
        caution=_chance(len(search.seeds)),
    )


def compared_by(search: Search) -> str:
    """Name what configurations are compared by, and which value of each is best."""
    return " and ".join(f"{style.unit(one.metric)} ({one.mode})" for one in search.objectives)


def _chance(seeds: int) -> str:
    """Say how far chance decides who is on a front."""
    if seeds == 1:
        return "One seed is too few: chance decides who is on the front."
    if seeds < replicates.LEAST:
        return "Two seeds are too few for an interval: points that lie close may be on the front by chance."
    return "Points that lie within each other's intervals may be on the front by chance."


def doubt(search: Search, runs: pd.DataFrame, ranking: pd.DataFrame, leading: Sequence[str]) -> str:
    """Say why the order of the first two may be chance; empty where their seeds tell them apart.

    The arguments are those of ``of_search``.
    """
    values = values_of(runs, search.metric)
    complete = _complete(search, values, ranking)
    others = [label for label in complete if label not in leading]
    reason = _doubt(search, values, complete, leading, others)
    apart = _apart(search, values, leading[0], others[0]) if reason and others and leading[0] in complete else ""
    return f"{reason} {apart}".strip()


def _doubt(
    search: Search, values: Values, complete: Sequence[str], leading: Sequence[str], others: Sequence[str]
) -> str:
    """Return the reason; ``others`` are the complete configurations behind the leading ones."""
    if len(complete) < 2 or not leading:
        return ""
    if len(search.seeds) < replicates.LEAST:
        number = "One seed is" if len(search.seeds) == 1 else "Two seeds are"
        return f"{number} too few for an interval or a test: the order may be chance."
    if leading[0] not in complete or not others:
        return ""
    table = compare.of_values({label: values[label] for label in (leading[0], *others)}, search.metric)
    second = table.iloc[0]
    if not second["p_holm"] >= LEVEL:  # NaN where all seeds differ alike
        return ""
    p = compare.probability(second, _tests(table))
    return f"The seeds cannot tell it from the next, {others[0]} ({p}): the order may be chance."


def _apart(search: Search, values: Values, first: str, second: str) -> str:
    """Say by how many images, of all seeds, two configurations differ, where that is a handful."""
    split = search.metric.removesuffix("_acc")
    if split not in ("test", "val"):
        return ""
    specs = [results.trial_of(search, label).config.dataset_sup for label in (first, second)]
    counts = {_measured(spec, split) for spec in specs}
    seeds = search.seeds
    gap = math.fsum(values[first][seed] - values[second][seed] for seed in seeds)
    images = abs(gap) / 100 * max(counts)
    if len(counts) > 1 or abs(images - round(images)) > _ROUNDING or not 0 < round(images) <= _HANDFUL:
        return ""
    name = "test" if split == "test" else "validation"
    return f"The next is {round(images)} of {max(counts) * len(seeds):,} {name} images behind."


def _measured(spec: DataSpec, split: str) -> int:
    """Count the images of a split on which a run is measured."""
    if split == "val":
        return held_out(spec.pool_samples(), spec.validation)
    return DATASETS.get(spec.dataset, "dataset").train_samples(spec.classes, Part.TEST)


def _complete(search: Search, values: Values, ranking: pd.DataFrame) -> list[str]:
    """Return the configurations with a finite value on every seed that keep every constraint, best first."""
    kept = ranking[ranking["feasible"]] if "feasible" in ranking else ranking
    return [
        str(label)
        for label in kept["configuration"][kept["n"] == len(search.seeds)]
        if all(map(math.isfinite, values.get(str(label), {}).values()))
    ]


def values_of(runs: pd.DataFrame, metric: str) -> Values:
    """Return the metric of the finished runs by configuration and seed."""
    finished = runs[runs["status"] == "finished"]
    return {
        str(label): dict(zip(rows["seed"].astype(int), rows[metric].astype(float), strict=True))
        for label, rows in finished.groupby("configuration", sort=False)
    }


def _verb(search: Search, leading: Sequence[str], complete: int, unsure: str) -> str:
    """Say how the first configuration stands to the others."""
    end = "highest" if search.maximises else "lowest"
    among = f" of those{_keeps(search)}" if search.constraints else ""
    if not leading:
        return f"comes first so far; {objectives.nobody(search.metric, search.constraints)}"
    if len(leading) > 1:
        return f"shares the {end} mean{among}"
    if complete == 1 and len(search.spec.paths()):
        bounds = "keeps every constraint and " if search.constraints else ""
        return f"is the only configuration that {bounds}has finished on every seed"
    wins = "is named the winner, but the order may be chance" if unsure else "wins"
    return wins if search.selects else f"has the {end} mean{among}"


def _keeps(search: Search) -> str:
    """Say of configurations that they are the feasible ones; empty without constraints."""
    return " that keep every constraint" if search.constraints else ""


def _ties(leading: Sequence[str]) -> list[str]:
    return [
        f"{leading[0]} is tied with {'; '.join(leading[1:])}: the same mean. The first in the order of the search is "
        "named."
    ]


def _against(search: Search, values: Values, leading: Sequence[str], complete: Sequence[str]) -> list[str]:
    """Compare the leader with the next, with the preset's own values, and with all others together."""
    best, others = leading[0], [label for label in complete if label not in leading]
    if not others:
        return []
    groups = {best: values[best], **{label: values[label] for label in others}}
    if len(search.seeds) < 2:
        gap = groups[best][search.seeds[0]] - groups[others[0]][search.seeds[0]]
        return [f"{difference(gap, search.metric)} against the next, {others[0]}, with one seed each."]
    table = compare.of_values(groups, search.metric).set_index("group")
    tests = _tests(table)
    sentences = [f"{compared(table.loc[others[0]], search.metric, tests)} against the next, {others[0]}."]
    own = _preset_values(search, others[1:])
    if own:
        sentences.append(f"{compared(table.loc[own], search.metric, tests)} against the preset's own values, {own}.")
    return [*sentences, *_together(table, search)]


def _preset_values(search: Search, labels: Sequence[str]) -> str:
    """Return the label of the configuration that changes nothing of the base run; empty if there is none."""
    own = overrides.values(search.base)
    for label in labels:
        choice = results.trial_of(search, label).choice
        if all(path in own and own[path] == value for path, value in choice.items()):
            return label
    return ""


def _tests(table: pd.DataFrame) -> int:
    """Count the comparisons that have a test."""
    return int(table["p"].notna().sum())


def compared(line: pd.Series, metric: str, tests: int, sign: int = -1) -> str:
    """Write a difference of ``compare.of_values``, with its interval or its pairs, and the test.

    Args:
        line: the comparison.
        metric: what is compared.
        tests: the number of tests for which ``p_holm`` is corrected.
        sign: -1 writes the difference of the reference to the group, 1 that of the group to the reference.
    """
    gap = difference(sign * line["difference"], metric)
    if not math.isnan(line["low"]):
        low, high = (replicates.signed(end, metric) for end in sorted((sign * line["low"], sign * line["high"])))
        unsure = ", so the seeds cannot tell them apart" if line["p_holm"] >= LEVEL else ""
        test = f"{line['test']}, n = {line['n']}, {compare.probability(line, tests)}"
        return f"{gap} (95 % interval {low} to {high}; {test}{unsure})"
    if line["test"] != compare.PAIRED:
        return f"{gap} ({line['values']}, too few for an interval)"
    pairs = ", ".join(replicates.signed(sign * float(value), metric) for value in str(line["values"]).split())
    return f"{gap} (seed by seed {pairs})"


def _together(table: pd.DataFrame, search: Search) -> list[str]:
    """Say from how many others the leader can be told apart."""
    tested = table[table["p_holm"].notna()]
    if len(tested) < 2 or len(search.seeds) < replicates.LEAST:
        return []
    behind = tested["difference"] * search.objectives[0].sign > 0
    apart, untested = int(((tested["p_holm"] < LEVEL) & behind).sum()), len(table) - len(tested)
    side = "lower" if search.maximises else "higher"
    how_many = f"{apart or 'none'} {'is' if apart < 2 else 'are'}"
    without = f"; {untested} differ alike on every seed, and have no test" if untested else ""
    return [
        f"Of the {len(table)} others{_keeps(search)} {how_many} {side} beyond the chance of the seeds "
        f"(paired t-tests with Holm's correction, p < {LEVEL:g}{without})."
    ]


def _flattery(search: Search, leading: Sequence[str], complete: int, final: bool) -> str:
    """Say that the best of many is flattered by the runs that chose it."""
    if complete < 2 or not leading or len(search.seeds) < replicates.LEAST:
        return ""
    if final:
        return "The best was chosen by the runs of the search, which flatter it; the final runs do not."
    return "The best of many is flattered by the seeds that chose it; new seeds would not."


def _final(final: pd.DataFrame) -> tuple[str, str] | None:
    """Return number and spread of the winner's runs on all training images."""
    if not len(final):
        return None
    line = final.iloc[0]
    return replicates.with_unit(line["mean"], "test_acc"), spread(line, "test_acc")


def spread(line: pd.Series, metric: str) -> str:
    """Say how sure a mean is."""
    (cells,) = replicates.spread_cells(line.to_frame().T, metric)
    seeds = "one seed" if line["n"] == 1 else f"{line['n']} seeds"
    if "95 % interval" in cells:
        return f"± {cells['sd']} s.d., 95 % interval {cells['95 % interval']}, {seeds}"
    return f"{seeds}: {cells['each seed']}" if "each seed" in cells else seeds


# -- numbers ----------------------------------------------------------------------------------------------------------


def difference(value: float, metric: str) -> str:
    """Write a difference of the metric with its sign and unit."""
    unit = "points" if metric.endswith("_acc") else f"in {style.unit(metric)}"
    return f"{replicates.signed(value, metric)} {unit}"
