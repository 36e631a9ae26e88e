#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments, resumes it, and compares the end with an undisturbed run.

usage: kill_resume.py --bin BUILD/bin [--recipe RECIPE.yaml] [--kills 5] [--seed 1] [--output DIR] [-- section.key=value ...]

Without --recipe a small one is made (bf16, two micro-batches per step, MoBA then full attention, prefetch on). For the ten-minute
version give a recipe of that length with checkpoint.interval well below a sixth of its steps; with --together STEPS (its length) both runs
go side by side, for a machine with cores to spare. Exit code 0: equal.
"""
import argparse
import contextlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

SMALL = """
run: {{name: small, seed: 11}}
model:
  hidden_size: 64
  intermediate_size: 160
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  vocab_size: 257
  attention:
    type: moba
    moba_chunk_size: 16
    moba_topk: 3
    schedule: [{{until: 0.5, type: moba}}, {{until: 1, type: full}}]
data:
  train: [{{path: {data}}}]
  validation: {data}
train: {{sequence_length: 128, global_batch_tokens: 512, micro_batch_size: 2, max_steps: {steps}, precision: bf16}}
optimizer: {{name: adamw, lr: 1e-3}}
lr_scheduler: {{name: cosine, warmup_steps: 10}}
eval: {{interval: 10, max_tokens: 512}}
checkpoint: {{interval: 4, keep_last: 2}}
"""


class Trainer:
    def __init__(self, args, recipe, output):
        self.args, self.recipe, self.output = args, recipe, output

    def start(self, name):
        log = open(self.output / f"{name}.console", "a")
        command = [self.args.bin / "moba-train", self.recipe, *self.args.override, f"run.name={name}", f"run.output_dir={self.output}"]
        return subprocess.Popen([str(c) for c in command], stdout=log, stderr=subprocess.STDOUT)

    def whole(self, name):
        """Runs to the end; seconds."""
        begin = time.monotonic()
        self.finish(name, self.start(name))
        return time.monotonic() - begin

    def finish(self, name, process):
        if process.wait() != 0:
            sys.exit(f"moba-train ended with {process.returncode}:\n" + (self.output / f"{name}.console").read_text()[-3000:])

    def last_step_seconds(self, name):
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            return json.loads((self.output / name / "metrics.jsonl").read_text().splitlines()[-2])["perf/step_ms"] / 1000
        return 1

    def steps(self, name):
        """Steps in metrics.jsonl so far; a line cut off by a kill does not count."""
        steps = 0
        try:
            for line in (self.output / name / "metrics.jsonl").read_text().splitlines():
                steps = json.loads(line)["step"]
        except (OSError, ValueError):
            pass
        return steps


def disturbed(trainer, name, step_seconds, total_steps, kills, rng):
    """Kills at a random moment of each of `kills` equal parts of the run, by progress and then by clock."""
    marks = [rng.uniform(k, k + 0.9) / kills * total_steps for k in range(kills)]
    for number, mark in enumerate(marks, 1):
        process = trainer.start(name)
        while process.poll() is None and trainer.steps(name) < mark:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, step_seconds or trainer.last_step_seconds(name)))  # anywhere inside a step, a save or an evaluation
        if process.poll() is not None:
            sys.exit(f"the run ended by itself (exit code {process.returncode}) before kill {number}:\n"
                     + (trainer.output / f"{name}.console").read_text()[-2000:])
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"kill {number} of {kills} after step {trainer.steps(name)} of {total_steps}", flush=True)
    trainer.finish(name, trainer.start(name))


def small_recipe(args, output):
    text = output / "text.txt"
    text.write_bytes((ROOT / "CMakeLists.txt").read_bytes() * 8 + pathlib.Path(__file__).read_bytes() * 8)
    data = output / "text.h5"
    subprocess.run([args.bin / "moba-data", "prepare", "--tokenizer", "byte", "--input", text, "--output", data], check=True, capture_output=True)
    recipe = output / "small.yaml"
    recipe.write_text(SMALL.format(data=data, steps=args.steps))
    return recipe


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--recipe", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60, help="of the small recipe")
    parser.add_argument("--together", type=int, metavar="STEPS", help="run both side by side; steps of the recipe")
    parser.add_argument("--output", type=pathlib.Path, help="folder for both runs, kept; otherwise a temporary one")
    parser.add_argument("override", nargs="*", help="section.key=value")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="moba-kill-") as scratch:
        output = args.output or pathlib.Path(scratch)
        output.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(args, args.recipe or small_recipe(args, output), output)
        if args.together:
            beside = trainer.start("undisturbed")
            disturbed(trainer, "killed", None, args.together, args.kills, rng)
            trainer.finish("undisturbed", beside)
        else:
            seconds = trainer.whole("undisturbed")
            total_steps = trainer.steps("undisturbed")
            print(f"undisturbed: {total_steps} steps in {seconds:.1f} s", flush=True)
            disturbed(trainer, "killed", seconds / total_steps, total_steps, args.kills, rng)
        compared = subprocess.run([sys.executable, ROOT / "tools" / "compare_runs", output / "undisturbed", output / "killed", "--all"])
        return compared.returncode


if __name__ == "__main__":
    sys.exit(main())
