#!/usr/bin/env python3
"""Looks at the machine code of the register tiles: in their loops no vector register may pass through the stack.

g++ keeps an array of accumulators in registers only where every loop over it is unrolled; where it does not, each pass through the loop
stores and loads them, and a kernel silently loses speed.   spills.py libmoba_kernels.a
"""
import re
import subprocess
import sys

OBJECT = re.compile(r"^(?:attention_cpu|blocked)_(?:avx2|avx512|avx512_bf16)\.cpp\.o")
PRODUCT = re.compile(r"^(v?fmadd\d+ps|vdpbf16ps|vfmadd\d+ps|mulps)$")
TILE = re.compile(r"register_tile|::tile_as|::tile\(")  # by demangled name; softmax may keep a total in memory
STACK = re.compile(r"MMWORD PTR \[(?:rsp|rbp)[^\]]*\]")
EXPECTED = {"attention_cpu": 18, "blocked": 2}  # loops: 6 row counts x 3 ways to start; A in rows or in columns
LEAST_PRODUCTS = 8  # fewer: not the loop over the depth


def functions(archive):
    """(object, function, [(address, mnemonic, operands)])"""
    text = subprocess.run(["objdump", "-d", "-C", "--no-show-raw-insn", "-M", "intel", archive], check=True, capture_output=True, text=True)
    name_of_object = function = None
    code = []
    for line in text.stdout.splitlines():
        if match := re.match(r"^(\S+\.o):\s+file format", line):
            if code:
                yield name_of_object, function, code
            name_of_object, code = match[1], []
        elif match := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            if code:
                yield name_of_object, function, code
            function, code = match[1], []
        elif match := re.match(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$", line):
            code.append((int(match[1], 16), match[2], match[3]))
    if code:
        yield name_of_object, function, code


def innermost_loops(code):
    at = {address: i for i, (address, _, _) in enumerate(code)}
    loops = []
    for i, (_, mnemonic, operands) in enumerate(code):
        target = re.match(r"^([0-9a-f]+)\b", operands)
        if mnemonic.startswith("j") and target and at.get(int(target[1], 16), i + 1) <= i:
            loops.append((at[int(target[1], 16)], i))
    for begin, end in loops:
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in loops):
            yield code[begin : end + 1]


def main():
    hot = {}
    spills = []
    for name_of_object, function, code in functions(sys.argv[1]):
        if not OBJECT.match(name_of_object) or not TILE.search(function):
            continue
        for loop in innermost_loops(code):
            if sum(bool(PRODUCT.match(mnemonic)) for _, mnemonic, _ in loop) < LEAST_PRODUCTS:
                continue
            hot[name_of_object] = hot.get(name_of_object, 0) + 1
            spills += [f"{name_of_object}: {function}: {a:x}: {m} {o}" for a, m, o in loop if STACK.search(o)]
    for name_of_object, count in sorted(hot.items()):
        print(f"{name_of_object}: {count} hot loops")
    for spill in spills:
        print("through the stack:", spill)
    # Loops whose rows were not unrolled are not found as hot ones at all.
    for isa in ("avx2", "avx512", "avx512_bf16"):
        for stem, expected in EXPECTED.items():
            name_of_object = f"{stem}_{isa}.cpp.o"
            if (stem, isa) != ("blocked", "avx512_bf16") and hot.get(name_of_object, 0) < expected:
                spills.append(name_of_object)
                print(f"{name_of_object}: {hot.get(name_of_object, 0)} hot loops, expected at least {expected}: were all loops over rows unrolled?")
    sys.exit(1 if spills else 0)


main()
