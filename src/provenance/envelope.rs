//! A signed document: a DSSE envelope with an Ed25519 signature.
//!
//! Signed is what DSSE calls the pre-authentication encoding, so that the payload is read only
//! after its signature was checked. See <https://github.com/secure-systems-lab/dsse>.

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    Signature, Signer, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey},
};
use serde::{Deserialize, Serialize};

use super::sha256;

/// The media type of an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A payload and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The payload's media type.
    pub payload_type: String,
    /// The payload in base64.
    pub payload: String,
    /// At least one.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// The SHA-256 of the public key (DER), which only helps to find it.
    #[serde(default)]
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

/// What is wrong with a key or an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The text is no private key.
    #[error("it holds no private Ed25519 key (PKCS#8, PEM)")]
    PrivateKey,
    /// The key is one that a password opens.
    #[error("it holds an encrypted private key, and nobody can be asked for its password")]
    Encrypted,
    /// The text is no public key.
    #[error("it holds no public Ed25519 key (PEM)")]
    PublicKey,
    /// The text is no envelope.
    #[error("it is no DSSE envelope: {0}")]
    Form(String),
    /// The payload is something else.
    #[error("its payload is `{0}`, not an in-toto statement")]
    PayloadType(String),
    /// No signature was made with the key, or the payload is not what was signed.
    #[error("no signature of it was made with this key over this content{0}")]
    Signature(String),
}

impl EnvelopeError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::PrivateKey => Some("`openssl genpkey -algorithm ed25519 -out key.pem` makes one"),
            Self::Encrypted => {
                Some("`openssl pkey -in key.pem -out plain.pem` writes it unencrypted")
            }
            Self::PublicKey => Some("`openssl pkey -in key.pem -pubout -out key.pub.pem` makes it"),
            Self::Form(_) | Self::PayloadType(_) => Some("`pipe attest FILE --key KEY` writes one"),
            Self::Signature(_) => {
                Some("the key is another, or the envelope was changed: trust neither")
            }
        }
    }
}

/// Reads a private key as `openssl genpkey` writes it.
pub fn private_key(pem: &str) -> Result<SigningKey, EnvelopeError> {
    let is_encrypted = pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----");
    let why = if is_encrypted { EnvelopeError::Encrypted } else { EnvelopeError::PrivateKey };
    SigningKey::from_pkcs8_pem(pem.trim()).map_err(|_| why)
}

/// Reads a public key as `openssl pkey -pubout` writes it.
pub fn public_key(pem: &str) -> Result<VerifyingKey, EnvelopeError> {
    VerifyingKey::from_public_key_pem(pem.trim()).map_err(|_| EnvelopeError::PublicKey)
}

fn key_id(key: &VerifyingKey) -> String {
    key.to_public_key_der().map(|der| sha256(der.as_bytes())).unwrap_or_default()
}

/// What is signed in place of a payload.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Signs an in-toto statement.
    pub fn sign(statement: &[u8], key: &SigningKey) -> Self {
        let signature = key.sign(&encoding(IN_TOTO, statement));
        Self {
            payload_type: IN_TOTO.to_owned(),
            payload: STANDARD.encode(statement),
            signatures: vec![EnvelopeSignature {
                keyid: key_id(&key.verifying_key()),
                sig: STANDARD.encode(signature.to_bytes()),
            }],
        }
    }

    /// Reads an envelope; nothing in it is checked yet.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        serde_json::from_str(text).map_err(|error| EnvelopeError::Form(error.to_string()))
    }

    /// What is in it, whoever signed it: to know what it is about, not to believe it.
    pub fn unchecked(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.payload).ok()
    }

    /// The statement, if one of the signatures was made over it with this key.
    pub fn open(&self, key: &VerifyingKey) -> Result<Vec<u8>, EnvelopeError> {
        let form = |_| EnvelopeError::Form("the payload is not base64".to_owned());
        let payload = STANDARD.decode(&self.payload).map_err(form)?;
        let signed = encoding(&self.payload_type, &payload);
        let is_ours = |signature: &EnvelopeSignature| {
            let bytes = STANDARD.decode(&signature.sig).ok()?;
            key.verify_strict(&signed, &Signature::from_slice(&bytes).ok()?).ok()
        };
        if !self.signatures.iter().any(|signature| is_ours(signature).is_some()) {
            let named = self.signatures.iter().any(|signature| signature.keyid == key_id(key));
            let whose = match &self.signatures[..] {
                [] => "; it has no signature at all",
                _ if named => "",
                _ => "; it names another key",
            };
            return Err(EnvelopeError::Signature(whose.to_owned()));
        }
        if self.payload_type != IN_TOTO {
            return Err(EnvelopeError::PayloadType(self.payload_type.clone()));
        }
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn what_is_signed_is_encoded_as_in_the_protocol() {
        // The example of its specification.
        let encoded = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn only_what_was_signed_is_opened_and_only_with_its_key() {
        let envelope = Envelope::sign(b"{}", &key(1));
        let text = serde_json::to_string(&envelope).unwrap();
        let read = Envelope::parse(&text).unwrap();
        assert_eq!(read.open(&key(1).verifying_key()).unwrap(), b"{}");
        let error = read.open(&key(2).verifying_key()).unwrap_err();
        assert_eq!(error, EnvelopeError::Signature("; it names another key".into()));

        let tampered = Envelope { payload: STANDARD.encode(b"[]"), ..envelope.clone() };
        let retyped = Envelope { payload_type: "text/plain".into(), ..envelope.clone() };
        let unsigned = Envelope { signatures: Vec::new(), ..envelope };
        let error = unsigned.open(&key(1).verifying_key()).unwrap_err();
        assert_eq!(error, EnvelopeError::Signature("; it has no signature at all".into()));
        // As `openssl genpkey -aes256` begins it.
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcG\n";
        assert_eq!(private_key(encrypted).unwrap_err(), EnvelopeError::Encrypted);
        for broken in [tampered, retyped, unsigned] {
            let error = broken.open(&key(1).verifying_key()).unwrap_err();
            assert!(matches!(error, EnvelopeError::Signature(_)), "{error}");
        }
        assert!(matches!(Envelope::parse("{}"), Err(EnvelopeError::Form(_))));
    }

    /// RFC 8032, section 7.1, test 1, as OpenSSL writes it; RFC 8410, section 10.3 has the form.
    #[test]
    fn keys_of_openssl_are_read() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
            -----END PUBLIC KEY-----\n";
        let key = private_key(private).unwrap();
        assert_eq!(key.verifying_key(), public_key(public).unwrap());
        assert_eq!(
            data_encoding::HEXLOWER.encode(&key.sign(b"").to_bytes())[..16],
            *"e5564300c360ac72"
        );
        assert_eq!(private_key(public), Err(EnvelopeError::PrivateKey));
        assert_eq!(public_key(private), Err(EnvelopeError::PublicKey));
    }
}
