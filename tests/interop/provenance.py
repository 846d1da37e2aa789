"""Checks what `pipe` tells others of a run with the tools that they would use.

    python provenance.py PIPE FOLDER [FILE]

runs a pipeline, FILE or `provenance.toml`, in FOLDER, exports it as RO-Crate and checks that with
`roc-validator`; attests it with a key of OpenSSL's and checks the envelope with `cryptography` alone, and its
digests with `hashlib`; checks the JSON documents against the committed schemas with `jsonschema`.

Needs `pip install roc-validator cryptography jsonschema`, and `openssl`.
"""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from rocrate_validator import models, services

PROFILES = ["ro-crate-1.1", "workflow-ro-crate-1.0", "process-run-crate-0.5", "workflow-run-crate-0.5",
            "provenance-run-crate-0.5"]
SCHEMAS = Path(__file__).parents[2] / "schemas"


def told(what, value):
    print(f"{what:<58} {value}")


def pipe(arguments, folder):
    done = subprocess.run([PIPE, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def check_crate(crate):
    for profile in PROFILES:
        for severity in ["REQUIRED", "RECOMMENDED"]:
            settings = services.ValidationSettings(
                rocrate_uri=str(crate), profile_identifier=profile,
                requirement_severity=models.Severity[severity], abort_on_first=False)
            result = services.validate(settings)
            issues = [issue for issue in result.get_issues() if issue.severity.name == severity]
            told(f"crate, {profile}, {severity.lower()}", "ok" if not issues else f"{len(issues)} issues")
            for text in sorted({f"  {issue.check.identifier}: {issue.message}" for issue in issues}):
                print(text)


def pae(kind, payload):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def check_statement(envelope, key, crate):
    envelope = json.loads(envelope.read_text())
    key = serialization.load_pem_public_key(key.read_bytes())
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    key.verify(signature, pae(envelope["payloadType"], payload))
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert envelope["signatures"][0]["keyid"] == hashlib.sha256(der).hexdigest()
    told("statement, signature by `cryptography`", "ok")
    try:
        key.verify(signature, pae(envelope["payloadType"], payload.replace(b"sha256", b"sha512", 1)))
        told("statement, tampered", "NOT NOTICED")
    except InvalidSignature:
        told("statement, tampered", "refused")
    statement = json.loads(payload)
    files = [path for path in (crate / "artifacts").rglob("*") if path.is_file()]
    known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    stated = [subject["digest"]["sha256"] for subject in statement["subject"]]
    assert stated and all(digest in known for digest in stated)
    told("statement, subjects whose SHA-256 `hashlib` finds in the crate", len(stated))
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    told("statement, materials", len(materials))


def check_schema(document, texts):
    schema = json.loads((SCHEMAS / f"{document}.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    count = 0
    for text in texts:
        validator.validate(json.loads(text))
        count += 1
    told(f"schema, {document}", f"{count} documents ok")


def main(folder, pipeline=None):
    folder.mkdir(parents=True, exist_ok=True)
    if pipeline is None:
        # A copy, as the lock is written beside the file.
        pipeline = folder / "provenance.toml"
        pipeline.write_text(Path(__file__).with_name("provenance.toml").read_text())
    plan = pipe(["plan", pipeline, "--json"], folder)
    pipe(["run", pipeline, "--lock", "--events", "events.ndjson"], folder)
    lock = Path(pipeline).with_suffix(".lock")
    check_schema("plan", [plan, pipe(["plan", pipeline, "--json"], folder)])
    check_schema("lock", [lock.read_text()])
    check_schema("event", (folder / "events.ndjson").read_text().splitlines())
    check_schema("verify", [pipe(["verify", pipeline, "--json", "--sample", "0.1"], folder)])
    licence = "https://spdx.org/licenses/CC-BY-4.0"
    pipe(["export", pipeline, "--crate", "crate", "--license", licence, "--author", "Somebody"], folder)
    check_crate(folder / "crate")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem"], cwd=folder, check=True)
    subprocess.run(["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem"], cwd=folder, check=True)
    pipe(["attest", pipeline, "--key", "key.pem", "--to", "run.intoto.json"], folder)
    check_statement(folder / "run.intoto.json", folder / "pub.pem", folder / "crate")
    told("pipe attest --verify", pipe(["attest", pipeline, "--verify", "run.intoto.json", "--key", "pub.pem"],
                                      folder).strip())


if __name__ == "__main__":
    PIPE = str(Path(sys.argv[1]).resolve())
    main(*(Path(arg).resolve() for arg in sys.argv[2:]))
