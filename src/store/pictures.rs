//! Names of contact sheets, which tell what a sheet shows and whether it is whole.
//!
//! A picture is called `<stage>-<cell>-<predictions>-<all>-<own>.png`: the short digests of the
//! predictions that it shows, of all that it may show, and its own. Older versions left out its
//! own, and before that gave one digest only, which tells no owner.

use std::{fs, io, path::Path};

use super::Digest;

/// Digests in the name of a picture.
const DIGESTS: usize = 3;

/// The digests in a picture's name, as far as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureName<'a> {
    /// The short digest of the predictions that it shows.
    pub predictions: Option<&'a str>,
    /// Its own.
    pub own: Option<&'a str>,
}

impl<'a> PictureName<'a> {
    /// Reads the name of a file among the pictures, if it was given here.
    pub fn of(picture: &'a Path) -> Option<Self> {
        let name = picture.file_name()?.to_str()?.strip_suffix(".png")?;
        let last = name.rsplit('-').take(DIGESTS);
        let digests: Vec<_> = last.take_while(|part| Digest::is_short(part)).collect();
        let (own, first) = (*digests.first()?, *digests.last()?);
        Some(Self {
            predictions: (digests.len() > 1).then_some(first),
            own: (digests.len() == DIGESTS).then_some(own),
        })
    }

    /// Whether a file is the picture that was named so; one that does not tell is believed.
    pub fn is_of(&self, picture: &Path) -> io::Result<bool> {
        let Some(own) = self.own else { return Ok(true) };
        Ok(Digest::of(&fs::read(picture)?).short() == own)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn names_of_all_versions_are_read() {
        let [a, b, c] = ["0123456789ab", "ba9876543210", "00000000000f"];
        let read = |name: &str| {
            let name = PathBuf::from(name);
            PictureName::of(&name)
                .map(|name| [name.predictions, name.own].map(|digest| digest.map(str::to_owned)))
        };
        let some = |digest: &str| Some(digest.to_owned());
        assert_eq!(read(&format!("x-n=1-{a}-{b}-{c}.png")), Some([some(a), some(c)]));
        assert_eq!(read(&format!("x-{a}-{b}.png")), Some([some(a), None]));
        assert_eq!(read(&format!("x-{a}.png")), Some([None, None]));
        for other in ["mine.png", "x-0123456789AB.png", "x-0123456789ab.jpg", "0123456789ab-x.png"]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
