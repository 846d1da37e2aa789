//! Parameters that do nothing beside others. Each kind lists its own in [`Stage::idle_params`].
//!
//! [`Stage::idle_params`]: super::super::Stage::idle_params

use crate::data::choice::{Choice, Listed};

/// A parameter that does nothing beside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleParam {
    /// Its path, such as `warmup_steps` or `source.set`.
    pub param: &'static str,
    /// The parameter that makes it so.
    pub by: &'static str,
    /// When it would do something.
    pub serves: String,
}

impl IdleParam {
    /// This parameter, unless what it is set beside lets it work.
    pub(in crate::stages) fn unless(
        works: bool,
        param: &'static str,
        by: &'static str,
        serves: impl Into<String>,
    ) -> Option<Self> {
        (!works).then(|| Self { param, by, serves: serves.into() })
    }

    /// The parameters that the entry which `by` names does not read, but others of its list do.
    pub(in crate::stages) fn of_choice<T: Listed + ?Sized>(
        by: &'static str,
        choice: Choice<T>,
    ) -> Vec<Self> {
        let idle = choice.idle_params().into_iter();
        idle.map(|(param, readers)| Self { param, by, serves: is_one_of(by, &readers) }).collect()
    }
}

/// `` `task` is `pose`, `segmentation` or `scene` ``.
pub(in crate::stages) fn is_one_of(param: &str, values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    let values = match values.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => values.concat(),
    };
    format!("`{param}` is {values}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_listed_as_in_a_sentence() {
        assert_eq!(is_one_of("a", &["b"]), "`a` is `b`");
        assert_eq!(is_one_of("a", &["b", "c"]), "`a` is `b` or `c`");
        assert_eq!(is_one_of("a", &["b", "c", "d"]), "`a` is `b`, `c` or `d`");
    }
}
