"""The domains of a search space: what values a path, or several that belong together, may take.

grid, choice     [value, ...]; a sweep lists a grid, a choice is drawn from
geometric        {base: b, from: i, to: j}: b^i, ..., b^j
joint            [{path: value, path: value}, ...]: values of several paths that change together
uniform          [low, high]
loguniform       [low, high]: uniform in the logarithm
quniform         [low, high, step]: low, low + step, ... up to high, each equally likely
randint          [low, high]: whole numbers from low to below high

Beside its kind a domain may have ``when: {path: value or [values]}``: it exists only where the other paths,
which stand before it, have one of these values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hebb.config.vocabulary import DomainKind
from hebb.core.choices import choose
from hebb.core.errors import ConfigError
from hebb.core.seeds import derive
from hebb.core.values import number_or_none

Choice = dict[str, Any]
"""One point of a space: value by override path."""

_FORMS = (
    "grid: [...]",
    "choice: [...]",
    "geometric: {base, from, to}",
    "joint: [{path: value, ...}, ...]",
    "uniform: [low, high]",
    "loguniform: [low, high]",
    "quniform: [low, high, step]",
    "randint: [low, high]",
)
_PLACEHOLDER = "bX."


def label(choice: Mapping[str, object], digits: int | None = 4) -> str:
    """Write a point of a space as ``path=value path=value``; None writes floats in full."""
    whole = digits is None
    words = (f"{path}={f'{v:.{digits}g}' if isinstance(v, float) and not whole else v}" for path, v in choice.items())
    return " ".join(words) or "(preset)"


def labels(choices: Sequence[Mapping[str, object]]) -> list[str]:
    """Write points of a space as ``label`` does, with as many digits as tell them apart."""
    for digits in (4, 8, 17):
        texts = [label(choice, digits) for choice in choices]
        if len(set(texts)) == len(texts):
            break
    return texts


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One domain of a space.

    Attributes:
        name: its key: an override path, or any name of a joint domain.
        kind: what the values are.
        options: the points of a listed domain.
        low, high, step: bounds of a drawn one; the step of ``quniform``.
        when: (path, values) that the configuration must have for this domain to exist.
    """

    name: str
    kind: DomainKind
    options: tuple[Choice, ...] = ()
    low: float = 0
    high: float = 0
    step: float = 0
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def listed(self) -> bool:
        """Whether the domain is a list of points."""
        return self.kind.listed

    def paths(self) -> list[str]:
        """List the override paths that the domain sets."""
        return list(self.options[0]) if self.listed else [self.name]

    def active(self, choice: Choice) -> bool:
        """Tell whether the domain exists beside the values chosen so far."""
        return all(path in choice and choice[path] in values for path, values in self.when)

    def count(self) -> int:
        """Return the number of points of a domain that has finitely many; 0 for an interval."""
        if self.listed:
            return len(self.options)
        if self.kind == DomainKind.RANDINT:
            return int(self.high - self.low)
        return int((self.high - self.low) / self.step + 1e-9) + 1 if self.kind == DomainKind.QUNIFORM else 0

    def point(self, u: float) -> Choice:
        """Return the point at quantile ``u``, in [0, 1), of the domain's distribution."""
        place = int(u * self.count())
        if self.listed:
            return self.options[place]
        if self.kind == DomainKind.RANDINT:
            return {self.name: int(self.low) + place}
        if self.kind == DomainKind.QUNIFORM:
            return {self.name: float(f"{self.low + place * self.step:.12g}")}
        if self.kind == DomainKind.LOGUNIFORM:
            low, high = math.log(self.low), math.log(self.high)
            return {self.name: min(max(math.exp(low + u * (high - low)), self.low), self.high)}
        return {self.name: self.low + u * (self.high - self.low)}

    def draw(self, seed: int, sample: int) -> Choice:
        """Return the point of one sample; it depends on seed, sample and name, and on no other domain."""
        return self.point(derive(seed, f"space/{self.name}", epoch=sample) / 2**63)

    def corners(self) -> tuple[Choice, ...]:
        """Return the points by which a domain is checked: all of a list, both ends of an interval."""
        if self.listed:
            return self.options
        return self.point(0.0), self.point(math.nextafter(1.0, 0.0))

    def on_block(self, block: int) -> Axis:
        """Return the domain in which ``bX`` is ``block``."""
        options = tuple({_named(path, block): value for path, value in point.items()} for point in self.options)
        when = tuple((_named(path, block), values) for path, values in self.when)
        return replace(self, name=_named(self.name, block), options=options, when=when)

    def extended(self, more: Axis, where: str) -> Axis:
        """Return the domain with the points of ``more`` added to its own."""
        if not (self.listed and more.listed) or set(self.paths()) != set(more.paths()):
            raise ConfigError(where, f"{self.name} is a {self.kind}, which no {more.kind} can extend")
        if more.when:
            raise ConfigError(where, "points are added to a domain as it is: leave out 'when'")
        return replace(self, options=(*self.options, *(p for p in more.options if p not in self.options)))


def placeholder(path: str) -> bool:
    """Tell whether a path leaves its block open, as in ``bX.layer.lr``."""
    return path.startswith(_PLACEHOLDER)


def _named(path: str, block: int) -> str:
    return f"b{block}.{path.removeprefix(_PLACEHOLDER)}" if placeholder(path) else path


def parse(space: object, where: str) -> tuple[Axis, ...]:
    """Check the data of a space; ``where`` is its place."""
    if not isinstance(space, Mapping):
        raise ConfigError(where, f"must be a mapping of override paths, got {space!r}")
    axes = tuple(_axis(str(name), _plain(domain), f"{where} {name}") for name, domain in space.items())
    check(axes, where)
    return axes


def check(axes: tuple[Axis, ...], where: str) -> None:
    """Raise for a path that two domains set, and a condition on what no earlier domain sets."""
    if "seed" in (path for axis in axes for path in axis.paths()):
        raise ConfigError(where, "seed cannot be a path of a space", hint="the key 'seeds' lists the replicates")
    check_once((path for axis in axes for path in axis.paths()), where)
    for i, axis in enumerate(axes):
        before = {path: other for other in axes[:i] for path in other.paths()}
        for path, values in axis.when:
            place = f"{where} {axis.name}, when"
            if path not in before:
                raise ConfigError(place, f"no domain before this one sets '{path}'", given=path, choices=before)
            if not before[path].listed:
                raise ConfigError(place, f"{path} is a {before[path].kind}", hint="a condition must name listed values")
            legal = [point[path] for point in before[path].options]
            for value in values:
                if value not in legal:
                    words = list(dict.fromkeys(map(str, legal)))
                    raise ConfigError(place, f"{path} is never {value}", given=str(value), choices=words)


def check_once(paths: Iterable[str], where: str) -> None:
    """Raise for a path that two domains set: one of them would be ignored."""
    names = list(paths)
    for path in names:
        if names.count(path) > 1:
            raise ConfigError(where, f"two domains set {path}")


def _plain(value: object) -> object:
    """Return data from Python as those of a file: tuples, ranges and arrays are lists, numbers of numpy Python's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _axis(name: str, domain: object, where: str) -> Axis:
    """Read one domain."""
    kinds = [key for key in domain if key != "when"] if isinstance(domain, Mapping) else []
    if not isinstance(domain, Mapping) or len(kinds) != 1:
        grid = (
            f"for these values write {{grid: {json.dumps(domain, default=str)}}}"
            if isinstance(domain, list) and domain
            else None
        )
        raise ConfigError(where, f"must be one domain, got {domain!r}", choices=_FORMS, hint=grid)
    kind, body = choose(DomainKind, str(kinds[0]), f"{where}, domain"), domain[kinds[0]]
    when = _when(domain["when"], where) if "when" in domain else ()
    if kind in (DomainKind.GRID, DomainKind.CHOICE):
        return Axis(name=name, kind=kind, when=when, options=tuple({name: v} for v in _grid(kind, body, where)))
    if kind == DomainKind.GEOMETRIC:
        return Axis(name=name, kind=kind, when=when, options=tuple({name: v} for v in _geometric(body, where)))
    if kind == DomainKind.JOINT:
        return Axis(name=name, kind=kind, when=when, options=_joint(body, where))
    low, high, step = _interval(kind, body, where)
    return Axis(name=name, kind=kind, when=when, low=low, high=high, step=step)


def _when(body: object, where: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(body, Mapping) or not body:
        raise ConfigError(where, f"when must be a mapping from paths to values, got {body!r}")
    conditions = {str(path): tuple(map(_value, v if isinstance(v, list) else [v])) for path, v in body.items()}
    if any(not values or any(isinstance(v, dict | list) for v in values) for values in conditions.values()):
        raise ConfigError(where, f"values of when must be words or numbers, got {body!r}")
    return tuple(conditions.items())


def _grid(kind: DomainKind, body: object, where: str) -> list[Any]:
    if not isinstance(body, list) or not body:
        raise ConfigError(where, f"{kind} must be a list of values, at least one, got {body!r}")
    if any(isinstance(value, dict | list) for value in body):
        raise ConfigError(
            where,
            f"values of {kind} must be words or numbers, got {body!r}",
            hint="'joint' takes mappings of several paths to values",
        )
    values = [_value(value) for value in body]
    if len(set(values)) < len(values):
        raise ConfigError(where, f"a value of the {kind} is given twice")
    return values


def _value(value: Any) -> Any:
    """Return a number that is written as text, in quotes, as the number: all values of a list are of one kind."""
    number = number_or_none(value) if isinstance(value, str) else None
    return value if number is None else number


def _joint(body: object, where: str) -> tuple[Choice, ...]:
    """Values of several paths that change together, as a kernel and the padding that keeps the map."""
    if not isinstance(body, list) or not body or not all(isinstance(choice, Mapping) and choice for choice in body):
        raise ConfigError(where, f"joint must be a list of mappings from paths to values, got {body!r}")
    choices = tuple({str(path): _value(value) for path, value in choice.items()} for choice in body)
    for choice in choices:
        if set(choice) != set(choices[0]):
            raise ConfigError(
                where, f"every choice of joint must set {' and '.join(choices[0])}, got {' '.join(choice)}"
            )
        if any(isinstance(value, dict | list) for value in choice.values()):
            raise ConfigError(where, f"values of joint must be words or numbers, got {choice!r}")
    if any(choice in choices[:i] for i, choice in enumerate(choices)):
        raise ConfigError(where, "a choice of joint is given twice")
    return choices


def _geometric(body: object, where: str) -> tuple[float, ...]:
    """base^from, ..., base^to."""
    if not isinstance(body, Mapping) or set(body) != {"base", "from", "to"}:
        raise ConfigError(where, f"geometric must have base, from and to, got {body!r}")
    base, first, last = (_value(body[key]) for key in ("base", "from", "to"))
    whole = all(map(_number, (base, first, last))) and first == int(first) and last == int(last)
    if not whole or base <= 0 or base == 1 or last < first:
        problem = "geometric must have a base > 0 other than 1, and whole exponents with from <= to"
        raise ConfigError(where, f"{problem}, got {body!r}")
    try:
        values = tuple(float(base) ** power for power in range(int(first), int(last) + 1))
    except OverflowError:
        values = (math.inf,)
    if values[-1] == math.inf or 0.0 in values:
        raise ConfigError(where, f"geometric from {base}^{first} to {base}^{last} leaves the range of numbers")
    return values


def _interval(kind: DomainKind, body: object, where: str) -> tuple[float, float, float]:
    """Read [low, high], or [low, high, step] of quniform."""
    length = 3 if kind == DomainKind.QUNIFORM else 2
    form = "[low, high, step]" if kind == DomainKind.QUNIFORM else "[low, high]"
    numbers = [_value(value) for value in body] if isinstance(body, list) else []
    if len(numbers) != length or not all(map(_number, numbers)):
        raise ConfigError(where, f"{kind} must be {form}, numbers, got {body!r}")
    low, high, step = (*numbers, 0)[:3]
    if low >= high:
        raise ConfigError(where, f"{kind} must have low < high, got {low} and {high}")
    if kind == DomainKind.LOGUNIFORM and low <= 0:
        raise ConfigError(where, f"loguniform must have low > 0, got {low}")
    if kind == DomainKind.RANDINT and not all(float(v).is_integer() for v in numbers):
        raise ConfigError(where, f"randint must have whole numbers, got {low} and {high}")
    if kind == DomainKind.QUNIFORM and not 0 < step <= high - low:
        raise ConfigError(where, f"quniform must have a step > 0 and <= {high - low:g}, got {step}")
    return (int(low), int(high), step) if kind == DomainKind.RANDINT else (low, high, step)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
