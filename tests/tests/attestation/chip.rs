//! Commands of a TPM that an honest device never sends, octet by octet (TPM 2.0 Part 3).

use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::claimant::{Claimant, Stated, public_of};
use fleetcert_tests::tpm_socket::TpmSocket;
use fleetcert_tpm::command::Handle;
use fleetcert_tpm::tpm::Tpm;
use fleetcert_tpm::transact::Transact as _;
use sha2::{Digest as _, Sha256};

/// Attributes of an object (TPM 2.0 Part 2 §8.3).
pub(crate) mod attribute {
    pub(crate) const FIXED_TPM: u32 = 1 << 1;
    pub(crate) const FIXED_PARENT: u32 = 1 << 4;
    pub(crate) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub(crate) const USER_WITH_AUTH: u32 = 1 << 6;
    pub(crate) const ADMIN_WITH_POLICY: u32 = 1 << 7;
    pub(crate) const NO_DA: u32 = 1 << 10;
    pub(crate) const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
    pub(crate) const RESTRICTED: u32 = 1 << 16;
    pub(crate) const DECRYPT: u32 = 1 << 17;
    pub(crate) const SIGN: u32 = 1 << 18;
}

/// Algorithms (TPM 2.0 Part 2 §6.3).
pub(crate) const SHA256: u16 = 0x000B;
pub(crate) const ECDSA: u16 = 0x0018;
pub(crate) const NULL: u16 = 0x0010;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

const CERTIFY_CREATION: u32 = 0x0000_014A;
const CREATE: u32 = 0x0000_0153;
const QUOTE: u32 = 0x0000_0158;
const SIGN: u32 = 0x0000_015D;
const LOAD_EXTERNAL: u32 = 0x0000_0167;
const HASH: u32 = 0x0000_017D;

const OWNER: u32 = 0x4000_0001;
const NULL_HIERARCHY: u32 = 0x4000_0007;

/// An empty password: `TPM_RS_PW`, no nonce, continueSession, no HMAC, behind its length.
const EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0];

/// A ticket that says nothing of a digest's origin: `TPM_ST_HASHCHECK` of the null hierarchy.
const NO_TICKET: [u8; 8] = [0x80, 0x24, 0x40, 0, 0, 7, 0, 0];

/// Tag, length and response code, before what an answer says.
const HEADER_LEN: usize = 10;

/// With the length before it (`TPM2B`).
pub(crate) fn sized(octets: &[u8]) -> Vec<u8> {
    let len = u16::try_from(octets.len()).or_fail("a length");
    [&len.to_be_bytes(), octets].concat()
}

/// The content of the `TPM2B` in front, and what follows.
pub(crate) fn unsized_front(octets: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = octets.split_first_chunk().or_fail("a length");
    rest.split_at(usize::from(u16::from_be_bytes(*len)))
}

/// Sends a command; the parameters of its answer, with the handle before them if it has one.
fn send(tpm: &mut Tpm<TpmSocket>, code: u32, handles: &[Handle], rest: &[u8]) -> Vec<u8> {
    let is_authorized = matches!(code, CERTIFY_CREATION | QUOTE | SIGN);
    let tag = if is_authorized { SESSIONS } else { NO_SESSIONS };
    let password = if is_authorized { &EMPTY_PASSWORD[..] } else { &[] };
    let handles: Vec<u8> = handles.iter().flat_map(|handle| handle.0.to_be_bytes()).collect();
    let body = [&code.to_be_bytes()[..], &handles, password, rest].concat();
    let len = u32::try_from(6 + body.len()).or_fail("a length");
    let command = [&tag.to_be_bytes()[..], &len.to_be_bytes(), &body].concat();
    let mut answer = [0; 4096];
    let len = tpm.transport().transact(&command, &mut answer).or_fail("an answer");
    assert_eq!(answer[6..HEADER_LEN], [0; 4], "the TPM refuses command {code:#x}");
    let from = if is_authorized { HEADER_LEN + 4 } else { HEADER_LEN };
    answer[from..len].to_vec()
}

/// A statement with its signature, as `answer` has them, about the key with that public area.
/// Behind the signature stands the answer's session: five octets.
fn stated(answer: &[u8], public: &[u8]) -> Stated {
    let (attest, rest) = unsized_front(answer);
    let signature = rest[..rest.len() - 5].to_vec();
    Stated { attest: attest.to_vec(), signature, public: public.to_vec() }
}

/// The octets under which a vault's key is loaded.
pub(crate) fn blob(key: &fleetcert_tpm::vault::KeyBlob) -> Vec<u8> {
    key.as_bytes()[1..].to_vec()
}

/// Has the attestation key certify any key of this TPM.
pub(crate) fn certify(device: &mut Claimant, key: &[u8], qualifying: &[u8; 32]) -> Stated {
    let ak = blob(&device.ak);
    certify_by(device, key, &ak, qualifying)
}

/// Has any key of this TPM certify any other.
pub(crate) fn certify_by(
    device: &mut Claimant,
    key: &[u8],
    ak: &[u8],
    qualifying: &[u8; 32],
) -> Stated {
    device.with_loaded(&[key, ak], |tpm, handles| certified(tpm, handles, qualifying, key))
}

fn certified(
    tpm: &mut Tpm<TpmSocket>,
    handles: &[Handle],
    qualifying: &[u8; 32],
    key: &[u8],
) -> Stated {
    let mut out = [0; 1024];
    let made = tpm.certify(handles[0], handles[1], qualifying, &mut out).or_fail("a statement");
    let (attest, rest) = out.split_at(made.attest_len);
    let signature = rest[..made.signature_len].to_vec();
    Stated { attest: attest.to_vec(), signature, public: public_of(key) }
}

/// Makes a key, and has the attestation key state that this TPM made it
/// (`TPM2_CertifyCreation`, §18.3): a true statement, of another kind.
pub(crate) fn certify_creation(
    device: &mut Claimant,
    template: &[u8],
    qualifying: impl FnOnce(&[u8]) -> [u8; 32],
) -> (Vec<u8>, Stated) {
    device.vault.tpm().transport().take_exchanges();
    let key = device.make(template);
    let exchanges = device.vault.tpm().transport().take_exchanges();
    let made = exchanges.iter().find(|exchange| exchange.code() == CREATE);
    let answer = &made.or_fail("TPM2_Create").answer[HEADER_LEN + 4..];
    let (_private, rest) = unsized_front(answer);
    let (_public, rest) = unsized_front(rest);
    let (_data, rest) = unsized_front(rest);
    let (hash, rest) = unsized_front(rest);
    let ticket = &rest[..8 + unsized_front(&rest[6..]).0.len()];
    let qualifying = qualifying(&public_of(&key));
    let parameters = [sized(&qualifying), sized(hash), NULL.to_be_bytes().to_vec()].concat();
    let parameters = [&parameters, ticket].concat();
    let ak = blob(&device.ak);
    let answer = device.with_loaded(&[&key, &ak], |tpm, handles| {
        send(tpm, CERTIFY_CREATION, &[handles[1], handles[0]], &parameters)
    });
    let stated = stated(&answer, &public_of(&key));
    (key, stated)
}

/// Has the attestation key state what is in PCR 0 (`TPM2_Quote`, §18.4).
pub(crate) fn quote(device: &mut Claimant, qualifying: &[u8; 32]) -> Stated {
    let selection = [&[0, 0, 0, 1][..], &SHA256.to_be_bytes(), &[3, 1, 0, 0]].concat();
    let parameters = [&sized(qualifying)[..], &NULL.to_be_bytes(), &selection].concat();
    let ak = blob(&device.ak);
    let answer =
        device.with_loaded(&[&ak], |tpm, handles| send(tpm, QUOTE, &[handles[0]], &parameters));
    stated(&answer, device.key.public_area())
}

/// Has the attestation key certify a key that came from outside with its private half
/// (`TPM2_LoadExternal`, §12.3).
pub(crate) fn certify_external(
    device: &mut Claimant,
    public: &[u8],
    scalar: &[u8],
    qualifying: &[u8; 32],
) -> Stated {
    let ecc = [0x00, 0x23];
    let sensitive = [&ecc[..], &sized(&[]), &sized(&[]), &sized(scalar)].concat();
    let parameters = [sized(&sensitive), sized(public), NULL_HIERARCHY.to_be_bytes().to_vec()];
    let (ak, parameters) = (blob(&device.ak), parameters.concat());
    device.with_loaded(&[&ak], |tpm, handles| {
        let answer = send(tpm, LOAD_EXTERNAL, &[], &parameters);
        let external = Handle(u32::from_be_bytes(*answer.first_chunk().or_fail("a handle")));
        let stated = certified(tpm, &[external, handles[0]], qualifying, &sized(public));
        tpm.flush(external).or_fail("a flush");
        stated
    })
}

/// Has a key of this TPM sign, with the scheme that it lacks: `TPMT_SIGNATURE`.
pub(crate) fn sign(device: &mut Claimant, key: &[u8], message: &[u8]) -> Vec<u8> {
    let scheme = [ECDSA.to_be_bytes(), SHA256.to_be_bytes()].concat();
    let digest = sized(&Sha256::digest(message));
    let parameters = [&digest[..], &scheme, &NO_TICKET].concat();
    signed(device, key, &parameters)
}

/// Has a restricted key sign what the TPM itself has hashed, and knows to be no statement of its
/// own (`TPM2_Hash`, §15.4): `TPMT_SIGNATURE`.
pub(crate) fn sign_restricted(device: &mut Claimant, key: &[u8], message: &[u8]) -> Vec<u8> {
    let parameters = [&sized(message)[..], &SHA256.to_be_bytes(), &OWNER.to_be_bytes()].concat();
    let hashed = send(device.vault.tpm(), HASH, &[], &parameters);
    let (digest, ticket) = unsized_front(&hashed);
    let parameters = [&sized(digest)[..], &NULL.to_be_bytes(), ticket].concat();
    signed(device, key, &parameters)
}

fn signed(device: &mut Claimant, key: &[u8], parameters: &[u8]) -> Vec<u8> {
    let answer =
        device.with_loaded(&[key], |tpm, handles| send(tpm, SIGN, &[handles[0]], parameters));
    answer[..answer.len() - 5].to_vec()
}

/// r and s of a `TPMT_SIGNATURE`.
pub(crate) fn numbers(signature: &[u8]) -> (&[u8], &[u8]) {
    let (r, rest) = unsized_front(&signature[4..]);
    (r, unsized_front(rest).0)
}

/// A `TPMT_SIGNATURE` of any scheme, hash and numbers.
pub(crate) fn signature(scheme: u16, hash: u16, r: &[u8], s: &[u8]) -> Vec<u8> {
    [&scheme.to_be_bytes()[..], &hash.to_be_bytes(), &sized(r), &sized(s)].concat()
}

/// A `TPMT_SIGNATURE` as r ‖ s.
pub(crate) fn raw(signature: &[u8]) -> [u8; 64] {
    let mut raw = [0; 64];
    let (r, s) = numbers(signature);
    raw[32 - r.len()..32].copy_from_slice(r);
    raw[64 - s.len()..].copy_from_slice(s);
    raw
}
