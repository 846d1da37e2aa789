//! What an output may not overwrite: the files it is made from, and what is no older output.

use std::{fs, path::Path};

use super::error::CliError;

/// Refuses to write `output` over one of `inputs`, or over any file that looks like a pipeline.
pub(super) fn refuse_overwrite<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<(), CliError> {
    let Ok(found) = fs::canonicalize(output) else { return Ok(()) };
    let is_input = inputs.into_iter().any(|path| fs::canonicalize(path).is_ok_and(|p| p == found));
    if is_input || found.extension().is_some_and(|ending| ending == "toml") {
        let name = output.display();
        return Err(CliError::usage(format!("`{name}` would be overwritten"))
            .with_help("it is no output of `pipe`: name another file"));
    }
    Ok(())
}

/// Whether a file is there that has content. What is no file, such as a pipe, is written to.
pub(super) fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// That a file is none that may be overwritten, `what` says why; another is named by `flag`.
pub(super) fn not_ours(path: &Path, what: &str, flag: &str) -> CliError {
    CliError::usage(format!("`{}` {what}, so it is not overwritten", path.display()))
        .with_help(format!("name another file with {flag}, or move this one away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_pipelines_are_spared() {
        let folder = tempfile::tempdir().unwrap();
        let [key, other, absent, log] =
            ["key.pem", "other.toml", "new.toml", "log"].map(|name| folder.path().join(name));
        for file in [&key, &other, &log] {
            fs::write(file, "").unwrap();
        }
        let inputs = [key.as_path()];
        assert!(refuse_overwrite(&folder.path().join("./key.pem"), inputs).is_err());
        assert!(refuse_overwrite(&other, inputs).is_err());
        assert!(
            refuse_overwrite(&absent, inputs).is_ok() && refuse_overwrite(&log, inputs).is_ok()
        );
    }
}
