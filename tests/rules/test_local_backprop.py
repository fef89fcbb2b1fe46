"""LocalBP: the gradient of a block and of its head is that of the head's cross-entropy, and stays in the block."""

from __future__ import annotations

import pytest
import small
import torch
from torch.nn import functional as F

from hebb.nn import model
from hebb.nn.local_loss import averaged


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 5), (3, 4), (1, 1)])
def test_a_map_is_averaged_as_by_the_adaptive_pool_of_torch(size: int, height: int, width: int) -> None:
    """Also where the parts overlap, or are smaller than a pixel."""
    torch.manual_seed(0)
    maps = torch.rand(3, 2, height, width, dtype=torch.float64, requires_grad=True)
    want, got = F.adaptive_avg_pool2d(maps, size), averaged(maps, size)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    probe = torch.rand_like(want)
    gradients = [torch.autograd.grad((out * probe).sum(), maps)[0] for out in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1, 4])
def test_the_gradient_is_that_of_a_linear_head(size: int) -> None:
    """Belilovsky et al. 2019: with one block, it is end-to-end back-prop of the block and its head."""
    made = small.config(f"LocalBP-c6-k3-p1-hm{size}:relu:max_2_2_0 LocalBP-c8-k3-p1:relu BP:flatten")
    network = model.build(made)
    torch.manual_seed(0)
    x, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    network[0].descend(x, labels)
    block = network[0]
    (head,) = block.local.head
    assert head.in_features == 6 * size**2
    leaves = [p.detach().clone().requires_grad_() for p in (block.layer.weight, head.weight, head.bias)]
    kernel, weight, bias = leaves
    maps = F.max_pool2d(F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel)), 2)
    loss = F.cross_entropy(F.adaptive_avg_pool2d(maps, size).flatten(1) @ weight.T + bias, labels)
    for mine, want in zip((block.layer.weight, head.weight, head.bias), torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(mine.grad, want, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in network[1].parameters())
