//! What a pipeline's stages took, from their records: the paper's Tables 7 to 9 for any pipeline.
//!
//! The first table sums up each stage over its cells. The others have the rows and columns of the
//! pipeline's own tables, with the time of training, the time of sampling and the peaks of memory. A
//! record tells of the stage's last execution, so what was taken from the cache is not in it.

use std::collections::{BTreeMap, HashSet};

use super::table::{self, Block, Entry, ResultTable, Row, Score, Stat};
use crate::{
    config::{Cell, Pipeline, Spread, Sweep, Table},
    plan::{Freshness, Plan},
    store::Record,
};

const TRAINING: [&str; 2] = ["lora_train", "pretrain"];
const SAMPLING: &str = "sample";
const MEBIBYTE: f64 = 1_048_576.0;

/// What is known of one instance.
struct Taken<'a> {
    stage: &'a str,
    kind: &'a str,
    cell: &'a Cell,
    /// None if it was not run.
    record: Option<&'a Record>,
}

/// The tables of what a plan's finished stages took.
pub fn tables(plan: &Plan<'_>) -> Vec<ResultTable> {
    let nodes = plan.nodes.iter().zip(&plan.pipeline.instances);
    let taken: Vec<_> = nodes
        .map(|(node, instance)| Taken {
            stage: &instance.stage,
            kind: instance.entry.kind,
            cell: &instance.cell,
            record: match &node.freshness {
                Freshness::Fresh(record) => Some(&**record),
                _ => None,
            },
        })
        .collect();
    let mut tables = vec![by_stage(&taken)];
    tables.extend(by_cell(&layouts(plan.pipeline), &plan.pipeline.sweep, &taken));
    tables
}

/// The pipeline's tables, or one of all its axes.
fn layouts(pipeline: &Pipeline) -> Vec<Table> {
    if !pipeline.tables.is_empty() {
        return pipeline.tables.clone();
    }
    let rows = pipeline.sweep.one_at_a_time.iter().map(|(axis, _)| axis.clone()).collect();
    vec![Table {
        name: pipeline.name.clone(),
        title: pipeline.title.clone(),
        values: Vec::new(),
        columns: None,
        rows,
        average: Vec::new(),
        spread: Spread::Sd,
        mark_best: false,
        missing: None,
        reference: None,
    }]
}

/// The columns of the table of stages.
const COLUMNS: [&str; 3] = ["wall s", "device s", "peak MiB"];

/// The sums over the executions of a stage on a device.
#[derive(Default)]
struct Sums {
    runs: usize,
    items: usize,
    /// As in [`COLUMNS`].
    values: [Option<f64>; 3],
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.runs += 1;
        self.items += record.items_run;
        let peak = record.peak_memory.map(|bytes| bytes as f64 / MEBIBYTE);
        let join = |a: Option<f64>, b: Option<f64>, with: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(with(a, b)),
            (a, b) => a.or(b),
        };
        let [wall, device, most] = self.values;
        let sum = |a, b| to_nanoseconds(a + b);
        self.values = [
            join(wall, Some(record.wall_secs), sum),
            join(device, record.device_secs, sum),
            join(most, peak, f64::max),
        ];
    }
}

/// A row for each stage and device.
fn by_stage(taken: &[Taken<'_>]) -> ResultTable {
    let mut order: Vec<(&str, &str, &str)> = Vec::new();
    let mut sums: BTreeMap<(&str, &str, &str), Sums> = BTreeMap::new();
    let mut seen = HashSet::new();
    for Taken { stage, kind, record, .. } in taken {
        // Cells, and stages, of equal ingredients share one execution.
        let Some(record) = record.filter(|record| seen.insert(record.fingerprint)) else {
            continue;
        };
        let key = (*stage, *kind, record.device.as_str());
        if !sums.contains_key(&key) {
            order.push(key);
        }
        sums.entry(key).or_default().add(record);
    }
    let entry = |value: Option<f64>| {
        let stat = value.and_then(|value| Stat::of(&[value]));
        Entry { note: stat.is_none().then_some(0), stat, expected: 1, ..Entry::default() }
    };
    let rows: Vec<Row> = order
        .iter()
        .map(|key @ (stage, kind, device)| {
            let Sums { runs, items, values } = &sums[key];
            let names = [stage, kind, device].map(|label| (*label).to_owned());
            Row {
                group: None,
                labels: names.into_iter().chain([runs, items].map(usize::to_string)).collect(),
                entries: values.map(entry).to_vec(),
            }
        })
        .collect();
    let is_partial = rows.iter().flat_map(|row| &row.entries).any(|entry| entry.note.is_some());
    ResultTable {
        name: "compute".to_owned(),
        title: Some("What each stage took in all".to_owned()),
        row_axes: ["stage", "kind", "device", "runs", "items"].map(str::to_owned).to_vec(),
        column_axis: None,
        columns: COLUMNS.map(str::to_owned).to_vec(),
        average: None,
        spread: Spread::Sd,
        reference: None,
        blocks: vec![Block {
            value: "sum over runs (the greatest peak)".to_owned(),
            lower_is_better: false,
            rows,
        }],
        notes: if is_partial { vec![NOT_RECORDED.to_owned()] } else { Vec::new() },
    }
}

const NOT_RECORDED: &str = "not told by the system, or not recorded by the version that ran it";

/// For each table, what training and sampling took in its cells.
fn by_cell(layouts: &[Table], sweep: &Sweep, taken: &[Taken<'_>]) -> Vec<ResultTable> {
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
    Some(Score {
        stage,
        cell,
        values,
        intervals: BTreeMap::new(),
        images: None,
        remarks: BTreeMap::new(),
    })
}

fn per(secs: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| to_nanoseconds(secs / count as f64))
}

/// Seconds as finely as a clock told them: what a sum of decimals adds behind that is no time.
fn to_nanoseconds(secs: f64) -> f64 {
    (secs * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        report::table::{Format, render},
        store::Digest,
    };

    fn record(kind: &str, key: u8, more: &Value) -> Record {
        let digest = Digest::of(&[key]);
        let mut record = json!({
            "format_version": 1, "fingerprint": digest, "output": digest,
            "ingredients": {
                "kind": kind, "version": 1, "output_format": 1, "params": {}, "inputs": {},
                "weights": null, "sources": {},
            },
            "started": "2026-01-01T00:00:00Z", "wall_secs": 0.0, "cpu_secs": 0.0, "device": "cpu",
            "pipe_version": "0.1.0", "items_run": 1, "items_total": 1,
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    fn cell(n: u64) -> Cell {
        [("n".to_owned(), json!(n))].into()
    }

    #[test]
    fn sums_of_times_have_no_digits_that_no_clock_told() {
        let mut sums = Sums::default();
        for key in 0..3 {
            sums.add(&record("sample", key, &json!({ "wall_secs": 0.1, "device_secs": 0.001 })));
        }
        assert_eq!(sums.values, [Some(0.3), Some(0.003), None]);
        assert_eq!(per(0.1, 3), Some(0.033_333_333));
    }

    #[test]
    fn times_and_memory_stand_where_the_scores_do() {
        let (cells, none) = ([1, 10, 30].map(cell), Cell::new());
        let train = |key, more: Value| record("lora_train", key, &more);
        let records = [
            train(
                1,
                json!({ "wall_secs": 20.0, "device_secs": 39.0, "peak_memory": 300 << 20, "reached": 200 }),
            ),
            train(
                2,
                json!({ "wall_secs": 5.0, "device_secs": 9.0, "peak_memory": 310 << 20, "reached": 300, "went_on_from": 200 }),
            ),
            record("sample", 3, &json!({ "wall_secs": 6.0, "items_run": 12, "items_total": 12 })),
            record("sample", 4, &json!({ "wall_secs": 0.1, "items_run": 0, "items_total": 12 })),
        ];
        let taken = |stage, kind, cell, record| Taken { stage, kind, cell, record };
        let taken = [
            taken("prompt", "text_encode", &none, None),
            taken("lora", "lora_train", &cells[0], Some(&records[0])),
            taken("lora", "lora_train", &cells[1], Some(&records[1])),
            taken("lora", "lora_train", &cells[2], None),
            taken("predict", "sample", &cells[0], Some(&records[2])),
            taken("predict", "sample", &cells[1], Some(&records[3])),
            taken("predict", "sample", &cells[2], None),
            // The same execution under another name counts once.
            taken("again", "sample", &cells[0], Some(&records[2])),
        ];
        let layout = Table {
            name: "pose".to_owned(),
            title: None,
            values: Vec::new(),
            columns: Some("n".to_owned()),
            rows: Vec::new(),
            average: Vec::new(),
            spread: Spread::Sd,
            mark_best: true,
            missing: None,
            reference: None,
        };
        let sweep = Sweep {
            grid: vec![("n".to_owned(), vec![json!(1), json!(10), json!(30)])],
            cells: cells.to_vec(),
            ..Sweep::default()
        };
        let mut tables = vec![by_stage(&taken)];
        tables.extend(by_cell(&[layout], &sweep, &taken[..7]));
        insta::assert_snapshot!(render(&tables, Format::Text), @"
        What each stage took in all
        sum over runs (the greatest peak)
        ─────────────────────────────────────────────────────────────────────────────
         stage     kind         device   runs   items   wall s   device s   peak MiB
        ─────────────────────────────────────────────────────────────────────────────
         lora      lora_train   cpu      2      2        25.00      48.00      310.0
         predict   sample       cpu      2      12       6.100      – (a)      – (a)
        ─────────────────────────────────────────────────────────────────────────────
        (a) not told by the system, or not recorded by the version that ran it

        What training and sampling took: pose
        lora.training_s
        ─────────────────────────
         n = 1   n = 10   n = 30
        ─────────────────────────
         20.00    – (a)    – (b)
        ─────────────────────────

        lora.s_per_step
        ─────────────────────────
         n = 1   n = 10   n = 30
        ─────────────────────────
         0.100    0.050    – (b)
        ─────────────────────────

        lora.peak_mib
        ─────────────────────────
         n = 1   n = 10   n = 30
        ─────────────────────────
         300.0    310.0    – (b)
        ─────────────────────────

        predict.s_per_image
        ─────────────────────────
         n = 1   n = 10   n = 30
        ─────────────────────────
         0.500    – (c)    – (b)
        ─────────────────────────

        predict.peak_mib
        ─────────────────────────
         n = 1   n = 10   n = 30
        ─────────────────────────
         – (d)    – (d)    – (b)
        ─────────────────────────
        (a) the training went on from a checkpoint, so this is not known of the whole
        (b) not run
        (c) all images were in the cache
        (d) not told by the system, or not recorded by the version that ran it
        ");
        insta::assert_snapshot!(render(&tables[..1], Format::Csv), @r#"
        table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note,images
        compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,wall s,25,,,,1,1,,,,
        compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,device s,48,,,,1,1,,,,
        compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,peak MiB,310,,,,1,1,,,,
        compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,wall s,6.1,,,,1,1,,,,
        compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,device s,,,,,0,1,,,"not told by the system, or not recorded by the version that ran it",
        compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,peak MiB,,,,,0,1,,,"not told by the system, or not recorded by the version that ran it",
        "#);
        insta::assert_snapshot!(render(&tables[..1], Format::Markdown), @r#"
        **What each stage took in all**

        `sum over runs (the greatest peak)`

        | stage | kind | device | runs | items | wall s | device s | peak MiB |
        | --- | --- | --- | --- | --- | ---: | ---: | ---: |
        | lora | lora\_train | cpu | 2 | 2 | 25.00 | 48.00 | 310.0 |
        | predict | sample | cpu | 2 | 12 | 6.100 | – (a) | – (a) |

        (a) not told by the system, or not recorded by the version that ran it
        "#);
    }
}
