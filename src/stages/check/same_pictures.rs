//! Pictures that are in two sets of pairs, and what is to be said of it.

use std::collections::{BTreeMap, HashMap};

use crate::store::Digest;

/// Pictures that are learnt from and asked about, whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamePictures {
    /// How many of those asked about.
    pictures: usize,
    /// One of them in both sets.
    such: String,
}

impl SamePictures {
    /// Those of two sets by their content, each with its name.
    pub fn of_content(asked: &[(Digest, String)], learnt: &[(Digest, String)]) -> Option<Self> {
        let mut first: HashMap<Digest, &str> = HashMap::new();
        for (digest, name) in learnt {
            first.entry(*digest).or_insert(name);
        }
        let mut same = asked.iter().filter_map(|(digest, a)| Some((a, first.get(digest)?)));
        let (a, b) = same.next()?;
        Some(Self { pictures: 1 + same.count(), such: format!("`{a}`, there `{b}`") })
    }

    /// Those of two sets by their names, each with what shows it.
    pub fn of_names(
        asked: &BTreeMap<String, String>,
        learnt: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let mut same = asked.iter().filter_map(|(id, a)| Some((id, a, learnt.get(id)?)));
        let (id, a, b) = same.next()?;
        let such = format!("`{id}` in `{a}`, there in `{b}`");
        Some(Self { pictures: 1 + same.count(), such })
    }

    /// What to say of the stages that ask and that are learnt from.
    pub fn told(&self, test: &str, train: &str) -> String {
        let Self { pictures, such } = self;
        let pictures = match pictures {
            1 => "1 picture".to_owned(),
            pictures => format!("{pictures} pictures"),
        };
        format!(
            "`{test}` asks about {pictures} that `{train}` learns from, such as {such}: its scores are partly \
             those of answers that were learnt"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_asked_about_counts_once() {
        let set = |of: &[(u8, &str)]| -> Vec<_> {
            of.iter().map(|(shade, name)| (Digest::of(&[*shade]), (*name).to_owned())).collect()
        };
        let learnt = set(&[(1, "a"), (1, "b"), (2, "c")]);
        let told = |asked: &[(u8, &str)]| {
            SamePictures::of_content(&set(asked), &learnt).map(|same| same.told("test", "train"))
        };
        insta::assert_snapshot!(told(&[(3, "x"), (1, "y"), (1, "z")]).unwrap(), @"`test` asks about 2 pictures that `train` learns from, such as `y`, there `a`: its scores are partly those of answers that were learnt");
        assert!(told(&[(2, "x")]).unwrap().contains("about 1 picture that"));
        assert_eq!(told(&[(3, "x")]), None);
    }
}
