//! How many bytes a remote may send: who lies about sizes must not fill the memory.

use object_store::Error;

use super::error::causes;

/// The most bytes of an answer of which nobody says what it may have: an error, a page of a
/// listing.
pub(super) const MOST: u64 = 16 << 20;

/// How many bytes the answer to a request may have that is for no range: goes with the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most(pub(super) u64);

/// The server sends more than it was asked for, or than such a file has.
#[derive(Debug, thiserror::Error)]
#[error("the server sends more than {0} bytes, which is more than was asked for")]
pub(super) struct TooMuch(pub(super) u64);

/// How many bytes the answer to a request may have.
pub(super) fn of_answer(request: &http::request::Parts) -> u64 {
    let range = request.headers.get("range").and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        to.parse::<u64>().ok()?.checked_sub(from.parse().ok()?)?.checked_add(1)
    });
    range.or_else(|| Some(request.extensions.get::<Most>()?.0)).unwrap_or(MOST)
}

/// The most bytes that a file with this name can have: a list of a million items, say, and the
/// record of a stage that read a quarter of a million files.
pub(super) fn of_name(name: &str) -> u64 {
    match name.split('/').next() {
        Some("format") => 1 << 10,
        Some("objects") => 256 << 20,
        _ => 64 << 20,
    }
}

/// Whether a server sent more than it may.
pub(super) fn is_too_much(error: &Error) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<TooMuch>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_no_more_than_the_range_or_what_is_said_of_it() {
        let of = |range: Option<&str>, said: Option<Most>| {
            let mut request = http::Request::get("http://x/");
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            said.map(|said| parts.extensions.insert(said));
            of_answer(&parts)
        };
        assert_eq!(of(Some("bytes=100-199"), None), 100);
        assert_eq!(of(None, Some(Most(64))), 64);
        for no_range in [None, Some("bytes=100-"), Some("bytes=-5"), Some("bytes=9-1"), Some("x")] {
            assert_eq!(of(no_range, None), MOST, "{no_range:?}");
        }
        assert!(of_name("format") < of_name("actions/ab/cd"));
    }
}
