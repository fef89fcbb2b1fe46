"""CUDA graphs: whole updates of a phase, recorded once and replayed.

An update of a batch of 10 starts 30 to 800 kernels, and Python takes longer to start them than a GPU to run them. A
graph holds the kernels of ``RUN`` updates with their gather, and the host starts it as a whole. It takes no argument:

    order   the epoch's permutation lies on the device, (updates, B); a counter there picks the row, and counts on
    rates   of schedules lie there too, one for each update
    draws   come from generators that outlive the epochs and are seeded anew for each of them
    counts  that the host keeps are moved on by what an update adds to them

Some updates are made one by one: the first of a phase, which shows what an update adds; the last of an epoch, if its
batch is smaller; and as many as are left where the host looks, at a point of the curves or a check. A graph holds for
the numbers with which it was recorded: rates of an optimiser that change from epoch to epoch make new ones, and each
sign of a nudge has its own. The operations are those of the loop, in its order.

Where a phase cannot be recorded, the loop makes its updates and the user is told why. A CPU has no graphs: there the
recorded call is called again, so the bookkeeping is the same.

Shapes: B images in a batch, N images in an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from hebb.config.phase import Phase, PhaseKind
from hebb.config.specs import RunConfig
from hebb.config.vocabulary import DeviceKind, Normaliser, RateDecay
from hebb.data.images import Split, gather
from hebb.nn.blocks import Block, Dropout
from hebb.nn.local_loss import Orders
from hebb.nn.model import Network
from hebb.nn.noise import Noise
from hebb.rules import rates
from hebb.training.epoch import Epoch

RUN = 20
"""Updates in a graph: it is started as a whole, which takes about 10 us."""

Kept = TypeVar("Kept")
Learn = Callable[[Tensor, Tensor, Any], None]
"""Makes an update of a batch: images, labels, and the word that the host gives it."""
Replay = Callable[[], None]
Counter = tuple[object, str]
"""A whole number of the host that an update moves on: the object and its attribute."""


class Rates:
    """The rates of an update, in the place of its number: scheduled ones lie on the device, one for each update.

    Args:
        network: the network.
        phase: the phase.
        updates: updates of an epoch that are replayed.
        place: int64 (1,), the number of the update on the device.
    """

    def __init__(self, network: Network, phase: Phase, updates: int, place: Tensor) -> None:
        self._network, self._phase, self._place = network, phase, place
        layers = [(i, layer) for i, layer in network.hebbian() if i in phase.blocks and not layer.spec.adaptive]
        changing = [i for i, layer in layers if layer.spec.lr_decay != RateDecay.CONSTANT]
        self._rows = {i: torch.zeros(updates, device=place.device) for i in changing}

    def begin(self, first: int) -> None:
        """Send the rates of an epoch whose first update has number ``first``."""
        for i, row in self._rows.items():
            row.copy_(torch.tensor([self._scheduled(i, first + k) for k in range(len(row))]))

    def of(self, i: int) -> Tensor | float:
        """Return the rate of block i: a tensor () on the device, or a number that never changes."""
        row = self._rows.get(i)
        return self._scheduled(i, 0) if row is None else row.index_select(0, self._place)[0]

    def _scheduled(self, i: int, update: int) -> float:
        layer = self._network[i].hebb
        assert layer is not None
        return rates.scheduled(layer.spec, update, self._phase.schedule, self._phase.epochs)


class Graphs:
    """The recorded updates of a phase.

    Args:
        network: the network.
        phase: what is trained.
        split: images or features, on the device.
        optimiser: the optimiser of the phase.
        tell: receives the line that says why the loop goes on instead.
    """

    def __init__(
        self,
        network: Network,
        phase: Phase,
        split: Split,
        optimiser: torch.optim.Optimizer | None,
        tell: Callable[[str], None],
    ) -> None:
        self._network, self._phase, self._split, self._optimiser, self._tell = network, phase, split, optimiser, tell
        self._device = split.labels.device
        self._whole = len(split) // phase.batch_size
        self._order = torch.zeros(self._whole, phase.batch_size, dtype=torch.int64, device=self._device)
        self._place = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._rates = Rates(network, phase, self._whole, self._place)
        self._locals = [local for i, local in network.local() if i in phase.blocks]
        self._layers = [layer for i, layer in network.hebbian() if i in phase.blocks]
        self._counters: list[Counter] = [
            *((layer, "update_count") for layer in self._layers),
            *((local, "updates") for local in self._locals),
        ]
        self._shuffled: dict[int, Tensor] = {}
        self._generators: dict[str, torch.Generator] = {}
        self._graphs: dict[tuple[Hashable, int], Replay] = {}
        self._pool: Any = None
        self._held_for: Hashable = None
        self._added: list[int] | None = None  # what an update adds to the counters, once one was made
        self._kept: Any = None
        self._refused = False

    def kept(self, make: Callable[[], Kept]) -> Kept:
        """Return the sums of an epoch, which must lie where they lay."""
        if self._kept is None:
            self._kept = make()
        kept: Kept = self._kept
        return kept

    def numbers(self, first: int) -> list[Rates | int]:
        """Return what each update of an epoch is given instead of its number; ``first`` is that of the first."""
        self._rates.begin(first)
        rest = [first + self._whole] if len(self._split) % self._phase.batch_size else []
        return [*[self._rates] * self._whole, *rest]

    def epoch(
        self,
        at: Epoch,
        learn: Learn,
        words: Sequence[Hashable],
        looks: Iterable[int],
        *,
        counters: Sequence[Counter] = (),
        holds_for: Hashable = None,
    ) -> Iterator[tuple[int, int]]:
        """Make the updates of an epoch; yield how many were made and the images of each, as soon as they are made.

        Args:
            at: the epoch.
            learn: makes an update.
            words: what ``learn`` is given for each update; a graph holds updates of the same word.
            looks: numbers of updates, from 1, after which the host looks at the network.
            counters: whole numbers that ``learn`` moves on, beside those of the layers.
            holds_for: numbers that ``learn`` reads and that may be others in another epoch.
        """
        rest = self._begin(at, holds_for)
        counted = [*self._counters, *counters]
        stops = iter(sorted({look for look in looks if look < self._whole} | {self._whole}))
        stop = done = 0
        try:
            while done < self._whole:
                stop = next(stops) if done == stop else stop
                count = self._fitting(words[done : min(stop, done + RUN)])
                self._make(learn, words[done], count, counted)
                done += count
                yield count, self._phase.batch_size
            if len(rest):
                learn(*self._batch(rest.to(self._device)), words[done])
                yield 1, len(rest)
        finally:
            for local in self._locals:
                local.drawn = None

    def _fitting(self, words: Sequence[Hashable]) -> int:
        """Return how many of the next updates are made together: as many as a graph holds, or one."""
        whole = len(words) == RUN and all(word == words[0] for word in words)
        return RUN if whole and self._added is not None else 1

    # -- an epoch -----------------------------------------------------------------------------------------

    def _begin(self, at: Epoch, holds_for: Hashable) -> Tensor:
        """Draw what the epoch draws, and forget graphs that no longer hold; return the places of the last batch."""
        settings = (holds_for, _settings(self._optimiser))
        if settings != self._held_for:
            self._graphs.clear()
            self._pool = None
            self._held_for = settings
        size = self._phase.batch_size
        order = torch.randperm(len(self._split), generator=at.order())
        whole = self._whole * size
        self._order.copy_(order[:whole].view(self._order.shape))
        self._place.zero_()
        if self._split.augment is not None or self._split.mirrored or self._phase.views > 1:
            self._generator("augmentation").manual_seed(at.augmentation(self._device).initial_seed())
        for i in self._phase.blocks:
            for noise in _noises(self._network[i]):
                if self._device.type != "cpu":  # a CPU draws its masks on the host
                    noise.draw_from(self._generator(f"dropout of b{i}"))
        for local in self._locals:
            if local.ordered and self._whole:
                drawn = [local.draw(size) for _ in range(self._whole)]
                rows = self._shuffled.setdefault(id(local), torch.zeros_like(self._order))
                local.drawn = Orders(rows.copy_(torch.stack(drawn)), self._place)
        return order[whole:]

    def _generator(self, purpose: str) -> torch.Generator:
        """Return the generator of a purpose, which the graphs know."""
        if purpose not in self._generators:
            self._generators[purpose] = torch.Generator(device=self._device)
        return self._generators[purpose]

    # -- updates ------------------------------------------------------------------------------------------

    def _batch(self, places: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self._split.images, Tensor)
        varied = self._generators.get("augmentation")
        images = gather(self._split.images, self._split.drawn(places, len(places), varied))
        return self._split.prepared(images, self._split.labels.index_select(0, places), varied, self._phase.views)

    def _update(self, learn: Learn, word: Hashable) -> None:
        """Make the next update, by operations of the device alone."""
        learn(*self._batch(self._order.index_select(0, self._place).view(-1)), word)
        self._place.add_(1)

    def _make(self, learn: Learn, word: Hashable, count: int, counters: Sequence[Counter]) -> None:
        """Make the next updates, all of one word, and move the counters of the host on."""
        before = _values(counters)
        replay = self._replay(learn, word, count, counters)
        if replay is None:
            self._updates(learn, word, count)
            after = zip(_values(counters), before, strict=True)
            self._added = [(now - then) // count for now, then in after]
            return
        replay()
        assert self._added is not None
        _set(counters, [then + count * added for then, added in zip(before, self._added, strict=True)])

    def _replay(self, learn: Learn, word: Hashable, count: int, counters: Sequence[Counter]) -> Replay | None:
        """Return the graph of some updates, recorded at its first use; None where the loop makes them."""
        if self._added is None or self._refused:
            return None
        if (word, count) not in self._graphs:
            before, weights = _values(counters), [layer.weight for layer in self._layers]
            states = {purpose: generator.get_state() for purpose, generator in self._generators.items()}
            try:
                self._graphs[word, count] = self._record(learn, word, count)
            except RuntimeError as error:
                self._refuse(error, states)
                return None
            finally:
                _set(counters, before)
                for layer, weight in zip(self._layers, weights, strict=True):
                    layer.weight = weight  # a joint update makes new ones, which a failed recording never computes
        return self._graphs[word, count]

    def _record(self, learn: Learn, word: Hashable, count: int) -> Replay:
        if self._device.type == "cpu":
            return RECORDER(partial(self._updates, learn, word, count))
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with _capturable(self._optimiser):
            updates = partial(self._steady, learn, word, count)
            return _cuda_graph(updates, self._device, self._generators.values(), self._pool)

    def _updates(self, learn: Learn, word: Hashable, count: int) -> None:
        for _ in range(count):
            self._update(learn, word)

    def _steady(self, learn: Learn, word: Hashable, count: int) -> None:
        """Make updates; raise if they change the numbers of the optimiser, which a graph would repeat."""
        self._update(learn, word)
        held = _settings(self._optimiser)
        self._updates(learn, word, count - 1)
        if _settings(self._optimiser) != held:
            raise RuntimeError("the numbers of its optimiser change from update to update")

    def _refuse(self, error: Exception, states: dict[str, Tensor]) -> None:
        """Let the loop go on, with generators that have drawn what was drawn before the failure, and say why."""
        self._refused = True
        self._graphs.clear()
        for purpose, state in states.items():
            self._generators[purpose] = torch.Generator(device=self._device)
            self._generators[purpose].set_state(state)
        for i in self._phase.blocks:
            for noise in _noises(self._network[i]):
                noise.go_on_with(self._generators.get(f"dropout of b{i}"))
        self._tell(_line(self._phase, (str(error).strip().splitlines() or [type(error).__name__])[0]))


def of_phase(
    config: RunConfig,
    phase: Phase,
    network: Network,
    split: Split,
    optimiser: torch.optim.Optimizer | None,
    tell: Callable[[str], None],
) -> Graphs | None:
    """Return the graphs of a phase if the config asks for them; None, and a line that says why, where it has none."""
    if not config.cuda_graphs or phase.kind == PhaseKind.CALIBRATE:
        return None
    why = _obstacle(config, phase, network, split)
    if why is not None:
        tell(_line(phase, why))
        return None
    return Graphs(network, phase, split, optimiser, tell)


def notes(config: RunConfig) -> list[str]:
    """Return what a run that asks for graphs is told before its first phase."""
    if config.pack:
        return ["note: --cuda-graphs: a pack makes its updates one by one"]
    if config.device == DeviceKind.CPU:
        return ["note: --cuda-graphs: a CPU has none, and makes the recorded updates one after the other"]
    return []


def _line(phase: Phase, why: str) -> str:
    return f"note: --cuda-graphs: {phase.describe()} makes its updates one by one: {why}"


def _obstacle(config: RunConfig, phase: Phase, network: Network, split: Split) -> str | None:
    """Return why the updates of a phase cannot be recorded; None if nothing is known against it."""
    layers = [(i, layer) for i, layer in network.hebbian() if i in phase.blocks]
    numbers = [
        f"b{i}"
        for i, layer in layers
        if not layer.spec.adaptive
        and layer.spec.lr_decay != RateDecay.CONSTANT
        and layer.spec.normaliser == Normaliser.MEAN
    ]
    device = split.labels.device
    obstacles = (
        (device.type not in ("cpu", "cuda"), f"{device.type} has no graphs"),
        (config.compile, "--compile records its own"),
        (not isinstance(split.images, Tensor), "its images are decoded while it runs"),
        (isinstance(split.images, Tensor) and split.images.device != device, "its images lie on the host"),
        (split.frames is not None, "a batch of a sequence may be shorter than the others"),
        (bool(numbers), f"the rate of {' and '.join(numbers)} changes, and its normaliser is the number of samples"),
    )
    return next((why for applies, why in obstacles if applies), None)


# -- recording ------------------------------------------------------------------------------------------------


def _again(updates: Callable[[], None]) -> Replay:
    """Stand in for a graph on the CPU: record the call, and call it again."""
    return updates


RECORDER: Callable[[Callable[[], None]], Replay] = _again
"""Records updates on the CPU."""


def _cuda_graph(
    updates: Callable[[], None], device: torch.device, generators: Iterable[torch.Generator], pool: Any
) -> Replay:
    """Record updates as a CUDA graph; none of them is made yet.

    Raises:
        RuntimeError: when an operation waits for the host, or cannot be recorded for another reason.
    """
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # other threads of the process, which pin memory or write events, may go on meanwhile
        stream = torch.cuda.Stream(device)
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            updates()
    replay: Replay = graph.replay
    return replay


@contextmanager
def _capturable(optimiser: torch.optim.Optimizer | None) -> Iterator[None]:
    """Let torch record a fused optimiser, whose numbers lie on the device; checkpoints keep what they said."""
    groups = [group for group in ([] if optimiser is None else optimiser.param_groups) if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value


def _settings(optimiser: torch.optim.Optimizer | None) -> Hashable:
    """Return the numbers of an optimiser that a graph holds."""
    groups = [] if optimiser is None else optimiser.param_groups
    return tuple(tuple((k, repr(v)) for k, v in sorted(group.items()) if k != "params") for group in groups)


def _noises(block: Block) -> Iterator[Noise]:
    """Yield the random numbers of a block's dropouts."""
    for module in block.before:
        if isinstance(module, Dropout) and module.noise is not None:
            yield module.noise


def _values(counters: Iterable[Counter]) -> list[int]:
    return [getattr(owner, name) for owner, name in counters]


def _set(counters: Iterable[Counter], values: Iterable[int]) -> None:
    for (owner, name), value in zip(counters, values, strict=True):
        setattr(owner, name, value)
