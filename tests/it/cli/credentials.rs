//! What is told of credentials for a remote cache, and what is not.

use super::{
    Shell, command,
    remote::{FORBIDDEN, answering},
};

#[test]
fn credentials_that_cannot_be_used_are_told_with_service_and_variables() {
    let shell = Shell::new();
    let told = |remote: &str, variables: &[(&str, &str)]| {
        let output = command(shell.dir.path())
            .args(["cache", "pull", "--remote", remote])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    let google = [("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")];
    insta::assert_snapshot!(told("gs://bucket/folder", &google), @"
    × Google Cloud Storage cannot be asked for the remote cache: No such file or directory (os error
    │ 2); `GOOGLE_APPLICATION_CREDENTIALS=/nowhere/key.json` is set
    help: set `GOOGLE_APPLICATION_CREDENTIALS`, or `GOOGLE_SERVICE_ACCOUNT`, to the JSON file of a
          key, as the console of Google Cloud gives it for a service account
    ");
    let azure =
        [("AZURE_STORAGE_ACCOUNT_NAME", "mine"), ("AZURE_STORAGE_ACCOUNT_KEY", "not the key")];
    insta::assert_snapshot!(told("az://container/folder", &azure), @"
    × Azure Blob Storage cannot be asked for the remote cache: Invalid symbol 32, offset 3;
    │ `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCOUNT_NAME` are set
    help: set `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` to a key as the portal
          shows it, in base64; for Azurite `AZURE_STORAGE_USE_EMULATOR` to `true`, and
          `AZURITE_BLOB_STORAGE_URL` to its address if that is another one than
          `http://127.0.0.1:10000`
    ");
}

#[test]
fn no_log_tells_credentials() {
    const AMAZON: &[(&str, &str)] = &[
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
        ("AWS_SESSION_TOKEN", "t0k3n"),
    ];
    const AZURE: &[(&str, &str)] = &[
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_SAS_KEY", "sv=2024-01-01&sig=s1gn4tur3"),
    ];
    let (shell, server) = (Shell::new(), answering(|_| FORBIDDEN));
    std::fs::create_dir(shell.path("cache")).unwrap();
    shell.write("cache/format", "2\n");
    for (remote, endpoint, keys) in [
        ("s3://bucket/folder", "AWS_ENDPOINT_URL", AMAZON),
        ("az://container/folder", "AZURE_STORAGE_ENDPOINT", AZURE),
    ] {
        for log in ["trace", "debug", "ureq=debug", "warn,ureq::unit=trace,object_store=trace"] {
            let output = command(shell.dir.path())
                .args(["cache", "push", "--log", log, "--remote", remote])
                .env(endpoint, &server)
                .envs(keys.iter().copied())
                .output()
                .unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.contains("403"), "{told}");
            for secret in ["s3cr3t", "t0k3n", "s1gn4tur3"] {
                assert!(!told.contains(secret), "--log {log}: {told}");
            }
        }
    }
}
