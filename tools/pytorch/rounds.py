"""One case: every program in turn, round after round, so that what the machine does meanwhile meets all alike."""
import dataclasses
import json
import os
import statistics
import subprocess

import ours

LOSS_LIMIT = 5e-3
CALLS = 3  # of attention in a round
# Relative RMS of attention outputs. MoBA's choice may differ where two scores are equal but for rounding, and then whole rows do.
OUTPUT_LIMITS = {("fp32", "full"): 1e-5, ("fp32", "moba"): 2e-2, ("bf16", "full"): 1e-2, ("bf16", "moba"): 4e-2}
# Settings of BLAS libraries that this machine's user may have made for other programs; PyTorch runs with its own.
BLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# glibc gives large buffers back to the system at once, so every step would fault them in again; users of PyTorch on CPUs avoid that.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


class Worker:
    """The PyTorch process of one case."""

    def __init__(self, python, script):
        environment = {k: v for k, v in os.environ.items() if k not in BLAS_SETTINGS} | KEEP_MEMORY
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(script.parents[2] / "build/pytorch/compiled")
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, do, **job):
        try:
            self.process.stdin.write(json.dumps({"do": do, **job}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ours.Failed(f"the PyTorch process ended while it did '{do}' (exit code {self.process.wait()}); its last lines are above")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


@dataclasses.dataclass
class Row:
    """One line of the table."""

    case: str
    theirs: str
    precision: str
    ours_speed: float  # tokens per second
    theirs_speed: float
    difference: float | None  # of the losses, or relative of the outputs; None where the two compute different things
    limit: float | None
    form: str
    detail: dict

    @property
    def agrees(self):
        return self.difference is None or self.difference <= self.limit


def kept(runs):
    """The steps that count: the first of a process allocates and compiles, so it counts only where nothing else is there."""
    steps = []
    for number, seconds in enumerate(runs):
        steps += seconds[1:] or (seconds if number > 0 or len(runs) == 1 else [])
    return steps


def train_case(case, programs, worker, root, data, say):
    recipe = root / case.recipe
    start = programs.start(recipe, data)
    mine, theirs = [], {kind: [] for kind in case.theirs}
    for number, steps in enumerate(case.rounds, 1):
        run = programs.train(case, recipe, start, data, steps)
        mine.append(run)
        say(f"{case.name}: round {number} of {len(case.rounds)}, {steps} steps: moba-train {statistics.median(kept([run.seconds])):.2f} s a step")
        for kind in case.theirs:
            answer = worker.ask("train", checkpoint=str(start), data=str(data), data_hash=run.data_hash, seed=ours.SEED, attention=kind,
                                precision=run.precision, sequence_length=case.sequence_length, sequences=case.sequences,
                                checkpointing=case.checkpointing, chunk_size=case.chunk_size, topk=case.topk, betas=ours.BETAS, eps=ours.EPS,
                                weight_decay=ours.WEIGHT_DECAY, clip=ours.CLIP, learning_rates=run.learning_rates)
            theirs[kind].append(answer)
            say(f"{case.name}: round {number}: PyTorch {kind} {statistics.median(kept([answer['seconds']])):.2f} s a step, {answer['form']}")
    tokens = case.sequence_length * case.sequences
    speed = lambda runs: tokens / statistics.median(kept(runs))  # noqa: E731
    rows = []
    for kind in case.theirs:
        same = kind == case.ours
        rows.append(Row(
            case=case.name, theirs=kind, precision=mine[0].precision, ours_speed=speed([run.seconds for run in mine]),
            theirs_speed=speed([run["seconds"] for run in theirs[kind]]),
            difference=abs(mine[0].losses[-1] - theirs[kind][0]["losses"][-1]) if same else None, limit=LOSS_LIMIT if same else None,
            form=theirs[kind][0]["form"],
            detail={"case": dataclasses.asdict(case), "ours": [dataclasses.asdict(run) for run in mine], "pytorch": theirs[kind],
                    "largest_loss_difference": max(abs(a - b) for a, b in zip(mine[0].losses, theirs[kind][0]["losses"]))}))
    return rows


def attention_case(case, programs, worker, say):
    precision = programs.precision()
    dtype = {"fp32": "f32", "bf16": "bf16"}[precision]
    job = {"sequence_length": case.sequence_length, "heads": case.heads, "head_dim": case.head_dim, "chunk_size": case.chunk_size,
           "topk": case.topk, "precision": precision}
    tensors, output = programs.scratch / "attention_in.h5", programs.scratch / "attention_out.h5"
    worker.ask("write_attention_inputs", path=str(tensors), **job)
    errors = {}
    for kind in ("moba", "full"):
        programs.attention_of(tensors, output, kind, dtype)
        errors[kind] = worker.ask("attention_error", path=str(output), attention=kind, **job)["error"]
    mine, seconds = [], {"moba": [], "full": []}
    for number in range(1, case.rounds + 1):
        mine.append(programs.attention(case, dtype))
        for kind, times in seconds.items():
            times += worker.ask("time_attention", attention=kind, runs=CALLS, **job)["seconds"]
        here = ", ".join(f"{kind} {mine[-1][kind]['forward_ms']:.1f} ms" for kind in seconds)
        there = ", ".join(f"{kind} {1e3 * statistics.median(times[-CALLS:]):.1f} ms" for kind, times in seconds.items())
        say(f"{case.name}: round {number} of {case.rounds}: here {here}; PyTorch {there}")
    here = statistics.median(run["moba"]["forward_ms"] for run in mine) / 1e3
    return [
        Row(case=case.name, theirs=kind, precision=precision, ours_speed=case.sequence_length / here,
            theirs_speed=case.sequence_length / statistics.median(times), difference=errors[kind], limit=OUTPUT_LIMITS[precision, kind], form="eager",
            detail={"case": dataclasses.asdict(case), "ours": mine, "pytorch_seconds": times})
        for kind, times in seconds.items()
    ]
