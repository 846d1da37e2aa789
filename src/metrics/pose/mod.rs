//! Match rate, precision and F1 of pose drawings: docs/method.md, E.2.
//!
//! Both images are cut into the four parts by colour, each part into connected components, and the
//! components' centroids are assigned one to one where they are closer than a threshold. The
//! paper's match rate is the recall of that assignment and does not punish spurious components;
//! precision and F1 do.

use image::{GrayImage, Luma, RgbImage};
use imageproc::region_labelling::{Connectivity, connected_components};
use pathfinding::{kuhn_munkres::kuhn_munkres_min, matrix::Matrix};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, means, score as named, sum};
use crate::data::{
    DataError, Pair, Person,
    pose::{Part, reference_scale},
};

/// The open choices of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoseRule {
    /// A pixel belongs to a part when its brightest channel reaches this.
    pub foreground: u8,
    /// Least area of a component, in pixels at 480x720; it scales with the image's area.
    pub min_area: f64,
    /// The threshold is this many times the mean distance between a person's head keypoints.
    pub head_factor: f64,
    /// That distance where no person has two head keypoints, in pixels at 480x720.
    pub default_head: f64,
    /// What is to be found.
    pub targets: Targets,
    /// Which distance of heads the threshold follows.
    pub head_scale: HeadScale,
}

/// What is to be found in a prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// The centroids of the connected components of the target.
    #[default]
    Components,
    /// For each person the mean of the labelled keypoints of each part, left and right limbs apart.
    Keypoints,
}

/// Which distance of heads the threshold follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadScale {
    /// That between the head keypoints of a person, the size of a head.
    #[default]
    Keypoints,
    /// That between the heads of different persons.
    Persons,
}

impl Default for PoseRule {
    fn default() -> Self {
        Self {
            foreground: 64,
            min_area: 5.0,
            head_factor: 1.5,
            default_head: 20.0,
            targets: Targets::default(),
            head_scale: HeadScale::default(),
        }
    }
}

/// The counts of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoseCounts {
    /// Components assigned to each other.
    pub matched: usize,
    /// Components of the prediction.
    pub predicted: usize,
    /// Components of the target.
    pub wanted: usize,
}

impl PoseCounts {
    /// Share of the target's components that are found: the paper's match rate. In [0, 1].
    pub fn recall(self) -> f64 {
        ratio(self.matched, self.wanted)
    }

    /// Share of the prediction's components that are right; 0 if there are none.
    pub fn precision(self) -> f64 {
        ratio(self.matched, self.predicted)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(self) -> f64 {
        ratio(2 * self.matched, self.predicted + self.wanted)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Compares a prediction with its target; `persons` give the scale of a head.
pub fn compare(
    prediction: &RgbImage,
    target: &RgbImage,
    persons: &[Person],
    rule: PoseRule,
) -> PoseCounts {
    let scale = reference_scale([target.height() as usize, target.width() as usize]);
    let head = match rule.head_scale {
        HeadScale::Keypoints => head_distance(persons),
        HeadScale::Persons => distance_of_heads(persons),
    };
    let head = head.unwrap_or(rule.default_head * scale);
    let threshold = rule.head_factor * head;
    let mut counts = PoseCounts::default();
    for part in Part::ALL {
        let found = centroids(prediction, part, rule);
        let wanted = match rule.targets {
            Targets::Components => centroids(target, part, rule),
            Targets::Keypoints => persons.iter().flat_map(|person| middles(person, part)).collect(),
        };
        counts.matched += assign(&found, &wanted, threshold);
        counts.predicted += found.len();
        counts.wanted += wanted.len();
    }
    counts
}

/// The scores of one image, in percent; `None` for a target without components.
pub fn score(
    prediction: &RgbImage,
    target: &RgbImage,
    persons: &[Person],
    rule: PoseRule,
) -> Option<Score> {
    let counts = compare(prediction, target, persons, rule);
    (counts.wanted > 0).then(|| {
        named([
            ("match_rate", 100.0 * counts.recall()),
            ("precision", 100.0 * counts.precision()),
            ("f1", 100.0 * counts.f1()),
            ("matched", counts.matched as f64),
            ("predicted", counts.predicted as f64),
            ("wanted", counts.wanted as f64),
        ])
    })
}

/// Means over images of `match_rate`, `precision` and `f1`, and the same pooled over all
/// components (`pooled_*`), in percent.
pub struct PoseMetric;

impl Metric for PoseMetric {
    fn name(&self) -> &'static str {
        "pose"
    }

    fn doc(&self) -> &'static str {
        "Match rate, precision, recall and F1 of pose drawings."
    }

    fn params(&self) -> &'static [&'static str] {
        &["pose"]
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["pose"])
    }

    fn names(&self) -> &'static [&'static str] {
        &["f1", "match_rate", "precision", "pooled_f1", "pooled_match_rate", "pooled_precision"]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        vec![("pose", json!(rules.pose))]
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        let Pair { target, meta, .. } = case.pair;
        Ok(score(case.prediction(), target, &meta.persons, rules.pose))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        let sum = |name: &str| sum(scores, name) as usize;
        let pooled = PoseCounts {
            matched: sum("matched"),
            predicted: sum("predicted"),
            wanted: sum("wanted"),
        };
        for name in ["matched", "predicted", "wanted"] {
            values.remove(name);
        }
        values.insert("pooled_match_rate".to_owned(), 100.0 * pooled.recall());
        values.insert("pooled_precision".to_owned(), 100.0 * pooled.precision());
        values.insert("pooled_f1".to_owned(), 100.0 * pooled.f1());
        values
    }
}

/// Mean over persons of the mean distance between pairs of labelled head keypoints; `None` where no
/// person has two.
fn head_distance(persons: &[Person]) -> Option<f64> {
    let means: Vec<f64> = persons
        .iter()
        .filter_map(|person| {
            let head: Vec<_> =
                person.keypoints[..5].iter().filter(|keypoint| keypoint[2] > 0.0).collect();
            let distances: Vec<f64> = (0..head.len())
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| f64::from((head[i][0] - head[j][0]).hypot(head[i][1] - head[j][1])))
                .collect();
            (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
        })
        .collect();
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
}

/// Mean distance between the heads of pairs of persons; `None` where there are no two.
fn distance_of_heads(persons: &[Person]) -> Option<f64> {
    let heads: Vec<_> = persons.iter().flat_map(|person| middles(person, Part::Head)).collect();
    let pairs = (0..heads.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let distances: Vec<f64> =
        pairs.map(|(i, j)| (heads[i][0] - heads[j][0]).hypot(heads[i][1] - heads[j][1])).collect();
    (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
}

/// The mean of a person's labelled keypoints of a part; of arms and legs, the left and the right
/// one.
fn middles(person: &Person, part: Part) -> Vec<[f64; 2]> {
    let limbs: &[&[usize]] = match part {
        Part::Head => &[&[0, 1, 2, 3, 4]],
        Part::Torso => &[&[5, 6, 11, 12]],
        Part::Arms => &[&[7, 9], &[8, 10]],
        Part::Legs => &[&[13, 15], &[14, 16]],
    };
    let middle = |limb: &&[usize]| {
        let labelled: Vec<_> = limb
            .iter()
            .map(|index| person.keypoints[*index])
            .filter(|keypoint| keypoint[2] > 0.0)
            .collect();
        let mean = |axis: usize| {
            let sum: f64 = labelled.iter().map(|keypoint| f64::from(keypoint[axis])).sum();
            sum / labelled.len() as f64
        };
        (!labelled.is_empty()).then(|| [mean(0), mean(1)])
    };
    limbs.iter().filter_map(middle).collect()
}

/// The part a pixel belongs to: white-ish is head, else the brightest channel decides, ties in the
/// order red, green, blue.
fn part_of([r, g, b]: [u8; 3], rule: PoseRule) -> Option<Part> {
    let brightest = r.max(g).max(b);
    if brightest < rule.foreground {
        None
    } else if f64::from(r.min(g).min(b)) >= 0.5 * f64::from(brightest) {
        Some(Part::Head)
    } else if r == brightest {
        Some(Part::Arms)
    } else if g == brightest {
        Some(Part::Legs)
    } else {
        Some(Part::Torso)
    }
}

/// The centroids `[x, y]` of a part's 8-connected components.
fn centroids(image: &RgbImage, part: Part, rule: PoseRule) -> Vec<[f64; 2]> {
    let mask = GrayImage::from_fn(image.width(), image.height(), |x, y| {
        Luma([if part_of(image.get_pixel(x, y).0, rule) == Some(part) { 255 } else { 0 }])
    });
    let labels = connected_components(&mask, Connectivity::Eight, Luma([0]));
    let mut sums: Vec<[f64; 3]> = Vec::new();
    for (x, y, Luma([label])) in labels.enumerate_pixels() {
        if *label > 0 {
            let index = *label as usize - 1;
            if sums.len() <= index {
                sums.resize(index + 1, [0.0; 3]);
            }
            let sum = &mut sums[index];
            *sum = [sum[0] + f64::from(x), sum[1] + f64::from(y), sum[2] + 1.0];
        }
    }
    let area = f64::from(image.width()) * f64::from(image.height());
    let min_area = (rule.min_area * area / (480.0 * 720.0)).max(1.0);
    sums.iter()
        .filter(|[_, _, count]| *count >= min_area)
        .map(|[x, y, count]| [x / count, y / count])
        .collect()
}

/// Number of pairs in the assignment with the most pairs closer than `threshold`, and among those
/// the least summed distance.
fn assign(found: &[[f64; 2]], wanted: &[[f64; 2]], threshold: f64) -> usize {
    const FORBIDDEN: i64 = 1 << 40;
    let (rows, columns) =
        if found.len() <= wanted.len() { (found, wanted) } else { (wanted, found) };
    if rows.is_empty() {
        return 0;
    }
    let cost = |a: &[f64; 2], b: &[f64; 2]| {
        let distance = (a[0] - b[0]).hypot(a[1] - b[1]);
        if distance < threshold { (distance * 1000.0).round() as i64 } else { FORBIDDEN }
    };
    let costs: Vec<Vec<i64>> =
        rows.iter().map(|a| columns.iter().map(|b| cost(a, b)).collect()).collect();
    let matrix = Matrix::from_rows(costs.clone()).expect("all rows have one length");
    let (_, assignment) = kuhn_munkres_min(&matrix);
    assignment.iter().enumerate().filter(|(row, column)| costs[*row][**column] < FORBIDDEN).count()
}

#[cfg(test)]
mod tests;
