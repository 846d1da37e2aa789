//! What a `${...}` can name, and its value in a cell.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Range,
};

use super::{
    origin::{Origin, Sources},
    pipeline::plain,
    problem::{Code, Problem, Problems},
    references::{Part, Reference, has_reference, parse},
    sweep::{Axes, AxisSet},
    value::{Data, Entry, Filled, Node, Table},
};

/// Nodes and kilobytes of text that one value may grow to.
const MAX_SIZE: usize = 100_000;

/// Params that one value may go through; each takes some of the stack.
const MAX_DEPTH: usize = 64;

/// The params and axes of a pipeline.
pub(super) struct Scope<'a> {
    params: &'a Table,
    axes: &'a Axes,
    sources: &'a Sources,
    known: RefCell<HashMap<String, Option<AxisSet>>>,
    /// Whether a chain of params is reported that is too long.
    too_deep: Cell<bool>,
}

impl<'a> Scope<'a> {
    pub fn new(params: &'a Table, axes: &'a Axes, sources: &'a Sources) -> Self {
        Self { params, axes, sources, known: RefCell::default(), too_deep: Cell::default() }
    }

    /// The axes that decide a value outside `[params]`; none if a reference is wrong, which is
    /// reported.
    pub fn uses(&self, node: &Node, problems: &mut Problems) -> Option<AxisSet> {
        self.node_uses(node, false, &mut Vec::new(), problems)
    }

    /// Checks all params, used or not.
    pub fn check_params(&self, problems: &mut Problems) {
        for (name, entry) in self.params {
            let mut stack = vec![name.clone()];
            self.node_uses(&entry.node, true, &mut stack, problems);
        }
    }

    fn node_uses(
        &self,
        node: &Node,
        in_params: bool,
        stack: &mut Vec<String>,
        problems: &mut Problems,
    ) -> Option<AxisSet> {
        let mut set = Some(0);
        let mut add = |more: Option<AxisSet>| set = set.zip(more).map(|(a, b)| a | b);
        match &node.data {
            Data::String(text) if has_reference(text) => match parse(text) {
                Ok(parts) => {
                    for part in &parts {
                        if let Part::Reference(reference) = part {
                            add(self.reference_uses(reference, node.origin, stack, problems));
                        }
                    }
                }
                Err((message, about)) => {
                    let origin = self.narrow(node.origin, &about);
                    let problem = Problem::new(Code::Reference, message).at(origin, "here");
                    problems.add(problem.help("write `${name}`, or `$${` for a plain `${`"));
                    return None;
                }
            },
            Data::Array(items) => {
                for item in items {
                    add(self.node_uses(item, in_params, stack, problems));
                }
            }
            Data::Table(table) => {
                if let Some(by) = choice(node).filter(|_| in_params) {
                    let text = by.as_str().unwrap_or_default();
                    let reference = reference(text);
                    add(self.reference_uses(&reference, by.origin, stack, problems));
                }
                for entry in table.values() {
                    add(self.node_uses(&entry.node, in_params, stack, problems));
                }
            }
            _ => {}
        }
        set
    }

    fn reference_uses(
        &self,
        reference: &Reference,
        origin: Option<Origin>,
        stack: &mut Vec<String>,
        problems: &mut Problems,
    ) -> Option<AxisSet> {
        let place = self.narrow(origin, &reference.written);
        if let Some(position) = self.axes.position(&reference.name) {
            return Some(1 << position);
        }
        let Some(param) = self.params.get(&reference.name) else {
            let message = format!("there is no param or sweep axis `{}`", reference.name);
            let names = self.params.keys().map(String::as_str).chain(self.axes.names());
            problems.add(
                Problem::new(Code::Reference, message)
                    .absent(&reference.name)
                    .at(place, "unknown")
                    .suggest(&reference.name, names),
            );
            return None;
        };
        if let Some(start) = stack.iter().position(|name| *name == reference.name) {
            let chain = [&stack[start..], std::slice::from_ref(&reference.name)].concat();
            let message = format!("params refer to each other: {}", chain.join(" -> "));
            problems.add(Problem::new(Code::Cycle, message).at(place, "comes back here"));
            return None;
        }
        let memo = reference.written.clone();
        if let Some(known) = self.known.borrow().get(&memo) {
            return *known;
        }
        if stack.len() >= MAX_DEPTH {
            // Of a longer chain, each part would be too long.
            if !self.too_deep.replace(true) {
                problems.add(too_deep(place));
            }
            return None;
        }
        let node = match descend(&param.node, &reference.keys, reference, place) {
            Ok((node, _)) => node,
            Err(problem) => {
                problems.add(problem);
                return None;
            }
        };
        stack.push(reference.name.clone());
        let set = self.node_uses(node, true, stack, problems);
        stack.pop();
        self.known.borrow_mut().insert(memo, set);
        set
    }

    /// The value of a node outside `[params]` in a cell. Its references were checked by
    /// [`Self::uses`]; what is left to fail depends on the cell.
    pub fn resolve(&self, node: &Node, cell: &[u32]) -> Result<Node, Problem> {
        Resolver { scope: self, cell, left: Cell::new(MAX_SIZE), depth: Cell::new(0) }
            .node(node, false)
    }

    /// The value of a node that may use no axis.
    pub fn resolve_or_report(&self, node: &Node, problems: &mut Problems) -> Option<Node> {
        self.uses(node, problems)?;
        self.resolve(node, &[]).map_err(|problem| problems.add(problem)).ok()
    }

    fn narrow(&self, origin: Option<Origin>, text: &str) -> Option<Origin> {
        origin.map(|origin| self.sources.find(origin, text))
    }
}

fn too_deep(place: Option<Origin>) -> Problem {
    let message = format!("params refer to each other over more than {MAX_DEPTH} steps");
    Problem::new(Code::Reference, message)
        .at(place, "one step too many")
        .help("refer to a value that is nearer to the end of the chain")
}

/// Follows keys as far as no choice or reference stands in the way; also the keys left.
fn descend<'n, 'k>(
    mut node: &'n Node,
    mut keys: &'k [String],
    reference: &Reference,
    place: Option<Origin>,
) -> Result<(&'n Node, &'k [String]), Problem> {
    while let [key, rest @ ..] = keys {
        if choice(node).is_some() || node.as_str().is_some_and(has_reference) {
            break;
        }
        let index = || key.parse::<usize>().ok();
        let next = match &node.data {
            Data::Table(table) => table.get(key).map(|entry| &entry.node),
            Data::Array(items) => index().and_then(|index| items.get(index)),
            _ => None,
        };
        node = next.ok_or_else(|| {
            let message = format!("`{}` has no key `{key}`", reference.name);
            let problem = Problem::new(Code::Reference, message).at(place, "unknown key");
            let names = node.as_table().into_iter().flat_map(Table::keys);
            problem.suggest(key, names.map(String::as_str))
        })?;
        keys = rest;
    }
    Ok((node, keys))
}

/// The `by` of a choice such as `{ by = "n", 1 = 200, 3 = 300 }`.
fn choice(node: &Node) -> Option<&Node> {
    node.get("by").filter(|by| by.as_str().is_some())
}

/// The reference of a `by`, with or without `${}`.
fn reference(text: &str) -> Reference {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let mut keys: Vec<String> = name.split('.').map(|key| key.trim().to_owned()).collect();
    Reference { name: keys.remove(0), keys, written: text.to_owned() }
}

struct Resolver<'a> {
    scope: &'a Scope<'a>,
    cell: &'a [u32],
    left: Cell<usize>,
    /// The params that it is in.
    depth: Cell<usize>,
}

impl Resolver<'_> {
    fn node(&self, node: &Node, in_params: bool) -> Result<Node, Problem> {
        self.spend(1, node)?;
        let data = match &node.data {
            Data::String(text) if has_reference(text) => return self.text(text, node),
            Data::Array(items) => Data::Array(
                items.iter().map(|n| self.node(n, in_params)).collect::<Result<_, _>>()?,
            ),
            Data::Table(_) if in_params && choice(node).is_some() => return self.choose(node),
            Data::Table(table) => {
                let entry = |(key, entry): (&String, &Entry)| -> Result<(String, Entry), Problem> {
                    let node = self.node(&entry.node, in_params)?;
                    Ok((key.clone(), Entry { key: entry.key, node }))
                };
                Data::Table(table.iter().map(entry).collect::<Result<_, _>>()?)
            }
            data => data.clone(),
        };
        Ok(Node { data, origin: node.origin, via: node.via, filled: None })
    }

    fn spend(&self, amount: usize, node: &Node) -> Result<(), Problem> {
        let left = self.left.get().checked_sub(amount).ok_or_else(|| {
            Problem::new(Code::Reference, "the references expand to too much")
                .at(node.origin, "grows too large")
        })?;
        self.left.set(left);
        Ok(())
    }

    fn text(&self, text: &str, node: &Node) -> Result<Node, Problem> {
        let parts = parse(text).map_err(|(message, _)| {
            Problem::new(Code::Reference, message).at(node.origin, "here")
        })?;
        if let [Part::Reference(reference)] = &parts[..] {
            let value = self.reference(reference, node)?;
            return Ok(Node { via: node.origin.or(value.via), ..value });
        }
        let mut text = String::new();
        let mut filled = Vec::new();
        let mut origin = node.origin;
        for (index, part) in parts.iter().enumerate() {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Reference(reference) => {
                    let value = self.reference(reference, node)?;
                    if matches!(value.data, Data::Array(_) | Data::Table(_)) {
                        let message = format!(
                            "`{}` is {}, which cannot be put into text",
                            reference.written,
                            value.describe()
                        );
                        let place = self.scope.narrow(node.origin, &reference.written);
                        return Err(Problem::new(Code::Reference, message)
                            .at(place, "stands inside a string")
                            .help("refer to one of its keys, or let the string be only this"));
                    }
                    if index == 0 {
                        // A path that begins with a value is meant from where that was written.
                        origin = value.origin.or(origin);
                    }
                    let start = text.len();
                    text.push_str(&plain(&value.to_json()));
                    filled.extend(self.filled(reference, &value, start..text.len()));
                }
            }
            self.spend(text.len() / 1024, node)?;
        }
        let filled = Some(filled.into());
        Ok(Node { data: Data::String(text), origin, via: node.origin, filled })
    }

    /// What a reference put into a text; of a value that is such a text, what was put into that.
    fn filled(&self, reference: &Reference, value: &Node, place: Range<usize>) -> Vec<Filled> {
        if let Some(inner) = &value.filled {
            let moved = |part: &Filled| Filled {
                range: part.range.start + place.start..part.range.end + place.start,
                ..part.clone()
            };
            return inner.iter().map(moved).collect();
        }
        let is_axis = self.scope.axes.position(&reference.name).is_some();
        let keys = std::iter::once(&reference.name).chain(&reference.keys);
        let name = keys.map(String::as_str).collect::<Vec<_>>().join(".");
        let name = if is_axis { name } else { format!("params.{name}") };
        vec![Filled { name, range: place, origin: value.origin }]
    }

    fn reference(&self, reference: &Reference, from: &Node) -> Result<Node, Problem> {
        let scope = self.scope;
        let place = scope.narrow(from.origin, &reference.written);
        let (node, keys) = if let Some(axis) = scope.axes.position(&reference.name) {
            let value = &scope.axes.list[axis].values[self.cell[axis] as usize];
            (value.clone(), &reference.keys[..])
        } else {
            let Some(param) = scope.params.get(&reference.name) else {
                let message = format!("there is no param or sweep axis `{}`", reference.name);
                return Err(Problem::new(Code::Reference, message).at(place, "unknown"));
            };
            let (node, keys) = descend(&param.node, &reference.keys, reference, place)?;
            let depth = self.depth.get();
            if depth >= MAX_DEPTH {
                return Err(too_deep(place));
            }
            self.depth.set(depth + 1);
            let node = self.node(node, true)?;
            self.depth.set(depth);
            (node, keys)
        };
        let (node, _) = descend(&node, keys, reference, place)?;
        Ok(node.clone())
    }

    fn choose(&self, node: &Node) -> Result<Node, Problem> {
        let by = choice(node).expect("the caller saw one");
        let reference = reference(by.as_str().unwrap_or_default());
        let value = plain(&self.reference(&reference, by)?.to_json());
        match node.get(&value) {
            Some(chosen) if value != "by" => self.node(chosen, true),
            _ => {
                let table = node.as_table().expect("a choice is a table");
                if table.len() == 1 {
                    let message = format!("the choice by `{}` has no values", reference.name);
                    return Err(Problem::new(Code::Choice, message)
                        .at(node.origin, "has only `by`")
                        .help(format!("add one for each case, as in `{value} = ...`")));
                }
                let message = format!("the choice has no value for {} = {value}", reference.name);
                let keys = table.keys().filter(|key| *key != "by");
                let have = keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
                Err(Problem::new(Code::Choice, message)
                    .at(node.origin, format!("has only {have}"))
                    .help(format!("add `{value} = ...`")))
            }
        }
    }
}
