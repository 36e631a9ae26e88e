"""What is compared."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Training:
    """moba-train with one attention against PyTorch with one or more, from the same weights on the same batches.

    rounds: steps in each round; in a round every program runs once, from the start again. The first round is the one whose losses
    are compared.
    """

    name: str
    recipe: str
    chunk_size: int
    topk: int
    sequence_length: int
    ours: str
    theirs: tuple
    sequences: int = 1  # per step, all in one micro-batch
    checkpointing: bool = False  # per block, on both sides
    rounds: tuple = (20, 6, 6)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Forward pass of one attention layer: MoBA here against PyTorch's full attention and MoBA."""

    name: str
    sequence_length: int
    heads: int = 4
    head_dim: int = 128
    chunk_size: int = 512
    topk: int = 3
    rounds: int = 3


SMALL, LARGE = ("recipes/small_6m.yaml", 128, 3), ("recipes/llama_124m.yaml", 512, 3)

CASES = (
    Training("small_full", *SMALL, 2048, "full", ("full",), sequences=4),
    Training("small_moba", *SMALL, 2048, "moba", ("moba", "full"), sequences=4),
    Training("124m_2k_full", *LARGE, 2048, "full", ("full",)),
    Training("124m_8k_full", *LARGE, 8192, "full", ("full",), rounds=(20, 3, 3)),
    # A step takes minutes to a quarter of an hour; that the MoBA of both sides is one function over 20 steps is seen in small_moba.
    Training("124m_32k_moba", *LARGE, 32768, "moba", ("moba", "full"), checkpointing=True, rounds=(2, 1)),
    Attention("attention_32k", 32768),
)

QUICK = (
    Training("small_full", *SMALL, 2048, "full", ("full",), rounds=(20,)),
    Training("small_moba", *SMALL, 2048, "moba", ("moba", "full"), rounds=(20,)),
    Attention("attention_8k", 8192, rounds=2),
)
