"""The Linux kernel's core and documentation, read once from the source package's archive."""
import re
import tarfile

from corpus_parts.packages import Problem

CORE = ("block", "crypto", "fs", "init", "io_uring", "ipc", "kernel", "lib", "mm", "net", "security", "virt")
HELD_OUT = ("fs/ext4", "fs/proc", "kernel/locking", "lib/crypto", "mm/damon", "net/sctp", "security/keys")
_WANTED = re.compile(r"linux-source-[^/]+/((?:%s)/.*\.[ch]|Documentation/.*\.(?:rst|txt))" % "|".join(CORE))


def is_held_out(name):
    path = name.removeprefix("linux/").removesuffix(".txt")
    return any(path == folder or path.startswith(folder + "/") for folder in HELD_OUT)


def unpack(root):
    """Takes only what is used out of the archive (a tenth of it)."""
    archives = sorted(root.glob("usr/src/linux-source-*.tar.xz"))
    if not archives:
        raise Problem("the package linux-source-6.1 holds no source archive")
    with tarfile.open(archives[0], "r|xz") as archive:
        for member in archive:
            match = _WANTED.fullmatch(member.name) if member.isfile() else None
            if match:
                path = root / "linux" / match.group(1)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    archives[0].unlink()


def _read(root, folder, suffixes):
    base = root / "linux"
    for path in sorted((base / folder).rglob("*")):
        if path.suffix in suffixes and path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            if text.strip():
                yield str(path.relative_to(base)), text


def documentation(root):
    for name, text in _read(root, "Documentation", (".rst", ".txt")):
        yield f"linux/{name}", text


def core_files(root):
    for folder in CORE:
        for name, text in _read(root, folder, (".c", ".h")):
            yield f"linux/{name}.txt", text


def folders(root):
    """One document per folder of the first two levels: its files in path order, each below a line with its path."""
    documents = {}
    for name, text in core_files(root):
        path = name.removeprefix("linux/").removesuffix(".txt")
        folder = "/".join(path.split("/")[:-1][:2])
        documents.setdefault(folder, []).append(f"/* ==> {path} <== */\n{text.rstrip()}\n")
    for folder, parts in sorted(documents.items()):
        yield f"linux/{folder}.txt", "\n".join(parts)
