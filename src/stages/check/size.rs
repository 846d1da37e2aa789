//! Sizes that images and clips must have, and the nearest that would do.

use super::{Cause, CheckError, ItemSize};
use crate::models::Compression;

/// Pieces or tiles per side that are more than an image has pixels: those of no pixel would be
/// none.
pub(in crate::stages) fn grid_in(grid: usize, [height, width]: [usize; 2]) -> Option<CheckError> {
    let (side, found) = if height <= width { ("height", height) } else { ("width", width) };
    (grid > found).then(|| {
        CheckError::new(
            Cause::Param("grid"),
            format!("`grid` divides a side into {grid}, but the {side} has only {found} pixels"),
            format!("take {found} at most, or larger images"),
        )
    })
}

/// The sides of an image, in the order of `[height, width]`.
pub(in crate::stages) const SIDES: [&str; 2] = ["height", "width"];

/// What of a size has no whole latents.
pub(in crate::stages) fn pixels(size: ItemSize, compression: Compression) -> Vec<CheckError> {
    pixels_where(size, compression, &|_, _| true)
}

/// The same, where `takes` says of a side in an image of whole latents whether something else takes
/// it: other ones are not advised, if there are any near.
pub(in crate::stages) fn pixels_where(
    size: ItemSize,
    compression: Compression,
    takes: &dyn Fn(usize, [usize; 2]) -> bool,
) -> Vec<CheckError> {
    let Compression { time, space } = compression;
    let mut errors = Vec::new();
    let mut image = size.image.unwrap_or([space; 2]);
    for (side, what) in SIDES.into_iter().enumerate() {
        let found = image[side];
        if found != 0 && found.is_multiple_of(space) {
            continue;
        }
        let takes = |value: usize| {
            let mut image = image;
            image[side] = value;
            takes(side, image)
        };
        let nearest = match near(found, space, takes) {
            [None, None] => near(found, space, |_| true),
            nearest => nearest,
        };
        let advice: Vec<_> = nearest.iter().flatten().map(usize::to_string).collect();
        let rule = match step_of(space, takes) {
            Some(step) => format!(
                "a multiple of {step} pixels for the model's transformer, of {space} for its autoencoder"
            ),
            None => format!("a multiple of {space} pixels"),
        };
        errors.push(CheckError::new(
            Cause::Image,
            format!("{what} must be {rule}, but is {found}"),
            format!("take {}", advice.join(" or ")),
        ));
        // The other side is looked at beside one that fits.
        image[side] = nearest.into_iter().flatten().next().unwrap_or(found);
    }
    let wrong = |frames: &usize| *frames == 0 || !(frames - 1).is_multiple_of(time);
    if let Some(frames) = size.frames.filter(wrong) {
        let below = frames.saturating_sub(1) / time * time + 1;
        let nearest = if frames == 0 { "1".into() } else { format!("{below} or {}", below + time) };
        errors.push(CheckError::new(
            Cause::Frames,
            format!("the number of frames must be {time}k + 1, but is {frames}"),
            format!("take {nearest} frames"),
        ));
    }
    errors
}

/// The step of what is taken of the multiples of `space`, if those are the multiples of a larger
/// number.
fn step_of(space: usize, takes: impl Fn(usize) -> bool) -> Option<usize> {
    /// Patches are of a few latents; what begins later is a limit.
    const MOST: usize = 16;
    let patch = (2..=MOST).find(|n| takes(n * space)).filter(|_| !takes(space))?;
    let follows = |n: usize| takes(n * space) == n.is_multiple_of(patch);
    (patch..=3 * patch).all(follows).then_some(patch * space)
}

/// The nearest multiples of `step` below and above that something takes, a few steps away at most.
fn near(found: usize, step: usize, takes: impl Fn(usize) -> bool) -> [Option<usize>; 2] {
    const FAR: usize = 4096;
    let below = (1..=found / step).rev().take(FAR).map(|n| n * step).find(|value| takes(*value));
    let first = found / step + 1;
    [below, (first..first + FAR).map(|n| n * step).find(|value| takes(*value))]
}
