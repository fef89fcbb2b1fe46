"""The settings of torch, for the whole process: threads, TF32, deterministic kernels, and subnormal numbers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from hebb.config.specs import RunConfig
from hebb.config.vocabulary import TensorFloat
from hebb.kernels import private_torch


def settle(config: RunConfig, device: torch.device) -> None:
    """Make torch compute as the config says, whatever the process did before.

    TF32 rounds the factors of a product to 10 bits of mantissa on NVIDIA GPUs since Ampere; torch uses it for
    convolutions and not for matrix products. Deterministic kernels give the same bits on the same GPU, where torch has
    them; it warns where it has none, as for the gradient of reflecting padding.
    """
    torch.set_num_threads(config.threads)
    torch.set_default_dtype(torch.float32)
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # it is a property
    convolutions.fp32_precision = _precision(config.tf32 != TensorFloat.NONE)
    torch.backends.cuda.matmul.fp32_precision = _precision(config.tf32 == TensorFloat.ALL)
    deterministic = config.deterministic and device.type == "cuda"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
    torch.backends.cudnn.deterministic = deterministic
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)


@contextlib.contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Make subnormal numbers, those below 1.2e-38, 0 on the CPU.

    An Intel core takes a hundred times as long for a product with one, and a fifth of a softmax over hundreds of
    neurons can be subnormal. No weight sees the difference: beside 1 a float32 shows nothing below 1e-7.
    """
    before = private_torch.flushes_subnormals()
    private_torch.flush_subnormals(True)
    try:
        yield
    finally:
        private_torch.flush_subnormals(before)


def _precision(tf32: bool) -> str:
    return "tf32" if tf32 else "ieee"
