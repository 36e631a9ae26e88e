"""Debian packages as files: downloaded by apt-get, unpacked by dpkg, never installed."""
import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path


class Problem(Exception):
    """One sentence for the user: what is wrong and what to do."""


def explain(error):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {error.filename or 'the corpus'}: free some disk space and run it again"
    return f"{error.filename or 'a file'}: {error.strerror}"


def cache_folder():
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moba-corpus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def apt_get(arguments, folder):
    # As root apt would otherwise warn that its user _apt cannot write here.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "-qq", *arguments]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise Problem("apt-get is missing: the corpora are built from Debian packages, so run it on Debian") from None


def available(names):
    """{package: (file name, bytes, sha256)} as the package lists say."""
    with tempfile.TemporaryDirectory() as empty:  # apt leaves out what the folder already holds
        listing = apt_get(["--print-uris", "download", *names], empty)
    if listing.returncode != 0:
        missing = re.findall(r"(?:locate package|candidates? found for|version of) '?([^\s']+)", listing.stderr)
        which = f" ({', '.join(missing)})" if missing else ""
        raise Problem(f"the package lists lack what is needed{which}: run `apt-get update` as root first (Debian 12, main)")
    found = {}
    for file, size, sha256 in re.findall(r"^'\S+' (\S+) (\d+) SHA256:(\w+)$", listing.stdout, re.M):
        found[file.split("_")[0]] = (file, int(size), sha256)
    lacking = [n for n in names if n not in found]
    if lacking:
        raise Problem(f"apt-get names no download for {', '.join(lacking)}: run `apt-get update` as root first")
    return found


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def need_space(folder, size, what):
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Problem(f"{folder} has {free / 1e6:.0f} MB free, but {what} needs {size / 1e6:.0f} MB: free some space or choose another folder")


def download(names, space, folder):
    """Fetches what the cache lacks; {package: {"version", "sha256"}}."""
    cache, packages = cache_folder(), available(names)
    wanted = {n: p for n, p in packages.items() if not ((cache / p[0]).is_file() and sha256_of(cache / p[0]) == p[2])}
    size = sum(p[1] for p in wanted.values())
    need_space(cache, size, "the download")
    need_space(folder, space, "the corpus")
    if wanted:
        print(f"downloading {size / 1e6:.1f} MB ({', '.join(wanted)}) into {cache}", flush=True)
        fetched = apt_get(["download", *wanted], cache)
        broken = [n for n, p in wanted.items() if not ((cache / p[0]).is_file() and sha256_of(cache / p[0]) == p[2])]
        if broken:
            why = fetched.stderr.strip().splitlines()
            raise Problem(f"the download of {', '.join(broken)} failed: check the network and run it again" + (f" ({why[-1]})" if why else ""))
    return {n: {"version": p[0].split("_")[1].replace("%3a", ":"), "file": p[0], "sha256": p[2]} for n, p in packages.items()}


def unpack(versions, root):
    for package in versions.values():
        result = subprocess.run(["dpkg", "-x", cache_folder() / package["file"], root], capture_output=True, text=True)
        if result.returncode != 0:
            raise Problem(f"{package['file']} cannot be unpacked: {result.stderr.strip()}")
