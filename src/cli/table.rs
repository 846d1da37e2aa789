//! `pipe table`.

use super::{
    error::CliError,
    exit,
    session::{PipelineArgs, Session},
};
use crate::{
    config::Pipeline,
    exec::ExecError,
    plan::{self, PlanOptions},
    report::{
        compute,
        results::{Outputs, tables},
        table::{Format, ResultTable, render},
    },
};

/// Print the result tables from the cache; nothing is run
#[derive(Debug, clap::Args)]
pub(super) struct TableArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The form of the tables
    #[arg(long, short, value_enum, default_value_t)]
    format: Format,
    /// Instead of scores, what the stages took: time of training and sampling, memory, device
    ///
    /// Times are wall time, waiting included, but for `device s`. Memory is the most that the whole
    /// process held while a stage ran, or of a GPU what was taken of the whole card, by stages
    /// beside it as well.
    #[arg(long)]
    compute: bool,
}

pub(super) fn table(args: &TableArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    if pipeline.tables.is_empty() && !args.compute {
        let message = format!("`{}` has no tables", args.pipeline.file.display());
        return Err(CliError::usage(message).with_help("add a `[tables.<name>]`"));
    }
    let store = session.store()?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let tables = if args.compute {
        compute::tables(&plan)
    } else {
        tables(&pipeline, &Outputs::of_plan(&plan), &store)?
    };
    session.print(&render(&tables, args.format))?;
    if tables.iter().any(ResultTable::has_values) {
        return Ok(());
    }
    // Without the data or the weights it cannot be told which results are those of the file.
    let lacks = ExecError::Lacks(plan.lacks());
    if !lacks.parts().is_empty() {
        return Err(lacks.into());
    }
    let run = args.pipeline.command("run");
    session.talk(&format!("nothing is computed yet: `{run}` computes it"));
    Err(CliError::Told(exit::STAGE_FAILED))
}

/// The tables as far as the cache knows them.
pub(super) fn from_cache(
    pipeline: &Pipeline,
    session: &Session,
) -> Result<Vec<ResultTable>, CliError> {
    let store = session.store()?;
    let plan = plan::build(pipeline, &store, &PlanOptions::default())?;
    Ok(tables(pipeline, &Outputs::of_plan(&plan), &store)?)
}
