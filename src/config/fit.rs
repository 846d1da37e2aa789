//! Whether the stages of a file fit together: sizes and settings that a stage would fail on after
//! the work of all stages before it, shown where they are written.

use std::{collections::HashSet, rc::Rc, sync::Arc};

use super::{
    Instance,
    error::{Code, Problem, Problems},
    origin::{Layer, Origin},
    references::has_reference,
    stages::Definition,
    value::Node,
};
use crate::{
    models::TextFormat,
    stages::{
        Cause, Examined, IdleParam, ItemSize, KnownData, KnownModels, KnownParts, Misfit,
        Surroundings, Trainings,
    },
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

/// What is known of the instances so far.
pub(super) struct Fits {
    models: KnownModels,
    data: KnownData,
    /// What was seen of files of weights, if they are looked at.
    examined: Option<Examined>,
    tasks: Vec<(Option<&'static str>, String)>,
    sizes: Vec<Sizes>,
    trained: Vec<Option<Rc<Trainings>>>,
    parts: KnownParts,
    text_formats: Vec<Option<TextFormat>>,
    params: Vec<Arc<Node>>,
    warnings: Vec<String>,
}

impl Fits {
    /// Nothing is known yet; `look` says whether data and the files of models are looked at.
    pub fn new(look: bool) -> Self {
        Self {
            models: KnownModels::default(),
            data: KnownData::new(look),
            examined: look.then(Examined::default),
            tasks: Vec::new(),
            sizes: Vec::new(),
            trained: Vec::new(),
            parts: KnownParts::default(),
            text_formats: Vec::new(),
            params: Vec::new(),
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
        let sizes = self.sizes(instance);
        self.sizes.push(sizes);
        let ports: Vec<&str> = instance.inputs.keys().map(String::as_str).collect();
        let size = ItemSize {
            frames: sizes.frames.map(|given| given.value),
            image: sizes.image.map(|given| given.value),
        };
        self.tasks.push((instance.work.task(), instance.stage.clone()));
        let pairs = instance.inputs.get("pairs").map(|input| &self.tasks[*input]);
        let task = pairs.and_then(|(task, stage)| Some(((*task)?, stage.as_str())));
        let trained = instance.inputs.iter();
        let trained: Vec<_> = trained
            .filter_map(|(port, input)| Some((port.as_str(), self.trained[*input].clone()?)))
            .collect();
        let parts = self.parts.add(&instance.work, instance.inputs.get("model").copied());
        let texts = self.texts(instance);
        let around = Surroundings {
            size,
            ports: &ports,
            task,
            stage: &instance.stage,
            trained: &trained,
            texts: &texts,
            parts: parts.as_ref(),
            models: &self.models,
            data: &self.data,
        };
        self.trained.push(instance.work.trainings(&around).map(Rc::new));
        let misfits = instance.work.misfits(&around);
        let flaws = self.examined.as_ref();
        let flaws = flaws.map(|examined| instance.work.flaws(examined, parts.as_ref()));
        let (cautions, format) =
            (instance.work.cautions(&around), instance.work.text_format(&around));
        self.text_formats.push(format);
        self.warn(instance, cautions);
        for misfit in misfits.into_iter().chain(too_large(size)).chain(flaws.into_iter().flatten())
        {
            problems.add(self.problem(definition, sizes, misfit));
        }
    }

    /// How the prompts on an instance's ports are encoded.
    fn texts<'a>(&self, instance: &'a Instance) -> Vec<(&'a str, TextFormat)> {
        let known =
            |(port, input): (&'a String, &usize)| Some((port.as_str(), self.text_formats[*input]?));
        instance.inputs.iter().filter_map(known).collect()
    }

    fn warn(&mut self, instance: &Instance, cautions: Vec<String>) {
        for caution in cautions {
            let warning = format!("`{}` {caution}", instance.stage);
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// What the last instance cannot take, shown where it is written.
    fn problem(&self, definition: &Definition<'_>, sizes: Sizes, misfit: Misfit) -> Problem {
        let index = self.sizes.len() - 1;
        let (by, param) = match misfit.cause {
            Cause::Param(param) => (index, param),
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

/// Reports parameters that the file sets and that do nothing, unless what makes them so changes
/// from cell to cell or was set for this run only.
pub(super) fn check_idle(definition: &Definition<'_>, idle: &[IdleParam], problems: &mut Problems) {
    let mut reported = HashSet::new();
    for IdleParam { param, by, serves } in idle {
        let Some(key) = key_of(&definition.table, param) else { continue };
        let decider = nearest(&definition.table, by);
        if decider.is_some_and(is_variable) || !reported.insert(param) {
            continue;
        }
        problems.add(
            Problem::new(Code::Unused, format!("`{param}` does nothing here"))
                .in_stage(definition.name)
                .at(Some(key), "changes nothing")
                .help(format!("take it out; it is read where {serves}")),
        );
    }
}

/// Whether a value can be another one in another run or cell of the same file.
fn is_variable(node: &Node) -> bool {
    let mut variable = false;
    node.walk(&mut Vec::new(), &mut |_, node| {
        let passing = node.origin.is_some_and(|origin| origin.layer > super::Layer::File);
        variable |= passing || node.as_str().is_some_and(has_reference);
    });
    variable
}

/// The value of a path, or of as much of it as the file writes out: `source = "${data}"` for
/// `source.source`. None if a default stands there.
fn nearest<'a>(params: &'a Node, path: &str) -> Option<&'a Node> {
    let mut node = params;
    for key in path.split('.') {
        if node.as_table().is_none() {
            break;
        }
        node = node.get(key)?;
    }
    Some(node)
}

fn find<'a>(params: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(params, |node, key| node.get(key))
}

/// Where the key of a parameter is written, if it is.
fn key_of(params: &Node, path: &str) -> Option<Origin> {
    let (above, key) =
        path.rsplit_once('.').map_or((None, path), |(above, key)| (Some(above), key));
    let table = above.map_or(Some(params), |above| find(params, above))?.as_table()?;
    let entry = table.get(key)?;
    entry.key.or(entry.node.origin)
}
