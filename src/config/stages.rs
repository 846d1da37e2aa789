//! The stages as the file defines them: kinds, inputs, and which axes reach each.

use std::collections::HashMap;

use super::{
    error::{Code, Problem, Problems},
    kinds::Kind,
    origin::Origin,
    references::has_reference,
    scope::Scope,
    sweep::{Axes, AxisSet},
    value::{Data, Entry, Node, Table},
};
use crate::stages::{Port, StageEntry};

/// A stage before it is expanded.
pub(super) struct Definition<'a> {
    pub name: &'a str,
    pub key: Option<Origin>,
    /// None if the kind is not known.
    pub kind: Option<Kind>,
    /// The parameters whose references are right.
    pub params: Node,
    /// Paths of the parameters that were left out for an error already reported.
    pub dropped: Vec<Vec<String>>,
    pub inputs: Vec<Input>,
    /// The axes of the parameters.
    pub own: AxisSet,
    /// The axes of the parameters and of all inputs.
    pub reach: AxisSet,
}

/// A connected port.
pub(super) struct Input {
    pub port: &'static Port,
    pub origin: Option<Origin>,
    /// The axes that decide which stage is meant.
    pub uses: AxisSet,
    /// The stage by the values of those axes.
    pub targets: HashMap<Vec<u32>, usize>,
}

pub(super) struct Reader<'a> {
    pub registry: &'static [StageEntry],
    pub stages: &'a Table,
    pub axes: &'a Axes,
    pub scope: &'a Scope<'a>,
}

impl<'a> Reader<'a> {
    /// Reads all definitions in the order of the file.
    pub fn read(&self, problems: &mut Problems) -> Vec<Definition<'a>> {
        let read = |(name, entry): (&'a String, &'a Entry)| {
            self.definition(name, entry.key, &entry.node, problems)
        };
        self.stages.iter().map(read).collect()
    }

    fn definition(
        &self,
        name: &'a str,
        key: Option<Origin>,
        node: &Node,
        problems: &mut Problems,
    ) -> Definition<'a> {
        let mut definition = Definition {
            name,
            key,
            kind: None,
            params: Node::table(),
            dropped: Vec::new(),
            inputs: Vec::new(),
            own: 0,
            reach: 0,
        };
        let Data::Table(mut table) = node.data.clone() else {
            let message = format!("stage `{name}` must be a table, but is {}", node.describe());
            let problem = Problem::new(Code::WrongType, message);
            problems.add(problem.at(node.origin, "must be a table"));
            return definition;
        };
        let kind = table.shift_remove("kind");
        let inputs = table.shift_remove("inputs");
        definition.params =
            Node { data: Data::Table(table), origin: key.or(node.origin), via: None };
        match kind.map(|entry| entry.node) {
            Some(kind) => definition.kind = self.kind(&kind, problems),
            None => problems.add(
                Problem::new(Code::MissingKey, format!("stage `{name}` has no `kind`"))
                    .at(key, "`kind` is not set here")
                    .help(format!("it can be {}", self.kinds())),
            ),
        }
        self.check_references(&mut definition, problems);
        if let Some(kind) = &definition.kind {
            let inputs = inputs.as_ref().map(|entry| &entry.node);
            definition.inputs = self.inputs(name, key, kind.entry, inputs, problems);
        }
        definition
    }

    fn kinds(&self) -> String {
        let names: Vec<_> = self.registry.iter().map(|entry| entry.kind).collect();
        super::error::list(&names)
    }

    fn kind(&self, node: &Node, problems: &mut Problems) -> Option<Kind> {
        let Some(kind) = node.as_str() else {
            let message = format!("`kind` must be a string, but is {}", node.describe());
            let problem = Problem::new(Code::WrongType, message);
            problems.add(problem.at(node.origin, "must be a string"));
            return None;
        };
        let entry = self.registry.iter().find(|entry| entry.kind == kind);
        if entry.is_none() {
            let problem = Problem::new(Code::UnknownKind, format!("unknown stage kind `{kind}`"))
                .at(node.origin, "no such kind");
            problems.add(if has_reference(kind) {
                problem.help("a stage's kind must be written out")
            } else {
                problem.suggest(kind, self.registry.iter().map(|entry| entry.kind))
            });
        }
        entry.map(Kind::new)
    }

    /// Collects the axes of the parameters; those with a wrong reference are taken out.
    fn check_references(&self, definition: &mut Definition<'_>, problems: &mut Problems) {
        let mut strings = Vec::new();
        definition.params.walk(&mut Vec::new(), &mut |path, node| {
            if node.as_str().is_some_and(has_reference) {
                strings.push((path.to_vec(), node));
            }
        });
        let mut wrong = Vec::new();
        for (path, node) in strings {
            match self.scope.uses(node, problems) {
                Some(set) => definition.own |= set,
                None => wrong.push(path),
            }
        }
        for mut path in wrong {
            // An item of a list cannot be missed alone.
            while !definition.params.remove(&path) && !path.is_empty() {
                path.pop();
            }
            definition.dropped.push(path);
        }
    }

    fn inputs(
        &self,
        stage: &str,
        key: Option<Origin>,
        entry: &'static StageEntry,
        node: Option<&Node>,
        problems: &mut Problems,
    ) -> Vec<Input> {
        let mut inputs = Vec::new();
        let empty = Table::new();
        let ports = entry.ports.inputs;
        let table = match node.map(|node| (node, node.as_table())) {
            None => &empty,
            Some((_, Some(table))) => table,
            Some((node, None)) => {
                problems.add(wrong_inputs(node, ports));
                return inputs;
            }
        };
        let mut unknown = false;
        for (name, connection) in table {
            let Some(port) = ports.iter().find(|port| port.name == name) else {
                let message = format!("a stage of kind `{}` has no input `{name}`", entry.kind);
                let mut problem =
                    Problem::new(Code::UnknownPort, message).at(connection.key, "no such input");
                problem = if ports.is_empty() {
                    problem.help("it takes none")
                } else {
                    problem.suggest(name, ports.iter().map(|port| port.name))
                };
                problems.add(problem);
                unknown = true;
                continue;
            };
            inputs.extend(self.input(port, &connection.node, problems));
        }
        // One that is missing beside one that is unknown is most likely that one.
        let missing = |port: &&Port| port.required && !unknown && !table.contains_key(port.name);
        for port in ports.iter().filter(missing) {
            let kinds: Vec<_> = port.kinds.iter().map(|kind| kind.name()).collect();
            let message = format!("stage `{stage}` needs the input `{}`", port.name);
            problems.add(
                Problem::new(Code::MissingInput, message)
                    .at(node.and_then(|node| node.origin).or(key), "not connected here")
                    .help(format!(
                        "add `{} = \"<a stage that gives {}>\"` to its `inputs`",
                        port.name,
                        kinds.join(" or ")
                    )),
            );
        }
        inputs
    }

    fn input(&self, port: &'static Port, node: &Node, problems: &mut Problems) -> Option<Input> {
        let uses = self.scope.uses(node, problems)?;
        let mut targets = HashMap::new();
        for cell in &self.axes.cells {
            let values = self.axes.project(cell, uses);
            if targets.contains_key(&values) {
                continue;
            }
            let value = self.scope.resolve(node, cell).map_err(|problem| problems.add(problem));
            let value = value.ok()?;
            let Some(name) = value.as_str() else {
                let message = format!(
                    "input `{}` must be the name of a stage, but is {}",
                    port.name,
                    value.describe()
                );
                let problem = Problem::new(Code::WrongType, message);
                problems
                    .add(problem.at(value.origin, "must be a string").at(value.via, "used here"));
                return None;
            };
            let Some(target) = self.stages.get_index_of(name) else {
                let problem =
                    Problem::new(Code::UnknownStage, format!("there is no stage `{name}`"))
                        .absent(name)
                        .at(value.origin, "unknown stage")
                        .at(value.via, "used here");
                problems.add(problem.suggest(name, self.stages.keys().map(String::as_str)));
                return None;
            };
            targets.insert(values, target);
        }
        Some(Input { port, origin: node.origin, uses, targets })
    }
}

fn wrong_inputs(node: &Node, ports: &[Port]) -> Problem {
    let message = format!("`inputs` must be a table, but is {}", node.describe());
    let port = ports.first().map_or("port", |port| port.name);
    let stage = node.as_str().unwrap_or("stage");
    Problem::new(Code::WrongType, message)
        .at(node.origin, "must be a table")
        .help(format!("write `inputs = {{ {port} = \"{stage}\" }}`"))
}

/// An order in which inputs come before their users, near the order of the file. A cycle is
/// reported.
pub(super) fn order(definitions: &[Definition<'_>], problems: &mut Problems) -> Option<Vec<usize>> {
    let mut walk = Order { definitions, done: Vec::new(), stack: Vec::new() };
    for index in 0..definitions.len() {
        if let Err(problem) = walk.visit(index, None) {
            problems.add(problem);
            return None;
        }
    }
    Some(walk.done)
}

struct Order<'a> {
    definitions: &'a [Definition<'a>],
    done: Vec<usize>,
    stack: Vec<usize>,
}

impl Order<'_> {
    fn visit(&mut self, index: usize, from: Option<Origin>) -> Result<(), Problem> {
        if self.done.contains(&index) {
            return Ok(());
        }
        if let Some(start) = self.stack.iter().position(|other| *other == index) {
            let mut names: Vec<_> =
                self.stack[start..].iter().map(|index| self.definitions[*index].name).collect();
            names.push(self.definitions[index].name);
            let message = format!("stages need each other: {}", names.join(" <- "));
            let problem = Problem::new(Code::Cycle, message).at(from, "closes the circle");
            return Err(problem.help("let one of them take its input from elsewhere"));
        }
        self.stack.push(index);
        let definitions = self.definitions;
        for input in &definitions[index].inputs {
            let mut targets: Vec<_> = input.targets.values().copied().collect();
            targets.sort_unstable();
            targets.dedup();
            for target in targets {
                self.visit(target, input.origin)?;
            }
        }
        self.stack.pop();
        self.done.push(index);
        Ok(())
    }
}
