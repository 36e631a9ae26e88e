"""tools/performance_plots: whole pictures from real-looking input, a sentence from anything else, exact counts of pairs."""
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

TOOL = pathlib.Path(sys.argv.pop())

SWEEP = {"config": {"heads": 4, "head_dim": 128, "chunk_size": 512, "topk": 3, "dtype": "f32", "threads": 2},
         "rows": [{"seq": seq, "moba_ms": seq / 64, "full_ms": seq * seq / 1e5, "moba_ns_per_token": 15625.0, "full_ns_per_token": seq * 10.0}
                  for seq in (2048, 4096, 8192)]}
PROFILE = """limits: 170 GFLOP/s, 18.5 GB/s (memory; data in cache may exceed it)
operation                                       calls  ms a step   share   GFLOP/s     GB/s  of limit
matmul, weight gradient                            35    163.709  19.6 %     110.7      1.9      65 %
swiglu backward                                     5      9.200   1.1 %         -     22.8     123 %
muon: scale                                     103.2      2.749   1.3 %      10.1     20.1     109 %
product, m x n x k                              calls  ms a step   share   GFLOP/s     GB/s  of limit
matmul, weight gradient 512 x 192 x 4096           10     69.700   8.3 %     115.5      1.7      68 %
"""


def brute_force(tokens, block, topk):
    full = moba = 0
    for query in range(tokens):
        own = query // block
        full += query + 1
        moba += query - own * block + 1 + min(own, topk - 1) * block
    return full, moba


class PerformancePlots(unittest.TestCase):
    def run_tool(self, sweep, profile):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "sweep.json").write_text(sweep)
            (folder / "profile.txt").write_text(profile)
            result = subprocess.run([sys.executable, "-B", TOOL, "--sweep", folder / "sweep.json", "--profile", folder / "profile.txt", "--out", folder / "out"],
                                    capture_output=True, text=True)
            return result, {f.name: f.read_text() for f in folder.glob("out/*")}

    def test_three_whole_pictures(self):
        result, pictures = self.run_tool(json.dumps(SWEEP), PROFILE)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(set(pictures), {"attention_time.svg", "attention_speedup.svg", "roofline.svg"})
        for text in pictures.values():
            xml.etree.ElementTree.fromstring(text)
        self.assertEqual(pictures["roofline.svg"].count("<circle"), 2)  # one operation has no GFLOP/s, the products' table is another one
        self.assertIn("matmul, weight gradient (19.6 %)", pictures["roofline.svg"])

    def test_a_sentence_and_nothing_written(self):
        for sweep, profile in (("{", PROFILE), ("{}", PROFILE), (json.dumps(SWEEP), "no table")):
            result, pictures = self.run_tool(sweep, profile)
            self.assertEqual((result.returncode, pictures), (1, {}))
            self.assertNotIn("Traceback", result.stderr)

    def test_pairs(self):
        loader = importlib.machinery.SourceFileLoader("performance_plots", str(TOOL))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("performance_plots", loader))
        loader.exec_module(module)
        for tokens, block, topk in ((1, 4, 3), (10, 4, 1), (37, 5, 3), (64, 8, 20)):
            self.assertEqual(module.pairs(tokens, block, topk), brute_force(tokens, block, topk))


unittest.main()
