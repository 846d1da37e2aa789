#!/usr/bin/env python3
"""How pipelines tools behave: `python3 benches/behave.py [--pipe PATH] [pipe ninja make dvc snakemake]`.

Two stages, A and what follows it, B. Ten things happen to their source and outputs, and each time the tool
is told to bring all up to date; the table says which stages ran, and a status other than 0. Last, two runs at once
have six stages of a second each to do that do not depend on each other, one at a time: together they need 3 s. For the peers A is
`sed 's/#.*//' src.txt > a.txt` and B a copy; `pipe` reads a folder with one picture in A and makes clips in B, for
equal bytes the picture is compressed anew, and for runs at once and kills both are shell commands.
Only tools on the PATH take part. The same probes are tests: `cargo test --release --test it cli::behaviour`.
"""

import argparse
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zlib

PROBES = [
    "nothing changed",
    "source touched",
    "source changed, A gives equal bytes",
    "source changed",
    "and changed back",
    "outputs deleted",
    "output of B overwritten by hand",
    "two runs at once",
    "kill -9 in A, run again",
    "six stages of 1 s, two runs at once",
]
NUMBERS = range(1, 7)
# File systems and some tools tell times by the second.
TICK = 1.1


class Peer:
    """A tool that makes `a.txt` and `b.txt` of `src.txt` by two shell commands."""

    def __init__(self, name, folder):
        self.name, self.folder, self.log = name, folder, folder / "ran.log"
        self.a = f"echo A >> {self.log}; sleep 0.5; sed 's/#.*//' src.txt > a.txt"
        self.b = f"echo B >> {self.log}; cat a.txt > b.txt"
        self.source("one # 1")
        getattr(self, name)()

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def source(self, text):
        time.sleep(TICK)
        self.write("src.txt", text + "\n")

    def make(self):
        self.write("Makefile", f"b.txt: a.txt\n\t@{self.b}\na.txt: src.txt\n\t@{self.a}\n")
        self.command = ["make", "-s", "b.txt"]

    def ninja(self):
        rules = f"rule A\n  command = {self.a}\n  restat = 1\nrule B\n  command = {self.b}\n"
        self.write("build.ninja", f"{rules}build a.txt: A src.txt\nbuild b.txt: B a.txt\n")
        self.command = ["ninja", "--quiet"]

    def dvc(self):
        stage = "  {}:\n    cmd: \"{}\"\n    deps: [{}]\n    outs: [{}]\n".format
        self.write("dvc.yaml", "stages:\n" + stage("A", self.a, "src.txt", "a.txt") + stage("B", self.b, "a.txt", "b.txt"))
        for line in ("git init -q .", "dvc init -q", "dvc config core.analytics false"):
            subprocess.run(line.split(), cwd=self.folder, check=True)
        self.command = ["dvc", "repro", "-q"]

    def snakemake(self):
        rule = "rule {}:\n    input: '{}'\n    output: '{}'\n    shell: \"\"\"{}\"\"\"\n".format
        self.write("Snakefile", rule("B", "a.txt", "b.txt", self.b) + rule("A", "src.txt", "a.txt", self.a))
        self.command = ["snakemake", "-q", "all", "--cores", "2"]

    def start(self):
        return subprocess.Popen(
            self.command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def letters(self):
        text = "".join(self.log.read_text().split()) if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return text

    def run(self):
        """Which stages ran, and the status if it is not 0."""
        status = self.start().wait()
        return (self.letters() or "-") + (f" ({status})" if status else "")

    def touch(self):
        time.sleep(TICK)
        os.utime(self.folder / "src.txt")

    def equal(self):
        self.source("one # 2")

    def change(self):
        self.source("two # 2")

    def restore(self):
        self.source("one # 1")

    def delete(self):
        for name in ("a.txt", "b.txt"):
            (self.folder / name).unlink()

    def overwrite(self):
        time.sleep(TICK)
        (self.folder / "b.txt").unlink()
        self.write("b.txt", "by hand\n")

    def is_right(self):
        path = self.folder / "b.txt"
        return path.exists() and path.read_text().strip() == "one"

    def for_commands(self):
        """Called before the probes of runs at once and of kills."""

    def fan(self):
        """Six stages that do not depend on each other, done one at a time."""
        self.write("src.txt", "x\n")
        shell = "echo C >> {}; sleep 1; cp src.txt c{}.txt".format
        {"make": self.make_fan, "ninja": self.ninja_fan, "dvc": self.dvc_fan, "snakemake": self.snakemake_fan}[self.name](
            [(number, shell(self.log, number)) for number in NUMBERS]
        )

    def make_fan(self, stages):
        rules = "".join(f"c{n}.txt: src.txt\n\t@{command}\n" for n, command in stages)
        self.write("Makefile", "all: " + " ".join(f"c{n}.txt" for n, _ in stages) + "\n" + rules)
        self.command = ["make", "-s", "all"]

    def ninja_fan(self, stages):
        rules = "".join(f"rule C{n}\n  command = {command}\nbuild c{n}.txt: C{n} src.txt\n" for n, command in stages)
        self.write("build.ninja", rules)
        self.command = ["ninja", "--quiet", "-j1"]

    def dvc_fan(self, stages):
        stage = "  C{}:\n    cmd: \"{}\"\n    deps: [src.txt]\n    outs: [c{}.txt]\n".format
        self.write("dvc.yaml", "stages:\n" + "".join(stage(n, command, n) for n, command in stages))

    def snakemake_fan(self, stages):
        rule = "rule C{}:\n    input: 'src.txt'\n    output: 'c{}.txt'\n    shell: \"\"\"{}\"\"\"\n".format
        everything = "rule all:\n    input: " + ", ".join(f"'c{n}.txt'" for n, _ in stages) + "\n"
        self.write("Snakefile", everything + "".join(rule(n, n, command) for n, command in stages))
        self.command = ["snakemake", "-q", "all", "--cores", "1"]

    def again(self, text):
        self.source(text)


def png(shade, level):
    """A grey picture of 32x32."""
    rows = (b"\0" + bytes([shade] * 96)) * 32
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, level)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class Pipe(Peer):
    """`pipe`, whose stages say themselves that they ran."""

    FILE = """name = "probe"

[stages.A]
kind    = "dataset"
source  = { source = "folder", root = "data" }
task    = "pairs"
size    = [32, 32]
holdout = 0.0

[stages.B]
kind   = "interpolate"
inputs = { pairs = "A" }
frames = 5
"""

    def pipe(self):
        for side in ("input", "target"):
            (self.folder / "data" / side).mkdir(parents=True)
        self.write("probe.toml", self.FILE)
        self.picture(10, 1)
        self.command = [PIPE, "run", "probe.toml", "--allow-commands", "--events", "events.ndjson"]
        self.commands = False

    def source(self, text):
        pass

    def picture(self, shade, level):
        time.sleep(TICK)
        for side in ("input", "target"):
            (self.folder / "data" / side / "a.png").write_bytes(png(shade, level))

    def letters(self):
        if self.commands:
            return super().letters()
        events = (self.folder / "events.ndjson").read_text()
        return "".join(name for name in "AB" if any(is_run(line, name) for line in events.splitlines()))

    def touch(self):
        os.utime(self.folder / "data/input/a.png")

    def equal(self):
        self.picture(10, 9)

    def change(self):
        self.picture(20, 9)

    def restore(self):
        self.picture(10, 9)

    def export(self):
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        subprocess.run([PIPE, "export", "probe.toml", "B", "--to", "out"], cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def exported(self):
        """What B gave, file by file."""
        self.export()
        files = sorted(path for path in (self.folder / "out").rglob("*") if path.is_file())
        return [(path.name, path.read_bytes()) for path in files]

    def delete(self):
        self.first = self.exported()
        shutil.rmtree(self.folder / "out")

    def overwrite(self):
        # Outputs lie in the cache alone: the only copies are spoilt.
        clips = [path for path in (self.folder / "cache/objects").rglob("*") if path.is_file() and path.stat().st_size > 10_000]
        assert clips, "no clip to spoil"
        for path in clips:
            path.chmod(0o644)
            path.write_bytes(b"by hand")

    def is_right(self):
        self.export()
        return self.exported() == self.first

    def for_commands(self):
        self.commands = True

    def again(self, text):
        stage = "[stages.{}]\nkind = \"command\"\ncommand = \"\"\"{}\"\"\"\noutputs = [\"f\"]\n".format
        a = f"echo A >> {self.log}; sleep 0.5; echo {text} > $OUT/f"
        b = f"echo B >> {self.log}; cat $IN/input/*/f > $OUT/f"
        self.write("probe.toml", stage("A", a) + stage("B", b) + 'inputs = { input = "A" }\n')


    def fan(self):
        command = f"echo C{{}} >> {self.log}; sleep 1; echo {{}} > $OUT/f".format
        stage = "[stages.C{}]\nkind = \"command\"\ncommand = \"\"\"{}\"\"\"\noutputs = [\"f\"]\n".format
        self.write("probe.toml", "".join(stage(n, command("", n)) for n in NUMBERS))
        self.command = [PIPE, "run", "probe.toml", "--allow-commands", "--jobs", "1"]


def is_run(line, stage):
    return '"stage_finished"' in line and f'"{stage}"' in line


def probe(tool):
    """The row of a tool, probe by probe."""
    tool.run()
    yield tool.run()
    for happens in (tool.touch, tool.equal, tool.change, tool.restore):
        happens()
        yield tool.run()
    for happens, mended in ((tool.delete, "restored"), (tool.overwrite, "repaired")):
        happens()
        ran = tool.run()
        yield f"{mended}, {ran}" if tool.is_right() else f"not noticed, {ran}"
    tool.for_commands()
    tool.again("three")
    first, second = tool.start(), tool.start()
    statuses = [first.wait(), second.wait()]
    yield tool.letters() + "".join(f", one fails ({status})" for status in statuses if status)
    tool.again("four")
    killed = tool.start()
    for _ in range(1500):
        if tool.log.exists() and "A" in tool.log.read_text():
            break
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    tool.letters()
    yield tool.run()
    yield fan(tool)


def fan(tool):
    """How many stages two runs at once did together, in how many seconds, and whether one failed."""
    tool.fan()
    begin = time.monotonic()
    runs = [tool.start(), tool.start()]
    statuses = [run.wait() for run in runs]
    seconds = time.monotonic() - begin
    return f"{len(tool.letters())} in {seconds:.1f} s" + "".join(f", one fails ({status})" for status in statuses if status)


def main():
    global PIPE
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pipe", default="target/release/pipe")
    options.add_argument("tools", nargs="*", default=["pipe", "dvc", "snakemake", "make", "ninja"])
    options = options.parse_args()
    PIPE = str(pathlib.Path(options.pipe).resolve())
    tools = [name for name in options.tools if name == "pipe" or shutil.which(name)]
    columns = []
    for name in tools:
        with tempfile.TemporaryDirectory() as folder:
            kind = Pipe if name == "pipe" else Peer
            columns.append(list(probe(kind(name, pathlib.Path(folder)))))
    print("| probe |", " | ".join(tools), "|")
    print("|---|" + "---|" * len(tools))
    for index, name in enumerate(PROBES):
        print(f"| {name} |", " | ".join(column[index] for column in columns), "|")


if __name__ == "__main__":
    main()
