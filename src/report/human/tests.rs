use std::{
    io,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{config::Place, plan::StaleReason, store::Digest};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn story(verbose: bool, events: &[RunEvent]) -> String {
    let out = Shared::default();
    let screen = Screen::Lines(Box::new(out.clone()));
    let mut reporter = HumanReporter::new(screen, Style { color: false }, verbose);
    for event in events {
        reporter.on(event);
    }
    String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
}

/// What is said of running stages when some time has gone by since the last event.
fn story_after(secs: u64, events: &[RunEvent]) -> String {
    let out = Shared::default();
    let screen = Screen::Lines(Box::new(out.clone()));
    let mut reporter = HumanReporter::new(screen, Style { color: false }, false);
    for event in events {
        reporter.on(event);
    }
    let View::Lines(lines) = &reporter.view else { unreachable!("the screen has only lines") };
    lines.tell(Instant::now() + std::time::Duration::from_secs(secs));
    String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
}

fn reused(index: usize, stage: &str) -> RunEvent {
    RunEvent::StageReused { index, stage: stage.into(), digest: Digest::of(stage.as_bytes()) }
}

fn started(index: usize, stage: &str, reasons: Vec<StaleReason>) -> RunEvent {
    RunEvent::StageStarted {
        index,
        stage: stage.into(),
        kind: "any",
        reasons,
        cause: None,
        items_cached: None,
        items_total: None,
        goes_on_at_step: None,
        steps_total: None,
    }
}

fn finished(
    index: usize,
    stage: &str,
    wall_secs: f64,
    [items_run, items_total]: [usize; 2],
) -> RunEvent {
    let digest = Digest::of(stage.as_bytes());
    RunEvent::StageFinished {
        index,
        stage: stage.into(),
        digest,
        wall_secs,
        items_run,
        items_total,
        unchanged: false,
    }
}

fn rank_changed() -> StaleReason {
    let place = Place { file: "pipelines/pose_ablation.toml".into(), line: 31, column: 8 };
    StaleReason::ParamChanged {
        path: "rank".into(),
        old: "64".into(),
        new: "32".into(),
        place: Some(place),
    }
}

fn input_changed(port: &str) -> StaleReason {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    StaleReason::InputChanged { port: port.into(), old, new }
}

fn changed_rank() -> Vec<RunEvent> {
    let summary = RunSummary { reused: 4, ran: 3, wall_secs: 15.02, ..RunSummary::default() };
    vec![
        RunEvent::RunStarted {
            pipeline: "pose_ablation".into(),
            instances: 7,
            device: "cpu".into(),
        },
        reused(0, "pairs[n=10, subset=0]"),
        reused(1, "clips[interpolation=quadratic, n=10, subset=0]"),
        reused(2, "latents[interpolation=quadratic, n=10, subset=0]"),
        reused(3, "test"),
        started(4, "lora[n=10, rank=32]", vec![rank_changed()]),
        RunEvent::StageProgress { index: 4, done: 3, total: 9, message: "step, loss 0.113".into() },
        finished(4, "lora[n=10, rank=32]", 12.3, [1, 1]),
        started(5, "predict[n=10, rank=32]", vec![input_changed("lora")]),
        finished(5, "predict[n=10, rank=32]", 2.6, [23, 24]),
        started(6, "score[n=10, rank=32]", vec![input_changed("predictions")]),
        finished(6, "score[n=10, rank=32]", 0.12, [1, 1]),
        RunEvent::RunFinished(summary),
    ]
}

#[test]
fn a_changed_rank_is_told_with_its_place() {
    insta::assert_snapshot!(story(false, &changed_rank()), @"
    pose_ablation: 7 stages on cpu
    ran      lora[n=10, rank=32]  rank 64 -> 32 (pipelines/pose_ablation.toml:31:8)  12.3 s
    ran      predict[n=10, rank=32]  input `lora` changed (96a4257289f9 -> b20ab0a020a4)  23 of 24 items  2.6 s
    ran      score[n=10, rank=32]  input `predictions` changed (96a4257289f9 -> b20ab0a020a4)  0.12 s
    done     3 stages ran, 4 reused in 15.0 s
    ");
}

#[test]
fn weights_that_are_hashed_are_told_by_file() {
    let hashing = |file: &str, done| RunEvent::WeightsHashing {
        index: 0,
        stage: "latents".into(),
        model: "models/cog".into(),
        file: file.into(),
        done,
        total: 9 << 30,
    };
    let events = [hashing("transformer/a.safetensors", 0), hashing("vae/b.safetensors", 5 << 30)];
    insta::assert_snapshot!(story(false, &events), @"
    hashing  latents  0 B of 9.0 GiB of `models/cog`, transformer/a.safetensors
    hashing  latents  5.0 GiB of 9.0 GiB of `models/cog`, vae/b.safetensors
    ");
}

#[test]
fn verbose_lists_reused_stages() {
    let text = story(true, &changed_rank());
    assert_eq!(text.lines().filter(|line| line.starts_with("reused")).count(), 4);
}

#[test]
fn a_failure_names_stage_item_cause_and_remedy() {
    let failed = RunEvent::StageFailed {
        index: 0,
        stage: "pairs[n=3]".into(),
        error: "the JPEG ends too early".into(),
        item: Some("000000000139".into()),
        help: Some("download the image again".into()),
    };
    let skipped = RunEvent::StageSkipped {
        index: 1,
        stage: "clips[n=3]".into(),
        because: "pairs[n=3]".into(),
    };
    let summary =
        RunSummary { outcome: Outcome::Failed, failed: 1, skipped: 1, ..Default::default() };
    let events = [
        started(0, "pairs[n=3]", vec![StaleReason::NeverRun]),
        failed,
        skipped,
        RunEvent::RunFinished(summary),
    ];
    insta::assert_snapshot!(story(false, &events), @"
    failed   pairs[n=3]
      × stage `pairs[n=3]`, item `000000000139`: the JPEG ends too early
      help: download the image again
    skipped  clips[n=3]  because `pairs[n=3]` failed
    failed   0 stages ran, 1 failed, 1 not reached in 0.00 s
    ");
}

#[test]
fn a_stage_whose_process_died_says_where_it_runs_once_more() {
    let retried = RunEvent::StageRetried {
        index: 0,
        stage: "lora[n=1]".into(),
        device: "cuda:1".into(),
        reason: "its worker (process 4711) was killed by signal 9 (SIGKILL)".into(),
    };
    let events = [started(0, "lora[n=1]", vec![StaleReason::NeverRun]), retried];
    insta::assert_snapshot!(story(false, &events), @"retried  lora[n=1]  once more on cuda:1, because its worker (process 4711) was killed by signal 9 (SIGKILL)");
}

#[test]
fn a_device_that_is_out_of_order_is_said_to_be_left_out() {
    let (index, stage, device) = (0, "lora[n=1]".into(), "cuda:1".into());
    let dropped =
        RunEvent::DeviceDropped { index, stage, device, reason: "it has no driver".into() };
    let events = [started(0, "lora[n=1]", vec![StaleReason::NeverRun]), dropped];
    insta::assert_snapshot!(story(false, &events), @"waits    lora[n=1]  not on cuda:1, which is left out from now on: it has no driver");
}

#[test]
fn a_stage_that_a_dead_process_left_is_said_to_be_taken_over() {
    let (index, stage, holder) = (0, "lora[n=1]".into(), "process 4711 on node3".into());
    let left = RunEvent::StageTakenOver { index, stage, holder };
    insta::assert_snapshot!(story(false, &[left]), @"left     lora[n=1]  by process 4711 on node3, which is gone; taken over");
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let summary = RunSummary {
        outcome: Outcome::Interrupted,
        ran: 1,
        skipped: 5,
        wall_secs: 75.0,
        ..RunSummary::default()
    };
    insta::assert_snapshot!(story(false, &[RunEvent::RunFinished(summary)]), @"stopped  1 stage ran, 5 not reached in 1 min 15 s; what is finished is kept, the same command goes on from here");
}

#[test]
fn a_training_that_goes_on_says_from_where() {
    let mut lora = started(0, "lora[n=1]", vec![StaleReason::NeverRun]);
    if let RunEvent::StageStarted { goes_on_at_step, steps_total, .. } = &mut lora {
        (*goes_on_at_step, *steps_total) = (Some(20), Some(40));
    }
    insta::assert_snapshot!(story(false, &[lora]), @"goes on  lora[n=1]  at step 20 of 40");
}

#[test]
fn damage_is_told_with_what_comes_of_it() {
    let stage = || "lora[n=1]".to_owned();
    let (digest, pipeline) = (Digest::of(b"scores"), || "pose".to_owned());
    let events = [
        RunEvent::CheckpointsDamaged {
            index: 0,
            stage: stage(),
            steps: vec![30],
            goes_on_at_step: Some(20),
        },
        RunEvent::CheckpointsDamaged {
            index: 0,
            stage: stage(),
            steps: vec![30, 20],
            goes_on_at_step: None,
        },
        RunEvent::DamageFound { pipeline: pipeline(), files: 1, digest },
        RunEvent::DamageFound { pipeline: pipeline(), files: 3, digest },
    ];
    let text = story(false, &events).replace(&digest.to_string(), "DIGEST");
    insta::assert_snapshot!(text, @"
    damaged  lora[n=1]  its checkpoint at step 30 is removed; it goes on from step 20
    damaged  lora[n=1]  its checkpoints at steps 30, 20 are removed; it begins anew
    the content of DIGEST is damaged; it is made again
    3 files of these results are damaged; they are made again
    ");
}

#[test]
fn waiting_and_equal_output_are_told() {
    let mut same = finished(2, "clips", 0.5, [4, 4]);
    if let RunEvent::StageFinished { unchanged, .. } = &mut same {
        *unchanged = true;
    }
    let events = [
        RunEvent::StageWaiting {
            index: 1,
            stage: "lora[n=1]".into(),
            holder: Some("process 7 on node3".into()),
        },
        started(2, "clips", vec![StaleReason::VersionChanged { old: 1, new: 2 }]),
        same,
    ];
    insta::assert_snapshot!(story(false, &events), @"
    waiting  lora[n=1]  process 7 on node3 computes it
    ran      clips  stage version 1 -> 2  same output as before  0.50 s
    ");
}

#[test]
fn without_a_terminal_a_long_stage_is_heard_of_now_and_then() {
    let events = &changed_rank()[..7];
    assert_eq!(story_after(20, events), "pose_ablation: 7 stages on cpu\n");
    let text = story_after(95, events);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    insta::assert_snapshot!(text, @"
    pose_ablation: 7 stages on cpu
    running  lora[n=10, rank=32]  3 of 9, step, loss 0.113, 1 min 35 s so far, time left not known
    ");
}
