//! The seeds of what the firmware reads: each target has one that goes the whole way, to something
//! that a device believes or does. A fuzzer that begins with refusals only learns refusals.
#![expect(clippy::unwrap_used, reason = "a seed that cannot be made or read ends the test")]

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{Label, Token};
use fleetcert_core::port::Storage as _;
use fleetcert_core::record::{KeySource, Record, Slot};
use fleetcert_core::time::Wall;
use fleetcert_core::wire::{MEDIA_TYPE, RenewalInfo, VERSION, WhoAmI};
use fleetcert_firmware::blocking::block_on;
use fleetcert_firmware::factory::{FACTORY_LEN_MAX, Factory, Policy, Server};
use fleetcert_firmware::flash_model::{FlashModel, SECTOR_LEN};
use fleetcert_firmware::keystore::KeyStore as _;
use fleetcert_firmware::keystore::tpm::TpmKeys;
use fleetcert_firmware::store::{FlashStore, Scratch};
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_tests::fuzz::firmware::{
    Reached, device_answer, factory_block, flash_log, mqtt_command, mqtt_session, server_chain,
    software_key, tpm_keys, tpm_keys_seed, use_keys,
};
use fleetcert_tests::fuzz::repeated;
use fleetcert_tests::lab::pki::{self, Node};
use fleetcert_tests::lab::tpm::powered;
use fleetcert_tests::tpm_socket::TpmSocket;
use fleetcert_tpm::transact::Transact;

/// When set, the good seeds are made anew, and looked at by the next run, of which they are a part.
const UPDATE: &str = "FLEETCERT_UPDATE_SNAPSHOTS";

/// 2026-11-22T00:00:00Z.
const NOW_S: u32 = 1_795_305_600;

/// A target, and its seeds that go the whole way.
struct Way {
    target: &'static str,
    goes: fn(&[u8]) -> Reached,
    make: fn() -> Vec<(&'static str, Vec<u8>)>,
}

const WAYS: [Way; 8] = [
    Way { target: "device_answer", goes: device_answer, make: answers },
    Way { target: "factory_block", goes: factory_block, make: blocks },
    Way { target: "flash_log", goes: flash_log, make: logs },
    Way { target: "mqtt_command", goes: mqtt_command, make: commands },
    Way { target: "mqtt_session", goes: mqtt_session, make: sessions },
    Way { target: "server_chain", goes: server_chain, make: chains },
    Way { target: "software_key", goes: software_key, make: software },
    Way { target: "tpm_keys", goes: tpm_keys, make: tpm },
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Goal: what a fuzzer starts from reaches what there is to reach.
#[test]
fn the_good_seeds_go_the_whole_way() {
    if std::env::var_os(UPDATE).is_some() {
        WAYS.iter().for_each(Way::write);
        return;
    }
    for way in WAYS {
        let good: Vec<PathBuf> = fs::read_dir(way.corpus())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("good-"))
            .collect();
        assert!(!good.is_empty(), "{} has no good seed", way.target);
        for path in good {
            assert!((way.goes)(&fs::read(&path).unwrap()), "{} is refused", path.display());
        }
    }
}

impl Way {
    fn corpus(&self) -> PathBuf {
        fuzz().join("corpus").join(self.target)
    }

    fn write(&self) {
        fs::create_dir_all(self.corpus()).unwrap();
        for (name, seed) in (self.make)() {
            fs::write(self.corpus().join(format!("good-{name}")), seed).unwrap();
        }
    }
}

fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let corpus = fuzz().join("corpus/http_response");
    let issued = fs::read(corpus.join("issued-leaf-p7")).unwrap();
    let chunked = fs::read(corpus.join("chunked-leaf-p7")).unwrap();
    let mut body = [0; 512];
    let seen = WhoAmI {
        version: VERSION,
        nonce: *b"0123456789abcdef",
        serial: &[0x4a, 1],
        device_id: "gw-0001",
        server_time: Wall(NOW_S.into()),
    };
    let seen = answer(seen.emit(&mut body).unwrap());
    let advice = RenewalInfo {
        version: VERSION,
        start: Wall(NOW_S.into()),
        end: Wall(u64::from(NOW_S) + 86_400),
        retry_after_s: 3_600,
        server_time: Wall(NOW_S.into()),
    };
    let advice = answer(advice.emit(&mut body).unwrap());
    vec![
        ("issued", [&[3], &issued[..]].concat()),
        ("chunked", [&[3], &chunked[..]].concat()),
        ("whoami", [&[0, 255], &seen[..]].concat()),
        ("whoami-in-pieces", [&[0, 1], &seen[..]].concat()),
        ("renewal-info", [&[1, 255], &advice[..]].concat()),
    ]
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn blocks() -> Vec<(&'static str, Vec<u8>)> {
    let least = Factory {
        device_id: DeviceId::parse("pump-7").unwrap(),
        policy: Policy::default(),
        provisioner: Server::new("10.0.2.2", 443).unwrap(),
        label: None,
        server_root: &[0x30, 0],
        token: None,
        broker: None,
    };
    let most = Factory {
        policy: Policy { attested_only: true, keep_key: true, ..Policy::default() },
        label: Label::parse("pumps").ok(),
        token: Token::parse("0123456789abcdef0123456789abcdef").ok(),
        broker: Server::new("broker.fleet.example", 8883),
        ..least.clone()
    };
    let emit = |factory: &Factory<'_>| factory.emit(&mut [0; FACTORY_LEN_MAX]).unwrap().to_vec();
    vec![("least", emit(&least)), ("most", emit(&most))]
}

fn logs() -> Vec<(&'static str, Vec<u8>)> {
    let mut flash = FlashModel::blank(4 * SECTOR_LEN);
    for number in 0..2 {
        let mut scratch = Scratch::new();
        let mut store = FlashStore::new(&mut flash, 0..4 * SECTOR_LEN, &mut scratch).unwrap();
        block_on(store.persist(&Record::new(Wall(number)))).unwrap();
        store.reserve(256).unwrap();
    }
    let half = flash.octets().len() / 2;
    let written = |half: &[u8]| {
        let len = half.iter().rposition(|octet| *octet != 0xff).map_or(0, |last| last + 1);
        half[..len].to_vec()
    };
    let (first, second) = flash.octets().split_at(half);
    let seed = [&[0], &sized(&written(first))[..], &written(second)].concat();
    vec![("raw", seed), ("one-bit-off", vec![1 | 3 << 1, 0x01, 0x00, 0x10])]
}

fn commands() -> Vec<(&'static str, Vec<u8>)> {
    vec![("renew", [&[0], RENEW].concat())]
}

const RENEW: &[u8] = br#"{"schema":1,"id":"a","command":"renew","later":[{}],"":null}"#;

fn sessions() -> Vec<(&'static str, Vec<u8>)> {
    let topic = "fleetcert/v1/gw-0001/";
    let says = [
        &[0x20, 2, 0, 0][..],
        // Both subscriptions.
        &[0x90, 4, 0, 6, 1, 1],
        &message(0x31, &format!("{topic}state"), br#"{"generation":9,"online":false}"#),
        &message(0x30, &format!("{topic}command"), RENEW),
        &[0xd0, 0],
    ]
    .concat();
    vec![
        ("command", [&[255], &says[..]].concat()),
        ("command-in-pieces", [&[1], &says[..]].concat()),
    ]
}

/// PUBLISH from the broker at QoS 0.
fn message(first: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let body = [&sized(topic.as_bytes())[..], payload].concat();
    [&[first, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// A part behind its length in two octets.
fn sized(part: &[u8]) -> Vec<u8> {
    [&u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat()
}

fn chains() -> Vec<(&'static str, Vec<u8>)> {
    let root = Node::root(pki::authority("root"));
    let issuing = root.signs(pki::authority("issuing"));
    let named = issuing.signs(pki::server("broker.fleet.example"));
    let addressed = issuing.signs(pki::server("10.0.2.2"));
    fs::write(fuzz().join("server-root.der"), &root.der).unwrap();
    let chain = |how: u8, chain: &[&Node]| {
        let parts: Vec<u8> = chain.iter().flat_map(|node| sized(&node.der)).collect();
        [&[how], &NOW_S.to_be_bytes()[..], &parts].concat()
    };
    vec![
        ("named", chain(0, &[&named, &issuing])),
        ("addressed", chain(8 | 4, &[&addressed, &issuing, &root])),
        ("without-a-clock", chain(2 | 4, &[&named, &issuing])),
        ("untrusted-clock", chain(3 | 4, &[&named, &issuing])),
    ]
}

fn software() -> Vec<(&'static str, Vec<u8>)> {
    vec![("key", [&[1], &[7; 32][..]].concat())]
}

/// A TPM whose answers are kept, and to random numbers that repeat.
struct Recorder<'a> {
    tpm: TpmSocket,
    answers: &'a mut Vec<u8>,
}

impl Transact for Recorder<'_> {
    type Error = Error;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, Error> {
        let len = self.tpm.transact(command, response)?;
        self.answers.extend(sized(&response[..len]));
        Ok(len)
    }

    fn pause_ms(&mut self, ms: u32) {
        self.tpm.pause_ms(ms);
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), Error> {
        repeated(out);
        Ok(())
    }
}

/// What a store has left that has made two keys, and what its TPM answers in the next life.
fn tpm() -> Vec<(&'static str, Vec<u8>)> {
    let place = tempfile::tempdir().unwrap();
    let maker = TpmMaker::found(&place.path().join("maker"), "acme").unwrap();
    let tpm = powered(Swtpm::manufacture(&place.path().join("tpm"), &maker).unwrap());
    let mut flash = FlashModel::blank(4 * SECTOR_LEN);
    let mut keys = TpmKeys::new(&mut flash, 0, TpmSocket::new(&tpm.data_socket())).unwrap();
    for slot in Slot::ALL {
        keys.ensure(slot, KeySource::Fresh).unwrap();
    }
    drop(keys);
    let (left, mut answers) = (flash.clone(), Vec::new());
    let recorder = Recorder { tpm: TpmSocket::new(&tpm.data_socket()), answers: &mut answers };
    assert!(use_keys(&mut flash, recorder), "a TPM that is well");
    vec![("keys", tpm_keys_seed(&left, &answers))]
}
