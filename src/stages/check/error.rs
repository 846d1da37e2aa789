//! What is wrong with a stage beside others, or may be, and where in the file to look.

use super::super::StageError;
use crate::models::one_of;

/// Where to look for the cause of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A parameter of the stage itself.
    Param(&'static str),
    /// The length of the prompts on these ports, which the stages say that encode them.
    Prompts(&'static [&'static str]),
    /// The number of frames, whoever gives it.
    Frames,
    /// Height and width, whoever gives them.
    Image,
}

/// Something that a stage cannot take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError {
    /// Where to look.
    pub cause: Cause,
    /// What was wanted and what was found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl CheckError {
    pub(in crate::stages) fn new(
        cause: Cause,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { cause, message: message.into(), help: Some(help.into()) }
    }
}

impl From<CheckError> for StageError {
    /// For what shows only when the stage runs.
    fn from(CheckError { message, help, .. }: CheckError) -> Self {
        Self::Failed { message, item: None, help }
    }
}

/// Refuses the first of what does not fit, in a stage that runs.
pub(in crate::stages) fn refuse(
    errors: impl IntoIterator<Item = CheckError>,
) -> Result<(), StageError> {
    errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
}

/// What may not be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckWarning {
    /// The parameter where to look, if it is one.
    pub param: Option<&'static str>,
    /// What is said behind the stage's name.
    pub message: String,
}

impl From<String> for CheckWarning {
    fn from(message: String) -> Self {
        Self { param: None, message }
    }
}

/// A choice that the model's family does not know.
pub(in crate::stages) fn not_known<T: Copy + PartialEq + serde::Serialize>(
    param: &'static str,
    asked: Option<T>,
    known: &[T],
) -> Option<CheckError> {
    let error = one_of(param, asked, known).err()?;
    let help = error.help().map(str::to_owned);
    Some(CheckError { cause: Cause::Param(param), message: error.to_string(), help })
}
