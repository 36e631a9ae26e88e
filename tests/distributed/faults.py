#!/usr/bin/env python3
"""Loses a rank and checks that all others end in time, with exit code 6 and a message that names rank, host, step and collective.

faults.py --victim-program PROGRAM --mpirun MPIRUN [--long] [--only TEXT]

Each rank runs under a wrapper that writes down its exit code, since mpirun reports one for all."""
import argparse
import concurrent.futures
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

LIMIT = 3.0  # seconds, of every wait for another rank
# A loss that is seen (the process ended) ends the run at once; one that is not (stopped, hung) after the limit.
SEEN_MARGIN, LIMIT_MARGIN = 2.0, 4.0

# Writes down a rank's exit code. The rank stays in the process group that mpirun signals; the recorder leaves it, so that mpirun's
# SIGKILL cannot take the answer away.
WRAPPER = r'''
import os, signal, sys, time
folder, command = sys.argv[1], sys.argv[2:]
rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
group = os.getpgrp()
end, begin = os.pipe()
if os.fork() == 0:
    os.setpgid(0, 0)
    child = os.fork()
    if child == 0:
        os.setpgid(0, group)
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}.{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), fd)
        os.close(end)
        os.close(begin)
        os.execv(command[0], command)
    with open(f"{folder}/pid.{rank}", "w") as f:
        f.write(str(child))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(f"{folder}/end.{rank}", "w") as f:
        f.write(f"{code} {time.time()}")
    os.write(begin, bytes([code % 256]))
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: None)
os.close(begin)
os._exit(os.read(end, 1)[0])
'''

# where, how, victim, ranks
QUICK = [("collective", "kill", 1, 3), ("save", "kill", 0, 2), ("step", "memory", 1, 2), ("evaluation", "exit", 2, 3), ("step", "stop", 1, 3)]
LONG = [(where, how, victim, 3) for where in ("step", "collective", "save", "evaluation")
        for how in ("kill", "stop", "exit", "memory", "hang") for victim in (0, 2)]
LONG += [("before_start", how, victim, 3) for how in ("kill", "stop", "exit", "memory", "hang") for victim in (0, 2)]
LONG += [("start", how, victim, 3) for how in ("kill", "stop", "exit") for victim in (0, 2)]
LONG += [("finish", how, 1, 2) for how in ("kill", "stop", "exit")]
LONG += [("collective", how, 3, 8) for how in ("kill", "stop")]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def expected_pattern(where, how, victim, rank):
    """What a surviving rank's message must say."""
    if where in ("before_start", "start"):  # nobody watches yet, or just began to
        return rf"rank \d+ (of \d+ )?on {re.escape(socket.gethostname())}.*Exit code 6"
    why = {"kill": "its process ended", "exit": "its process ended", "memory": "out of memory",
           "stop": "it has not answered", "hang": "it did not enter"}[how]
    host = re.escape(socket.gethostname())
    phase = {"collective": "step", "finish": "finish"}.get(where, where)
    lost = rf"rank {victim} on {host} is lost: {why}.*\(step 5, {phase}.*\); "
    own = rf"rank {rank} on {host} was in (\w+ #\d+ '[^']+' of step \d|step \d, \w+)\. Exit code 6; start the same command again"
    return lost + own


def run(case, args, backend):
    where, how, victim, ranks = case
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        wrapper = os.path.join(folder, "wrapper")
        with open(wrapper, "w") as f:
            f.write(WRAPPER)
        env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                   OMPI_MCA_hwloc_base_binding_policy="none")
        command = [args.mpirun, "-n", str(ranks), sys.executable, "-S", "-E", wrapper, folder, args.victim_program, str(LIMIT), str(victim), where, how] + backend
        begin = time.time()
        mpirun = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            output = mpirun.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            for rank in range(ranks):
                pid = read(f"{folder}/pid.{rank}").strip()
                if pid and alive(pid):
                    problems.append(f"rank {rank} still ran after 60 s")
                    os.kill(int(pid), 9)
            mpirun.kill()
            output = mpirun.communicate()[1]
        struck = re.search(r"struck at ([\d.]+)", read(f"{folder}/err.{victim}"))
        struck = float(struck[1]) if struck else begin
        seen = how in ("kill", "exit", "memory") and not (where in ("before_start", "start") and how == "exit")
        allowed = SEEN_MARGIN if seen else LIMIT + LIMIT_MARGIN
        slowest = 0.0
        for rank in range(ranks):
            if rank == victim:
                continue
            for _ in range(20):  # the recorder outlives mpirun by a moment
                end = read(f"{folder}/end.{rank}").split()
                if len(end) == 2:
                    break
                time.sleep(0.05)
            message = read(f"{folder}/err.{rank}")
            if len(end) != 2:
                problems.append(f"rank {rank} did not end by itself: {message}")
                continue
            slowest = max(slowest, float(end[1]) - struck)
            if end[0] != "6":
                problems.append(f"rank {rank} ended with {end[0]}, not 6: {message}")
            pattern = expected_pattern(where, how, victim, rank)
            if not re.search(pattern, message):
                problems.append(f"rank {rank} says\n    {message.strip()}\n  which does not match\n    {pattern}")
        if slowest > allowed:
            problems.append(f"the last rank ended {slowest:.1f} s after the fault; allowed {allowed:.1f} s")
        if mpirun.returncode == 0:
            problems.append("mpirun ended with 0")
        time.sleep(0.1)
        for rank in range(ranks):
            pid = read(f"{folder}/pid.{rank}").strip()
            if pid and alive(pid):
                problems.append(f"rank {rank}, process {pid}, is left")
                os.kill(int(pid), 9)
        example = read(f"{folder}/err.{0 if victim else 1}").strip()
        if problems and args.verbose:
            print(output)
    print(f"{'FAIL' if problems else 'ok  '} {how:6} in {where:12} rank {victim} of {ranks}: others ended {slowest:6.2f} s after it", flush=True)
    if args.verbose or problems:
        print("    " + example)
    for p in problems:
        print("  " + p)
    return not problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim-program", required=True)
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", help="cases whose 'where how' contains this")
    parser.add_argument("--backend", default="mpi")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    cases = [c for c in (LONG if args.long else QUICK) if not args.only or args.only in f"{c[0]} {c[1]}"]
    # Many cases wait for the time limit, so that a second one beside them costs nothing.
    with concurrent.futures.ThreadPoolExecutor(2 if args.long else 1) as pool:
        failed = sum(not ok for ok in pool.map(lambda case: run(case, args, [args.backend]), cases))
    print(f"{len(cases)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
