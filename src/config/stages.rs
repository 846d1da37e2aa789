//! The stages as the file defines them: kinds, inputs, and which axes reach each.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use super::{
    kinds::{Kind, Kinds},
    origin::Origin,
    problem::{Code, Problem, Problems},
    references::has_reference,
    scope::Scope,
    sweep::{Axes, AxisSet},
    value::{Entry, Node, Table, owned},
};
use crate::stages::{Port, StageEntry};

/// A stage before it is expanded.
pub(super) struct Definition<'a> {
    pub name: &'a str,
    pub key: Option<Origin>,
    /// None if the kind is not known.
    pub kind: Option<Rc<Kind>>,
    /// The whole table; of the parameters, those whose references are right.
    pub table: Cow<'a, Node>,
    /// Paths of the parameters that were left out for an error already reported.
    pub dropped: Vec<Vec<String>>,
    pub inputs: Vec<Input>,
    /// The axes of the parameters.
    pub own: AxisSet,
    /// The axes of the parameters and of all inputs.
    pub reach: AxisSet,
}

/// Keys of a stage that are no parameters.
const KIND: &str = "kind";
const INPUTS: &str = "inputs";

impl Definition<'_> {
    /// The parameters in the order of the file.
    pub fn params(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let table = self.table.as_table().into_iter().flatten();
        table.filter(|(key, _)| ![KIND, INPUTS].contains(&key.as_str()))
    }
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
    pub kinds: Kinds,
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
        node: &'a Node,
        problems: &mut Problems,
    ) -> Definition<'a> {
        let mut definition = Definition {
            name,
            key,
            kind: None,
            table: Cow::Borrowed(node),
            dropped: Vec::new(),
            inputs: Vec::new(),
            own: 0,
            reach: 0,
        };
        let Some(table) = node.as_table() else {
            let message = format!("stage `{name}` must be a table, but is {}", node.describe());
            let problem = Problem::new(Code::WrongType, message);
            problems.add(problem.at(node.origin, "must be a table"));
            return definition;
        };
        match node.get(KIND) {
            Some(kind) => definition.kind = self.kind(kind, problems),
            None => problems.add(
                Problem::new(Code::MissingKey, format!("stage `{name}` has no `kind`"))
                    .at(key, "`kind` is not set here")
                    .help(format!("it can be {}", self.kinds())),
            ),
        }
        self.check_references(&mut definition, problems);
        let inputs = table.get(INPUTS).map(|entry| &entry.node);
        match &definition.kind {
            Some(kind) => definition.inputs = self.inputs(name, key, kind.entry, inputs, problems),
            // Of a kind that is not known, it can at least be told which stages are not there.
            None => {
                for (port, connection) in inputs.and_then(Node::as_table).into_iter().flatten() {
                    let _ = self.targets(port, &connection.node, problems);
                }
            }
        }
        definition
    }

    fn kinds(&self) -> String {
        let names: Vec<_> = self.registry.iter().map(|entry| entry.kind).collect();
        super::problem::list(&names)
    }

    fn kind(&self, node: &Node, problems: &mut Problems) -> Option<Rc<Kind>> {
        let Some(kind) = node.as_str() else {
            problems.add(Problem::wrong_type(node, "kind", "a string"));
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
        entry.map(|entry| self.kinds.of(entry))
    }

    /// Collects the axes of the parameters; those with a wrong reference are taken out.
    fn check_references(&self, definition: &mut Definition<'_>, problems: &mut Problems) {
        let mut strings = Vec::new();
        for (key, entry) in definition.params() {
            entry.node.walk(&mut vec![key.into()], &mut |path, node| {
                if node.as_str().is_some_and(has_reference) {
                    strings.push((owned(path), node));
                }
            });
        }
        let (mut own, mut wrong) = (0, Vec::new());
        for (path, node) in strings {
            match self.scope.uses(node, problems) {
                Some(set) => own |= set,
                None => wrong.push(path),
            }
        }
        definition.own = own;
        for mut path in wrong {
            // An item of a list cannot be missed alone.
            while !definition.table.to_mut().remove(&path) && !path.is_empty() {
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
            let origin = connection.node.origin;
            let targets = self.targets(port.name, &connection.node, problems);
            inputs.extend(targets.map(|(uses, targets)| Input { port, origin, uses, targets }));
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

    /// The axes that decide which stage a port is connected to, and the stage by their values.
    fn targets(
        &self,
        port: &str,
        node: &Node,
        problems: &mut Problems,
    ) -> Option<(AxisSet, HashMap<Vec<u32>, usize>)> {
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
                    "input `{port}` must be the name of a stage, but is {}",
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
        Some((uses, targets))
    }
}

fn wrong_inputs(node: &Node, ports: &[Port]) -> Problem {
    let port = ports.first().map_or("port", |port| port.name);
    let stage = node.as_str().unwrap_or("stage");
    Problem::wrong_type(node, "inputs", "a table")
        .help(format!("write `inputs = {{ {port} = \"{stage}\" }}`"))
}

/// An order in which inputs come before their users, near the order of the file. A cycle is
/// reported.
pub(super) fn order(definitions: &[Definition<'_>], problems: &mut Problems) -> Option<Vec<usize>> {
    let mut walk =
        Order { definitions, visited: vec![Visit::Not; definitions.len()], done: vec![] };
    for index in 0..definitions.len() {
        if let Err(problem) = walk.visit(index) {
            problems.add(problem);
            return None;
        }
    }
    Some(walk.done)
}

/// Finds the axes that reach each stage, by its own parameters or by its inputs, which come before
/// it in `order`.
pub(super) fn reach(definitions: &mut [Definition<'_>], order: &[usize]) {
    for &index in order {
        let inputs = definitions[index].inputs.iter();
        let reach = inputs.fold(definitions[index].own, |reach, input| {
            let targets = input.targets.values().map(|target| definitions[*target].reach);
            targets.fold(reach | input.uses, |reach, more| reach | more)
        });
        definitions[index].reach = reach;
    }
}

/// How far the walk from a stage to those it needs has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Not,
    Begun,
    Done,
}

/// A walk in depth, on a stack of its own: a chain may have more stages than threads have stack.
struct Order<'a> {
    definitions: &'a [Definition<'a>],
    visited: Vec<Visit>,
    done: Vec<usize>,
}

impl Order<'_> {
    fn visit(&mut self, start: usize) -> Result<(), Problem> {
        if self.visited[start] != Visit::Not {
            return Ok(());
        }
        self.visited[start] = Visit::Begun;
        let mut path = vec![(start, self.needs(start).into_iter())];
        while let Some((index, needs)) = path.last_mut() {
            let Some((need, origin)) = needs.next() else {
                self.visited[*index] = Visit::Done;
                self.done.push(*index);
                path.pop();
                continue;
            };
            match self.visited[need] {
                Visit::Done => {}
                Visit::Not => {
                    self.visited[need] = Visit::Begun;
                    path.push((need, self.needs(need).into_iter()));
                }
                Visit::Begun => {
                    let path: Vec<usize> = path.iter().map(|(index, _)| *index).collect();
                    return Err(self.circle(&path, need, origin));
                }
            }
        }
        Ok(())
    }

    /// The stages that a stage needs, and where it says so.
    fn needs(&self, index: usize) -> Vec<(usize, Option<Origin>)> {
        let mut needs = Vec::new();
        for input in &self.definitions[index].inputs {
            let targets: BTreeSet<usize> = input.targets.values().copied().collect();
            needs.extend(targets.into_iter().map(|target| (target, input.origin)));
        }
        needs
    }

    fn circle(&self, path: &[usize], closed: usize, from: Option<Origin>) -> Problem {
        let start = path.iter().position(|index| *index == closed).unwrap_or_default();
        let around = path[start..].iter().chain([&closed]);
        let names: Vec<_> = around.map(|index| self.definitions[*index].name).collect();
        let message = format!("stages need each other: {}", names.join(" <- "));
        let problem = Problem::new(Code::Cycle, message).at(from, "closes the circle");
        problem.help("let one of them take its input from elsewhere")
    }
}
