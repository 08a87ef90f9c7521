//! Dead Simple Signing Envelope v1.

/// The payload type of in-toto statements; the only one taken.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The pre-authentication encoding: what is signed and, hashed, what is logged (DSSE v1.0.2, "Signature Definition").
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_vector_of_the_specification() {
        assert_eq!(
            super::pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
