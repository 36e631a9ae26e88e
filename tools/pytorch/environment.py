"""The virtual environment with PyTorch, made once under build/pytorch from the package index that pip is set up for."""
import shutil
import subprocess
import sys

PACKAGES = ("torch>=2.4", "numpy", "h5py")
FREE_BYTES = 10e9  # the index may have only the build of PyTorch with CUDA libraries


class Skip(Exception):
    """PyTorch cannot be had here; the text says why."""


def ensure(folder):
    """Path of a Python that has PyTorch."""
    python, complete = folder / "venv/bin/python", folder / "venv/complete"
    if complete.exists():
        return python
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise Skip(f"PyTorch needs 10 GB of free disk in {folder}, which has {free / 1e9:.1f} GB")
    shutil.rmtree(folder / "venv", ignore_errors=True)
    print(f"making an environment with PyTorch in {folder / 'venv'} (several GB to download)", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", folder / "venv"], capture_output=True, text=True)
    if made.returncode != 0:
        raise Skip(f"python3 -m venv failed: {last_line(made)} (on Debian: the package python3-venv)")
    install("no package index is reachable", python, "numpy")  # small, so that this is found at once
    install(f"pip cannot install {' '.join(PACKAGES)}", python, *PACKAGES)
    imported = subprocess.run([python, "-c", "import torch, numpy, h5py"], capture_output=True, text=True)
    if imported.returncode != 0:
        raise Skip(f"PyTorch was installed, but does not start: {last_line(imported)}")
    complete.touch()
    return python


def install(otherwise, python, *packages):
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--retries", "1", *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"{otherwise}: {last_line(done)}")


def last_line(done):
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
