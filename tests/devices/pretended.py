"""A pretended GPU: the real trainer with real numbers on the CPU, under the rules of a CUDA device.

``with gpus() as log:`` gives the process two GPUs. A tensor on one of them is an ``OnDevice``: a wrapper over ordinary
memory whose ``device`` says ``cuda:N``, so the code takes the branches that it takes on a GPU. What a GPU refuses is
refused: mixed devices, a generator of another device, ``numpy()``, own operations without a CUDA kernel. What costs
time on a GPU is counted by the line of the caller: waits of the host, blocking uploads, and operations that start a
kernel.

torch knows the tensors as PrivateUse1, because its autograd asks a CUDA device for streams that a CPU build has not.
That registration is for good, so these tests have a process of their own.

It cannot see what only kernels do: types that a CUDA kernel lacks, races, memory, TF32, atomics.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import sys
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tape import Tape
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from hebb.kernels import precision

ROOT = Path(__file__).resolve().parent.parent.parent
aten = torch.ops.aten

COUNT = 2
"""GPUs of the pretended machine."""

WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
}
"""Operations whose answer, or its size, the host needs before it goes on."""

ANYWHERE = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
"""Operations whose tensors may lie on several devices."""

SILENT = {
    aten.detach.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten._reshape_alias.default,
    aten.lift_fresh.default,
}
"""Operations that start no kernel, beside views."""

NAME = "pretended"
"""What torch itself calls the device."""


@dataclass
class Log:
    """What happened on the pretended devices.

    Attributes:
        waits: waits of the host, by ``file:line operation`` of the project's code that caused them.
        uploads: copies of host memory that is not pinned, which also wait.
        operations: operations that start at least one kernel, by name.
        used: the devices on which operations ran.
        strayed: places of stored tensors that were loaded onto a GPU for want of ``map_location``.
        free: bytes that each device reports as free, without those that the allocator keeps.
        cached: bytes that the allocator keeps and does not use.
        double: whether the devices know float64.
    """

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    used: set[int] = field(default_factory=set)
    strayed: list[str] = field(default_factory=list)
    free: list[int] = field(default_factory=lambda: [8 << 30] * COUNT)
    cached: list[int] = field(default_factory=lambda: [0] * COUNT)
    double: bool = True

    @property
    def started(self) -> int:
        """Number of operations that start a kernel."""
        return sum(self.operations.values())

    def clear(self) -> None:
        """Forget what happened so far."""
        for counter in (self.waits, self.uploads, self.operations):
            counter.clear()
        self.used.clear()
        self.strayed.clear()


_log = Log()
_on_gpu: weakref.WeakValueDictionary[int, torch.UntypedStorage] = weakref.WeakValueDictionary()
_tags: dict[int, int] = {}
_generators: weakref.WeakValueDictionary[int, Generator] = weakref.WeakValueDictionary()
_recording: Graph | None = None


def _caller() -> str:
    """Return the innermost line of the project that is being executed."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(str(ROOT / "hebb")):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


class OnDevice(torch.Tensor):
    """A tensor that says it is on ``cuda:index``; its numbers are ``raw``, on the CPU."""

    raw: torch.Tensor
    index: int
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor, index: int) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, index),
            requires_grad=False,
        )

    def __init__(self, raw: torch.Tensor, index: int) -> None:
        self.raw, self.index = raw, index

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return self.index

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.raw!r}, cuda:{self.index})"

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.dim() == 0 else repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copy = wrap(self.raw.clone(), self.index)
        copy.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True  # type: ignore[attr-defined]
        memo[id(self)] = copy
        return copy

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        _wait("tolist")
        return self.raw.tolist()

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def is_pinned(self, *_: Any) -> bool:
        return False

    def untyped_storage(self) -> Any:
        return self.raw.untyped_storage()

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.to("cpu")

    def cuda(self, index: int | None = None, **_: Any) -> torch.Tensor:
        return self.to(torch.device("cuda", index or 0))

    def to(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """As torch's: what is there already is not copied."""
        device, dtype, non_blocking, order = torch._C._nn._parse_to(
            *arguments, **{k: v for k, v in options.items() if k != "copy"}
        )
        wanted = self.device if device is None else _indexed(device)
        if wanted == self.device and dtype in (None, self.dtype) and not options.get("copy") and order is None:
            return self
        extra = {} if order is None else {"memory_format": order}
        return aten._to_copy.default(self, dtype=dtype or self.dtype, device=wanted, non_blocking=non_blocking, **extra)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raw = self.raw.detach()
        _tags[raw.untyped_storage()._cdata] = self.index
        _on_gpu[raw.untyped_storage()._cdata] = raw.untyped_storage()
        if getattr(self, "_is_param", False):
            return torch._utils._rebuild_parameter, (raw, self.requires_grad, collections.OrderedDict())
        return raw.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        return dispatch(function, arguments, options or {})


def _indexed(device: Any) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type in ("cuda", NAME) else device


def wrap(raw: torch.Tensor, index: int) -> OnDevice:
    """Put a CPU tensor on a device, without a copy; an inference tensor stays one."""
    with torch.inference_mode(raw.is_inference()):
        return OnDevice(raw, index)


@functools.cache
def _aliases(function: Any) -> tuple[tuple[int | str, ...], bool]:
    """Return which arguments each output is (written in place), and whether the operation is a view."""
    arguments = function._schema.arguments
    places: list[int | str] = []
    view = False
    for output in function._schema.returns:
        info = output.alias_info
        place: int | str = -1
        if info is not None and info.is_write:
            for i, argument in enumerate(arguments):
                if argument.alias_info is not None and argument.alias_info.before_set == info.before_set:
                    place = argument.name if argument.kwarg_only else i
        elif info is not None:
            view = True
        places.append(place)
    return tuple(places), view


def _check(function: Any, tensors: list[torch.Tensor]) -> int | None:
    """Return the device of an operation; raise where CUDA does."""
    indices = {tensor.index for tensor in tensors if isinstance(tensor, OnDevice)}
    if not indices:
        return None
    if function in ANYWHERE:
        return min(indices)
    hosts = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    pointwise = torch.Tag.pointwise in function.tags
    if function in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        for tensor in hosts:
            if tensor.dim():
                _log.uploads[f"{_caller()} {function}"] += 1
    elif any(tensor.dim() or not pointwise for tensor in hosts):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got cuda and cpu tensors")
    if len(indices) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got {sorted(indices)}")
    if function.namespace == "hebb":
        raise NotImplementedError(f"{function} has no kernel of the CUDA backend")
    return indices.pop()


def _target(function: Any, options: dict[str, Any], index: int | None) -> torch.device | None:
    """Return the device that an operation makes its tensors on: what it was asked for, else that of its tensors."""
    device = options.get("device")
    if device is not None:
        return _indexed(device)
    return None if index is None else torch.device("cuda", index)


def dispatch(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """Run an operation on the memory behind its tensors, under the rules of the device."""
    flat, _ = pytree.tree_flatten((arguments, options))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    index = _check(function, tensors)
    target = _target(function, options, index)
    _check_generator(flat, target or torch.device("cpu"))
    if index is None and (target is None or target.type != "cuda"):
        return function(*arguments, **options)
    _note(function, arguments, options, tensors, target)
    places, view = _aliases(function)
    raw_arguments, raw_options = pytree.tree_map_only(OnDevice, lambda x: x.raw, (arguments, options))
    if "device" in raw_options and raw_options["device"] is not None:
        raw_options = {**raw_options, "device": torch.device("cpu")}
    raw_options = {name: value for name, value in raw_options.items() if name != "pin_memory"}
    if function is aten._to_copy.default:
        raw_options.pop("non_blocking", None)
    inference = view and any(isinstance(t, OnDevice) and t.is_inference() for t in tensors)
    with torch.inference_mode(inference):
        answer = function(*raw_arguments, **raw_options)
    if target is None or target.type != "cuda":
        return answer
    if function is aten._to_copy.default:
        answer = answer.clone() if any(answer is value for value in raw_arguments) else answer
    return _wrapped(answer, places, arguments, options, target.index)


def _wrapped(answer: Any, places: tuple[int | str, ...], arguments: Any, options: dict[str, Any], index: int) -> Any:
    """Wrap the outputs; one that was written in place is the argument itself."""

    def own(place: int | str, value: Any) -> Any:
        if place == -1 or value is None:
            return pytree.tree_map_only(torch.Tensor, lambda raw: wrap(raw, index), value)
        return options[place] if isinstance(place, str) else arguments[place]

    if len(places) == 1:
        return own(places[0], answer)
    if isinstance(answer, tuple | list) and len(answer) == len(places):
        return type(answer)(own(place, value) for place, value in zip(places, answer, strict=True))
    return pytree.tree_map_only(torch.Tensor, lambda raw: wrap(raw, index), answer)


def _check_generator(flat: list[Any], target: torch.device) -> None:
    for value in flat:
        if not isinstance(value, torch._C.Generator):
            continue
        own = _generators.get(value._cdata)  # torch hands on another object of the same generator
        device = value.device if own is None else own.device
        if _recording is not None and device.type == "cuda" and value._cdata not in _recording.generators:
            raise RuntimeError("Attempt to increase offset for a CUDA generator not in capture mode.")
        if device != target:
            raise RuntimeError(f"Expected a '{target}' device type for generator but found '{device}'")


def _note(
    function: Any, arguments: Any, options: dict[str, Any], tensors: list[torch.Tensor], target: torch.device | None
) -> None:
    """Count what an operation costs."""
    if not _log.double and target is not None and target.type == "cuda":
        kinds = [options.get("dtype"), *(tensor.dtype for tensor in tensors if isinstance(tensor, OnDevice))]
        if torch.float64 in kinds:
            raise TypeError(f"{function}: the framework of this device doesn't support float64")
    masks = function in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
        i is not None and i.dtype in (torch.bool, torch.uint8) for i in arguments[1]
    )
    if function in WAITS or masks:
        _wait(str(function))
    elif function is aten._to_copy.default:
        _note_copy(arguments[0], target, options)
    elif function is aten.copy_.default:
        place = arguments[0].device
        _note_copy(arguments[1], place, {"non_blocking": len(arguments) > 2 and arguments[2]})
    _, view = _aliases(function)
    if not view and function not in SILENT and function is not aten._local_scalar_dense.default:
        _log.operations[str(function)] += 1
    if target is not None and target.type == "cuda":
        _log.used.add(target.index)


def _note_copy(source: torch.Tensor, target: torch.device | None, options: dict[str, Any]) -> None:
    if isinstance(source, OnDevice) and target is not None and target.type == "cpu":
        _wait("to cpu")
        return
    sent = not isinstance(source, OnDevice) and target is not None and target.type == "cuda"
    if sent and _recording is not None and source.dim():
        raise RuntimeError("operation not permitted when stream is capturing: a copy of the host's memory")
    if sent and not (_is_pinned(source) and options.get("non_blocking")):
        _log.uploads[f"{_caller()} upload"] += 1


def _wait(what: str) -> None:
    if _recording is not None:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
    _log.waits[f"{_caller()} {what}"] += 1


class Graph:
    """A CUDA graph: it starts what it has recorded as one operation."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.generators: set[int] = set()

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.add(generator._cdata)

    def replay(self) -> None:
        before = _log.operations.copy()
        self.tape.replay()
        _log.operations = before
        _log.operations["graph"] += 1


@contextlib.contextmanager
def recording(graph: Graph, *, capture_error_mode: str = "global", **_: Any) -> Iterator[None]:
    """Record a graph, as ``torch.cuda.graph``."""
    global _recording
    assert capture_error_mode in ("global", "thread_local", "relaxed")
    _recording = graph
    try:
        with graph.tape:
            yield
    finally:
        _recording = None
        graph.tape.undo()


def _check_optimiser(optimiser: Any, *_: Any) -> None:
    """Refuse to record an optimiser that has not agreed to it, as a build of torch with CUDA does."""
    groups = [group for group in optimiser.param_groups if "capturable" in group]
    if _recording is not None and not all(group["capturable"] for group in groups):
        raise RuntimeError("Attempting graph capture of step() but param_groups' capturable is False.")


class Rules(TorchDispatchMode):
    """Makes tensors on the pretended devices, and copies from and to them."""

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        return dispatch(function, arguments, options or {})


class Generator(torch.Generator):
    """A generator whose ``device`` may be a pretended one; it draws the numbers of the CPU's."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        new = super().__new__(cls)
        new._place = _indexed(device)
        return new

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()
        _generators[self._cdata] = self

    @property
    def device(self) -> torch.device:
        return self._place


def _tag(storage: Any) -> str | None:
    index = _tags.get(getattr(storage, "_cdata", 0)) if getattr(storage, "_cdata", 0) in _on_gpu else None
    return None if index is None else f"cuda:{index}"


def _place(storage: Any, location: str) -> Any:
    """Called for a stored tensor that nobody mapped to the CPU."""
    if not location.startswith("cuda"):
        return None
    _log.strayed.append(location)
    return storage


@functools.cache
def _register() -> None:
    """Teach torch the device; this cannot be undone."""
    _setup_privateuseone_for_python_backend(NAME)
    torch.serialization.register_package(5, _tag, _place)
    libraries = Path(torch.__file__).parent / "lib"
    name = "libc10.dylib" if sys.platform == "darwin" else "libc10.so"
    library = ctypes.CDLL(str(libraries / name))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[1] = guards[0]  # CUDA gets the guard of the CPU, which does nothing
    torch.autograd.set_multithreading_enabled(False)


def _pin(self: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return a copy that counts as pinned."""
    copy = self.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def _is_pinned(self: torch.Tensor, *_: Any) -> bool:
    return getattr(self, "pinned", False)


@contextlib.contextmanager
def gpus(count: int = COUNT) -> Iterator[Log]:
    """Give the process ``count`` GPUs, and log what happens on them."""
    _register()
    _log.__init__()  # type: ignore[misc]
    from torch.optim import optimizer

    kept = list(optimizer._foreach_supported_types)
    cuda: dict[str, Any] = {
        "is_available": lambda: count > 0,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_lazy_call": lambda *_, **__: None,
        "device_count": lambda: count,
        "current_device": lambda: 0,
        "synchronize": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "mem_get_info": lambda device=0: (_log.free[_indexed(_cuda(device)).index], 16 << 30),
        "memory_reserved": lambda device=0: _log.cached[_indexed(_cuda(device)).index],
        "memory_allocated": lambda device=0: 0,
        "max_memory_allocated": lambda device=0: 0,
        "reset_peak_memory_stats": lambda device=0: None,
        "CUDAGraph": Graph,
        "graph": recording,
        "graph_pool_handle": lambda: (0, 1),
        "Stream": lambda *_: None,
        "device": lambda *_: contextlib.nullcontext(),
        "get_device_name": lambda device=0: f"Pretended GPU {_indexed(_cuda(device)).index}",
    }
    with contextlib.ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        has_double = lambda device: _log.double or device.type == "cpu"  # noqa: E731
        stack.enter_context(mock.patch.object(precision, "has_double", has_double))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pin))
        stack.enter_context(mock.patch.object(torch.Tensor, "is_pinned", _is_pinned))
        stack.enter_context(mock.patch.object(optimizer, "_foreach_supported_types", [*kept, OnDevice]))
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        stack.callback(optimizer.register_optimizer_step_pre_hook(_check_optimiser).remove)
        stack.enter_context(Rules())
        yield _log


def _cuda(device: Any) -> Any:
    return torch.device("cuda", device) if isinstance(device, int) else device or torch.device("cuda", 0)
