//! Random text never panics, and references keep what they name.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::toys::{WHOLE, load_files};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_a_pipeline_or_errors(text in "\\PC{0,60}|[a-z\\[\\]{}=\"'.,$\n0-9 -]{0,80}") {
        if let Err(errors) = load_files(&text, &[], None, &[]) {
            prop_assert!(!errors.errors.is_empty());
            super::toys::render(&errors);
        }
        let _ = load_files(WHOLE, &[], None, &[&text]);
    }

    #[test]
    fn a_file_with_a_part_replaced_never_panics(
        at in 0..WHOLE.len(),
        length in 0..12usize,
        insert in "[a-z\\[\\]{}=\"'.,$\n0-9 -]{0,6}",
    ) {
        let end = (at + length).min(WHOLE.len());
        let text = format!("{}{insert}{}", &WHOLE[..at], &WHOLE[end..]);
        match load_files(&text, &[], None, &[]) {
            Ok(pipeline) => prop_assert!(pipeline.sweep.cells.len() < 100),
            Err(errors) => {
                prop_assert!(!errors.errors.is_empty());
                super::toys::render(&errors);
                errors.to_json();
            }
        }
    }

    #[test]
    fn a_whole_reference_gives_the_value_itself(value in value(), hops in 1..4usize) {
        let mut params = format!("p0 = {}\n", toml(&value));
        for hop in 1..=hops {
            writeln!(params, "p{hop} = \"${{p{}}}\"", hop - 1).unwrap();
        }
        let text = WHOLE.replace("[params]", &format!("[params]\n{params}"));
        let node = crate::config::value::parse_document(&text, 0, crate::config::Layer::File).unwrap();
        let params = node.get("params").unwrap().as_table().unwrap();
        let (axes, sources) = (crate::config::sweep::Axes::default(), one_source(&text));
        let scope = crate::config::scope::Scope::new(params, &axes, &sources);
        let reference = crate::config::value::Node::from(format!("${{p{hops}}}").as_str());
        let mut problems = crate::config::problem::Problems::default();
        prop_assert!(scope.uses(&reference, &mut problems).is_some());
        prop_assert_eq!(scope.resolve(&reference, &[]).ok().map(|node| node.to_json()), Some(value));
    }
}

fn one_source(text: &str) -> crate::config::origin::Sources {
    let mut sources = crate::config::origin::Sources::default();
    sources.add("main.toml", text, std::path::Path::new(""));
    sources
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_map(Value::from),
        "[a-z ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("k[a-z]{1,3}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap()),
        other => other.to_string(),
    }
}
