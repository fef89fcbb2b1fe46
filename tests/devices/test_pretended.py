"""The pretended GPU refuses and counts what a GPU does. Without it every other test here could pass by its leniency."""

from __future__ import annotations

import pretended
import pytest
import torch
from pretended import Log

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("of_tensor", "of_generator"), [("cuda:0", "cpu"), ("cuda:0", "cuda:1"), ("cpu", "cuda:0")])
def test_a_generator_of_another_device_is_refused(of_tensor: str, of_generator: str, log: Log) -> None:
    with pytest.raises(RuntimeError, match="for generator"):
        torch.rand(3, generator=torch.Generator(device=of_generator), device=of_tensor)
    torch.rand(3, generator=torch.Generator(device=of_tensor), device=of_tensor)


@pytest.mark.parametrize(("first", "second"), [("cuda:0", "cpu"), ("cpu", "cuda:1"), ("cuda:0", "cuda:1")])
def test_mixed_devices_are_refused(first: str, second: str, log: Log) -> None:
    a, b = torch.ones(3, device=first), torch.ones(3, device=second)
    for mixed in (lambda: a + b, lambda: torch.cat([a, b]), lambda: torch.lerp(a, a, b), lambda: a @ b):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()


def test_a_number_of_the_host_may_join_elementwise(log: Log) -> None:
    assert (torch.ones(3, device="cuda:1") * torch.tensor(2.0)).device == torch.device("cuda", 1)


def test_memory_of_a_gpu_is_no_array(log: Log) -> None:
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(3, device="cuda:0").numpy()


@pytest.mark.parametrize("wait", ["item", "tolist", "cpu", "nonzero", "mask"])
def test_waits_are_counted(wait: str, log: Log) -> None:
    x = torch.ones(1, device="cuda:0")
    log.clear()
    _ = x[x > 0] if wait == "mask" else getattr(x, wait)()
    assert sum(log.waits.values()) == 1


def test_only_what_is_pinned_is_sent_without_a_wait(log: Log) -> None:
    x = torch.ones(3)
    for source, non_blocking, uploads in ((x, True, 1), (x.pin_memory(), False, 1), (x.pin_memory(), True, 0)):
        log.clear()
        source.to("cuda:0", non_blocking=non_blocking)
        assert sum(log.uploads.values()) == uploads


def test_own_operations_have_no_kernel(log: Log) -> None:
    with pytest.raises(NotImplementedError, match="CUDA"):
        torch.ops.hebb.power(torch.ones(3, device="cuda:0"), 2.0)


def test_nothing_is_left_behind() -> None:
    with pretended.gpus():
        assert torch.cuda.device_count() == pretended.COUNT
    assert not torch.cuda.is_available()
    assert torch.Generator().device == torch.device("cpu")
