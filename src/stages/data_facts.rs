//! Whether data holds what is asked of it, told before anything runs.

use std::{cell::RefCell, collections::HashMap};

use super::{Cause, Misfit};
use crate::{
    data::{DataError, Request},
    store::SourceReader,
};

/// What is known of the data of a pipeline: each part is looked at once, and only if asked for, since
/// the annotations of a large data set take seconds to read.
#[derive(Default)]
pub struct KnownData {
    look: bool,
    counts: RefCell<HashMap<String, Result<Option<usize>, Misfit>>>,
}

impl KnownData {
    /// Looks at the data where `look`, else knows nothing.
    pub fn new(look: bool) -> Self {
        Self { look, counts: RefCell::default() }
    }

    /// What the data of a request does not give, if it is there.
    pub(super) fn misfit(&self, request: &Request) -> Option<Misfit> {
        let root = request.source.root.as_deref().unwrap_or_default();
        if !self.look || request.source.source.is_on_disk() && !std::path::Path::new(root).is_dir()
        {
            return None;
        }
        // All but which of the images are taken, and how they are drawn, may decide their number.
        let same = Request { count: None, subset: 0, size: [0; 2], seed: None, ..request.clone() };
        let key = format!("{same:?}");
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(key).or_insert_with(|| {
            available(request, root).map_err(|error| misfit(Cause::Param("source"), error))
        });
        match count {
            Ok(count) => {
                request.choose(*count).err().map(|error| misfit(Cause::Param("count"), error))
            }
            Err(misfit) => Some(misfit.clone()),
        }
    }
}

/// How many images fit a request; none if they have no end.
fn available(request: &Request, root: &str) -> Result<Option<usize>, DataError> {
    let sources = SourceReader::new(std::path::Path::new(root));
    let images = request.source.source.open(request, &sources)?;
    Ok(request.task.count(&*images))
}

fn misfit(cause: Cause, error: DataError) -> Misfit {
    let message = error.to_string();
    let (DataError::Failed { help, .. } | DataError::Environment { help, .. }) = error;
    Misfit { cause, message, help }
}
