"""The PyTorch side against plain PyTorch, before anything is timed: MoBA against a mask over full attention, the loss against cross_entropy."""
import torch
import torch.nn.functional as F

from head_loss import head_loss
from moba import moba_attention

LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
SHAPES = ((2, 2, 192, 16, 32, 3), (1, 3, 205, 24, 32, 4), (1, 2, 40, 16, 64, 3), (1, 2, 128, 16, 16, 1), (1, 2, 128, 8, 16, 20))  # B H T D S K


def error(got, want):
    return float(((got - want).double().norm() / want.double().norm()).detach())


def masked_moba(q, k, v, chunk, topk):
    """One softmax over [T, T] scores with the chosen blocks let through."""
    batch, heads, length, dim = q.shape
    position = torch.arange(length)
    block_of = position // chunk
    blocks = int(block_of[-1]) + 1
    scores = torch.stack([(q * k[..., b * chunk : (b + 1) * chunk, :].mean(-2, keepdim=True)).sum(-1) for b in range(blocks)], -1)
    later = torch.arange(blocks)[None, :] - block_of[:, None]
    scores = scores.masked_fill(later > 0, float("-inf")).masked_fill(later == 0, float("inf"))
    best = scores.topk(min(topk, blocks), -1)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best.indices, best.values > float("-inf"))
    mask = chosen[..., block_of] & (position[:, None] >= position[None, :])
    scores = (q @ k.transpose(-1, -2) * dim**-0.5).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def moba_errors(shape, dtype):
    batch, heads, length, dim, chunk, topk = shape
    generator = torch.Generator().manual_seed(length)
    tensors = [torch.randn(batch, heads, length, dim, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]
    dout = torch.randn(batch, heads, length, dim, generator=generator, dtype=dtype)
    results = []
    for attention in (moba_attention, masked_moba):
        out = attention(*tensors, chunk, topk)
        results.append((out, *torch.autograd.grad(out, tensors, dout)))
    return {f"{what} of B H T D S K {shape} {dtype}": error(got, want) for what, got, want in zip(("out", "dq", "dk", "dv"), *results)}


def loss_errors(dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2500, 16, generator=generator, dtype=dtype).requires_grad_()  # more than one piece
    weight = torch.randn(50, 16, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(0, 50, (2500,), generator=generator)
    results = []
    for loss in (head_loss(x, weight, targets, dtype), F.cross_entropy(x @ weight.T, targets)):
        results.append((loss, *torch.autograd.grad(loss, (x, weight))))
    return {f"{what} {dtype}": error(got, want) for what, got, want in zip(("loss", "gradient of x", "gradient of the head"), *results)}


def check():
    """{what: error} of all; raises if one is too large."""
    errors = {}
    for dtype, limit in LIMITS.items():
        found = loss_errors(dtype) if dtype == torch.float32 else {}
        for shape in SHAPES:
            found |= moba_errors(shape, dtype)
        for what, value in found.items():
            if not value <= limit:
                raise ArithmeticError(f"{what}: error {value:.1e}, at most {limit:.0e}")
        errors |= found
    return errors


if __name__ == "__main__":
    for line in check().items():
        print(f"{line[1]:.1e}  {line[0]}")
