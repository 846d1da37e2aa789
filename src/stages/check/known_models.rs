//! The models of a pipeline, each of which is read once.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{ModelParts, model_facts::Facts};
use crate::models::{
    ModelRef, PartLook,
    lora::Statement,
    t5::{T5Tokenizer, TokenizerFiles},
};

/// A model, if one is named, and what takes the place of its parts.
type WithParts = (Option<ModelRef>, usize);

/// A part of a model, by name.
type PartOf = (ModelRef, String);

/// The models of a pipeline and the files of its adapters, each opened once and as far as its
/// configuration can be read.
#[derive(Default)]
pub struct KnownModels {
    facts: RefCell<HashMap<WithParts, Option<Rc<Facts>>>>,
    looks: RefCell<HashMap<PartOf, Option<Rc<PartLook>>>>,
    tokenizers: RefCell<HashMap<ModelRef, Option<Rc<T5Tokenizer>>>>,
    adapters: RefCell<HashMap<PathBuf, Option<Rc<Statement>>>>,
}

impl KnownModels {
    /// A look at a part of a model, if it is here.
    pub(in crate::stages) fn look(&self, model: &ModelRef, part: &str) -> Option<Rc<PartLook>> {
        let case = (model.clone(), part.to_owned());
        let look = || Some(Rc::new(model.resolve().ok()?.look(part)?));
        self.looks.borrow_mut().entry(case).or_insert_with(look).clone()
    }

    /// A model's tokenizer, if it can be read.
    pub(in crate::stages) fn tokenizer(&self, model: &ModelRef) -> Option<Rc<T5Tokenizer>> {
        let read = || {
            let source = model.resolve().ok()?;
            let file = source.tokenizer_file().ok()?;
            let bytes = source.read(file).ok()?;
            T5Tokenizer::new(TokenizerFiles::by_name(file, &bytes)).ok().map(Rc::new)
        };
        self.tokenizers.borrow_mut().entry(model.clone()).or_insert_with(read).clone()
    }

    /// What an adapter file states of itself. What cannot be read is told of elsewhere.
    pub(in crate::stages) fn adapter(&self, adapter: &Path) -> Option<Rc<Statement>> {
        let read = || Statement::read(adapter).ok().map(Rc::new);
        self.adapters.borrow_mut().entry(adapter.to_owned()).or_insert_with(read).clone()
    }

    /// The class of a model's transformer, if its configuration is here.
    pub(in crate::stages) fn class(&self, model: &ModelRef) -> Option<&'static str> {
        Some(self.facts(model, &ModelParts::default())?.family.class_name())
    }

    /// `parts` must live as long as what is known: they are told apart by where they are.
    pub(in crate::stages) fn facts<'m>(
        &self,
        model: impl Into<Option<&'m ModelRef>>,
        parts: &ModelParts,
    ) -> Option<Rc<Facts>> {
        let model = model.into();
        let case = (model.cloned(), parts.id());
        if let Some(known) = self.facts.borrow().get(&case) {
            return known.clone();
        }
        let facts = parts.source(model).ok().and_then(|source| Facts::read(&source)).map(Rc::new);
        self.facts.borrow_mut().insert(case, facts.clone());
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_there_is_not_known() {
        let (models, nowhere) = (KnownModels::default(), ModelRef("nowhere".into()));
        assert!(models.facts(&nowhere, &ModelParts::default()).is_none());
    }
}
