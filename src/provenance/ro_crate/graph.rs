//! The entities of a crate, from what is known of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    entities::{Entity, Metadata, Ref, iri, to},
    write::{Contents, Given, README},
};
use crate::{
    config::{Instance, pipeline::plain},
    provenance::{Executed, Facts, sha256},
};

const PROCESS: &str = "https://w3id.org/ro/wfrun/process/0.5";
const WORKFLOW: &str = "https://w3id.org/ro/wfrun/workflow/0.5";
const PROVENANCE: &str = "https://w3id.org/ro/wfrun/provenance/0.5";
const WORKFLOW_RO_CRATE: &str = "https://w3id.org/workflowhub/workflow-ro-crate/1.0";
const FORMAL_PARAMETER: &str = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE";
pub(super) const COMPLETED: &str = "http://schema.org/CompletedActionStatus";
const AUTHOR: &str = "#author";
pub(super) const ENGINE: &str = "#pipe";
pub(super) const LANGUAGE: &str = "#pipeline-file";

/// The document of a crate with these contents.
pub(super) fn describe(facts: &Facts<'_>, contents: &Contents<'_>, given: &Given) -> Metadata {
    let mut graph = Graph { facts, contents, given, entities: BTreeMap::new() };
    graph.profiles();
    graph.software();
    for executed in &facts.executed {
        graph.execution(executed);
    }
    graph.steps();
    graph.workflow();
    graph.root();
    let Graph { mut entities, .. } = graph;
    let files = contents.files.iter().cloned();
    for mut file in files {
        if file.id == README {
            file.about = Some(to("./"));
        }
        entities.entry(file.id.clone()).or_insert(file);
    }
    // Readers look for the descriptor and the root first.
    let first = ["ro-crate-metadata.json", "./"].map(|id| entities.remove(id));
    let graph = first.into_iter().flatten().chain(entities.into_values()).collect();
    let context =
        ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"];
    Metadata { context, graph }
}

pub(super) struct Graph<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) contents: &'a Contents<'a>,
    given: &'a Given,
    pub(super) entities: BTreeMap<String, Entity>,
}

impl Graph<'_> {
    pub(super) fn add(&mut self, entity: Entity) -> Ref {
        let id = entity.to();
        self.entities.entry(entity.id.clone()).or_insert(entity);
        id
    }

    /// Who ran it, if that was said.
    pub(super) fn agent(&self) -> Option<Ref> {
        self.given.author.as_ref().map(|_| to(AUTHOR))
    }

    fn profiles(&mut self) {
        for (id, name, version) in [
            (PROCESS, "Process Run Crate", "0.5"),
            (WORKFLOW, "Workflow Run Crate", "0.5"),
            (PROVENANCE, "Provenance Run Crate", "0.5"),
            (WORKFLOW_RO_CRATE, "Workflow RO-Crate", "1.0"),
        ] {
            let version = Some(version.to_owned());
            self.add(Entity { version, ..Entity::new(id, &["CreativeWork"], name) });
        }
    }

    /// The program, its language, and the models.
    fn software(&mut self) {
        let version = self.facts.versions();
        self.add(Entity {
            software_version: Some(version.clone()),
            description: Some(env!("CARGO_PKG_DESCRIPTION").to_owned()),
            ..Entity::new(ENGINE, &["SoftwareApplication"], "pipe")
        });
        self.add(Entity {
            version: Some(version),
            ..Entity::new(LANGUAGE, &["ComputerLanguage"], "pipeline file of pipe (TOML)")
        });
        for (name, model) in &self.facts.models {
            let url = model.repository.as_deref().map(|id| match &model.commit {
                Some(commit) => format!("https://huggingface.co/{id}/tree/{commit}"),
                None => format!("https://huggingface.co/{id}"),
            });
            self.add(Entity {
                version: model.commit.clone(),
                identifier: model.weights.iter().map(|parts| format!("blake3:{parts}")).collect(),
                description: Some(
                    "a model; each identifier is of the parts that a stage read".into(),
                ),
                url,
                ..Entity::new(model_id(name), &["CreativeWork"], name)
            });
        }
    }

    /// The action of an instance, and that of its step.
    fn execution(&mut self, executed: &Executed<'_>) {
        let Executed { instance, record, .. } = executed;
        let mut object = Vec::new();
        for (name, value) in &record.ingredients.params {
            let parameter = param_id(instance.entry.kind, name);
            object.push(self.value(&parameter, name, value));
        }
        for input in record.ingredients.inputs.values() {
            object.extend(self.contents.artifacts.get(input).map(Entity::to));
        }
        object.extend(self.contents.lists.get(&instance.to_string()).map(to));
        object.extend(instance.work.model().map(|model| to(model_id(&model.0))));
        let result = self.contents.artifacts.get(&record.output).map(Entity::to);
        let action = self.add(Entity {
            description: Some(format!(
                "on {}, by pipe {}, in {:.3} s; key {}",
                record.computed_on(),
                record.pipe_version,
                record.wall_secs,
                record.fingerprint
            )),
            instrument: Some(to(tool_id(instance.entry.kind))),
            object: distinct(object),
            result: result.into_iter().collect(),
            start_time: executed.start().map(time),
            end_time: executed.end().map(time),
            agent: self.agent(),
            action_status: Some(COMPLETED),
            ..Entity::new(action_id(instance), &["CreateAction"], &instance.to_string())
        });
        self.add(Entity {
            instrument: Some(to(step_id(&instance.stage))),
            object: vec![action],
            start_time: executed.start().map(time),
            end_time: executed.end().map(time),
            ..Entity::new(
                format!("#control/{}", iri(&instance.to_string())),
                &["ControlAction"],
                &format!("execution of the step {instance}"),
            )
        });
        self.tool(executed);
    }

    /// A value of a parameter.
    pub(super) fn value(&mut self, parameter: &str, name: &str, value: &Value) -> Ref {
        let text = plain(value);
        let short = if text.len() > 40 { sha256(text.as_bytes()) } else { iri(&text) };
        self.add(Entity {
            value: Some(text),
            example_of_work: vec![to(parameter)],
            ..Entity::new(
                format!("{}/{short}", parameter.replacen('#', "#value/", 1)),
                &["PropertyValue"],
                name,
            )
        })
    }

    /// The stage kind of an instance, with all parameters that any of its instances has.
    fn tool(&mut self, executed: &Executed<'_>) {
        let Executed { instance, record, .. } = executed;
        let kind = instance.entry.kind;
        let mut input = Vec::new();
        for (name, value) in &record.ingredients.params {
            let id = param_id(kind, name);
            let parameter =
                Entity { value_required: Some(false), ..parameter(id, name, type_of(value)) };
            input.push(self.add(parameter));
        }
        for port in instance.entry.ports.inputs {
            let id = format!("{}/input/{}", tool_id(kind), iri(port.name));
            let required = Some(port.required);
            let parameter =
                Entity { value_required: required, ..parameter(id, port.name, "Dataset") };
            input.push(self.add(parameter));
        }
        let output = self.add(parameter(output_id(kind), "output", "Dataset"));
        let id = tool_id(kind);
        let tool = self.entities.entry(id.clone()).or_insert_with(|| Entity {
            software_version: Some(format!(
                "{} ({kind} {})",
                record.pipe_version, record.ingredients.version
            )),
            description: Some(format!("the stage kind `{kind}` of pipe")),
            output: vec![output],
            ..Entity::new(id, &["SoftwareApplication"], kind)
        });
        tool.input.extend(input);
        tool.input = distinct(std::mem::take(&mut tool.input));
    }

    /// The stages, and what connects them.
    fn steps(&mut self) {
        let instances = &self.facts.pipeline.instances;
        let mut position = 0;
        for instance in instances {
            let id = step_id(&instance.stage);
            if !self.entities.contains_key(&id) {
                position += 1;
                self.add(Entity {
                    position: Some(position.to_string()),
                    work_example: vec![to(tool_id(instance.entry.kind))],
                    ..Entity::new(id.clone(), &["HowToStep"], &instance.stage)
                });
            }
            for (port, input) in &instance.inputs {
                let from = &instances[*input];
                let connection = self.add(Entity {
                    source_parameter: Some(to(output_id(from.entry.kind))),
                    target_parameter: Some(to(format!(
                        "{}/input/{}",
                        tool_id(instance.entry.kind),
                        iri(port)
                    ))),
                    ..Entity::new(
                        format!(
                            "#connection/{}/{}/{}",
                            iri(&from.stage),
                            iri(&instance.stage),
                            iri(port)
                        ),
                        &["ParameterConnection"],
                        "",
                    )
                });
                let step = self.entities.get_mut(&id).expect("it was added above");
                step.connection.push(connection);
                step.connection = distinct(std::mem::take(&mut step.connection));
            }
        }
    }

    fn root(&mut self) {
        let license = self.given.license.as_deref();
        let pipeline = self.facts.pipeline;
        let files = self.contents.files.iter().filter(|file| !file.id.starts_with("artifacts/"));
        let artifacts = self.contents.artifacts.values();
        let parts: BTreeSet<Ref> = files.chain(artifacts).map(Entity::to).collect();
        let actions = self.entities.values().filter(|entity| {
            ["CreateAction", "OrganizeAction", "ControlAction"]
                .iter()
                .any(|of| entity.types == [*of])
        });
        let title = pipeline.title.clone().unwrap_or_else(|| pipeline.name.clone());
        let profile = pipeline.profile.iter().map(|profile| format!(", profile {profile}"));
        let set = pipeline.set.iter().map(|set| format!(", with {set}"));
        let root = Entity {
            description: Some(format!(
                "The pipeline {}{}, all results of it, and what each was made from.",
                pipeline.name,
                profile.chain(set).collect::<String>()
            )),
            conforms_to: [PROCESS, WORKFLOW, PROVENANCE, WORKFLOW_RO_CRATE].map(to).to_vec(),
            // Of the results, so that the same results make the same crate.
            date_published: self.facts.span().map(|(_, end)| time(end)),
            author: self.agent(),
            license: license.map(to),
            main_entity: self.contents.files.first().map(Entity::to),
            mentions: actions.map(Entity::to).collect(),
            has_part: parts.into_iter().collect(),
            ..Entity::new("./", &["Dataset"], &title)
        };
        self.add(root);
        self.add(Entity {
            about: Some(to("./")),
            conforms_to: ["https://w3id.org/ro/crate/1.1", WORKFLOW_RO_CRATE].map(to).to_vec(),
            ..Entity::new("ro-crate-metadata.json", &["CreativeWork"], "")
        });
        if let Some(author) = &self.given.author {
            self.add(Entity::new(AUTHOR, &["Person"], author));
        }
        if let Some(license) = license {
            self.add(Entity::new(license, &["CreativeWork"], license));
        }
    }
}

/// To the millisecond, in the form that the profile's validator takes.
pub(super) fn time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string()
}

pub(super) fn parameter(id: String, name: &str, kind: &'static str) -> Entity {
    Entity {
        additional_type: Some(kind),
        conforms_to: vec![to(FORMAL_PARAMETER)],
        ..Entity::new(id, &["FormalParameter"], name)
    }
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "Boolean",
        Value::Number(number) if number.is_f64() => "Float",
        Value::Number(_) => "Integer",
        _ => "Text",
    }
}

pub(super) fn tool_id(kind: &str) -> String {
    format!("#tool/{kind}")
}

fn param_id(kind: &str, name: &str) -> String {
    format!("#tool/{kind}/param/{}", iri(name))
}

pub(super) fn output_id(kind: &str) -> String {
    format!("#tool/{kind}/output")
}

fn step_id(stage: &str) -> String {
    format!("#step/{}", iri(stage))
}

fn action_id(instance: &Instance) -> String {
    format!("#run/{}", iri(&instance.to_string()))
}

fn model_id(name: &str) -> String {
    format!("#model/{}", iri(name))
}

/// The references in their order, each once.
pub(super) fn distinct(mut references: Vec<Ref>) -> Vec<Ref> {
    let mut seen = BTreeSet::new();
    references.retain(|reference| seen.insert(reference.clone()));
    references
}
