use serde_json::{Value, json};

use super::{cells::per, *};
use crate::{
    config::Sweep,
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

/// The layout of a table with a column for each `n`.
fn by_n() -> Table {
    Table {
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
    }
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
    let layout = by_n();
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
    note: a peak of memory is that of the whole process, what it kept and stages beside included

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
    note: a peak of memory is that of the whole process, what it kept and stages beside included
    ");
    insta::assert_snapshot!(render(&tables[..1], Format::Csv), @r#"
    table,value,varied,row,column,mean,sd,low,high,n,expected,mark,reference,note,images
    compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,wall s,25,,,,1,1,,,"a peak of memory is that of the whole process, what it kept and stages beside included",
    compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,device s,48,,,,1,1,,,"a peak of memory is that of the whole process, what it kept and stages beside included",
    compute,sum over runs (the greatest peak),,stage=lora kind=lora_train device=cpu runs=2 items=2,peak MiB,310,,,,1,1,,,"a peak of memory is that of the whole process, what it kept and stages beside included",
    compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,wall s,6.1,,,,1,1,,,"a peak of memory is that of the whole process, what it kept and stages beside included",
    compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,device s,,,,,0,1,,,"not told by the system, or not recorded by the version that ran it",
    compute,sum over runs (the greatest peak),,stage=predict kind=sample device=cpu runs=2 items=12,peak MiB,,,,,0,1,,,"not told by the system, or not recorded by the version that ran it",
    "#);
    insta::assert_snapshot!(render(&tables[..1], Format::Markdown), @r"
    **What each stage took in all**

    `sum over runs (the greatest peak)`

    | stage | kind | device | runs | items | wall s | device s | peak MiB |
    | --- | --- | --- | --- | --- | ---: | ---: | ---: |
    | lora | lora\_train | cpu | 2 | 2 | 25.00 | 48.00 | 310.0 |
    | predict | sample | cpu | 2 | 12 | 6.100 | – (a) | – (a) |

    (a) not told by the system, or not recorded by the version that ran it

    note: a peak of memory is that of the whole process, what it kept and stages beside included
    ");
}

#[test]
fn cards_of_one_name_are_one_row_and_waiting_is_told() {
    let (cells, none) = ([1, 10].map(cell), Cell::new());
    let on = |key, device: &str, card: Option<&str>, secs: [f64; 2]| {
        let [wall, busy] = secs;
        let more = json!({
            "device": device, "card": card, "wall_secs": wall, "device_secs": busy, "reached": 10,
            "peak_memory": u64::from(key) << 30,
        });
        record("lora_train", key, &more)
    };
    let records = [
        on(1, "cuda:0", Some("NVIDIA H100 80GB HBM3"), [10.0, 9.0]),
        on(2, "cuda:1", Some("NVIDIA H100 80GB HBM3"), [30.0, 9.0]),
        on(3, "cuda:0", None, [10.0, 9.0]),
        on(4, "cpu", None, [0.2, 0.05]),
    ];
    let taken = |stage, cell, record| Taken { stage, kind: "lora_train", cell, record };
    let taken = [
        taken("lora", &cells[0], Some(&records[0])),
        taken("lora", &cells[1], Some(&records[1])),
        taken("other", &none, Some(&records[2])),
        taken("third", &none, Some(&records[3])),
    ];
    let sweep = Sweep {
        grid: vec![("n".to_owned(), vec![json!(1), json!(10)])],
        cells: cells.to_vec(),
        ..Sweep::default()
    };
    let layout = by_n();
    insta::assert_snapshot!(render(&[by_stage(&taken)], Format::Text), @"
    What each stage took in all
    sum over runs (the greatest peak)
    ──────────────────────────────────────────────────────────────────────────────────────────
     stage   kind         device                  runs   items   wall s   device s   peak MiB
    ──────────────────────────────────────────────────────────────────────────────────────────
     lora    lora_train   NVIDIA H100 80GB HBM3   2      2        40.00      18.00     2048.0
     other   lora_train   cuda:0                  1      1        10.00      9.000     3072.0
     third   lora_train   cpu                     1      1        0.200      0.050     4096.0
    ──────────────────────────────────────────────────────────────────────────────────────────
    note: a peak on the CPU is that of the whole process, what it kept and stages beside included; on a GPU, that of the whole card, other programs included
    ");
    let by_cell = by_cell(&[layout], &sweep, &taken[..2]);
    insta::assert_snapshot!(render(&by_cell, Format::Text), @"
    What training and sampling took: pose
    lora.training_s
    ───────────────────
     n = 1      n = 10
    ───────────────────
     10.00   30.00 (a)
    ───────────────────

    lora.s_per_step
    ───────────────────
     n = 1      n = 10
    ───────────────────
     1.000   3.000 (a)
    ───────────────────

    lora.peak_mib
    ─────────────────
      n = 1   n = 10
    ─────────────────
     1024.0   2048.0
    ─────────────────
    (a) the device worked for it in less than half of that time; the rest is waiting, as for other stages and programs
    note: a peak of memory is that of the whole card, other programs included
    ");
}
