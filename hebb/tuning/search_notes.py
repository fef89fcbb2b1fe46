"""What the user of a search should know before it begins or goes on. Imports neither Ray nor torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hebb.tuning import samplers, search_folder
from hebb.tuning.search import Search

_NAMED = 8
"""Configurations of which the reason is said."""


def of(search: Search, *, fresh: bool) -> list[str]:
    """Return a line for each thing to know; ``fresh``: the search begins, in place of what its folder holds."""
    if not search.spec.plan.model_based:
        return []
    texts = (_steered(search), _random(search), _warm(search), "" if fresh else _changed(search))
    return [*(f"note: {text}" for text in texts if text), *(_unused(search) if fresh else ())]


def _warm(search: Search) -> str:
    """Say which searches the model knows from the start."""
    counts = Counter(point.search for point in search.warm.points)
    if not counts:
        return ""
    return "the model begins with " + " and ".join(f"{n} of {name}" for name, n in counts.items()) + " (warm start)"


def _unused(search: Search) -> list[str]:
    """Say in lines what a model is not given of earlier searches, and why."""
    reasons = search.warm.left_out
    lines = [f"not given to the model: {label}: {reason}" for label, reason in list(reasons.items())[:_NAMED]]
    more = f"not given to the model: {len(reasons) - _NAMED} more, which search.json lists"
    return [*lines, *([more] if len(reasons) > _NAMED else ())]


def left_out(reasons: Mapping[str, str]) -> list[str]:
    """Say in lines which configurations are not trained, and which bound each breaks, by their labels."""
    if not reasons:
        return []
    lines = [f"left out: {label}: {reason}" for label, reason in list(reasons.items())[:_NAMED]]
    more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    count = f"{len(reasons)} configuration{'' if len(reasons) == 1 else 's'}"
    return [f"left out: {count} not trained, outside the constraints", *lines, *more]


def _steered(search: Search) -> str:
    """Say that a sweep's points depend on the test images, whose accuracy is then no estimate for new images."""
    if search.selects or not search.spec.plan.learns or not search.metric.startswith("test"):
        return ""
    return (
        f"{search.spec.plan.chooser} is steered by the test accuracy ({search.metric}) of this sweep, which names no "
        "winner; --purpose search selects on validation images and names one"
    )


def _random(search: Search) -> str:
    """Say that a search ends before its model has a say."""
    plan = search.spec.plan
    first = samplers.startup(plan) - len(search.warm.points)
    if not plan.learns or plan.samples > first:
        return ""
    return f"{plan.chooser} draws its first {first} points at random, and the search has {plan.samples}"


def _changed(search: Search) -> str:
    before = search_folder.read(search.folder).get(search_folder.SEARCHER)
    return samplers.change(search.spec.plan, before)
