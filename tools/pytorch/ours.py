"""Runs this project's programs and reads what they report."""
import dataclasses
import json
import shutil
import subprocess

# Everything PyTorch's side has to know too is set here rather than read from the recipe.
SEED, BETAS, EPS, WEIGHT_DECAY, CLIP, WARMUP = 1, (0.9, 0.95), 1e-8, 0.1, 1.0, 10
COMMON = (
    f"run.seed={SEED} optimizer.name=adamw optimizer.betas=[{BETAS[0]},{BETAS[1]}] optimizer.eps={EPS} optimizer.weight_decay={WEIGHT_DECAY} "
    f"train.grad_clip={CLIP} lr_scheduler.name=constant lr_scheduler.warmup_steps={WARMUP} eval.interval=0 logging.tensorboard=false"
).split()
TEXT_FOLDERS, TEXT_SUFFIXES = ("docs", "kernels", "src", "tests"), (".md", ".h", ".cpp", ".py")
START_TOKENS = 256  # of the one step that makes the first checkpoint


class Failed(Exception):
    pass


@dataclasses.dataclass
class Run:
    losses: list
    seconds: list
    learning_rates: list
    precision: str  # fp32 or bf16
    data_hash: str
    host: dict


class Programs:
    def __init__(self, folder, scratch):
        self.folder, self.scratch = folder, scratch
        missing = [name for name in ("moba-data", "moba-train", "moba-bench", "moba-attention") if not (folder / name).exists()]
        if missing:
            raise Failed(f"{folder} has no {', '.join(missing)}: run 'cmake --preset release && cmake --build --preset release', or give --bin")

    def run(self, name, *arguments):
        done = subprocess.run([self.folder / name, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{name} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}exit code {done.returncode}")
        return done.stdout

    def text_dataset(self, root):
        """This project's own sources as bytes: text that is at hand everywhere, the same for both sides."""
        path = self.scratch / "data/sources.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.scratch / "data/sources.txt"
        files = sorted(p for folder in TEXT_FOLDERS for p in (root / folder).rglob("*") if p.suffix in TEXT_SUFFIXES)
        text.write_bytes(b"\n".join(file.read_bytes() for file in files))
        path.unlink(missing_ok=True)
        self.run("moba-data", "prepare", "--tokenizer", "byte", "--input", text, "--output", path)
        return path

    def train_folder(self, recipe, name, data, overrides):
        shutil.rmtree(self.scratch / "runs" / name, ignore_errors=True)
        self.run("moba-train", recipe, *COMMON, f"run.output_dir={self.scratch / 'runs'}", f"run.name={name}", f"data.train=[{{path: {data}}}]",
                 f"data.validation={data}", *overrides)
        return self.scratch / "runs" / name

    def start(self, recipe, data):
        """A checkpoint with the weights that both sides start from: the recipe's initialisation, moved by one step on a few tokens."""
        tokens = START_TOKENS
        folder = self.train_folder(recipe, f"start-{recipe.stem}", data, [
            "model.attention.type=full", f"train.sequence_length={tokens}", f"train.global_batch_tokens={tokens}", "train.micro_batch_size=1",
            "train.max_steps=1", "checkpoint.interval=1"])
        return folder / "checkpoints/step-00000001"

    def train(self, case, recipe, start, data, steps):
        folder = self.train_folder(recipe, case.name, data, [
            f"model.init_from={start}", f"model.attention.type={case.ours}", f"model.attention.moba_chunk_size={case.chunk_size}",
            f"model.attention.moba_topk={case.topk}", f"model.max_position_embeddings={case.sequence_length}",
            f"train.sequence_length={case.sequence_length}", f"train.global_batch_tokens={case.sequence_length * case.sequences}",
            f"train.micro_batch_size={case.sequences}", f"train.max_steps={steps}", "checkpoint.interval=0",
            f"train.activation_checkpointing={'block' if case.checkpointing else 'none'}"])
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        host = json.loads((folder / "run.json").read_text())
        return Run(
            losses=[line["train/loss"] for line in lines],
            seconds=[line["perf/step_ms"] / 1e3 for line in lines],
            learning_rates=[line["train/learning_rate"] for line in lines],
            precision=host["precision"].split()[0],
            data_hash=host["data"]["train"][0][0][0],
            host={key: host[key] for key in ("git_commit", "cpu", "threads", "kernels", "memory_bytes", "peak_gflops")},
        )

    def precision(self):
        """What `precision: auto` means on this machine."""
        found = json.loads(self.run("moba-bench", "attention", "--seq", 64, "--runs", 1, "--seconds", 0.1, "--json"))
        return "bf16" if found["config"]["kernel"].endswith("bf16") else "fp32"

    def attention(self, case, dtype):
        text = self.run("moba-bench", "attention", "--seq", case.sequence_length, "--heads", case.heads, "--head-dim", case.head_dim, "--chunk-size",
                        case.chunk_size, "--topk", case.topk, "--dtype", dtype, "--json")
        return json.loads(text)

    def attention_of(self, tensors, output, kind, dtype):
        self.run("moba-attention", tensors, output, "--attention", kind, "--dtype", dtype)
