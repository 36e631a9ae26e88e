"""The PyTorch side, a process that stays: reads one JSON object a line from standard input, answers one a line on standard output.

Staying pays for compilation once; between its turns it sleeps.
"""
import ctypes
import json
import os
import pathlib
import platform
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/parity"))
from safetensors_file import read_tensors  # noqa: E402

from batches import Batches  # noqa: E402
from check import check  # noqa: E402
from compiling import choose_form  # noqa: E402
from llama import Llama, full_attention  # noqa: E402
from moba import moba_attention  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Trainer:
    """One case's model; every run of it starts from the checkpoint."""

    def __init__(self):
        self.model, self.checkpoint, self.forms = None, None, {}

    def load(self, checkpoint):
        weights = read_tensors(pathlib.Path(checkpoint) / "model.safetensors")
        if self.checkpoint == checkpoint:
            self.model.set_weights(weights)
            return
        config = json.loads((pathlib.Path(checkpoint) / "config.json").read_text())
        self.model, self.checkpoint, self.forms = Llama(config, weights), checkpoint, {}

    def run(self, job):
        self.load(job["checkpoint"])
        model, dtype = self.model, DTYPES[job["precision"]]
        key = (job["attention"], job["sequence_length"], job["sequences"], job["checkpointing"], dtype)
        if key not in self.forms:
            attend = model.attention(job["attention"], job["chunk_size"], job["topk"])
            self.forms[key] = attend, choose_form(model, attend, dtype, job["sequences"], job["sequence_length"])
        attend, form = self.forms[key]  # the same function object every time, else it is compiled again
        model.block, model.piece = form.block, form.piece
        batches = Batches(job["data"], int(job["data_hash"], 16), job["seed"], job["sequence_length"], job["sequences"])
        optimizer = model.optimizer(job["betas"], job["eps"], job["weight_decay"])
        losses, seconds = [], []
        for step, lr in enumerate(job["learning_rates"]):
            begin = time.perf_counter()
            tokens, targets = batches[step]
            loss = model.loss(tokens, targets, attend, dtype, job["checkpointing"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.weights.values(), job["clip"])
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - begin)
        del optimizer, loss
        ctypes.CDLL(None).malloc_trim(0)  # the other programs need the memory while this one waits
        return {"losses": losses, "seconds": seconds, "form": form.text}


def attention_inputs(job):
    generator = torch.Generator().manual_seed(0)
    shape = (1, job["heads"], job["sequence_length"], job["head_dim"])
    return [torch.randn(shape, generator=generator).to(DTYPES[job["precision"]]) for _ in range(3)]


def attention_kinds(job):
    return {"full": full_attention, "moba": lambda q, k, v: moba_attention(q, k, v, job["chunk_size"], job["topk"])}


def write_attention_inputs(job):
    import h5py

    with h5py.File(job["path"], "w") as file:
        for name, x in zip("qkv", attention_inputs(job)):
            file[name] = x[0].transpose(0, 1).contiguous().float().numpy()
        file["cu_seqlens"] = torch.tensor([0, job["sequence_length"]], dtype=torch.int32).numpy()
        file.attrs["moba_chunk_size"], file.attrs["moba_topk"] = job["chunk_size"], job["topk"]
    return {}


def attention_error(job):
    """Relative RMS difference of this side's output from the one in a file."""
    import h5py

    with h5py.File(job["path"]) as file:
        theirs = torch.from_numpy(file["out"][()]).transpose(0, 1)[None]
    with torch.no_grad():
        ours = attention_kinds(job)[job["attention"]](*attention_inputs(job)).float()
    return {"error": float((ours - theirs).double().norm() / theirs.double().norm())}


def time_attention(job):
    inputs, attend, seconds = attention_inputs(job), attention_kinds(job)[job["attention"]], []
    with torch.no_grad():
        attend(*(x[:, :, : min(1024, job["sequence_length"])] for x in inputs))
        for _ in range(job["runs"]):
            begin = time.perf_counter()
            attend(*inputs)
            seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds}


def describe(_):
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    errors = check()
    return {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(), "check": max(errors.values())}


def main():
    trainer = Trainer()
    work = {"describe": describe, "train": trainer.run, "write_attention_inputs": write_attention_inputs, "attention_error": attention_error,
            "time_attention": time_attention}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    for line in sys.stdin:
        job = json.loads(line)
        answers.write(json.dumps(work[job.pop("do")](job)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
