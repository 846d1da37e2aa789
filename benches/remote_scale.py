#!/usr/bin/env python3
"""What 10 million items and 1,000 workers ask of one object store: `python3 benches/remote_scale.py`.

A model, not a measurement, and of workers that do not exist: no machine takes a part of a stage's items
from another one today. Requests, bytes, hours and money of a pipeline of mapped stages whose cache
lies in one bucket, laid out as the local cache is (an object per file, a record per item and stage).
The sizes of records are those that `pipe` writes; prices and limits are constants below. The queue is
simulated second by second: workers ask as fast as they can, the store serves as many requests a second
as its partitions do, and partitions split while they are hot. `docs/scale.md` discusses the output.
"""

import argparse
import dataclasses
import math

# S3 Standard, us-east-1, in US dollars, as published in November 2026.
PUT = 0.005 / 1000
GET = 0.0004 / 1000
GB_MONTH = 0.023
# Per partitioned prefix and second; a hot partition splits in 30 to 60 minutes.
PUTS_PER_SEC = 3500
GETS_PER_SEC = 5500
SPLIT_SECS = 45 * 60
# Folders `ab/` below objects/ and items/: what a prefix can be split by before names are random.
MOST_PARTITIONS = 2 * 256

SMALL = 64 << 10  # up to here content is sent without asking first whether it is there

ITEM_RECORD = 190  # bytes of JSON in items/
MANIFEST_LINE = 175  # bytes of JSON an item has in a manifest
REQUEST_SECS = 0.03  # latency of one small request
CONNECTIONS = 16  # requests that a worker has in flight

# A plan: what workers would claim at once, and how often they would say that they live.
CLAIMED_ITEMS = 1000
HEARTBEAT_SECS = 20


@dataclasses.dataclass
class Layout:
    """How many requests the cache makes of a batch of items."""

    name: str
    records_per_request: int
    manifest_chunk: int
    files_per_request: int = 1


@dataclasses.dataclass
class Work:
    items: int
    workers: int
    stages: int
    item_bytes: int
    item_secs: float


def serve(requests, limit_per_sec, workers):
    """Seconds until a store that starts with one partition has served all, and its partitions then."""
    partitions, seconds, hot_since = 1, 0, 0
    wanted = workers * CONNECTIONS / REQUEST_SECS
    while requests > 0:
        capacity = partitions * limit_per_sec
        requests -= min(wanted, capacity)
        seconds += 1
        if wanted > capacity and seconds - hot_since >= SPLIT_SECS and partitions < MOST_PARTITIONS:
            partitions, hot_since = partitions * 2, seconds
    return seconds, partitions


def cold(work, layout):
    """The first run: every item is looked up in vain, computed, and its files and record are put."""
    lookups = work.items * work.stages / layout.records_per_request
    files = work.items * work.stages / layout.files_per_request
    records = work.items * work.stages / layout.records_per_request
    chunks = math.ceil(work.items / layout.manifest_chunk)
    # Every worker reads the part of the manifest that names its items.
    per_worker = max(1, math.ceil(chunks / work.workers))
    heads = files if work.item_bytes * layout.files_per_request > SMALL else 0
    # Each file is asked for before it is sent, and read by the stage after.
    gets = lookups + work.stages * work.workers * per_worker + heads + files
    puts = files + records + work.stages * chunks
    down = work.items * work.stages * work.item_bytes
    down += work.stages * work.workers * per_worker * min(work.items, layout.manifest_chunk) * MANIFEST_LINE
    up = work.items * work.stages * (work.item_bytes + ITEM_RECORD + MANIFEST_LINE)
    compute = work.items * work.stages * work.item_secs / work.workers
    return puts, gets, up, down, compute


def no_op(work, layout):
    """All is there: a record and a look at the manifests' chunks for each stage."""
    chunks = math.ceil(work.items / layout.manifest_chunk)
    gets = work.stages * (1 + chunks)
    return 0, gets, 0, work.stages * work.items * MANIFEST_LINE, 0


def one_changed(work, layout):
    """One item of all is another: who looks up every item again, and who only a chunk."""
    chunks = math.ceil(work.items / layout.manifest_chunk)
    touched = min(work.items, layout.manifest_chunk)
    gets = work.stages * (touched / layout.records_per_request + min(chunks, 2))
    puts = work.stages * 4
    down = work.stages * touched * (ITEM_RECORD + MANIFEST_LINE)
    return puts, gets, work.stages * (work.item_bytes + touched * MANIFEST_LINE), down, 0


def leases(work):
    """Claims of items through the bucket, as they might be: one object each, written again as a sign of
    life, removed at the end (which costs nothing)."""
    claims = work.stages * math.ceil(work.items / CLAIMED_ITEMS)
    signs = math.ceil(CLAIMED_ITEMS * work.item_secs / HEARTBEAT_SECS)
    puts = claims * (1 + signs)
    print(f"leases, a plan: {claims:,} of {CLAIMED_ITEMS:,} items, {puts / 1e6:.2f} million PUT,"
          f" {puts * PUT:.2f} USD")


def report(what, work, layout, found):
    puts, gets, up, down, compute = found
    put_secs, partitions = serve(puts, PUTS_PER_SEC, work.workers)
    get_secs, _ = serve(gets, GETS_PER_SEC, work.workers)
    hours = max(put_secs, get_secs, compute) / 3600
    bound = "compute" if compute >= max(put_secs, get_secs) else "requests"
    money = puts * PUT + gets * GET
    print(
        f"| {layout.name} | {what} | {puts / 1e6:,.2f} | {gets / 1e6:,.2f} | {up / 1e12:,.3f} |"
        f" {down / 1e12:,.3f} | {money:,.2f} | {put_secs / 3600:,.2f} ({partitions}) |"
        f" {hours:,.2f} ({bound}) |"
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", type=int, default=10_000_000)
    arguments.add_argument("--workers", type=int, default=1000)
    arguments.add_argument("--stages", type=int, default=4)
    arguments.add_argument("--item-bytes", type=int, default=250_000)
    arguments.add_argument("--item-secs", type=float, default=0.5)
    options = arguments.parse_args()
    work = Work(options.items, options.workers, options.stages, options.item_bytes, options.item_secs)
    layouts = [
        Layout("as today", 1, work.items),
        Layout("chunked manifests", 1, 4096),
        Layout("and packed records", 4096, 4096),
        Layout("and packed files", 4096, 4096, 64),
    ]
    print("| layout | run | PUT, millions | GET, millions | up, TB | down, TB | requests, USD |"
          " hours of PUTs (partitions) | hours |")
    print("|---|---|---|---|---|---|---|---|---|")
    for layout in layouts:
        for what, of in (("cold", cold), ("no-op", no_op), ("one item changed", one_changed)):
            report(what, work, layout, of(work, layout))
    stored = work.items * work.stages * (work.item_bytes + ITEM_RECORD + MANIFEST_LINE)
    print()
    leases(work)
    print(f"stored: {stored / 1e12:.1f} TB, {stored / 1e9 * GB_MONTH:,.0f} USD a month")


if __name__ == "__main__":
    main()
