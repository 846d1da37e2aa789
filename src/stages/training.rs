//! What `lora_train` and `pretrain` share: rules, checkpoints, progress, and the clips they read.

use std::{ops::ControlFlow, path::Path, sync::atomic::Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};

use super::{
    Cause, CheckError, IdleParam, Inputs, MODEL_PARAMS, ParamError, StageContext, StageError,
    StageKind, Surroundings, model::check_channels,
};
use crate::{
    artifact::{
        latents::{self, ClipLatents},
        tensors::Array,
    },
    models::{Denoiser, ImageConditioning, LoadError, ParamReader, TimeAxis, VideoDiffusion},
    store::StoreError,
    train::{
        batch::Example,
        checkpoint::Checkpoints,
        held_out::{Evaluation, HeldOut, HeldOutClip, QUANTILES},
        optimizer::AdamW,
        schedule::LrSchedule,
        steps::{Diverged, StepReport, TrainError},
    },
};

/// A training's settings, for its log. How often it was saved is none, and neither is the name of
/// the model: the same weights by another name give the same bytes.
pub(super) fn settings<S: StageKind>(stage: &S) -> Value {
    let mut settings = serde_json::to_value(stage).expect("settings are plain values");
    if let Some(settings) = settings.as_object_mut() {
        for name in MODEL_PARAMS.into_iter().chain(["save_every"]) {
            settings.remove(name);
        }
    }
    settings
}

/// Parameters that leave a run on its trajectory; where the learning rate depends on the number of
/// steps, another number of steps is another trajectory.
pub(super) fn trajectory(schedule: LrSchedule) -> &'static [&'static str] {
    if schedule.depends_on_steps() {
        &["save_every", "save_at"]
    } else {
        &["steps", "save_every", "save_at"]
    }
}

/// How positions count, by `causal_time` and `frame_rate`, in latents of the autoencoder of this
/// `config.json`; without it, in those of the published ones.
pub(super) fn time_axis(
    family: &dyn VideoDiffusion,
    (causal, frame_rate): (bool, Option<f64>),
    vae: Option<&Value>,
) -> Result<TimeAxis, LoadError> {
    let time = TimeAxis::new(causal, frame_rate);
    let Some(vae) = vae else { return Ok(time) };
    Ok(time.compressed(family.vae(vae, &ParamReader::shapes())?.compression()))
}

/// Checks the numbers of the optimizer.
pub(super) fn check_rates(rate: f64, max_norm: f64, optimizer: &AdamW) -> Vec<ParamError> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    let share = |value: f64| (0.0..1.0).contains(&value);
    let [beta1, beta2] = optimizer.betas;
    let rules = [
        ("learning_rate", rate, positive(rate), "must be positive"),
        ("max_grad_norm", max_norm, positive(max_norm), "must be positive"),
        ("optimizer.betas", beta1, share(beta1), "must be from 0 to below 1"),
        ("optimizer.betas", beta2, share(beta2), "must be from 0 to below 1"),
        ("optimizer.eps", optimizer.eps, positive(optimizer.eps), "must be positive"),
        (
            "optimizer.weight_decay",
            optimizer.weight_decay,
            optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite(),
            "must be a finite number, not negative",
        ),
    ];
    rules
        .into_iter()
        .filter(|(_, _, holds, _)| !holds)
        .map(|(field, value, _, rule)| ParamError::new(field, format!("{rule}, but is {value}")))
        .collect()
}

/// The checkpoints of this trajectory, if the run keeps any; to be opened once the weights are
/// loaded.
pub(super) fn checkpoints(cx: &StageContext<'_>) -> Result<Option<Checkpoints>, StageError> {
    (cx.weights_hold)()?;
    Ok(cx.checkpoints.map(Checkpoints::open))
}

/// Counts and reports a step, and asks the loop to end when the run is cancelled.
pub(super) fn observe(cx: &StageContext<'_>, report: StepReport) -> ControlFlow<()> {
    cx.steps_made.fetch_add(1, Ordering::Relaxed);
    let message = format!("step, loss {:.4}", report.loss);
    match cx.tick(report.done as u64, report.total as u64, &message) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// What a failed training means for its stage.
pub(super) fn train_error(error: TrainError) -> StageError {
    match error {
        TrainError::Stopped => StageError::Cancelled,
        TrainError::Load(error) => error.into(),
        TrainError::NotFinite(diverged) => {
            StageError::failed(diverged.to_string()).with_help(diverged_help(&diverged))
        }
        TrainError::Checkpoint(error) => {
            let error = StoreError::io(Path::new("checkpoints"), error);
            let failure = StageError::environment(error.to_string());
            match error.help() {
                Some(help) => failure.with_help(help),
                None => failure.with_help("check that the cache folder can be written"),
            }
        }
        TrainError::Example(error) => match error.downcast::<StageError>() {
            Ok(error) => *error,
            Err(error) => StageError::failed(error.to_string()),
        },
    }
}

/// What helps a training that diverged.
fn diverged_help(diverged: &Diverged) -> String {
    // Before any step was made, no rate of learning has done it.
    if diverged.step == 1 && diverged.last_loss.is_none() {
        return "the model's weights, or the latents, may hold such numbers: read them again from where \
                they came"
            .to_owned();
    }
    let help = "lower `learning_rate`, clip gradients with a lower `max_grad_norm`, or add warmup with \
                `lr_schedule` and `warmup_steps`";
    match diverged.kept {
        Some(step) => format!(
            "{help}; the state at step {step} is kept: with `steps = {step}` a training ends there"
        ),
        None => help.to_owned(),
    }
}

/// The port of clips that are not trained on.
pub(super) const HELD_OUT: &str = "held_out";

/// `warmup_steps` of a training whose schedule has none.
pub(super) fn idle_warmup(schedule: LrSchedule, steps: usize) -> Option<IdleParam> {
    let works = schedule != LrSchedule::Constant || steps == 0;
    let serves = "`lr_schedule` is `constant_with_warmup` or `cosine`";
    IdleParam::unless(works, "warmup_steps", "lr_schedule", serves)
}

/// Clips that are not trained on, and how often they are looked at, go together.
pub(super) fn check_held_out(
    every: Option<usize>,
    around: &Surroundings<'_>,
) -> Option<CheckError> {
    match (every, around.has(HELD_OUT)) {
        (Some(_), false) => Some(CheckError::new(
            Cause::Param("held_out_every"),
            "`held_out_every` needs the input `held_out`",
            "connect a `vae_encode` stage of clips that are not trained on to `held_out`",
        )),
        (None, true) => Some(CheckError::new(
            Cause::Param("inputs"),
            "an input `held_out` does nothing without the parameter `held_out_every`",
            "add `held_out_every = 100`, the steps between two looks at it",
        )),
        _ => None,
    }
}

/// Reads the clips on `held_out`, if the training looks at them.
pub(super) fn read_held_out(
    every: Option<usize>,
    inputs: &Inputs<'_>,
    denoiser: &dyn Denoiser,
    text: usize,
    device: &Device,
    cx: &StageContext<'_>,
) -> Result<Option<HeldOut>, StageError> {
    let Some(every) = every else { return Ok(None) };
    let names = inputs.items(HELD_OUT).iter().map(|item| item.name.clone());
    let examples = read_examples(HELD_OUT, inputs, denoiser, text, device, cx)?;
    let clips = names.zip(examples).map(|(name, example)| HeldOutClip { name, example }).collect();
    Ok(Some(HeldOut { every, clips }))
}

/// The part of a training's log on clips that were not trained on; nothing if there were none.
pub(super) fn log_held_out(log: &mut Value, held_out: &[Evaluation]) {
    if !held_out.is_empty() {
        log["held_out"] = json!({
            "quantiles": QUANTILES.map(|quantile| quantile.share),
            "losses": held_out,
        });
    }
}

/// Reads the clips on a port onto the device, padded to the frames the denoiser takes.
pub(super) fn read_examples(
    port: &str,
    inputs: &Inputs<'_>,
    denoiser: &dyn Denoiser,
    text: usize,
    device: &Device,
    cx: &StageContext<'_>,
) -> Result<Vec<Example>, StageError> {
    let items = inputs.items(port);
    let mut first: Option<([usize; 4], &str)> = None;
    let mut examples = Vec::with_capacity(items.len());
    for item in items {
        cx.cancel.check()?;
        let read = ClipLatents::from_bytes(&inputs.read(item, latents::FILE)?)
            .map_err(|e| StageError::failed(e.to_string()).on_item(&item.name))?;
        let shape @ [c, f, h, w] = read.clip.shape;
        let (wanted, of) = *first.get_or_insert((shape, &item.name));
        if shape != wanted {
            return Err(StageError::failed(format!(
                "all clips must have one size, but the latents of `{of}` are {wanted:?} and these \
                 are {shape:?}"
            ))
            .on_item(&item.name)
            .with_help("give the clips one `size` and one number of frames"));
        }
        check_channels(c, denoiser).map_err(|e| e.on_item(&item.name))?;
        denoiser
            .check_size([f, h, w], text)
            .map_err(|e| StageError::failed(format!("the clip does not fit the model: {e}")))
            .map_err(|e| e.on_item(&item.name))?;
        let images = images(read.images, &read.clip, denoiser.image_conditioning())
            .map_err(|e| e.on_item(&item.name))?;
        let clip = TensorData::new(read.clip.values, [1, c, f, h, w]);
        let images = TensorData::new(images.values, images.shape);
        examples.push(Example {
            latents: denoiser.pad_frames(Tensor::from_data(clip, device)),
            images: Tensor::from_data(images, &Device::flex()),
        });
    }
    if examples.is_empty() {
        let what = if port == HELD_OUT { "look at on `held_out`" } else { "train on" };
        return Err(StageError::failed(format!("there are no clips to {what}"))
            .with_help("give the data set a `count` of at least 1"));
    }
    Ok(examples)
}

/// What a clip's image is drawn from: the encodings of it, or the first frame of the clip where
/// that is the image.
fn images(
    encoded: Array<5>,
    clip: &Array<4>,
    conditioning: ImageConditioning,
) -> Result<Array<5>, StageError> {
    if conditioning == ImageConditioning::FirstFrame {
        let [c, f, h, w] = clip.shape;
        let firsts = clip.values.chunks(f * h * w).flat_map(|channel| &channel[..h * w]);
        return Ok(Array { shape: [1, c, 1, h, w], values: firsts.copied().collect() });
    }
    if encoded.shape[0] > 0 {
        return Ok(encoded);
    }
    let message =
        "the latents hold no encoding of the image, which this model is given beside the clip";
    Err(StageError::failed(message).with_help("encode the clips with the model that is trained"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::{LoraTrain, Pretrain, Sample, ShellCommand};

    #[test]
    fn a_training_that_diverged_says_what_helps_and_what_is_left() {
        let told = |step, last_loss, kept| {
            let what = "the loss".to_owned();
            let diverged = Diverged { what, step, learning_rate: 0.5, last_loss, kept };
            match train_error(TrainError::NotFinite(diverged)) {
                StageError::Failed { message, help: Some(help), .. } => (message, help),
                other => panic!("{other:?}"),
            }
        };
        let (message, help) = told(5, Some(0.25), Some(3));
        assert_eq!(
            message,
            "the loss is not a finite number at step 5 (learning rate 5e-1); the last loss that was is \
             0.2500"
        );
        assert!(help.starts_with("lower `learning_rate`, clip gradients"), "{help}");
        assert!(help.ends_with("with `steps = 3` a training ends there"), "{help}");
        let (_, help) = told(5, Some(0.25), None);
        assert!(help.ends_with("`warmup_steps`"), "{help}");
        let (_, help) = told(1, None, None);
        assert!(help.starts_with("the model's weights, or the latents"), "{help}");
    }

    #[test]
    fn the_image_is_an_encoding_of_it_or_the_first_frame() {
        use ImageConditioning::{Channels, FirstFrame};
        let clip = Array { shape: [2, 2, 1, 2], values: (0..8).map(|v| v as f32).collect() };
        let encoded = |k| Array { shape: [k, 2, 1, 1, 2], values: vec![9.0; 4 * k] };
        let first = Array { shape: [1, 2, 1, 1, 2], values: vec![0.0, 1.0, 4.0, 5.0] };
        for k in [0, 1] {
            assert_eq!(images(encoded(k), &clip, FirstFrame).unwrap(), first);
        }
        assert_eq!(images(encoded(3), &clip, Channels).unwrap(), encoded(3));
        let error = images(encoded(0), &clip, Channels).unwrap_err().to_string();
        assert!(error.contains("no encoding of the image"), "{error}");
    }

    #[test]
    fn the_default_stands_for_a_parameter_without_effect() {
        fn check<S: StageKind>(params: Value) {
            let stage: S = serde_json::from_value(params).unwrap();
            let defaults = serde_json::to_value(&stage).unwrap();
            assert!(!stage.params_without_effect().is_empty());
            for (name, standing) in stage.params_without_effect() {
                assert_eq!(defaults[name], json!(standing), "{name} of {}", S::KIND);
            }
        }
        check::<Sample>(json!({ "model": "builtin:tiny" }));
        check::<ShellCommand>(json!({ "command": "true", "outputs": ["x"] }));
        check::<LoraTrain>(json!({ "model": "builtin:tiny", "steps": 1 }));
        check::<Pretrain>(json!({
            "part": "vae", "steps": 1, "learning_rate": 0.01, "lr_schedule": "constant",
            "loss": { "l1": 1.0, "edges": 0.5, "kl": 1e-5 }, "ema_decay": 0.9, "config": {},
        }));
    }
}
