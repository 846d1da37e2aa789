//! The main job, made small: what a change of one number runs again, and the reason it gives.

use super::Shell;

const SMALL: &str = "--set params.steps=1 --set params.test_images=1 --set params.sampling_steps=1";

#[test]
fn a_changed_rank_runs_its_own_cells_again_and_is_named_with_its_place() {
    let shell = Shell::new();
    let file = std::fs::read_to_string("pipelines/pose_ablation.toml").unwrap();
    let file = file
        .replace("[1, 10], subset = [0]", "[1], subset = [0]")
        .replace("\"linear\", \"quadratic\", \"discrete\", \"tiles\"", "\"quadratic\"");
    shell.write("pose_ablation.toml", &file);
    std::fs::create_dir(shell.path("base")).unwrap();
    std::fs::copy("pipelines/base/few_shot.toml", shell.path("base/few_shot.toml")).unwrap();
    shell.succeed(&format!("run pose_ablation.toml {SMALL}"));
    let plan = format!("plan pose_ablation.toml {SMALL}");
    assert!(shell.transcript(&plan).contains("\n0 stages to run"));
    // The default sweep is the file's last.
    let (profiles, sweep) = file.rsplit_once("\n[sweep]").unwrap();
    let edit = |sweep: &str| {
        shell.write("pose_ablation.toml", &format!("{profiles}\n[sweep]{sweep}"));
        shell.transcript(&plan)
    };
    let baseline = sweep.replace("rank = 64 }", "rank = 32 }");
    // The cell of rank 64 is in the list and stays.
    insta::assert_snapshot!(edit(&baseline), @"
    $ pipe plan pose_ablation.toml --set params.steps=1 --set params.test_images=1 --set params.sampling_steps=1
    ? 0
    --- stdout
    run    lora[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  rank 64 -> 32 (pose_ablation.toml:50:73)  about [TIME]  needs [SIZE]
    run    lora[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  rank 64 -> 32 (pose_ablation.toml:50:73)  about [TIME]  needs [SIZE]
    maybe  predict[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after lora  about [TIME]  needs [SIZE]
    maybe  predict[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after lora  about [TIME]  needs [SIZE]
    maybe  answers[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after predict, because lora: rank 64 -> 32  about [TIME]  needs [SIZE]
    maybe  answers[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after predict, because lora: rank 64 -> 32  about [TIME]  needs [SIZE]
    maybe  score[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after answers, because lora: rank 64 -> 32  about [TIME]
    maybe  score[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after answers, because lora: rank 64 -> 32  about [TIME]
    2 stages to run, 6 waiting for others, 13 cached; at most about [TIME] of stage time
    disk: at most about [SIZE]; [SIZE] are free
    ");
    let of_lora = |text: &str| {
        let lines = text.lines();
        let lines = lines.filter(|line| line.contains(" lora[") || line.contains(" to run,"));
        lines.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(of_lora(&edit(&sweep.replace("[16, 64]", "[16, 32]"))), @"
    run    lora[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  new  about [TIME]  needs [SIZE]
    1 stage to run, 3 waiting for others, 17 cached; at most about [TIME] of stage time
    ");
    let both = baseline.replace("[16, 64]", "[16, 32]");
    insta::assert_snapshot!(edit(&both), @"
    $ pipe plan pose_ablation.toml --set params.steps=1 --set params.test_images=1 --set params.sampling_steps=1
    ? 0
    --- stdout
    run    lora[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  rank 64 -> 32 (pose_ablation.toml:51:88)  about [TIME]  needs [SIZE]
    run    lora[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  rank 64 -> 32 (pose_ablation.toml:51:88)  about [TIME]  needs [SIZE]
    maybe  predict[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after lora  about [TIME]  needs [SIZE]
    maybe  predict[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after lora  about [TIME]  needs [SIZE]
    maybe  answers[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after predict, because lora: rank 64 -> 32  about [TIME]  needs [SIZE]
    maybe  answers[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after predict, because lora: rank 64 -> 32  about [TIME]  needs [SIZE]
    maybe  score[interpolation=quadratic, modules=qkvo, n=1, rank=32, subset=0]  after answers, because lora: rank 64 -> 32  about [TIME]
    maybe  score[interpolation=quadratic, modules=qk, n=1, rank=32, subset=0]  after answers, because lora: rank 64 -> 32  about [TIME]
    2 stages to run, 6 waiting for others, 9 cached; at most about [TIME] of stage time
    disk: at most about [SIZE]; [SIZE] are free
    ");
}
