//! Generated latents: `latents.safetensors` with `latents` F32 `[C, f, h, w]`, scaled as the
//! denoiser sees them, padding frames dropped. Samples of a condition pipeline state in the file's
//! header after how many steps with draws of their own they were made, since decoding goes on with
//! the generator; older ones do not.

use safetensors::SafeTensors;

use super::tensors::{Array, TensorFileError, write, write_with};

/// The entry of the header.
const CONDITION_STEPS: &str = "condition_steps";

/// The item's file.
pub const FILE: &str = "latents.safetensors";

/// Reads [`FILE`].
pub fn from_bytes(bytes: &[u8]) -> Result<Array<4>, TensorFileError> {
    Array::read(bytes, "latents")
}

/// The steps of a condition pipeline that the header of [`FILE`] states.
pub fn condition_steps(bytes: &[u8]) -> Result<Option<usize>, TensorFileError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let stated = header.metadata().as_ref().and_then(|entries| entries.get(CONDITION_STEPS));
    let steps = |text: &String| {
        text.parse().map_err(|_| TensorFileError::Entry {
            key: CONDITION_STEPS,
            wanted: "a number of steps",
            found: text.clone(),
        })
    };
    stated.map(steps).transpose()
}

/// Writes [`FILE`]; with the steps of a condition pipeline, where one made it.
pub fn to_bytes(latents: &Array<4>, condition_steps: Option<usize>) -> Vec<u8> {
    match condition_steps {
        Some(steps) => write_with("latents", latents, (CONDITION_STEPS, steps.to_string())),
        None => write("latents", latents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_condition_pipeline_are_stated_in_the_header() {
        let latents = Array { shape: [1, 1, 1, 2], values: vec![1.0, 2.0] };
        for steps in [None, Some(0), Some(40)] {
            let bytes = to_bytes(&latents, steps);
            assert_eq!(condition_steps(&bytes).unwrap(), steps);
            assert_eq!(from_bytes(&bytes).unwrap(), latents);
        }
        let odd = write_with("latents", &latents, (CONDITION_STEPS, "-1".to_owned()));
        insta::assert_snapshot!(condition_steps(&odd).unwrap_err(), @"`condition_steps` in the header must be a number of steps, but is `-1`");
    }
}
