"""A small reader of safetensors files that shares nothing with the C++ one (numpy only)."""
import json

import numpy

NUMPY_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I32": "<i4", "I64": "<i8", "U8": "u1"}


def read_tensors(path):
    """{name: array}; BF16 comes back widened to float32."""
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        if entry["dtype"] == "BF16":
            wide = numpy.frombuffer(raw, dtype="<u2").astype("<u4") << 16
            array = wide.view("<f4")
        else:
            array = numpy.frombuffer(raw, dtype=NUMPY_TYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"]).copy()
    return tensors
