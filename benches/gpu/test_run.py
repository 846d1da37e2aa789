"""What run.py does when a side fails: `python benches/gpu/test_run.py`, on any machine with PyTorch and wheels.txt."""
import argparse, contextlib, io, os, pathlib, subprocess, sys, tempfile, time, unittest
from unittest import mock
import torch
from safetensors.torch import save_file
import run

FIRST, SECOND = list(run.CASES)[:2]
ARGS = argparse.Namespace(device="cpu", size="tiny", gpu=False, card=None, budget=0.0)
# A side that says these lines, and what comes behind them.
SIDE = """
import json, sys, time
names = sys.argv[sys.argv.index("--cases") + 1].split(",")
start = lambda name: print(json.dumps(dict(event="start", case=name)), flush=True)
phase = lambda name: (print(json.dumps(dict(event="phase", phase=name)), flush=True), time.sleep(0.1))
end = lambda name: print(json.dumps(dict(event="end", case=name, secs=1.0, figures=dict(variants={}))), flush=True)
"""


def side(then, seconds=5.0):
    """Figures of both cases by a side that does this."""
    with tempfile.TemporaryDirectory() as work:
        args = argparse.Namespace(**vars(ARGS), work=work)
        return run.run_side([sys.executable, "-c", SIDE + then], [FIRST, SECOND], args, None, subprocess.DEVNULL, time.monotonic() + seconds)


class Sides(unittest.TestCase):
    def test_what_has_ended_stays_when_the_time_is_over(self):
        found = side("start(names[0]); end(names[0]); time.sleep(60)", 2.0)
        self.assertEqual(found[FIRST]["case_secs"], 1.0)
        self.assertEqual(found[SECOND], dict(error="no time was left"))

    def test_a_case_that_hangs_is_lost_alone(self):
        found = side("start(names[0]); end(names[0]); start(names[1]); time.sleep(60)", 2.0)
        self.assertEqual(found[FIRST]["case_secs"], 1.0)
        self.assertEqual(found[SECOND], dict(error="took too long"))

    def test_a_process_that_dies_with_half_a_line_costs_its_case(self):
        found = side("start(names[0])\nif len(names) == 2: print('{\"event\": \"en', end='', flush=True); sys.exit(9)\nend(names[0])", 20.0)
        self.assertEqual(found[FIRST], dict(error="the process ended: 9"))
        self.assertEqual(found[SECOND]["case_secs"], 1.0)

    def test_memory_is_told_for_each_phase(self):
        found = side("start(names[0]); phase('plain, first call'); held = b'x' * (64 << 20); phase('plain, repeated'); "
                     "del held; phase('rest'); end(names[0])", 20.0)[FIRST]
        peaks = found["device_peaks"]
        self.assertGreater(peaks["plain, repeated"], peaks["load"] or 0)
        self.assertGreaterEqual(found["device_peak"], peaks["plain, repeated"])


class Cards(unittest.TestCase):
    def test_a_card_is_asked_by_its_uuid(self):
        torch_there = """
class cuda:
    class get_device_properties:
        name = uuid = "1-2"
        def __init__(self, device): assert device == "cuda:1", device
"""
        with tempfile.TemporaryDirectory() as there:
            pathlib.Path(there, "torch.py").write_text(torch_there)
            tool = pathlib.Path(there, "nvidia-smi")
            tool.write_text('#!/bin/sh\n[ "$4" = GPU-1-2 ] && echo 17 || echo "No devices were found"\n')
            tool.chmod(0o755)
            with mock.patch.dict(os.environ, PYTHONPATH=there, PATH=f"{there}:{os.environ['PATH']}"):
                self.assertEqual(run.card_of("cuda:1"), ("1-2", "GPU-1-2"))
                self.assertEqual((run.card_memory("GPU-1-2"), run.card_memory("GPU-3")), (17 << 20, None))
        self.assertIsNone(run.card_memory("GPU-1-2"), "there is no such program")


class Rows(unittest.TestCase):
    def test_bars_of_time_and_of_memory_are_told(self):
        name = "cog LoRA step 9x480x720"
        variants = {name: dict(secs=secs, first_secs=1.0, reserved=int(14.8e9)) for name, secs in (("plain", 0.4), ("recompute", 0.5))}
        ours = dict(variants=variants, device_peaks={"load": int(30e9), "recompute, gradients": int(24.5e9), "recompute, repeated": int(15e9)})
        args = argparse.Namespace(**{**vars(ARGS), "gpu": True, "size": "full"}, work="nowhere")
        row = run.summary(name, ours, {}, {}, args, dict(flops=1e15, bytes=3e12))
        self.assertEqual((row["bar"], row["memory_bar"]), ("met", "recompute in 24 GB of the card: missed"))
        table = run.render([row], "a card", args, dict(flops=1e15, bytes=3e12))
        self.assertIn("| 14.8 / - | 24.5 / - |", table)

    def test_a_file_that_is_cut_off_costs_its_row_alone(self):
        found = dict(variants=dict(plain=dict(secs=1.0, first_secs=1.0)))
        with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(io.StringIO()):
            args = argparse.Namespace(**vars(ARGS), work=work)
            for name in (FIRST, SECOND):
                for who, tensors in (("ours", ["out"]), ("peer", ["out", "ref.out"])):
                    save_file({key: torch.ones(1000) for key in tensors}, f"{work}/{name.replace(' ', '_')}.{who}.safetensors")
            cut = pathlib.Path(work, f"{FIRST.replace(' ', '_')}.peer.safetensors")
            cut.write_bytes(cut.read_bytes()[:2000])
            rows = [run.summary(name, found, found, {}, args, dict(error="none")) for name in (FIRST, SECOND)]
            self.assertTrue(rows[0]["verdict"].startswith("not compared: SafetensorError"), rows[0]["verdict"])
            self.assertEqual(rows[1]["verdict"], "right")
            table = run.render(rows, "a card", args, dict(error="none"))
            self.assertIn(f"| {FIRST}, plain | 1000.0 | 1000.0 |", table)


if __name__ == "__main__":
    unittest.main(warnings="ignore")
