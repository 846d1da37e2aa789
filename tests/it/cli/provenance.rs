//! What is told to others of a run: a crate of it, and a signed statement.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{CLIPS, Shell, walk};

/// Figures, clips of them, and a number for each, which extend a file in another folder.
fn extended() -> Shell {
    let shell = Shell::new();
    std::fs::create_dir_all(shell.path("more")).unwrap();
    shell.write("base.toml", CLIPS);
    shell.write("more/clips.toml", "extends = \"../base.toml\"\ntitle = \"Clips of figures\"\n");
    std::fs::create_dir_all(shell.path("photos")).unwrap();
    shell
}

fn ids(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("@id") => {
            vec![map["@id"].as_str().unwrap().to_owned()]
        }
        Value::Object(map) => map.values().flat_map(ids).collect(),
        Value::Array(values) => values.iter().flat_map(ids).collect(),
        _ => Vec::new(),
    }
}

fn of_type<'a>(graph: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let is = |entity: &&Value| match &entity["@type"] {
        Value::Array(types) => types.contains(&kind.into()),
        one => one == kind,
    };
    graph.iter().filter(is).collect()
}

#[test]
fn a_crate_describes_every_file_and_every_execution() {
    let shell = extended();
    insta::assert_snapshot!(shell.transcript("export more/clips.toml --crate out"), @"
    $ pipe export more/clips.toml --crate out
    ? 1
    --- stderr
      × `pairs` is not up to date in the cache
      help: `pipe run more/clips.toml` computes what is missing
    ");
    shell.succeed("run more/clips.toml");
    shell.succeed(
        "export more/clips.toml --crate out --license https://spdx.org/licenses/CC-BY-4.0",
    );
    let text = std::fs::read_to_string(shell.path("out/ro-crate-metadata.json")).unwrap();
    let crate_: Value = serde_json::from_str(&text).unwrap();
    let graph = crate_["@graph"].as_array().unwrap();

    // Every reference leads to an entity, and no two have one id.
    let known: BTreeSet<&str> =
        graph.iter().map(|entity| entity["@id"].as_str().unwrap()).collect();
    assert_eq!(known.len(), graph.len());
    let outside = ["https://w3id.org/ro/crate/", "https://bioschemas.org/", "http://schema.org/"];
    for id in graph.iter().flat_map(|entity| entity.as_object().unwrap().values().flat_map(ids)) {
        let is_outside = outside.iter().any(|prefix| id.starts_with(prefix));
        assert!(is_outside || known.contains(id.as_str()), "{id} leads nowhere");
    }

    // Every file is described, with its size and digests, and every described one is there.
    let mut described = BTreeSet::new();
    for file in of_type(graph, "File") {
        let id = file["@id"].as_str().unwrap().replace("%7E", "~");
        let bytes = std::fs::read(shell.path("out").join(&id)).unwrap();
        assert_eq!(file["contentSize"], bytes.len().to_string(), "{id}");
        let blake3 = format!("blake3:{}", pipe::store::Digest::of(&bytes));
        assert_eq!(file["identifier"], blake3, "{id}");
        assert_eq!(file["sha256"], crate::hub_server::sha256(&bytes), "{id}");
        described.insert(shell.path("out").join(id));
    }
    let mut there = walk(&shell.path("out"));
    there.retain(|path| !path.ends_with("ro-crate-metadata.json"));
    assert_eq!(described.into_iter().collect::<Vec<_>>(), there);

    let actions = of_type(graph, "CreateAction");
    assert_eq!(actions.len(), 1 + 3, "the run, and its three instances");
    let clips = actions.iter().find(|action| action["name"] == "clips[method=linear]").unwrap();
    assert!(clips["startTime"].as_str() <= clips["endTime"].as_str());
    let objects = ids(&clips["object"]);
    assert!(objects.contains(&"artifacts/pairs/".to_owned()), "{objects:?}");
    assert!(objects.contains(&"#value/tool/interpolate/param/frames/5".to_owned()), "{objects:?}");
    assert_eq!(ids(&clips["result"]), ["artifacts/clips/method=linear/"]);
    let workflow = of_type(graph, "ComputationalWorkflow")[0];
    assert_eq!(workflow["@id"], "pipeline/more/clips.toml");
    assert_eq!(ids(&workflow["isBasedOn"]), ["pipeline/base.toml"]);
    assert_eq!(of_type(graph, "HowToStep").len(), 2);

    // The same results make the same crate, and a folder with files is left alone.
    insta::assert_snapshot!(shell.transcript("export more/clips.toml --crate out"), @"
    $ pipe export more/clips.toml --crate out
    ? 2
    --- stderr
      × the folder `out` is not empty
      help: name a folder that is empty or absent: a crate describes all that is in it
    ");
    shell.succeed(
        "export more/clips.toml --crate two --license https://spdx.org/licenses/CC-BY-4.0",
    );
    let again = std::fs::read_to_string(shell.path("two/ro-crate-metadata.json")).unwrap();
    assert_eq!(again, text);
}

#[test]
fn the_files_that_a_data_set_read_are_listed_but_not_copied() {
    let shell = Shell::new();
    std::fs::create_dir_all(shell.path("photos")).unwrap();
    let image = image::RgbImage::from_pixel(32, 32, image::Rgb([9, 9, 9]));
    for name in ["1_in.png", "1_out.png"] {
        image.save(shell.path("photos").join(name)).unwrap();
    }
    shell.write("photos.toml", PHOTOS);
    shell.succeed("run photos.toml");
    shell.succeed("export photos.toml --crate out");
    let list = std::fs::read_to_string(shell.path("out/inputs/pairs.json")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let paths: Vec<_> =
        list["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert!(paths.contains(&&"1_in.png".into()), "{paths:?}");
    let text = std::fs::read_to_string(shell.path("out/ro-crate-metadata.json")).unwrap();
    let here = shell.dir.path().to_string_lossy().into_owned();
    assert!(!text.contains(&here) && text.contains("inputs/pairs.json"));
}

const PHOTOS: &str = r#"
[stages.pairs]
kind   = "dataset"
source = { source = "folder", root = "photos" }
task   = "pairs"
count  = 1
size   = [32, 32]
holdout = 0.0
"#;

/// Two keys of OpenSSL's form: the private and public one of RFC 8032's first test, and a public
/// one of its second.
fn write_keys(shell: &Shell) {
    let pem = |name: &str, base64: &str| {
        format!("-----BEGIN {name} KEY-----\n{base64}\n-----END {name} KEY-----\n")
    };
    shell.write(
        "key.pem",
        &pem("PRIVATE", "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"),
    );
    shell.write(
        "pub.pem",
        &pem("PUBLIC", "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
    );
    shell.write(
        "other.pem",
        &pem("PUBLIC", "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="),
    );
}

#[test]
fn a_statement_is_checked_down_to_the_bytes() {
    let shell = extended();
    write_keys(&shell);
    shell.succeed("run more/clips.toml");
    insta::assert_snapshot!(shell.transcript("attest more/clips.toml --key key.pem --to clips.intoto.json"), @"
    $ pipe attest more/clips.toml --key key.pem --to clips.intoto.json
    ? 0
    --- stdout
    clips.intoto.json
    --- stderr
    attested 4 files of results, key [HASH]
    ");
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key pub.pem"), @"
    $ pipe attest --verify clips.intoto.json --key pub.pem
    ? 0
    --- stdout
    good signature; 4 files in the cache
    ");
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key pub.pem more/clips.toml"), @"
    $ pipe attest --verify clips.intoto.json --key pub.pem more/clips.toml
    ? 0
    --- stdout
    good signature; 4 files in the cache, 3 stages and 2 materials as attested
    ");

    // Another key, a payload that was changed, and files that are something else.
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key other.pem"), @"
    $ pipe attest --verify clips.intoto.json --key other.pem
    ? 4
    --- stderr
      × `clips.intoto.json`: no signature of it was made with this key over this content; it names
      │ another key
      help: the key is another, or the envelope was changed: trust neither
    ");
    let envelope = std::fs::read_to_string(shell.path("clips.intoto.json")).unwrap();
    let payload = regex::Regex::new("\"payload\":\"(...)").unwrap();
    shell.write("tampered.json", &payload.replace(&envelope, "\"payload\":\"e30"));
    insta::assert_snapshot!(shell.transcript("attest --verify tampered.json --key pub.pem"), @"
    $ pipe attest --verify tampered.json --key pub.pem
    ? 4
    --- stderr
      × `tampered.json`: no signature of it was made with this key over this content
      help: the key is another, or the envelope was changed: trust neither
    ");
    insta::assert_snapshot!(shell.transcript("attest --verify more/clips.toml --key pub.pem"), @"
    $ pipe attest --verify more/clips.toml --key pub.pem
    ? 2
    --- stderr
      × `more/clips.toml`: it is no DSSE envelope: expected value at line 1 column 1
      help: `pipe attest FILE --key KEY` writes one
    ");
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key key.pem"), @"
    $ pipe attest --verify clips.intoto.json --key key.pem
    ? 2
    --- stderr
      × `key.pem`: it holds no public Ed25519 key (PEM)
      help: `openssl pkey -in key.pem -pubout -out key.pub.pem` makes it
    ");
    insta::assert_snapshot!(shell.transcript("attest more/clips.toml --key pub.pem"), @"
    $ pipe attest more/clips.toml --key pub.pem
    ? 2
    --- stderr
      × `pub.pem`: it holds no private Ed25519 key (PKCS#8, PEM)
      help: `openssl genpkey -algorithm ed25519 -out key.pem` makes one
    ");
    insta::assert_snapshot!(shell.transcript("attest more/clips.toml --key gone.pem"), @"
    $ pipe attest more/clips.toml --key gone.pem
    ? 3
    --- stderr
      × there is no file `gone.pem`
      help: check the path; `openssl genpkey -algorithm ed25519 -out key.pem` makes a private key
    ");

    // Results that are others now, that are damaged, and a cache that has none.
    shell.succeed("run more/clips.toml --set clips.frames=9");
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key pub.pem more/clips.toml --set clips.frames=9"), @"
    $ pipe attest --verify clips.intoto.json --key pub.pem more/clips.toml --set clips.frames=9
    ? 4
    --- stderr
      × `clips[method=linear]`: its output is [HASH], but [HASH] is attested
      × `clips[method=quadratic]`: its output is [HASH], but [HASH] is attested
      × the signature is good, but this is not what `clips.intoto.json` attests
      help: `pipe explain FILE STAGE` says what a result is made from now
    ");
    insta::assert_snapshot!(shell.transcript("attest --verify clips.intoto.json --key pub.pem --cache other"), @"
    $ pipe attest --verify clips.intoto.json --key pub.pem --cache other
    ? 1
    --- stderr
      × `clips[method=linear]/figure-000000/clip.safetensors`: not in the cache
      × `clips[method=linear]/figure-000001/clip.safetensors`: not in the cache
      × `clips[method=quadratic]/figure-000000/clip.safetensors`: not in the cache
      × `clips[method=quadratic]/figure-000001/clip.safetensors`: not in the cache
      × the signature is good, but this is not what `clips.intoto.json` attests
      help: `pipe run FILE` computes what is not in the cache
    ");
    let subject = |index: usize| statement(&envelope)["subject"][index].clone();
    let hex = subject(0)["digest"]["blake3"].as_str().unwrap().to_owned();
    let object = shell.path("cache/objects").join(&hex[..2]).join(&hex[2..]);
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, "damaged").unwrap();
    let told = shell.transcript("attest --verify clips.intoto.json --key pub.pem");
    assert!(told.contains("? 1") && told.contains("not in the cache"), "{told}");
    // A run makes it good again.
    shell.succeed("run more/clips.toml");
    shell.succeed("attest --verify clips.intoto.json --key pub.pem more/clips.toml");
}

#[test]
fn a_statement_is_compared_with_what_went_in_too() {
    let shell = Shell::new();
    write_keys(&shell);
    for name in ["one", "two"] {
        shell.pair("photos", name, 10);
    }
    let text = PHOTOS.replace("count  = 1\n", "");
    let text = format!(
        "{text}\n[stages.mirrored]\nkind = \"transform\"\noperation = \"hflip\"\n\
                        inputs = {{ pairs = \"pairs\" }}\n"
    );
    shell.write("photos.toml", &text);
    shell.succeed("run photos.toml");
    shell.succeed("attest photos.toml --key key.pem");
    let verify = "attest --verify photos.intoto.json --key pub.pem photos.toml";
    shell.succeed(verify);

    // Another text that means the same, and a file more that nobody uses.
    shell.write("photos.toml", &format!("# A comment.\n{text}"));
    shell.write("photos/note.txt", "");
    shell.succeed("run photos.toml");
    insta::assert_snapshot!(shell.transcript(verify), @"
    $ pipe attest --verify photos.intoto.json --key pub.pem photos.toml
    ? 4
    --- stderr
      × `pairs`: the same output, but made otherwise: its key is [HASH], but [HASH] is
      │ attested
      × `pairs: ./`: another content than attested
      × `photos.toml`: another content than attested
      × the signature is good, but this is not what `photos.intoto.json` attests
      help: `pipe explain FILE STAGE` says what a result is made from now
    ");
    std::fs::remove_file(shell.path("photos/note.txt")).unwrap();
    shell.write("photos.toml", &text);
    shell.succeed(verify);

    // Where not all is up to date, at least the text is compared.
    shell.write("photos.toml", &text.replace("hflip", "vflip"));
    insta::assert_snapshot!(shell.transcript(verify), @"
    $ pipe attest --verify photos.intoto.json --key pub.pem photos.toml
    ? 4
    --- stderr
      × `photos.toml`: another content than attested
      × `mirrored`: not up to date in the cache
      × the signature is good, but this is not what `photos.intoto.json` attests
      help: `pipe explain FILE STAGE` says what a result is made from now
    ");
}

#[test]
fn an_envelope_replaces_no_file_of_others() {
    let shell = extended();
    write_keys(&shell);
    shell.succeed("run base.toml");
    shell.write("notes.json", "{}");
    insta::assert_snapshot!(shell.transcript("attest base.toml --key key.pem --to notes.json"), @"
    $ pipe attest base.toml --key key.pem --to notes.json
    ? 2
    --- stderr
      × `notes.json` is there already and is no envelope of `pipe`, so it is not overwritten
      help: name another file with --to, or move this one away
    ");
    assert_eq!(std::fs::read_to_string(shell.path("notes.json")).unwrap(), "{}");
    shell.succeed("attest base.toml --key key.pem");
    shell.succeed("attest base.toml --key key.pem");
    // That of another pipeline is somebody's, too.
    let other = CLIPS.replace("name = \"clips\"", "name = \"other\"");
    shell.write("other.toml", &other);
    shell.succeed("run other.toml");
    insta::assert_snapshot!(shell.transcript("attest other.toml --key key.pem --to base.intoto.json"), @"
    $ pipe attest other.toml --key key.pem --to base.intoto.json
    ? 2
    --- stderr
      × `base.intoto.json` is the envelope of `clips` without a profile, so it is not overwritten
      help: name another file with --to, or move this one away
    ");
    assert_eq!(shell.succeed("attest base.toml --key key.pem --to /dev/stdout").lines().count(), 2);
    shell.succeed("attest --verify base.intoto.json --key pub.pem base.toml");
}

fn statement(envelope: &str) -> Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let envelope: Value = serde_json::from_str(envelope).unwrap();
    serde_json::from_slice(&STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap())
        .unwrap()
}

#[test]
fn a_statement_names_what_went_in() {
    let shell = extended();
    write_keys(&shell);
    shell.succeed("run more/clips.toml");
    shell.succeed("attest more/clips.toml --key key.pem");
    let envelope = std::fs::read_to_string(shell.path("more/clips.intoto.json")).unwrap();
    let statement = statement(&envelope);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|resource| resource["name"].as_str().unwrap().to_owned()).collect()
    };
    let subjects = names(&statement["subject"]);
    assert_eq!(subjects.len(), 4, "two clips of each method: {subjects:?}");
    assert!(subjects[0].starts_with("clips[method=linear]/"), "{subjects:?}");
    let predicate = &statement["predicate"];
    let materials = names(&predicate["buildDefinition"]["resolvedDependencies"]);
    assert_eq!(materials, ["more/clips.toml", "base.toml"]);
    assert_eq!(
        names(&predicate["runDetails"]["byproducts"]),
        ["pairs", "clips[method=linear]", "clips[method=quadratic]"]
    );
}
