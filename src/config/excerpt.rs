//! The text of a file for showing an error in it, with very long lines cut down.

use std::{ops::Range, sync::Arc};

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Bytes of a line that are shown on each side of what is marked.
const AROUND: usize = 60;
/// Lines up to this length are shown whole.
const WHOLE: usize = 400;
/// Lines of a mark; of a longer one, only the first is marked.
const MOST_LINES: usize = 12;

/// A file's text, or what is left of it where lines are too long to show.
#[derive(Debug)]
pub(super) struct Excerpt {
    name: String,
    text: Arc<str>,
    cuts: Vec<Cut>,
}

/// A stretch that was taken out: where it stood, and what stands there now.
#[derive(Debug)]
struct Cut {
    from: Range<usize>,
    to: Range<usize>,
}

impl Excerpt {
    /// The text of `name` with `marks` in it; the marks are moved to where they are then.
    pub fn new(name: &str, text: &Arc<str>, marks: &mut [Range<usize>]) -> Self {
        let name = name.to_owned();
        for mark in marks.iter_mut() {
            let marked = text.get(mark.clone()).unwrap_or_default();
            if marked.lines().count() > MOST_LINES {
                mark.end = mark.start + marked.lines().next().unwrap_or_default().len();
            }
        }
        if text.lines().all(|line| line.len() <= WHOLE) {
            return Self { name, text: Arc::clone(text), cuts: Vec::new() };
        }
        let mut out = String::new();
        let mut cuts = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let end = start + line.trim_end().len();
            let kept = kept(text, start..end, marks);
            let mut at = start;
            for part in kept {
                cut(&mut out, &mut cuts, at..part.start);
                out.push_str(&text[part.clone()]);
                at = part.end;
            }
            cut(&mut out, &mut cuts, at..end);
            out.push_str(&text[end..start + line.len()]);
            start += line.len();
        }
        let excerpt = Self { name, text: out.into(), cuts };
        for mark in marks {
            let begin = excerpt.moved(mark.start);
            *mark = begin..excerpt.moved(mark.end).max(begin);
        }
        excerpt
    }

    /// Where a byte of the whole text is now.
    fn moved(&self, at: usize) -> usize {
        let before = self.cuts.partition_point(|cut| cut.from.start < at);
        match self.cuts[..before].last() {
            Some(cut) if at < cut.from.end => cut.to.end,
            Some(cut) => at - cut.from.end + cut.to.end,
            None => at,
        }
    }

    /// Bytes that were taken out of a line before a byte of what is left; columns are bytes here.
    fn cut_before(&self, at: usize) -> usize {
        let line = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let cuts = self.cuts.iter().filter(|cut| (line..at).contains(&cut.to.start));
        cuts.map(|cut| cut.from.len().saturating_sub(ELLIPSIS.len())).sum()
    }
}

const ELLIPSIS: &str = "…";

fn cut(out: &mut String, cuts: &mut Vec<Cut>, from: Range<usize>) {
    if !from.is_empty() {
        let start = out.len();
        out.push_str(ELLIPSIS);
        cuts.push(Cut { from, to: start..out.len() });
    }
}

/// The parts of a line that are shown: all of it, or what is around the marks.
fn kept(text: &str, line: Range<usize>, marks: &[Range<usize>]) -> Vec<Range<usize>> {
    if line.len() <= WHOLE {
        return vec![line];
    }
    let inside = |mark: &&Range<usize>| mark.start <= line.end && mark.end >= line.start;
    let around = |at: usize| {
        let from = at.saturating_sub(AROUND).clamp(line.start, line.end);
        let to = (at + AROUND).clamp(line.start, line.end);
        text.floor_char_boundary(from)..text.ceil_char_boundary(to)
    };
    let ends = marks.iter().filter(inside).flat_map(|mark| [mark.start, mark.end]);
    let mut parts: Vec<_> = ends.map(around).collect();
    if parts.is_empty() {
        parts.push(around(line.start));
    }
    parts.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    joined
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.as_ref().read_span(span, before, after)?;
        let mut column = found.column();
        if column > 0 {
            column += self.cut_before(found.span().offset());
        }
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            found.data(),
            *found.span(),
            found.line(),
            column,
            // That of `found` counts from the start of the text, and places far apart were shown as
            // one.
            found.data().split(|byte| *byte == b'\n').count(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_mut;

    use super::*;

    #[test]
    fn a_long_line_is_cut_around_what_is_marked() {
        let text: Arc<str> =
            format!("a = 1\nb = [{}\"ö\", {}]\nc = 3\n", "10, ".repeat(5000), "2, ".repeat(5000))
                .into();
        let at = text.find("\"ö\"").unwrap();
        let mut mark = at..at + 4;
        let excerpt = Excerpt::new("x.toml", &text, from_mut(&mut mark));
        assert_eq!(&excerpt.text[mark.clone()], "\"ö\"");
        assert!(excerpt.text.len() < 200, "{}", excerpt.text);
        assert_eq!(excerpt.text.lines().count(), 3);
        let span = SourceSpan::from((mark.start, 4));
        let contents = excerpt.read_span(&span, 0, 0).unwrap();
        assert_eq!((contents.line(), contents.column()), (1, at - 6));
    }

    #[test]
    fn a_mark_that_is_long_itself_keeps_its_ends() {
        let text: Arc<str> = format!("a = \"{}\"\n", "é".repeat(100_000)).into();
        let mut mark = 4..text.len() - 1;
        let excerpt = Excerpt::new("x.toml", &text, from_mut(&mut mark));
        assert!(excerpt.text.len() < 300, "{}", excerpt.text);
        assert_eq!(mark, 4..excerpt.text.len() - 1);
    }

    #[test]
    fn of_a_mark_over_many_lines_the_first_is_marked() {
        let text: Arc<str> = format!("a = [\n{}]\n", "  1,\n".repeat(50)).into();
        let mut mark = 4..text.len() - 1;
        Excerpt::new("x.toml", &text, from_mut(&mut mark));
        assert_eq!(&text[mark], "[");
        let mut mark = 6..20;
        Excerpt::new("x.toml", &text, from_mut(&mut mark));
        assert_eq!(mark, 6..20);
    }

    #[test]
    fn short_lines_stay() {
        let text: Arc<str> = "a = 1\n".into();
        let excerpt = Excerpt::new("x.toml", &text, from_mut(&mut (4..5)));
        assert!(Arc::ptr_eq(&excerpt.text, &text));
    }
}
