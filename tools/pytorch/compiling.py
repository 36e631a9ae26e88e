"""torch.compile or eager, whichever is faster for a block, by trial; where compiling does not work, eager and the reason."""
import dataclasses
import time
import typing

import torch

from head_loss import piece_loss
from llama import block

TRIAL_TOKENS = 4096  # of a sequence: long enough to tell, short enough for attention to take seconds
TRIALS = 3


@dataclasses.dataclass
class Form:
    block: typing.Callable
    piece: typing.Callable
    text: str


def trial_seconds(function, model, attend, dtype, sequences, length):
    """Shortest time of forward and backward of one block."""
    cos, sin = model.rotation(length)
    x = torch.randn(sequences, length, model.config["hidden_size"], requires_grad=True)
    arguments = model.block_arguments(0, cos, sin, attend)
    best = float("inf")
    for _ in range(TRIALS):
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = function(x, *arguments)
        out.sum().backward()
        best = min(best, time.perf_counter() - begin)
    for weight in model.weights.values():
        weight.grad = None
    return best


def choose_form(model, attend, dtype, sequences, length):
    trial = (model, attend, dtype, sequences, min(length, TRIAL_TOKENS))
    eager = trial_seconds(block, *trial)
    try:
        compiled_block, compiled_piece = torch.compile(block, dynamic=False), torch.compile(piece_loss, dynamic=False)
        compiled = trial_seconds(compiled_block, *trial)
        compiled_piece(torch.zeros(16, 64), torch.zeros(16, dtype=torch.long), 1.0)
    except Exception as error:  # a compiler is missing, or the compiler of PyTorch stumbles
        return Form(block, piece_loss, f"eager (torch.compile: {type(error).__name__}: {first_line(error)})")
    times = f"block of {trial[4]} tokens: compiled {1e3 * compiled:.0f} ms, eager {1e3 * eager:.0f} ms"
    if compiled < eager:
        return Form(compiled_block, compiled_piece, f"torch.compile ({times})")
    return Form(block, compiled_piece, f"eager blocks, compiled loss ({times})")


def first_line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
