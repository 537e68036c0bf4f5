//! PEM (RFC 7468), written the one way that every reader takes.

use base64ct::{Base64, Encoding};

/// Characters of a line (RFC 7468 §2).
const LINE_LEN: usize = 64;

/// Certificates, one after the other.
pub(crate) fn certificates<C: AsRef<[u8]>>(chain: impl IntoIterator<Item = C>) -> String {
    chain.into_iter().map(|der| armour("CERTIFICATE", der.as_ref())).collect()
}

/// A revocation list.
pub(crate) fn crl(der: &[u8]) -> String {
    armour("X509 CRL", der)
}

fn armour(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = Base64::encode_string(der);
    while !rest.is_empty() {
        let after = rest.split_off(LINE_LEN.min(rest.len()));
        text += &rest;
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    // Goal: what we write, others read: every certificate, in its order.
    #[test]
    fn chains_read_back_in_their_order() {
        let (first, second) = (vec![1_u8; 48], vec![2_u8; 49]);
        let text = certificates([&first, &second]);
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|der| der.unwrap().to_vec())
            .collect();
        assert_eq!(read, [first, second]);
        assert!(text.lines().all(|line| line.len() <= LINE_LEN));
        assert!(text.ends_with("-----END CERTIFICATE-----\n"));
    }
}
