//! What stays in one piece where text is wrapped: paths, names and addresses, which somebody may
//! copy.

/// Begins a stand-in: the number of what it stands for comes on top. Of a private use, so in no
/// text.
const FIRST: u32 = 0xF_0000;
/// How many there are.
const MOST: u32 = 0xFFFD;
/// Fills a stand-in up to the length of what it stands for.
const FILL: char = '\u{E000}';

/// Words that are wrapped as one, each by a stand-in of the same length.
#[derive(Debug, Default)]
pub(crate) struct Unbroken {
    words: Vec<String>,
}

impl Unbroken {
    /// A text in which a stand-in takes the place of each path, and of each name in backticks.
    pub(crate) fn guard(&mut self, text: &str) -> String {
        let lines = text.split('\n').map(|line| self.guard_line(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn guard_line(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut parts = line.split('`').peekable();
        let mut is_quoted = false;
        while let Some(part) = parts.next() {
            let is_closed = parts.peek().is_some();
            if is_quoted && is_closed {
                let is_one = part.contains('/') || !part.contains(char::is_whitespace);
                out.push_str(&if is_one { self.stand_in(part) } else { part.to_owned() });
            } else {
                let words = part.split(' ').map(|word| {
                    if word.contains('/') { self.stand_in(word) } else { word.to_owned() }
                });
                out.push_str(&words.collect::<Vec<_>>().join(" "));
            }
            if is_closed {
                out.push('`');
            }
            is_quoted = !is_quoted;
        }
        out
    }

    fn stand_in(&mut self, word: &str) -> String {
        let number = self.words.len() as u32;
        let Some(first) = char::from_u32(FIRST + number).filter(|_| number < MOST) else {
            return word.to_owned();
        };
        if word.is_empty() {
            return String::new();
        }
        self.words.push(word.to_owned());
        let fill = word.chars().skip(1).map(|_| FILL);
        std::iter::once(first).chain(fill).collect()
    }

    /// The wrapped text with what it says.
    pub(crate) fn restore(&self, wrapped: &str) -> String {
        let mut out = String::with_capacity(wrapped.len());
        for char in wrapped.chars() {
            let number = u32::from(char).checked_sub(FIRST);
            match number.and_then(|number| self.words.get(number as usize)) {
                Some(word) => out.push_str(word),
                None if char == FILL && !self.words.is_empty() => {}
                None => out.push(char),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_copied_is_in_one_piece() {
        let text = "cannot read `my data/a-b.png` at x/y.toml:3:4, as `run it` and `lo-ra[n=1]` say: a\n`open";
        let mut unbroken = Unbroken::default();
        let guarded = unbroken.guard(text);
        assert_eq!(unbroken.words, ["my data/a-b.png", "x/y.toml:3:4,", "lo-ra[n=1]"]);
        assert_eq!(guarded.chars().count(), text.chars().count());
        assert!(guarded.contains("`run it`") && !guarded.contains('/'));
        assert_eq!(unbroken.restore(&guarded), text);
    }

    #[test]
    fn what_is_not_guarded_stays_as_it_is() {
        let mut unbroken = Unbroken::default();
        for text in ["", "`", "``", "a `` b", "\u{E000}", "no path"] {
            assert_eq!(unbroken.guard(text), text);
            assert_eq!(unbroken.restore(text), text);
        }
    }
}
