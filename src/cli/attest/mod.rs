//! `pipe attest`.

mod verify;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    error::CliError,
    exit,
    overwrite::{has_content, not_ours, refuse_overwrite},
    session::{LayerArgs, Session},
};
use crate::{
    config::{self, Pipeline},
    plan::{self, PlanOptions, described},
    provenance::{
        Facts,
        envelope::{Envelope, EnvelopeError, private_key},
        statement::Statement,
    },
    report::style::count,
    store::write_aside,
};

/// Sign what the results were made from, or check such a statement
///
/// Writes an in-toto statement (SLSA provenance 1.0) in a DSSE envelope, signed with Ed25519. Its
/// subjects are the files of the results; its materials are the pipeline file, the models and the
/// data. With --verify it checks the signature, and that the cache holds every subject; with FILE,
/// too, that every stage gave what is attested and was made from what is attested: its key, and the
/// pipeline file, models and data.
#[derive(Debug, clap::Args)]
pub(super) struct AttestArgs {
    /// The pipeline file
    #[arg(required_unless_present = "verify")]
    file: Option<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
    /// The private key (PKCS#8, PEM), as `openssl genpkey -algorithm ed25519` makes it; to verify,
    /// the public one
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Where to write the envelope, instead of `<pipeline>.intoto.json` beside the file
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    to: Option<PathBuf>,
    /// Check this envelope
    #[arg(long, value_name = "ENVELOPE")]
    verify: Option<PathBuf>,
}

pub(super) fn attest(args: &AttestArgs, session: &Session) -> Result<(), CliError> {
    match (&args.verify, &args.file) {
        (Some(envelope), file) => verify::verify(args, envelope, file.as_deref(), session),
        (None, Some(file)) => sign(args, file, session),
        (None, None) => Err(CliError::usage("no pipeline file was named")),
    }
}

fn sign(args: &AttestArgs, file: &Path, session: &Session) -> Result<(), CliError> {
    let key = private_key(&read(&args.key, PRIVATE)?).map_err(|error| wrong(&args.key, &error))?;
    let pipeline = config::load(file, &args.layers.options())?;
    let store = session.store()?;
    let _use = store.in_use_to_read(&|| false)?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let facts = Facts::gather(&plan)
        .map_err(|error| CliError::of_facts(&error, &args.layers.command("run", file)))?;
    let statement = Statement::new(&facts, &store)?;
    let payload = serde_json::to_vec(&statement).expect("a statement is valid JSON");
    let envelope = Envelope::sign(&payload, &key);
    let path = args.to.clone().unwrap_or_else(|| path_of(&pipeline));
    refuse_overwrite(&path, [file, args.key.as_path()])?;
    check_place(&path, &pipeline)?;
    let text = serde_json::to_string(&envelope).expect("an envelope is valid JSON") + "\n";
    write(&path, text.as_bytes()).map_err(|error| CliError::file("write", &path, &error))?;
    let files = count(statement.subject.len(), "file");
    session.talk(&format!("attested {files} of results, key {}", envelope.signatures[0].keyid));
    session.print(&format!("{}\n", path.display()))
}

/// Refuses to write the envelope of a pipeline over anything but an older one of its own.
fn check_place(path: &Path, pipeline: &Pipeline) -> Result<(), CliError> {
    if !has_content(path) {
        return Ok(());
    }
    let refused = |what: &str| Err(not_ours(path, what, "--to"));
    let bytes = fs::read(path).map_err(|error| CliError::file("read", path, &error))?;
    let envelope = String::from_utf8(bytes).ok().and_then(|text| Envelope::parse(&text).ok());
    let statement = envelope.and_then(|envelope| Statement::parse(&envelope.unchecked()?).ok());
    let Some(statement) = statement else {
        return refused("is there already and is no envelope of `pipe`");
    };
    match statement.pipeline() {
        Some((name, profile))
            if (name, profile) != (&*pipeline.name, pipeline.profile.as_deref()) =>
        {
            refused(&format!("is the envelope of {}", described(name, profile)))
        }
        _ => Ok(()),
    }
}

/// Writes a file in one step. What is no file is written to: a link, as `/dev/stdout` is, or a
/// pipe.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => fs::write(path, bytes),
        _ => write_aside(path, bytes),
    }
}

/// `pose.intoto.json`, `pose.paper.intoto.json`.
fn path_of(pipeline: &Pipeline) -> PathBuf {
    plan::Lock::path_of(pipeline).with_extension("intoto.json")
}

const PRIVATE: &str = "`openssl genpkey -algorithm ed25519 -out key.pem` makes a private key";
const PUBLIC: &str =
    "`openssl pkey -in key.pem -pubout -out public.pem` writes the public key of a private one";
const ENVELOPE: &str = "`pipe attest FILE --key KEY` writes one";

/// Reads a file; `origin` says where one comes from.
fn read(path: &Path, origin: &str) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            CliError::environment(format!("there is no file `{}`", path.display()))
                .with_help(format!("check the path; {origin}"))
        }
        _ => CliError::file("read", path, &error),
    })
}

/// A signature that is not good is a difference; what has another form was the wrong file to name.
fn wrong(path: &Path, error: &EnvelopeError) -> CliError {
    let code = match error {
        EnvelopeError::Signature(_) => exit::DIFFERENT,
        _ => exit::USAGE,
    };
    let help = error.help().map(str::to_owned);
    CliError::Message { code, message: format!("`{}`: {error}", path.display()), help }
}
