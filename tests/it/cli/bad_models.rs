//! What is no model: other folders, other classes, other formats, hostile files, and no network.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    CLIPS, Shell,
    bad_weights::{copy_of_the_model, latents},
    command, walk,
};
use crate::hub_server::FakeHub;

/// All that a line says, of which the exit code is as wanted.
fn told(shell: &Shell, line: &str, code: i32) -> String {
    let output = shell.output(line);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    // Lines are broken by the width of the page.
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_told(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// What a failed run leaves in the cache: no file that is not whole.
fn assert_nothing_half_written(shell: &Shell) {
    let cache = shell.path("cache");
    let name = |path: &std::path::PathBuf| path.strip_prefix(&cache).unwrap().display().to_string();
    let half = walk(&cache).iter().map(name).find(|name| name.contains("tmp"));
    assert!(half.is_none(), "{half:?}");
    shell.succeed("cache verify");
}

#[test]
fn a_folder_that_is_no_model() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("model"));
    fs::create_dir_all(shell.path("model")).unwrap();
    fs::write(shell.path("model/notes.txt"), "nothing").unwrap();
    let empty = told(&shell, "run latents.toml", 3);
    assert_told(&empty, &["the model `model` cannot be read", "help:"]);

    fs::write(shell.path("model/model.gguf"), b"GGUF").unwrap();
    assert_told(&told(&shell, "run latents.toml", 3), &["GGUF", "diffusers"]);
    fs::remove_file(shell.path("model/model.gguf")).unwrap();

    // A single file.
    let single = "run latents.toml --set latents.model=model/ltx.gguf";
    fs::write(shell.path("model/ltx.gguf"), b"GGUF").unwrap();
    assert_told(&told(&shell, single, 3), &["GGUF"]);
    let pickle = "run latents.toml --set latents.model=model/ltx.ckpt";
    fs::write(shell.path("model/ltx.ckpt"), b"\x80\x02").unwrap();
    assert_told(&told(&shell, pickle, 3), &["pickle"]);
}

/// As data is: meant from the folder of the file, wherever `pipe` is called.
#[test]
fn a_model_folder_lies_beside_the_file_that_names_it() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    fs::create_dir_all(shell.path("experiments/here")).unwrap();
    fs::rename(shell.path("model"), shell.path("experiments/weights")).unwrap();
    shell.write("experiments/here/latents.toml", &latents("../weights"));
    shell.succeed("check experiments/here/latents.toml");
    shell.succeed("run experiments/here/latents.toml");
    // The name is in no key, and a value of the command line is meant from where it was typed.
    fs::rename(shell.path("experiments/weights"), shell.path("moved")).unwrap();
    let set = "experiments/here/latents.toml --set latents.model=moved";
    let plan = shell.plan(set);
    assert!(plan.iter().all(|stage| stage["state"] == "fresh"), "{plan:#?}");
    fs::rename(shell.path("moved"), shell.path("experiments/here/weights")).unwrap();
    shell.write("experiments/here/latents.toml", &latents("weights"));
    assert!(shell.plan("experiments/here/latents.toml").iter().all(|s| s["state"] == "fresh"));
}

#[test]
fn weights_in_other_formats() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("model"));
    let file = copy_of_the_model(&shell);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(file.with_extension("bin"), b"\x80\x02}q\x00.").unwrap();
    assert_told(&told(&shell, "run latents.toml", 3), &["pickle", "safetensors"]);
    fs::remove_file(file.with_extension("bin")).unwrap();
    fs::write(file.with_file_name("vae-q4.gguf"), b"GGUF").unwrap();
    assert_told(&told(&shell, "run latents.toml", 3), &["GGUF", "safetensors"]);

    // A pickle file by the name of a safetensors one is not read as anything else.
    fs::remove_file(file.with_file_name("vae-q4.gguf")).unwrap();
    fs::write(&file, b"\x80\x02}q\x00.").unwrap();
    assert_told(&told(&shell, "run latents.toml", 3), &["is not a whole safetensors file"]);
    assert_nothing_half_written(&shell);
    fs::write(&file, whole).unwrap();
    shell.succeed("run latents.toml");
}

#[test]
fn hostile_headers() {
    let shell = Shell::new();
    shell.write("latents.toml", &latents("model"));
    let file = copy_of_the_model(&shell);
    let whole = fs::read(&file).unwrap();
    let header_len = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&whole[8..8 + header_len]).unwrap();
    let bias = "encoder.conv_in.conv.bias";
    let with = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        let header = header.to_string();
        let len = (header.len() as u64).to_le_bytes();
        [&len, header.as_bytes(), &whole[8 + header_len..]].concat()
    };
    let of_length = |len: u64| [&len.to_le_bytes(), &whole[8..]].concat();
    let broken = "is not a whole safetensors file";
    for (what, bytes, wanted) in [
        ("huge header", of_length(u64::MAX), broken),
        ("header of 99 MB", of_length(99_000_000), broken),
        ("empty file", Vec::new(), broken),
        ("header cut short", whole[..header_len / 2].to_vec(), broken),
        ("overlap", with(&|h| h[bias]["data_offsets"] = json!([0, 64])), broken),
        ("huge offsets", with(&|h| h[bias]["data_offsets"] = json!([0, u64::MAX])), broken),
        ("huge shape", with(&|h| h[bias]["shape"] = json!([u64::MAX, 2])), broken),
        ("wrong length", with(&|h| h[bias]["shape"] = json!([17])), broken),
        ("unknown type", with(&|h| h[bias]["dtype"] = json!("F3")), broken),
    ] {
        fs::write(&file, bytes).unwrap();
        assert_told(&told(&shell, "run latents.toml", 3), &[wanted, "0 stages ran"]);
        assert_told(&told(&shell, "check latents.toml", 2), &[wanted]);
        println!("{what}: refused");
    }
    // Whole numbers of the right length hold no weights.
    let dtype = header[bias]["dtype"].as_str().unwrap();
    let integer = if dtype == "F32" { "I32" } else { "I16" };
    fs::write(&file, with(&|h| h[bias]["dtype"] = json!(integer))).unwrap();
    let text = told(&shell, "run latents.toml", 3);
    assert_told(&text, &["tensor `encoder.conv_in.conv.bias`", integer, "F32, F16 or BF16"]);
    assert_nothing_half_written(&shell);
}

/// Sets a key of a part's configuration.
pub(super) fn configure(shell: &Shell, part: &str, key: &str, value: Value) {
    let path = shell.path("model").join(part);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn classes_and_keys_that_are_not_known() {
    let shell = Shell::new();
    let prompt = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"model\"\n\
                  [stages.made]\nkind = \"sample\"\nmodel = \"model\"\nframes = 5\nsteps = 1\n\
                  inputs = { pairs = \"pairs\", text = \"prompt\" }\n";
    shell.write("sample.toml", &format!("{CLIPS}{prompt}").replace("count  = 2", "count  = 1"));
    copy_of_the_model(&shell);
    let restore = |part: &str| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny").join(part);
        fs::copy(from, shell.path("model").join(part)).unwrap();
    };
    let transformer = "transformer/config.json";
    configure(&shell, transformer, "_class_name", json!("FluxTransformer2DModel"));
    let text = told(&shell, "run sample.toml --only made", 3);
    let known =
        "`_class_name` must be `CogVideoXTransformer3DModel` or `LTXVideoTransformer3DModel`";
    assert_told(&text, &[transformer, known, "`FluxTransformer2DModel`"]);
    restore(transformer);

    let (vae, text_encoder) = ("vae/config.json", "text_encoder/config.json");
    let encoders = "`T5EncoderModel` or `T5ForConditionalGeneration`";
    for (part, key, value, known) in [
        (vae, "_class_name", json!("AutoencoderKLWan"), "`AutoencoderKLCogVideoX`"),
        (vae, "_class_name", json!("AutoencoderKLLTXVideo"), "`AutoencoderKLCogVideoX`"),
        (text_encoder, "architectures", json!(["UMT5EncoderModel"]), encoders),
        (text_encoder, "model_type", json!("umt5"), "`t5`"),
    ] {
        configure(&shell, part, key, value.clone());
        let name = value.as_str().or_else(|| value[0].as_str()).unwrap();
        let text = told(&shell, "run sample.toml --only made", 3);
        assert_told(&text, &[part, &format!("`{key}` must be {known}, but is `{name}`")]);
        restore(part);
    }

    for (part, key, value) in [
        (transformer, "rope_theta", json!(500)),
        (transformer, "activation_fn", json!("silu")),
        ("vae/config.json", "use_quant_conv", json!(true)),
        ("vae/config.json", "act_fn", json!("gelu")),
        (text_encoder, "quantization_config", json!({ "load_in_4bit": true })),
        ("scheduler/scheduler_config.json", "thresholding", json!(true)),
    ] {
        configure(&shell, part, key, value);
        for (line, code) in [("run sample.toml --only made", 3), ("check sample.toml", 2)] {
            assert_told(&told(&shell, line, code), &[&format!("`{key}"), part]);
        }
        restore(part);
    }
    shell.succeed("run sample.toml --only made");
}

/// What would otherwise take all memory, or overflow: a plan reads all of these files.
#[test]
fn sizes_beyond_all_bounds() {
    let shell = Shell::new();
    copy_of_the_model(&shell);
    let prompt = "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"model\"\n\
                  [stages.made]\nkind = \"sample\"\nmodel = \"model\"\nframes = 5\nsteps = 1\n\
                  inputs = { pairs = \"pairs\", text = \"prompt\" }\n";
    shell.write("sample.toml", &format!("{CLIPS}{prompt}").replace("count  = 2", "count  = 1"));
    for (part, key, value) in [
        ("transformer/config.json", "num_layers", json!(1_000_000_000_000_u64)),
        ("transformer/config.json", "max_text_seq_length", json!(1_u64 << 62)),
        ("vae/config.json", "layers_per_block", json!(1_000_000_000_000_u64)),
        ("text_encoder/config.json", "num_layers", json!(1_000_000_000_000_u64)),
    ] {
        configure(&shell, part, key, value);
        assert_told(&told(&shell, "check sample.toml", 2), &[&format!("`{key}`"), part]);
        let output = shell.output("run sample.toml");
        let text = String::from_utf8_lossy(&output.stderr).replace("│", "");
        assert!(matches!(output.status.code(), Some(1..=3)), "{key}: {text}");
        assert_told(&text, &[&format!("`{key}`"), part]);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny").join(part);
        fs::copy(from, shell.path("model").join(part)).unwrap();
    }
}

/// An adapter file of zeros: names of modules with the shapes of both factors.
pub(super) fn write_adapter(shell: &Shell, modules: &[(&str, [usize; 2], [usize; 2])]) {
    let mut header = json!({});
    let mut at = 0;
    for (module, a, b) in modules {
        for (factor, [rows, columns]) in [("lora_A", a), ("lora_B", b)] {
            let end = at + 4 * rows * columns;
            header[format!("transformer.{module}.{factor}.weight")] = json!({
                "dtype": "F32", "shape": [rows, columns], "data_offsets": [at, end],
            });
            at = end;
        }
    }
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at]].concat();
    fs::create_dir_all(shell.path("adapters")).unwrap();
    fs::write(shell.path("adapters/a.safetensors"), bytes).unwrap();
}

#[test]
fn adapters_whose_targets_or_ranks_are_wrong() {
    let shell = Shell::new();
    let text = "name = \"merge\"\n[stages.whole]\nkind = \"lora_merge\"\nroot = \"adapters\"\n\
                files = [\"a.safetensors\"]\nmodel = \"builtin:tiny\"\n";
    shell.write("merge.toml", text);
    let to_q = "transformer_blocks.0.attn1.to_q";
    write_adapter(&shell, &[("transformer_blocks.0.attn1.to_nothing", [2, 8], [8, 2])]);
    let text = told(&shell, "run merge.toml", 3);
    assert_told(&text, &["transformer_blocks.0.attn1.to_nothing", "not"]);
    write_adapter(&shell, &[(to_q, [2, 8], [8, 3])]);
    assert_told(&told(&shell, "run merge.toml", 3), &[to_q, "rank", "2", "3"]);
    write_adapter(&shell, &[(to_q, [2, 7], [7, 2])]);
    assert_told(&told(&shell, "run merge.toml", 3), &[to_q, "[7, 7]"]);
    assert_nothing_half_written(&shell);
}

#[test]
fn revisions_that_do_not_exist_and_no_network() {
    let (shell, hub) = (Shell::new(), FakeHub::tiny(None));
    shell.write("latents.toml", &latents("hf:org/tiny@v9"));
    let run = |endpoint: &str| {
        let mut command = command(shell.dir.path());
        let output = command.args(["run", "latents.toml"]).env("HF_ENDPOINT", endpoint).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_told(&run(&hub.endpoint), &["has no revision `v9`", "help:"]);
    // A port that nobody listens on.
    assert_told(
        &run("http://127.0.0.1:9"),
        &["`http://127.0.0.1:9` cannot be reached", "local folder"],
    );
    assert!(!shell.path("hub").exists() || walk(&shell.path("hub")).is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn a_tokenizer_that_says_it_is_large_takes_no_memory() {
    use base64::Engine as _;

    let shell = Shell::new();
    copy_of_the_model(&shell);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5");
    let json = fs::read(golden.join("tokenizer.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let map = json["normalizer"]["precompiled_charsmap"].as_str().unwrap();
    let map = base64::prelude::BASE64_STANDARD.decode(map).unwrap();
    let mut spiece = fs::read(golden.join("spiece.model")).unwrap();
    let start = spiece.windows(map.len()).position(|bytes| bytes == map).unwrap();
    // The size of its trie in bytes; twice that would be reserved.
    spiece[start..start + 4].fill(0xff);
    let tokenizer = shell.path("model/tokenizer");
    fs::remove_file(tokenizer.join("tokenizer.json")).unwrap();
    fs::write(tokenizer.join("spiece.model"), spiece).unwrap();
    shell.write("p.toml", "name = \"p\"\n[stages.p]\nkind = \"text_encode\"\nmodel = \"model\"\n");
    let limited = "ulimit -v 6000000 && exec \"$0\" run p.toml";
    let mut run = std::process::Command::new("sh");
    run.args(["-c", limited, env!("CARGO_BIN_EXE_pipe")]).current_dir(shell.path("."));
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the map of characters is damaged"), "{said}");
}
