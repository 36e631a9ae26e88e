"""The batches that moba-train's loader gives, from the documented order: src/data/permutation.h, concat packing, one file.

Sample n of epoch n / count is the stretch of T+1 tokens at T * permutation(n % count).
"""
import h5py
import numpy
import torch

MASK64 = (1 << 64) - 1
ROUNDS = 6  # of the Feistel network


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def permuted(index, count, seed, data_hash, epoch):
    """A Feistel network over the smallest 4^b >= count; what falls outside walks on until it is inside."""
    bits = 1
    while 1 << (2 * bits) < count:
        bits += 1
    state, keys = mix(mix(mix(seed) ^ data_hash) ^ epoch), []
    for _ in range(ROUNDS):
        state = mix(state)
        keys.append(state)
    mask = (1 << bits) - 1
    while True:
        left, right = index >> bits, index & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        index = left << bits | right
        if index < count:
            return index


class Batches:
    def __init__(self, path, data_hash, seed, sequence_length, sequences):
        with h5py.File(path) as file:
            self.tokens = file["tokens"][()].reshape(-1)
        self.hash, self.seed, self.length, self.sequences = data_hash, seed, sequence_length, sequences
        self.count = (len(self.tokens) - 1) // sequence_length

    def __getitem__(self, step):
        """Inputs and targets [B, T] of a step, the first being 0."""
        rows = []
        for n in range(step * self.sequences, (step + 1) * self.sequences):
            at = self.length * permuted(n % self.count, self.count, self.seed, self.hash, n // self.count)
            rows.append(self.tokens[at : at + self.length + 1])
        both = torch.from_numpy(numpy.stack(rows).astype(numpy.int64))
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()
