"""Checks pipeline files against the committed schema with the validator of the `jsonschema` package.

    python schema.py PIPE

Editors read the schema as draft 7, so it is checked and asked as such: all files of the repository and
what `pipe init` writes must fit, and each of a list of mistakes must not.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = "[stages.p]\nkind = 'dataset'\nsource = { source = 'builtin:figures' }\ntask = 'pose'\nsize = [64, 64]\n"
MISTAKES = {
    "unknown key": PAIRS + "cuont = 1",
    "wrong value": PAIRS + "count = 'many'",
    "wrong kind": PAIRS.replace("'dataset'", "'datasets'"),
    "no kind": PAIRS.replace("kind = 'dataset'", ""),
    "a key that must be there": PAIRS.replace("size = [64, 64]", ""),
    "unknown input": PAIRS + "[stages.q]\nkind = 'transform'\ninputs = { x = 'p' }",
    "unknown key over a base": "extends = 'b.toml'\n[stages.p]\ncuont = 1",
    "wrong value over a base": "extends = 'b.toml'\n" + PAIRS + "count = 'many'",
    "unknown key of a profile": PAIRS + "[profiles.quick.stages.p]\ncuont = 1",
    "unknown section": "sede = 1\n" + PAIRS,
}


def main(pipe: str) -> int:
    schema = json.loads((ROOT / "schemas/pipeline.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    failed = 0

    def tell(what: str, found: list, wanted: bool) -> None:
        nonlocal failed
        good = bool(found) == wanted
        failed += not good
        print(f"{what:50} {len(found)} errors {'ok' if good else 'WRONG'}")
        for error in [] if good else found:
            print(f"    {list(error.absolute_path)}: {error.message[:200]}")

    files = [p for folder in ("pipelines", "docs") for p in sorted((ROOT / folder).rglob("*.toml"))]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([pipe, "init"], cwd=scratch, check=True, capture_output=True)
        for file in [*files, pathlib.Path(scratch) / "experiment.toml"]:
            found = list(validator.iter_errors(tomllib.loads(file.read_text())))
            tell("/".join(file.parts[-2:]) if file in files else "pipe init", found, False)
    for what, text in MISTAKES.items():
        tell(what, list(validator.iter_errors(tomllib.loads(text))), True)
    return failed


if __name__ == "__main__":
    sys.exit(main(str(pathlib.Path(sys.argv[1]).resolve())))
