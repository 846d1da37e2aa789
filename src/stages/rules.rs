//! Rules for parameters that several kinds have.

use super::ParamError;

/// Counts that must not be zero.
pub(super) fn at_least_one(counts: &[(&str, usize)]) -> Vec<ParamError> {
    let zero = counts.iter().filter(|(_, value)| *value == 0);
    zero.map(|(field, _)| ParamError::new(field, "must be at least 1, but is 0")).collect()
}

/// A share or a probability.
pub(super) fn share(field: &str, value: f64) -> Option<ParamError> {
    let message = format!("must lie between 0 and 1, but is {value}");
    (!(0.0..=1.0).contains(&value)).then(|| ParamError::new(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_a_rule_is_named() {
        let fields: Vec<_> =
            at_least_one(&[("a", 0), ("b", 1)]).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["a"]);
        assert!(share("p", 0.0).is_none() && share("p", 1.0).is_none());
        let message = share("p", f64::NAN).unwrap().message;
        assert_eq!(message, "must lie between 0 and 1, but is NaN");
    }
}
