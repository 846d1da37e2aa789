"""Checks and measures ours and PyTorch on one device: one table, and the same as JSON.

`python benches/gpu/run.py --device cuda:0` builds our side; where nothing can be built, `--binary`
names it. `--device cpu --size tiny` proves that every case runs, and no speed.
"""
import argparse, datetime, json, os, pathlib, platform, queue, shutil, subprocess, sys, tempfile, threading, time
import torch
from safetensors import safe_open
import flops, peer

# Memory may grow by this share over the steps of a soak: pages that a new order of sizes asks for.
GROWTH = 0.02
HERE = pathlib.Path(__file__).resolve().parent
CASES = {case["name"]: case for case in peer.TABLE["cases"]}


def build(cuda):
    command = ["cargo", "test", "--release", "--bench", "gpu", "--no-run", "--message-format=json"]
    command += ["--features", "cuda"] if cuda else []
    lines = subprocess.run(command, cwd=HERE.parent.parent, stdout=subprocess.PIPE, check=True, text=True).stdout
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [m["executable"] for m in found if m.get("executable") and m["target"]["name"] == "gpu"][-1]


def card_memory(index):
    """Bytes in use on the card by everybody; PyTorch's own count knows nothing of the other side."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", str(index)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=5).stdout) << 20


def resident(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


class Watched:
    """One side's process: its lines as they come, and the most memory it had."""

    def __init__(self, command, gpu, env, log):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        self.lines, self.gpu, self.peak = queue.Queue(), gpu, 0
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.watch, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def watch(self):
        while self.process.poll() is None:
            now = resident(self.process.pid) if self.gpu is None else card_memory(self.gpu)
            self.peak = max(self.peak, now)
            time.sleep(0.05)


def run_side(command, names, args, env, log, until):
    """Figures by case. A case that fails, hangs or kills the process costs itself alone."""
    found, left = {}, list(names)
    gpu = None if args.device == "cpu" else int(args.device.split(":")[1])
    while left:
        if time.monotonic() > until:
            found |= {name: dict(error="no time was left") for name in left}
            break
        side = Watched([*command, "--device", args.device, "--size", args.size, "--out", args.work, "--budget", str(args.budget), "--cases", ",".join(left)], gpu, env, log)
        current, deadline = left[0], time.monotonic() + 60
        while True:
            try:
                line = side.lines.get(timeout=max(0.0, min(deadline, until) - time.monotonic()))
            except queue.Empty:
                found[current] = dict(error="took too long")
                side.process.kill()
                break
            if line is None:
                if current in left:
                    found[current] = dict(error=f"the process ended: {side.process.wait()}")
                break
            if not line.startswith("{"):
                continue
            event = json.loads(line)
            current = event["case"]
            if event["event"] == "start":
                side.peak, deadline = 0, time.monotonic() + CASES[current]["seconds"]
            else:
                found[current] = event["figures"] | dict(case_secs=event["secs"], device_peak=side.peak)
                left.remove(current)
                deadline = time.monotonic() + 60
        side.process.wait()
        if current in left:
            left.remove(current)
    return found


def ceilings(device, gpu):
    """FLOP/s of a large product and bytes/s of a large copy here, on random data."""
    size, dtype = (8192, torch.bfloat16) if gpu else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.randn((1 << 30) if gpu else (1 << 24), device=device)
    target = torch.empty_like(source)

    def best(call):
        times = []
        for _ in range(10):
            start = time.perf_counter()
            call()
            if gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times[2:])

    found = dict(flops=2 * size**3 / best(lambda: a @ b), bytes=2 * 4 * source.numel() / best(lambda: target.copy_(source)))
    del a, b, source, target
    return found


def errors(work, name):
    """Relative errors against PyTorch in f32: of ours, and of PyTorch in the type it computed in."""
    path = lambda side: work / f"{name.replace(' ', '_')}.{side}.safetensors"
    if not (path("ours").exists() and path("peer").exists()):
        return None
    sums = dict(ours=0.0, peer=0.0, scale=0.0)
    with safe_open(path("ours"), "pt") as ours, safe_open(path("peer"), "pt") as theirs:
        wanted = [key for key in theirs.keys() if key.startswith("ref.")]
        if sorted(key[4:] for key in wanted) != sorted(ours.keys()):
            return dict(error="the two sides have tensors of other names")
        for key in wanted:
            reference = theirs.get_tensor(key).double().flatten()
            sums["scale"] += reference.square().sum().item()
            sums["ours"] += (ours.get_tensor(key[4:]).double().flatten() - reference).square().sum().item()
            sums["peer"] += (theirs.get_tensor(key[4:]).double().flatten() - reference).square().sum().item()
    return {side: (sums[side] / sums["scale"]) ** 0.5 for side in ("ours", "peer")}


def verdict(found, gpu):
    """Ours may be off by twice what PyTorch is in the same type; in f32 by a ten-thousandth."""
    if found is None or "error" in found:
        return "not compared" if found is None else found["error"]
    limit = max(2 * found["peer"], 1e-3 if gpu else 1e-4)
    return "right" if found["ours"] <= limit else "WRONG"


def growth(usage):
    """Growth of memory from the second tenth of the steps to the last: of what is reserved on a GPU."""
    size = lambda entry: entry["pool"][1] if entry.get("pool") else entry["resident"]
    return size(usage[-1]) / size(usage[1]) - 1


def gigabytes(side, name):
    """What the allocator of a side held at the peak of a variant."""
    found = side.get("variants", {}).get(name, {})
    held = found.get("reserved") or found.get("peak")
    return f"{held / 1e9:.1f}" if held else "-"


def best(figures):
    """Name and seconds of the fastest variant."""
    variants = {name: v["secs"] for name, v in figures.get("variants", {}).items() if "secs" in v}
    name = min(variants, key=variants.get, default=None)
    return name, variants.get(name)


def summary(name, ours, theirs, again, args, peaks):
    case, row = CASES[name], dict(case=name)
    row["ours"], row["ours_secs"] = best(ours)
    row["pytorch"], row["pytorch_secs"] = best(theirs)
    if row["ours_secs"] and row["pytorch_secs"]:
        row["speed"] = row["pytorch_secs"] / row["ours_secs"]
    row["errors"] = errors(pathlib.Path(args.work), name) if case.get("check") else None
    row["verdict"] = verdict(row["errors"], args.gpu) if case.get("check") else ""
    row["variants"] = {n: [side.get("variants", {}).get(n, {}).get("secs") for side in (ours, theirs)]
                       for n in {**ours.get("variants", {}), **theirs.get("variants", {})}}
    row["memory"] = {n: [gigabytes(side, n) for side in (ours, theirs)] for n in row["variants"]}
    if row["ours"]:
        row["first_secs"] = ours["variants"][row["ours"]]["first_secs"]
        floor = flops.floor(case, args.size)
        least = max(floor["flops"] / peaks["flops"], floor["bytes"] / peaks["bytes"])
        if case["kind"] == "soak":
            row["growth"] = growth(ours["usage"])
            if row["growth"] > GROWTH:
                row["verdict"] = "GROWS"
        row |= dict(floor=floor, share_of_peak=least / row["ours_secs"])
        if "extrapolate" in case:
            row["extrapolated_secs"] = {str(case["extrapolate"]): row["ours_secs"] / case["steps"] * case["extrapolate"]}
        if "bar_secs" in case and args.size == "full":
            row["bar"] = "met" if row["ours_secs"] <= case["bar_secs"] else f"missed ({case['bar_secs']} s)"
    if ours.get("optimizer_error", 0) > 1e-3:
        row["verdict"] = f"WRONG: the optimizer is {ours['optimizer_error']:.1e} of a step off"
    if "cold_secs" in ours:
        row["cold_secs"] = ours["cold_secs"]
    if again.get("variants"):
        row["first_secs_again"] = {n: v.get("first_secs") for n, v in again["variants"].items()}
        row["first_secs_cold"] = {n: v.get("first_secs") for n, v in ours.get("variants", {}).items()}
    row["failures"] = [f"{side}: {text}" for side, found in (("ours", ours), ("PyTorch", theirs))
                       for text in [found.get("error"), *(v.get("error") for v in found.get("variants", {}).values())] if text]
    return row


def ms(secs):
    return f"{secs * 1e3:.1f}" if secs else "-"


def render(rows, device, args, peaks):
    proof = [] if args.size == "full" else ["**A proof that the harness runs, with models of a few thousand parameters: no figure here says anything of speed.**", ""]
    lines = [f"# {device}, {datetime.date.today()}", "", *proof,
             f"Ceilings measured in this run: {peaks['flops'] / 1e12:.1f} TFLOP/s, {peaks['bytes'] / 1e9:.0f} GB/s. Times in ms; "
             "errors relative to PyTorch in f32, ours / PyTorch's own; memory as each side's allocator counts it: ours reserved, "
             "PyTorch's most allocated.", "",
             "| case | ours | PyTorch | PyTorch/ours | share of peak | memory, GB | errors | |", "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        error = r["errors"]
        error = f"{error['ours']:.1e} / {error['peer']:.1e}" if error and "ours" in error else ""
        notes = [r["verdict"], *r["failures"]]
        notes += [f"bar {r['bar']}"] if "bar" in r else []
        notes += [f"growth {r['growth']:+.1%}"] if "growth" in r else []
        notes += [f"{n} steps about {s:.2f} s, from the step" for n, s in r.get("extrapolated_secs", {}).items()]
        if "cold_secs" in r:
            notes.append(f"nothing compiled: {r['cold_secs']:.1f} s")
        if "first_secs_again" in r:
            notes.append("first calls " + ", ".join(f"{n} {ms(s)}" for n, s in r["first_secs_cold"].items())
                         + "; with kernels kept " + ", ".join(f"{n} {ms(s)}" for n, s in r["first_secs_again"].items()))
        for index, (name, (ours, theirs)) in enumerate(r["variants"].items()):
            ratio = f"{theirs / ours:.2f}" if ours and theirs else ""
            share = f"{r['share_of_peak']:.1%}" if name == r["ours"] and "share_of_peak" in r else ""
            rest = (error, "; ".join(n for n in notes if n)) if index == 0 else ("", "")
            lines.append(f"| {r['case']}, {name} | {ms(ours)} | {ms(theirs)} | {ratio} | {share} | "
                         f"{' / '.join(r['memory'][name])} | {rest[0]} | {rest[1]} |")
        if not r["variants"]:
            lines.append(f"| {r['case']} | | | | | | | {'; '.join(n for n in notes if n)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--size", default="full", choices=["full", "tiny"])
    parser.add_argument("--binary", help="our side, if it is built already")
    parser.add_argument("--cases", default=",".join(CASES), help="names, with commas")
    parser.add_argument("--out", default=".", help="where the table and the JSON go")
    parser.add_argument("--name", help="of the two files; by default the date and the device")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds that one variant is repeated for")
    parser.add_argument("--cache", help="our kernels of an earlier run; by default none, so that first calls are cold")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all of it but building ours")
    args = parser.parse_args()
    args.gpu = args.device != "cpu"
    binary = args.binary or build(args.gpu)
    # Building takes half an hour where nothing is built yet, and is none of the measuring.
    begun, all_of_it = time.monotonic(), 60 * args.minutes
    # Both sides get their share, and what is measured is kept whatever the other side does.
    until = {side: begun + share * all_of_it for side, share in (("ours", 0.55), ("pytorch", 0.97), ("again", 1.0))}
    names = [name for name in args.cases.split(",") if CASES[name]]
    with tempfile.TemporaryDirectory() as work, open(os.devnull if not args.out else pathlib.Path(args.out) / "gpu.log", "w") as log:
        args.work = work
        # An empty cache, so that what is measured first is measured cold.
        env = os.environ | dict(XDG_CACHE_HOME=args.cache or str(pathlib.Path(work) / "cache"))
        # cuBLASLt and cuDNN as PyTorch's packages bring them, behind what the user names.
        libraries = pathlib.Path(torch.__file__).parents[1].glob("nvidia/*/lib")
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), *map(str, libraries)]))
        ours = run_side([binary], names, args, env, log, until["ours"])
        (pathlib.Path(args.out) / "ours.json").write_text(json.dumps(ours, indent=1) + "\n")
        peer_command = [sys.executable, str(HERE / "peer.py"), *(["--no-compile"] if args.no_compile else [])]
        theirs = run_side(peer_command, names, args, os.environ, log, until["pytorch"])
        repeated = [n for n in names if CASES[n].get("again") and time.monotonic() < until["pytorch"]]
        again = run_side([binary, "--only", "recompute"], repeated, args, env, log, until["again"])
        peaks = ceilings(args.device, args.gpu)
        rows = [summary(n, ours.get(n, {}), theirs.get(n, {}), again.get(n, {}), args, peaks) for n in names]
    device = torch.cuda.get_device_name(args.device) if args.gpu else f"CPU ({os.cpu_count()} threads)"
    table = render(rows, device, args, peaks)
    stem = args.name or f"{datetime.date.today()}-{device.replace(' ', '-').lower() if args.gpu else 'cpu'}"
    out = pathlib.Path(args.out)
    (out / f"{stem}.md").write_text(table)
    record = dict(device=device, size=args.size, date=str(datetime.date.today()), python=platform.python_version(),
                  torch=torch.__version__, ceilings=peaks, rows=rows, ours=ours, ours_again=again, pytorch=theirs)
    (out / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "ours.json").unlink()
    print(table)
    sys.exit(any(row["verdict"].startswith(("WRONG", "GROWS")) or row["failures"] for row in rows))


if __name__ == "__main__":
    main()
