"""Checks and measures ours and PyTorch on one device: one table, and the same as JSON.

`python benches/gpu/run.py --device cuda:0` builds our side; where nothing can be built, `--binary`
names it. `--device cpu --size tiny` proves that every case runs, and no speed. What PyTorch's side lacks here is
told before anything runs: `pack.sh` collects it. The JSON grows with each step, so what was measured is there
whatever comes behind it.
"""
import argparse, datetime, importlib.metadata, json, os, pathlib, platform, queue, subprocess, sys, tempfile, threading, time, traceback
try:
    import torch
    from safetensors import safe_open
    import flops, peer
except ModuleNotFoundError as lacking:
    sys.exit(f"`{lacking.name}` is not here: PyTorch's side needs torch and what {os.path.dirname(os.path.abspath(__file__))}/wheels.txt names")

# Memory may grow by this share over the steps of a soak: pages that a new order of sizes asks for.
GROWTH = 0.02
HERE = pathlib.Path(__file__).resolve().parent
CASES = {case["name"]: case for case in peer.TABLE["cases"]}


def build(cuda):
    command = ["cargo", "test", "--release", "--bench", "gpu", "--no-run", "--message-format=json"]
    command += ["--features", "cuda"] if cuda else []
    root = HERE.parent.parent
    commit = said(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=40", "--match="])
    env = os.environ | dict(PIPE_COMMIT=commit or "unknown")
    lines = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, text=True, env=env).stdout
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [m["executable"] for m in found if m.get("executable") and m["target"]["name"] == "gpu"][-1]


def said(command):
    """What a program prints, or nothing."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def nvidia_smi(card, query):
    return said(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "-i", card])


def card_memory(card):
    """Bytes in use on the card by everybody; PyTorch's own count knows nothing of the other side."""
    text = nvidia_smi(card, "memory.used")
    return int(text) << 20 if text.isdigit() else None


def card_of(device):
    """Name and UUID of a GPU; CUDA counts cards otherwise than `nvidia-smi`. A process of its own asks, which leaves nothing on the card."""
    program = "import sys, torch; p = torch.cuda.get_device_properties(sys.argv[1]); print(p.name); print(p.uuid)"
    name, uuid = subprocess.run([sys.executable, "-c", program, device], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    return name, uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def about(args, binary):
    """What the figures are of."""
    packages = {d.name: d.version for d in importlib.metadata.distributions()
                if d.name in ("diffusers", "peft", "transformers", "accelerate", "safetensors", "triton") or d.name.startswith("nvidia-")}
    version = said([binary, "--version"])
    found = dict(argv=sys.argv, options=args.options, device=args.name_of_device, size=args.size, date=str(datetime.date.today()),
                 pipe=json.loads(version) if version.startswith("{") else version, python=platform.python_version(), torch=torch.__version__,
                 cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), packages=dict(sorted(packages.items())))
    if args.gpu:
        found |= dict(driver=nvidia_smi(args.card, "driver_version"), card_before=card_memory(args.card))
    return found


def resident(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


class Watched:
    """One side's process: its lines as they come, and the memory it has from time to time."""

    def __init__(self, command, card, env, log):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        self.lines, self.card, self.samples = queue.Queue(), card, []
        threading.Thread(target=self.read, daemon=True).start()
        threading.Thread(target=self.watch, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def watch(self):
        while self.process.poll() is None:
            at = time.monotonic()
            now = card_memory(self.card) if self.card else resident(self.process.pid)
            self.samples.append((at, now or 0))
            time.sleep(0.05 if self.card else 0.002)

    def peak(self, since):
        """The most of all that was asked for after a moment."""
        return max((size for at, size in list(self.samples) if at >= since), default=None)

    def end(self):
        """The exit code of the process, which is killed unless it ends by itself now."""
        for _ in range(2):
            try:
                return self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return "it cannot be killed"


def follow(side, left, until):
    """Gives a side's cases with their figures as they end; last, the case that it did not come to an end with."""
    current, begun, phase, peaks = left[0], time.monotonic(), "load", {}
    since, deadline = begun, begun + 60
    while True:
        try:
            line = side.lines.get(timeout=max(0.0, min(deadline, until) - time.monotonic()))
        except queue.Empty:
            side.process.kill()
            line, error = None, "took too long"
        else:
            error = None
        if line is None:
            code = side.end()
            if current:
                yield current, dict(error=error or f"the process ended: {code}")
            return
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            # Not for us, or cut off.
            continue
        now = time.monotonic()
        if kind == "start":
            current, begun, phase, peaks = event["case"], now, "load", {}
            since, deadline = now, now + CASES[current]["seconds"]
        else:
            peaks[phase] = max(peaks.get(phase) or 0, side.peak(since) or 0) or None
            if kind == "phase":
                phase, since = event["phase"], now
            else:
                yield current, event["figures"] | dict(case_secs=event["secs"], device_peak=side.peak(begun), device_peaks=peaks)
                # What has ended stays, whatever the process does now.
                current, deadline = None, now + 60


def run_side(command, names, args, env, log, until):
    """Figures by case. A case that fails, hangs or kills the process costs itself alone."""
    found, left = {}, list(names)
    while left:
        if time.monotonic() > until:
            return found | {name: dict(error="no time was left") for name in left}
        options = dict(device=args.device, size=args.size, out=args.work, budget=args.budget, cases=",".join(left))
        options = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        side = Watched([*command, *options], args.card, env, log)
        for name, figures in follow(side, left, until):
            found[name] = figures
            left.remove(name)
    return found


def environment(work, cache):
    """Ours begins with nothing compiled, the driver's cache included, and finds CUDA as PyTorch's packages bring it, behind what the user names."""
    env = os.environ | dict(XDG_CACHE_HOME=cache or str(work / "cache"), CUDA_CACHE_PATH=f"{cache or work}/driver")
    packages = pathlib.Path(torch.__file__).parents[1]
    libraries = packages.glob("nvidia/*/lib")
    env["LD_LIBRARY_PATH"] = ":".join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), *map(str, libraries)]))
    headers = [header for path in sys.path for header in pathlib.Path(path).glob("nvidia/*/include/*")]
    if headers and "CUDA_PATH" not in env and not os.path.exists("/usr/local/cuda"):
        # PyTorch's packages lack those of wmma and of barriers, which wheels.txt has: one folder with all of them.
        include = work / "cuda" / "include"
        include.mkdir(parents=True)
        for header in headers:
            if not (include / header.name).exists():
                (include / header.name).symlink_to(header.resolve())
        env["CUDA_PATH"] = str(include.parent)
    return env


def ceilings(device, gpu):
    """FLOP/s of a large product and bytes/s of a large copy here, on random data."""
    if gpu:
        torch.cuda.set_device(device)
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


def tried(call):
    """What a call gives, or its error: nothing here is worth the figures that there are already."""
    try:
        return call()
    except Exception as error:
        traceback.print_exc()
        return dict(error=f"{type(error).__name__}: {error}".splitlines()[0][:200])


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
        return "not compared" + (f": {found['error']}" if found else "")
    limit = max(2 * found["peer"], 1e-3 if gpu else 1e-4)
    return "right" if found["ours"] <= limit else "WRONG"


def growth(usage):
    """Growth of memory from the second tenth of the steps to the last: of what is reserved on a GPU."""
    size = lambda entry: entry["pool"][1] if entry.get("pool") else entry["resident"]
    return size(usage[-1]) / size(usage[1]) - 1


def memory(side, name):
    """Bytes of a variant: what its allocator held (ours has reserved at the end, PyTorch's most allocated), and the card's peak."""
    found = side.get("variants", {}).get(name, {})
    peaks = [peak for phase, peak in side.get("device_peaks", {}).items() if peak and phase.startswith(f"{name}, ")]
    return found.get("reserved") or found.get("peak"), max(peaks, default=None)


def gigabytes(sizes):
    return " / ".join(f"{size / 1e9:.1f}" if size else "-" for size in sizes)


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
    row["errors"] = tried(lambda: errors(pathlib.Path(args.work), name)) if case.get("check") else None
    row["verdict"] = verdict(row["errors"], args.gpu) if case.get("check") else ""
    row["variants"] = {n: [side.get("variants", {}).get(n, {}).get("secs") for side in (ours, theirs)]
                       for n in {**ours.get("variants", {}), **theirs.get("variants", {})}}
    held = {n: [memory(side, n) for side in (ours, theirs)] for n in row["variants"]}
    row["memory"] = {n: [side[0] for side in sides] for n, sides in held.items()}
    row["card"] = {n: [side[1] for side in sides] for n, sides in held.items()}
    if row["ours"]:
        row["first_secs"] = ours["variants"][row["ours"]]["first_secs"]
        floor = flops.floor(case, args.size)
        if "error" not in peaks:
            least = max(floor["flops"] / peaks["flops"], floor["bytes"] / peaks["bytes"])
            row["share_of_peak"] = least / row["ours_secs"]
        if case["kind"] == "soak":
            row["growth"] = growth(ours["usage"])
            if row["growth"] > GROWTH:
                row["verdict"] = "GROWS"
        row["floor"] = floor
        if "extrapolate" in case:
            row["extrapolated_secs"] = {str(case["extrapolate"]): row["ours_secs"] / case["steps"] * case["extrapolate"]}
        if "bar_secs" in case and args.size == "full":
            row["bar"] = "met" if row["ours_secs"] <= case["bar_secs"] else f"missed ({case['bar_secs']} s)"
        for variant, most in case.get("bar_bytes", {}).items() if args.size == "full" and args.gpu else ():
            taken = row["card"].get(variant, [None])[0]
            row["memory_bar"] = f"{variant} in {most / 1e9:.0f} GB of the card: {'not known' if not taken else 'met' if taken <= most else 'missed'}"
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
    ceilings = "not measured: " + peaks["error"] if "error" in peaks else f"{peaks['flops'] / 1e12:.1f} TFLOP/s, {peaks['bytes'] / 1e9:.0f} GB/s"
    lines = [f"# {device}, {datetime.date.today()}", "", *proof,
             f"Ceilings measured in this run: {ceilings}. Times in ms; errors relative to PyTorch in f32, ours / PyTorch's own. Memory in GB, "
             "ours / PyTorch's: of the allocators, what ours has reserved behind the last call and the most that PyTorch's had allocated; "
             f"of {'the card, all that anybody has on it, contexts of CUDA too' if args.gpu else 'the process, what is resident'}, "
             "the most at any moment of a variant, its first call too, asked for many times a second.", "",
             f"| case | ours | PyTorch | PyTorch/ours | share of peak | allocator | {'card' if args.gpu else 'process'} | errors | |", "|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        error = r.get("errors")
        error = f"{error['ours']:.1e} / {error['peer']:.1e}" if error and "ours" in error else ""
        notes = [r["verdict"], *r["failures"]]
        notes += [f"bar {r['bar']}"] if "bar" in r else []
        notes += [r["memory_bar"]] if "memory_bar" in r else []
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
                         f"{gigabytes(r['memory'][name])} | {gigabytes(r['card'][name])} | {rest[0]} | {rest[1]} |")
        if not r["variants"]:
            lines.append(f"| {r['case']} | | | | | | | | {'; '.join(n for n in notes if n)} |")
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
    args.options = dict(vars(args))
    args.device = {"cuda": "cuda:0"}.get(args.device, args.device)
    args.gpu = args.device != "cpu"
    names = [name for name in args.cases.split(",") if CASES[name]]
    args.name_of_device, args.card = card_of(args.device) if args.gpu else (f"CPU ({os.cpu_count()} threads)", None)
    binary = args.binary or build(args.gpu)
    # Building takes half an hour where nothing is built yet, and is none of the measuring.
    begun, all_of_it = time.monotonic(), 60 * args.minutes
    # Both sides get their share, and what is measured is kept whatever the other side does.
    until = {side: begun + share * all_of_it for side, share in (("ours", 0.55), ("pytorch", 0.97), ("again", 1.0))}
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    stem = out / (args.name or f"{datetime.date.today()}-{args.name_of_device.replace(' ', '-').lower() if args.gpu else 'cpu'}")
    record = about(args, binary)

    def keep(**more):
        record.update(more)
        pathlib.Path(f"{stem}.json.part").write_text(json.dumps(record, indent=1) + "\n")
        os.replace(f"{stem}.json.part", f"{stem}.json")

    with tempfile.TemporaryDirectory() as work, open(out / "gpu.log", "w") as log:
        args.work = work
        env = environment(pathlib.Path(work), args.cache)
        ours = run_side([binary], names, args, env, log, until["ours"])
        keep(ours=ours)
        peer_command = [sys.executable, str(HERE / "peer.py"), *(["--no-compile"] if args.no_compile else [])]
        theirs = run_side(peer_command, names, args, os.environ, log, until["pytorch"])
        keep(pytorch=theirs)
        repeated = [n for n in names if CASES[n].get("again") and time.monotonic() < until["pytorch"]]
        again = run_side([binary, "--only", "recompute"], repeated, args, env, log, until["again"])
        keep(ours_again=again)
        peaks = tried(lambda: ceilings(args.device, args.gpu))
        keep(ceilings=peaks)
        rows = []
        for n in names:
            row = tried(lambda: summary(n, ours.get(n, {}), theirs.get(n, {}), again.get(n, {}), args, peaks))
            rows.append(row if "error" not in row else dict(case=n, verdict="", variants={}, failures=[row["error"]]))
        keep(rows=rows)
    table = render(rows, args.name_of_device, args, peaks)
    pathlib.Path(f"{stem}.md").write_text(table)
    print(table)
    sys.exit(any(row["verdict"] not in ("", "right") or row["failures"] for row in rows))


if __name__ == "__main__":
    main()
