"""The result as text."""
import os
import pathlib

HEAD = ("case", "precision", "moba tok/s", "PyTorch", "PyTorch tok/s", "ratio", "difference")


def machine():
    """Processor, cores, memory."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown processor")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def difference_of(row):
    if row.difference is None:
        return "other attention"
    return f"{row.difference:.1e}" + ("" if row.agrees else f" TOO LARGE (limit {row.limit:.0e})")


def peaks(rows):
    """Multiply-add peaks that the programs here measured in their runs: the machine's state."""
    found = []
    for row in rows:
        for run in row.detail["ours"]:
            found.append(run["host"]["peak_gflops"] if "host" in run else run["peak_gflops"]["bf16" if row.precision == "bf16" else "f32"])
    return f"{min(found):.0f} to {max(found):.0f} GFLOP/s"


def text(rows, torch):
    lines = [HEAD]
    for row in rows:
        ratio = row.ours_speed / row.theirs_speed
        lines.append((row.case, row.precision, f"{row.ours_speed:.0f}", row.theirs, f"{row.theirs_speed:.0f}", f"{ratio:.2f}", difference_of(row)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    out = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    out += [f"{row.case}, PyTorch {row.theirs}: {row.form}" for row in rows]
    out.append(f"PyTorch {torch['torch']}, {torch['threads']} threads, {torch['capability']}, fused AdamW; its MoBA and loss against plain PyTorch: "
               f"{torch['check']:.0e}")
    out.append(f"machine: {machine()}; multiply-add peak during the runs {peaks(rows)}")
    return "\n".join(out)
