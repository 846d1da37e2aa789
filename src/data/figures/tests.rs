use std::collections::HashMap;

use image::RgbImage;

use super::color::{Color, POSE_COLORS};
use super::{
    ClipKind, FIGURE, MIXTURE, PAIRS, Split, clip_kind, depth, figure, photograph, rng::Rng,
    scene::Scene, world_clip,
};

const SIZE: [usize; 2] = [64, 64];

fn share(image: &RgbImage, color: Color, tolerance: f32) -> f32 {
    let near = image.pixels().filter(|pixel| {
        (0..3).all(|channel| (f32::from(pixel.0[channel]) - color[channel]).abs() <= tolerance)
    });
    near.count() as f32 / (image.width() * image.height()) as f32
}

/// Black for the most part, with each of the pose task's colours on it.
fn is_pose_target(image: &RgbImage) -> bool {
    share(image, [0.0; 3], 30.0) > 0.6
        && POSE_COLORS.iter().all(|color| share(image, *color, 60.0) > 0.002)
}

/// Nothing but black and white.
fn is_mask(image: &RgbImage) -> bool {
    let (black, white) = (share(image, [0.0; 3], 12.0), share(image, [255.0; 3], 12.0));
    black + white > 0.97 && black > 0.03 && white > 0.03
}

#[test]
fn items_depend_on_seed_and_index_only() {
    let once = figure(7, 3, SIZE);
    let _other = figure(7, 4, SIZE);
    let again = figure(7, 3, SIZE);
    assert_eq!((&once.image, &once.mask), (&again.image, &again.mask));
    assert_eq!(once.persons, again.persons);
    assert_ne!(once.image, figure(8, 3, SIZE).image);
    assert_ne!(once.image, figure(Split::Test.seed(7), 3, SIZE).image);
    assert_eq!(world_clip(7, 3, SIZE, 9), world_clip(7, 3, SIZE, 9));
}

#[test]
fn bytes_are_the_same_on_every_platform() {
    let mut hasher = blake3::Hasher::new();
    for index in 0..8 {
        let sample = figure(42, index, [64, 96]);
        hasher.update(sample.image.as_raw());
        hasher.update(sample.mask.expect("a figure has a mask").as_raw());
        for frame in world_clip(42, index, SIZE, 9) {
            hasher.update(frame.as_raw());
        }
    }
    insta::assert_snapshot!(hasher.finalize().to_hex().as_str()[..16], @"e5544f6fcc3bdae0");
}

#[test]
fn keypoints_lie_on_the_figure() {
    let (mut on, mut all) = (0, 0);
    for index in 0..200 {
        let sample = figure(1, index, [64, 96]);
        let mask = sample.mask.expect("a figure has a mask");
        assert!(matches!(sample.persons.len(), 1 | 2));
        for [x, y, visibility] in sample.persons.iter().flat_map(|person| person.keypoints) {
            assert!(visibility > 0.0, "figure {index} leaves the image");
            all += 1;
            on += usize::from(mask.get_pixel(x as u32, y as u32).0[0] == 255);
        }
    }
    assert!(on as f32 / all as f32 > 0.98, "{on} of {all}");
}

#[test]
fn distances_are_those_of_the_floor_and_the_figures_of_the_picture() {
    let (mut floors, mut distances) = (0, Vec::new());
    for index in 0..100 {
        let scene = Scene::figures(&mut Rng::new(FIGURE, 1, index), SIZE, PAIRS);
        let (depth, sample) = (depth(1, index, SIZE), figure(1, index, SIZE));
        let mask = sample.mask.expect("a figure has a mask");
        let edge = scene.background.floor_edge();
        floors += usize::from(edge.is_some());
        // What no figure covers: the wall, and the floor from where the picture shows its edge.
        for (x, y, metres) in depth.enumerate_pixels() {
            let below = (y as f32 + 0.5) / 64.0 - edge.unwrap_or(1.0);
            let behind = if below <= 0.0 { 6.0 } else { 6.0 / (1.0 + 6.0 * below) };
            if mask.get_pixel(x, y).0[0] == 0 {
                assert!((metres.0[0] - behind).abs() < 1e-4, "figure {index} at {x}, {y}");
            } else {
                assert!(metres.0[0] <= behind + 1e-4, "figure {index} at {x}, {y}");
                distances.push(metres.0[0]);
            }
        }
        // Who stands on the floor is where it is under the feet.
        if scene.actors.len() == 1
            && let Some(edge) = edge
        {
            let feet =
                (0..64u32).rev().find(|y| (0..64).any(|x| mask.get_pixel(x, *y).0[0] == 255));
            let feet = feet.expect("a figure is seen");
            let at = (0..64).find(|x| mask.get_pixel(*x, feet).0[0] == 255).expect("as found");
            let below = (feet as f32 + 0.5) / 64.0 - edge;
            if below > 0.0 {
                let found = depth.get_pixel(at, feet).0[0];
                assert!((found - 6.0 / (1.0 + 6.0 * below)).abs() < 1e-4, "figure {index}");
            }
        }
    }
    assert!((30..60).contains(&floors), "{floors}");
    distances.sort_by(f32::total_cmp);
    let (low, high) = (distances[distances.len() / 10], distances[distances.len() * 9 / 10]);
    assert!(low > 1.4 && high < 4.5 && high > 1.3 * low, "{low} {high}");
}

#[test]
fn photographs_have_edges_off_the_figure() {
    let share = |sample: &crate::data::Sample| {
        let edges = crate::data::transforms::edges::canny(&sample.image, [50.0, 100.0]);
        let mask = sample.mask.as_ref().expect("a figure has a mask");
        let white =
            |(edge, mask): &(&image::Rgb<u8>, &image::Luma<u8>)| edge.0[0] == 255 && mask.0[0] == 0;
        edges.pixels().zip(mask.pixels()).filter(white).count() as f32 / 4096.0
    };
    let (mut plain, mut rich) = (0.0, Vec::new());
    for index in 0..60 {
        let (quiet, textured) = (figure(3, index, SIZE), photograph(3, index, SIZE));
        assert_eq!((quiet.mask.as_ref(), &quiet.id), (textured.mask.as_ref(), &textured.id));
        plain += share(&quiet) / 60.0;
        rich.push(share(&textured));
    }
    rich.sort_by(f32::total_cmp);
    assert!(rich[6] > 0.005, "nine of ten have edges: {rich:?}");
    let mean = rich.iter().sum::<f32>() / 60.0;
    assert!(mean > 1.2 * plain, "{plain} {mean}");
}

#[test]
fn figures_are_large() {
    let mut shares = Vec::new();
    for index in 0..200 {
        let sample = figure(1, index, SIZE);
        let mask = sample.mask.expect("a figure has a mask");
        let rows: Vec<u32> =
            (0..64).filter(|y| (0..64).any(|x| mask.get_pixel(x, *y).0[0] == 255)).collect();
        let height = rows.len() as f32 / 64.0;
        assert!(height > 0.45, "figure {index} fills {height}");
        shares.push(height);
    }
    shares.sort_by(f32::total_cmp);
    assert!(shares[20] > 0.6, "nine of ten fill 60 % of the height, not {}", shares[20]);
}

#[test]
fn left_is_the_figures_own_left() {
    for index in 0..50 {
        for person in figure(2, index, SIZE).persons {
            let points = person.keypoints;
            assert!(points[5][0] > points[6][0] && points[11][0] > points[12][0]);
            assert!(points[0][1] < points[11][1], "the nose is above the hips");
        }
    }
}

#[test]
fn clips_have_the_size_and_frames_asked_for() {
    for index in 0..60 {
        let clip = world_clip(5, index, [32, 48], 5);
        assert_eq!(clip.len(), 5);
        assert!(clip.iter().all(|frame| frame.dimensions() == (48, 32)));
        assert_eq!(world_clip(5, index, [32, 48], 1).len(), 1);
    }
}

#[test]
fn kinds_follow_the_mixture() {
    let mut counts: HashMap<ClipKind, u32> = HashMap::new();
    for index in 0..4000 {
        *counts.entry(clip_kind(3, index)).or_default() += 1;
    }
    assert_eq!(MIXTURE.iter().map(|(_, weight)| weight).sum::<u32>(), 100);
    for (kind, weight) in MIXTURE {
        let expected = 40.0 * weight as f32;
        let count = counts[&kind] as f32;
        assert!((count - expected).abs() < 0.15 * expected + 20.0, "{kind:?}: {count}");
    }
}

#[test]
fn no_clip_shows_a_task_target() {
    for index in 0..500 {
        for (at, frame) in world_clip(0, index, SIZE, 9).iter().enumerate() {
            assert!(!is_pose_target(frame), "clip {index}, frame {at} has the pose palette");
            assert!(!is_mask(frame), "clip {index}, frame {at} is a mask");
        }
    }
}

#[test]
fn the_palette_check_finds_a_pose_target() {
    let mut drawing = RgbImage::new(64, 64);
    for (at, color) in POSE_COLORS.iter().enumerate() {
        for x in 0..20 {
            drawing.put_pixel(x, at as u32 * 9, image::Rgb(color.map(|value| value as u8)));
        }
    }
    assert!(is_pose_target(&drawing));
}

/// Pictures to look at, in the folder `PIPE_SHEETS`:
/// `PIPE_SHEETS=/tmp cargo test --release --lib figures::tests::sheets -- --ignored`.
#[test]
#[ignore = "writes contact sheets for people to look at"]
fn sheets() {
    #[expect(clippy::disallowed_methods, reason = "it writes where a person wants it")]
    let folder = std::env::var("PIPE_SHEETS").expect("PIPE_SHEETS names a folder");
    for size in [[64, 64], [64, 96]] {
        let tiles: Vec<Vec<RgbImage>> = (0..6)
            .map(|row| (0..10).map(|at| figure(1, row * 10 + at, size).image).collect())
            .collect();
        let name = format!("{folder}/figures_{}x{}.png", size[0], size[1]);
        sheet(&tiles, 2).save(name).expect("the folder can be written");
    }
    let pictures = (0..6u64).map(|row| {
        let pair = |at| {
            let image = photograph(1, row * 6 + at, SIZE).image;
            let edges = crate::data::transforms::edges::canny(&image, [50.0, 100.0]);
            [image, edges]
        };
        (0..6).flat_map(pair).collect()
    });
    let pictures: Vec<Vec<RgbImage>> = pictures.collect();
    sheet(&pictures, 2).save(format!("{folder}/photographs.png")).expect("writable");
    let distances = (0..6u64).map(|row| {
        let pair = |at| {
            let metres = depth(1, row * 6 + at, SIZE);
            let grey = |x, y| ((8.0 - metres.get_pixel(x, y).0[0]) * 36.0) as u8;
            let drawn = RgbImage::from_fn(64, 64, |x, y| image::Rgb([grey(x, y); 3]));
            [figure(1, row * 6 + at, SIZE).image, drawn]
        };
        (0..6).flat_map(pair).collect()
    });
    let distances: Vec<Vec<RgbImage>> = distances.collect();
    sheet(&distances, 2).save(format!("{folder}/distances.png")).expect("writable");
    let large: Vec<Vec<RgbImage>> =
        vec![(0..4).map(|at| figure(1, at, [256, 384]).image).collect()];
    sheet(&large, 1).save(format!("{folder}/figures_large.png")).expect("writable");
    for (kind, _) in MIXTURE {
        let clips: Vec<Vec<RgbImage>> = (0..)
            .filter(|index| clip_kind(1, *index) == kind)
            .take(if kind == ClipKind::Appearance { 24 } else { 12 })
            .map(|index| world_clip(1, index, SIZE, 9))
            .collect();
        let name = format!("{folder}/figures_world_{kind:?}.png");
        sheet(&clips, 1).save(name).expect("the folder can be written");
    }
}

/// `cargo test --release --lib figures::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let start = std::time::Instant::now();
    let frames: usize = (0..1000).map(|index| world_clip(9, index, SIZE, 9).len()).sum();
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} clips of 9 frames per second", frames as f64 / 9.0 / seconds);
    for (kind, _) in MIXTURE {
        let start = std::time::Instant::now();
        let indices = (0..).filter(|index| clip_kind(9, *index) == kind).take(100);
        let frames: usize = indices.map(|index| world_clip(9, index, SIZE, 9).len()).sum();
        println!("{kind:?}: {:.0} per second", frames as f64 / 9.0 / start.elapsed().as_secs_f64());
    }
    let start = std::time::Instant::now();
    let samples: usize = (0..1000).map(|index| figure(9, index, SIZE).persons.len()).sum();
    println!(
        "{:.0} samples per second ({samples} persons)",
        1000.0 / start.elapsed().as_secs_f64()
    );
}

fn sheet(rows: &[Vec<RgbImage>], zoom: u32) -> RgbImage {
    let (width, height) = rows[0][0].dimensions();
    let (step_x, step_y) = (width * zoom + 4, height * zoom + 4);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut sheet = RgbImage::new(columns * step_x, rows.len() as u32 * step_y);
    for (row, images) in rows.iter().enumerate() {
        for (column, image) in images.iter().enumerate() {
            for (x, y, pixel) in image.enumerate_pixels() {
                for (dx, dy) in (0..zoom * zoom).map(|at| (at % zoom, at / zoom)) {
                    sheet.put_pixel(
                        column as u32 * step_x + x * zoom + dx,
                        row as u32 * step_y + y * zoom + dy,
                        *pixel,
                    );
                }
            }
        }
    }
    sheet
}
