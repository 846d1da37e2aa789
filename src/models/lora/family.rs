//! Of which family of models an adapter is: programs load the same modules by different names.

use super::{Adapter, LoadError, error};

/// A family of models whose adapters other programs load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraFamily {
    /// CogVideoX and CogVideoX 1.5.
    CogVideoX,
    /// LTX-Video.
    LtxVideo,
}

use LoraFamily::{CogVideoX, LtxVideo};

/// Parts of module names that one family alone has. Both have `attn1` and `ff`.
const MODULES: &[(LoraFamily, &[&str])] = &[
    (
        CogVideoX,
        &[
            ".norm1.linear.",
            ".norm2.linear.",
            ".patch_embed.",
            ".time_embedding.",
            ".norm_out.linear.",
        ],
    ),
    (LtxVideo, &[".attn2.", ".proj_in.", ".time_embed.", ".caption_projection."]),
];

/// The width of `attn1` in each published size: 2B and 5B, and 2B and 13B.
const WIDTHS: &[(LoraFamily, &[usize])] = &[(CogVideoX, &[1920, 3072]), (LtxVideo, &[2048, 4096])];

impl LoraFamily {
    /// The family of a transformer's class.
    pub fn of_class(class: &str) -> Option<Self> {
        match class {
            "CogVideoXTransformer3DModel" => Some(CogVideoX),
            "LTXVideoTransformer3DModel" => Some(LtxVideo),
            _ => None,
        }
    }

    /// The name that people know.
    pub fn name(self) -> &'static str {
        match self {
            CogVideoX => "CogVideoX",
            LtxVideo => "LTX-Video",
        }
    }
}

impl Adapter {
    /// The family that the adapter is of by what it is made of: modules that one family alone has,
    /// else the width of a published model; none where neither tells.
    pub fn family(&self) -> Result<Option<LoraFamily>, LoadError> {
        let modules = self.modules();
        let has = |part: &&str| modules.iter().any(|module| format!(".{module}.").contains(*part));
        let found: Vec<_> = MODULES
            .iter()
            .filter_map(|(family, parts)| Some((*family, parts.iter().find(|part| has(part))?)))
            .collect();
        match found[..] {
            [] => Ok(self.family_by_width()),
            [(family, _)] => Ok(Some(family)),
            [(a, of_a), (b, of_b), ..] => Err(error(format!(
                "modules of {} (`{}`) and of {} (`{}`) cannot stand in one adapter",
                a.name(),
                of_a.trim_matches('.'),
                b.name(),
                of_b.trim_matches('.')
            ))),
        }
    }

    fn family_by_width(&self) -> Option<LoraFamily> {
        let module = self.modules().into_iter().find(|module| module.contains(".attn1.to_"))?;
        let (a, _) = self.factors(module)?;
        let width = *a.shape.get(1)?;
        WIDTHS.iter().find(|(_, widths)| widths.contains(&width)).map(|(family, _)| *family)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::{super::super::params::Params, super::param, *};

    /// An adapter of rank 1 on these modules, of layers of this width.
    fn adapter(modules: &[&str], width: usize) -> Adapter {
        let device = Device::flex();
        let mut factors = Params::default();
        for module in modules {
            let one = |shape| param(vec![0.0; width], shape, &device);
            factors.0.insert(format!("{module}.lora_A.weight"), one([1, width]));
            factors.0.insert(format!("{module}.lora_B.weight"), one([width, 1]));
        }
        Adapter { rank: 1, alpha: 1.0, factors }
    }

    #[test]
    fn a_family_is_told_by_modules_or_by_a_published_width() {
        let attn1 = "transformer_blocks.0.attn1.to_q";
        for (modules, width, wanted) in [
            (&[attn1, "transformer_blocks.0.attn2.to_q"][..], 8, Some(LtxVideo)),
            (&["proj_in"], 8, Some(LtxVideo)),
            (&["caption_projection.linear_1"], 8, Some(LtxVideo)),
            (&["time_embed.emb.timestep_embedder.linear_1"], 8, Some(LtxVideo)),
            (&[attn1, "transformer_blocks.0.norm1.linear"], 8, Some(CogVideoX)),
            (&["time_embedding.linear_1"], 8, Some(CogVideoX)),
            (&["patch_embed.proj"], 8, Some(CogVideoX)),
            (&[attn1], 3072, Some(CogVideoX)),
            (&[attn1], 1920, Some(CogVideoX)),
            (&[attn1], 2048, Some(LtxVideo)),
            (&[attn1], 8, None),
            (&["transformer_blocks.0.ff.net.2", "proj_out"], 8, None),
        ] {
            assert_eq!(adapter(modules, width).family().unwrap(), wanted, "{modules:?} {width}");
        }
        let both = adapter(&["proj_in", "norm_out.linear"], 8).family().unwrap_err();
        insta::assert_snapshot!(both.to_string(), @"`pytorch_lora_weights.safetensors`: modules of CogVideoX (`norm_out.linear`) and of LTX-Video (`proj_in`) cannot stand in one adapter");
    }
}
