"""Runs the remote cache against an S3 server that others wrote: moto's.

    python remote.py PIPE FOLDER

starts the server on this machine, which checks signatures and rights, makes a bucket, and has `pipe` share
caches through it: `pipe cache push` and `pull`, a run that fetches instead of computing, one that writes back, an
object of several parts, and listings longer than a page. What the server then holds is looked at with boto3
alone. The pipelines are `remote.toml` and `remote_more.toml`.

Needs `pip install 'moto[server]'`, which brings boto3.
"""

import hashlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import boto3

BUCKET = "shared"
REGION = "us-east-1"
# More than S3 lists at once.
MANY = 1_100

PIPELINES = ["remote.toml", "remote_more.toml"]

failures = 0


def told(what, value, good=True):
    global failures
    failures += not good
    print(f"{what:<58} {value} {'ok' if good else 'WRONG'}", flush=True)


class Server:
    """moto's server, with the requests that it was sent."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "server.log"
        self.url = f"http://127.0.0.1:{self.port}"
        command = [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1).read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        sys.exit(f"the server did not start: see {self.log}")

    def guard(self):
        """Makes a user, gives its credentials, and checks those of every request from then on."""
        iam = boto3.client("iam", endpoint_url=self.url, region_name=REGION, aws_access_key_id="any",
                           aws_secret_access_key="any")
        iam.create_user(UserName="user")
        rights = {"Version": "2012-10-17",
                  "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(rights))
        key = iam.create_access_key(UserName="user")["AccessKey"]
        from_now_on = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(from_now_on).read()
        return key["AccessKeyId"], key["SecretAccessKey"]

    def requests(self, word, since=0):
        return [line for line in self.log.read_text().splitlines()[since:] if word in line]

    def lines(self):
        return len(self.log.read_text().splitlines())


class Fault(http.server.BaseHTTPRequestHandler):
    """Passes requests on to `server`, but is the network that fails where `word` is in one: before the
    request, or after it so that only the answer is lost (`late`)."""

    server_at, word, late, left = None, "", False, 0

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hit = Fault.left > 0 and Fault.word in f"{self.command} {self.path}"
        Fault.left -= hit
        self.close_connection = True
        if hit and not Fault.late:
            return
        other = http.client.HTTPConnection("127.0.0.1", Fault.server_at)
        other.request(self.command, self.path, body, dict(self.headers))
        answer = other.getresponse()
        content = answer.read()
        if hit:
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

    def log_message(self, *_):
        pass


class Pipe:
    def __init__(self, program, folder, server, credentials):
        self.program, self.folder = program, folder
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "AWS_ACCESS_KEY_ID": credentials[0],
            "AWS_SECRET_ACCESS_KEY": credentials[1], "AWS_ENDPOINT_URL": server.url}

    def __call__(self, *arguments, good=True, **environment):
        done = subprocess.run(
            [self.program, *arguments], cwd=self.folder, capture_output=True, text=True,
            env=self.environment | environment)
        if good and done.returncode:
            sys.exit(f"pipe {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr


def line_of(text, word):
    found = [line.strip() for line in text.splitlines() if word in line]
    return found[0] if found else text


def shares(pipe, s3, server, folder):
    """Push, pull, and runs through the remote."""
    remote = ["--remote", f"s3://{BUCKET}/caches/one"]
    commands = ["--allow-commands"]
    pipe("run", "remote.toml", "--cache", "first", *commands)
    pushed = pipe("cache", "push", "--cache", "first", *remote)
    told("push", line_of(pushed, "sent 3 results"), "sent 3 results" in pushed)
    keys = listed(s3, "caches/one/")
    objects = {key: size for key, size in keys.items() if "/objects/" in key}
    for key in objects:
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        path = folder / "first" / key.removeprefix("caches/one/")
        assert hashlib.sha256(body).digest() == hashlib.sha256(path.read_bytes()).digest(), key
    told("objects as in the cache here, read by boto3", len(objects), len(objects) > 3)
    parts = len(server.requests("partNumber="))
    told(f"parts of the object of {max(objects.values())} bytes", parts, parts == 3)
    again = pipe("cache", "push", "--cache", "first", *remote)
    told("push again", line_of(again, "sent 0 results"), "sent 0 results" in again)

    pulled = pipe("cache", "pull", "--all", "--cache", "second", *remote)
    told("pull into a fresh cache", line_of(pulled, "fetched 3 results"), "fetched 3 results" in pulled)
    verified = pipe("cache", "verify", "--cache", "second")
    told("pipe cache verify", line_of(verified, "checked"))
    alone = pipe("run", "remote.toml", "--cache", "second", *commands)
    told("run on it, alone", line_of(alone, "stages ran"), "0 stages ran, 3 reused" in alone)

    through = pipe("run", "remote.toml", "--cache", "third", *commands, *remote)
    told("run through the remote from a fresh cache", line_of(through, "stages ran"),
         "0 stages ran, 3 reused" in through)
    told("", line_of(through, "fetched"), "fetched 3 results" in through)

    back = pipe("run", "remote_more.toml", "--cache", "third", *commands, *remote)
    told("run of one stage more, written back", line_of(back, "sent"), "sent 1 result" in back)
    fourth = pipe("run", "remote_more.toml", "--cache", "fourth", *commands, *remote)
    told("run of another fresh cache", line_of(fourth, "stages ran"), "0 stages ran, 4 reused" in fourth)


def mends(pipe, s3, server):
    """What is damaged at the remote is replaced."""
    remote = ["--remote", f"s3://{BUCKET}/caches/one"]
    keys = listed(s3, "caches/one/objects/")
    large = max(keys, key=keys.get)
    s3.put_object(Bucket=BUCKET, Key=large, Body=b"x" * keys[large])
    fifth = pipe("run", "remote_more.toml", "--cache", "fifth", "--allow-commands", *remote)
    told("run over a damaged object", line_of(fifth, "done"), "1 stage ran, 3 reused" in fifth)
    # With another output, as the stage notes the time.
    told("", line_of(fifth, "sent"), "sent 1 result" in fifth)
    refused = len(server.requests(" 412 "))
    told("writes refused since something is there, then forced", refused, refused > 0)
    sixth = pipe("run", "remote_more.toml", "--cache", "sixth", "--allow-commands", *remote)
    told("run of another fresh cache", line_of(sixth, "done"), "0 stages ran, 4 reused" in sixth)
    verified = pipe("cache", "verify", "--cache", "sixth")
    told("pipe cache verify", line_of(verified, "checked"))
    pending = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    told("unfinished uploads", len(pending), not pending)


def breaks(pipe, s3, server):
    """A network that fails in the middle of an upload."""
    Fault.server_at = server.port
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fault)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    network = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
    cases = [
        ("part that is never sent", "partNumber=2", False, 1_000, "1 result did not get through"),
        ("part that is sent at the eighth try", "partNumber=2", False, 7, "sent 3 results"),
        ("end of an upload, its answer lost", "?uploadId=", True, 1, "sent 3 results"),
    ]
    for at, (what, word, late, times, words) in enumerate(cases):
        Fault.word, Fault.late, Fault.left = word, late, times
        push = ["cache", "push", "--cache", "first", "--remote", f"s3://{BUCKET}/caches/broken{at}"]
        text = pipe(*push, good=False, **network)
        told(what, words, words in text)
        pending = len(s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))
        told("  unfinished uploads", pending, pending == 0)
        Fault.left = 0
        again = pipe(*push, **network)
        told("  push again", line_of(again, " there already"), " there already" in again)
    proxy.shutdown()


def pages(pipe, s3, server):
    """Listings longer than a page: records that nothing is behind."""
    for at in range(MANY):
        digest = hashlib.blake2s(str(at).encode()).hexdigest()
        key = f"caches/many/actions/{digest[:2]}/{digest[2:]}"
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"no record")
    pipe("cache", "push", "--cache", "first", "--remote", f"s3://{BUCKET}/caches/many")
    since = server.lines()
    pull = ["cache", "pull", "--all", "--cache", "seventh", "--remote", f"s3://{BUCKET}/caches/many"]
    pulled = pipe(*pull, good=False)
    listings = len(server.requests("list-type=2", since))
    told(f"pages of a listing of {MANY + 3} keys", listings, listings == 2)
    asked = len([line for line in server.requests("GET /", since) if "/actions/" in line and "list-type" not in line])
    told("records that were asked for", asked, asked == MANY + 3)
    told("what of them is told", line_of(pulled, "not whole"), f"{MANY} results are not whole" in pulled)
    told("pull of the whole ones among them", line_of(pulled, "fetched 3 results"), "fetched 3 results" in pulled)


def refusals(pipe):
    """What is wrong is told."""
    cases = [
        ("a wrong secret", ["push", "--remote", f"s3://{BUCKET}/caches/one"],
         {"AWS_SECRET_ACCESS_KEY": "another"}, "SignatureDoesNotMatch"),
        ("an unknown key", ["push", "--remote", f"s3://{BUCKET}/caches/one"],
         {"AWS_ACCESS_KEY_ID": "AKIAANOTHER"}, "InvalidAccessKeyId"),
        ("no bucket", ["push", "--remote", "s3://nothing/folder"], {}, "there is no bucket"),
        ("nothing there", ["pull", "--remote", f"s3://{BUCKET}/nothing"], {}, "there is no remote cache"),
        ("nobody there", ["push", "--remote", f"s3://{BUCKET}/caches/one"],
         {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ]
    for what, arguments, environment, words in cases:
        text = pipe("cache", *arguments, "--cache", "first", good=False, **environment)
        text = " ".join(text.replace("│", " ").split())
        told(what, words, words in text and "help:" in text)


def listed(s3, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}


def main(program, folder):
    folder = Path(folder).resolve()
    folder.mkdir(parents=True)
    server = Server(folder)
    try:
        key, secret = server.guard()
        s3 = boto3.client("s3", endpoint_url=server.url, region_name=REGION, aws_access_key_id=key,
                          aws_secret_access_key=secret)
        s3.create_bucket(Bucket=BUCKET)
        for file in PIPELINES:
            (folder / file).write_text((Path(__file__).parent / file).read_text())
        pipe = Pipe(Path(program).resolve(), folder, server, (key, secret))
        print(f"moto {version('moto')}, boto3 {version('boto3')}, {pipe('--version').strip()}")
        shares(pipe, s3, server, folder)
        mends(pipe, s3, server)
        breaks(pipe, s3, server)
        pages(pipe, s3, server)
        refusals(pipe)
    finally:
        server.process.terminate()
        server.process.wait()
    sys.exit(bool(failures))


main(*sys.argv[1:])
