//! What is logged to stderr, and how.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, filter::FilterFn, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::report::style::Style;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Crates that see requests with their credentials and log them below `warn`: headers, and
/// addresses whose query is a signature.
const CARRIERS: [&str; 5] = ["hf_hub", "hyper", "object_store", "rustls", "ureq"];

/// Reads a filter such as `info` or `pipe::exec=debug`.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',').map(str::trim) {
        // Whatever is no level is taken for the name of a crate, and a misspelt level for one that
        // logs nothing.
        let bare = !directive.is_empty() && !directive.contains(['=', '[']);
        let level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        let number = directive.parse::<u8>().is_ok_and(|level| level <= 5);
        let ours = directive == "pipe" || directive.starts_with("pipe::");
        if bare && !level && !number && !ours {
            return Err(format!(
                "`{directive}` is no level; it can be {}, or `pipe::exec=debug` for one module",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

/// Starts logging by the flags' verbosity, or by `wanted`.
pub(super) fn start(verbose: u8, wanted: &str, style: Style, bars: Option<MultiProgress>) {
    let text = match verbose {
        0 | 1 => wanted,
        2 => "warn,pipe=info",
        _ => "warn,pipe=debug",
    };
    // A filter that cannot be read is told by the command that needs the settings.
    let filter = filter(text).unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(style.color)
        .with_target(false)
        .without_time()
        // Where stderr is closed, what cannot be logged cannot be complained about either.
        .log_internal_errors(false)
        .with_writer(LogWriter(bars));
    // A second call in one process, as in tests, keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        // Beside the filter and not in it: there, a directive for one module would win.
        .with(FilterFn::new(|line| may_be_told(line.target(), *line.level())))
        .try_init();
}

/// Whether a line may be logged if somebody asks for it.
fn may_be_told(target: &str, level: Level) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    level <= Level::WARN || !CARRIERS.contains(&name)
}

/// Writes log lines above the bars.
struct LogWriter(Option<MultiProgress>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self.0.as_ref())
    }
}

struct LogLine<'a>(Option<&'a MultiProgress>);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_credentials_is_heard_only_when_it_warns() {
        for (target, level, told) in [
            ("ureq::unit", Level::DEBUG, false),
            ("object_store::client::retry", Level::INFO, false),
            ("rustls", Level::TRACE, false),
            ("ureq::rtls", Level::ERROR, true),
            ("object_store", Level::WARN, true),
            ("pipe::remote", Level::TRACE, true),
        ] {
            assert_eq!(may_be_told(target, level), told, "{target} {level}");
        }
    }

    #[test]
    fn a_filter_is_levels_and_modules() {
        for text in ["info", "WARN", "warn,pipe=debug", "pipe::exec=trace", "pipe", "3", ""] {
            assert!(filter(text).is_ok(), "{text}");
        }
        insta::assert_snapshot!(filter("warn,inof").unwrap_err(), @"`inof` is no level; it can be off, error, warn, info, debug, trace, or `pipe::exec=debug` for one module");
        insta::assert_snapshot!(filter("pipe=loud").unwrap_err(), @r#"error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5"#);
    }
}
