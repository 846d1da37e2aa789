//! `DreamBooth`: photographs of a few subjects, `dataset/<subject>/NN.jpg`.

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, HoldoutBy, Request, Sample,
        files::{is_any_picture, list, pictures},
        folder::no_pictures_below,
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
        &["source.set", "holdout", "holdout_seed", "holdout_by"]
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
        if let Some(name) = folders.iter().find(|name| is_any_picture(name)) {
            let message = format!("`dataset/{name}` is a picture beside the folders of subjects");
            return Err(DataError::failed(message).with_help(LAYOUT));
        }
        let subjects = folders.iter().filter(|name| !name.starts_with('.'));
        let subjects: Vec<&str> = subjects.filter_map(|name| name.strip_suffix('/')).collect();
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
            let folder = format!("dataset/{subject}");
            let names = pictures(sources, &folder, LAYOUT)?;
            no_pictures_below(sources, &folder)?;
            if names.is_empty() {
                let message = format!("`{folder}` holds no photographs");
                return Err(DataError::failed(message)
                    .with_help("add those of the subject, or move the folder away"));
            }
            files.extend(names.into_iter().map(|name| {
                let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem);
                let (id, path) = (format!("{subject}-{stem}"), format!("dataset/{subject}/{name}"));
                Photograph { subject: subject.to_owned(), id, path }
            }));
        }
        let files = match request.holdout_by {
            HoldoutBy::Image => request.part(files)?,
            HoldoutBy::Subject => request.part_of_groups(files, |file| &file.subject)?,
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
