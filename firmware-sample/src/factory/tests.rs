use std::string::ToString;
use std::vec;
use std::vec::Vec;

use crate::blocking::block_on;
use crate::flash_model::{FlashModel, SECTOR_LEN};

use super::*;

/// Not a certificate, and as long as one may be: what it is, is not looked at here.
const ROOT: [u8; CERTIFICATE_LEN_MAX] = {
    let mut root = [0xab; CERTIFICATE_LEN_MAX];
    root[0] = 0x30;
    root
};

fn smallest() -> Factory<'static> {
    Factory {
        device_id: DeviceId::parse("p").unwrap(),
        policy: Policy::default(),
        provisioner: Server::new("h", 1).unwrap(),
        label: None,
        server_root: &ROOT[..1],
        token: None,
        broker: None,
    }
}

fn usual() -> Factory<'static> {
    Factory {
        device_id: DeviceId::parse("pump-7").unwrap(),
        policy: Policy { attested_only: true, self_test: true, ..Policy::default() },
        provisioner: Server::new("10.0.2.2", 8443).unwrap(),
        label: Some(Label::parse("line-3").unwrap()),
        server_root: &ROOT[..600],
        token: Some(Token::parse("s3cret").unwrap()),
        broker: Some(Server::new("broker.example", 8883).unwrap()),
    }
}

fn emitted(factory: &Factory<'_>) -> Vec<u8> {
    factory.emit(&mut [0; FACTORY_LEN_MAX]).unwrap().to_vec()
}

/// Replaces octets, and the checksum by the right one.
fn changed(block: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut content = block[..block.len() - CHECKSUM_LEN].to_vec();
    change(&mut content);
    let len = u16::try_from(content.len() - HEADER_LEN).unwrap();
    content[HEADER_LEN - 2..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    let checksum = CHECKSUM.checksum(&content);
    content.extend(checksum.to_le_bytes());
    content
}

/// Goal: what was written is read, from the smallest configuration to the largest.
#[test]
fn what_is_emitted_is_parsed() {
    let host =
        "a".repeat(63) + "." + &"b".repeat(63) + "." + &"c".repeat(63) + "." + &"d".repeat(61);
    let (id, label, token) =
        ("i".repeat(DEVICE_ID_LEN_MAX), "l".repeat(LABEL_LEN_MAX), "t".repeat(TOKEN_LEN_MAX));
    let largest = Factory {
        device_id: DeviceId::parse(&id).unwrap(),
        policy: Policy { attested_only: true, decommission: true, keep_key: true, self_test: true },
        provisioner: Server::new(&host, u16::MAX).unwrap(),
        label: Some(Label::parse(&label).unwrap()),
        server_root: &ROOT,
        token: Some(Token::parse(&token).unwrap()),
        broker: Server::new(&host, u16::MAX),
    };
    assert_eq!(emitted(&largest).len(), FACTORY_LEN_MAX);
    for factory in [smallest(), usual(), largest] {
        assert_eq!(Factory::parse(&emitted(&factory)), Ok(factory));
    }
}

/// Goal: the format is the one of the document, which others write by; CRC-32 of Python's `zlib`.
#[test]
fn the_layout_is_the_documented_one() {
    let expected = [
        b"FCFC\x01\x10\x00".as_slice(),
        b"\x00\x00",
        b"\x01p",
        b"\x01h\x01\x00",
        b"\x00",
        b"\x01\x00\x30",
        b"\x00",
        b"\x00\x00\x00",
        &0xb687_c6ce_u32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(emitted(&smallest()), expected);
}

/// Goal: no single flipped bit and no cut is believed.
#[test]
fn a_damaged_block_is_refused() {
    let block = emitted(&usual());
    for at in 0..block.len() {
        for bit in 0..8 {
            let mut damaged = block.clone();
            damaged[at] ^= 1 << bit;
            assert!(Factory::parse(&damaged).is_err(), "octet {at}, bit {bit}");
        }
        assert!(Factory::parse(&block[..at]).is_err(), "cut at {at}");
    }
    let longer = [block.as_slice(), &[0xff; 100]].concat();
    assert_eq!(Factory::parse(&longer), Ok(usual()), "the rest of the region is not looked at");
}

/// Goal: each way of being wrong is named, and told from damage.
#[test]
fn each_fault_has_its_name() {
    let block = emitted(&smallest());
    let parse = |octets: &[u8]| Factory::parse(octets).unwrap_err();
    assert_eq!(parse(&[0xff; 64]), ParseError::Erased);
    assert_eq!(parse(&block[..6]), ParseError::Truncated { found: 6 });
    assert_eq!(parse(&[0; 64]), ParseError::Magic { found: [0; 4] });
    let version = changed(&block, |octets| octets[4] = 2);
    assert_eq!(parse(&version), ParseError::Version { found: 2 });
    let mut long = block.clone();
    long[5..7].copy_from_slice(&[0xff, 0xff]);
    let max = block.len() - HEADER_LEN - CHECKSUM_LEN;
    assert_eq!(parse(&long), ParseError::Length { found: 0xffff, max });
    let trailing = changed(&block, |octets| octets.push(0));
    assert_eq!(parse(&trailing), ParseError::Trailing { len: 1 });
    let policy = changed(&block, |octets| octets[8] = 0x80);
    assert_eq!(parse(&policy), ParseError::Content(Field::Policy));
    let reaching = changed(&block, |octets| octets[9] = 200);
    assert_eq!(parse(&reaching), ParseError::FieldLength(Field::DeviceId));
    let nameless = changed(&block, |octets| drop(octets.splice(9..11, [0])));
    assert_eq!(parse(&nameless), ParseError::Content(Field::DeviceId));
    let portless = changed(&block, |octets| octets[13] = 0);
    assert_eq!(parse(&portless), ParseError::Content(Field::Provisioner));
    let label = changed(&block, |octets| drop(octets.splice(15..16, *b"\x01/")));
    assert_eq!(parse(&label), ParseError::Content(Field::Label));
    let root = changed(&block, |octets| octets[18] = 0x31);
    assert_eq!(parse(&root), ParseError::Content(Field::ServerRoot));
    let token = changed(&block, |octets| drop(octets.splice(19..20, *b"\x01 ")));
    assert_eq!(parse(&token), ParseError::Content(Field::Token));
    let broker = changed(&block, |octets| octets[21] = 1);
    assert_eq!(parse(&broker), ParseError::Content(Field::Broker));
}

/// Goal: whatever the octets, parsing ends with an answer, and what it accepts is what it would
/// write. Octets behind a right checksum are what a careless tool would write.
#[test]
fn no_octets_confuse_it() {
    let block = emitted(&usual());
    let mut state = 0x2545_f491_u32;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).unwrap() % below
    };
    let mut accepted = 0;
    for _ in 0..4_000 {
        let octets = changed(&block, |octets| {
            for _ in 0..=draw(3) {
                let at = HEADER_LEN + draw(octets.len() - HEADER_LEN);
                octets[at] = u8::try_from(draw(256)).unwrap();
            }
        });
        if let Ok(factory) = Factory::parse(&octets) {
            assert_eq!(emitted(&factory), octets);
            accepted += 1;
        }
    }
    assert!(accepted > 20, "{accepted}");
}

/// Goal: hosts are names or addresses, never something that a URL or a log would take apart.
#[test]
fn a_host_is_a_name_or_an_address() {
    for host in ["h", "10.0.2.2", "broker.example", "xn--a-b.example"] {
        assert!(Server::new(host, 1).is_some(), "{host}");
    }
    for host in ["", ".", "a..b", "a.", "a b", "a:1", "a/b", "ü", &"a".repeat(64)] {
        assert!(Server::new(host, 1).is_none(), "{host}");
    }
    assert!(Server::new("h", 0).is_none());
}

/// Goal: the configuration is found where the factory puts it, and an untouched region is said to
/// be one.
#[test]
fn a_block_is_read_from_flash() {
    let mut flash = FlashModel::blank(SECTOR_LEN);
    let mut buffer = [0; FACTORY_BUFFER_LEN];
    let error = load(&mut flash, &mut buffer).map(drop).unwrap_err();
    assert!(matches!(error, FactoryError::Parse(ParseError::Erased)));
    let mut block = emitted(&usual());
    block.resize(block.len().next_multiple_of(4), 0xff);
    block_on(embedded_storage_async::nor_flash::NorFlash::write(&mut flash, 0, &block)).unwrap();
    assert_eq!(load(&mut flash, &mut buffer).unwrap(), usual());
}

/// Goal: a token is never shown, and what cannot be read back is not written.
#[test]
fn secrets_are_not_shown_and_nonsense_is_not_written() {
    assert!(!std::format!("{:?}", usual()).contains("s3cret"));
    let rootless = Factory { server_root: &[], ..usual() };
    let error = rootless.emit(&mut [0; FACTORY_LEN_MAX]).unwrap_err();
    assert_eq!(error, EmitError::Content(Field::ServerRoot));
    let small = &mut vec![0; 100][..];
    let error = usual().emit(small).unwrap_err();
    assert_eq!(error, EmitError::BufferLength { found: 100 });
    assert_eq!(
        error.to_string(),
        std::format!("100 octets are too few; {FACTORY_LEN_MAX} suffice")
    );
}
