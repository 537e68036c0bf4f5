use super::*;
use crate::authority::der::OCTET_STRING;

const RSA_ALGORITHM: [u8; 15] =
    [0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];

/// The base point of P-256 (FIPS 186-4 §D.1.2.3).
const P256_X: [u8; 32] = [
    0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
    0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
];
const P256_Y: [u8; 32] = [
    0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
    0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

fn modulus(len: usize) -> Vec<u8> {
    vec![0xc5; len]
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [element(INTEGER, &[modulus]), element(INTEGER, &[exponent])].concat();
    let key = element(SEQUENCE, &[&numbers]);
    element(SEQUENCE, &[&RSA_ALGORITHM, &element(BIT_STRING, &[&[0], &key])])
}

fn ec_spki(parameters: &[u8], point: &[u8]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[&oid_der(EC_PUBLIC_KEY), parameters]);
    element(SEQUENCE, &[&algorithm, &element(BIT_STRING, &[&[0], point])])
}

fn point(curve: Curve) -> Vec<u8> {
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    match curve {
        Curve::P256 => p256::AffinePoint::GENERATOR.to_encoded_point(false).as_bytes().to_vec(),
        Curve::P384 => p384::AffinePoint::GENERATOR.to_encoded_point(false).as_bytes().to_vec(),
        Curve::P521 => p521::AffinePoint::GENERATOR.to_encoded_point(false).as_bytes().to_vec(),
    }
}

// Goal: one key has one name, whatever zeros stand before its numbers.
#[test]
fn zeros_before_the_numbers_do_not_change_the_name_of_a_key() {
    let plain = Key::rsa(&modulus(256), 65_537).unwrap();
    let padded = [&[0, 0][..], &modulus(256)].concat();
    assert_eq!(Key::rsa(&padded, 65_537).unwrap(), plain);
    for curve in Curve::ALL {
        let point = point(curve);
        let (x, y) = point[1..].split_at(curve.coordinate_len());
        let plain = Key::ec(curve, x, y).unwrap();
        let padded = Key::ec(curve, &[&[0], x].concat(), &[&[0, 0], y].concat()).unwrap();
        let short = Key::ec(curve, stripped(x), stripped(y)).unwrap();
        assert_eq!((padded.ek_id(), short.ek_id()), (plain.ek_id(), plain.ek_id()));
        assert_eq!(Key::from_spki(&plain.spki_der()).unwrap(), plain);
        assert_eq!(plain.to_string(), format!("EC {curve}"));
        assert!(!plain.is_rsa());
    }
}

// Goal: the one form is the plain one that RFC 5480 gives, octet for octet.
#[test]
fn an_elliptic_curve_key_is_written_as_a_named_curve_and_an_uncompressed_point() {
    let key = Key::ec(Curve::P256, &P256_X, &P256_Y).unwrap();
    let prefix = crate::authority::PublicKey::from_spki(&key.spki_der()).unwrap();
    assert_eq!(prefix.point(), [&[4][..], &P256_X, &P256_Y].concat());
    // P-384 and P-521 as `openssl pkey -pubout -outform DER` begins them.
    for (curve, start) in [
        (Curve::P384, "3076301006072a8648ce3d020106052b8104002203620004"),
        (Curve::P521, "30819b301006072a8648ce3d020106052b81040023038186000400"),
    ] {
        let point = point(curve);
        let (x, y) = point[1..].split_at(curve.coordinate_len());
        let spki = Key::ec(curve, x, y).unwrap().spki_der();
        let hex: String = spki.iter().map(|octet| format!("{octet:02x}")).collect();
        assert!(hex.starts_with(start), "{hex}");
    }
}

// Goal: a coordinate that begins with a zero keeps it: its name would change with it.
#[test]
fn coordinates_keep_the_zeros_that_their_curve_gives_them() {
    let found = (1..=u16::MAX).find_map(|seed| {
        let key = p256::SecretKey::from_slice(&seed.to_be_bytes().repeat(16)).ok()?.public_key();
        let point = p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&key, false);
        let (x, y) = (point.x()?.to_vec(), point.y()?.to_vec());
        (x[0] == 0 || y[0] == 0).then(|| (point.as_bytes().to_vec(), x, y))
    });
    let (point, x, y) = found.unwrap();
    let key = Key::ec(Curve::P256, stripped(&x), stripped(&y)).unwrap();
    assert!(key.spki_der().ends_with(&point));
}

// Goal: the one form of an RSA key is what openssl writes; exponents are as short as they can be.
#[test]
fn an_rsa_key_is_written_with_minimal_numbers() {
    for (len, bits) in [(256, 2048), (384, 3072), (512, 4096)] {
        let key = Key::rsa(&modulus(len), 65_537).unwrap();
        let signed = [&[0][..], &modulus(len)].concat();
        assert_eq!(key.spki_der(), rsa_spki(&signed, &[1, 0, 1]));
        assert_eq!(Key::from_spki(&key.spki_der()).unwrap(), key);
        assert_eq!(key.to_string(), format!("RSA-{bits}"));
        assert!(key.is_rsa());
    }
    let signed = [&[0][..], &modulus(256)].concat();
    for (exponent, octets) in [(3, &[3][..]), (u32::MAX, &[0, 0xff, 0xff, 0xff, 0xff])] {
        let key = Key::rsa(&modulus(256), exponent).unwrap();
        assert_eq!(key.spki_der(), rsa_spki(&signed, octets));
        assert_eq!(Key::from_spki(&key.spki_der()).unwrap(), key);
    }
}

// Goal: lengths are counted in bits, not octets: one bit less or more is another length.
#[test]
fn moduli_of_other_lengths_are_refused() {
    let mut shorter = modulus(256);
    shorter[0] = 0x7f;
    let longer = [&[1][..], &modulus(256)].concat();
    for (modulus, found) in [
        (shorter, 2047),
        (longer, 2049),
        (modulus(128), 1024),
        (modulus(1024), 8192),
        (vec![], 0),
        (vec![0; 256], 0),
    ] {
        assert_eq!(Key::rsa(&modulus, 65_537), Err(KeyError::ModulusBits { found }));
    }
}

// Goal: exponents that are none are refused: even ones, 1, and the 0 of a TPM's public area.
#[test]
fn exponents_are_odd_and_at_least_three() {
    for exponent in [0, 1, 2, 65_536] {
        let error = KeyError::Exponent { found: Some(exponent) };
        assert_eq!(Key::rsa(&modulus(256), exponent), Err(error));
    }
    let signed = [&[0][..], &modulus(256)].concat();
    let longer = rsa_spki(&signed, &[1, 0, 0, 0, 1]);
    assert_eq!(Key::from_spki(&longer), Err(KeyError::Exponent { found: None }));
}

// Goal: a number has one encoding: negative and padded ones are refused, not repaired.
#[test]
fn numbers_that_are_not_minimal_or_not_positive_are_malformed() {
    let signed = [&[0][..], &modulus(256)].concat();
    let padded = [&[0, 0][..], &modulus(256)].concat();
    let long_zero = [&[0, 0x7f][..], &modulus(255)].concat();
    for (modulus, exponent) in [
        (&modulus(256)[..], &[3][..]),
        (&padded, &[3]),
        (&long_zero, &[3]),
        (&signed, &[0x80]),
        (&signed, &[0xff]),
        (&signed, &[0, 3]),
        (&signed, &[0, 0x7f]),
        (&signed, &[]),
    ] {
        let spki = rsa_spki(modulus, exponent);
        assert_eq!(Key::from_spki(&spki), Err(KeyError::Malformed), "{exponent:?}");
    }
    // The bounds of what is one octet.
    for exponent in [&[0x7f][..], &[0, 0x81]] {
        Key::from_spki(&rsa_spki(&signed, exponent)).unwrap();
    }
}

// Goal: everything around the key is read strictly.
#[test]
fn damaged_structures_are_malformed() {
    let key = Key::ec(Curve::P256, &P256_X, &P256_Y).unwrap();
    let whole = key.spki_der();
    for len in 0..whole.len() {
        assert_eq!(Key::from_spki(&whole[..len]), Err(KeyError::Malformed), "{len}");
    }
    let three = element(SEQUENCE, &[&RSA_ALGORITHM, &[BIT_STRING, 1, 0], &NULL]);
    let bits_left = element(SEQUENCE, &[&RSA_ALGORITHM, &[BIT_STRING, 2, 1, 0]]);
    let octets = element(SEQUENCE, &[&RSA_ALGORITHM, &[OCTET_STRING, 1, 0]]);
    let no_name = element(SEQUENCE, &[&element(SEQUENCE, &[&NULL]), &[BIT_STRING, 1, 0]]);
    let of_three = element(SEQUENCE, &[&[INTEGER, 1, 3].repeat(3)]);
    let of_three = element(SEQUENCE, &[&RSA_ALGORITHM, &element(BIT_STRING, &[&[0], &of_three])]);
    for spki in [three, bits_left, octets, no_name, of_three, [&whole[..], &[0]].concat()] {
        assert_eq!(Key::from_spki(&spki), Err(KeyError::Malformed), "{spki:02x?}");
    }
}

// Goal: points that are compressed, elsewhere, or nowhere are not taken: an invalid point would
// leak a secret that is shared with it.
#[test]
fn points_have_to_be_uncompressed_and_on_their_curve() {
    for curve in Curve::ALL {
        let right = point(curve);
        let parameters = oid_der(curve.oid());
        let error = Err(KeyError::Point { curve });
        Key::from_spki(&ec_spki(&parameters, &right)).unwrap();
        let mut off = right.clone();
        off[curve.coordinate_len()] ^= 1;
        let x = &right[1..=curve.coordinate_len()];
        let compressed = [&[2 + (right.last().unwrap() & 1)], x].concat();
        for wrong in [off, compressed, vec![0], vec![], right[..right.len() - 1].to_vec()] {
            assert_eq!(Key::from_spki(&ec_spki(&parameters, &wrong)), error);
        }
        let len = curve.coordinate_len();
        let one = [1];
        assert_eq!(Key::ec(curve, &one, &one), error);
        let found_len = len + 1;
        let long = vec![1; found_len];
        let error = Err(KeyError::Coordinate { curve, found_len });
        assert_eq!(Key::ec(curve, &long, &one), error);
        assert_eq!(Key::ec(curve, &one, &long), error);
    }
}

// Goal: other algorithms and curves are refused by name.
#[test]
fn keys_for_something_else_are_named() {
    let ed25519 = ObjectIdentifier::new_unwrap("1.3.101.112");
    let algorithm = element(SEQUENCE, &[&oid_der(ed25519)]);
    let spki = element(SEQUENCE, &[&algorithm, &element(BIT_STRING, &[&[0; 33]])]);
    assert_eq!(Key::from_spki(&spki), Err(KeyError::Algorithm { found: ed25519 }));
    let koblitz = ObjectIdentifier::new_unwrap("1.3.132.0.10");
    let found = Some(koblitz);
    let point = point(Curve::P256);
    assert_eq!(Key::from_spki(&ec_spki(&oid_der(koblitz), &point)), Err(KeyError::Curve { found }));
    for parameters in [&[][..], &NULL, &element(SEQUENCE, &[&[INTEGER, 1, 1]])] {
        let error = Err(KeyError::Curve { found: None });
        assert_eq!(Key::from_spki(&ec_spki(parameters, &point)), error);
    }
}

// Goal: keys and errors read as text.
#[test]
fn keys_and_errors_read_as_text() {
    let key = Key::ec(Curve::P256, &P256_X, &P256_Y).unwrap();
    let id = key.ek_id();
    assert_eq!(format!("{key:?} {id:?}"), format!("Key(EC P-256, {id}) EkId({id})"));
    let found = ObjectIdentifier::new_unwrap("1.2.3");
    for (error, text) in [
        (KeyError::Algorithm { found }, "the key is for algorithm 1.2.3, expected RSA or EC"),
        (
            KeyError::Coordinate { curve: Curve::P521, found_len: 67 },
            "a coordinate has 67 octets, P-521 has at most 66",
        ),
        (
            KeyError::Curve { found: Some(found) },
            "the key is on curve 1.2.3, expected P-256, P-384 or P-521",
        ),
        (
            KeyError::Curve { found: None },
            "the key's curve has no name, expected P-256, P-384 or P-521",
        ),
        (
            KeyError::Exponent { found: Some(4) },
            "the public exponent is 4, expected an odd one from 3 on",
        ),
        (KeyError::Exponent { found: None }, "the public exponent has more than 32 bits"),
        (KeyError::Malformed, "the key is no SubjectPublicKeyInfo in DER"),
        (
            KeyError::ModulusBits { found: 1024 },
            "the modulus has 1024 bits, expected 2048, 3072 or 4096",
        ),
        (KeyError::Point { curve: Curve::P384 }, "the key is no uncompressed point of P-384"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
