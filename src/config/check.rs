//! Whether the stages of a file fit together: sizes and settings that a stage would fail on after
//! the work of all stages before it, shown where they are written.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    Instance,
    makers::Makers,
    origin::{Layer, Origin},
    problem::{Code, Problem, Problems},
    stages::Definition,
    value::Node,
};
use crate::stages::{
    AdapterFile, Cause, CheckError, CheckWarning, EncodedText, Examined, ItemSize, KnownAdapters,
    KnownData, KnownModels, KnownParts, Lineage, Mismatch, ModelParts, SamePictures, Surroundings,
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

impl Sizes {
    fn of_items(self) -> ItemSize {
        ItemSize {
            frames: self.frames.map(|given| given.value),
            image: self.image.map(|given| given.value),
        }
    }
}

/// What is known of one instance.
struct Known {
    stage: String,
    task: Option<&'static str>,
    sizes: Sizes,
    /// How many items it gives, where its parameters say so.
    items: Option<usize>,
    /// With how many adapters along one training its predictions are made, where that is known.
    checkpoints: Option<usize>,
    trained: Option<Rc<Trainings>>,
    lineage: Option<Rc<Lineage>>,
    encoded: Option<EncodedText>,
    params: Arc<Node>,
    /// Where its stage's name is written.
    key: Option<Origin>,
}

/// Looks at the instances of a pipeline one after the other, each beside those before it.
pub(super) struct Checker {
    models: KnownModels,
    data: KnownData,
    /// The stages that are to run.
    to_run: HashSet<String>,
    /// What was seen of files of weights, if they are looked at.
    examined: Option<Examined>,
    /// The instances so far, by their places.
    known: Vec<Known>,
    makers: Makers,
    parts: KnownParts,
    adapters: KnownAdapters,
    warnings: Vec<String>,
}

impl Checker {
    /// Nothing is known yet; `look` says whether data and the files of models are looked at,
    /// `to_run` which stages are to run.
    pub fn new(look: bool, to_run: HashSet<String>) -> Self {
        Self {
            models: KnownModels::default(),
            data: KnownData::new(look),
            to_run,
            examined: look.then(Examined::default),
            known: Vec::new(),
            makers: Makers::default(),
            parts: KnownParts::default(),
            adapters: KnownAdapters::default(),
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
        let work = &instance.work;
        let inputs = instance.inputs.values().copied();
        let adapters = self.adapters.add((&instance.stage, &**work), instance.output(), inputs);
        let parts = self.parts.add(work, instance.inputs.get("model").copied());
        let twin = self.makers.first(instance, self.known.len());
        let sizes = self.sizes(instance);
        let around = self.surroundings(instance, sizes.of_items(), twin, parts.as_ref());
        let known = Known {
            stage: instance.stage.clone(),
            task: work.task(),
            sizes,
            items: work.num_items(),
            checkpoints: self.checkpoints_of(instance),
            trained: work.trainings(&around).map(Rc::new),
            lineage: work.lineage(&around).map(Rc::new),
            encoded: work.encoded_text(&around),
            params,
            key: definition.key,
        };
        let errors = work.check(&around).into_iter().chain(too_large(around.size));
        let errors: Vec<_> =
            errors.chain(self.check_files(instance, &adapters, around.parts)).collect();
        let (mismatches, warnings) = (work.mismatches(&around), work.warnings(&around));
        self.known.push(known);
        self.warn(instance, warnings);
        for error in errors {
            problems.add(self.problem(definition, instance, error).in_cell(&instance.cell));
        }
        for mismatch in mismatches {
            self.mismatch(definition, instance, mismatch, problems);
        }
    }

    /// What the next instance stands beside.
    fn surroundings<'a>(
        &'a self,
        instance: &'a Instance,
        size: ItemSize,
        twin: usize,
        parts: Option<&'a ModelParts>,
    ) -> Surroundings<'a> {
        Surroundings {
            size,
            ports: instance.inputs.keys().map(String::as_str).collect(),
            items: self.on_ports(instance, |known| known.items),
            checkpoints: self.on_ports(instance, |known| known.checkpoints),
            tasks: self.on_ports(instance, |known| Some((known.task?, known.stage.as_str()))),
            is_to_run: self.to_run.contains(&instance.stage),
            stage: &instance.stage,
            index: self.known.len(),
            twin,
            lineages: self.on_ports(instance, |known| known.lineage.clone()),
            trained: self.on_ports(instance, |known| known.trained.clone()),
            texts: self.on_ports(instance, |known| known.encoded),
            parts,
            models: &self.models,
            data: &self.data,
        }
    }

    /// The ports of an instance of whose stages something is known, and that.
    fn on_ports<'a, T>(
        &'a self,
        instance: &'a Instance,
        what: impl Fn(&'a Known) -> Option<T>,
    ) -> Vec<(&'a str, T)> {
        let inputs = instance.inputs.iter();
        let known = inputs.filter_map(|(port, at)| Some((port.as_str(), what(&self.known[*at])?)));
        known.collect()
    }

    /// What is wrong with the files of an instance's model and of the adapters it names or is
    /// given, if they are looked at.
    fn check_files(
        &self,
        instance: &Instance,
        behind: &[AdapterFile],
        parts: Option<&ModelParts>,
    ) -> Vec<CheckError> {
        let (work, Some(examined)) = (&*instance.work, &self.examined) else { return Vec::new() };
        let mut errors = work.check_files(examined, parts);
        let on_ports = examined.adapters_on_ports(work, behind, parts);
        errors.extend(on_ports.into_iter().map(|(_, error)| error));
        errors
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
        let own = self.known.len() - 1;
        if places.iter().all(|(stage, _)| *stage != own) {
            problem = problem.at(definition.key, "here");
        }
        for (stage, label) in places {
            let Known { params, key, .. } = &self.known[stage];
            let origin = params.get("model").and_then(|node| node.origin).or(*key);
            problem = problem.at(origin, label);
        }
        problems.add(problem);
    }

    /// Two instances take parts of one source that is divided otherwise for each.
    pub fn divided_otherwise(&self, instances: &[Instance], test: usize, train: usize) -> Problem {
        let places = [test, train].into_iter().flat_map(|at| {
            ["holdout", "holdout_seed", "holdout_by"]
                .map(|param| (at, param, self.known[at].params.get(param)))
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

    /// With how many adapters the predictions of an instance are made: as many as it is given, or
    /// as those were made with that it works on.
    fn checkpoints_of(&self, instance: &Instance) -> Option<usize> {
        let input = |port: &str| instance.inputs.get(port);
        if let Some(port) = instance.work.crossed_port() {
            return input(port).map_or(Some(1), |adapters| self.known[*adapters].items);
        }
        let mapped = instance.work.mapped_port().unwrap_or("predictions");
        input(mapped).and_then(|predictions| self.known[*predictions].checkpoints)
    }

    /// What to say of pictures that are asked about and learnt from, where data was looked at: once
    /// for every two stages.
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

    fn warn(&mut self, instance: &Instance, warnings: Vec<CheckWarning>) {
        for CheckWarning { param, message } in warnings {
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
        error: CheckError,
    ) -> Problem {
        let index = self.known.len() - 1;
        let sizes = self.known[index].sizes;
        let (by, param) = match error.cause {
            Cause::Param(param) => (index, param),
            Cause::Prompts(ports) => return self.at_prompts(definition, instance, ports, error),
            Cause::Frames => sizes.frames.map_or((index, "frames"), |g| (g.by, g.param)),
            Cause::Image => sizes.image.map_or((index, "size"), |g| (g.by, g.param)),
        };
        let params = &self.known[by].params;
        let node = params.get(param);
        let origin = node.and_then(|node| node.origin).or(definition.key);
        let mut problem = Problem::new(Code::BadValue, error.message)
            .in_stage(definition.name)
            .at(root_of_run(params, param, origin), "the data")
            .at(origin, format!("`{param}`"))
            .at(node.and_then(|node| node.via), "used here");
        problem.help = error.help;
        problem
    }

    /// What the last instance cannot take of the prompts on these ports, shown where they are
    /// encoded.
    fn at_prompts(
        &self,
        definition: &Definition<'_>,
        instance: &Instance,
        ports: &[&str],
        error: CheckError,
    ) -> Problem {
        let mut problem = Problem::new(Code::BadValue, error.message).in_stage(definition.name);
        for at in ports.iter().filter_map(|port| instance.inputs.get(*port)) {
            let Known { params, key, .. } = &self.known[*at];
            let node = params.get("max_length");
            problem = match node.and_then(|node| node.origin) {
                Some(origin) => problem.at(Some(origin), "`max_length`"),
                None => problem.at(*key, "encoded here"),
            };
            problem = problem.at(node.and_then(|node| node.via), "used here");
        }
        problem.help = error.help;
        problem
    }

    fn sizes(&self, instance: &Instance) -> Sizes {
        let mut sizes =
            instance.size_input().map(|input| self.known[input].sizes).unwrap_or_default();
        let own = instance.work.own_size();
        let by = self.known.len();
        if let Some((param, value)) = own.frames {
            sizes.frames = Some(Given { value, by, param });
        }
        if let Some((param, value)) = own.image {
            sizes.image = Some(Given { value, by, param });
        }
        sizes
    }
}

/// Where the command line names the folder of the data that a parameter does not fit, if the
/// parameter, at `origin`, is not from there as well: then it is the folder that is new.
fn root_of_run(params: &Node, param: &str, origin: Option<Origin>) -> Option<Origin> {
    let root = params.get("source")?.get("root")?.origin?;
    let is_set = |origin: Origin| origin.layer == Layer::Set;
    let is_of_data = ["source", "count"].contains(&param);
    (is_of_data && is_set(root) && !origin.is_some_and(is_set)).then_some(root)
}

fn too_large(size: ItemSize) -> Option<CheckError> {
    let (frames, [height, width]) = (size.frames?, size.image?);
    let bytes = [height, width, 3].iter().try_fold(frames, |bytes, n| bytes.checked_mul(*n));
    bytes.is_none_or(|bytes| bytes > MAX_CLIP).then(|| CheckError {
        cause: Cause::Frames,
        message: format!(
            "a clip of {frames} frames of height {height} and width {width} is larger than {} GiB",
            MAX_CLIP >> 30
        ),
        help: Some("take fewer frames or smaller images".to_owned()),
    })
}
