#!/usr/bin/env python3
"""Data-parallel training as a user starts it: mpirun -n P moba-train RECIPE parallel.data=P.

usage: data_parallel.py --bin BUILD/bin CASE...

Cases: same_bits, same_bits_auto, same_bits_all, zero, resume, orphans, started_twice, signals, numeric, wrong_starts, evaluation, faults.
Each trains a small model on bytes of this source tree with several numbers of processes and compares weights, optimizer state and
metrics with tools/compare_runs.
"""
import argparse
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 300  # seconds a run may take

RECIPE = """
run: {{name: small, seed: 11}}
model:
  hidden_size: 32
  intermediate_size: 80
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  vocab_size: 257
  qk_norm: true
  attention:
    key_conv: 3
    moba_chunk_size: 16
    moba_topk: 3
{attention}
data:
  train: [{{path: {data}}}]
  validation: {data}
train: {{sequence_length: 128, global_batch_tokens: 1024, micro_batch_size: 1, max_steps: {steps}}}
optimizer: {{lr: 1e-3}}
lr_scheduler: {{warmup_steps: 5}}
eval: {{interval: 10, max_tokens: 1024, bins: 4, trailing: 16}}
checkpoint: {{interval: 10, keep_last: 0}}
logging: {{interval: 10}}
"""
ATTENTION = {
    "moba": "    type: moba",
    "full": "    type: full",
    "switch": "    schedule: [{until: 0.5, type: moba}, {until: 1, type: full}]",
}


class Failed(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


class Bench:
    """A folder with data and recipes, and how to start runs in it."""

    def __init__(self, binaries, folder):
        self.binaries, self.folder = binaries, folder
        text = folder / "text.txt"
        text.write_bytes((ROOT / "CMakeLists.txt").read_bytes() * 8 + pathlib.Path(__file__).read_bytes() * 8)
        self.data = folder / "text.h5"
        command = [binaries / "moba-data", "prepare", "--tokenizer", "byte", "--input", text, "--output", self.data]
        subprocess.run(command, check=True, capture_output=True)

    def recipe(self, attention="moba", steps=20):
        path = self.folder / f"{attention}-{steps}.yaml"
        path.write_text(RECIPE.format(attention=ATTENTION[attention], data=self.data, steps=steps))
        return path

    def start(self, ranks, recipe, name, *overrides, threads=1, launcher=True):
        command = [self.binaries / "moba-train", recipe, f"run.output_dir={self.folder}", f"run.name={name}", *overrides]
        if ranks > 1:
            command.append(f"parallel.data={ranks}")
        if launcher and ranks > 1:
            command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *command]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def finish(self, process):
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed(f"no end within {LIMIT} s: {' '.join(process.args)}")
        return process.returncode, output

    def output_of_ended(self, process):
        """What mpirun printed, once its ranks have ended. Open MPI 4.1 now and then waits for itself after that (PMIx_server_finalize)."""
        try:
            return process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0]

    def train(self, ranks, recipe, name, *overrides, expect=0, **options):
        code, output = self.finish(self.start(ranks, recipe, name, *overrides, **options))
        check(code == expect, f"{name}: exit code {code}, want {expect}:\n{output[-3000:]}")
        return output

    def same(self, a, b):
        compared = subprocess.run([sys.executable, ROOT / "tools" / "compare_runs", self.folder / a, self.folder / b, "--all"],
                                  capture_output=True, text=True)
        check(compared.returncode == 0, f"{a} and {b} differ:\n{compared.stdout}{compared.stderr}")


def weights_hash(run):
    """SHA-256 over the weights of a run's latest checkpoint in the order of their names, however many files hold them."""
    tensors = {}
    for path in (run / "checkpoints" / "latest").glob("model*.safetensors"):
        data = path.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:begin]).items():
            if name != "__metadata__":
                tensors[name] = data[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]]
    return hashlib.sha256(b"".join(tensors[name] for name in sorted(tensors))).hexdigest()


def same_bits(bench, ranks=(1, 2, 4), attentions=("switch",), precisions=("fp32", "bf16"), steps=20):
    for attention, precision in itertools.product(attentions, precisions):
        recipe = bench.recipe(attention, steps)
        for p in ranks:
            bench.train(p, recipe, f"{attention}-{precision}-{p}", f"train.precision={precision}")
            bench.same(f"{attention}-{precision}-1", f"{attention}-{precision}-{p}")
        hashes = {weights_hash(bench.folder / f"{attention}-{precision}-{p}") for p in ranks}
        check(len(hashes) == 1, f"{attention}, {precision}: hashes differ: {hashes}")
        print(f"{attention}, {precision}: {steps} steps with {ranks} ranks have the same bits, weights {hashes.pop()[:16]}", flush=True)


def same_bits_auto(bench):
    """`auto` gives the same micro-batches, and so the same bits, on any number of ranks; one goes on where another stopped."""
    auto = ("train.micro_batch_size=auto", "train.global_batch_tokens=2048")
    for p in (1, 2, 4):
        bench.train(p, bench.recipe(steps=20), f"auto-{p}", *auto)
        bench.same("auto-1", f"auto-{p}")
    process = bench.start(1, bench.recipe(steps=20), "auto-1-4", *auto)
    interrupt_after(bench, process, "auto-1-4", 10)
    bench.finish(process)
    bench.train(4, bench.recipe(steps=20), "auto-1-4", *auto)
    bench.same("auto-1", "auto-1-4")
    print("micro_batch_size: auto: the same bits with 1, 2 and 4 ranks, resumed on 4", flush=True)


def same_bits_all(bench):
    same_bits(bench, (1, 2, 4, 8), ("moba", "full", "switch"), ("fp32", "bf16"), 50)


def zero(bench):
    """ZeRO-1 gives the bits of plain data parallelism, with AdamW and Muon, in fp32 and bf16."""
    for precision, optimizer in (("fp32", "adamw"), ("bf16", "adamw"), ("bf16", "muon")):
        name = f"{precision}-{optimizer}"
        common = (f"train.precision={precision}", f"optimizer.name={optimizer}")
        bench.train(1, bench.recipe(), f"{name}-plain", *common)
        bench.train(2, bench.recipe(), f"{name}-zero", *common, "parallel.zero_stage=1")
        bench.same(f"{name}-plain", f"{name}-zero")
        print(f"ZeRO-1, {name}: the same bits as one rank", flush=True)


def resume(bench):
    """Stopped after 10 of 20 steps with (ranks, ZeRO stage), gone on with another."""
    setups = [(1, 0), (2, 0), (2, 1), (4, 1)]
    for precision in ("bf16",):
        bench.train(1, bench.recipe(steps=20), "whole", f"train.precision={precision}")
        for before, after in itertools.permutations(setups, 2):
            name = f"r{before[0]}z{before[1]}-r{after[0]}z{after[1]}"
            process = bench.start(before[0], bench.recipe(steps=20), name, f"train.precision={precision}", f"parallel.zero_stage={before[1]}")
            interrupt_after(bench, process, name, 10)
            bench.finish(process)
            bench.train(after[0], bench.recipe(steps=20), name, f"train.precision={precision}", f"parallel.zero_stage={after[1]}")
            bench.same("whole", name)
            print(f"resume, {name}: equal to the undisturbed run", flush=True)


ORPHAN_LIMIT = 0.8  # seconds; Open MPI itself ends ranks without mpirun after one


def orphans(bench):
    """mpirun is killed, its ranks are not: they end by themselves and at once, and the same command goes on."""
    recipe = bench.recipe(steps=400)
    common = ("eval.interval=0", "checkpoint.interval=100")
    bench.train(1, recipe, "undisturbed", *common)
    process = bench.start(2, recipe, "orphans", *common, "parallel.time_limit=2")
    pids = pids_by_rank(process, "orphans", 2)
    wait_for_step(bench, "orphans", 110)
    process.kill()
    killed = time.monotonic()
    while any(alive(pid) for pid in pids):
        check(time.monotonic() - killed < ORPHAN_LIMIT, "a rank goes on without its mpirun")
        time.sleep(0.01)
    output = bench.train(2, recipe, "orphans", *common)
    check("resuming at step 100" in output, f"not resumed:\n{output[-2000:]}")
    bench.same("undisturbed", "orphans")
    print("mpirun killed: its ranks ended at once, the next start went on to the same bits", flush=True)


def started_twice(bench):
    """A second start of a run that is at work is refused and disturbs nothing."""
    first = bench.start(2, bench.recipe(steps=100000), "twice")
    wait_for_step(bench, "twice", 3)
    for ranks in (1, 2):
        output = bench.train(ranks, bench.recipe(steps=100000), "twice", "parallel.time_limit=2", expect=2)
        check(output.count("another moba-train (process") == 1, f"no message, or more than one:\n{output}")
    process_id = int(output.split("kill ")[1].split()[0])
    os.kill(process_id, signal.SIGTERM)
    code, output = bench.finish(first)
    check(code == 75, f"the first start should have been stopped by the command that the second named: exit code {code}:\n{output[-2000:]}")
    print("started twice: the second is refused and names the first", flush=True)


def interrupt_after(bench, process, name, step):
    """Kills the run once the checkpoint of `step` is there."""
    folder = bench.folder / name / "checkpoints" / f"step-{step:08}"
    while process.poll() is None and not folder.exists():
        time.sleep(0.002)
    check(folder.exists(), f"{name} ended without a checkpoint of step {step}")
    with contextlib.suppress(ProcessLookupError):
        process.kill()


FAULT_LIMIT = 4  # seconds a rank waits for another
MARGIN = 8  # seconds more until the last process has ended, on a busy machine


def faults(bench):
    """A rank of moba-train is lost in some way at some moment: the others end with 6 and say so, and the run goes on afterwards."""
    recipe = bench.recipe(steps=40)
    common = ("eval.max_tokens=0", f"parallel.time_limit={FAULT_LIMIT}")
    bench.train(1, recipe, "undisturbed", *common)
    cases = list(enumerate(itertools.product(("start", "step", "save", "evaluation"), FAULTS, (0, 1))))
    # Two at a time: they wait for mpirun and for the limit more than they compute.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda case: lose_rank(bench, recipe, common, f"fault-{case[0]}", *case[1]), cases))
    for number, _ in cases[::5]:  # go on as if nothing had been
        bench.train(2, recipe, f"fault-{number}", *common)
        bench.same("undisturbed", f"fault-{number}")


FAULTS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "aborted": signal.SIGABRT, "out of memory": None}


def lose_rank(bench, recipe, common, name, moment, way, victim):
    process, codes = start_recorded(bench, 2, recipe, name, *common)
    pids = pids_by_rank(process, name, 2)
    wait_for(bench, name, moment)
    struck = time.monotonic()
    if FAULTS[way]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[victim], FAULTS[way])
    else:  # no more memory than it has now
        subprocess.run(["prlimit", "--pid", str(pids[victim]), "--as=1"], check=False)
    other = 1 - victim
    while not (codes / str(other)).exists():
        check(time.monotonic() - struck < FAULT_LIMIT + MARGIN, f"{name} ({moment}, rank {victim} {way}): rank {other} did not end")
        time.sleep(0.01)
    seconds = time.monotonic() - struck
    if way == "stopped":
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[victim], signal.SIGKILL)
    output = bench.output_of_ended(process)
    code = int((codes / str(other)).read_text())
    said = [line for line in output.splitlines() if f"rank {victim}" in line] or ["nothing"]
    check(code == 6, f"{name} ({moment}, rank {victim} {way}): rank {other} ended with {code}, want 6:\n{output[-2000:]}")
    check("lost" in output or "did not start" in output, f"{name} ({moment}, rank {victim} {way}): no message:\n{output[-2000:]}")
    check(not any(alive(pid) for pid in pids), f"{name}: a process is left")
    print(f"{moment}, rank {victim} {way}: rank {other} ended with 6 after {seconds:.2f} s: {said[0]}", flush=True)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start_recorded(bench, ranks, recipe, name, *overrides):
    """As bench.start, and every rank leaves its exit code in a file named by its number."""
    codes = bench.folder / f"{name}-codes"
    codes.mkdir()
    train = [bench.binaries / "moba-train", recipe, f"run.output_dir={bench.folder}", f"run.name={name}", f"parallel.data={ranks}", *overrides]
    script = f'trap : TERM; "$@"; code=$?; echo $code >{codes}/$OMPI_COMM_WORLD_RANK; exit $code'
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "sh", "-c", script, "rank", *train]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    # Its own session, so that mpirun's terminal signals stay here.
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                               start_new_session=True)
    return process, codes


def pids_by_rank(process, name, ranks):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = {}
        for pid in subprocess.run(["pgrep", "-f", f"^[^ ]*moba-train .*run.name={name} "], capture_output=True, text=True).stdout.split():
            with contextlib.suppress(OSError, KeyError):
                pairs = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                found[int(dict(p.split(b"=", 1) for p in pairs if b"=" in p)[b"OMPI_COMM_WORLD_RANK"])] = int(pid)
        if len(found) == ranks:
            return [found[r] for r in range(ranks)]
        time.sleep(0.01)
    raise Failed(f"{name}: {ranks} ranks did not appear")


def wait_for(bench, name, moment):
    folder = bench.folder / name
    deadline = time.monotonic() + 60
    if moment == "start":
        return
    wait_for_step(bench, name, 3)
    while moment != "step" and time.monotonic() < deadline:
        if moment == "save" and list((folder / "checkpoints").glob(".tmp-step-*")):
            return
        if moment == "evaluation" and (folder / "metrics.jsonl").read_text().rstrip().rsplit("\n", 1)[-1].startswith('{"step":10,"tokens"'):
            return


def ranks_of(process):
    """Process ids of the ranks under an mpirun, in the order of their start."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return [int(c) for c in children]


def signals(bench):
    """SIGTERM and SIGUSR1 to one rank act on all."""
    process = bench.start(2, bench.recipe(steps=100000), "signals")
    wait_for_step(bench, "signals", 3)
    os.kill(ranks_of(process)[1], signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not list((bench.folder / "signals" / "checkpoints").glob("step-*")):
        check(time.monotonic() < deadline, "SIGUSR1 to rank 1 saved nothing")
        time.sleep(0.01)
    os.kill(ranks_of(process)[1], signal.SIGTERM)
    code, output = bench.finish(process)
    check(code == 75 and "stopped by a signal" in output, f"SIGTERM to rank 1: exit code {code}, want 75:\n{output[-2000:]}")
    print("signals to rank 1: saved, and stopped with 75", flush=True)


def wait_for_step(bench, name, step):
    path = bench.folder / name / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, ValueError, IndexError):
            if json.loads(path.read_text().splitlines()[-2])["step"] >= step:
                return
        check(time.monotonic() < deadline, f"{name} did not reach step {step}")
        time.sleep(0.01)


def with_nan(bench, name, tensor, row):
    """A copy of the model of run `sound` with one element that is not a number."""
    weights = bench.folder / name
    weights.mkdir()
    for file in ("config.json", "model.safetensors"):
        (weights / file).write_bytes((bench.folder / "sound" / "checkpoints" / "latest" / file).read_bytes())
    with open(weights / "model.safetensors", "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[tensor]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin + row * (end - begin) // entry["shape"][0])
        file.write(b"\xff\xff\xff\x7f")
    return weights


def numeric(bench):
    """A loss that is not finite is the same verdict on all ranks, also where only one of them met it."""
    common = ("eval.interval=0", "checkpoint.interval=1", "model.tie_word_embeddings=false")
    bench.train(1, bench.recipe(steps=1), "sound", *common)
    weights = with_nan(bench, "damaged", "model.norm.weight", 0)
    output = bench.train(2, bench.recipe(), "numeric", f"model.init_from={weights}", *common, expect=4)
    check(output.count("not finite") == 1, f"the verdict should be printed once:\n{output}")
    # A byte that is in one sample alone, so that one lane of one step reads its row of the embedding.
    text = bench.folder / "rare.txt"
    text.write_bytes(b"abcdefgh" * 600 + b"\x01" + b"hgfedcba" * 600)
    data = bench.folder / "rare.h5"
    subprocess.run([bench.binaries / "moba-data", "prepare", "--tokenizer", "byte", "--input", text, "--output", data], check=True,
                   capture_output=True)
    weights = with_nan(bench, "rare", "model.embed_tokens.weight", 1)
    said = set()
    for p in (1, 2, 4):
        output = bench.train(p, bench.recipe(steps=100), f"rare-{p}", f"model.init_from={weights}", f"data.train=[{{path: {data}}}]", *common,
                             expect=4)
        said.update(line for line in output.splitlines() if "not finite" in line)
        check(output.count("not finite") == 1, f"the verdict should be printed once:\n{output}")
    check(len(said) == 1, f"other verdicts with other numbers of ranks: {said}")
    print("a loss that is not finite: exit code 4, said once, whichever rank met it", flush=True)


def wrong_starts(bench):
    for ranks, launcher, overrides, wanted in (
        (2, False, (), "start it with: mpirun -n 2"),
        (2, True, ("parallel.data=1",), "add parallel.data=2"),
        (2, True, ("parallel.lanes=1",), "a rank owns whole lanes"),
        (2, True, ("parallel.zero_stage=2",), "stages 2 and 3"),
        (2, True, ("optimizer.lrr=1",), "did you mean"),
        (2, True, ("data.validation=missing.h5",), "missing.h5 does not exist"),
        (2, True, (f"run.output_dir={bench.data}",), "cannot make the folder"),
    ):
        recipe = bench.recipe()
        process = bench.start(ranks, recipe, "wrong", *overrides, launcher=launcher) if "parallel.data=1" not in overrides else subprocess.Popen(
            ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", str(bench.binaries / "moba-train"), str(recipe)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        code, output = bench.finish(process)
        check(code in (2, 5) and output.count(wanted) == 1, f"{overrides}: exit code {code}, want one message with '{wanted}':\n{output}")
    check(not (bench.folder / "wrong").exists(), "a refused run left a folder behind")
    print("wrong starts: one message each, nothing written", flush=True)


def evaluation(bench):
    """SFT with its evaluation and TensorBoard files: the same figures with any number of ranks."""
    rows = [json.dumps({"messages": [{"role": "user", "content": "count " * (1 + i % 9)}, {"role": "assistant", "content": f"{1 + i % 9} times."}]})
            for i in range(200)]
    text = bench.folder / "chat.jsonl"
    text.write_text("\n".join(rows) + "\n")
    data = bench.folder / "chat.h5"
    command = [bench.binaries / "moba-data", "prepare", "--sft", "--tokenizer", "byte", "--input", text, "--output", data]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    sft = ("task=sft", f"data.train=[{{path: {data}}}]", f"data.validation={data}")
    for p in (1, 2, 4):
        bench.train(p, bench.recipe("moba", 10), f"sft-{p}", *sft)
        bench.same("sft-1", f"sft-{p}")
        check(list((bench.folder / f"sft-{p}" / "tb").iterdir()), "no TensorBoard events")
    print("SFT and its evaluation: the same bits and figures with 1, 2 and 4 ranks", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, help="folder that is kept; otherwise a temporary one")
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    cases = {f.__name__: f for f in (same_bits, same_bits_auto, same_bits_all, zero, resume, orphans, started_twice, signals, numeric, wrong_starts, evaluation, faults)}
    unknown = [c for c in args.cases if c not in cases]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(cases)}")
    with tempfile.TemporaryDirectory(prefix="moba-parallel-") as scratch:
        folder = args.output or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(args.bin, folder)
        for case in args.cases:
            try:
                cases[case](bench)
            except Failed as failure:
                sys.exit(f"{case}: {failure}")


if __name__ == "__main__":
    main()
