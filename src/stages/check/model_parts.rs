//! What is on the port `model` of a stage, told before it is made: configurations, since a merge
//! and a training change weights and nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::super::Stage;
use crate::models::{LoadError, ModelRef, ModelSource};

/// The configurations of some parts of a model, by the parts' names.
#[derive(Clone, Debug, Default)]
pub struct ModelParts(Arc<BTreeMap<String, Value>>);

impl ModelParts {
    /// The configuration of a part, if the part is here.
    pub fn get(&self, part: &str) -> Option<&Value> {
        self.0.get(part)
    }

    /// The names of the parts that are here.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// These parts and one more, which takes the place of one of the same name.
    #[must_use]
    pub fn with(&self, part: &str, config: Value) -> Self {
        let mut parts = (*self.0).clone();
        parts.insert(part.to_owned(), config);
        Self(Arc::new(parts))
    }

    /// A model whose parts these take the place of, or these alone, as far as configurations go.
    pub fn source<'m>(
        &self,
        model: impl Into<Option<&'m ModelRef>>,
    ) -> Result<ModelSource, LoadError> {
        let base = model.into().map(ModelRef::resolve).transpose()?;
        let files = self
            .0
            .iter()
            .map(|(part, config)| (format!("{part}/config.json"), config.to_string().into_bytes()));
        ModelSource::of_parts(base, files.collect())
    }

    /// Tells parts apart; those that one stage gives in many cells are the same.
    pub fn id(&self) -> usize {
        if self.0.is_empty() { 0 } else { Arc::as_ptr(&self.0).addr() }
    }
}

/// The parts on the ports `model` of a pipeline's stages, found from the first stage on.
#[derive(Default)]
pub struct KnownParts {
    /// What each stage so far gives, if it gives a model that is known.
    given: Vec<Option<ModelParts>>,
    /// The same by the work, which its cells share, and by what is on its port.
    by_work: HashMap<(usize, usize), Option<ModelParts>>,
}

impl KnownParts {
    /// Adds the next stage, whose port `model` is connected to the stage `input`; gives what is on
    /// that port, or nothing if that is not known.
    pub fn add(&mut self, work: &Arc<dyn Stage>, input: Option<usize>) -> Option<ModelParts> {
        let on_port = match input {
            Some(input) => self.given[input].clone(),
            None => Some(ModelParts::default()),
        };
        let given = on_port.as_ref().filter(|_| work.gives_parts()).and_then(|parts| {
            let case = (Arc::as_ptr(work).cast::<()>().addr(), parts.id());
            self.by_work.entry(case).or_insert_with(|| work.parts(parts)).clone()
        });
        self.given.push(given);
        on_port
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stages::{LoraMerge, Pretrain, StageKind};

    fn stage<S: StageKind>(params: Value) -> Arc<dyn Stage> {
        Arc::new(serde_json::from_value::<S>(params).unwrap())
    }

    #[test]
    fn a_chain_of_trainings_and_merges_is_known_before_it_runs() {
        let mut known = KnownParts::default();
        let vae = json!({ "latent_channels": 3 });
        let pretrain = json!({ "part": "vae", "steps": 1, "config": vae });
        assert!(known.add(&stage::<Pretrain>(pretrain), None).unwrap().get("vae").is_none());
        let merge = || stage::<LoraMerge>(json!({ "model": "builtin:tiny" }));
        let on_port = known.add(&merge(), Some(0)).unwrap();
        assert_eq!((on_port.get("vae"), on_port.get("transformer")), (Some(&vae), None));
        let on_port = known.add(&merge(), Some(1)).unwrap();
        assert_eq!(on_port.get("vae"), Some(&vae));
        let tiny = ModelRef("builtin:tiny".to_owned());
        let published = tiny.resolve().unwrap().config("transformer").unwrap();
        assert_eq!(on_port.get("transformer"), Some(&published));
        let source = on_port.source(&tiny).unwrap();
        assert_eq!(source.config("vae").unwrap(), vae);
        assert!(source.config("scheduler").is_ok(), "the rest is the base's");

        let like = stage::<LoraMerge>(json!({ "model": "nowhere" }));
        known.add(&like, None);
        assert!(known.add(&merge(), Some(3)).is_none(), "a model that is not here is not known");
    }
}
