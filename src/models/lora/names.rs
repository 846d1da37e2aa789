//! The names of files and tensors in other programs.

/// The file of diffusers.
pub(super) const DIFFUSERS: &str = "pytorch_lora_weights.safetensors";
/// The entry of diffusers' header that states rank and alpha.
pub(super) const METADATA: &str = "lora_adapter_metadata";
/// What stands before a module's name in diffusers.
pub(super) const TRANSFORMER: &str = "transformer.";
/// What stands before a module's name in peft.
pub(super) const PEFT: &str = "base_model.model.";
/// What stands before a module's name as in the original checkpoint.
pub(super) const ORIGINAL: &str = "diffusion_model.";

/// What stands before the names of another part of the model.
pub(super) const TEXT_ENCODER: &str = "text_encoder";
/// What names of kohya's begin with, in which the dots of modules' names are lost.
pub(super) const KOHYA: [&str; 4] = ["lora_unet_", "lora_te", "lora_transformer_", "lycoris_"];

/// What names of `DoRA`'s magnitudes hold.
const MAGNITUDES: [&str; 2] = ["lora_magnitude_vector", "dora_scale"];

/// Whether a tensor holds the magnitudes that `DoRA` trains beside low-rank factors.
pub(super) fn is_magnitude(name: &str) -> bool {
    MAGNITUDES.iter().any(|magnitudes| name.contains(magnitudes))
}

/// Modules whose names in diffusers differ from those in the original checkpoints (LTX-Video), by
/// the start of the name.
const RENAMED: &[(&str, &str)] =
    &[("proj_in.", "patchify_proj."), ("time_embed.", "adaln_single.")];

/// How tools name the two factors, and how they are named here.
const FACTORS: &[(&str, &str)] = &[
    (".lora_A.default.weight", ".lora_A.weight"),
    (".lora_B.default.weight", ".lora_B.weight"),
    (".lora_down.weight", ".lora_A.weight"),
    (".lora_up.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora_B.weight"),
];

/// A tensor's name in any of these styles as `<module in diffusers>.lora_A.weight`,
/// `.lora_B.weight` or `.alpha`.
pub(super) fn from_any(name: &str) -> String {
    let name = match name.strip_prefix(ORIGINAL) {
        Some(original) => from_original(original),
        None => [TRANSFORMER, PEFT]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name)
            .to_owned(),
    };
    let factor = FACTORS.iter().find_map(|(theirs, ours)| {
        name.strip_suffix(theirs).map(|module| format!("{module}{ours}"))
    });
    factor.unwrap_or(name)
}

/// A module's name in diffusers as the one in the original checkpoint.
pub(super) fn to_original(name: &str) -> String {
    let renamed = RENAMED
        .iter()
        .find_map(|(ours, original)| Some(format!("{original}{}", name.strip_prefix(ours)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}

/// The inverse of [`to_original`].
fn from_original(name: &str) -> String {
    let renamed = RENAMED
        .iter()
        .find_map(|(ours, original)| Some(format!("{ours}{}", name.strip_prefix(original)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}
