//! `pipe attest`.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    error::CliError,
    exit,
    session::{LayerArgs, Session},
    spare::spare,
};
use crate::{
    config::{self, Pipeline},
    plan::{self, Freshness, PlanOptions},
    provenance::{
        Facts,
        envelope::{Envelope, EnvelopeError, private_key, public_key},
        statement::{Held, Statement, check},
    },
    report::style::count,
    store::Store,
};

/// Sign what the results were made from, or check such a statement
///
/// Writes an in-toto statement (SLSA provenance 1.0) in a DSSE envelope, signed with Ed25519. Its
/// subjects are the files of the results; its materials are the pipeline file, the models and the data.
/// With --verify it checks the signature, and that the cache holds every subject; with FILE, that
/// every stage's output is the one that was attested, too.
#[derive(Debug, clap::Args)]
pub(super) struct AttestArgs {
    /// The pipeline file
    #[arg(required_unless_present = "verify")]
    file: Option<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
    /// The private key (PKCS#8, PEM), as `openssl genpkey -algorithm ed25519` makes it; to verify, the
    /// public one
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
        (Some(envelope), file) => verify(args, envelope, file.as_deref(), session),
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
    spare(&path, [file, args.key.as_path()])?;
    let text = serde_json::to_string(&envelope).expect("an envelope is valid JSON") + "\n";
    std::fs::write(&path, text).map_err(|error| CliError::file("write", &path, &error))?;
    let files = count(statement.subject.len(), "file");
    session.talk(&format!("attested {files} of results, key {}", envelope.signatures[0].keyid));
    session.print(&format!("{}\n", path.display()))
}

/// `pose.intoto.json`, `pose.paper.intoto.json`.
fn path_of(pipeline: &Pipeline) -> PathBuf {
    plan::Lock::path_of(pipeline).with_extension("intoto.json")
}

fn verify(
    args: &AttestArgs,
    path: &Path,
    file: Option<&Path>,
    session: &Session,
) -> Result<(), CliError> {
    let key = public_key(&read(&args.key, PUBLIC)?).map_err(|error| wrong(&args.key, &error))?;
    let envelope = Envelope::parse(&read(path, ENVELOPE)?).map_err(|error| wrong(path, &error))?;
    let payload = envelope.open(&key).map_err(|error| wrong(path, &error))?;
    let statement = Statement::parse(&payload)
        .map_err(|message| CliError::usage(format!("`{}`: {message}", path.display())))?;
    let store = session.store()?;
    let _use = store.in_use_to_read(&|| false)?;
    let mut found = subjects(&statement, &store)?;
    if let Some(file) = file {
        let pipeline = config::load(file, &args.layers.options())?;
        found.merge(outputs(&statement, &pipeline, &store)?);
    }
    found.report(&statement, path, file, session)
}

/// Results named when many disagree.
const MOST_NAMED: usize = 20;

/// What does not agree with a statement.
#[derive(Debug, Default)]
struct Disagreement {
    differs: Vec<String>,
    missing: Vec<String>,
}

impl Disagreement {
    fn merge(&mut self, other: Self) {
        self.differs.extend(other.differs);
        self.missing.extend(other.missing);
    }

    fn report(
        self,
        statement: &Statement,
        path: &Path,
        file: Option<&Path>,
        session: &Session,
    ) -> Result<(), CliError> {
        let Self { differs, missing } = self;
        if differs.is_empty() && missing.is_empty() {
            let files = count(statement.subject.len(), "file");
            let stages = file
                .map(|_| format!(", {} as attested", count(statement.outputs().len(), "stage")));
            let stages = stages.unwrap_or_default();
            return session.print(&format!("good signature; {files} in the cache{stages}\n"));
        }
        let code = if differs.is_empty() { exit::STAGE_FAILED } else { exit::DIFFERENT };
        let all: Vec<String> = differs.into_iter().chain(missing).collect();
        let more = all.len().saturating_sub(MOST_NAMED);
        let more = (more > 0).then(|| format!("{} that disagree", count(more, "more result")));
        let named = all.into_iter().take(MOST_NAMED).chain(more);
        let parts = named.map(|message| (message, None));
        let last =
            format!("the signature is good, but this is not what `{}` attests", path.display());
        let help = match (code, file) {
            (exit::DIFFERENT, _) => "`pipe explain FILE STAGE` says what a result is made from now",
            _ => "`pipe run FILE` computes what is not in the cache",
        };
        Err(CliError::Messages {
            code,
            parts: parts.chain([(last, Some(help.to_owned()))]).collect(),
        })
    }
}

/// Which subjects the cache does not hold.
fn subjects(statement: &Statement, store: &Store) -> Result<Disagreement, CliError> {
    let mut found = Disagreement::default();
    for subject in &statement.subject {
        let name = subject.name.as_deref().unwrap_or("a file without a name");
        match check(subject, store)? {
            Held::Whole => {}
            Held::Missing => found.missing.push(format!("`{name}`: not in the cache")),
            Held::Differs => found.differs.push(format!("`{name}`: its SHA-256 is another")),
            Held::Unknown => found.differs.push(format!("`{name}`: no blake3 is stated")),
        }
    }
    Ok(found)
}

/// Which stages of a pipeline give something else than what is stated.
fn outputs(
    statement: &Statement,
    pipeline: &Pipeline,
    store: &Store,
) -> Result<Disagreement, CliError> {
    let mut stated = statement.outputs();
    let mut found = Disagreement::default();
    let plan = plan::build(pipeline, store, &PlanOptions::default())?;
    for (node, instance) in plan.nodes.iter().zip(&pipeline.instances) {
        let stage = instance.to_string();
        let wanted = stated.remove(stage.as_str()).flatten();
        match (&node.freshness, wanted) {
            (Freshness::Fresh(record), Some(wanted)) if record.output == wanted => {}
            (Freshness::Fresh(record), Some(wanted)) => found.differs.push(format!(
                "`{stage}`: its output is {}, but {} is attested",
                record.output.short(),
                wanted.short()
            )),
            (_, Some(_)) => found.missing.push(format!("`{stage}`: not up to date in the cache")),
            (_, None) => found.differs.push(format!("`{stage}`: not attested")),
        }
    }
    let gone =
        stated.into_keys().map(|stage| format!("`{stage}`: attested, but not in the pipeline"));
    found.differs.extend(gone);
    Ok(found)
}

const PRIVATE: &str = "`openssl genpkey -algorithm ed25519 -out key.pem` makes a private key";
const PUBLIC: &str =
    "`openssl pkey -in key.pem -pubout -out public.pem` writes the public key of a private one";
const ENVELOPE: &str = "`pipe attest FILE --key KEY` writes one";

/// Reads a file; `origin` says where one comes from.
fn read(path: &Path, origin: &str) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
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
