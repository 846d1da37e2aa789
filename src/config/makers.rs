//! The stages of a pipeline that make parts of a model, and which of them make the same.

use std::collections::HashMap;

use super::Instance;

/// What decides the parts of a model that a stage makes.
#[derive(PartialEq, Eq, Hash)]
struct PartsKey {
    kind: &'static str,
    /// As JSON.
    params: String,
    /// The ports, each with the place of its first stage that makes the same.
    inputs: Vec<(String, usize)>,
}

/// The stages so far that make parts of a model.
#[derive(Default)]
pub(super) struct Makers {
    /// The place of the first stage of each kind of work.
    first: HashMap<PartsKey, usize>,
    /// For each stage the first one that does the same.
    twins: HashMap<usize, usize>,
}

impl Makers {
    /// The place of the first stage that makes the same of the same as this one at `index`, or its
    /// own.
    pub fn first(&mut self, instance: &Instance, index: usize) -> usize {
        if !instance.work.gives_parts() {
            return index;
        }
        let twin = |input: &usize| self.twins.get(input).copied().unwrap_or(*input);
        let inputs = instance.inputs.iter().map(|(port, input)| (port.clone(), twin(input)));
        let key = PartsKey {
            kind: instance.entry.kind,
            params: serde_json::to_string(&*instance.params).unwrap_or_default(),
            inputs: inputs.collect(),
        };
        let first = *self.first.entry(key).or_insert(index);
        self.twins.insert(index, first);
        first
    }
}
