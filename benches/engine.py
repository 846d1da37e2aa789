#!/usr/bin/env python3
"""What the engine costs: `python3 benches/engine.py [--pipe PATH] [--sizes 10,1000,10000]`.

For pipelines of trivial shell stages, beside each other (fan) or in a row (chain), prints CPU seconds
(user and system, of the whole process tree), wall seconds and memory of: reading the file, the first
run, a run with nothing to do, and a plan. Where `ninja` is installed, the same of it, in the same
session: machines are noisy, so quote ratios. The least of several repetitions is shown.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import tempfile
import time


def pipeline(number, shape):
    lines = [f'name = "{shape}{number}"\n']
    for i in range(number):
        needs = f'inputs = {{ input = "s{i - 1}" }}\n' if shape == "chain" and i else ""
        lines.append(
            f'[stages.s{i}]\nkind = "command"\ncommand = "echo {i} > $OUT/f"\n'
            f'outputs = ["f"]\n{needs}'
        )
    return "".join(lines)


def ninja_file(number, shape):
    lines = ["rule run\n  command = echo $i > $out\n"]
    for i in range(number):
        needs = f" f{i - 1}" if shape == "chain" and i else ""
        lines.append(f"build f{i}: run{needs}\n  i = {i}\n")
    return "".join(lines)


def measure(command, folder, repetitions=1):
    """CPU seconds, wall seconds and MB of the cheapest of several runs."""
    best = None
    for _ in range(repetitions):
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{command} ended with {process.returncode}")
        found = (
            used.ru_utime + used.ru_stime,
            time.monotonic() - start,
            used.ru_maxrss / 1024,
        )
        best = found if best is None else min(best, found)
    return best


def line(what, number, found):
    cpu, wall, memory = found
    print(
        f"{what:<22} {cpu * 1e3:>10.1f} ms CPU {wall * 1e3:>10.1f} ms wall {memory:>7.0f} MB"
        f" {cpu * 1e6 / number:>9.1f} us CPU a stage",
        flush=True,
    )


def bench(pipe, number, shape, folder):
    (folder / "p.toml").write_text(pipeline(number, shape))
    print(f"\n{number} stages, {shape}")
    line("check", number, measure([pipe, "check", "p.toml"], folder, 5))
    line("first run", number, measure([pipe, "run", "p.toml", "--allow-commands"], folder))
    line("run, nothing to do", number, measure([pipe, "run", "p.toml"], folder, 5))
    line("plan, nothing to do", number, measure([pipe, "plan", "p.toml"], folder, 5))
    if shutil.which("ninja"):
        (folder / "build.ninja").write_text(ninja_file(number, shape))
        line("ninja, first run", number, measure(["ninja"], folder))
        line("ninja, nothing to do", number, measure(["ninja"], folder, 5))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pipe", default="target/release/pipe")
    arguments.add_argument("--sizes", default="10,1000,10000")
    arguments.add_argument("--shapes", default="fan,chain")
    options = arguments.parse_args()
    pipe = str(pathlib.Path(shutil.which(options.pipe) or options.pipe).resolve())
    for number in map(int, options.sizes.split(",")):
        for shape in options.shapes.split(","):
            with tempfile.TemporaryDirectory() as folder:
                bench(pipe, number, shape, pathlib.Path(folder))


if __name__ == "__main__":
    main()
