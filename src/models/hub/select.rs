//! Which files of a repository a model's parts are, and whether the repository has them: its list
//! tells, before anything is fetched.

use std::path::Path;

use super::{
    super::{
        LoadError,
        source::{REQUIRED, Refused, TOKENIZERS, config_file, index_of, single_of, stem_of},
    },
    missing,
};

/// Files that say what the model is; always fetched, and small.
const ALWAYS: [&str; 4] = [
    "model_index.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
];

/// What the user can do where a repository cannot be used.
const OTHERWISE: &str =
    "take another repository or revision, or name a local folder in diffusers' layout";

/// The small files among `all` that say what these parts are, the indexes of their shards included.
pub(super) fn settings_of<'a>(all: &[&'a str], parts: &[&str]) -> Vec<&'a str> {
    let wanted = |file: &str| {
        ALWAYS.contains(&file)
            || parts.iter().any(|part| match *part {
                "scheduler" => false,
                "tokenizer" => tokenizer_of(all) == Some(file),
                one if one.contains('/') => file == one,
                part => file == config_file(part) || file == index_of(part),
            })
    };
    all.iter().copied().filter(|file| wanted(file)).collect()
}

/// The files of weights among `all` that these parts are read from, as far as names tell: the
/// single file or all that are called like shards, and no other precision or format.
pub(super) fn weights_of<'a>(all: &[&'a str], parts: &[&str]) -> Vec<&'a str> {
    let wanted = |file: &str| {
        with_weights(parts).any(|part| {
            if all.contains(&&*index_of(part)) {
                file.strip_prefix(part)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|name| is_shard(name, stem_of(part)))
            } else {
                file == single_of(part)
            }
        })
    };
    all.iter().copied().filter(|file| wanted(file)).collect()
}

/// The parts that have weights.
pub(super) fn with_weights<'a>(parts: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let has_none = |part: &str| part.contains('/') || ["scheduler", "tokenizer"].contains(&part);
    parts.iter().copied().filter(move |part| !has_none(part))
}

fn tokenizer_of<'a>(all: &[&'a str]) -> Option<&'a str> {
    TOKENIZERS.iter().find_map(|file| all.iter().copied().find(|found| found == file))
}

/// Refuses a repository whose files, `all` of them, show that these parts cannot be read from it.
pub(super) fn check(id: &str, all: &[&str], parts: &[&str]) -> Result<(), LoadError> {
    if let Some(file) = REQUIRED.iter().find(|file| !all.contains(file)) {
        let what =
            format!("the repository `{id}` is not in diffusers' layout: `{file}` is missing");
        let refused = refused_in(all, "");
        return Err(match refused {
            Some((name, refused)) => {
                missing(format!("{what}, and `{name}` {}", refused.why()), OTHERWISE)
            }
            None => missing(what, OTHERWISE),
        });
    }
    let lacks = |file: &str| missing(format!("the repository `{id}` has no `{file}`"), OTHERWISE);
    for part in parts {
        match *part {
            "scheduler" => {}
            "tokenizer" if tokenizer_of(all).is_none() => {
                let [one, other] = TOKENIZERS;
                let message = format!(
                    "the repository `{id}` has no tokenizer: neither `{one}` nor `{other}`"
                );
                return Err(missing(message, OTHERWISE));
            }
            one if one.contains('/') && !all.contains(&one) => return Err(lacks(one)),
            _ => {}
        }
    }
    for part in with_weights(parts) {
        let (config, single) = (config_file(part), single_of(part));
        if !all.contains(&&*config) {
            return Err(lacks(&config));
        }
        if all.contains(&&*single) || all.contains(&&*index_of(part)) {
            continue;
        }
        return Err(match refused_in(all, part) {
            Some((file, refused)) => missing(
                format!("`{file}` of the repository `{id}` {}", refused.why()),
                format!(
                    "take a revision that has `{single}`, or name a local folder in diffusers' layout \
                     that does"
                ),
            ),
            None => lacks(&single),
        });
    }
    Ok(())
}

/// Refuses a repository that lacks one of the shards that an index names.
pub(super) fn check_shards(
    id: &str,
    all: &[&str],
    part: &str,
    shards: &[String],
) -> Result<(), LoadError> {
    let Some(absent) = shards.iter().find(|shard| !all.contains(&shard.as_str())) else {
        return Ok(());
    };
    let index = index_of(part);
    let message = format!(
        "`{index}` of the repository `{id}` names the shard `{absent}`, which is not in the repository"
    );
    Err(missing(message, OTHERWISE))
}

/// The first file in a folder of the repository, or at its top, in a format that is not read.
fn refused_in<'a>(all: &[&'a str], folder: &str) -> Option<(&'a str, Refused)> {
    let inside = all.iter().copied().filter(|file| {
        let (of, _) = file.rsplit_once('/').unwrap_or(("", file));
        of == folder
    });
    inside
        .filter_map(|file| Some((file, Refused::of(Path::new(file))?)))
        .min_by_key(|(file, _)| *file)
}

/// Whether a name is `<stem>-00001-of-00003.safetensors`.
fn is_shard(name: &str, stem: &str) -> bool {
    let numbers = name
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|numbers| numbers.split_once("-of-"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(one, all)| digits(one) && digits(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_part_is_read_from_is_fetched() {
        let all = [
            "README.md",
            "ltx-video-2b-v0.9.safetensors",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.fp16-00001-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "tokenizer/spiece.model",
            "tokenizer/tokenizer_config.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.bin",
            "transformer/diffusion_pytorch_model.fp16.safetensors",
            "transformer/diffusion_pytorch_model.safetensors",
            "transformer/old/config.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let configs = 4;
        let files_of = |parts: &[&str]| {
            let mut files = settings_of(&all, parts);
            files.extend(weights_of(&all, parts));
            files.sort_unstable();
            check("org/repo", &all, parts).unwrap();
            files
        };
        assert_eq!(files_of(&[]).len(), configs);
        assert_eq!(files_of(&["vae", "scheduler"]).len(), configs + 1);
        insta::assert_debug_snapshot!(files_of(&["transformer", "text_encoder", "tokenizer"]), @r#"
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model-00001-of-00002.safetensors",
            "text_encoder/model-00002-of-00002.safetensors",
            "text_encoder/model.safetensors.index.json",
            "tokenizer/spiece.model",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
        ]
        "#);
    }

    #[test]
    fn a_list_shows_what_cannot_be_read() {
        let refused = |more: &[&str], parts: &[&str]| {
            let all: Vec<&str> = REQUIRED.iter().chain(more).copied().collect();
            check("org/repo", &all, parts).map_err(|error| error.to_string())
        };
        assert_eq!(refused(&["vae/diffusion_pytorch_model.safetensors"], &["vae"]), Ok(()));
        let told = [
            check("org/repo", &["model.safetensors"], &[]).unwrap_err().to_string(),
            check("org/repo", &["model-q4.gguf", "vae/config.json"], &[]).unwrap_err().to_string(),
            refused(&["transformer/diffusion_pytorch_model.bin"], &["transformer"]).unwrap_err(),
            refused(&[], &["vae"]).unwrap_err(),
            refused(&["text_encoder/model.safetensors"], &["text_encoder"]).unwrap_err(),
            refused(&["tokenizer/vocab.json"], &["tokenizer"]).unwrap_err(),
            refused(&[], &["transformer/log.json"]).unwrap_err(),
        ];
        insta::assert_snapshot!(told.join("\n"), @"
        the repository `org/repo` is not in diffusers' layout: `transformer/config.json` is missing
        the repository `org/repo` is not in diffusers' layout: `transformer/config.json` is missing, and `model-q4.gguf` is a GGUF file, whose quantised weights are not supported
        `transformer/diffusion_pytorch_model.bin` of the repository `org/repo` is a pickle file, which can run code when it is read
        the repository `org/repo` has no `vae/diffusion_pytorch_model.safetensors`
        the repository `org/repo` has no `text_encoder/config.json`
        the repository `org/repo` has no tokenizer: neither `tokenizer/tokenizer.json` nor `tokenizer/spiece.model`
        the repository `org/repo` has no `transformer/log.json`
        ");
    }
}
