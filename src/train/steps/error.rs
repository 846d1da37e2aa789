//! Why a training did not finish.

use std::fmt;

use crate::models::LoadError;

/// Where the arithmetic of a training left the finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Diverged {
    /// `the loss`, `the gradient norm`, or a parameter.
    pub what: String,
    /// From 1.
    pub step: usize,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The last loss that was a finite number.
    pub last_loss: Option<f32>,
    /// The step of the last state that is kept, if a shorter training goes on from there.
    pub kept: Option<usize>,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, step, learning_rate, last_loss, .. } = self;
        write!(
            f,
            "{what} is not a finite number at step {step} (learning rate {learning_rate:e})"
        )?;
        last_loss.map_or(Ok(()), |loss| write!(f, "; the last loss that was is {loss:.4}"))
    }
}

/// Why training did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Asked to stop; the state is saved.
    #[error("interrupted")]
    Stopped,
    /// The arithmetic left the finite numbers.
    #[error("{0}")]
    NotFinite(Diverged),
    /// A checkpoint could not be read or written.
    #[error("cannot access the checkpoints: {0}")]
    Checkpoint(#[from] std::io::Error),
    /// The model could not be built.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An example could not be read.
    #[error("{0}")]
    Example(Box<dyn std::error::Error + Send + Sync>),
}
