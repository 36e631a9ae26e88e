#!/usr/bin/env python3
"""Kills a small sweep at random moments, starts it again each time, and compares its end with an undisturbed one.

usage: kill_sweep.py --bin BUILD/bin [--kills 5] [--steps 40] [--seed 1]

Kills alternate between SIGTERM (exit code 75), SIGKILL of its training (the sweep is then stopped, before other arms make up for it) and
SIGKILL of moba-sweep alone (its training is told to stop). A stopped sweep leaves a report, and beside a running one another may be asked for.
Equal: results.csv but for speeds and folders, and every run by tools/compare_runs. Exit code 0: all kills happened, and it is equal.
"""
import argparse
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import make_sweep

NOT_COMPARED = ("tokens_per_sec", "folder")
NAMES = [f"{arm}-s{seed}" for seed in (1, 2) for arm in ("moba", "full", "switch")]


class Sweep:
    def __init__(self, bin_dir, file, name, folder):
        self.command = [str(bin_dir / "moba-sweep"), str(file), f"run.name={name}"]
        self.folder = folder / "runs" / name
        self.log = folder / f"{name}.console"

    def report(self):
        """Beside a running sweep."""
        done = subprocess.run([*self.command, "--report"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"--report beside a running sweep ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def start(self):
        return subprocess.Popen(self.command, stdout=open(self.log, "a"), stderr=subprocess.STDOUT)

    def finish(self, report_at=None):
        """report_at: ask for a report as soon as so many lines of metrics are written."""
        process = self.start()
        if report_at is not None:
            while process.poll() is None and self.lines() < report_at:
                time.sleep(0.01)
            self.report()
        code = process.wait()
        if code != 0:
            sys.exit(f"moba-sweep ended with {code}:\n" + self.log.read_text()[-3000:])

    def lines(self):
        """Lines of metrics written so far, of all runs."""
        total = 0
        for name in NAMES:
            try:
                total += (self.folder / name / "metrics.jsonl").read_bytes().count(b"\n")
            except OSError:
                pass
        return total

    def trainings(self, process):
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout.split()
        return [int(pid) for pid in children]

    def results(self):
        with open(self.folder / "results.csv", newline="") as file:
            return [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in csv.DictReader(file)]


def kill(sweep, process, how):
    if how == "training":
        for pid in sweep.trainings(process):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        how = "signal"
    process.send_signal(signal.SIGKILL if how == "sweep" else signal.SIGTERM)
    return process.wait()


def disturbed(sweep, total, kills, rng):
    marks = [rng.uniform(k + 0.1, k + 0.8) / kills * total for k in range(kills)]
    for number, mark in enumerate(marks):
        how = ("signal", "training", "sweep")[number % 3]
        process = sweep.start()
        while process.poll() is None and sweep.lines() < mark:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        if process.poll() is not None:
            sys.exit(f"kill {number + 1} of {kills}: the sweep was over already; give it more --steps")
        code = kill(sweep, process, how)
        print(f"kill {number + 1} of {kills} ({how}) at {sweep.lines()} of {total} lines: code {code}", flush=True)
        if how == "signal" and code != 75:
            sys.exit(f"a stopped sweep must end with 75, not {code}:\n" + sweep.log.read_text()[-2000:])
        if how == "signal" and not (sweep.folder / "report" / "index.html").exists():
            sys.exit("a stopped sweep left no report:\n" + sweep.log.read_text()[-2000:])
    sweep.finish()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bin_dir = args.bin.resolve()
    with tempfile.TemporaryDirectory(prefix="moba-sweep-") as scratch:
        folder = pathlib.Path(scratch)
        file = make_sweep.make(bin_dir, folder, args.steps)
        whole, killed = (Sweep(bin_dir, file, name, folder) for name in ("whole", "killed"))
        begin = time.monotonic()
        whole.finish(report_at=5)
        print(f"undisturbed: {whole.lines()} lines of metrics in {time.monotonic() - begin:.1f} s", flush=True)
        disturbed(killed, whole.lines(), args.kills, random.Random(args.seed))
        for a, b in zip(whole.results(), killed.results(), strict=True):
            if a != b:
                sys.exit(f"results.csv differs: {[(k, a[k], b[k]) for k in a if a[k] != b.get(k)]}")
        for name in NAMES:
            compared = subprocess.run([sys.executable, str(make_sweep.ROOT / "tools" / "compare_runs"), str(whole.folder / name), str(killed.folder / name)],
                                      capture_output=True, text=True)
            if compared.returncode != 0:
                sys.exit(f"{name}: {compared.stdout}{compared.stderr}")
        if not (killed.folder / "report" / "index.html").exists():
            sys.exit("no report: " + killed.log.read_text()[-1000:])
        if ended := json.loads((killed.folder / "sweep.json").read_text()).get("ended"):
            sys.exit(f"sweep.json still says that runs ended early: {ended}")
        print(f"equal: {len(NAMES)} runs, results.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
