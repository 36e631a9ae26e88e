"""Language model head and loss without the whole [tokens, V] matrix: at 32768 tokens and V 50304 it and its gradients are 20 GB.

Gradients are made on the way, piece by piece, so nothing is computed twice.
"""
import torch

PIECE_TOKENS = 2048


def piece_loss(logits, targets, scale):
    """Sum of the losses and the gradient of scale * sum by the logits; logits [n, V], targets [n]."""
    logits = logits.float()
    lse = logits.logsumexp(-1)
    loss = (lse - logits.gather(1, targets[:, None]).squeeze(1)).sum()
    classes = torch.arange(logits.shape[1])
    gradient = ((logits - lse[:, None]).exp() - (classes[None, :] == targets[:, None]).float()) * scale
    return loss, gradient


class HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, targets, dtype, piece):
        """Mean loss of x [n, C] through weight [V, C]."""
        scale = 1 / len(targets)
        w = weight.to(dtype)
        dx, dw, loss = torch.empty_like(x), torch.zeros_like(weight), 0.0
        for begin in range(0, len(targets), PIECE_TOKENS):
            rows = slice(begin, begin + PIECE_TOKENS)
            part = x[rows].to(dtype)
            its_loss, gradient = piece(part @ w.T, targets[rows], scale)
            gradient = gradient.to(dtype)
            loss = loss + its_loss
            dx[rows] = gradient @ w
            if dtype == dw.dtype:
                dw.addmm_(gradient.T, part)
            else:
                dw += gradient.T @ part
        ctx.save_for_backward(dx, dw)
        return loss * scale

    @staticmethod
    def backward(ctx, grad):
        dx, dw = ctx.saved_tensors
        return dx.mul_(grad), dw.mul_(grad), None, None, None


@torch.compiler.disable
def head_loss(x, weight, targets, dtype, piece=piece_loss):
    return HeadLoss.apply(x, weight, targets, dtype, piece)
