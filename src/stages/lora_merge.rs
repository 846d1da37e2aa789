//! `lora_merge`: adapters to one, or into the model; also how adapters of other programs come in.

use std::path::Path;

use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Cause, IdleParam, ImageUse, Inputs, Misfit, Output, ParamError, Port, Ports, Stage,
    StageContext, StageError, StageKind, Surroundings, fit::refuse, model::pass_parts_on,
    pretrain::WeightType, rules,
};
use crate::{
    artifact::{
        ArtifactKind,
        adapter::AdapterArtifact,
        model::{ModelPart, resolve_model},
    },
    models::{
        Adapter, ClipSize, LoadError, Memory, ModelRef,
        lora::{Combination, Combined},
        memory::merging,
    },
    store::SourceReader,
};

/// An adapter and its weight.
type Weighted = (Adapter, f64);

/// The ports of adapters, in the order of `weights`.
const ADAPTERS: [&str; 4] = ["first", "second", "third", "fourth"];

/// Makes one adapter of several, each with its weight. With `model`, the sum goes into the model's
/// transformer instead, and the output takes its place on the port `model` of other stages.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraMerge {
    /// The model that the adapters are merged into; without it they become one adapter.
    #[serde(default)]
    pub model: Option<ModelRef>,
    /// The weight of each adapter: those on `first` to `fourth`, then those of `files`; by default 1.
    #[serde(default)]
    pub weights: Vec<f64>,
    /// How the factors become those of one adapter.
    #[serde(default)]
    pub method: Combination,
    /// The rank of the result; for `svd` alone.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub rank: Option<usize>,
    /// Files of other programs below `root`: of diffusers, of ComfyUI, or `adapter_model.safetensors`
    /// of peft with its `adapter_config.json` beside it.
    #[serde(default)]
    pub files: Vec<String>,
    /// The folder of `files`.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub root: Option<String>,
    /// The type of a merged model's weights.
    #[serde(default)]
    pub precision: WeightType,
}

const PORT: Port = Port { name: "", kinds: &[ArtifactKind::LoraAdapter], required: false };

impl StageKind for LoraMerge {
    const KIND: &'static str = "lora_merge";
    // 1: first · 2: the log keeps how the image was given in training.
    const VERSION: u32 = 2;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: ADAPTERS[0], ..PORT },
            Port { name: ADAPTERS[1], ..PORT },
            Port { name: ADAPTERS[2], ..PORT },
            Port { name: ADAPTERS[3], ..PORT },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::LoraAdapter,
    };
}

impl Stage for LoraMerge {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        match (self.method, self.rank) {
            (Combination::Svd, None) if self.model.is_none() => {
                let error = ParamError::new("method", "must come with `rank`, but there is none");
                errors.push(error.help("`cat` is exact and needs none"));
            }
            (Combination::Svd, Some(rank)) => {
                errors.extend(rules::at_least_one(&[("rank", rank)]));
            }
            (_, Some(_)) => {
                errors.push(ParamError::new("rank", "is for `method = \"svd\"` alone"));
            }
            _ => {}
        }
        if self.weights.iter().any(|weight| !weight.is_finite()) {
            errors.push(ParamError::new("weights", "must be finite numbers"));
        }
        if self.files.is_empty() != self.root.is_none() {
            let message = "must be given together with `root`";
            errors.push(ParamError::new("files", message));
        }
        let outside = |file: &&String| {
            Path::new(file)
                .components()
                .any(|part| !matches!(part, std::path::Component::Normal(_)))
        };
        if let Some(file) = self.files.iter().find(outside) {
            errors.push(ParamError::new(
                "files",
                format!("must lie below `root`, but `{file}` does not"),
            ));
        }
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        if self.model.is_some() {
            return Vec::new();
        }
        let serves = "`model` is given, into which the adapters are merged".to_owned();
        vec![IdleParam { param: "precision", by: "model", serves }]
    }

    fn misfits(&self, around: &Surroundings<'_>) -> Vec<Misfit> {
        let adapters = ADAPTERS.into_iter().filter(|port| around.has(port)).count();
        let mut misfits: Vec<_> = self.miscount(adapters + self.files.len()).into_iter().collect();
        if around.has("model") && self.model.is_none() {
            misfits.push(Misfit::new(
                Cause::Param("inputs"),
                "an input `model` does nothing without the parameter `model`",
                "add `model = ...`, which gives the parts that the input has not",
            ));
        }
        misfits
    }

    fn weights(&self) -> Option<(&ModelRef, &'static [&'static str])> {
        self.model.as_ref().map(|model| (model, &["transformer"][..]))
    }

    fn memory(&self, _clip: Option<ClipSize>, on_host: bool) -> Result<Option<Memory>, LoadError> {
        match &self.model {
            Some(model) if on_host => {
                let file_value = if self.precision == WeightType::Bf16 { 2 } else { 4 };
                merging(&model.resolve()?, file_value).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn source_root(&self) -> Option<&Path> {
        self.root.as_deref().map(Path::new)
    }

    fn output(&self) -> Option<ArtifactKind> {
        self.model.is_some().then_some(ArtifactKind::Model)
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let (parts, logs) = self.parts(inputs, cx.sources)?;
        let log = json!({
            "method": self.method,
            "adapters": parts.iter().map(|(adapter, weight)| json!({
                "rank": adapter.rank, "alpha": adapter.alpha, "weight": weight,
            })).collect::<Vec<_>>(),
        });
        cx.tick(0, 1, "combine adapters")?;
        let Combined { adapter, kept } = Adapter::combine(&parts, self.method, self.rank)?;
        let Some(model) = &self.model else {
            let mut train = json!({ "merged": log, "kept": kept });
            keep_image_use(&mut train, &logs);
            return AdapterArtifact { adapter, train }.write(out, None);
        };
        cx.tick(0, 1, "merge into the model")?;
        let source = resolve_model(model, inputs, "model")?;
        let mut params = source.params("transformer", &Device::flex())?;
        adapter.merge_into(&mut params)?;
        let part = ModelPart {
            name: "transformer".to_owned(),
            config: source.config("transformer")?,
            params,
            bf16: self.precision == WeightType::Bf16,
            log: json!({ "merged": log, "kept": kept }),
        };
        part.write(out)?;
        pass_parts_on(inputs, out, "transformer")
    }
}

impl LoraMerge {
    /// What is wrong with a number of adapters.
    fn miscount(&self, adapters: usize) -> Option<Misfit> {
        if adapters == 0 {
            return Some(Misfit::new(
                Cause::Param("inputs"),
                "there is no adapter to merge",
                "connect a stage that gives one to `first`, or name `files` below `root`",
            ));
        }
        let weights = self.weights.len();
        (weights != 0 && weights != adapters).then(|| {
            let message =
                format!("`weights` must be as many as the adapters, {adapters}, but are {weights}");
            Misfit::new(Cause::Param("weights"), message, "give one weight for each, or none")
        })
    }

    /// The adapters with their weights, and the logs of those that have one.
    fn parts(
        &self,
        inputs: &Inputs<'_>,
        sources: Option<&SourceReader>,
    ) -> Result<(Vec<Weighted>, Vec<Value>), StageError> {
        let (mut adapters, mut logs) = (Vec::new(), Vec::new());
        for port in ADAPTERS {
            if let Some(AdapterArtifact { adapter, train }) = AdapterArtifact::read(inputs, port)? {
                adapters.push(adapter);
                logs.push(train);
            }
        }
        for file in &self.files {
            let sources = sources.ok_or_else(|| StageError::failed("`files` needs `root`"))?;
            adapters.push(read_file(sources, file).map_err(|error| error.on_item(file))?);
        }
        refuse(self.miscount(adapters.len()))?;
        let weights = match self.weights.len() {
            0 => vec![1.0; adapters.len()],
            _ => self.weights.clone(),
        };
        Ok((adapters.into_iter().zip(weights).collect(), logs))
    }
}

/// Keeps how the image was given in the training of all adapters, if in one way: sampling must do the
/// same.
fn keep_image_use(train: &mut Value, logs: &[Value]) {
    let mut uses = logs.iter().filter_map(|log| Some((ImageUse::of_adapter(log)?, log)));
    let Some((first, log)) = uses.next() else { return };
    if !uses.all(|(other, _)| other == first) {
        return;
    }
    train["image_latent_scale"] = log["image_latent_scale"].clone();
    let settings = &log["settings"];
    train["settings"] = json!({
        "image_latent_scale": settings["image_latent_scale"], "causal_time": first.causal_time,
    });
    if let Some(frame_rate) = first.frame_rate {
        train["settings"]["frame_rate"] = frame_rate.into();
    }
}

/// Reads an adapter file; peft keeps the scale in another file beside it.
fn read_file(sources: &SourceReader, file: &str) -> Result<Adapter, StageError> {
    let ending = Path::new(file).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !ending.eq_ignore_ascii_case("safetensors") {
        let refused = match ending.to_ascii_lowercase().as_str() {
            "gguf" => "is a GGUF file, whose quantised weights are not supported",
            "bin" | "ckpt" | "pt" | "pth" => "is a pickle file, which can run code when it is read",
            _ => "must be a safetensors file",
        };
        return Err(StageError::failed(format!("`{file}` {refused}"))
            .with_help("save the adapter as safetensors"));
    }
    let bytes = sources.read(file)?;
    if Path::new(file).file_name().is_some_and(|name| name == "adapter_model.safetensors") {
        let config = Path::new(file).with_file_name("adapter_config.json");
        return Ok(Adapter::from_peft(&sources.read(&config.to_string_lossy())?, &bytes)?);
    }
    Ok(Adapter::from_diffusers(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::support::Bench;

    fn stage(params: Value) -> LoraMerge {
        serde_json::from_value(params).unwrap()
    }

    #[test]
    fn rules_between_parameters() {
        let wrong = |params| {
            let errors = stage(params).validate();
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        assert!(wrong(json!({})).is_empty());
        assert!(wrong(json!({ "method": "svd", "rank": 4 })).is_empty());
        assert_eq!(
            wrong(json!({ "method": "svd" })),
            ["method: must come with `rank`, but there is none"]
        );
        assert_eq!(wrong(json!({ "rank": 4 })), ["rank: is for `method = \"svd\"` alone"]);
        assert_eq!(
            wrong(json!({ "files": ["../a.safetensors"], "root": "x" })),
            ["files: must lie below `root`, but `../a.safetensors` does not"]
        );
        assert_eq!(wrong(json!({ "root": "x" })), ["files: must be given together with `root`"]);
    }

    #[test]
    fn how_the_image_was_given_is_kept_where_all_agree() {
        let log = |scale: f64, causal: bool| {
            let settings = json!({ "image_latent_scale": null, "causal_time": causal });
            json!({ "image_latent_scale": scale, "settings": settings })
        };
        let kept = |logs: &[Value]| {
            let mut train = json!({});
            keep_image_use(&mut train, logs);
            ImageUse::of_adapter(&train)
        };
        let foreign = json!({ "merged": {} });
        let one = ImageUse::of_adapter(&log(0.7, true));
        assert!(one.is_some());
        assert_eq!(kept(&[log(0.7, true), log(0.7, true), foreign.clone()]), one);
        assert_eq!(kept(&[log(0.7, true), log(0.7, false)]), None);
        assert_eq!(kept(&[log(0.7, true), log(1.0, true)]), None);
        assert_eq!(kept(&[foreign]), None);
    }

    #[test]
    fn files_of_other_kinds_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let bench = Bench::new();
        for (file, wanted) in [
            ("a.gguf", "GGUF"),
            ("a.bin", "pickle"),
            ("a.txt", "must be a safetensors file"),
            ("a.safetensors", "not a whole safetensors file"),
        ] {
            std::fs::write(folder.path().join(file), b"\xff\xff\xff\xff\xff\xff\xff\x7f{").unwrap();
            let stage = stage(json!({ "files": [file], "root": root }));
            let error = bench.run(&stage, &bench.inputs(&[])).unwrap_err().to_string();
            assert!(error.contains(wanted), "{file}: {error}");
        }
        let stage = stage(json!({}));
        let error = bench.run(&stage, &bench.inputs(&[])).unwrap_err().to_string();
        assert_eq!(error, "there is no adapter to merge");
    }
}
