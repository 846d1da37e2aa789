"""What a card did, from a file that trace.cpp wrote: its share of the time, kernels, gaps, the driver's calls.

`python benches/gpu/trace.py trace.bin --window 1.5 --skip 0.3` looks at 1.5 s that end 0.3 s before the last kernel.
"""
import argparse, collections, struct

CALL = 3


def read(path):
    data = open(path, "rb").read()
    (num_names, num_records), at, names = struct.unpack_from("<QQ", data), 16, []
    for _ in range(num_names):
        (length,) = struct.unpack_from("<I", data, at)
        names.append(data[at + 4:at + 4 + length].decode(errors="replace"))
        at += 4 + length
    for index in range(num_records):
        start, end, kind, lane, name = struct.unpack_from("<QQIII", data, at + 28 * index)
        yield start, end, kind, lane, names[name]


def totals(title, entries, most):
    """Entries `(name, nanoseconds)`, the dearest first."""
    found = collections.defaultdict(list)
    for name, spent in entries:
        found[name].append(spent)
    print(f"\n{title}")
    for name, all_of_it in sorted(found.items(), key=lambda entry: -sum(entry[1]))[:most]:
        count, total = len(all_of_it), sum(all_of_it)
        print(f"{total / 1e6:10.2f} ms {count:7d} x {total / count / 1e3:9.1f} us  {name[:120]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace")
    parser.add_argument("--window", type=float, default=1.5, help="seconds to look at")
    parser.add_argument("--skip", type=float, default=0.0, help="seconds before the end to leave out")
    parser.add_argument("--most", type=int, default=40, help="rows of a table")
    args = parser.parse_args()
    records = sorted(read(args.trace))
    card = [record for record in records if record[2] != CALL]
    until = max(end for _, end, *_ in card) - int(args.skip * 1e9)
    since = until - int(args.window * 1e9)
    card = [record for record in card if since <= record[0] and record[1] <= until]
    busy, reached, gaps, before = 0, card[0][0], [], "the beginning"
    for start, end, _, _, name in card:
        if start > reached:
            gaps.append((f"{before[:50]} -> {name[:50]}", start - reached))
        busy += max(0, end - max(start, reached))
        reached, before = max(reached, end), name
    span = reached - card[0][0]
    print(f"{span / 1e9:.3f} s, of which the card is busy {busy / span:.1%}; {len(card)} kernels, copies and fills")
    totals("The card:", [(name, end - start) for start, end, _, _, name in card], args.most)
    totals("Gaps between:", gaps, args.most)
    calls = [(f"{name} (thread {lane})", end - start) for start, end, kind, lane, name in records
             if kind == CALL and since <= start <= until]
    if calls:
        totals("The driver's calls:", calls, args.most)


if __name__ == "__main__":
    main()
