//! Which files of a repository a model's parts are.

/// Files that say what the model is; always fetched, and small.
const ALWAYS: [&str; 4] = [
    "model_index.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
];

/// The files among `all` that are needed to read these parts: for weights, the index and its shards
/// or the single file, and no other precision or format.
pub(super) fn files_of<'a>(all: &[&'a str], parts: &[&str]) -> Vec<&'a str> {
    let has = |file: &str| all.contains(&file);
    let wanted = |file: &str| {
        ALWAYS.contains(&file)
            || parts.iter().any(|part| match *part {
                "scheduler" => false,
                "tokenizer" => {
                    let whole = "tokenizer/tokenizer.json";
                    file == whole || (file == "tokenizer/spiece.model" && !has(whole))
                }
                one if one.contains('/') => file == one,
                part => is_of_part(file, part, &has),
            })
    };
    all.iter().copied().filter(|file| wanted(file)).collect()
}

/// What says of these parts what they are, small beside their weights.
pub fn settings_of(parts: &[&str]) -> Vec<String> {
    let is_file = |part: &str| part.contains('/') || ["scheduler", "tokenizer"].contains(&part);
    let settings = |part: &&str| {
        if is_file(part) { (*part).to_owned() } else { format!("{part}/config.json") }
    };
    parts.iter().map(settings).collect()
}

fn is_of_part(file: &str, part: &str, has: &dyn Fn(&str) -> bool) -> bool {
    let Some(("", name)) = file.strip_prefix(part).and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let stem = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
    let index = format!("{stem}.safetensors.index.json");
    let sharded = has(&format!("{part}/{index}"));
    name == "config.json"
        || (sharded && (name == index || is_shard(name, stem)))
        || (!sharded && name == format!("{stem}.safetensors"))
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
        assert_eq!(files_of(&all, &[]).len(), configs);
        assert_eq!(files_of(&all, &["vae", "scheduler"]).len(), configs + 1);
        insta::assert_debug_snapshot!(files_of(&all, &["transformer", "text_encoder", "tokenizer"]), @r#"
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
}
