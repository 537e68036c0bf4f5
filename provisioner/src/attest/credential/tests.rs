use rsa::Oaep;

use super::*;
use crate::{
    attest::{
        evidence::{attestation_key, endorsement_key},
        testing::{SECRET, changed, rsa_key, vector, with_rsa_key},
    },
    testing::Seeded,
};

/// Where the name algorithm of any key stands, and the key length of an EK's cipher.
const NAME_ALG_AT: usize = 2;

fn ak_name() -> Name {
    *attestation_key(&vector("ak-p256")).unwrap().name()
}

fn made(ek: &EndorsementKey, seed: u64) -> Credential {
    make(ek, &ak_name(), &SECRET, &mut Seeded(seed)).unwrap()
}

/// The blob that the seed of a credential has to give.
fn blob(ek: &EndorsementKey, seed: &[u8]) -> Vec<u8> {
    wrap(ek.name_alg(), seed, ek.aes(), &ak_name(), &SECRET).unwrap().as_bytes().to_vec()
}

// Goal: an RSA endorsement key named by any algorithm recovers the seed that the blob was made of.
#[test]
fn an_rsa_key_recovers_the_seed() {
    let recover: [(u8, fn() -> Oaep); 3] = [
        (0x0b, || Oaep::new_with_label::<Sha256, _>("IDENTITY\0")),
        (0x0c, || Oaep::new_with_label::<Sha384, _>("IDENTITY\0")),
        (0x0d, || Oaep::new_with_label::<Sha512, _>("IDENTITY\0")),
    ];
    for (name_alg, padding) in recover {
        let area = with_rsa_key(vector("ek-rsa2048"));
        let ek = endorsement_key(&changed(area, NAME_ALG_AT, &[0, name_alg])).unwrap();
        let credential = made(&ek, 1);
        assert_eq!(credential.encrypted_secret.len(), 256);
        let seed = rsa_key().decrypt(padding(), &credential.encrypted_secret).unwrap();
        assert_eq!(seed.len(), ek.name_alg().digest_len());
        assert_eq!(credential.blob, blob(&ek, &seed));
    }
}

/// An endorsement key whose private part is `scalar`, and what it recovers from a credential.
fn recovered<C>(name: &str, coordinate_len: usize) -> (EndorsementKey, Credential, Vec<u8>)
where
    C: CurveArithmetic,
    AffinePoint<C>: FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let mut scalar = vec![7; coordinate_len];
    scalar[0] = 0;
    let key = SecretKey::<C>::from_slice(&scalar).unwrap();
    let (x, y) = coordinates(&key.public_key()).unwrap();
    let area = vector(name);
    let point_at = area.len() - 2 * (2 + coordinate_len);
    let area = [&area[..point_at], &sized(&x), &sized(&y)].concat();
    let ek = endorsement_key(&area).unwrap();
    let credential = made(&ek, 2);

    let (ephemeral_x, ephemeral_y) = credential.encrypted_secret.split_at(2 + coordinate_len);
    let len = u16::try_from(coordinate_len).unwrap().to_be_bytes();
    assert!(ephemeral_x.starts_with(&len) && ephemeral_y.starts_with(&len));
    let point = [&[4], &ephemeral_x[2..], &ephemeral_y[2..]].concat();
    let ephemeral = PublicKey::<C>::from_sec1_bytes(&point).unwrap();
    let shared = diffie_hellman::<C>(key.to_nonzero_scalar(), ephemeral.as_affine());
    let mut seed = vec![0; ek.name_alg().digest_len()];
    let shared = shared.raw_secret_bytes();
    kdf_e(ek.name_alg(), shared, Label::Identity, &ephemeral_x[2..], &x, &mut seed);
    (ek, credential, seed)
}

// Goal: an endorsement key of each curve recovers the seed that the blob was made of.
#[test]
fn an_elliptic_curve_key_recovers_the_seed() {
    for (ek, credential, seed) in [
        recovered::<p256::NistP256>("ek-p256", 32),
        recovered::<p384::NistP384>("ek-p384", 48),
        recovered::<p521::NistP521>("ek-p521", 66),
    ] {
        assert_eq!(credential.blob, blob(&ek, &seed), "{ek:?}");
    }
}

// Goal: credentials are made for the keys of a TPM, each as long as its key and its Name ask for.
#[test]
fn credentials_have_the_lengths_of_their_keys() {
    for (name, encrypted, blob) in [
        ("ek-rsa2048", 256, 2 + 32 + 2 + 32),
        ("ek-rsa3072", 384, 2 + 48 + 2 + 32),
        ("ek-p256", 2 * (2 + 32), 2 + 32 + 2 + 32),
        ("ek-p384", 2 * (2 + 48), 2 + 48 + 2 + 32),
        ("ek-p521", 2 * (2 + 66), 2 + 64 + 2 + 32),
    ] {
        let credential = made(&endorsement_key(&vector(name)).unwrap(), 3);
        assert_eq!(credential.encrypted_secret.len(), encrypted, "{name}");
        assert_eq!(credential.blob.len(), blob, "{name}");
    }
}

// Goal: two credentials with the same secret have nothing in common.
#[test]
fn every_credential_has_its_own_seed() {
    for name in ["ek-rsa2048", "ek-p256"] {
        let ek = endorsement_key(&vector(name)).unwrap();
        let (one, two) = (made(&ek, 4), made(&ek, 5));
        assert_ne!(one.blob, two.blob, "{name}");
        assert_ne!(one.encrypted_secret, two.encrypted_secret, "{name}");
    }
}

// Goal: a key that cannot be one is refused: an even modulus passes no other check.
#[test]
fn a_credential_for_no_key_is_refused() {
    let mut area = vector("ek-rsa2048");
    *area.last_mut().unwrap() &= 0xfe;
    let ek = endorsement_key(&area).unwrap();
    let refused = make(&ek, &ak_name(), &SECRET, &mut Seeded(1)).unwrap_err();
    assert_eq!(refused, CredentialError::Key);
    let said = "the endorsement key's numbers are not those of a key";
    assert_eq!(refused.to_string(), said);
}

/// A source that gives one octet again and again, and counts how often it is asked.
struct Stuck {
    octet: u8,
    asked: usize,
    /// After so many it gives sevens.
    until: usize,
}

impl Random for Stuck {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(if self.asked < self.until { self.octet } else { 7 });
        self.asked += 1;
    }
}

// Goal: randomness that makes no key is drawn again, and given up after a while.
#[test]
fn a_stuck_source_of_randomness_is_given_up() {
    for (name, octet) in [("ek-p256", 0), ("ek-p256", 0xff), ("ek-p384", 0xff), ("ek-p521", 0xff)] {
        let ek = endorsement_key(&vector(name)).unwrap();
        let mut stuck = Stuck { octet, asked: 0, until: usize::MAX };
        let refused = make(&ek, &ak_name(), &SECRET, &mut stuck).unwrap_err();
        assert_eq!(refused, CredentialError::Randomness, "{name}");
        assert_eq!(stuck.asked, DRAWS_MAX, "{name}");
        let said = "the source of randomness gives nothing that is usable";
        assert_eq!(refused.to_string(), said);

        let mut recovering = Stuck { octet, asked: 0, until: DRAWS_MAX - 1 };
        make(&ek, &ak_name(), &SECRET, &mut recovering).unwrap();
        assert_eq!(recovering.asked, DRAWS_MAX, "{name}");
    }
}

// Goal: a draw for P-521 is not refused for the bits that its numbers do not have.
#[test]
fn numbers_of_p521_are_drawn_at_once() {
    let ek = endorsement_key(&vector("ek-p521")).unwrap();
    let mut source = Stuck { octet: 0xfe, asked: 0, until: usize::MAX };
    make(&ek, &ak_name(), &SECRET, &mut source).unwrap();
    assert_eq!(source.asked, 1);
}

// Goal: what the library draws, in whatever form, is what the source gives.
#[test]
fn the_library_draws_from_the_source() {
    let mut sevens = Stuck { octet: 7, asked: 0, until: usize::MAX };
    let mut source = Source(&mut sevens);
    let mut octets = [0; 3];
    source.fill_bytes(&mut octets);
    assert_eq!(octets, [7; 3]);
    source.try_fill_bytes(&mut octets[..2]).unwrap();
    assert_eq!(source.next_u32(), 0x0707_0707);
    assert_eq!(source.next_u64(), 0x0707_0707_0707_0707);
    assert_eq!(sevens.asked, 4);
}
