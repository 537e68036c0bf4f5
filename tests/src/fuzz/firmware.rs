//! What the firmware reads: octets of the factory, of peers, and of flash that anything may have
//! happened to.
//!
//! A target tells how far it came, so that a seed can be shown to be one: see [`Reached`].
#![expect(clippy::expect_used, reason = "what has to hold, and does not, ends the run")]

use embedded_io::{ErrorType, Read, Write};
use fleetcert_core::der::Certificate;
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{Enrollment, Provisioner};
use fleetcert_core::port::Storage as _;
use fleetcert_core::record::{
    CertificateBytes, Identity, KeySource, Record, Serial, Slot, SlotState,
};
use fleetcert_core::time::{Confidence, Reading, Validity, Wall};
use fleetcert_core::topic::{Channel, DataPath};
use fleetcert_core::wire::{
    self, CHALLENGE_ID_LEN, CHALLENGE_NONCE_LEN, Challenge, ChallengeRequest,
};
use fleetcert_firmware::blocking::block_on;
use fleetcert_firmware::board::Clock;
use fleetcert_firmware::ecdsa::{Ecdsa, POINT_LEN, Portable, SIGNATURE_LEN};
use fleetcert_firmware::factory::{FACTORY_LEN_MAX, Factory};
use fleetcert_firmware::flash_model::{FlashModel, SECTOR_LEN};
use fleetcert_firmware::http::{BUFFER_LEN, Client, Credential, Deadline, Parties};
use fleetcert_firmware::keystore::software::SoftwareKeys;
use fleetcert_firmware::keystore::tpm::TpmKeys;
use fleetcert_firmware::keystore::{INTRODUCTION_LEN_MAX, KeyStore};
use fleetcert_firmware::mqtt::{
    Asked, Event, IN_FLIGHT_MAX, Inbox, Introduction, Outbox, RECEIVE_LEN, Refusal, Session,
    Stream, parse_state, result,
};
use fleetcert_firmware::random::{Generator, SEED_LEN};
use fleetcert_firmware::store::{FlashStore, GENERATION_MAX, SECTORS_MIN, Scratch};
use fleetcert_firmware::tls::TlsError;
use fleetcert_firmware::verifier::{Server, ServerName, Verifier};
use fleetcert_tpm::transact::Transact;
use sha2::{Digest as _, Sha256};

use super::Answers;

/// Whether the whole way was gone, to something that a device would believe or do.
pub type Reached = bool;

/// The root of the servers whose chains are the seeds of `server_chain`.
const SERVER_ROOT: &[u8] = include_bytes!("../../fuzz/server-root.der");

/// The certificate of the device that the seeds of `device_answer` are for.
const LEAF: &[u8] = include_bytes!("../../fuzz/corpus/certificate/leaf-der");

/// That device.
const DEVICE: &str = "gw-0001";

/// The factory's configuration of a device.
pub fn factory_block(input: &[u8]) -> Reached {
    let Ok(factory) = Factory::parse(input) else { return false };
    let mut buffer = [0; FACTORY_LEN_MAX];
    let written = factory.emit(&mut buffer).expect("what was parsed can be written");
    assert_eq!(Factory::parse(written).as_ref(), Ok(&factory));
    assert!(input.starts_with(written), "two blocks that say the same");
    true
}

/// A command, behind an octet that says whether the broker had kept it; and, as any JSON of the
/// broker's, a state.
pub fn mqtt_command(input: &[u8]) -> Reached {
    let Some((first, payload)) = input.split_first() else { return false };
    let is_retained = first & 1 == 1;
    if let Some(seen) = parse_state(payload) {
        assert!(seen.generation <= GENERATION_MAX);
    }
    obey(payload, is_retained)
}

/// Reads a command, and answers it.
fn obey(payload: &[u8], is_retained: bool) -> Reached {
    let Asked { id, order } = Asked::parse(payload, is_retained);
    assert!(!is_retained || order == Err(Refusal::Retained));
    let answer = result(id.as_ref(), order);
    let answer = answer.as_str();
    assert!(answer.starts_with('{') && answer.ends_with('}'));
    order.is_ok()
}

/// What a broker says in a session, behind an octet that says in what pieces it comes.
pub fn mqtt_session(input: &[u8]) -> Reached {
    let Some((piece, octets)) = input.split_first() else { return false };
    let stream = Script { octets, piece: usize::from(*piece).max(1) };
    let device_id = device_id();
    let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
    let birth: &[u8] = br#"{"online":true}"#;
    let introduction =
        Introduction { device_id: &device_id, generation: 7, keep_alive_s: 60, birth };
    let Ok(mut session) = Session::open(stream, introduction, &mut outbox, &mut inbox, 0) else {
        return false;
    };
    let mut is_obeyed = false;
    // Each packet has two octets or more, and some polls find nothing.
    for now_ms in (0..).step_by(100).take(octets.len() + 10) {
        match session.poll(now_ms) {
            Ok(Some(Event::Command { is_retained })) => {
                let payload = session.payload();
                assert!(payload.len() <= RECEIVE_LEN);
                is_obeyed |= obey(payload, is_retained);
            }
            Ok(Some(Event::State)) => drop(parse_state(session.payload())),
            Ok(Some(Event::PassedOver { len })) => assert!(len > RECEIVE_LEN),
            Ok(Some(Event::Acknowledged(_) | Event::Subscribed)) => {}
            Ok(None) => {
                let data = DataPath::parse("health").map(Channel::Data);
                let _full = data.map(|data| session.publish(data, b"{}", false));
            }
            Err(_) => return false,
        }
    }
    let _stream = session.close();
    assert!(outbox.unacknowledged() <= IN_FLIGHT_MAX + 1);
    is_obeyed
}

/// What a provisioner answers. The first octet says to what question, the second in what pieces.
pub fn device_answer(input: &[u8]) -> Reached {
    let [kind, piece, octets @ ..] = input else { return false };
    let mut stream = Script { octets, piece: usize::from(*piece).max(1) };
    let device_id = device_id();
    let parties = Parties {
        device_id: &device_id,
        provisioner: Provisioner { host: "example", label: None },
    };
    let server = Validity { not_before: Wall(0), not_after: Wall(u64::MAX) };
    let mut buffer = [0; BUFFER_LEN];
    let deadline = Deadline { clock: Still, at_ms: 1 };
    let mut client = Client::new(&mut stream, server, parties, deadline, &mut buffer);
    match kind % 4 {
        0 => client.whoami(b"0123456789abcdef").is_ok(),
        1 => client.renewal_info(LEAF).is_ok(),
        2 => {
            let message = ChallengeRequest {
                version: wire::VERSION,
                device_id: DEVICE,
                ek_public: &[1; 90],
                ek_certificates: &[],
                ak_public: &[2; 90],
            };
            client.challenge(&message).is_ok()
        }
        _ => enroll(&mut client),
    }
}

fn enroll(client: &mut Client<'_, Script<'_>, Still>) -> Reached {
    let expected = Certificate::parse(LEAF).expect("a certificate").spki_sha256();
    let enrollment = Enrollment { id: [1; 16], csr: &[0x30; 300], challenge: None };
    let mut issued = Identity::new();
    let told = client.enroll(enrollment, Credential::Certificate, &expected, &mut issued);
    if told.is_err() {
        return false;
    }
    let kept = Certificate::parse(&issued.certificate).expect("a certificate was kept");
    assert_eq!(kept.common_name(), Ok(DEVICE));
    assert_eq!((kept.spki_sha256(), issued.spki_sha256), (expected, expected));
    assert_eq!((kept.serial(), kept.validity()), (&issued.serial[..], issued.validity));
    true
}

/// A chain that a server sends. Before it, an octet that says what is known of the time and what the
/// server is, and the time in seconds, four octets; each certificate behind its length in two.
///
/// It is judged by a verifier that has seen nothing and then again by the same one, which must make
/// no difference; and by one to which every signature is good, which sees more of a forged chain.
pub fn server_chain(input: &[u8]) -> Reached {
    let Some((&[how, time @ ..], mut rest)) = input.split_first_chunk::<5>() else { return false };
    let mut chain = Vec::new();
    while let Some(certificate) = take(&mut rest) {
        chain.push(certificate);
    }
    let wall = Wall(u32::from_be_bytes(time).into());
    let reading = match how & 3 {
        0 | 1 => Reading { wall: Some(wall), confidence: Confidence::Trusted, floor: wall },
        2 => Reading { wall: None, confidence: Confidence::Unknown, floor: wall },
        _ => Reading { wall: Some(wall), confidence: Confidence::Floored, floor: Wall(0) },
    };
    let server = if how & 4 == 0 { Server::Broker } else { Server::Provisioner };
    let name = if how & 8 == 0 { "broker.fleet.example" } else { "10.0.2.2" };
    let name = ServerName::try_from(name).expect("a name");
    let strict = Verifier::new(&[SERVER_ROOT], Portable).expect("a root");
    let credulous = Verifier::new(&[SERVER_ROOT], Credulous).expect("a root");
    let first = strict.verify(&chain, &name, server, reading);
    assert_eq!(strict.verify(&chain, &name, server, reading), first, "what was remembered");
    let second = credulous.verify(&chain, &name, server, reading);
    assert!(first.is_err() || first == second, "{first:?}, but {second:?}");
    if let (Ok(verified), Confidence::Trusted) = (second, reading.confidence) {
        assert!((verified.validity.not_before..=verified.validity.not_after).contains(&wall));
    }
    first.is_ok()
}

/// To whom every signature is good.
#[derive(Debug)]
struct Credulous;

impl Ecdsa for Credulous {
    fn is_signed(&self, _: &[u8; POINT_LEN], _: &[u8; 32], _: &[u8; SIGNATURE_LEN]) -> bool {
        true
    }
}

/// Flash with logs in it. With an odd first octet, logs that were written well and then changed: an
/// offset in two octets and the bits that turn over, as often as there are more; else, whatever is
/// in the first half, behind its length, and then the second.
pub fn flash_log(input: &[u8]) -> Reached {
    let Some((mode, mut rest)) = input.split_first() else { return false };
    let len = SECTORS_MIN * SECTOR_LEN;
    let mut flash = FlashModel::blank(len);
    if mode % 2 == 1 {
        for number in 0..u64::from(mode / 2 % 8) {
            with_store(&mut flash, |store| block_on(store.persist(&record(number))))
                .expect("flash is good");
        }
        while let Some((&[high, low, bits], behind)) = rest.split_first_chunk() {
            rest = behind;
            flash.rot(usize::from(u16::from_be_bytes([high, low])) % flash.octets().len(), bits);
        }
    } else {
        let first = take(&mut rest).unwrap_or_default();
        let mut octets = vec![0xff; flash.octets().len()];
        let (one, two) = octets.split_at_mut(flash.octets().len() / 2);
        put(one, first);
        put(two, rest);
        flash = FlashModel::holding(&octets);
    }
    hold(flash)
}

/// What has to hold of any flash.
fn hold(mut flash: FlashModel) -> Reached {
    let before = flash.octets().to_vec();
    let found = with_store(&mut flash, |store| store.load().ok());
    let reserved = with_store(&mut flash, |store| store.reserved());
    let Some(record_found) = found else {
        let refused = with_store(&mut flash, |store| block_on(store.persist(&record(9))));
        assert!(refused.is_err(), "written over what cannot be read");
        assert_eq!(flash.octets(), before, "changed what cannot be read");
        return false;
    };
    let again = with_store(&mut flash, |store| store.load().ok());
    assert_eq!(again.as_ref(), Some(&record_found), "found once");
    with_store(&mut flash, |store| block_on(store.persist(&record(9)))).expect("flash is good");
    let now = with_store(&mut flash, |store| (store.load().ok(), store.reserved()));
    assert_eq!(now, (Some(Some(record(9))), reserved));
    record_found.is_some()
}

fn with_store<T>(
    flash: &mut FlashModel,
    act: impl FnOnce(&mut FlashStore<'_, &mut FlashModel>) -> T,
) -> T {
    let mut scratch = Scratch::new();
    let range = 0..SECTORS_MIN * SECTOR_LEN;
    act(&mut FlashStore::new(flash, range, &mut scratch).expect("a range"))
}

/// A record with a certificate.
fn record(number: u64) -> Record {
    let identity = Identity {
        serial: Serial::from_slice(&number.to_be_bytes()).expect("a serial number"),
        validity: Validity { not_before: Wall(number), not_after: Wall(number + 1) },
        spki_sha256: [7; 32],
        certificate: CertificateBytes::from_slice(&[0x30; 700]).expect("a certificate"),
    };
    Record {
        generation: number,
        active: Some(Slot::A),
        slots: [SlotState::Certified(identity), SlotState::Empty],
        ..Record::new(Wall(number))
    }
}

/// What is in the sectors of the keys, and what the TPM then answers.
///
/// The first octet has a bit for each of the four sectors: whether what follows is the body of a
/// content, which is sealed here as the store does it, or what is there as it is; each behind its
/// length in two octets. Then answers, as in `tpm_responses`.
pub fn tpm_keys(input: &[u8]) -> Reached {
    let Some((sealed, mut rest)) = input.split_first() else { return false };
    let mut octets = vec![0xff; 4 * SECTOR_LEN as usize];
    for (index, sector) in octets.chunks_exact_mut(SECTOR_LEN as usize).enumerate() {
        let content = take(&mut rest).unwrap_or_default();
        match sealed >> index & 1 {
            0 => put(sector, content),
            _ => put(sector, &sealed_content(if index < 2 { SLOT } else { ANCHOR }, content)),
        }
    }
    use_keys(&mut FlashModel::holding(&octets), Answers(&mut rest))
}

/// What the content of a slot begins with, and that of an anchor.
const SLOT: &[u8; 5] = b"FCTK\x01";
const ANCHOR: &[u8; 5] = b"FCTF\x01";

/// `docs/design/tpm-keys.md`: a head, the body behind its length, and a digest over both.
fn sealed_content(head: &[u8; 5], body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut content = [head, &len[..], body].concat();
    let digest = Sha256::digest(&content);
    content.extend(digest);
    content
}

/// The input of `tpm_keys` with what a store has left on `flash`, and `answers` to what is asked
/// of its TPM next.
#[must_use]
pub fn tpm_keys_seed(flash: &FlashModel, answers: &[u8]) -> Vec<u8> {
    let mut seed = vec![0b1111];
    for sector in flash.octets().chunks_exact(SECTOR_LEN as usize) {
        let mut rest = &sector[SLOT.len()..];
        let body = take(&mut rest).unwrap_or_default();
        seed.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
        seed.extend(body);
    }
    [&seed, answers].concat()
}

/// Everything that a device asks of its keys in a TPM, once, whatever becomes of it; whether a
/// signature was made with a key that was there.
pub fn use_keys<T: Transact<Error: std::fmt::Display>>(flash: &mut FlashModel, tpm: T) -> Reached {
    let mut keys = TpmKeys::new(flash, 0, tpm).expect("a flash of four sectors");
    let spki = keys.spki(Slot::A);
    let _usable = keys.probe(Slot::A);
    let is_signed = keys.sign(Slot::A, &[0x5a; 32]).is_ok();
    assert!(spki.is_ok() || !is_signed, "signed with a key that nobody knows");
    if let Ok(introduction) = keys.introduction(&mut [0; INTRODUCTION_LEN_MAX]) {
        assert!(introduction.is_some(), "keys in a TPM have one");
    }
    let challenge = Challenge {
        version: wire::VERSION,
        id: [3; CHALLENGE_ID_LEN],
        nonce: [4; CHALLENGE_NONCE_LEN],
        credential: &[0x5c; 68],
        encrypted_secret: &[0x5d; 256],
        valid_s: 60,
        server_time: Wall(0),
    };
    let _refused = keys.vouch(Slot::A, &challenge, &mut [0; 2048]);
    for (slot, source) in [(Slot::A, KeySource::Fresh), (Slot::B, KeySource::Other)] {
        if let Ok(made) = keys.ensure(slot, source) {
            assert_eq!(keys.spki(slot).map(|spki| Sha256::digest(spki).into()), Ok(made));
        }
    }
    let _erased = keys.erase(Slot::B);
    keys.close();
    is_signed
}

/// What is in the sector of a key in software: with an odd first octet the key alone, which is
/// sealed here as the store does it.
pub fn software_key(input: &[u8]) -> Reached {
    let Some((sealed, content)) = input.split_first() else { return false };
    let mut octets = vec![0xff; 2 * SECTOR_LEN as usize];
    put(&mut octets, content);
    if sealed % 2 == 1 {
        let digest = Sha256::new().chain_update(b"fleetcert flash key").chain_update(&octets[..32]);
        put(&mut octets[32..], &digest.finalize());
    }
    let mut flash = FlashModel::holding(&octets);
    let random = Generator::from_seed(&[1; SEED_LEN]);
    let mut keys = SoftwareKeys::<_, _, Portable>::new(&mut flash, 0, random).expect("two sectors");
    let found = keys.sign(Slot::A, &[0x5a; 32]);
    assert_eq!(found.is_ok(), keys.probe(Slot::A).is_ok());
    if let (Ok(signature), Ok(spki)) = (&found, keys.spki(Slot::A)) {
        let point = spki.last_chunk().expect("a point");
        assert!(Portable.is_signed(point, &[0x5a; 32], signature));
    }
    // What is none is replaced by one.
    let made = keys.ensure(Slot::A, KeySource::Fresh).expect("flash is good");
    assert_eq!(keys.spki(Slot::A).map(|spki| Sha256::digest(spki).into()), Ok(made));
    keys.sign(Slot::A, &[0x5a; 32]).expect("a key that was made");
    found.is_ok()
}

fn device_id() -> DeviceId {
    DeviceId::parse(DEVICE).expect("a device id")
}

/// Takes a part behind its length in two octets.
fn take<'i>(rest: &mut &'i [u8]) -> Option<&'i [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = behind;
    Some(part)
}

/// Writes to the front of `out` what fits there.
fn put(out: &mut [u8], octets: &[u8]) {
    let len = out.len().min(octets.len());
    out[..len].copy_from_slice(&octets[..len]);
}

/// A clock that stands still.
#[derive(Clone, Copy)]
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn rest(&self) {}
}

/// A peer that says what it was told to, and then ends.
struct Script<'i> {
    octets: &'i [u8],
    piece: usize,
}

impl ErrorType for Script<'_> {
    type Error = TlsError;
}

impl Read for Script<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, TlsError> {
        let (now, later) = self.octets.split_at(out.len().min(self.octets.len()).min(self.piece));
        out[..now.len()].copy_from_slice(now);
        self.octets = later;
        Ok(now.len())
    }
}

impl Write for Script<'_> {
    fn write(&mut self, octets: &[u8]) -> Result<usize, TlsError> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> Result<(), TlsError> {
        Ok(())
    }
}

impl Stream for Script<'_> {
    fn read_if_ready(&mut self, out: &mut [u8]) -> Result<Option<usize>, TlsError> {
        if self.octets.is_empty() {
            return Ok(None);
        }
        self.read(out).map(Some)
    }
}
