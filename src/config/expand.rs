//! Stages to instances: one per cell of the axes that reach the stage.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    Instance, Places, ToRun,
    check::Checker,
    idle::check_idle,
    kinds::Kind,
    leaks::{Found, Leaks},
    origin::{Origin, Sources},
    problem::{Code, Problem, Problems, similar},
    scope::Scope,
    stages::Definition,
    sweep::Axes,
    value::{Data, Entry, Node, Table, ValueProblem},
};
use crate::{
    artifact::ArtifactKind,
    stages::{MODEL_PARAMS, ParamError, Stage},
};

/// What expansion needs besides the stages.
pub(super) struct Expander<'a> {
    pub axes: &'a Axes,
    pub scope: &'a Scope<'a>,
    pub sources: &'a Arc<Sources>,
    /// The pipeline's seed and where it was written.
    pub seed: (u64, Option<Origin>),
    /// Whether data and models must hold what is asked of them, where they are there.
    pub look_at_files: bool,
    /// What must be fit to run.
    pub to_run: &'a ToRun,
}

/// The part of an instance that its own parameters decide.
#[derive(Clone)]
struct Parsed {
    work: Arc<dyn Stage>,
    /// The parameters as they are written, with references resolved.
    node: Arc<Node>,
    params: Arc<Map<String, Value>>,
}

impl Expander<'_> {
    /// Expands `definitions` in `order`; what has errors is reported and left out. Gives the
    /// instances and what is to be told of their data.
    pub fn expand(
        &self,
        definitions: &[Definition<'_>],
        order: &[usize],
        problems: &mut Problems,
    ) -> (Vec<Instance>, Found) {
        let mut instances: Vec<Instance> = Vec::new();
        let mut checker = Checker::new(self.look_at_files, self.to_run(definitions, order));
        let mut leaks = Leaks::default();
        let mut made: Vec<HashMap<Vec<u32>, Option<usize>>> =
            definitions.iter().map(|_| HashMap::new()).collect();
        for &index in order {
            let definition = &definitions[index];
            let Some(kind) = &definition.kind else { continue };
            let mut parsed: HashMap<Vec<u32>, Option<Parsed>> = HashMap::new();
            for cell in &self.axes.cells {
                let key = self.axes.project(cell, definition.reach);
                if made[index].contains_key(&key) {
                    continue;
                }
                let own = parsed
                    .entry(self.axes.project(cell, definition.own))
                    .or_insert_with(|| self.parse(definition, kind, cell, problems))
                    .clone();
                let inputs =
                    self.inputs(definition, definitions, cell, &made, &instances, problems);
                let instance = own.zip(inputs).map(|(own, inputs)| {
                    let instance = Instance {
                        stage: definition.name.to_owned(),
                        cell: self.axes.named(cell, definition.reach),
                        entry: kind.entry,
                        work: own.work,
                        params: own.params,
                        inputs,
                        places: Places::new(Arc::clone(&own.node), Arc::clone(self.sources)),
                    };
                    checker.add(definition, &instance, own.node, problems);
                    for (test, train) in leaks.add(&instance, &instances) {
                        problems.add(checker.divided_otherwise(&instances, test, train));
                    }
                    instances.push(instance);
                    instances.len() - 1
                });
                made[index].insert(key, instance);
            }
            let parsed = parsed.into_values().flatten();
            let idle: Vec<_> = parsed.flat_map(|parsed| parsed.work.idle_params()).collect();
            check_idle(definition, &idle, problems);
        }
        problems.tell_alike(self.axes);
        let mut found = Found { undecoded: checker.undecoded(), ..leaks.found() };
        found.warnings.extend(checker.same_pictures(&instances, &found.asked_and_learnt));
        found.warnings.extend_from_slice(checker.warnings());
        (instances, found)
    }

    /// The stages that are to run, by their names: those asked for and what they need.
    fn to_run(&self, definitions: &[Definition<'_>], order: &[usize]) -> HashSet<String> {
        let mut to_run: HashSet<usize> = HashSet::new();
        // What a stage needs comes before it.
        for &index in order.iter().rev() {
            let definition = &definitions[index];
            if self.to_run.names(definition.name) || to_run.contains(&index) {
                to_run.insert(index);
                let inputs = definition.inputs.iter();
                to_run.extend(inputs.flat_map(|input| input.targets.values().copied()));
            }
        }
        to_run.into_iter().map(|index| definitions[index].name.to_owned()).collect()
    }

    fn inputs(
        &self,
        definition: &Definition<'_>,
        definitions: &[Definition<'_>],
        cell: &[u32],
        made: &[HashMap<Vec<u32>, Option<usize>>],
        instances: &[Instance],
        problems: &mut Problems,
    ) -> Option<BTreeMap<String, usize>> {
        let mut inputs = Some(BTreeMap::new());
        for input in &definition.inputs {
            let target = input.targets[&self.axes.project(cell, input.uses)];
            let key = self.axes.project(cell, definitions[target].reach);
            let Some(instance) = made[target].get(&key).copied().flatten() else {
                inputs = None;
                continue;
            };
            let producer = &instances[instance];
            let given = producer.output();
            if !input.port.kinds.contains(&given) {
                problems.add(wrong_port(
                    definition,
                    input.origin,
                    input.port.kinds,
                    producer,
                    given,
                ));
            }
            if let Some(inputs) = &mut inputs {
                inputs.insert(input.port.name.to_owned(), instance);
            }
        }
        inputs
    }

    fn parse(
        &self,
        definition: &Definition<'_>,
        kind: &Kind,
        cell: &[u32],
        problems: &mut Problems,
    ) -> Option<Parsed> {
        let mut dropped = definition.dropped.clone();
        let mut params = self.resolve(definition, cell, &mut dropped, problems);
        if kind.has_seed()
            && let Some(table) = params.as_table_mut()
            && !table.contains_key("seed")
        {
            let (seed, origin) = self.seed;
            let data = i64::try_from(seed).map_or(Data::Unsigned(seed), Data::Integer);
            let node = Node { data, origin, via: None, filled: None };
            table.insert("seed".to_owned(), Entry { key: origin, node });
        }
        for wrong in kind.apply(&mut params, self.sources) {
            problems.add(wrong.problem);
            drop_value(&mut params, &wrong.path, &mut dropped);
        }
        loop {
            let error = match (kind.entry.parse)(&params) {
                Ok(parsed) if dropped.is_empty() => {
                    let valid = validated(definition, &params, parsed.stage.as_ref(), problems);
                    return valid.then(|| Parsed {
                        work: Arc::from(parsed.stage),
                        node: Arc::new(params),
                        params: Arc::new(parsed.params),
                    });
                }
                Ok(_) => return None,
                Err(error) => error.located(&params),
            };
            if let ValueProblem::Missing { key } = error.problem() {
                missing(definition, kind, &params, (error.path(), key), &dropped, problems);
                let path = error.path();
                let follows = |wrong: &Vec<String>| {
                    wrong
                        .split_last()
                        .is_some_and(|(last, above)| above == path && is_meant(last, key))
                };
                if !path.is_empty() && !dropped.iter().any(follows) {
                    problems.add(Problem::from(&error));
                }
                return None;
            }
            problems.add(Problem::from(&error));
            // Without the bad value, the next one shows.
            if !drop_value(&mut params, error.path(), &mut dropped) {
                return None;
            }
        }
    }

    /// The parameters in a cell; what cannot be resolved is reported and left out.
    fn resolve(
        &self,
        definition: &Definition<'_>,
        cell: &[u32],
        dropped: &mut Vec<Vec<String>>,
        problems: &mut Problems,
    ) -> Node {
        let origin = definition.key.or(definition.table.origin);
        let mut out = Table::new();
        for (key, entry) in definition.params() {
            match self.scope.resolve(&entry.node, cell) {
                Ok(node) => {
                    out.insert(key.clone(), Entry { key: entry.key, node });
                }
                Err(problem) => {
                    problems.add(problem);
                    dropped.push(vec![key.clone()]);
                }
            }
        }
        Node { data: Data::Table(out), origin, via: None, filled: None }
    }
}

/// Reports all keys that are missing, save those that were there but wrong.
fn missing(
    definition: &Definition<'_>,
    kind: &Kind,
    params: &Node,
    (path, first): (&[String], &str),
    dropped: &[Vec<String>],
    problems: &mut Problems,
) {
    if !path.is_empty() {
        return;
    }
    let mut names: Vec<&str> = kind.required().collect();
    if !names.contains(&first) {
        names.push(first);
    }
    for name in names {
        let known = params.get(name).is_some()
            || dropped.iter().any(|path| path.first().is_some_and(|key| is_meant(key, name)));
        if known {
            continue;
        }
        let message = format!("stage `{}` has no `{name}`", definition.name);
        problems.add(
            Problem::new(Code::MissingKey, message)
                .at(definition.key, format!("`{name}` is not set here"))
                .help(format!("add `{name} = ...`")),
        );
    }
}

/// Whether a wrong key stands for a missing one: as that key with a wrong value, or misspelt.
fn is_meant(key: &str, missing: &str) -> bool {
    key == missing || similar(key, &[missing]).is_some()
}

/// Takes out the value at `path`, or the nearest above that can be taken out.
fn drop_value(params: &mut Node, path: &[String], dropped: &mut Vec<Vec<String>>) -> bool {
    let mut path = path.to_vec();
    while !path.is_empty() {
        if params.remove(&path) {
            dropped.push(path);
            return true;
        }
        path.pop();
    }
    false
}

/// Reports the rules that the parameters break.
fn validated(
    definition: &Definition<'_>,
    params: &Node,
    work: &dyn Stage,
    problems: &mut Problems,
) -> bool {
    let mut errors = work.validate();
    if let Some(model) = work.model()
        && let Err(error) = model.check_name()
    {
        let help = error.help().filter(|help| !help.is_empty()).map(str::to_owned);
        let field = MODEL_PARAMS.into_iter().find(|field| params.get(field).is_some());
        let field = field.unwrap_or(MODEL_PARAMS[0]).to_owned();
        errors.push(ParamError { field, message: error.to_string(), help });
    }
    let valid = errors.is_empty();
    for error in errors {
        let mut node = params;
        for key in error.field.split('.') {
            let Some(next) = node.get(key) else { break };
            node = next;
        }
        let label = format!("`{}`", error.field);
        let mut problem = Problem::new(Code::BadValue, error.sentence())
            .in_stage(definition.name)
            .at(node.origin.or(definition.key), label)
            .at(node.via, "used here");
        problem.help = error.help;
        problems.add(problem);
    }
    valid
}

fn wrong_port(
    definition: &Definition<'_>,
    origin: Option<Origin>,
    wanted: &[ArtifactKind],
    producer: &Instance,
    given: ArtifactKind,
) -> Problem {
    let wanted: Vec<_> = wanted.iter().map(|kind| kind.name()).collect();
    let wanted = wanted.join(" or ");
    let message = format!(
        "stage `{}` needs {wanted}, but `{}` gives {given}",
        definition.name, producer.stage
    );
    Problem::new(Code::PortKind, message)
        .at(origin, format!("a stage of kind `{}`", producer.entry.kind))
        .help(format!("name a stage that gives {wanted}"))
}
