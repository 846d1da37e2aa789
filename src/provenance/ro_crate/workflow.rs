//! The pipeline file of a crate, and the run of it as a whole.

use super::{
    entities::{Entity, Ref, iri, to},
    graph::{
        COMPLETED, ENGINE, Graph, LANGUAGE, distinct, output_id, parameter, time, tool_id, type_of,
    },
};
use crate::provenance::Executed;

const COMPUTATIONAL_WORKFLOW: &str =
    "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE";
const RUN: &str = "#run";

impl Graph<'_> {
    /// The pipeline file, and the run of it as a whole.
    pub(super) fn workflow(&mut self) {
        let Some(file) = self.contents.files.first().cloned() else { return };
        let (input, values) = self.inputs();
        let (output, results) = self.outputs();
        for artifact in self.contents.artifacts.values() {
            self.add(artifact.clone());
        }
        self.link_artifacts();
        let workflow = self.file(file, input, output);
        self.runs(workflow, values, results);
    }

    /// The params of the file, and their values.
    fn inputs(&mut self) -> (Vec<Ref>, Vec<Ref>) {
        let (mut input, mut values) = (Vec::new(), Vec::new());
        for (name, value) in &self.facts.pipeline.params() {
            let id = format!("#workflow/input/{}", iri(name));
            values.push(self.value(&id, name, value));
            input.push(self.add(parameter(id, name, type_of(value))));
        }
        (input, values)
    }

    /// The stages that give results, and what they gave.
    fn outputs(&mut self) -> (Vec<Ref>, Vec<Ref>) {
        let (mut output, mut results) = (Vec::new(), Vec::new());
        for executed in self.facts.executed.iter().filter(|executed| executed.is_result) {
            let id = format!("#workflow/output/{}", iri(&executed.instance.stage));
            output.push(self.add(parameter(id, &executed.instance.stage, "Dataset")));
            results.extend(self.contents.artifacts.get(&executed.record.output).map(Entity::to));
        }
        (distinct(output), distinct(results))
    }

    /// All entities of a type.
    fn all(&self, kind: &str) -> Vec<Ref> {
        let entities = self.entities.values();
        entities.filter(|entity| entity.types == [kind]).map(Entity::to).collect()
    }

    /// The pipeline file.
    fn file(&mut self, file: Entity, input: Vec<Ref>, output: Vec<Ref>) -> Ref {
        let pipeline = self.facts.pipeline;
        let tools = self.all("SoftwareApplication").into_iter();
        let bases = self.contents.files.iter();
        let bases = bases.filter(|base| base.id.starts_with("pipeline/") && base.id != file.id);
        self.add(Entity {
            types: vec!["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            name: Some(pipeline.title.clone().unwrap_or_else(|| pipeline.name.clone())),
            programming_language: Some(to(LANGUAGE)),
            is_based_on: bases.map(Entity::to).collect(),
            step: self.all("HowToStep"),
            has_part: tools.filter(|tool| tool.id != ENGINE).collect(),
            input,
            output,
            conforms_to: vec![to(COMPUTATIONAL_WORKFLOW)],
            version: file.identifier.first().cloned(),
            ..file
        })
    }

    /// The run of the file, and what the program did for it.
    fn runs(&mut self, workflow: Ref, values: Vec<Ref>, results: Vec<Ref>) {
        let (start, end) = self.facts.span().unzip();
        let (start, end) = (start.map(time), end.map(time));
        let name = format!("run of {}", self.facts.pipeline.name);
        let run = self.add(Entity {
            instrument: Some(workflow),
            object: values,
            result: results,
            start_time: start.clone(),
            end_time: end.clone(),
            action_status: Some(COMPLETED),
            agent: self.agent(),
            description: Some(
                "all stages of the pipeline, as far back as they were computed".into(),
            ),
            ..Entity::new(RUN, &["CreateAction"], &name)
        });
        self.add(Entity {
            instrument: Some(to(ENGINE)),
            object: self.all("ControlAction"),
            result: vec![run],
            start_time: start,
            end_time: end,
            agent: self.agent(),
            description: Some("what the program did to bring the results up to date".into()),
            ..Entity::new("#organize", &["OrganizeAction"], "run of pipe")
        });
    }

    /// Says of each artifact which outputs and inputs it was.
    fn link_artifacts(&mut self) {
        for executed in &self.facts.executed {
            let Executed { instance, record, is_result } = executed;
            let kind = instance.entry.kind;
            let mut links = vec![(record.output, output_id(kind))];
            if *is_result {
                links.push((record.output, format!("#workflow/output/{}", iri(&instance.stage))));
            }
            for (port, input) in &record.ingredients.inputs {
                links.push((*input, format!("{}/input/{}", tool_id(kind), iri(port))));
            }
            for (digest, parameter) in links {
                let Some(artifact) = self.contents.artifacts.get(&digest) else { continue };
                let artifact = self.entities.get_mut(&artifact.id).expect("all were added");
                artifact.example_of_work.push(to(parameter));
                artifact.example_of_work = distinct(std::mem::take(&mut artifact.example_of_work));
            }
        }
    }
}
