"""A small sweep in a folder of its own: data, base recipe and sweep file, for the tests here."""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

BASE = """\
run: {{name: base, output_dir: {output}}}
model:
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 2
  vocab_size: 257
  attention:
    type: moba
    moba_chunk_size: 16
    moba_topk: 2
data:
  train: [{{path: {data}}}]
  validation: {data}
train: {{sequence_length: 64, global_batch_tokens: 256, micro_batch_size: 2, max_steps: {steps}, precision: fp32}}
optimizer: {{name: adamw, lr: 3e-3}}
lr_scheduler: {{warmup_steps: 4}}
eval: {{interval: 10, max_tokens: 512, trailing: 16, bins: 4}}
checkpoint: {{interval: 5, keep_last: 1}}
"""

SWEEP = """\
base: {base}
overrides: {{optimizer.weight_decay: 0.05}}
seeds: [1, 2]
arms:
  - {{name: moba, group: moba}}
  - {{name: full, group: full, attn: full}}
  - name: switch
    overrides:
      model.attention.schedule: [{{until: 0.5, type: moba}}, {{until: 1, type: full}}]
margins:
  equivalence: 0.5
  spike: {{steps: 5, sigmas: 3}}
  claims:
    - {{name: moba equals full, kind: equivalent, arm: moba, reference: full}}
    - {{name: no spike, kind: no_spike, arm: switch}}
"""


def make(bin_dir, folder, steps):
    """Writes everything into `folder`; returns the sweep file's path."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / "text.txt", folder / "text.h5"
    text.write_bytes((ROOT / "CMakeLists.txt").read_bytes() * 8)
    subprocess.run([str(bin_dir / "moba-data"), "prepare", "--tokenizer", "byte", "--input", str(text), "--output", str(data)], check=True, capture_output=True)
    base, sweep = folder / "base.yaml", folder / "small.yaml"
    base.write_text(BASE.format(output=folder / "runs", data=data, steps=steps))
    sweep.write_text(SWEEP.format(base=base))
    return sweep
