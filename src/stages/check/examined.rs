//! Whether the files of models and adapters are what stages need, told before anything runs: configurations
//! and headers are looked at, each once however many stages name it, and no tensor is read.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc};

use super::{super::Stage, AdapterFile, Cause, Misfit, ModelParts};
use crate::models::{Flaw, LoadError, ModelRef, ModelSource, Shapes, lora};

/// A model by its name, and what takes the place of its parts.
type Used = (String, usize);

/// An adapter: the root of its path, the path, and the model it is for, if that is stated.
type AdapterUse = (String, String, Option<Used>);

/// What was found of the models and adapters of a pipeline so far. What takes the place of parts must live as
/// long: it is told apart by where it is.
#[derive(Default)]
pub struct Examined {
    sources: RefCell<HashMap<Used, Opened>>,
    parts: RefCell<HashMap<(Used, &'static str), Option<Flaw>>>,
    shapes: RefCell<HashMap<Used, Option<Rc<Shapes>>>>,
    adapters: RefCell<HashMap<AdapterUse, Option<Flaw>>>,
}

/// A model as stages use it.
#[derive(Clone)]
enum Opened {
    Here(Rc<ModelSource>),
    /// It may be on another machine, which is told of elsewhere.
    Elsewhere,
    Wrong(Flaw),
}

impl Opened {
    fn find(model: &ModelRef, on_port: &ModelParts) -> Self {
        match on_port.source(model) {
            Ok(source) => Self::Here(Rc::new(source)),
            Err(_) if model.is_elsewhere() => Self::Elsewhere,
            Err(error) => Self::Wrong(error.into()),
        }
    }
}

impl Examined {
    /// What is wrong with the parts of the model that `param` names, those that come from the port `model`
    /// apart; nothing is said where it is not known which those are.
    pub(in crate::stages) fn model(
        &self,
        (param, model): (&'static str, &ModelRef),
        parts: &[&'static str],
        on_port: Option<&ModelParts>,
    ) -> Vec<Misfit> {
        let Some(on_port) = on_port.filter(|_| !model.is_builtin()) else { return Vec::new() };
        let used = (model.0.clone(), on_port.id());
        let opened = self.opened(model, on_port, &used);
        let flaws: Vec<Flaw> = match opened {
            Opened::Elsewhere => Vec::new(),
            Opened::Wrong(flaw) => vec![flaw],
            Opened::Here(source) => {
                let own = |part: &&&str| on_port.get(folder(part)).is_none();
                let flaw = |part: &&'static str| self.part(model, &source, &used, part);
                parts.iter().filter(own).filter_map(flaw).collect()
            }
        };
        misfits(Cause::Param(param), flaws)
    }

    /// What is wrong with adapter files below `root`, beside the model that they are for, if that is known.
    pub(in crate::stages) fn adapters(
        &self,
        root: &Path,
        files: &[String],
        model: Option<&ModelRef>,
        on_port: Option<&ModelParts>,
    ) -> Vec<Misfit> {
        // A folder that is not there is told of elsewhere.
        if !root.is_dir() {
            return Vec::new();
        }
        let model = model.zip(on_port);
        let used = model.map(|(model, on_port)| (model.0.clone(), on_port.id()));
        let flaws = files.iter().filter_map(|file| {
            let case = (root.display().to_string(), file.clone(), used.clone());
            let flaw = || {
                let shapes = model.and_then(|(model, on_port)| self.shapes(model, on_port));
                flaw_of_adapter(root, file, shapes.as_deref())
            };
            self.adapters.borrow_mut().entry(case).or_insert_with(flaw).clone()
        });
        misfits(Cause::Param("files"), flaws.collect())
    }

    /// What is wrong with adapter files that reach a stage through its ports, beside its model, if both are known;
    /// each with the file. What is wrong with them alone is told of the stage that names them.
    pub fn adapters_on_ports<'f>(
        &self,
        work: &dyn Stage,
        files: &'f [AdapterFile],
        on_port: Option<&ModelParts>,
    ) -> Vec<(&'f AdapterFile, Misfit)> {
        let (Some((model, parts)), Some(on_port)) = (work.weights(), on_port) else {
            return Vec::new();
        };
        if files.is_empty() || !parts.contains(&"transformer") {
            return Vec::new();
        }
        let found = files.iter().filter_map(|file| {
            let AdapterFile { stage, root, file: name } = file;
            let alone = || self.adapters(root, std::slice::from_ref(name), None, None);
            let flaws = |model, on_port| {
                self.adapters(root, std::slice::from_ref(name), Some(model), Some(on_port))
            };
            let Misfit { message, help, .. } = flaws(model, on_port).pop()?;
            let misfit = Misfit {
                cause: Cause::Param("inputs"),
                message: format!(
                    "{message}; `{stage}` names the file, and the model is `{}`",
                    model.0
                ),
                help,
            };
            alone().is_empty().then_some((file, misfit))
        });
        found.collect()
    }

    fn opened(&self, model: &ModelRef, on_port: &ModelParts, used: &Used) -> Opened {
        let find = || Opened::find(model, on_port);
        self.sources.borrow_mut().entry(used.clone()).or_insert_with(find).clone()
    }

    fn part(
        &self,
        model: &ModelRef,
        source: &ModelSource,
        used: &Used,
        part: &'static str,
    ) -> Option<Flaw> {
        let flaw = || {
            // Of a model of the hub, only some parts may have been fetched.
            let absent = model.repository().is_some()
                && matches!(source.check(&[part]), Err(LoadError::Missing { .. }));
            if absent { None } else { source.flaw(part) }
        };
        self.parts.borrow_mut().entry((used.clone(), part)).or_insert_with(flaw).clone()
    }

    /// The tensors of a model's transformer, if they are known.
    fn shapes(&self, model: &ModelRef, on_port: &ModelParts) -> Option<Rc<Shapes>> {
        let used = (model.0.clone(), on_port.id());
        let opened = self.opened(model, on_port, &used);
        let wanted = || match opened {
            Opened::Here(source) => source.wanted("transformer").ok().map(Rc::new),
            Opened::Elsewhere | Opened::Wrong(_) => None,
        };
        self.shapes.borrow_mut().entry(used).or_insert_with(wanted).clone()
    }
}

/// The folder of a part, or of a file that stands for one.
fn folder(part: &str) -> &str {
    part.split('/').next().unwrap_or(part)
}

/// Each flaw once: one file can spoil several parts.
fn misfits(cause: Cause, flaws: Vec<Flaw>) -> Vec<Misfit> {
    let mut misfits: Vec<Misfit> = Vec::new();
    for Flaw { message, help } in flaws {
        let misfit = Misfit { cause, message, help };
        if !misfits.contains(&misfit) {
            misfits.push(misfit);
        }
    }
    misfits
}

fn flaw_of_adapter(root: &Path, file: &str, model: Option<&Shapes>) -> Option<Flaw> {
    let flaw = |message: String, help: &str| Some(Flaw { message, help: Some(help.to_owned()) });
    if let Some(refused) = lora::refused_name(file) {
        return flaw(format!("`{file}` {refused}"), "save the adapter as safetensors");
    }
    let path = root.join(file);
    if !path.exists() {
        let message = format!("there is no file `{file}` in `{}`", root.display());
        return flaw(message, "name files as they lie below `root`");
    }
    lora::check_outline(&path, file, model).err().map(Flaw::from)
}
