"""Every call of torch that torch does not promise to keep, so that a new version of torch is checked in one place.

Shapes: B batch, C channels, H height, W width, K fan-in, M samples x pixels, N neurons.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

Optimiser = TypeVar("Optimiser", bound=torch.optim.Optimizer)

if TYPE_CHECKING:
    from collections.abc import Sequence


def _without_compiler(kind: type[Optimiser]) -> type[Optimiser]:
    """Return the optimiser class with methods that do not import torch's compiler, which takes two seconds.

    torch wraps them so that its compiler leaves them alone; nothing here is compiled.
    """
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


Adam, SGD = _without_compiler(torch.optim.Adam), _without_compiler(torch.optim.SGD)
"""torch's optimisers; a process that has one starts two seconds sooner."""

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether ``onednn_linear`` works here."""


def _choose_vector_functions() -> None:
    """Let MKL choose its code for each vector function, as it does in the first call.

    In a first call by two threads at once, one may get a less exact version
    (https://github.com/pytorch/pytorch/issues/188792), and a run other bits than the same run before.
    """
    two = torch.full((1,), 2.0, dtype=torch.float32, device="cpu")
    for function in (torch.sqrt, torch.exp, torch.log, torch.tanh):
        function(two)
    two.pow(two)


_choose_vector_functions()


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T by oneDNN, (M, K), (N, K) -> (M, N); float32 on the CPU, without a gradient.

    ``F.linear`` goes to MKL instead, which takes up to twice the time (``hebb.kernels.matmul`` has the figures).
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


def convolution_weight_gradient(
    x: Tensor, y: Tensor, weight: Tensor, *, stride: int, dilation: int, groups: int
) -> Tensor:
    """Return the weight gradient of a convolution without padding.

    ``torch.nn.grad.conv2d_weight`` does the same, but passes on weights without memory, which are then copied.

    Args:
        x: input (B, C_in, H, W).
        y: gradient of the output (B, C_out, H', W').
        weight: (C_out, C_in/groups, k, k); only its shape and order in memory matter.
        stride: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.
    """
    zeros: Sequence[int] = [0, 0]
    of_input, of_weight, of_bias = False, True, False
    _, gradient, _ = torch.ops.aten.convolution_backward(
        y,
        x,
        weight,
        None,
        [stride] * 2,
        zeros,
        [dilation] * 2,
        False,
        zeros,
        groups,
        (of_input, of_weight, of_bias),
    )
    grad: Tensor = gradient
    return grad


def flush_subnormals(flush: bool) -> None:
    """Let all threads make 0 of numbers below 1.2e-38, or let these be; a processor that cannot flush does nothing.

    The flag is one of a thread, which inherits it from the thread that starts it. The threads of torch's pool therefore
    end here, and torch starts them anew.
    """
    products = torch.full((1 << 20,), 1e-30).mul_(1e-10)  # by all threads of the pool
    follow = not products.any() if flush else bool(products.all())
    if follow or not torch.set_flush_denormal(flush):
        return
    end_pool = openmp("omp_pause_resource_all")
    if end_pool is not None:
        end_pool(_SOFT)


_SOFT = 1  # OpenMP's word for a pause after which everything goes on as before


@functools.cache
def _linked(name: str) -> Any:
    """Return a function of the libraries in torch; None if they have no such function."""
    return getattr(ctypes.CDLL(torch._C.__file__), name, None)


def openmp(name: str) -> Any:
    """Return a function of the OpenMP library whose threads torch uses; None if that library has no such function."""
    return _linked(name)


def address(function: Any) -> int:
    """Return where a function of C lies."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


MKL_PRODUCT, MKL_THREADS = "sgemm_", "MKL_Set_Num_Threads_Local"
"""MKL's functions that multiply matrices and set the number of threads of those that the calling thread multiplies."""


@functools.cache
def mkl() -> dict[str, int]:
    """Return the addresses of these functions of the MKL in torch; none if torch has another library."""
    functions = {name: _linked(name) for name in (MKL_PRODUCT, MKL_THREADS)}
    if not torch.backends.mkl.is_available() or None in functions.values():
        return {}
    return {name: address(function) for name, function in functions.items()}


def flushes_subnormals() -> bool:
    """Tell whether this thread makes 0 of subnormal numbers."""
    return not torch.full((), 1e-30).mul_(1e-10).item()


def is_batched(x: Tensor) -> bool:
    """Whether x stands for many tensors inside ``torch.vmap``, where no value can be looked at."""
    batched: bool = torch._C._functorch.is_batchedtensor(x)
    return batched


def is_readable(x: Tensor) -> bool:
    """Whether compiled code may read x at its address: as float32 numbers on the CPU, while nobody looks on.

    Compilers, recorders of operations and transforms of ``torch.func`` would not see what it does.
    """
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter):
        return False
    numbers = x.dtype == torch.float32 and x.device.type == "cpu" and x.layout == torch.strided
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    recorded = torch._C._get_tracing_state() is not None or torch._C._len_torch_dispatch_stack() > 0
    return numbers and not (x.is_neg() or x._is_zerotensor() or transformed or recorded)


def add_product(into: Tensor, a: Tensor, b: Tensor, value: float = 1.0) -> Tensor:
    """Add value a b to ``into`` in place and return it; ``torch.vmap`` has no fused operation and takes two."""
    return into.add_(a * b, alpha=value) if is_batched(into) else into.addcmul_(a, b, value=value)


def silence(slope: Tensor, f: Tensor) -> None:
    """Set ``slope`` to 0 where f <= 0, in place: the gradient of relu, in one pass and without a mask."""
    torch.ops.aten.threshold_backward.grad_input(slope, f, 0, grad_input=slope)


def adam_changes(
    gradients: list[Tensor],
    counts: list[Tensor],
    m: list[Tensor],
    v: list[Tensor],
    betas: tuple[float, float],
    epsilon: float,
) -> list[Tensor]:
    """Move t, m and v of Adam on, in place, and return m/(sqrt(v) + epsilon): seven operations for all parameters."""
    torch._foreach_add_(counts, 1)
    torch._foreach_lerp_(m, gradients, 1 - betas[0])
    torch._foreach_mul_(v, betas[1])
    torch._foreach_addcmul_(v, gradients, gradients, 1 - betas[1])
    roots = list(torch._foreach_sqrt(v))
    torch._foreach_add_(roots, epsilon)
    return list(torch._foreach_div(m, roots))


def descend(parameters: list[Tensor], changes: list[Tensor], rate: Tensor) -> None:
    """Subtract rate times a change from each parameter, in place; the rate () lies on the device."""
    torch._foreach_mul_(changes, rate)
    torch._foreach_sub_(parameters, changes)


def bind(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Make ``tensor``, which may be a view, the parameter or buffer ``name`` of ``module``, without a copy.

    ``setattr`` refuses a plain tensor in place of a parameter, and ``load_state_dict`` copies.
    """
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    if own in owner._parameters:
        owner._parameters[own] = nn.Parameter(tensor)
    else:
        owner._buffers[own] = tensor


def prepare_compiler(graphs: int) -> None:
    """Forget the graphs compiled before in this process, and allow ``graphs`` of one function (torch: 8)."""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = graphs


def is_compiler_error(error: Exception) -> bool:
    """Whether an error comes from ``torch.compile`` rather than from the compiled code."""
    from torch._dynamo.exc import TorchDynamoException  # takes two seconds, which runs that do not compile are spared

    return isinstance(error, TorchDynamoException)


def require_cpp_compiler() -> None:
    """Raise where ``torch.compile`` finds no C++ compiler."""
    from torch._inductor import cpp_builder

    cpp_builder.get_cpp_compiler()
