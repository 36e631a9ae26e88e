"""A plain PyTorch decoder: Llama, with MoBA as a mask over full attention and, where the config says so, QK-norm.

Written from the definition of the operation, without a look at the C++ code. Everything is dense: [T, T] masks, loops over sequences.
"""
import torch


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, theta):
    """Half-split rotary embedding of x [T, heads, D]."""
    half = x.shape[-1] // 2
    inverse = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.double()[:, None] * inverse
    cos, sin = angle.cos().to(x.dtype)[:, None, :], angle.sin().to(x.dtype)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def full_mask(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def moba_mask(selected, chunk):
    """selected [L, H, slots] of one sequence -> [H, L, L]: may query i read key j?"""
    length, heads, _ = selected.shape
    blocks = (length + chunk - 1) // chunk
    chosen = torch.zeros(length, heads, blocks + 1, dtype=torch.bool)
    chosen.scatter_(2, torch.where(selected < 0, torch.full_like(selected, blocks), selected).long(), True)
    of_key = torch.arange(length) // chunk
    return chosen[:, :, of_key].permute(1, 0, 2) & full_mask(length)


def moba_scores(q, k, chunk):
    """Scores [L, H, N-1] of the blocks that can be history, -inf where a block is not yet past; q [L, H, D], k [L, H, D]."""
    length = q.shape[0]
    blocks = (length + chunk - 1) // chunk
    centroids = torch.stack([k[i * chunk : (i + 1) * chunk].mean(0) for i in range(blocks - 1)])  # [N-1, H, D]
    scores = torch.einsum("thd,nhd->thn", q, centroids)
    own = torch.arange(length)[:, None, None] // chunk
    return scores.masked_fill(torch.arange(blocks - 1)[None, None, :] >= own, float("-inf"))


class PlainLlama:
    def __init__(self, config, tensors):
        self.config = config
        self.weights = {name: torch.from_numpy(value).requires_grad_() for name, value in tensors.items()}

    def attention(self, layer, x, positions, bounds, selected):
        c = self.config
        heads, kv_heads, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        w = lambda name: self.weights[f"model.layers.{layer}.self_attn.{name}.weight"]  # noqa: E731
        q = (x @ w("q_proj").T).view(-1, heads, dim)
        k = (x @ w("k_proj").T).view(-1, kv_heads, dim)
        v = (x @ w("v_proj").T).view(-1, kv_heads, dim)
        if c["qk_norm"]:
            q, k = rms_norm(q, w("q_norm"), c["rms_norm_eps"]), rms_norm(k, w("k_norm"), c["rms_norm_eps"])
        q, k = rotate(q, positions, c["rope_theta"]), rotate(k, positions, c["rope_theta"])
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        self.seen[layer] = (q.detach(), k.detach())
        out = []
        for begin, end in zip(bounds[:-1], bounds[1:]):
            mask = full_mask(end - begin) if selected is None else moba_mask(selected[begin:end], c["moba_chunk_size"])
            scores = torch.einsum("qhd,khd->hqk", q[begin:end], k[begin:end]) * dim**-0.5
            weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
            out.append(torch.einsum("hqk,khd->qhd", weights, v[begin:end]))
        return torch.cat(out).reshape(-1, heads * dim) @ w("o_proj").T

    def logits(self, tokens, positions, bounds, selected):
        """selected: {layer: [T, H, slots]} for MoBA layers; the others are full. Keeps q and k of every layer in self.seen."""
        c, w = self.config, self.weights
        self.seen = {}
        x = w["model.embed_tokens.weight"][tokens]
        for layer in range(c["num_hidden_layers"]):
            block = lambda name: w[f"model.layers.{layer}.{name}.weight"]  # noqa: E731, B023
            y = rms_norm(x, block("input_layernorm"), c["rms_norm_eps"])
            x = x + self.attention(layer, y, positions, bounds, selected.get(layer))
            y = rms_norm(x, block("post_attention_layernorm"), c["rms_norm_eps"])
            gate = torch.nn.functional.silu(y @ block("mlp.gate_proj").T)
            x = x + (gate * (y @ block("mlp.up_proj").T)) @ block("mlp.down_proj").T
        head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
        return rms_norm(x, w["model.norm.weight"], c["rms_norm_eps"]) @ head.T

    def decayed(self, name):
        """Weight decay applies to matrices and the head, not to norms and embeddings (a tied head is the embedding)."""
        return self.weights[name].dim() == 2 and name != "model.embed_tokens.weight"
