//! The table of what is hashed, and how.
//!
//! | Ingredient | In | Why |
//! |---|---|---|
//! | stage kind, `VERSION` | yes | the code changed on purpose |
//! | parameters after defaults, keys sorted | yes | writing a default out loud must not rerun |
//! | input digests by port name | yes | content decides |
//! | digest of the model's files | yes | names lie; files do not |
//! | parameters that do not change the output, such as how often a training is saved | no | their default stands for all values |
//! | the model's name | no | the same files under another name or folder give the same output |
//! | content of files read from outside, by path below their root | yes | they are inputs |
//! | seed | yes, as a parameter | it changes the numbers |
//! | format version of the output's files | yes | readers changed |
//! | stage name, cell | no | renaming must not rerun |
//! | parameters whose schema has `format = "path"`, mtimes | no | moving a folder must not rerun; times only spare hashing |
//! | device, number of threads | no; the device is recorded | same maths, shown by `explain`; a GPU keeps frozen weights in bf16 |
//! | log level, output folder, comments | no | not inputs |
//! | crate version, git commit | no, but recorded | would rerun everything on every commit; `VERSION` is the tool |
//!
//! There are three kinds of key, told apart by a prefix:
//!
//! * the **action** key of a stage, from all of its ingredients;
//! * the **item** key of a mapped stage: the mapped port holds the item's digest in place of the
//!   artifact's, so other items, their order and the item's name do not matter;
//! * the **trajectory** key of a training: without the parameters that only say how far it goes.
//!
//! The encoding is JSON without spaces, keys sorted by their bytes, numbers as `serde_json` prints
//! them. Strings are quoted and escaped, so no two different values have the same encoding.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value};

use crate::store::{Digest, Fingerprint, Ingredients};

/// The key of a stage's output.
pub fn action_key(ingredients: &Ingredients) -> Fingerprint {
    key("pipe action 1", ingredients)
}

/// The keys of what a mapped stage gives for single items: the encoding of the ingredients, cut
/// where the digest of the item on the mapped port goes. A stage may have 100,000 items.
pub struct ItemKeys {
    before: String,
    after: String,
}

impl ItemKeys {
    /// The keys of items on `port`; the other inputs stand in `ingredients`.
    pub fn new(ingredients: &Ingredients, port: &str) -> Self {
        // No digest looks like this, so it is found again at this place only.
        const MARK: &str = "\u{0}";
        let mut inputs = ingredients.inputs.clone();
        let mut text = String::from("pipe item 1\n");
        inputs.remove(port);
        let mut inputs: BTreeMap<&str, String> =
            inputs.iter().map(|(port, digest)| (port.as_str(), digest.to_string())).collect();
        inputs.insert(port, MARK.to_owned());
        encode(ingredients, &inputs, &mut text);
        let mark = serde_json::to_string(MARK).expect("a string is valid JSON");
        let (before, after) = text.split_once(&mark).expect("the mark was just written");
        Self { before: format!("{before}\""), after: format!("\"{after}") }
    }

    /// What the keys of all items have in common.
    pub fn stem(&self) -> Fingerprint {
        Fingerprint::of(format!("pipe items 1\n{}{}", self.before, self.after).as_bytes())
    }

    /// The key of the item with this digest.
    pub fn of(&self, item: Digest) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.before.as_bytes());
        hasher.update(item.to_string().as_bytes());
        hasher.update(self.after.as_bytes());
        hasher.finalize().into()
    }
}

/// The key shared by trainings that differ only in `params`.
pub fn trajectory_key(ingredients: &Ingredients, params: &[&str]) -> Fingerprint {
    let mut ingredients = ingredients.clone();
    for param in params {
        ingredients.params.remove(*param);
    }
    key("pipe trajectory 1", &ingredients)
}

fn key(prefix: &str, ingredients: &Ingredients) -> Fingerprint {
    let mut text = format!("{prefix}\n");
    let inputs = ingredients.inputs.iter();
    let inputs = inputs.map(|(port, digest)| (port.as_str(), digest.to_string())).collect();
    encode(ingredients, &inputs, &mut text);
    Fingerprint::of(text.as_bytes())
}

/// Appends the canonical encoding of ingredients with other inputs. It is that of their JSON, field
/// by field, because this is done for every stage of every run.
fn encode(ingredients: &Ingredients, inputs: &BTreeMap<&str, String>, out: &mut String) {
    let Ingredients { kind, version, output_format, params, inputs: _, weights, sources } =
        ingredients;
    out.push_str("{\"inputs\":{");
    for (i, (port, digest)) in inputs.iter().enumerate() {
        entry(i, port, digest, out);
    }
    out.push_str("},\"kind\":");
    string(kind, out);
    let _ = write!(out, ",\"output_format\":{output_format},\"params\":");
    object(params, out);
    out.push_str(",\"sources\":{");
    for (i, (path, digest)) in sources.iter().enumerate() {
        entry(i, path, &digest.to_string(), out);
    }
    let _ = write!(out, "}},\"version\":{version},\"weights\":");
    match weights {
        Some(digest) => string(&digest.to_string(), out),
        None => out.push_str("null"),
    }
    out.push('}');
}

fn entry(index: usize, key: &str, value: &str, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
    string(key, out);
    out.push(':');
    string(value, out);
}

fn string(text: &str, out: &mut String) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a string is valid JSON"));
    }
}

fn object(map: &Map<String, Value>, out: &mut String) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        string(key, out);
        out.push(':');
        canonical(value, out);
    }
    out.push('}');
}

/// Appends the canonical encoding of a value.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => object(map, out),
        Value::String(text) => string(text, out),
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(value, out);
            }
            out.push(']');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Short enough that `serde_json` reads back the very same number.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn encoded(value: &Value) -> String {
        let mut text = String::new();
        canonical(value, &mut text);
        text
    }

    /// The same value with every object's keys inserted in reverse order.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter().rev().map(|(key, value)| (key.clone(), reversed(value))).collect(),
            ),
            Value::Array(values) => Value::Array(values.iter().map(reversed).collect()),
            plain => plain.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(value in json()) {
            prop_assert_eq!(encoded(&value), encoded(&reversed(&value)));
        }

        #[test]
        fn the_encoding_can_be_read_back(value in json()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&encoded(&value)).unwrap(), value);
        }

        #[test]
        fn what_is_read_has_the_key_of_what_was_written(number in any::<f64>(), short in -4000_i32..4000) {
            for number in [number, f64::from(short) / 1000.0] {
                let mut written = ingredients();
                written.params.insert("lr".into(), number.into());
                let text = serde_json::to_string(&written).unwrap();
                let read: Ingredients = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(action_key(&written), action_key(&read));
            }
        }

        #[test]
        fn different_values_have_different_encodings(a in json(), b in json()) {
            prop_assert_eq!(a == b, encoded(&a) == encoded(&b));
        }
    }

    fn ingredients() -> Ingredients {
        let digest = |text: &str| Digest::of(text.as_bytes());
        Ingredients {
            kind: "toy".into(),
            version: 1,
            output_format: 1,
            params: serde_json::from_str(r#"{"rank": 4, "steps": 10}"#).unwrap(),
            inputs: BTreeMap::from([("a".into(), digest("a")), ("b".into(), digest("b"))]),
            weights: None,
            sources: BTreeMap::new(),
        }
    }

    #[test]
    fn every_ingredient_changes_the_key() {
        let changes: [fn(&mut Ingredients); 8] = [
            |i| i.kind = "other".into(),
            |i| i.version = 2,
            |i| i.output_format = 2,
            |i| i.params["rank"] = 8.into(),
            |i| i.params.retain(|name, _| name != "rank"),
            |i| i.inputs.extend([("a".into(), Digest::of(b"c"))]),
            |i| i.weights = Some(Digest::of(b"w")),
            |i| i.sources.extend([("x.png".into(), Digest::of(b"x"))]),
        ];
        let mut keys = vec![action_key(&ingredients())];
        for change in changes {
            let mut changed = ingredients();
            change(&mut changed);
            keys.push(action_key(&changed));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 9);
    }

    #[test]
    fn a_key_is_the_hash_of_the_canonical_json() {
        let mut awkward = ingredients();
        awkward.params.insert("name".into(), "a \"b\"\n\u{7f}\u{1}é".into());
        let nested = serde_json::json!({ "z": [1.5, -0.0, null], "a": { "": true } });
        awkward.params.insert("nested".into(), nested);
        awkward.weights = Some(Digest::of(b"w"));
        awkward.sources.insert("x/\\.png".into(), Digest::of(b"x"));
        for ingredients in [ingredients(), awkward] {
            let of = |prefix: &str, ingredients: &Ingredients| {
                let json = encoded(&serde_json::to_value(ingredients).unwrap());
                Fingerprint::of(format!("{prefix}\n{json}").as_bytes())
            };
            assert_eq!(action_key(&ingredients), of("pipe action 1", &ingredients));
            let mut item = ingredients.clone();
            item.inputs.insert("a".into(), Digest::of(b"item"));
            let keys = ItemKeys::new(&ingredients, "a");
            assert_eq!(keys.of(Digest::of(b"item")), of("pipe item 1", &item));
        }
    }

    #[test]
    fn an_item_depends_on_itself_and_the_other_ports() {
        let (base, item) = (ingredients(), Digest::of(b"item"));
        let of = |change: fn(&mut Ingredients)| {
            let mut changed = base.clone();
            change(&mut changed);
            ItemKeys::new(&changed, "a").of(item)
        };
        assert_eq!(of(|i| i.inputs.extend([("a".into(), Digest::of(b"more"))])), of(|_| {}));
        assert_ne!(of(|i| i.inputs.extend([("b".into(), Digest::of(b"more"))])), of(|_| {}));
        assert_ne!(ItemKeys::new(&base, "a").of(Digest::of(b"another")), of(|_| {}));
    }

    #[test]
    fn a_trajectory_does_not_depend_on_how_far_it_goes() {
        let mut longer = ingredients();
        longer.params["steps"] = 20.into();
        let of = |i: &Ingredients| trajectory_key(i, &["steps"]);
        assert_eq!(of(&longer), of(&ingredients()));
        longer.params["rank"] = 8.into();
        assert_ne!(of(&longer), of(&ingredients()));
        assert_ne!(of(&ingredients()), action_key(&ingredients()));
    }
}
