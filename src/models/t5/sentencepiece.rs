//! Reads `spiece.model`: the few fields of SentencePiece's `ModelProto` that a tokenizer needs.
//!
//! Field numbers: `sentencepiece_model.proto` of google/sentencepiece. A protobuf message is a
//! sequence of fields, each a varint `number * 8 + wire type` and a value; other fields are
//! skipped.

/// What the tokenizer uses of a `spiece.model`.
#[derive(Debug, Default, PartialEq)]
pub struct SentencePieceModel {
    /// The pieces with their log probabilities, by id.
    pub pieces: Vec<(String, f64)>,
    /// The map of Unicode normalisation; empty if there is none.
    pub charsmap: Vec<u8>,
}

/// Why a file is not a `spiece.model` that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SentencePieceError {
    /// A field reaches over the end, or is not a protobuf field at all.
    #[error("the file is cut short or is not a SentencePiece model")]
    Malformed,
    /// A piece is empty, is not text, or has no finite score.
    #[error("piece {index} is not a text with a finite score")]
    Piece {
        /// Its id.
        index: usize,
    },
    /// Not a unigram model.
    #[error("the model must be of type unigram (1), but is of type {found}")]
    Type {
        /// `model_type` of the trainer's settings.
        found: u64,
    },
}

use SentencePieceError::Malformed;

/// A field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    Fixed64,
}

/// The fields of a message with their numbers.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, SentencePieceError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], SentencePieceError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), SentencePieceError> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().expect("four bytes were taken")),
            _ => return Err(Malformed),
        };
        Ok((key >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), SentencePieceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl SentencePieceModel {
    /// Parses the bytes of a `spiece.model`.
    pub fn parse(bytes: &[u8]) -> Result<Self, SentencePieceError> {
        let mut model = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => {
                    let piece = parse_piece(piece, model.pieces.len())?;
                    model.pieces.push(piece);
                }
                (2, Field::Bytes(trainer)) => check_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        if let (2, Field::Bytes(map)) = field? {
                            model.charsmap = map.to_vec();
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(model)
    }
}

fn parse_piece(bytes: &[u8], index: usize) -> Result<(String, f64), SentencePieceError> {
    let (mut text, mut score) = (String::new(), 0.0_f32);
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => {
                let piece = std::str::from_utf8(bytes);
                piece.map_err(|_| SentencePieceError::Piece { index })?.clone_into(&mut text);
            }
            (2, Field::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            _ => {}
        }
    }
    if text.is_empty() || !score.is_finite() {
        return Err(SentencePieceError::Piece { index });
    }
    Ok((text, f64::from(score)))
}

fn check_trainer(bytes: &[u8]) -> Result<(), SentencePieceError> {
    for field in Fields(bytes) {
        if let (3, Field::Varint(found)) = field?
            && found != 1
        {
            return Err(SentencePieceError::Type { found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn piece(text: &str, score: f32) -> Vec<u8> {
        let mut fields = message(1, text.as_bytes());
        fields.push(2 << 3 | 5);
        fields.extend(score.to_le_bytes());
        message(1, &fields)
    }

    #[test]
    fn pieces_and_map_are_read_and_other_fields_skipped() {
        let bytes = [
            piece("<pad>", 0.0),
            piece("\u{2581}a", -1.5),
            message(2, &[3 << 3, 1]),
            message(3, &message(2, b"map")),
            message(9, b"whatever"),
        ]
        .concat();
        let model = SentencePieceModel::parse(&bytes).unwrap();
        assert_eq!(model.pieces, [("<pad>".to_owned(), 0.0), ("\u{2581}a".to_owned(), -1.5)]);
        assert_eq!(model.charsmap, b"map");
    }

    #[test]
    fn other_model_types_and_bad_pieces_are_errors() {
        let bpe = message(2, &[3 << 3, 2]);
        assert_eq!(SentencePieceModel::parse(&bpe), Err(SentencePieceError::Type { found: 2 }));
        for bad in [piece("", 0.0), piece("a", f32::NAN)] {
            let error = SentencePieceModel::parse(&bad);
            assert_eq!(error, Err(SentencePieceError::Piece { index: 0 }));
        }
    }

    #[test]
    fn every_cut_inside_a_field_is_an_error() {
        let bytes = piece("hello", -2.0);
        for len in 1..bytes.len() {
            assert_eq!(SentencePieceModel::parse(&bytes[..len]), Err(Malformed), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SentencePieceModel::parse(&bytes);
        }
    }
}
