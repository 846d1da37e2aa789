//! What training and sampling took, where the scores of their cells stand.

use std::collections::BTreeMap;

use super::{MEBIBYTE, NOT_RECORDED, Taken, to_nanoseconds, whose_peak};
use crate::{
    config::{Spread, Sweep, Table},
    report::table::{self, ResultTable, Score},
    store::Record,
};

const TRAINING: [&str; 2] = ["lora_train", "pretrain"];
const SAMPLING: &str = "sample";
/// The values that are wall time.
const TIMES: [&str; 3] = ["training_s", "s_per_step", "s_per_image"];

/// For each table, what training and sampling took in its cells.
pub(super) fn by_cell(layouts: &[Table], sweep: &Sweep, taken: &[Taken<'_>]) -> Vec<ResultTable> {
    let mut stages: Vec<(&str, &str)> = Vec::new();
    for Taken { stage, kind, .. } in taken {
        if (TRAINING.contains(kind) || *kind == SAMPLING) && !stages.contains(&(*stage, *kind)) {
            stages.push((stage, kind));
        }
    }
    if stages.is_empty() {
        return Vec::new();
    }
    let names = |kind: &str| {
        if kind == SAMPLING {
            &["s_per_image", "peak_mib"][..]
        } else {
            &["training_s", "s_per_step", "peak_mib"]
        }
    };
    let values: Vec<_> = stages
        .iter()
        .flat_map(|(stage, kind)| {
            names(kind).iter().map(|name| ((*stage).to_owned(), (*name).to_owned()))
        })
        .collect();
    let scores: Vec<Score> = taken.iter().filter_map(score).collect();
    let build = |layout: &Table| {
        let title = layout.title.as_deref().unwrap_or(&layout.name);
        let layout = Table {
            name: format!("compute_{}", layout.name),
            title: Some(format!("What training and sampling took: {title}")),
            values: values.clone(),
            spread: Spread::Sd,
            // The quickest setting is not the best one.
            mark_best: false,
            missing: None,
            reference: None,
            ..layout.clone()
        };
        let mut table = table::build(&layout, sweep, &scores, None);
        for note in &mut table.notes {
            for (stage, name) in &values {
                *note = note.replace(&format!("`{stage}` gives no `{name}`"), why_missing(name));
            }
        }
        table.notes.extend(whose_peak(taken));
        table
    };
    layouts.iter().map(build).collect()
}

/// Why a finished stage has no such number.
fn why_missing(name: &str) -> &'static str {
    match name {
        "training_s" => "the training went on from a checkpoint, so this is not known of the whole",
        "s_per_step" => "all steps were done before",
        "s_per_image" => "all images were in the cache",
        _ => NOT_RECORDED,
    }
}

fn score(taken: &Taken<'_>) -> Option<Score> {
    let is_training = TRAINING.contains(&taken.kind);
    if !is_training && taken.kind != SAMPLING {
        return None;
    }
    let values = taken.record.ok_or_else(|| "not run".to_owned()).map(|record| {
        let mut found = vec![("peak_mib", record.peak_memory.map(|b| b as f64 / MEBIBYTE))];
        if is_training {
            let from = record.went_on_from.unwrap_or(0);
            let steps = record.reached.unwrap_or(0).saturating_sub(from);
            found.push(("training_s", (from == 0).then_some(record.wall_secs)));
            found.push(("s_per_step", per(record.wall_secs, steps as usize)));
        } else {
            found.push(("s_per_image", per(record.wall_secs, record.items_run)));
        }
        let known = found.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        known.collect()
    });
    let (stage, cell) = (taken.stage.to_owned(), taken.cell.clone());
    let remarks = taken.record.map(remarks).unwrap_or_default();
    Some(Score { stage, cell, values, intervals: BTreeMap::new(), images: None, remarks })
}

/// What to say of times in which the device had little to do.
fn remarks(record: &Record) -> BTreeMap<String, String> {
    /// Shorter times are made of other things.
    const LEAST_SECS: f64 = 1.0;
    let worked = record.device_secs.unwrap_or(f64::INFINITY);
    if record.wall_secs < LEAST_SECS || record.wall_secs <= 2.0 * worked {
        return BTreeMap::new();
    }
    let remark = "the device worked for it in less than half of that time; the rest is waiting, as for other stages \
                  and programs";
    TIMES.map(|name| (name.to_owned(), remark.to_owned())).into()
}

pub(super) fn per(secs: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| to_nanoseconds(secs / count as f64))
}
