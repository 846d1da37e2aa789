//! `DreamBooth`: photographs of a few subjects, `dataset/<subject>/NN.jpg`.

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, HoldoutBy, Request, Sample,
        files::{list, pictures},
        read_image,
    },
    store::SourceReader,
};

const LAYOUT: &str = "`root` is a checkout of google/dreambooth, which holds `dataset/<subject>/`";

pub(super) struct DreamBooth;

struct Photograph {
    subject: String,
    id: String,
    path: String,
}

impl DataSet for DreamBooth {
    fn name(&self) -> &'static str {
        "dreambooth"
    }

    fn doc(&self) -> &'static str {
        "The photographs of `DreamBooth`: `dataset/<subject>/`; `set` chooses one subject."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.set", "holdout", "holdout_by"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let folders = list(sources, "dataset", LAYOUT)?;
        let subjects: Vec<&str> = folders.iter().filter_map(|f| f.strip_suffix('/')).collect();
        let chosen = match &request.source.set {
            None => subjects,
            Some(set) if subjects.contains(&set.as_str()) => vec![set.as_str()],
            Some(set) => {
                return Err(DataError::failed(format!("`dataset` has no subject `{set}`"))
                    .with_help(format!("the subjects are: {}", subjects.join(", "))));
            }
        };
        if request.holdout_by == HoldoutBy::Subject && chosen.len() < 2 {
            let message = "`holdout_by = \"subject\"` needs two subjects, but there is one";
            return Err(DataError::failed(message)
                .with_help("take `set` out of `source`, or keep photographs with \"image\""));
        }
        let mut files = Vec::new();
        for subject in chosen {
            let names = pictures(sources, &format!("dataset/{subject}"), LAYOUT)?;
            files.extend(names.into_iter().map(|name| {
                let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem);
                let (id, path) = (format!("{subject}-{stem}"), format!("dataset/{subject}/{name}"));
                Photograph { subject: subject.to_owned(), id, path }
            }));
        }
        let files = match request.holdout_by {
            HoldoutBy::Image => request.part(files),
            HoldoutBy::Subject => request.part_of_groups(files, |file| &file.subject),
        };
        Ok(Box::new(Listing::new(
            files,
            |file| [&file.id, &file.path],
            move |file| {
                let image = read_image(sources, &file.path)?;
                Ok(Sample { id: file.id.clone(), image, ..Sample::default() })
            },
        )?))
    }
}
