#!/usr/bin/env python3
"""How long results take to a remote that answers late: `python3 benches/remote_delay.py PIPE [PIPE ...]`.

Serves S3 on this machine (no signatures are checked), answers each request after a delay, and runs with
each binary a pipeline of many small stages from an empty cache to an empty bucket. Printed are the
requests, the most at once, and how long after the last stage everything was sent.
"""

import argparse
import collections
import http.server
import pathlib
import subprocess
import tempfile
import threading
import time

PIPELINE = """
[sweep]
grid = { frames = [%s] }

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
count  = 1
size   = [16, 16]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
method = "linear"
frames = "${frames}"
"""


class Bucket(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, delay):
        super().__init__(("127.0.0.1", 0), Handler)
        self.delay, self.objects, self.lock = delay, {}, threading.Lock()
        self.asked, self.busy, self.busiest, self.last = collections.Counter(), 0, 0, 0.0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        server, key = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with server.lock:
            server.asked[self.command + " " + (key.split("/") + ["", ""])[2]] += 1
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(server.delay)
        with server.lock:
            server.busy -= 1
            server.last = time.time()
            found = server.objects.get(key)
            if self.command == "PUT":
                taken = self.headers.get("If-None-Match") == "*" and found is not None
                status, found = (412, b"") if taken else (200, b"")
                if not taken:
                    server.objects[key] = body
            elif "list-type" in self.path:
                status, found = 200, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
            else:
                status, found = (404, b"<Code>NoSuchKey</Code>") if found is None else (200, found)
        self.send_response(status)
        self.send_header("Content-Length", str(len(found)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found)

    do_GET = do_PUT = do_HEAD = answer

    def log_message(self, *_):
        pass


def measure(pipe, options):
    server = Bucket(options.delay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        frames = ", ".join(str(5 + 4 * at) for at in range(options.results))
        (pathlib.Path(folder) / "p.toml").write_text(PIPELINE % frames)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        line = [pipe, "run", "p.toml", "--remote", "s3://bucket/cache", "--events", "e.ndjson"]
        start = time.time()
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)
        end = time.time()
        computed = max(
            (pathlib.Path(folder) / "cache").rglob("actions/*/*"), key=lambda path: path.stat().st_mtime
        ).stat().st_mtime
    requests = ", ".join(f"{count} {what}" for what, count in sorted(server.asked.items()))
    print(f"{pipe}: {end - start:.1f} s, of these {end - computed:.1f} s after the last stage;"
          f" at once {server.busiest}; {requests}")
    server.shutdown()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pipes", nargs="+")
    arguments.add_argument("--delay", type=float, default=0.25)
    arguments.add_argument("--results", type=int, default=40)
    options = arguments.parse_args()
    for pipe in options.pipes:
        measure(str(pathlib.Path(pipe).resolve()), options)


if __name__ == "__main__":
    main()
