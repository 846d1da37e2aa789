use serde_json::json;

use super::*;

fn transformer(mut config: Value) -> Result<TransformerConfig, String> {
    config["in_channels"] = json!(32);
    TransformerConfig::parse(&config).map_err(|error| error.to_string())
}

#[test]
fn settings_without_code_are_errors() {
    for (config, named) in [
        (json!({"activation_fn": "geglu"}), "activation_fn"),
        (json!({"attention_window": 3}), "attention_window"),
    ] {
        assert!(transformer(config).unwrap_err().contains(named));
    }
    let many = TransformerConfig::parse(&json!({"in_channels": "many"})).unwrap_err();
    assert!(many.to_string().contains("`in_channels` cannot be read: invalid type"), "{many}");
    let vae = VaeConfig::parse(&json!({"use_quant_conv": true})).unwrap_err().to_string();
    assert_eq!(vae, "`vae/config.json`: `use_quant_conv` must be false, but is true");
}

#[test]
fn sizes_of_zero_are_errors() {
    for key in ["num_attention_heads", "attention_head_dim", "time_embed_dim", "sample_frames"] {
        let error = transformer(json!({ key: 0 })).unwrap_err();
        assert_eq!(
            error,
            format!("`transformer/config.json`: `{key}` must be at least 1, but is 0")
        );
    }
    let blocks = json!({
        "block_out_channels": [0, 0],
        "down_block_types": [DOWN_BLOCK, DOWN_BLOCK],
        "up_block_types": [UP_BLOCK, UP_BLOCK],
    });
    for (config, key) in [
        (blocks, "block_out_channels"),
        (json!({ "latent_channels": 0 }), "latent_channels"),
        (json!({ "in_channels": 0 }), "in_channels"),
    ] {
        let error = VaeConfig::parse(&config).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}` must be")), "{error}");
    }
}

#[test]
fn sizes_beyond_all_bounds_are_errors() {
    for key in ["num_layers", "num_attention_heads", "max_text_seq_length", "sample_width"] {
        let error = transformer(json!({ key: 1_u64 << 62 })).unwrap_err();
        assert!(error.contains(&format!("`{key}` must be at most")), "{error}");
    }
    let error = transformer(json!({ "patch_size_t": 1_u64 << 40 })).unwrap_err();
    assert!(error.contains("`patch_size_t` must be at most 16"), "{error}");
    let error = transformer(json!({
        "num_attention_heads": 1 << 20, "attention_head_dim": 1 << 20,
    }));
    assert!(error.unwrap_err().contains("num_attention_heads * attention_head_dim"));
    let levels = json!({
        "block_out_channels": vec![2; 65], "norm_num_groups": 1,
        "down_block_types": vec![DOWN_BLOCK; 65], "up_block_types": vec![UP_BLOCK; 65],
    });
    for (config, wanted) in [
        (levels, "`block_out_channels` must be a list of at most 16"),
        (json!({ "layers_per_block": 1_u64 << 40 }), "`layers_per_block` must be at most 10000"),
        (json!({ "scaling_factor": 0.0 }), "`scaling_factor` must be a positive number"),
        (json!({ "scaling_factor": -0.7 }), "`scaling_factor` must be a positive number"),
    ] {
        let error = VaeConfig::parse(&config).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn bookkeeping_keys_are_ignored() {
    let config = json!({"_class_name": "x", "_diffusers_version": "0.42.1", "dropout": 0.0});
    assert_eq!(
        transformer(config).unwrap().in_channels,
        TransformerConfig { in_channels: 32, ..TransformerConfig::default() }.in_channels
    );
}

#[test]
fn values_that_nothing_can_be_built_with_are_errors() {
    for (config, wanted) in [
        (
            json!({ "spatial_interpolation_scale": 0 }),
            "`spatial_interpolation_scale` must be a pos",
        ),
        (json!({ "temporal_interpolation_scale": -1 }), "`temporal_interpolation_scale` must be a"),
        (json!({ "sample_height": 0 }), "`sample_height` must be at least 1"),
        (json!({ "patch_size": 0 }), "`patch_size` must be at least 1"),
        (json!({ "norm_eps": -1e-6 }), "`norm_eps` must be a number, not negative"),
        (json!({ "freq_shift": 960 }), "`freq_shift` must be below 960, the number of frequencies"),
        (json!({ "time_embed_dim": 9, "ofs_embed_dim": 9 }), "`ofs_embed_dim` must be null, or"),
    ] {
        let error = transformer(config).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    let levels = |count: usize, time: usize| {
        json!({
            "block_out_channels": vec![32; count], "temporal_compression_ratio": time,
            "down_block_types": vec![DOWN_BLOCK; count], "up_block_types": vec![UP_BLOCK; count],
        })
    };
    VaeConfig::parse(&levels(5, 8)).unwrap();
    for (config, wanted) in [
        (json!({ "in_channels": 4 }), "`in_channels` must be 3"),
        (json!({ "out_channels": 4 }), "`out_channels` must be 3"),
        (json!({ "layers_per_block": 0 }), "`layers_per_block` must be at least 1"),
        (json!({ "norm_num_groups": 0 }), "`norm_num_groups` must be a divisor"),
        (json!({ "norm_num_groups": 33 }), "`norm_num_groups` must be a divisor"),
        (json!({ "norm_eps": -1 }), "`norm_eps` must be a number, not negative"),
        (json!({ "scaling_factor": 1e39 }), "`scaling_factor` must be a positive number"),
        (levels(5, 16), "`temporal_compression_ratio` must be a power of two up to 8"),
        (json!({ "up_block_types": [UP_BLOCK] }), "`up_block_types` must be"),
    ] {
        let error = VaeConfig::parse(&config).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
