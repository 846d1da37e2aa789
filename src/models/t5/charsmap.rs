//! Checks the character map of a SentencePiece model before it is used.
//!
//! The map is a double-array trie over bytes whose values are offsets into a blob of
//! NUL-terminated replacements (S. Yata's darts-clone format, as SentencePiece stores it). The
//! `tokenizers` crate follows the offsets of the file unchecked and would panic on a bad one, so
//! every step that a lookup could take is taken here first.

/// Whether no lookup in `map` can leave it.
pub fn is_sound(map: &[u8]) -> bool {
    let Some((trie_size, rest)) = map.split_first_chunk::<4>() else { return false };
    let trie_size = u32::from_le_bytes(*trie_size) as usize;
    let Some((trie, replacements)) = rest.split_at_checked(trie_size - trie_size % 4) else {
        return false;
    };
    let Ok(replacements) = std::str::from_utf8(replacements) else { return false };
    let units: Vec<u32> =
        trie.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let Some(root) = units.first() else { return false };

    let mut visited = vec![false; units.len()];
    let mut open = vec![offset(*root)];
    while let Some(node) = open.pop() {
        let Some(seen) = visited.get_mut(node) else { return false };
        if std::mem::replace(seen, true) {
            continue;
        }
        for label in 1..=255_u32 {
            let Some(unit) = units.get(node ^ label as usize) else { return false };
            if unit & ((1 << 31) | 0xff) != label {
                continue;
            }
            let child = node ^ label as usize ^ offset(*unit);
            let has_value = (unit >> 8) & 1 == 1;
            if has_value {
                let Some(value) = units.get(child) else { return false };
                if !replacements.is_char_boundary((value & 0x7fff_ffff) as usize) {
                    return false;
                }
            }
            open.push(child);
        }
    }
    true
}

/// The distance from a unit to its children.
fn offset(unit: u32) -> usize {
    let unit = unit as usize;
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::normalizers::Precompiled;

    use super::*;

    #[test]
    fn cut_maps_are_unsound() {
        assert!(!is_sound(&[]));
        assert!(!is_sound(&[8, 0, 0, 0, 1]));
        assert!(!is_sound(&[0, 0, 0, 0]));
        let small = [[4_u8, 0, 0, 0], [0; 4]].concat();
        assert!(!is_sound(&small), "children of the root lie outside");
    }

    proptest! {
        #[test]
        fn a_sound_map_never_panics(
            units in proptest::collection::vec(any::<u32>(), 256..300),
            offsets in proptest::collection::vec((0_usize..256, 0_u32..40), 0..200),
            text in "\\PC{0,12}",
        ) {
            // Mostly small units, so that some maps are sound.
            let mut trie: Vec<u32> = units.iter().map(|unit| unit & 0x1ff).collect();
            for (at, by) in offsets {
                trie[at] |= by << 10;
            }
            let mut map = ((trie.len() * 4) as u32).to_le_bytes().to_vec();
            map.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
            map.extend("ab\0\u{e4}c\0".repeat(100).bytes());
            if is_sound(&map) && let Ok(precompiled) = Precompiled::from(&map) {
                precompiled.normalize_string(&text);
            }
        }
    }
}
