"""MoBA with PyTorch's own attention kernel, after algorithm 1 of arXiv 2502.13189 (the efficient one).

Every query attends causally to its own block, and to each chosen block of its past in full; the parts are joined by their
log-sum-exp. For the past the queries are gathered by the block they chose, so that each block is one attention without a mask.

Attention is computed part by part, but with one softmax over all of them: the gradient of a part is that of attention with the
joint output and the joint log-sum-exp in place of the part's own, which is what the kernel's backward pass takes as arguments.

The heads are handled as further sequences: q, k, v are [R, T, D] with R = batch x heads.
"""
import torch

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

# (block, list of queries) pairs of one kernel call: enough for all cores, few enough that lists of one call are of like length.
PAIRS_PER_CORE = 4
NO_WEIGHT = 1e4  # a log-sum-exp so large that the weights of a padding row are 0; infinity would give NaN


def choose(q, k, chunk, topk):
    """[R, T, min(K-1, N-1)] blocks of the past, -1 where there are fewer. Scores in fp32, as far as the inputs go."""
    rows, length, dim = k.shape
    history = (length - 1) // chunk  # the last block is nobody's past
    accuracy = torch.promote_types(q.dtype, torch.float32)
    centroids = k[:, : history * chunk].to(accuracy).view(rows, history, chunk, dim).mean(2)
    scores = torch.bmm(q.to(accuracy), centroids.transpose(1, 2))
    own = torch.arange(length) // chunk
    scores.masked_fill_(torch.arange(history)[None, :] >= own[:, None], float("-inf"))
    best = scores.topk(min(topk - 1, history), dim=-1)
    return best.indices.masked_fill_(best.values == float("-inf"), -1)


class Group:
    """Some (block, list of queries) pairs with lists padded to one length."""

    def __init__(self, pairs, begins, counts, width):
        self.pairs, self.width = pairs, width
        at = torch.arange(width)[None, :]
        self.padding = at >= counts[:, None]
        self.entries = torch.where(self.padding, 0, begins[:, None] + at)


class Plan:
    """Which query row meets which block: the choice [R, T, K-1] sorted by block."""

    def __init__(self, chosen, history):
        rows, length, slots = chosen.shape
        block_of = chosen + torch.arange(rows)[:, None, None] * history
        valid = (chosen >= 0).flatten().nonzero().flatten()
        ids, order = torch.sort(block_of.flatten()[valid], stable=True)
        flat = valid[order]
        self.query = flat // slots  # row of [R * T]
        self.place = self.query * (slots + 1) + flat % slots + 1  # row of the parts [R * T * K]; slot 0 is the own block
        self.spare = rows * length * (slots + 1)  # where padding is written
        counts = torch.bincount(ids, minlength=rows * history)
        begins = counts.cumsum(0) - counts
        # Pairs of like length in one call: little padding.
        counts, pairs = counts.sort(descending=True)
        size, used = PAIRS_PER_CORE * torch.get_num_threads(), int((counts > 0).sum())
        widths = counts[:used:size].tolist()
        self.groups = [Group(pairs[i : min(i + size, used)], begins[pairs[i : min(i + size, used)]], counts[i : min(i + size, used)], width)
                       for i, width in zip(range(0, used, size), widths)]

    def rows_of(self, group):
        """Query rows of a group, flat, and the places of their parts."""
        entries = group.entries.flatten()
        return self.query[entries], self.place[entries].masked_fill_(group.padding.flatten(), self.spare)


def by_block(x, chunk, fill=0.0):
    """[R, T, ...] -> [R * N, 1, S, ...], the tail padded."""
    rows, length = x.shape[:2]
    blocks = (length + chunk - 1) // chunk
    if blocks * chunk != length:
        x = torch.cat([x, x.new_full((rows, blocks * chunk - length, *x.shape[2:]), fill)], 1)
    return x.reshape(rows * blocks, 1, chunk, *x.shape[2:])


def from_blocks(x, like):
    """Back to [R, T, D]."""
    return x.reshape(like.shape[0], -1, like.shape[2])[:, : like.shape[1]]


class Moba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, chunk, topk):
        (rows, length, dim), scale = q.shape, q.shape[-1] ** -0.5
        out, lse = flash(by_block(q, chunk), by_block(k, chunk), by_block(v, chunk), 0.0, True, scale=scale)
        out, lse = from_blocks(out, q), lse.reshape(rows, -1)[:, :length].unsqueeze(-1)
        history = (length - 1) // chunk
        plan = None
        if topk > 1 and history > 0:
            plan = Plan(choose(q, k, chunk, topk), history)
            slots = min(topk, history + 1)
            parts, part_lse = q.new_zeros(plan.spare + 1, dim), lse.new_full((plan.spare + 1,), float("-inf"))
            own = torch.arange(rows * length) * slots
            parts[own], part_lse[own] = out.reshape(-1, dim), lse.flatten()
            flat_q, keys, values = q.reshape(-1, dim), history_blocks(k, chunk, history), history_blocks(v, chunk, history)
            for group in plan.groups:
                query, place = plan.rows_of(group)
                part, its_lse = flash(flat_q[query].view(-1, 1, group.width, dim), keys[group.pairs], values[group.pairs], 0.0, False, scale=scale)
                parts[place], part_lse[place] = part.reshape(-1, dim), its_lse.flatten()
            parts, part_lse = parts[:-1].view(-1, slots, dim), part_lse[:-1].view(-1, slots)
            lse = part_lse.logsumexp(-1)
            weights = (part_lse - lse[:, None]).exp_()
            out = torch.bmm(weights.to(parts.dtype)[:, None, :], parts).view(rows, length, dim)
            lse = lse.view(rows, length, 1)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.chunk, ctx.history, ctx.scale = plan, chunk, history, scale
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse = ctx.saved_tensors
        chunk, history, scale, plan = ctx.chunk, ctx.history, ctx.scale, ctx.plan
        dim = q.shape[-1]
        blocks = [by_block(x, chunk) for x in (dout, q, k, v, out)]
        grads = flash_backward(*blocks, by_block(lse, chunk, NO_WEIGHT).squeeze(-1), 0.0, True, scale=scale)
        dq, dk, dv = (from_blocks(x, q).contiguous() for x in grads)
        if plan is not None:
            slots = (plan.spare // (q.shape[0] * q.shape[1]))
            parts = q.new_zeros(plan.spare + 1, dim)  # a sum by index_add_ would take rows one by one
            keys, values = history_blocks(k, chunk, history), history_blocks(v, chunk, history)
            past_dk, past_dv = torch.zeros_like(keys), torch.zeros_like(values)
            flat = [x.reshape(-1, dim) for x in (dout, q, out)]
            flat_lse = lse.flatten()
            for group in plan.groups:
                query, place = plan.rows_of(group)
                padding = group.padding.flatten()
                d, x, o = (t[query].view(-1, 1, group.width, dim) for t in flat)
                its_lse = flat_lse[query].masked_fill_(padding, NO_WEIGHT).view(-1, 1, group.width)
                part, past_dk[group.pairs], past_dv[group.pairs] = flash_backward(
                    d, x, keys[group.pairs], values[group.pairs], o, its_lse, 0.0, False, scale=scale)
                parts[place] = part.reshape(-1, dim)
            dq += parts[:-1].view(-1, slots, dim).sum(1).view_as(dq)
            for grad, past in ((dk, past_dk), (dv, past_dv)):
                grad[:, : history * chunk] += past.view(q.shape[0], -1, dim)
        return dq, dk, dv, None, None


def history_blocks(x, chunk, history):
    """[R, T, D] -> [R * (N-1), 1, S, D]."""
    return x[:, : history * chunk].reshape(-1, 1, chunk, x.shape[-1])


@torch.compiler.disable
def moba_attention(q, k, v, chunk, topk):
    """q, k, v [B, H, T, D] -> [B, H, T, D]."""
    flat = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    return Moba.apply(*flat, chunk, topk).view_as(q)
