//! Records of the previous release decode: a device that is updated keeps its identity.
//!
//! `data/record-v1.bin` was written once, by the first release that had this format. It is never
//! written again: a change of the format gets a new version, a new file beside this one, and code
//! that still reads this one.
#![expect(clippy::unwrap_used, reason = "octets that do not fit end the test")]

use fleetcert_core::record::{
    CertificateBytes, Identity, KeySource, Kind, RECORD_LEN_MAX, Record, Request, RequestId, Retry,
    Serial, Slot, SlotState, Standing,
};
use fleetcert_core::time::{Validity, Wall};

const VERSION_1: &[u8] = include_bytes!("../data/record-v1.bin");

/// What the file says: each kind of field holds something that is not its default.
fn meant() -> Record {
    let identity = Identity {
        serial: Serial::from_slice(&[0x4d, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
            .unwrap(),
        validity: Validity { not_before: Wall(1_800_000_000), not_after: Wall(1_807_776_000) },
        spki_sha256: std::array::from_fn(|index| index as u8),
        certificate: CertificateBytes::from_slice(&[0x30, 0x03, 0x02, 0x01, 0x2a]).unwrap(),
    };
    let request = Request {
        id: RequestId(std::array::from_fn(|index| 0xf0 + index as u8)),
        kind: Kind::Renew,
        source: KeySource::Other,
    };
    Record {
        generation: 300,
        floor: Wall(1_800_003_600),
        standing: Standing::Quarantined,
        active: Some(Slot::B),
        slots: [SlotState::Requesting(request), SlotState::Certified(identity)],
        retry: Retry { failures: 5, discarded: 1, not_before: Some(Wall(1_800_090_000)) },
    }
}

// Goal: what the first release wrote is read, whole and right.
#[test]
fn a_record_of_version_1_decodes_to_what_it_meant() {
    assert_eq!(Record::parse(VERSION_1), Ok(meant()));
}

// Goal: while version 1 is what we write, not an octet of it has moved.
#[test]
fn a_record_is_written_as_the_first_release_wrote_it() {
    let mut buffer = [0; RECORD_LEN_MAX];
    assert_eq!(meant().emit(&mut buffer).unwrap(), VERSION_1);
}
