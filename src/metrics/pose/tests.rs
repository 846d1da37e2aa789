//! Assignments and counts of small drawings.

use proptest::prelude::*;

use super::*;
use crate::data::pose::{PoseStyle, draw};

fn person() -> Person {
    let xy = [
        (32, 8),
        (30, 6),
        (34, 6),
        (27, 8),
        (37, 8),
        (24, 18),
        (40, 18),
        (18, 28),
        (46, 28),
        (14, 38),
        (50, 38),
        (27, 38),
        (37, 38),
        (25, 48),
        (39, 48),
        (24, 60),
        (40, 60),
    ];
    Person { keypoints: xy.map(|(x, y)| [x as f32, y as f32, 2.0]) }
}

#[test]
fn a_drawing_matches_itself() {
    let target = draw(&[person()], [64, 64], PoseStyle::default());
    let counts = compare(&target, &target, &[person()], PoseRule::default());
    assert_eq!((counts.matched, counts.predicted), (counts.wanted, counts.wanted));
    assert!(counts.wanted >= 4);
}

#[test]
fn spurious_components_lower_precision_but_not_the_match_rate() {
    let target = draw(&[person()], [64, 64], PoseStyle::default());
    let mut noisy = target.clone();
    for (x, y) in [(1, 1), (60, 2), (2, 50)] {
        noisy.put_pixel(x, y, Part::Arms.color());
    }
    let clean = compare(&target, &target, &[person()], PoseRule::default());
    let counts = compare(&noisy, &target, &[person()], PoseRule::default());
    assert!((counts.recall() - 1.0).abs() < 1e-9);
    assert_eq!(counts.predicted, clean.predicted + 3);
    assert!(counts.f1() < 1.0);
}

#[test]
fn the_threshold_follows_the_heads_or_the_resolution() {
    // Five points in pairs: nose to eyes 2.83, to ears 5, and so on.
    assert!((head_distance(&[person()]).unwrap() - 5.143).abs() < 0.01);
    let mut headless = person();
    for keypoint in &mut headless.keypoints[..4] {
        *keypoint = [0.0; 3];
    }
    assert_eq!(head_distance(&[headless.clone()]), None);
    // 1.5 * 20 * 64 / 480 = 4 pixels at 64x64.
    let target = draw(&[headless.clone()], [64, 64], PoseStyle::default());
    let shifted = |by: u32| {
        RgbImage::from_fn(64, 64, |x, y| {
            if x < by { image::Rgb([0; 3]) } else { *target.get_pixel(x - by, y) }
        })
    };
    let recall = |by| {
        let counts =
            compare(&shifted(by), &target, std::slice::from_ref(&headless), PoseRule::default());
        counts.recall()
    };
    assert!((recall(3) - 1.0).abs() < 1e-9);
    assert!(recall(4) < 1.0, "the threshold is exclusive");
}

#[test]
fn colours_that_a_codec_bent_still_belong_to_their_part() {
    let rule = PoseRule::default();
    let part = |rgb| part_of(rgb, rule);
    assert_eq!(part([63, 63, 63]), None);
    assert_eq!(part([200, 180, 190]), Some(Part::Head));
    assert_eq!(part([200, 90, 190]), Some(Part::Arms));
    assert_eq!(part([90, 220, 200]), Some(Part::Legs));
    assert_eq!(part([20, 80, 130]), Some(Part::Torso));
    assert_eq!(part([200, 200, 0]), Some(Part::Arms), "ties go to red");
}

#[test]
fn small_components_are_noise_at_the_reference_size_only() {
    let dots = |width, height, dot: u32| {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb(if x < dot && y < 1 { [255, 0, 0] } else { [0; 3] })
        })
    };
    let count = |image: &RgbImage| centroids(image, Part::Arms, PoseRule::default()).len();
    assert_eq!((count(&dots(720, 480, 4)), count(&dots(720, 480, 5))), (0, 1));
    assert_eq!(count(&dots(96, 64, 1)), 1);
}

#[test]
fn pooled_scores_weigh_images_by_their_components() {
    let image = |matched: f64, predicted: f64, wanted: f64| {
        named([
            ("matched", matched),
            ("predicted", predicted),
            ("wanted", wanted),
            ("match_rate", 100.0 * matched / wanted),
            ("precision", 100.0 * matched / predicted),
            ("f1", 200.0 * matched / (predicted + wanted)),
        ])
    };
    let scores = [image(1.0, 1.0, 1.0), image(1.0, 3.0, 9.0)];
    let values = PoseMetric.summary(&[&scores[0], &scores[1]]);
    assert!((values["match_rate"] - 500.0 / 9.0).abs() < 1e-9);
    assert!((values["pooled_match_rate"] - 20.0).abs() < 1e-9);
    assert!((values["pooled_precision"] - 50.0).abs() < 1e-9);
    assert!((values["pooled_f1"] - 400.0 / 14.0).abs() < 1e-9);
    assert_eq!(values.len(), 6);
}

proptest! {
    #[test]
    fn the_assignment_is_symmetric_and_ignores_order(
        (a, b) in (points(), points()),
        threshold in 0.5f64..30.0,
    ) {
        let pairs = assign(&a, &b, threshold);
        prop_assert_eq!(pairs, assign(&b, &a, threshold));
        let reversed: Vec<_> = a.iter().rev().copied().collect();
        prop_assert_eq!(pairs, assign(&reversed, &b, threshold));
        prop_assert!(pairs <= a.len().min(b.len()));
        prop_assert!(pairs <= assign(&a, &b, threshold * 2.0));
    }

    #[test]
    fn more_predictions_never_lower_the_match_rate(
        (mut a, b) in (points(), points()), extra in points(), threshold in 0.5f64..30.0,
    ) {
        let before = assign(&a, &b, threshold);
        a.extend(extra);
        prop_assert!(assign(&a, &b, threshold) >= before);
    }
}

fn points() -> impl Strategy<Value = Vec<[f64; 2]>> {
    proptest::collection::vec((0.0f64..40.0, 0.0f64..40.0).prop_map(|(x, y)| [x, y]), 0..8)
}

#[test]
fn an_empty_prediction_scores_nothing() {
    let target = draw(&[person()], [64, 64], PoseStyle::default());
    let counts = compare(&RgbImage::new(64, 64), &target, &[person()], PoseRule::default());
    assert_eq!((counts.matched, counts.predicted), (0, 0));
    assert_eq!((counts.recall(), counts.precision(), counts.f1()), (0.0, 0.0, 0.0));
}

#[test]
fn the_assignment_prefers_more_pairs_to_shorter_ones() {
    // The nearest pair alone would leave the other two beyond the threshold.
    let found = [[0.0, 0.0], [4.0, 0.0]];
    let wanted = [[3.0, 0.0], [8.0, 0.0]];
    assert_eq!(assign(&found, &wanted, 5.0), 2);
    assert_eq!(assign(&found, &wanted, 3.0), 1);
    assert_eq!(assign(&found, &wanted, 1.0), 0, "the threshold is exclusive");
}

#[test]
fn keypoints_may_be_the_targets() {
    let rule = PoseRule { targets: Targets::Keypoints, ..PoseRule::default() };
    let mut one_armed = person();
    for index in [7, 9] {
        one_armed.keypoints[index] = [0.0; 3];
    }
    assert_eq!(middles(&one_armed, Part::Arms), [[48.0, 33.0]]);
    assert_eq!(middles(&person(), Part::Legs), [[24.5, 54.0], [39.5, 54.0]]);
    // A head, a torso, and two arms and legs less the arm that is not labelled.
    let target = draw(&[one_armed.clone()], [64, 64], PoseStyle::default());
    let counts = compare(&target, &target, &[one_armed.clone()], rule);
    assert_eq!(counts.wanted, 5);
    assert!(counts.matched >= 4, "{counts:?}");
    assert_eq!(compare(&target, &target, &[], rule).wanted, 0);
}

#[test]
fn the_threshold_may_follow_the_distance_of_persons() {
    let beside = |by: f32| {
        let mut other = person();
        other.keypoints.iter_mut().for_each(|keypoint| keypoint[0] += by);
        other
    };
    assert_eq!(distance_of_heads(&[person()]), None);
    assert!((distance_of_heads(&[person(), beside(30.0)]).unwrap() - 30.0).abs() < 1e-3);
    // Of three in a row, the pairs are 10, 20 and 30 apart.
    let row = [person(), beside(10.0), beside(30.0)];
    assert!((distance_of_heads(&row).unwrap() - 20.0).abs() < 1e-3);
}
