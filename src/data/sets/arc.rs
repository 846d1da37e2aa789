//! ARC-AGI and `ConceptARC`: the examples of one task.

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, ParamError, Request, Sample,
        arc::{ArcGrids, Task, read_task, render},
        resize,
        source::TaskRef,
    },
    store::SourceReader,
};

pub(super) struct Arc;

impl DataSet for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn doc(&self) -> &'static str {
        "ARC-AGI or `ConceptARC` task files."
    }

    fn params(&self) -> &'static [&'static str] {
        &["source.set", "source.task", "grey_rule"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Grids]
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let mut problems = Vec::new();
        if request.source.set.is_none() || request.source.task.is_none() {
            problems.push(
                ParamError::new("source", "ARC data needs `set` and `task`")
                    .help("for example set = \"evaluation\", task = \"00576224\" or task = 0"),
            );
        }
        problems.extend(square(request));
        problems
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let set = request.source.set.as_deref().unwrap_or_default();
        let wanted = request.source.task.clone().unwrap_or(TaskRef::Index(0));
        let (name, task) = read_task(sources, set, &wanted)?;
        let is_grey = request.grey_rule.applies(set, &name);
        let task = if is_grey { task.with_grey_rule() } else { task };
        examples(name, task, request)
    }
}

/// Whether the drawing has the shape of a canvas.
pub(super) fn square(request: &Request) -> Vec<ParamError> {
    if request.size[0] == request.size[1] {
        return Vec::new();
    }
    let message = format!("an ARC canvas is square, but `size` is {:?}", request.size);
    vec![
        ParamError::new("size", message)
            .help("give two equal sides; the reference uses [480, 480]"),
    ]
}

/// The examples of a task as drawings: its demonstrations or its questions.
pub(super) fn examples<'a>(
    name: String,
    task: Task,
    request: &'a Request,
) -> Result<Box<dyn Images + 'a>, DataError> {
    let cell = task.cell();
    let examples = if request.is_train() { task.train } else { task.test };
    let split = request.split.name();
    let id = |index: usize| format!("{name}-{split}-{index}");
    let examples: Vec<_> = (0..).map(id).zip(examples).collect();
    Ok(Box::new(Listing::new(
        examples,
        |(id, _)| [id, id],
        move |(id, example)| {
            let draw = |grid| resize::resize_image(&render(grid, cell), request.size);
            Ok(Sample {
                id: id.clone(),
                image: draw(&example.input),
                answer: Some(draw(&example.output)),
                arc: Some(ArcGrids {
                    task: name.clone(),
                    input: example.input.clone(),
                    output: example.output.clone(),
                    cell,
                }),
                ..Sample::default()
            })
        },
    )?))
}
