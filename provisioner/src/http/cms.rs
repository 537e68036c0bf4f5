//! Certificates in the CMS form that EST answers with: a `SignedData` that signs nothing
//! (RFC 5652 §5.1, the "certs-only" message of RFC 8551 §3.8).

/// DER tags, and identifiers with their tags.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const VERSION_1: [u8; 3] = [0x02, 0x01, 0x01];
const ID_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ID_SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// The DER of a certs-only message with these certificates, in their order.
pub(crate) fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    let no_algorithms = tlv(SET, &[]);
    let no_content = tlv(SEQUENCE, &[&ID_DATA]);
    let no_signers = tlv(SET, &[]);
    let certificates = tlv(CONTEXT_0, certificates);
    let signed_data =
        tlv(SEQUENCE, &[&VERSION_1, &no_algorithms, &no_content, &certificates, &no_signers]);
    tlv(SEQUENCE, &[&ID_SIGNED_DATA, &tlv(CONTEXT_0, &[&signed_data])])
}

/// One DER element (X.690 §8.1.3: the short length form below 128, else the shortest long one).
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut element = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => element.push(short),
        _ => {
            let octets = len.to_be_bytes();
            let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
            element.push(0x80 | octets.len() as u8);
            element.extend_from_slice(octets);
        }
    }
    parts.iter().for_each(|part| element.extend_from_slice(part));
    element
}

#[cfg(test)]
mod tests {
    use der::{AnyRef, Decode, Encode};

    use super::*;

    // Goal: lengths have the one form that DER allows, on both sides of each boundary.
    #[test]
    fn lengths_are_the_shortest() {
        for len in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let element = tlv(0x04, &[&vec![7; len]]);
            let read = AnyRef::from_der(&element).unwrap();
            assert_eq!(read.value().len(), len);
            assert_eq!(read.to_der().unwrap(), element);
        }
    }

    // Goal: the certificates come out in the order in which they went in.
    #[test]
    fn certificates_keep_their_order() {
        let (first, second) = (tlv(SEQUENCE, &[&[5, 0]]), tlv(SEQUENCE, &[&[1, 1, 255]]));
        let message = certs_only(&[&first, &second]);
        assert!(AnyRef::from_der(&message).is_ok());
        let together = [first, second].concat();
        assert!(message.windows(together.len()).any(|part| part == together));
    }
}
