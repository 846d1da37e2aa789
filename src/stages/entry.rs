//! The registry line of a stage kind: name, version, ports and how to parse it.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::{Stage, StageKind};
use crate::{
    artifact::ArtifactKind,
    config::value::{Node, ValueError},
};

/// A stage's named input.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// The key under `inputs`.
    pub name: &'static str,
    /// The artifacts it takes.
    pub kinds: &'static [ArtifactKind],
    /// Whether the stage cannot run without it.
    pub required: bool,
}

/// What a stage takes and gives.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The inputs by name.
    pub inputs: &'static [Port],
    /// The one output.
    pub output: ArtifactKind,
}

/// What the engine knows of a stage kind.
pub struct StageEntry {
    /// The value of `kind` in the file.
    pub kind: &'static str,
    /// [`StageKind::VERSION`].
    pub version: u32,
    /// [`StageKind::PORTS`].
    pub ports: Ports,
    /// The JSON schema of the parameters.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Parses the parameters of a stage: the table without `kind` and `inputs`.
    pub parse: fn(&Node) -> Result<ParsedStage, ValueError>,
    /// The [`Stage::revision`] that parameters of a key have today; none if they are not understood
    /// any more.
    pub revision: fn(&Map<String, Value>) -> Option<u32>,
}

/// A stage and its parameters after defaults.
pub struct ParsedStage {
    /// The work.
    pub stage: Box<dyn Stage>,
    /// All parameters, also those the file leaves out.
    pub params: Map<String, Value>,
}

impl StageEntry {
    /// The entry of `S`.
    pub const fn of<S: StageKind>() -> Self {
        Self {
            kind: S::KIND,
            version: S::VERSION,
            ports: S::PORTS,
            schema: <S as JsonSchema>::json_schema,
            parse: parse::<S>,
            revision: revision::<S>,
        }
    }
}

fn parse<S: StageKind>(params: &Node) -> Result<ParsedStage, ValueError> {
    let stage = S::deserialize(params)?;
    let Ok(Value::Object(params)) = serde_json::to_value(&stage) else {
        unreachable!("a stage is a struct of plain values, so it serialises to an object")
    };
    Ok(ParsedStage { stage: Box::new(stage), params })
}

fn revision<S: StageKind>(params: &Map<String, Value>) -> Option<u32> {
    let stage: S = serde_json::from_value(Value::Object(params.clone())).ok()?;
    Some(stage.revision())
}
