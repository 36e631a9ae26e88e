#!/usr/bin/env python3
"""Parity with PyTorch: a checkpoint read by an independent reader into a plain PyTorch Llama.

Logits to 1e-4 relative RMS, loss to 1e-5, every gradient to 1e-4, weights after ten AdamW steps to 1e-5 (all fp32); the selection
of MoBA layers comes from `moba-eval dump` and, separately, agrees with PyTorch's own wherever the scores leave no doubt.

usage: check_pytorch.py --bin BUILD/bin      exit code 77: skipped, a package is missing
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy
    import torch
except ImportError as error:
    print(f"skipped: {error}; the Debian packages are python3-torch, python3-h5py and python3-numpy")
    sys.exit(77)

from plain_llama import PlainLlama, moba_scores
from safetensors_file import read_tensors

SEQUENCE, SEQUENCES, CHUNK, TOPK, STEPS = 192, 4, 32, 3, 10
LR, DECAY, BETAS, EPS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1e-8, 1.0

RECIPE = """
run: {{name: {name}, output_dir: {out}, seed: 3}}
model:
  hidden_size: 64
  intermediate_size: 160
  num_hidden_layers: 3
  num_attention_heads: 4
  num_key_value_heads: {kv_heads}
  vocab_size: 257
  max_position_embeddings: {sequence}
  rms_norm_eps: 1e-5
  tie_word_embeddings: {tied}
  qk_norm: {qk_norm}
  {init_from}
  attention: {{type: {attention}, moba_chunk_size: {chunk}, moba_topk: {topk}}}
data:
  train: [{{path: {data}}}]
train:
  sequence_length: {sequence}
  global_batch_tokens: {batch}
  micro_batch_size: 2
  max_steps: {steps}
  precision: fp32
  grad_clip: {clip}
optimizer: {{name: adamw, lr: {lr}, betas: [0.9, 0.95], eps: {eps}, weight_decay: {decay}}}
lr_scheduler: {{name: constant, warmup_steps: 0}}
checkpoint: {{interval: 1, keep_last: 100}}
"""


class Model:
    """One shape of model, trained one step for its start and then ten more from there with a fresh optimizer."""

    def __init__(self, args, scratch, name, attention, **shape):
        self.bin, self.scratch, self.name, self.attention = args.bin, scratch, name, attention
        self.data = scratch / "train.h5"
        self.start = self.train(f"{name}-start", 1, "", **shape) / "step-00000001"
        self.steps = self.train(f"{name}-ten", STEPS, f"init_from: {self.start}", **shape)

    def program(self, name, *arguments):
        result = subprocess.run([self.bin / name, *map(str, arguments)], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{name} {' '.join(map(str, arguments))}\n{result.stdout}{result.stderr}exit code {result.returncode}")

    def train(self, name, steps, init_from, kv_heads, tied, qk_norm):
        recipe = self.scratch / f"{name}.yaml"
        recipe.write_text(RECIPE.format(name=name, out=self.scratch, kv_heads=kv_heads, tied=tied, qk_norm=qk_norm, attention=self.attention,
                                        chunk=CHUNK, topk=TOPK, data=self.data, sequence=SEQUENCE, batch=SEQUENCE * SEQUENCES, steps=steps,
                                        clip=CLIP, lr=LR, eps=EPS, decay=DECAY, init_from=init_from))
        self.program("moba-train", recipe)
        return self.scratch / name / "checkpoints"

    def dump(self, checkpoint, *more):
        path = self.scratch / "dump.h5"
        self.program("moba-eval", "dump", checkpoint, "--tokens", self.data, "--output", path, "--sequence-length", SEQUENCE,
                     "--sequences", SEQUENCES, "--selected", *more)
        with h5py.File(path) as file:
            dump = {key: torch.from_numpy(file[key][()]) for key in ("tokens", "targets", "positions", "logits", "loss", "cu_seqlens")}
            dump["selected"] = {int(layer): torch.from_numpy(value[()]) for layer, value in file.get("selected", {}).items()}
            dump["gradients"] = {name: torch.from_numpy(value[()]) for name, value in file.get("gradients", {}).items()}
        return dump

    def plain(self, checkpoint):
        config = json.loads((checkpoint / "config.json").read_text())
        return PlainLlama(config, read_tensors(checkpoint / "model.safetensors"))


def relative_rms(got, want):
    if not torch.isfinite(got).all():
        return float("inf")
    return float((got - want).double().norm() / want.double().norm())


class Report:
    def __init__(self):
        self.failed = False

    def check(self, what, error, limit):
        good = error <= limit
        self.failed |= not good
        print(f"{'ok  ' if good else 'FAIL'} {what}: {error:.2e} (at most {limit:.0e})", flush=True)


def loss_of(plain, dump):
    logits = plain.logits(dump["tokens"].long(), dump["positions"], dump["cu_seqlens"].tolist(), dump["selected"])
    targets = dump["targets"].long()
    return logits, torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1)


def check_pass(report, model):
    dump, plain = model.dump(model.start, "--gradients"), model.plain(model.start)
    if (model.attention == "moba") != bool(dump["selected"]):
        sys.exit(f"{model.name}: a dump of {model.attention} attention has {len(dump['selected'])} selections")
    logits, loss = loss_of(plain, dump)
    loss.backward()
    report.check(f"{model.name}: logits", relative_rms(dump["logits"], logits.detach()), 1e-4)
    report.check(f"{model.name}: loss", abs(dump["loss"].item() - loss.item()) / loss.item(), 1e-5)
    if dump["gradients"].keys() != plain.weights.keys():
        sys.exit(f"{model.name}: gradients of {dump['gradients'].keys() ^ plain.weights.keys()} are in one of the two only")
    errors = {name: relative_rms(grad, plain.weights[name].grad) for name, grad in dump["gradients"].items()}
    worst = max(errors, key=errors.get)
    report.check(f"{model.name}: {len(errors)} gradients, worst {worst}", errors[worst], 1e-4)
    check_selection(report, model, dump, plain)


def check_selection(report, model, dump, plain):
    """PyTorch's own choice, wherever the K-1st and the next score differ by more than 1e-4 of the largest."""
    compared = doubtful = wrong = 0
    bounds = dump["cu_seqlens"].tolist()
    for layer, selected in dump["selected"].items():
        q, k = plain.seen[layer]
        for begin, end in zip(bounds[:-1], bounds[1:]):
            scores = moba_scores(q[begin:end], k[begin:end], CHUNK)
            order = scores.sort(-1, descending=True)
            for t in range(end - begin):
                own = t // CHUNK
                for head in range(scores.shape[1]):
                    values = order.values[t, head][:own]
                    if len(values) > TOPK - 1:
                        if values[TOPK - 2] - values[TOPK - 1] <= 1e-4 * values.abs().max():
                            doubtful += 1
                            continue
                    want = {own, *order.indices[t, head][: min(own, TOPK - 1)].tolist()}
                    got = set(selected[begin + t, head].tolist()) - {-1}
                    compared += 1
                    wrong += got != want
    if dump["selected"]:
        report.check(f"{model.name}: {compared} selections ({doubtful} too close to call), wrong", wrong, 0)


def check_ten_steps(report, model):
    plain = model.plain(model.start)
    names = list(plain.weights)
    groups = [{"params": [plain.weights[n] for n in names if plain.decayed(n)], "weight_decay": DECAY},
              {"params": [plain.weights[n] for n in names if not plain.decayed(n)], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    checkpoints = [model.start] + [model.steps / f"step-{step:08}" for step in range(1, STEPS + 1)]
    dump = model.dump(model.start)
    for before in checkpoints[:-1]:
        if model.attention == "moba":  # the selection moves with the weights
            dump = model.dump(before)
        optimizer.zero_grad()
        loss_of(plain, dump)[1].backward()
        torch.nn.utils.clip_grad_norm_(plain.weights.values(), CLIP)
        optimizer.step()
    ours, start = read_tensors(checkpoints[-1] / "model.safetensors"), read_tensors(model.start / "model.safetensors")
    errors = {name: relative_rms(torch.from_numpy(ours[name]), plain.weights[name].detach()) for name in names}
    worst = max(errors, key=errors.get)
    moved = max(relative_rms(torch.from_numpy(ours[name]), torch.from_numpy(start[name])) for name in names)
    report.check(f"{model.name}: weights after {STEPS} AdamW steps (moved by {moved:.1e}), worst {worst}", errors[worst], 1e-5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="moba-parity-") as folder:
        scratch = pathlib.Path(folder)
        # Exactly the tokens of one global batch, so that every step sees the same samples in whatever order.
        text = numpy.random.default_rng(5).choice(list(b"etaoin shrdlu,."), SEQUENCE * SEQUENCES).astype("u1").tobytes()
        (scratch / "text.txt").write_bytes(text)
        subprocess.run([args.bin / "moba-data", "prepare", "--tokenizer", "byte", "--input", scratch / "text.txt", "--output", scratch / "train.h5"],
                       check=True, capture_output=True)
        for name, attention, shape in (("full", "full", {"kv_heads": 2, "tied": "false", "qk_norm": "false"}),
                                       ("moba", "moba", {"kv_heads": 2, "tied": "false", "qk_norm": "false"}),
                                       ("moba tied qk-norm", "moba", {"kv_heads": 4, "tied": "true", "qk_norm": "true"})):
            model = Model(args, scratch, name.replace(" ", "-"), attention, **shape)
            check_pass(report, model)
            check_ten_steps(report, model)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
