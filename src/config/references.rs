//! `${name}` and `${table.key}` in strings.

/// A string cut into text and references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Text(String),
    /// A value to put in.
    Reference(Reference),
}

/// The inside of `${...}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The param or axis.
    pub name: String,
    /// Keys that lead into it.
    pub keys: Vec<String>,
    /// The whole as it was written, with `${` and `}`.
    pub written: String,
}

/// Cuts a string into its parts; `$${` stands for a `${` that is none of ours.
///
/// An error says what is wrong and which text it is about.
pub fn parse(text: &str) -> Result<Vec<Part>, (String, String)> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            plain.push_str(&rest[..at - 1]);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let Some(length) = rest[at..].find('}') else {
            return Err(("`${` has no closing `}`".to_owned(), rest[at..].to_owned()));
        };
        let written = &rest[at..=at + length];
        let mut keys: Vec<String> =
            written[2..length].split('.').map(|key| key.trim().to_owned()).collect();
        if keys.iter().any(String::is_empty) {
            return Err((format!("`{written}` names nothing"), written.to_owned()));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        let name = keys.remove(0);
        parts.push(Part::Reference(Reference { name, keys, written: written.to_owned() }));
        rest = &rest[at + length + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// Whether a string needs [`parse`].
pub fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// The params and axes that a string names.
pub fn names(text: &str) -> Vec<String> {
    let parts = if has_reference(text) { parse(text).unwrap_or_default() } else { Vec::new() };
    let name = |part| match part {
        Part::Reference(reference) => Some(reference.name),
        Part::Text(_) => None,
    };
    parts.into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, keys: &[&str], written: &str) -> Part {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Part::Reference(Reference { name: name.to_owned(), keys, written: written.to_owned() })
    }

    #[test]
    fn strings_are_cut_at_references() {
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(parse("plain"), Ok(vec![text("plain")]));
        assert_eq!(parse(""), Ok(vec![text("")]));
        assert_eq!(parse("${a}"), Ok(vec![reference("a", &[], "${a}")]));
        assert_eq!(
            parse("x ${ a.b } y${c}"),
            Ok(vec![
                text("x "),
                reference("a", &["b"], "${ a.b }"),
                text(" y"),
                reference("c", &[], "${c}")
            ])
        );
        assert_eq!(parse("$${HOME} and $"), Ok(vec![text("${HOME} and $")]));
    }

    #[test]
    fn broken_references_are_named() {
        assert_eq!(parse("a ${b").unwrap_err().1, "${b");
        assert_eq!(parse("${}").unwrap_err().0, "`${}` names nothing");
        assert_eq!(parse("${a..b}").unwrap_err().1, "${a..b}");
    }
}
