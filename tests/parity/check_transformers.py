#!/usr/bin/env python3
"""Parity with Hugging Face: from_pretrained of our checkpoint gives our logits, save_pretrained is read back bit for bit, and our
tokenizer.json gives the same ids in `tokenizers`.

usage: check_transformers.py --bin BUILD/bin      exit code 77: skipped, a package is missing

Packages (none of them needed by the project): pip install torch transformers tokenizers safetensors h5py
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    import h5py
    import torch
    import tokenizers
    import transformers
except ImportError as error:
    print(f"skipped: {error}; pip install torch transformers tokenizers safetensors h5py")
    sys.exit(77)

from safetensors_file import read_tensors

RECIPE = """
run: {{name: {name}, output_dir: {out}, seed: 3}}
model:
  hidden_size: 64
  intermediate_size: 160
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  vocab_size: {vocab}
  max_position_embeddings: 256
  tie_word_embeddings: {tied}
  qk_norm: {qk_norm}
  rope_theta: 50000
  rope_scaling: {{rope_type: llama3, factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 64}}
  attention: {{type: moba, moba_chunk_size: 32, moba_topk: 3}}
data:
  train: [{{path: {data}}}]
train: {{sequence_length: 256, global_batch_tokens: 512, micro_batch_size: 2, max_steps: 3, precision: fp32}}
optimizer: {{name: adamw, lr: 1e-3}}
lr_scheduler: {{name: constant, warmup_steps: 0}}
checkpoint: {{interval: 3, keep_last: 1}}
"""

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune — 1813 — must be in want of a wife.\n"
ODD = ["", " ", "  two  spaces", "naïve café 日本語 🙂", "line\n\nline\t\ttab", "don't can't we'll 3.14159 1234567", "\x00\x01control", "x" * 300]


def run(program, *arguments):
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{program} {' '.join(map(str, arguments))}\n{result.stdout}{result.stderr}exit code {result.returncode}")


class Report:
    failed = False

    def check(self, what, good, detail=""):
        self.failed |= not good
        print(f"{'ok  ' if good else 'FAIL'} {what} {detail}", flush=True)


def check_logits(report, args, checkpoint, tokens, scratch, name):
    dump_path = scratch / "dump.h5"
    run(args.bin / "moba-eval", "dump", checkpoint, "--attn", "full", "--tokens", tokens, "--output", dump_path, "--sequence-length", 256)
    with h5py.File(dump_path) as file:
        ids, ours = torch.from_numpy(file["tokens"][()]).long(), torch.from_numpy(file["logits"][()])
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32)
    with torch.no_grad():
        theirs = model(ids[None]).logits[0]
    error = float((ours - theirs).double().norm() / theirs.double().norm())
    report.check(f"{name}: {type(model).__name__} logits", error <= 1e-4, f"{error:.2e}")

    saved = scratch / f"{name}-saved"
    model.save_pretrained(saved)
    exported = scratch / f"{name}-exported"
    run(args.bin / "moba-eval", "export", "--dtype", "f32", saved, exported)
    before, after = read_tensors(checkpoint / "model.safetensors"), read_tensors(exported / "model.safetensors")
    same = before.keys() == after.keys() and all(before[n].tobytes() == after[n].tobytes() for n in before)
    report.check(f"{name}: save_pretrained read back bit for bit", same, f"{len(before)} tensors")

    half = scratch / f"{name}-bf16"
    run(args.bin / "moba-eval", "export", "--dtype", "bf16", checkpoint, half)
    exported_model = transformers.AutoModelForCausalLM.from_pretrained(half, torch_dtype="auto")
    same = all(torch.equal(p, model.state_dict()[n].to(torch.bfloat16)) for n, p in exported_model.state_dict().items())
    report.check(f"{name}: bf16 export", same and next(exported_model.parameters()).dtype == torch.bfloat16)


def check_tokenizer(report, scratch, tokenizer_json, tokens):
    theirs = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    with h5py.File(tokens) as file:
        ids, offsets = file["tokens"][()].tolist(), file["document_offsets"][()].tolist()
        eos = int(file.attrs["eos_token_id"])
    texts = sorted((scratch / "texts").iterdir())
    got = [theirs.encode(path.read_bytes().decode(), add_special_tokens=False).ids + [eos] for path in texts]
    want = [ids[begin:end] for begin, end in zip(offsets[:-1], offsets[1:])]
    report.check("tokenizer.json gives the same ids in `tokenizers`", sorted(got) == sorted(want), f"{len(ids)} tokens")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="moba-transformers-") as folder:
        scratch = pathlib.Path(folder)
        (scratch / "texts").mkdir()
        for i, text in enumerate([TEXT * 60, *[t for t in ODD if t]]):
            (scratch / "texts" / f"{i}.txt").write_text(text)
        tokenizer = scratch / "tokenizer.json"
        run(args.bin / "moba-data", "tokenizer", "train", "--vocab-size", 400, "--input", scratch / "texts", "--output", tokenizer)
        tokens = scratch / "tokens.h5"
        run(args.bin / "moba-data", "prepare", "--tokenizer", tokenizer, "--input", scratch / "texts", "--output", tokens)
        check_tokenizer(report, scratch, tokenizer, tokens)
        for name, tied, qk_norm in (("llama", "false", "false"), ("llama-tied", "true", "false"), ("qwen3", "false", "true")):
            if name == "qwen3" and not hasattr(transformers, "Qwen3ForCausalLM"):
                print(f"skipped: qwen3, transformers {transformers.__version__} does not have it")
                continue
            recipe = scratch / f"{name}.yaml"
            recipe.write_text(RECIPE.format(name=name, out=scratch, vocab=512, tied=tied, qk_norm=qk_norm, data=tokens))
            run(args.bin / "moba-train", recipe)
            check_logits(report, args, scratch / name / "checkpoints" / "step-00000003", tokens, scratch, name)
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
