//! The JSON-LD of a crate: one form for every entity, whose keys are terms of schema.org,
//! Bioschemas and the Workflow Run profiles.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, Serializer};

/// What stands in a path or a fragment of an IRI as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'=').remove(b'/');

/// Text as a part of an `@id`.
pub(super) fn iri(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// `ro-crate-metadata.json`.
#[derive(Debug, Serialize)]
pub struct Metadata {
    #[serde(rename = "@context")]
    pub context: [&'static str; 2],
    #[serde(rename = "@graph")]
    pub graph: Vec<Entity>,
}

/// A reference to an entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ref {
    #[serde(rename = "@id")]
    pub id: String,
}

/// A reference to an entity.
pub(super) fn to(id: impl Into<String>) -> Ref {
    Ref { id: id.into() }
}

/// An entity; what is empty is left out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the terms of schema.org")]
pub struct Entity {
    #[serde(rename = "@id")]
    pub id: String,
    #[serde(rename = "@type", serialize_with = "one_or_many")]
    pub types: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub conforms_to: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_published: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main_entity: Option<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub has_part: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub mentions: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// Content digests other than SHA-256, as in `blake3:<hex>`.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub identifier: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programming_language: Option<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub is_based_on: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub step: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub input: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub output: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub connection: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_parameter: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_parameter: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub work_example: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub example_of_work: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple_values: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrument: Option<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub object: Vec<Ref>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_many")]
    pub result: Vec<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Ref>,
}

/// A list of one is written as that one, as RO-Crate recommends.
fn one_or_many<T: Serialize, S: Serializer>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
    match list {
        [one] => one.serialize(to),
        list => list.serialize(to),
    }
}

impl Entity {
    /// An entity with a name.
    pub(super) fn new(id: impl Into<String>, types: &[&'static str], name: &str) -> Self {
        let name = (!name.is_empty()).then(|| name.to_owned());
        Self { id: id.into(), types: types.to_vec(), name, ..Self::default() }
    }

    /// A reference to it.
    pub(super) fn to(&self) -> Ref {
        to(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_has_the_terms_of_the_profiles_and_no_empty_ones() {
        let action = Entity {
            instrument: Some(to("#tool")),
            object: vec![to("a/")],
            start_time: Some("2026-01-01T00:00:00Z".into()),
            ..Entity::new("#run", &["CreateAction"], "lora")
        };
        insta::assert_snapshot!(serde_json::to_string(&action).unwrap(), @r##"{"@id":"#run","@type":"CreateAction","name":"lora","instrument":{"@id":"#tool"},"object":{"@id":"a/"},"startTime":"2026-01-01T00:00:00Z"}"##);
        assert_eq!(iri("lora[n=1, m=ä]/x.png"), "lora%5Bn=1%2C%20m=%C3%A4%5D/x.png");
    }
}
