#!/usr/bin/env python3
"""What the engine costs, beside others: `python3 benches/engine.py [--pipe PATH] [--sizes 10,1000,10000]`.

For pipelines of trivial shell stages, beside each other (fan) or in a row (chain), prints CPU seconds
(user and system, of the whole process tree), wall seconds and the memory of the largest process of:
reading the file, the first run, a run with nothing to do, and a plan. Then a file of 2 GiB and 20,000
small ones, and planning 100,000 stages.

Beside it, in the same session, whichever of `ninja`, `dvc` and `snakemake` are on the PATH, and `b3sum`.
Machines are noisy, so at the end stand ratios of CPU time to each of them, and the bars of the project with
what was found. The least of several repetitions is shown. The first run of a tool that
needs more than `--limit` seconds is cut off; its run with nothing to do is then measured on outputs
that were made by hand and declared up to date (`dvc commit`, `snakemake --touch`).
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

MIB = 1 << 20


def needs_of(i, shape):
    return i - 1 if shape == "chain" and i else None


def pipe_file(number, shape):
    lines = [f'name = "{shape}{number}"\n']
    for i in range(number):
        need = needs_of(i, shape)
        needs = "" if need is None else f'inputs = {{ input = "s{need}" }}\n'
        lines.append(
            f'[stages.s{i}]\nkind = "command"\ncommand = "echo {i} > $OUT/f"\n'
            f'outputs = ["f"]\n{needs}'
        )
    return "".join(lines)


def ninja_file(number, shape):
    lines = ["rule run\n  command = echo $i > $out\n"]
    for i in range(number):
        need = needs_of(i, shape)
        needs = "" if need is None else f" f{need}"
        lines.append(f"build f{i}: run{needs}\n  i = {i}\n")
    return "".join(lines)


def dvc_file(number, shape):
    lines = ["stages:\n"]
    for i in range(number):
        need = needs_of(i, shape)
        needs = "" if need is None else f"    deps: [f{need}]\n"
        lines.append(f"  s{i}:\n    cmd: echo {i} > f{i}\n{needs}    outs: [f{i}]\n")
    return "".join(lines)


def snake_file(number, shape):
    wanted = f'"f{number - 1}"' if shape == "chain" else f"[f'f{{i}}' for i in range({number})]"
    lines = [f"rule all:\n    input: {wanted}\n"]
    for i in range(number):
        need = needs_of(i, shape)
        needs = "" if need is None else f'    input: "f{need}"\n'
        lines.append(f'rule s{i}:\n{needs}    output: "f{i}"\n    shell: "echo {i} > {{output}}"\n')
    return "".join(lines)


def stop(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def once(command, folder, limit):
    """CPU seconds, wall seconds and MB of a run; none if it takes longer than `limit` seconds."""
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
    )
    timer = None
    if limit:
        import threading

        timer = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.start()
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if timer:
        timer.cancel()
    if process.returncode == -signal.SIGKILL:
        return None
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}: {said.decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 1024


def measure(command, folder, repetitions=1, limit=None):
    """The cheapest of several runs, or none if one takes too long."""
    best = None
    for _ in range(repetitions):
        found = once(command, folder, limit)
        if found is None:
            return None
        best = found if best is None else min(best, found)
        if found[1] > 20:
            break
    return best


# What was found of `(size, shape)`: by name, CPU seconds, wall seconds and MB.
FOUND = {}


def line(of, what, number, found, unit="stage"):
    if found is None:
        print(f"{what:<26} took too long", flush=True)
        return
    FOUND[of, what] = found
    cpu, wall, memory = found
    print(
        f"{what:<26} {cpu * 1e3:>10.1f} ms CPU {wall * 1e3:>10.1f} ms wall {memory:>7.0f} MB"
        f" {cpu * 1e6 / number:>9.1f} us CPU a {unit}",
        flush=True,
    )


def bench_pipe(pipe, number, shape, folder):
    (folder / "p.toml").write_text(pipe_file(number, shape))
    line((number, shape), "check", number, measure([pipe, "check", "p.toml"], folder, 5))
    line((number, shape), "plan, nothing run", number, measure([pipe, "plan", "p.toml"], folder, 5))
    line((number, shape), "first run", number, measure([pipe, "run", "p.toml", "--allow-commands"], folder))
    line((number, shape), "run, nothing to do", number, measure([pipe, "run", "p.toml"], folder, 5))
    line((number, shape), "plan, nothing to do", number, measure([pipe, "plan", "p.toml"], folder, 5))


def write_outputs(number, folder):
    for i in range(number):
        (folder / f"f{i}").write_text(f"{i}\n")


def bench_ninja(number, shape, folder, limit):
    (folder / "build.ninja").write_text(ninja_file(number, shape))
    line((number, shape), "ninja, first run", number, measure(["ninja"], folder))
    line((number, shape), "ninja, nothing to do", number, measure(["ninja"], folder, 5))


def bench_dvc(number, shape, folder, limit):
    (folder / "dvc.yaml").write_text(dvc_file(number, shape))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    first = measure(["dvc", "repro", "-q"], folder, limit=limit)
    line((number, shape), "dvc, first run", number, first)
    if first is None:
        for left in (folder / ".dvc/tmp").glob("*lock*"):
            left.unlink()
        write_outputs(number, folder)
        if measure(["dvc", "commit", "-f", "-q"], folder, limit=limit) is None:
            return
    line((number, shape), "dvc, nothing to do", number, measure(["dvc", "repro", "-q"], folder, 2, limit))


def bench_snakemake(number, shape, folder, limit):
    (folder / "Snakefile").write_text(snake_file(number, shape))
    command = ["snakemake", "-q", "all", "--cores", "2"]
    first = measure(command, folder, limit=limit)
    line((number, shape), "snakemake, first run", number, first)
    if first is None:
        # What a killed run leaves behind keeps the next one from starting.
        for left in ["locks", "incomplete"]:
            shutil.rmtree(folder / ".snakemake" / left, ignore_errors=True)
        write_outputs(number, folder)
        if measure([*command, "--touch"], folder, limit=limit) is None:
            return
    line((number, shape), "snakemake, nothing to do", number, measure(command, folder, 2, limit))


PEERS = {"ninja": bench_ninja, "dvc": bench_dvc, "snakemake": bench_snakemake}


def command_stage(command, outputs):
    names = ", ".join(f'"{name}"' for name in outputs)
    return f'name = "files"\n[stages.s]\nkind = "command"\ncommand = "{command}"\noutputs = [{names}]\n'


def bench_files(pipe, folder, names, what, limit, peers):
    """Files that a stage gives, in and up to date, beside copying, hashing and looking at them."""
    source = folder / "source"
    copy = f"cp {source}/* $OUT"
    (folder / "p.toml").write_text(command_stage(copy, names))
    print(f"\n{what}")
    line(what, "pipe, first run", len(names), measure([pipe, "run", "p.toml", "--allow-commands"], folder), "file")
    line(what, "pipe, nothing to do", len(names), measure([pipe, "run", "p.toml"], folder, 5), "file")
    (folder / "copy").mkdir()
    line(what, "cp", len(names), measure(["sh", "-c", "cp source/* copy"], folder), "file")
    if shutil.which("b3sum"):
        line(what, "b3sum", len(names), measure(["sh", "-c", "b3sum source/*"], folder, 3), "file")
    line(what, "stat of each", len(names), measure(["find", "source", "-printf", "%s %T@\n"], folder, 3), "file")
    shutil.rmtree(folder / "copy")
    if "dvc" in peers:
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, cwd=folder, check=True)
        line(what, "dvc add", len(names), measure(["dvc", "add", "-q", "source"], folder, limit=limit), "file")
        line(what, "dvc status", len(names), measure(["dvc", "status", "-q"], folder, 2, limit), "file")


def of(where, what):
    return FOUND.get((where, what))


def print_ratios():
    """CPU time of the peers as multiples of ours."""
    print("\nCPU time, as multiples of pipe's")
    for (where, what), found in FOUND.items():
        peer, _, work = what.partition(", ")
        ours = of(where, "run, nothing to do" if work == "nothing to do" else work)
        if peer in PEERS and ours:
            size, shape = where
            print(f"{size:>6} stages, {shape:<6} {work:<14} {peer:<10} {found[0] / ours[0]:>8.2f}")


def bars(options):
    """Name, figure, bar and unit of each bar (design, section 7) that can be judged."""
    for shape in options.shapes.split(","):
        for size, milliseconds in [(10, 20), (1_000, 60)]:
            if found := of((size, shape), "run, nothing to do"):
                yield f"{size} stages, {shape}, nothing to do", found[0] * 1e3, milliseconds, "ms CPU"
        few, many = (of((size, shape), "run, nothing to do") for size in (1_000, 10_000))
        if few:
            yield f"1000 stages, {shape}, nothing to do", few[2], 40, "MB"
        if few and many:
            yield f"10000 stages, {shape}, nothing to do", many[0] / few[0], 10, "times 1000 stages"
        for (where, what), found in FOUND.items():
            if what == "first run" and where[1] == shape:
                each = found[0] / where[0] * 1e3
                yield f"{where[0]} stages, {shape}, a stage that runs", each, 3, "ms CPU"
        if found := of((100_000, shape), "plan"):
            yield f"plan of 100000, {shape}", found[0], 1, "s CPU"
    large, small = FILES
    if (ours := of(large, "pipe, first run")) and (hash := of(large, "b3sum")):
        yield large, ours[0] / (hash[0] + of(large, "cp")[0]), 1.3, "times b3sum and cp"
    if ours := of(small, "pipe, nothing to do"):
        yield f"{small}, nothing to do", ours[0] / of(small, "stat of each")[0], 3, "times a walk of stat"


def print_bars(options):
    print("\nagainst the bars")
    for name, figure, bar, unit in bars(options):
        verdict = "held" if figure <= bar else "MISSED"
        print(f"{name:<38} {figure:>9.2f} of {bar:>4} {unit:<20} {verdict}")


FILES = {"a file of 2 GiB": (1, 2 << 30), "20,000 files of 10 KiB": (20_000, 10 << 10)}


def write_random(path, size):
    with open(path, "wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(min(size, MIB)))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pipe", default="target/release/pipe")
    arguments.add_argument("--sizes", default="10,1000,10000")
    arguments.add_argument("--shapes", default="fan,chain")
    arguments.add_argument("--peers", default="ninja,dvc,snakemake")
    arguments.add_argument("--limit", type=float, default=120, help="seconds that a peer may take")
    arguments.add_argument("--planned", type=int, default=100_000)
    arguments.add_argument("--no-files", action="store_true")
    arguments.add_argument("--tmp", help="where to work")
    options = arguments.parse_args()
    pipe = str(pathlib.Path(shutil.which(options.pipe) or options.pipe).resolve())
    peers = [name for name in options.peers.split(",") if name and shutil.which(name)]
    for number in map(int, filter(None, options.sizes.split(","))):
        for shape in options.shapes.split(","):
            print(f"\n{number} stages, {shape}")
            with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
                bench_pipe(pipe, number, shape, pathlib.Path(folder))
            for peer in peers:
                with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
                    try:
                        PEERS[peer](number, shape, pathlib.Path(folder), options.limit)
                    except RuntimeError as error:
                        # It costs no other figure.
                        print(f"{peer} failed: {error}")
    for shape in options.shapes.split(",") if options.planned else []:
        with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
            folder = pathlib.Path(folder)
            (folder / "p.toml").write_text(pipe_file(options.planned, shape))
            print(f"\n{options.planned} stages, {shape}, nothing run")
            line((options.planned, shape), "check", options.planned, measure([pipe, "check", "p.toml"], folder, 3))
            line((options.planned, shape), "plan", options.planned, measure([pipe, "plan", "p.toml"], folder, 3))
    for what, (count, size) in {}.items() if options.no_files else FILES.items():
        with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
            folder = pathlib.Path(folder)
            (folder / "source").mkdir()
            names = [f"{i:06}" for i in range(count)]
            for name in names:
                write_random(folder / "source" / name, size)
            bench_files(pipe, folder, names, what, options.limit, peers)
    print_ratios()
    print_bars(options)


if __name__ == "__main__":
    main()
