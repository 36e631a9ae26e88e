"""Questions whose answers lie far back in a long passage: 1.5K to 2K tokens each with the quickstart's tokenizer."""
import hashlib
import random
import re
import string

from corpus_parts import kernel

PROSE_TOKENS = (1540, 1780)  # passage; question and answer come on top
CODE_TOKENS = (1450, 1640)
LONGEST_ANSWER = 250          # tokens
LONGEST_PIECE = 900
QUESTIONS_PER_PASSAGE = 3
CODE_EXAMPLES = {False: 4000, True: 200}
HELD_OUT_BOOKS = {"Ruth", "Jonah", "Malachi", "Mark", "Philippians", "James"}
HELD_OUT_NOVEL = "persuasion"

_FUNCTION = re.compile(r"^(?!static inline|#|/)((?:[a-z_]\w*[ \t*]+)+)(\w+)\(([^;{}()]*)\)\n\{\n(?:[^}\n][^\n]*\n|\n)*?\}\n", re.M)


def _tokens(text):
    """An estimate, within 10 % in most passages: prose costs 0.33 tokens a byte, code 0.55."""
    data = text.encode("utf-8", "surrogateescape")
    without_lower = data.translate(None, string.ascii_lowercase.encode())
    others = without_lower.translate(None, string.ascii_uppercase.encode() + b" ")
    upper = len(without_lower) - len(others) - data.count(b" ")
    return 0.274 * (len(data) - len(without_lower)) + 0.42 * upper + 1.8 * len(others)


def _chat(passage, question, answer):
    return {"messages": [{"role": "user", "content": f"{passage.strip()}\n\n{question}"}, {"role": "assistant", "content": answer}]}


def _passages(pieces, limits, random_):
    """Runs of whole pieces (verses, paragraphs, functions) of limits[0] to limits[1] tokens; none overlap."""
    run, size, target = [], 0, random_.randint(*limits)
    for piece in pieces:
        tokens = _tokens(piece + "\n")
        if run and size + tokens > target:
            if size >= limits[0]:
                yield run
            run, size, target = [], 0, random_.randint(*limits)
        run.append(piece)
        size += tokens
    if size >= limits[0]:
        yield run


def verses(bible, random_):
    for book, chapters in bible:
        lines = [f"{book} {c}:{v} {text}" for c, verses_ in enumerate(chapters, 1) for v, text in enumerate(verses_, 1)]
        for passage in _passages(lines, PROSE_TOKENS, random_):
            for line in random_.sample(passage, min(QUESTIONS_PER_PASSAGE, len(passage))):
                reference, text = re.match(r"(.* \d+:\d+) (.*)", line).groups()
                yield _chat("\n".join(passage), f"What does {reference} say?", text)


def sentences(title_and_text, random_):
    for title, text in title_and_text:
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if len(p.split()) >= 12]
        for passage in _passages([p for p in paragraphs if _tokens(p) <= LONGEST_PIECE], PROSE_TOKENS, random_):
            joined = "\n\n".join(passage)
            found = [m.group(1) for m in re.finditer(r"(?:^|(?<=[.!?] ))([A-Z][^.!?\n\"]{60,400}[.!?])", joined, re.M)]
            found = [s for s in found if joined.count(" ".join(s.split()[:5])) == 1]
            for sentence in random_.sample(found, min(QUESTIONS_PER_PASSAGE, len(found))):
                start = " ".join(sentence.split()[:5])
                yield _chat(joined, f'Give the whole sentence that begins with "{start}".', sentence)


def functions(files, held_out, random_):
    """Passages of code with at least two short functions; the question names one, the answer is its text."""
    for name, text in files:
        if kernel.is_held_out(name) != held_out:
            continue
        path = name.removeprefix("linux/").removesuffix(".txt")
        pieces = [p + "\n" for p in re.split(r"(?<=\n\}\n)\n", text)]
        for passage in _passages([p for p in pieces if _tokens(p) <= LONGEST_PIECE], CODE_TOKENS, random_):
            joined = "\n".join(passage)
            found = [(m.group(2), m.group(0).rstrip()) for m in _FUNCTION.finditer(joined) if _tokens(m.group(0)) <= LONGEST_ANSWER]
            if len(found) >= 2:
                function, code = random_.choice(found)
                yield _chat(f"/* {path} */\n{joined}", f"Show the function {function}.", code)


def _key(example):
    return hashlib.sha256(example["messages"][0]["content"].encode()).hexdigest()


def examples(novels, bible, files, held_out):
    """All examples of one split, shuffled in an order that depends on their texts alone."""
    random_ = random.Random(1)
    out = [*verses([b for b in bible if (b[0] in HELD_OUT_BOOKS) == held_out], random_)]
    out += sentences([n for n in novels if (n[0] == HELD_OUT_NOVEL) == held_out], random_)
    out += sorted(functions(files, held_out, random_), key=_key)[:CODE_EXAMPLES[held_out]]
    return sorted(out, key=_key)
