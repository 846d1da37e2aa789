//! A changed text whose template is the same: which of the values in it changed.

use std::collections::BTreeMap;

use regex::Regex;

use super::freshness::StaleReason;
use crate::config::{Instance, Place};

/// The params and axes for which the text at `path` differs, if it differs for nothing else.
pub(super) fn reasons(instance: &Instance, path: &str, old: &str, new: &str) -> Vec<StaleReason> {
    let filled = instance.places.filled(path, new);
    let mut texts = vec![String::new()];
    let mut at = 0;
    for (part, _) in &filled {
        texts.last_mut().expect("begun with one").push_str(&new[at..part.range.start]);
        texts.push(String::new());
        at = part.range.end;
    }
    texts.last_mut().expect("begun with one").push_str(&new[at..]);
    let Some(before) = values(&texts, old) else { return Vec::new() };
    let mut changes: BTreeMap<&str, (&str, &str, &Option<Place>)> = BTreeMap::new();
    for ((part, place), old) in filled.iter().zip(before) {
        let new = &new[part.range.clone()];
        let known = changes.entry(&part.name).or_insert((old, new, place));
        // Where a value stands twice, the old text has it twice, too.
        if known.0 != old {
            return Vec::new();
        }
    }
    let changed = changes.into_iter().filter(|(_, (old, new, _))| old != new);
    let reason = |(name, (old, new, place)): (&str, (&str, &str, &Option<Place>))| {
        StaleReason::ParamChanged {
            path: name.to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
            place: place.clone(),
        }
    };
    changed.map(reason).collect()
}

/// What stands between these texts, if there is one way to see it.
fn values<'t>(texts: &[String], whole: &'t str) -> Option<Vec<&'t str>> {
    if texts.len() < 2 {
        return None;
    }
    let between = |what: &str| {
        let texts: Vec<_> = texts.iter().map(|text| regex::escape(text)).collect();
        let found = Regex::new(&format!("(?s)^{}$", texts.join(what))).ok()?.captures(whole)?;
        found.iter().skip(1).map(|part| Some(part?.as_str())).collect::<Option<Vec<_>>>()
    };
    let shortest = between("(.*?)")?;
    (between("(.*)")? == shortest).then_some(shortest)
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn values_are_found_where_there_is_one_way_to() {
        let found = |texts: &[&str], whole: &'static str| {
            values(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), whole)
        };
        assert_eq!(found(&["echo ", ""], "echo 1"), Some(vec!["1"]));
        assert_eq!(found(&["a(", "\n", ")"], "a(1\n2)"), Some(vec!["1", "2"]));
        assert_eq!(found(&["echo ", ""], "printf 1"), None);
        // Where the first ends and the second begins, nobody knows.
        assert_eq!(found(&["", " ", ""], "1 2 3"), None);
        assert_eq!(found(&["echo 1"], "echo 1"), None);
    }
}
