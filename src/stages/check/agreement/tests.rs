use super::*;

fn uses(scale: Option<ImageLatentScale>) -> ImageUse {
    ImageUse { scale, causal_time: false, frame_rate: None, side: Side::Sampling }
}

fn rule(rule: ScaleRule) -> ImageLatentScale {
    ImageLatentScale::Rule(rule)
}

fn factor(factor: f64) -> ImageLatentScale {
    ImageLatentScale::Factor(factor)
}

#[test]
fn multiples_must_be_the_same_unless_the_mismatch_is_meant() {
    let vae = json!({ "scaling_factor": 0.7, "invert_scale_latents": true });
    let fits = |trained: Option<ImageLatentScale>, sampled| {
        let record = uses(trained).record(Some(&vae));
        let found = uses(sampled).check(("lora", record), ImageConditioning::Channels, &vae);
        found.unwrap().is_none()
    };
    let meant = Some(MEANT);
    assert!(fits(None, None) && fits(None, Some(rule(ScaleRule::Inverse))));
    assert!(
        fits(Some(factor(1.4286)), None) && fits(Some(factor(0.7)), Some(rule(ScaleRule::Direct)))
    );
    assert!(fits(meant, meant));
    assert!(!fits(None, Some(factor(1.0))) && !fits(Some(factor(0.7)), None));
    assert!(!fits(meant, None));
    assert!(!fits(Some(rule(ScaleRule::Direct)), meant));
    let nothing = ("lora", ImageRecord::default());
    let error = uses(Some(factor(9.0))).check(nothing, ImageConditioning::Channels, &vae);
    assert_eq!(error.unwrap(), None);
}

#[test]
fn a_multiple_is_shown_with_as_few_digits_as_tell_it() {
    let multiples = [0.0, 1.0 / 0.7, 2e-5, 999_999.0, 1e300];
    assert_eq!(multiples.map(shown), ["0.0000", "1.4286", "2e-5", "999999.0000", "1e300"]);
}

#[test]
fn time_must_be_counted_in_one_way() {
    let error = |side, here, trained, port| {
        let own = ImageUse { scale: None, causal_time: here, frame_rate: None, side };
        let trained = ImageRecord { causal_time: Some(trained), ..ImageRecord::default() };
        let frame = ImageConditioning::FirstFrame;
        own.check((port, trained), frame, &json!({})).unwrap().map(|error| error.message)
    };
    for side in [Side::Sampling, Side::Training] {
        for causal in [true, false] {
            assert_eq!(error(side, causal, causal, "lora"), None);
        }
        let without = error(side, true, false, "lora").unwrap();
        let with = error(side, false, true, "model").unwrap();
        assert!(without.contains("the adapter was trained without"), "{without}");
        assert!(with.contains("the model on `model` was trained with `causal_time`"), "{with}");
    }
}

#[test]
fn the_log_of_an_adapter_says_how_it_was_trained() {
    let log = json!({ "image_latent_scale": 0.7, "settings": { "image_latent_scale": null } });
    let record = |scale, causal_time| ImageRecord {
        scale: Some(scale),
        causal_time: Some(causal_time),
        frame_rate: Some(25.0),
    };
    let wanted = record(factor(0.7), false);
    assert_eq!(ImageRecord::of_log(&log), wanted);
    let meant = json!({
        "image_latent_scale": 0.7,
        "settings": { "image_latent_scale": "paper_mismatch", "causal_time": true },
    });
    let wanted = record(MEANT, true);
    assert_eq!(ImageRecord::of_log(&meant), wanted);
    assert_eq!(ImageRecord::of_log(&json!({ "merged": {} })), ImageRecord::default());
}

#[test]
fn the_log_of_a_merge_is_read_as_it_was_written() {
    for scale in [None, Some(factor(0.7)), Some(MEANT), Some(rule(ScaleRule::Direct))] {
        for causal_time in [None, Some(false), Some(true)] {
            for frame_rate in [None, Some(25.0), Some(12.5)] {
                let record = ImageRecord { scale, causal_time, frame_rate };
                let mut log = json!({ "merged": {} });
                record.write(&mut log);
                assert_eq!(ImageRecord::of_log(&log), record, "{log}");
                assert_eq!(ImageRecord::of_model(&log, None), record, "{log}");
            }
        }
    }
}

#[test]
fn the_log_of_a_full_training_says_how_it_was_trained() {
    let vae = json!({ "scaling_factor": 0.5, "invert_scale_latents": true });
    let log = |part: &str, steps: usize, scale: Value| json!({ "settings": { "part": part, "steps": steps, "image_latent_scale": scale } });
    let scale = |log: &Value| ImageRecord::of_model(log, Some(&vae)).scale;
    assert_eq!(scale(&log("transformer", 5, json!(null))), Some(factor(2.0)));
    assert_eq!(scale(&log("transformer", 5, json!("direct"))), Some(factor(0.5)));
    assert_eq!(scale(&log("transformer", 5, json!(0.3))), Some(factor(0.3)));
    for untrained in [log("transformer", 0, json!(0.3)), log("vae", 5, json!(null))] {
        assert_eq!(ImageRecord::of_model(&untrained, Some(&vae)), ImageRecord::default());
    }
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let of = |scale, causal_time| ImageRecord { scale, causal_time, frame_rate: None };
    let agreed = |records: &[(&'static str, ImageRecord)]| {
        ImageRecord::agreed(records.iter().copied()).map_err(|error| error.message)
    };
    let one = of(Some(factor(0.3)), Some(false));
    let nothing = ImageRecord::default();
    let all = [("first", one), ("second", nothing), ("third", of(Some(factor(0.3)), None))];
    assert_eq!(agreed(&all), Ok(one));
    assert_eq!(agreed(&[("first", nothing)]), Ok(nothing));
    assert_eq!(agreed(&[]), Ok(nothing));
    let differ = |a, b| agreed(&[("first", a), (FILES, b)]).unwrap_err();
    insta::assert_snapshot!(differ(one, of(Some(factor(0.9)), None)), @"the image's latent was multiplied by 0.3000 in the training of the adapter on `first`, but by 0.9000 in that of the adapters of `files`: no sampling is right for both");
    insta::assert_snapshot!(differ(one, of(Some(MEANT), None)), @"the image's latent was multiplied by 0.3000 in the training of the adapter on `first`, but by `paper_mismatch` in that of the adapters of `files`: no sampling is right for both");
    insta::assert_snapshot!(differ(one, of(None, Some(true))), @"time was counted from the first video frame in the training of the adapters of `files`, but by latent frames in that of the adapter on `first`: no sampling is right for both");
}

#[test]
fn what_is_not_known_is_told_by_family() {
    let trained = Trainings { without_time: Some("read".into()), ..Trainings::default() };
    assert_eq!(trained.warning(ImageConditioning::Channels), None);
    insta::assert_snapshot!(trained.warning(ImageConditioning::FirstFrame).unwrap(), @"samples with adapters of `files` whose training is not known: broken motion would be the only sign of a mismatch; state `causal_time` in `read`, as it was in their training");
}

#[test]
fn another_latent_of_the_image_is_told() {
    use PosteriorChoice::{Mean, Sample};
    let told = |then: Option<PosteriorChoice>, now| {
        let posterior = then.map(|then| (then, "latents".into()));
        let trained = Trainings { posterior, ..Trainings::default() };
        trained.other_posterior(now).map(|warning| warning.message)
    };
    assert_eq!(
        [told(None, Mean), told(Some(Mean), Mean), told(Some(Sample), Sample)],
        [None, None, None]
    );
    insta::assert_snapshot!(told(Some(Mean), Sample).unwrap(), @r#"takes a draw from the posterior for the image's latent, but training had the mean of it, from `latents`; for the same, set `posterior = "mean"`"#);
    insta::assert_snapshot!(told(Some(Sample), Mean).unwrap(), @r#"takes the mean of the posterior for the image's latent, but training had a draw from it, from `latents`; for the same, set `posterior = "sample"`"#);
}

#[test]
fn clips_must_have_one_frame_rate() {
    let frame = ImageConditioning::FirstFrame;
    let error = |now, then| {
        let own = ImageUse { frame_rate: now, ..uses(None) };
        let trained =
            ImageUse { frame_rate: then, side: Side::Training, ..uses(None) }.record(None);
        own.check(("lora", trained), frame, &json!({})).unwrap().map(|error| error.message)
    };
    assert_eq!((error(Some(12.5), Some(12.5)), error(Some(25.0), None)), (None, None));
    insta::assert_snapshot!(error(Some(12.5), None).unwrap(), @"the clips have 12.5 frames per second here, but 25 in the training of the adapter");
    assert!(error(None, Some(12.5)).is_some());
    let of = |rate| ImageRecord { frame_rate: Some(rate), ..ImageRecord::default() };
    let told = ImageRecord::agreed([("first", of(25.0)), ("second", of(12.5))]).unwrap_err();
    insta::assert_snapshot!(told.message, @"the clips had 25 frames per second in the training of the adapter on `first`, but 12.5 in that of the adapter on `second`: no sampling is right for both");
}

/// The training of what lies in a folder is over, so only this side can follow the other.
#[test]
fn beside_a_folder_it_is_said_what_to_set() {
    let vae = json!({ "scaling_factor": 0.7, "invert_scale_latents": true });
    let own =
        |scale| ImageUse { scale, causal_time: false, frame_rate: None, side: Side::Sampling };
    let help = |trained, own: ImageUse, conditioning| {
        own.check((FOLDER, trained), conditioning, &vae).unwrap().unwrap().help.unwrap()
    };
    let scaled = |scale| ImageRecord { scale: Some(scale), ..ImageRecord::default() };
    let channels = ImageConditioning::Channels;
    for (trained, wanted) in [
        (factor(0.7), "set `image_latent_scale = 0.7`, as in that training"),
        (factor(0.123_456_7), "set `image_latent_scale = 0.1235`, as in that training"),
        (factor(0.001_234_567), "set `image_latent_scale = 0.001234567`, as in that training"),
    ] {
        assert_eq!(help(scaled(trained), own(None), channels), wanted);
        let digits = wanted.split(['=', '`']).nth(2).unwrap().trim().parse().unwrap();
        let followed = own(Some(factor(digits)));
        let error = followed.check((FOLDER, scaled(trained)), channels, &vae).unwrap();
        assert!(error.is_none(), "{error:?}");
    }
    let meant = help(scaled(MEANT), own(None), channels);
    assert!(
        meant.starts_with("set `image_latent_scale = 0.7`, as in that training, or"),
        "{meant}"
    );
    let rate = ImageRecord { frame_rate: Some(12.5), ..ImageRecord::default() };
    let told = help(rate, own(None), ImageConditioning::FirstFrame);
    assert_eq!(told, "set `frame_rate = 12.5`, as in that training");
}
