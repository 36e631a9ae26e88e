"""moba-attention against MoBA in a few lines of numpy: usage moba_attention_test.py PROGRAM."""
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

PROGRAM = sys.argv[1]


def moba(q, k, v, grad, cu_q, cu_k, S, K, scale, per_group=False, full=False):
    """Output, lse, chosen blocks and gradients in fp64 with a dense mask; q [T,H,D], k and v [Tk,Hk,D]."""
    T, H, D = q.shape
    group = H // k.shape[1]
    slots = max(1, min(K, max(-(-(b - a) // S) for a, b in zip(cu_k, cu_k[1:]))))
    out, lse, chosen = np.zeros((T, H, D)), np.zeros((T, H)), np.full((T, H, slots), -1)
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:]):
        L = k1 - k0
        centroid = [k[k0 + b * S:k0 + (b + 1) * S].mean(0) for b in range(max(-(-L // S) - 1, 0))]
        for t in range(q0, q1):
            p = L - (q1 - q0) + t - q0
            own = p // S
            score = np.array([[q[t, h] @ centroid[b][h // group] for b in range(own)] for h in range(H)]).reshape(H, own)
            if per_group:
                score = np.repeat(score.reshape(H // group, group, own).sum(1), group, 0)
            for h in range(H):
                best = sorted(range(own), key=lambda b: (-score[h, b], -b))[:K - 1]
                chosen[t, h, :1 + len(best)] = [own, *best]
                reads = [j for j in range(p + 1) if full or j // S == own or j // S in best]
                keys, values = k[k0:k1, h // group][reads], v[k0:k1, h // group][reads]
                s = scale * keys @ q[t, h]
                lse[t, h] = s.max() + np.log(np.exp(s - s.max()).sum())
                w = np.exp(s - lse[t, h])
                out[t, h] = w @ values
                ds = scale * w * (values @ grad[t, h] - out[t, h] @ grad[t, h])
                dq[t, h] = ds @ keys
                np.add.at(dk[k0:k1, h // group], reads, np.outer(ds, q[t, h]))
                np.add.at(dv[k0:k1, h // group], reads, np.outer(w, grad[t, h]))
    return dict(out=out, lse=lse, selected=chosen, grad_q=dq, grad_k=dk, grad_v=dv)


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)


def write(path, data, **attributes):
    with h5py.File(path, "w") as f:
        for name, value in data.items():
            f[name] = value
        f.attrs.update(attributes)


def bf16(x):
    """Rounded to nearest even, as fp32."""
    u = x.view(np.uint32)
    return ((u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000).astype(np.uint32).view(np.float32)


def check(what, got, want, tolerance):
    error = np.sqrt(((got - want) ** 2).sum() / (want ** 2).sum())
    assert error <= tolerance, f"{what}: relative RMS {error:.2e} > {tolerance}"


def inputs(cu_q, cu_k, H, Hk, D):
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    data = dict(q=draw(cu_q[-1], H, D), k=draw(cu_k[-1], Hk, D), v=draw(cu_k[-1], Hk, D), grad_out=draw(cu_q[-1], H, D))
    return data | dict(cu_seqlens=np.array(cu_q, np.int32), cu_seqlens_k=np.array(cu_k, np.int32))


def check_results(folder):
    source, result = os.path.join(folder, "in.h5"), os.path.join(folder, "out.h5")
    for cu_q, cu_k, extra in [([0, 40, 40, 97], [0, 40, 40, 97], {}), ([0, 10, 11], [0, 40, 97], dict(softmax_scale=0.3)),
                              ([0, 60], [0, 60], dict(select="per_group", gate="mean"))]:
        data = inputs(cu_q, cu_k, 4, 2, 20)
        write(source, data, moba_chunk_size=8, moba_topk=3, **extra)
        for attention in ["moba", "reference", "full"]:
            for dtype, tolerance in [("f32", 1e-5), ("bf16", 6e-3)]:
                done = run(source, result, "--attention", attention, "--dtype", dtype, "--threads", "2")
                assert done.returncode == 0, done.stderr
                exact = {n: (bf16(data[n]) if dtype == "bf16" else data[n]).astype(np.float64) for n in ["q", "k", "v", "grad_out"]}
                want = moba(*exact.values(), cu_q, cu_k, 8, 3, extra.get("softmax_scale", 20 ** -0.5), "select" in extra, attention == "full")
                with h5py.File(result) as f:
                    assert ("selected" in f) == (attention != "full")
                    for name, value in want.items():
                        if name == "selected":
                            assert attention == "full" or (f[name].dtype == np.int32 and (f[name][:] == value).all()), "selected"
                            continue
                        assert f[name].dtype == np.float32 and f[name].shape == value.shape, name
                        check(f"{attention} {dtype} {name}", f[name][:], value, tolerance * (10 if name.startswith("grad") and dtype == "f32" else 1))


def check_errors(folder):
    source, result = os.path.join(folder, "in.h5"), os.path.join(folder, "never.h5")
    data = inputs([0, 20], [0, 20], 2, 2, 8)
    write(source, data, moba_chunk_size=8, moba_topk=3)
    bad = os.path.join(folder, "bad.h5")

    def refused(code, text, *arguments):
        done = run(*arguments)
        assert done.returncode == code and text in done.stderr, (code, text, done.returncode, done.stderr)
        assert sorted(os.listdir(folder)) == listing, "something was left behind"

    def changed(text, code=3, drop=(), attributes=None, **datasets):
        write(bad, {n: v for n, v in (data | datasets).items() if n not in drop}, **(dict(moba_chunk_size=8, moba_topk=3) if attributes is None else attributes))
        refused(code, text, bad, result)

    write(bad, data)
    listing = sorted(os.listdir(folder))
    changed("v: this dataset is missing", drop=["v"])
    changed("moba_topk: this attribute", attributes=dict(moba_chunk_size=8))
    changed("moba_topk = 0", 2, attributes=dict(moba_chunk_size=8, moba_topk=0))
    changed('gate = "best"', 2, attributes=dict(moba_chunk_size=8, moba_topk=3, gate="best"))
    changed("softmax_scale = -1", 2, attributes=dict(moba_chunk_size=8, moba_topk=3, softmax_scale=-1.0))
    changed("q: must hold floating-point", q=np.zeros((20, 2, 8), np.int32))
    changed("q: has 2 dimensions", q=np.zeros((20, 16), np.float32))
    changed("grad_out is", grad_out=np.zeros((19, 2, 8), np.float32))
    changed("cu_seqlens_q[1] = 19", 2, cu_seqlens=np.array([0, 19], np.int32))
    refused(2, "no such file", os.path.join(folder, "absent.h5"), result)
    with open(bad, "wb") as f:
        f.write(b"not HDF5")
    refused(3, "not an HDF5 file", bad, result)
    with open(source, "rb") as f:
        before = f.read()
    refused(2, "is the input", source, source)
    os.symlink(source, os.path.join(folder, "link.h5"))
    os.mkfifo(os.path.join(folder, "pipe"))
    listing = sorted(os.listdir(folder))
    refused(2, "is the input", source, os.path.join(folder, "link.h5"))
    refused(2, "not a regular file", source, os.path.join(folder, "pipe"))
    refused(2, "not a regular file", source, folder)
    with open(source, "rb") as f:
        assert f.read() == before, "the input was changed"
    with h5py.File(bad, "w") as f:  # headers alone
        f.create_dataset("q", (2 ** 40, 4096, 1024), "f4", chunks=(1, 1, 1024))
    refused(3, "q: has more elements than memory can hold", bad, result)
    refused(2, "--device cuda", source, result, "--device", "cuda")
    refused(2, "--attention", source, result, "--attention", "best")
    refused(2, "", source)
    refused(5, "cannot create", source, os.path.join(folder, "no_folder", "out.h5"))


with tempfile.TemporaryDirectory() as folder:
    check_results(folder)
with tempfile.TemporaryDirectory() as folder:
    check_errors(folder)
print("moba-attention: all results and errors as expected")
