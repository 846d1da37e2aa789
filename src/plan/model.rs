//! Another model than before, which is no change of the weights of one.

use super::{StaleReason, freshness::place_of};
use crate::{config::Instance, stages::MODEL_PARAMS, store::Record};

/// These reasons for which an instance is no longer what `before` says, where its weights are
/// others: if another model is named, that is told.
pub(super) fn named(
    mut reasons: Vec<StaleReason>,
    before: &Record,
    instance: &Instance,
) -> Vec<StaleReason> {
    let Some(model) = instance.work.model() else { return reasons };
    let (Some(old), new) = (&before.model, model.short_name()) else { return reasons };
    if *old == new {
        return reasons;
    }
    let mut named = MODEL_PARAMS.into_iter();
    let path =
        named.find(|param| instance.params.get(*param).is_some_and(|value| !value.is_null()));
    let path = path.unwrap_or(MODEL_PARAMS[0]).to_owned();
    let place = place_of(instance, &path);
    for reason in &mut reasons {
        if matches!(reason, StaleReason::WeightsChanged { .. }) {
            let (path, place) = (path.clone(), place.clone());
            *reason = StaleReason::ParamChanged { path, old: old.clone(), new: new.clone(), place };
        }
    }
    reasons
}
