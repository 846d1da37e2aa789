//! COCO 2017 as a data set.

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Request,
        coco::{Index, Wanted, stem},
    },
    store::SourceReader,
};

pub(super) struct Coco;

impl DataSet for Coco {
    fn name(&self) -> &'static str {
        "coco"
    }

    fn doc(&self) -> &'static str {
        "COCO 2017 in its official layout."
    }

    fn params(&self) -> &'static [&'static str] {
        &["class", "min_share", "crowd"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Persons, Knowledge::Mask, Knowledge::Scene]
    }

    fn revision(&self) -> u32 {
        // 1: an instance whose annotation states no `area` has that of its pixels.
        1
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let wanted = Wanted {
            train: request.is_train(),
            size: request.size,
            min_share: request.min_share,
            crowd: request.crowd,
            visibility: request.pose.visibility,
        };
        let index = match request.task.needs() {
            Knowledge::Mask => Index::instances(sources, wanted, &request.class)?,
            Knowledge::Scene => Index::scenes(sources, wanted)?,
            Knowledge::Persons => Index::persons(sources, wanted)?,
            _ => Index::images(sources, wanted.train)?,
        };
        Ok(Box::new(Listing::new(
            index.files(),
            |(_, file)| [stem(file), file],
            move |(id, _)| index.sample(sources, *id),
        )?))
    }
}
