"""What a search asks, in words: what it varies, over which seeds, by which metric, on which images.

The text of a search config says what its author asked; flags may have changed it since. So the question is told from
the search itself. Never imports torch.
"""

from __future__ import annotations

from hebb.config import plan, search_space
from hebb.config.domains import Axis
from hebb.config.search_space import SearchSpec
from hebb.config.vocabulary import DomainKind, Goal
from hebb.tuning.search import Search

_LISTED = 8
"""Values of a domain that are named; of more, the number."""


def of_search(search: Search, metric: str) -> str:
    """Return the question; ``metric`` is its name with its unit."""
    network, seeds = search.base.network.name, _seeds(search.seeds)
    least = "least" if not search.maximises else "highest"
    if search.several:
        return _front(search)
    varied = "; ".join(domain(axis) for axis in search.spec.axes if axis.count() != 1)
    fixed = "; ".join(domain(axis) for axis in search.spec.axes if axis.count() == 1)
    fixed = f" Fixed: {fixed}." if fixed else ""
    if not varied:
        return f"What {metric} does {network} reach?{fixed} One configuration, {seeds}."
    count = search.spec.count()
    number = f"{count} configuration{'' if count == 1 else 's'}"
    chosen = f"chosen by {search.spec.plan.chooser}" if search.spec.plan.model_based else "compared"
    ask = f"Which values give {network} the {least} {metric}?"
    if not search.selects:
        ask = f"How does the {metric} of {network} depend on what is varied?"
    return f"{ask} Varied: {varied}.{fixed} {number} {chosen}, {seeds}."


def _front(search: Search) -> str:
    """Return the question of a search by several metrics."""
    names = " and ".join(f"{'highest' if one.mode == Goal.MAX else 'least'} {one.metric}" for one in search.objectives)
    varied = "; ".join(domain(axis) for axis in search.spec.axes if axis.count() != 1)
    bounds = f" Constraints: {', '.join(map(str, search.constraints))}." if search.constraints else ""
    return (
        f"Which configurations of {search.base.network.name} does no other beat in {names}? "
        f"Varied: {varied or 'nothing'}.{bounds} {search.spec.count()} chosen by {search.spec.plan.chooser}, "
        f"{_seeds(search.seeds)}."
    )


def _seeds(seeds: tuple[int, ...]) -> str:
    numbers = " ".join(map(str, seeds))
    return f"seed {numbers}" if len(seeds) == 1 else f"mean over seeds {numbers}"


def domain(axis: Axis) -> str:
    """Return the name of a domain and its values."""
    text = f"{_name(axis)} {_values(axis)}"
    for path, values in axis.when:
        text += f" where {path} is {' or '.join(map(_text, values))}"
    return text


def _name(axis: Axis) -> str:
    return " with ".join(axis.paths()) if axis.kind == DomainKind.JOINT else axis.name


def _values(axis: Axis) -> str:
    if axis.listed:
        points = [", ".join(map(_text, point.values())) for point in axis.options]
        gap = "; " if axis.kind == DomainKind.JOINT else ", "
        return f"({gap.join(points)})" if len(points) <= _LISTED else f"({len(points)} values)"
    low, high = _text(axis.low), _text(axis.high)
    match axis.kind:
        case DomainKind.LOGUNIFORM:
            return f"from {low} to {high}, uniform in the logarithm"
        case DomainKind.QUNIFORM:
            return f"from {low} to {high} in steps of {_text(axis.step)}"
        case DomainKind.RANDINT:
            return f"from {low} to {int(axis.high) - 1}, whole numbers"
    return f"from {low} to {high}"


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def data(search: Search) -> str:
    """Return the images that the phases of a run read, with their epochs."""
    base = search.base
    parts: dict[str, list[str]] = {}
    for phase in plan.phases(base):
        spec = base.datasets[phase.data]
        epochs = f"{phase.epochs} epoch{'' if phase.epochs == 1 else 's'}"
        held = f", {100 * spec.validation:g} % held out" if spec.validation and not spec.held else ""
        images = f"{spec.train_samples():,} images of {spec.dataset}{held}, {epochs}"
        parts.setdefault(images, []).append(phase.kind)
    return "; ".join(f"{images} ({', '.join(dict.fromkeys(kinds))})" for images, kinds in parts.items())


def description(spec: SearchSpec, seeds: tuple[int, ...]) -> str:
    """Return what the author of a search config wrote; nothing where flags have changed a shipped one since."""
    if spec.name not in search_space.names():
        return spec.description
    shipped = search_space.load(spec.name)
    if shipped.description != spec.description:
        return spec.description
    same = _space(shipped) == _space(spec) and shipped.seeds == spec.seeds == seeds
    return spec.description if same else ""


def _space(spec: SearchSpec) -> list[object]:
    """Return the paths and values of a space, with every block that ``bX`` may stand for alike."""

    def plain(path: str) -> str:
        return path.partition(".")[2] or path

    return [
        ([plain(path) for path in axis.paths()], [tuple(point.values()) for point in axis.options], axis.low, axis.high)
        for axis in spec.axes
    ]
