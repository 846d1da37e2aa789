//! Whether the stages of a file fit together: sizes and settings that a stage would fail on after
//! the work of all stages before it, shown where they are written.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    Instance,
    origin::{Layer, Origin},
    problem::{Code, Problem, Problems},
    stages::Definition,
    value::Node,
};
use crate::stages::{
    AdapterFile, Cause, Caution, EncodedText, Examined, ItemSize, KnownAdapters, KnownData,
    KnownModels, KnownParts, Lineage, Misfit, Mismatch, ModelParts, SamePictures, Surroundings,
    Trainings,
};

/// Bytes of one clip beyond which no stage could hold it.
const MAX_CLIP: usize = 1 << 33;

/// A value of a size, and the parameter that gives it.
#[derive(Clone, Copy)]
struct Given<T> {
    value: T,
    by: usize,
    param: &'static str,
}

#[derive(Clone, Copy, Default)]
struct Sizes {
    frames: Option<Given<usize>>,
    image: Option<Given<[usize; 2]>>,
}

/// A stage that makes parts of a model: kind, parameters and inputs.
type Maker = (&'static str, String, Vec<(String, usize)>);

/// The stages so far that make parts of a model.
#[derive(Default)]
struct Makers {
    /// The first stage of each kind of work.
    first: HashMap<Maker, usize>,
    /// For each stage the first one that does the same.
    twins: HashMap<usize, usize>,
}

impl Makers {
    /// The place of the first stage that makes the same of the same as this one at `index`, or its own.
    fn first(&mut self, instance: &Instance, index: usize) -> usize {
        if !instance.work.gives_parts() {
            return index;
        }
        let twin = |input: &usize| self.twins.get(input).copied().unwrap_or(*input);
        let inputs = instance.inputs.iter().map(|(port, input)| (port.clone(), twin(input)));
        let params = serde_json::to_string(&*instance.params).unwrap_or_default();
        let maker = (instance.entry.kind, params, inputs.collect());
        let first = *self.first.entry(maker).or_insert(index);
        self.twins.insert(index, first);
        first
    }
}

/// What is known of the instances so far.
pub(super) struct Fits {
    models: KnownModels,
    data: KnownData,
    /// The stages that are to run.
    to_run: HashSet<String>,
    /// What was seen of files of weights, if they are looked at.
    examined: Option<Examined>,
    tasks: Vec<(Option<&'static str>, String)>,
    sizes: Vec<Sizes>,
    /// How many items each stage gives, where its parameters say so.
    items: Vec<Option<usize>>,
    /// With how many adapters along one training each stage's predictions are made, where that is known.
    checkpoints: Vec<Option<usize>>,
    trained: Vec<Option<Rc<Trainings>>>,
    lineages: Vec<Option<Rc<Lineage>>>,
    makers: Makers,
    parts: KnownParts,
    adapters: KnownAdapters,
    encoded: Vec<Option<EncodedText>>,
    params: Vec<Arc<Node>>,
    /// Where the names of the stages are written.
    keys: Vec<Option<Origin>>,
    warnings: Vec<String>,
}

impl Fits {
    /// Nothing is known yet; `look` says whether data and the files of models are looked at, `to_run` which
    /// stages are to run.
    pub fn new(look: bool, to_run: HashSet<String>) -> Self {
        Self {
            models: KnownModels::default(),
            data: KnownData::new(look),
            to_run,
            examined: look.then(Examined::default),
            tasks: Vec::new(),
            sizes: Vec::new(),
            items: Vec::new(),
            checkpoints: Vec::new(),
            trained: Vec::new(),
            lineages: Vec::new(),
            makers: Makers::default(),
            parts: KnownParts::default(),
            adapters: KnownAdapters::default(),
            encoded: Vec::new(),
            params: Vec::new(),
            keys: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether images that are here were not decoded, because a stage takes too many.
    pub fn undecoded(&self) -> bool {
        self.data.undecoded()
    }

    /// What is not wrong but may be.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds the next instance with its parameters, and reports what it cannot take. Of several
    /// stages that cannot take one value, the first is named.
    pub fn add(
        &mut self,
        definition: &Definition<'_>,
        instance: &Instance,
        params: Arc<Node>,
        problems: &mut Problems,
    ) {
        self.params.push(params);
        self.keys.push(definition.key);
        let inputs = instance.inputs.values().copied();
        let behind =
            self.adapters.add((&instance.stage, &*instance.work), instance.output(), inputs);
        let sizes = self.sizes(instance);
        self.sizes.push(sizes);
        self.items.push(instance.work.num_items());
        self.checkpoints.push(self.checkpoints_of(instance));
        let items = instance.inputs.iter();
        let items: Vec<_> =
            items.filter_map(|(port, input)| Some((port.as_str(), self.items[*input]?))).collect();
        let ports: Vec<&str> = instance.inputs.keys().map(String::as_str).collect();
        let size = ItemSize {
            frames: sizes.frames.map(|given| given.value),
            image: sizes.image.map(|given| given.value),
        };
        self.tasks.push((instance.work.task(), instance.stage.clone()));
        let checkpoints = instance.inputs.iter();
        let checkpoints: Vec<_> = checkpoints
            .filter_map(|(port, input)| Some((port.as_str(), self.checkpoints[*input]?)))
            .collect();
        let tasks = tasks(&self.tasks, instance);
        let trained = instance.inputs.iter();
        let trained: Vec<_> = trained
            .filter_map(|(port, input)| Some((port.as_str(), self.trained[*input].clone()?)))
            .collect();
        let lineages = instance.inputs.iter();
        let lineages: Vec<_> = lineages
            .filter_map(|(port, input)| Some((port.as_str(), self.lineages[*input].clone()?)))
            .collect();
        let index = self.sizes.len() - 1;
        let parts = self.parts.add(&instance.work, instance.inputs.get("model").copied());
        let texts = self.texts(instance);
        let around = Surroundings {
            size,
            ports: &ports,
            items: &items,
            checkpoints: &checkpoints,
            tasks: &tasks,
            is_to_run: self.to_run.contains(&instance.stage),
            stage: &instance.stage,
            index,
            twin: self.makers.first(instance, index),
            lineages: &lineages,
            trained: &trained,
            texts: &texts,
            parts: parts.as_ref(),
            models: &self.models,
            data: &self.data,
        };
        self.trained.push(instance.work.trainings(&around).map(Rc::new));
        self.lineages.push(instance.work.lineage(&around).map(Rc::new));
        let misfits = instance.work.misfits(&around);
        let mismatches = instance.work.mismatches(&around);
        let flaws = self.flaws(instance, &behind, parts.as_ref());
        let cautions = instance.work.cautions(&around);
        self.encoded.push(instance.work.encoded_text(&around));
        self.warn(instance, cautions);
        for misfit in misfits.into_iter().chain(too_large(size)).chain(flaws) {
            let problem = self.problem(definition, instance, sizes, misfit);
            problems.add(problem.in_cell(&instance.cell));
        }
        for mismatch in mismatches {
            self.mismatch(definition, instance, mismatch, problems);
        }
    }

    /// What is wrong with the files of an instance's model and of the adapters it names or is given, if they are
    /// looked at.
    fn flaws(
        &self,
        instance: &Instance,
        behind: &[AdapterFile],
        parts: Option<&ModelParts>,
    ) -> Vec<Misfit> {
        let (work, Some(examined)) = (&*instance.work, &self.examined) else { return Vec::new() };
        let mut flaws = work.flaws(examined, parts);
        let on_ports = examined.adapters_on_ports(work, behind, parts);
        flaws.extend(on_ports.into_iter().map(|(_, misfit)| misfit));
        flaws
    }

    /// Reports parts of different models, or says that they may be so.
    fn mismatch(
        &mut self,
        definition: &Definition<'_>,
        instance: &Instance,
        mismatch: Mismatch,
        problems: &mut Problems,
    ) {
        let Mismatch { is_known, message, help, places } = mismatch;
        if !is_known {
            let place = instance.places.get("model").map(|place| format!(" ({place})"));
            let text = format!(": {message}{}; {help}", place.unwrap_or_default());
            return self.warn_of(&instance.stage, &text);
        }
        let mut problem =
            Problem::new(Code::BadValue, message).in_stage(definition.name).help(help);
        let own = self.params.len() - 1;
        if places.iter().all(|(stage, _)| *stage != own) {
            problem = problem.at(definition.key, "here");
        }
        for (stage, label) in places {
            let node = self.params[stage].get("model");
            let origin = node.and_then(|node| node.origin).or(self.keys[stage]);
            problem = problem.at(origin, label);
        }
        problems.add(problem);
    }

    /// Two instances take parts of one source that is divided otherwise for each.
    pub fn divided_otherwise(&self, instances: &[Instance], test: usize, train: usize) -> Problem {
        let places = [test, train].into_iter().flat_map(|at| {
            ["holdout", "holdout_seed", "holdout_by"]
                .map(|param| (at, param, self.params[at].get(param)))
        });
        let place = places.into_iter().find_map(|(at, param, node)| Some((at, param, node?)));
        let [asked, learnt] = [test, train].map(|at| instances[at].stage.as_str());
        let message = format!(
            "`{asked}` and `{learnt}` divide one source into training and test in two ways, so \
             that images learnt from may be asked about"
        );
        let mut problem = Problem::new(Code::BadValue, message);
        if let Some((at, param, node)) = place {
            problem = problem
                .in_stage(&instances[at].stage)
                .at(node.origin, format!("`{param}`"))
                .at(node.via, "used here");
        }
        problem.help("give both the same `holdout`, `holdout_seed` and `holdout_by`")
    }

    /// With how many adapters the predictions of an instance are made: as many as it is given, or as those were made
    /// with that it works on.
    fn checkpoints_of(&self, instance: &Instance) -> Option<usize> {
        let input = |port: &str| instance.inputs.get(port);
        if let Some(port) = instance.work.crossed_port() {
            return input(port).map_or(Some(1), |adapters| self.items[*adapters]);
        }
        let mapped = instance.work.mapped_port().unwrap_or("predictions");
        input(mapped).and_then(|predictions| self.checkpoints[*predictions])
    }

    /// What to say of pictures that are asked about and learnt from, where data was looked at: once for every two
    /// stages.
    pub fn same_pictures(
        &self,
        instances: &[Instance],
        asked_and_learnt: &BTreeSet<(usize, usize)>,
    ) -> Vec<String> {
        let mut sets = HashMap::new();
        let mut told: HashSet<[&str; 2]> = HashSet::new();
        let mut warnings = Vec::new();
        for &(asked, learnt) in asked_and_learnt {
            let stages = [asked, learnt].map(|at| &*instances[at].stage);
            if told.contains(&stages) {
                continue;
            }
            for at in [asked, learnt] {
                sets.entry(at).or_insert_with(|| instances[at].work.pictures(&self.data));
            }
            let [Some(test), Some(train)] = [&sets[&asked], &sets[&learnt]] else { continue };
            if let Some(same) = SamePictures::of_content(test, train) {
                told.insert(stages);
                let [test, train] = [asked, learnt].map(|at| instances[at].to_string());
                warnings.push(same.told(&test, &train));
            }
        }
        warnings
    }

    /// How the prompts on an instance's ports are encoded.
    fn texts<'a>(&self, instance: &'a Instance) -> Vec<(&'a str, EncodedText)> {
        let known =
            |(port, input): (&'a String, &usize)| Some((port.as_str(), self.encoded[*input]?));
        instance.inputs.iter().filter_map(known).collect()
    }

    fn warn(&mut self, instance: &Instance, cautions: Vec<Caution>) {
        for Caution { param, message } in cautions {
            let place = param.and_then(|param| instance.places.get(param));
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            self.warn_of(&instance.stage, &format!(" {message}{place}"));
        }
    }

    fn warn_of(&mut self, stage: &str, text: &str) {
        let warning = format!("`{stage}`{text}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// What the last instance cannot take, shown where it is written.
    fn problem(
        &self,
        definition: &Definition<'_>,
        instance: &Instance,
        sizes: Sizes,
        misfit: Misfit,
    ) -> Problem {
        let index = self.sizes.len() - 1;
        let (by, param) = match misfit.cause {
            Cause::Param(param) => (index, param),
            Cause::Prompts(ports) => return self.at_prompts(definition, instance, ports, misfit),
            Cause::Frames => sizes.frames.map_or((index, "frames"), |g| (g.by, g.param)),
            Cause::Image => sizes.image.map_or((index, "size"), |g| (g.by, g.param)),
        };
        let node = self.params[by].get(param);
        let origin = node.and_then(|node| node.origin).or(definition.key);
        let mut problem = Problem::new(Code::BadValue, misfit.message)
            .in_stage(definition.name)
            .at(root_of_run(&self.params[by], param, origin), "the data")
            .at(origin, format!("`{param}`"))
            .at(node.and_then(|node| node.via), "used here");
        problem.help = misfit.help;
        problem
    }

    /// What the last instance cannot take of the prompts on these ports, shown where they are encoded.
    fn at_prompts(
        &self,
        definition: &Definition<'_>,
        instance: &Instance,
        ports: &[&str],
        misfit: Misfit,
    ) -> Problem {
        let mut problem = Problem::new(Code::BadValue, misfit.message).in_stage(definition.name);
        for at in ports.iter().filter_map(|port| instance.inputs.get(*port)) {
            let node = self.params[*at].get("max_length");
            problem = match node.and_then(|node| node.origin) {
                Some(origin) => problem.at(Some(origin), "`max_length`"),
                None => problem.at(self.keys[*at], "encoded here"),
            };
            problem = problem.at(node.and_then(|node| node.via), "used here");
        }
        problem.help = misfit.help;
        problem
    }

    fn sizes(&self, instance: &Instance) -> Sizes {
        let mut sizes = instance.size_input().map(|input| self.sizes[input]).unwrap_or_default();
        let own = instance.work.own_size();
        let by = self.sizes.len();
        if let Some((param, value)) = own.frames {
            sizes.frames = Some(Given { value, by, param });
        }
        if let Some((param, value)) = own.image {
            sizes.image = Some(Given { value, by, param });
        }
        sizes
    }
}

/// What the pairs on an instance's ports are examples of, and the stages that give them; of all so far.
fn tasks<'a>(
    known: &'a [(Option<&'static str>, String)],
    instance: &'a Instance,
) -> Vec<(&'a str, (&'static str, &'a str))> {
    let inputs = instance.inputs.iter();
    let known = inputs.filter_map(|(port, input)| {
        let (task, stage) = &known[*input];
        Some((port.as_str(), ((*task)?, stage.as_str())))
    });
    known.collect()
}

/// Where the command line names the folder of the data that a parameter does not fit, if the parameter, at
/// `origin`, is not from there as well: then it is the folder that is new.
fn root_of_run(params: &Node, param: &str, origin: Option<Origin>) -> Option<Origin> {
    let root = params.get("source")?.get("root")?.origin?;
    let is_set = |origin: Origin| origin.layer == Layer::Set;
    let is_of_data = ["source", "count"].contains(&param);
    (is_of_data && is_set(root) && !origin.is_some_and(is_set)).then_some(root)
}

fn too_large(size: ItemSize) -> Option<Misfit> {
    let (frames, [height, width]) = (size.frames?, size.image?);
    let bytes = [height, width, 3].iter().try_fold(frames, |bytes, n| bytes.checked_mul(*n));
    bytes.is_none_or(|bytes| bytes > MAX_CLIP).then(|| Misfit {
        cause: Cause::Frames,
        message: format!(
            "a clip of {frames} frames of height {height} and width {width} is larger than {} GiB",
            MAX_CLIP >> 30
        ),
        help: Some("take fewer frames or smaller images".to_owned()),
    })
}
