"""Novels, the Bible, books and manuals as plain text."""
import gzip
import html.parser
import os
import re
import struct
import subprocess
import zlib

from corpus_parts.packages import Problem

BIBLE_BOOKS = """Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|1 Samuel|2 Samuel|1 Kings|2 Kings|1 Chronicles|2 Chronicles|Ezra|
Nehemiah|Esther|Job|Psalms|Proverbs|Ecclesiastes|Song of Solomon|Isaiah|Jeremiah|Lamentations|Ezekiel|Daniel|Hosea|Joel|Amos|Obadiah|Jonah|Micah|
Nahum|Habakkuk|Zephaniah|Haggai|Zechariah|Malachi|Matthew|Mark|Luke|John|Acts|Romans|1 Corinthians|2 Corinthians|Galatians|Ephesians|Philippians|
Colossians|1 Thessalonians|2 Thessalonians|1 Timothy|2 Timothy|Titus|Philemon|Hebrews|James|1 Peter|2 Peter|1 John|2 John|3 John|Jude|
Revelation""".replace("\n", "").split("|")


def r_strings(data):
    """The character vector of one serialised R object (XDR, version 3)."""
    if data[:2] != b"X\n":
        raise Problem("r-cran-janeaustenr has an unknown format")
    encoding_length = struct.unpack(">i", data[14:18])[0]
    at = 18 + encoding_length
    flags, count = struct.unpack(">ii", data[at:at + 8])
    if flags & 0xFF != 16:
        raise Problem("r-cran-janeaustenr holds something else than texts")
    at += 8
    for _ in range(count):
        flags, length = struct.unpack(">ii", data[at:at + 8])
        if flags & 0xFF != 9:
            raise Problem("r-cran-janeaustenr has an unknown format")
        at += 8
        yield data[at:at + max(length, 0)].decode()
        at += max(length, 0)


def austen(root):
    """(title, text) of the six novels. The lazy-load database is a row of zlib streams, each after a 4-byte length."""
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    while data:
        stream = zlib.decompressobj()
        text = "\n".join(r_strings(stream.decompress(data[4:]))).strip() + "\n"
        title = re.sub(r"[^a-z]+", "_", text.split("\n", 1)[0].lower()).strip("_")
        yield title, text
        data = stream.unused_data


def bible(root):
    """(book, [verses of chapter 1, ...]) in order."""
    libraries = os.pathsep.join(str(p.parent) for p in root.glob("**/libreadline.so.8"))
    try:
        run = subprocess.run([root / "usr/bin/bible", "-p", root / "usr/lib", "-f", "Gen1:1-Rev22:21"], capture_output=True, text=True,
                             env={**os.environ, "LD_LIBRARY_PATH": libraries})
    except OSError as error:
        raise Problem(f"the program of the package bible-kjv does not start: {error.strerror}") from None
    books, previous = [], None
    for line in run.stdout.splitlines():
        match = re.fullmatch(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line)
        if not match:
            continue
        short, chapter, _, verse = match.groups()
        if short != previous:
            books.append([])
            previous = short
        if int(chapter) > len(books[-1]):
            books[-1].append([])
        books[-1][-1].append(verse.strip())
    if len(books) != len(BIBLE_BOOKS):
        raise Problem(f"bible-kjv gave {len(books)} books in place of {len(BIBLE_BOOKS)}: {run.stderr.strip()}")
    return zip(BIBLE_BOOKS, books)


def bible_text(chapters):
    return "\n\n".join("\n".join([f"CHAPTER {number}", "", *verses]) for number, verses in enumerate(chapters, 1)) + "\n"


class _HtmlText(html.parser.HTMLParser):
    BLOCKS = {"p", "div", "br", "li", "ul", "ol", "tr", "table", "pre", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.hidden, self.verbatim = [], 0, 0

    def handle_starttag(self, tag, attributes):
        self.hidden += tag in ("script", "style", "head")
        self.verbatim += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in ("script", "style", "head"):
            self.hidden = max(0, self.hidden - 1)
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data if self.verbatim else re.sub(r"\s+", " ", data))


def html_text(source):
    parser = _HtmlText()
    parser.feed(source)
    text = re.sub(r"[ \t]+\n", "\n", "".join(parser.parts))
    return re.sub(r"\n\s*\n\s*\n+", "\n\n", text).strip() + "\n"


def _files(root, package, pattern):
    """(name, text) of the files that match, in path order; gzip and HTML become plain text."""
    for path in sorted(root.glob(pattern)):
        if not path.is_file() or path.is_symlink():
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8", "replace") if b"\x00" not in data else ""
        if path.suffix in (".html", ".htm"):
            text = html_text(text)
        if len(text) >= 200:  # the rest is indices and redirections
            yield f"{package}/{path.name.removesuffix('.gz').removesuffix('.txt')}.txt", text


def _unique(documents):
    seen = {}
    for name, text in documents:
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else name.replace(".txt", f"-{seen[name]}.txt")), text


def books(root):
    yield from _unique(_files(root, "anarchism", "usr/share/doc/anarchism/html/*.html"))
    yield from _unique(_files(root, "jargon", "usr/share/doc/jargon-text/jargon.txt.gz"))
    yield from _unique(_files(root, "cplusplus", "usr/share/doc/c++-annotations/cplusplus.txt.gz"))
    yield from _unique(_files(root, "perl", "usr/share/perl/5.*.0/pod/*.pod"))
    yield from _unique(_files(root, "python", "usr/share/doc/python3.11/html/_sources/**/*.rst.txt"))


def manuals(root):
    yield from _unique(_files(root, "vim", "usr/share/vim/vim*/doc/*.txt"))
    yield from _unique(_files(root, "emacs", "usr/share/emacs/*/etc/*NEWS*"))
    yield from _unique(_files(root, "r", "usr/share/R/doc/manual/*.html"))
