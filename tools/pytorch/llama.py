"""The same decoder in PyTorch as its users would write it for speed: scaled_dot_product_attention, rms_norm, one function per block."""
import functools

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from head_loss import head_loss, piece_loss
from moba import moba_attention

BLOCK_WEIGHTS = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
                 "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
# What a configuration may say beside the shape; anything else would train another model here than there.
PLAIN = {"qk_norm": False, "key_conv": 0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "hidden_act": "silu"}


def rotate(x, cos, sin):
    """Half-split rotary embedding of x [B, heads, T, D]."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def block(x, cos, sin, weights, heads, kv_heads, eps, attend):
    """One decoder block of x [B, T, C]."""
    norm1, wq, wk, wv, wo, norm2, gate, up, down = weights
    batch, length, width = x.shape
    y = F.rms_norm(x, (width,), norm1, eps)
    q, k, v = (F.linear(y, w).view(batch, length, n, -1).transpose(1, 2) for w, n in ((wq, heads), (wk, kv_heads), (wv, kv_heads)))
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if kv_heads != heads:
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
    x = x + F.linear(attend(q, k, v).transpose(1, 2).reshape(batch, length, -1), wo)
    y = F.rms_norm(x, (width,), norm2, eps)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)


def full_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Llama:
    def __init__(self, config, weights):
        """weights: {name: array}."""
        for key, value in PLAIN.items():
            if config.get(key, value) != value:
                raise ValueError(f"the checkpoint has {key} = {config[key]}, which this comparison does not cover")
        self.config = config
        self.weights = {name: torch.from_numpy(value).requires_grad_() for name, value in weights.items()}
        self.block, self.piece = block, piece_loss
        half = torch.arange(config["head_dim"] // 2, dtype=torch.float64) / (config["head_dim"] // 2)
        self.frequencies = config["rope_theta"] ** -half

    def set_weights(self, weights):
        with torch.no_grad():
            for name, value in weights.items():
                self.weights[name].copy_(torch.from_numpy(value))

    def block_arguments(self, layer, cos, sin, attend):
        c = self.config
        weights = [self.weights[f"model.layers.{layer}.{name}.weight"] for name in BLOCK_WEIGHTS]
        return cos, sin, weights, c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"], attend

    def rotation(self, length):
        angle = torch.arange(length, dtype=torch.float64)[:, None] * self.frequencies
        return angle.cos().float(), angle.sin().float()

    def attention(self, kind, chunk, topk):
        return full_attention if kind == "full" else functools.partial(moba_attention, chunk=chunk, topk=topk)

    def loss(self, tokens, targets, attend, dtype, checkpointing):
        """Mean loss of tokens, targets [B, T]; dtype: of the products."""
        c, w = self.config, self.weights
        cos, sin = self.rotation(tokens.shape[1])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            x = F.embedding(tokens, w["model.embed_tokens.weight"])
            for layer in range(c["num_hidden_layers"]):
                arguments = self.block_arguments(layer, cos, sin, attend)
                if checkpointing:
                    x = checkpoint(self.block, x, *arguments, use_reentrant=False, preserve_rng_state=False)
                else:
                    x = self.block(x, *arguments)
            x = F.rms_norm(x, (x.shape[-1],), w["model.norm.weight"], c["rms_norm_eps"])
        head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
        return head_loss(x.flatten(0, 1), head, targets.flatten(), dtype, self.piece)

    def optimizer(self, betas, eps, weight_decay):
        """Fused AdamW; decay for matrices and the head, not for norms and embeddings (a tied head is the embedding)."""
        groups = {True: [], False: []}
        for name, value in self.weights.items():
            groups[value.dim() == 2 and name != "model.embed_tokens.weight"].append(value)
        return torch.optim.AdamW([{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
                                 betas=tuple(betas), eps=eps, fused=True)
