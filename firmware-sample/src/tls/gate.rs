//! What stands between the TLS library and the network.
//!
//! The library keeps no account of which record may come when, and takes some on trust: a
//! handshake message in the clear after the keys are agreed, or a protected record with nothing in
//! it, would end in a panic of the library's. The [`Gate`] reads every record's header before the
//! library does, and lets through what RFC 8446 §5 allows at this point and our buffer can hold.
//! In the other direction it lets nothing out after the first message until the server is proven,
//! and nothing at all after a fault: what the library would still say then is not ours to say.

use core::cell::Cell;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};

use super::fault::{RecordFault, TlsError};

/// Octets of a record's header, RFC 8446 §5.1.
const HEADER_LEN: usize = 5;

/// Octets of a protected record, at least: the inner content type and the tag of AES-GCM.
const PROTECTED_LEN_MIN: usize = 17;

/// Records in the clear that change nothing, from a server that believes in middleboxes
/// (RFC 8446 §D.4), at most.
const CHANGES_MAX: u8 = 1;

mod kind {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// Where a connection is, as far as records are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Our first message is to be sent, or its answer is to come.
    Hello,
    /// The server has answered: everything is protected from now on.
    Handshake,
    /// The handshake is over.
    Open,
}

/// What gate, verifier and signer know of one connection together.
#[derive(Debug)]
pub(super) struct Ledger {
    stage: Cell<Stage>,
    is_proven: Cell<bool>,
    is_impatient: Cell<bool>,
    fault: Cell<Option<TlsError>>,
}

impl Ledger {
    /// The ledger of a connection that has not begun.
    pub(super) const fn new() -> Self {
        Self {
            stage: Cell::new(Stage::Hello),
            is_proven: Cell::new(false),
            is_impatient: Cell::new(false),
            fault: Cell::new(None),
        }
    }

    /// The first fault stands: later ones are its consequences.
    pub(super) fn fail(&self, fault: TlsError) {
        if self.fault.get().is_none() {
            self.fault.set(Some(fault));
        }
    }

    pub(super) fn fault(&self) -> Option<TlsError> {
        self.fault.get()
    }

    pub(super) fn set_proven(&self) {
        self.is_proven.set(true);
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.get()
    }

    pub(super) fn set_open(&self) {
        self.stage.set(Stage::Open);
    }

    /// Whether the gate answers at once when no record has begun to arrive.
    pub(super) fn set_impatient(&self, is_impatient: bool) {
        self.is_impatient.set(is_impatient);
    }
}

/// A network that carries only records which may come.
#[derive(Debug)]
pub(super) struct Gate<'a, T> {
    transport: T,
    ledger: &'a Ledger,
    header: [u8; HEADER_LEN],
    /// Octets of the header that have arrived.
    arrived: usize,
    /// Octets of the header that the library has.
    given: usize,
    /// Octets of the record's content that have not arrived.
    left: usize,
    len_max: usize,
    changes: u8,
    has_said: bool,
    is_unflushed: bool,
}

/// The gate refused, or the network did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shut(ErrorKind);

impl embedded_io::Error for Shut {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl core::fmt::Display for Shut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the gate is shut")
    }
}

impl core::error::Error for Shut {}

impl<'a, T> Gate<'a, T> {
    /// Records from the server have at most `len_max` octets of content.
    pub(super) const fn new(transport: T, ledger: &'a Ledger, len_max: usize) -> Self {
        Self {
            transport,
            ledger,
            header: [0; HEADER_LEN],
            arrived: 0,
            given: 0,
            left: 0,
            len_max,
            changes: 0,
            has_said: false,
            is_unflushed: false,
        }
    }

    /// Judges the header that has arrived, and returns how much content follows.
    fn judge(&mut self) -> Result<usize, RecordFault> {
        let [kind, _, _, high, low] = self.header;
        let found = usize::from(u16::from_be_bytes([high, low]));
        let stage = self.ledger.stage.get();
        match (kind, stage) {
            (kind::ALERT, Stage::Hello) | (kind::APPLICATION_DATA, Stage::Handshake) => {}
            (kind::APPLICATION_DATA, Stage::Open) => {}
            (kind::HANDSHAKE, Stage::Hello) => self.ledger.stage.set(Stage::Handshake),
            (kind::CHANGE_CIPHER_SPEC, Stage::Handshake) if self.changes < CHANGES_MAX => {
                self.changes += 1;
            }
            _ => return Err(RecordFault::Unexpected { kind }),
        }
        let (least, max) = match kind {
            kind::APPLICATION_DATA => (PROTECTED_LEN_MIN, self.len_max),
            kind::CHANGE_CIPHER_SPEC => (1, 1),
            _ => (1, self.len_max),
        };
        match found {
            _ if found < least => Err(RecordFault::Empty),
            _ if found > max => {
                Err(RecordFault::TooLong { found: u16::try_from(found).unwrap_or(u16::MAX) })
            }
            _ => Ok(found),
        }
    }
}

impl<T> ErrorType for Gate<'_, T> {
    type Error = Shut;
}

impl<T: Read + ReadReady + Write> Gate<'_, T> {
    /// Waits for a header and judges it; `false` if the server has ended before one.
    fn next(&mut self) -> Result<bool, Shut> {
        if core::mem::take(&mut self.is_unflushed) {
            self.transport.flush().map_err(shut)?;
        }
        let is_ready = |transport: &mut T| transport.read_ready().map_err(shut);
        if self.arrived == 0 && self.ledger.is_impatient.get() && !is_ready(&mut self.transport)? {
            return Err(Shut(ErrorKind::TimedOut));
        }
        while self.arrived < HEADER_LEN {
            // An error leaves what has arrived where it is, so that reading can go on.
            let len = self.transport.read(&mut self.header[self.arrived..]).map_err(shut)?;
            if len == 0 {
                return Ok(false);
            }
            self.arrived += len;
        }
        self.left = self.judge().map_err(|fault| {
            self.ledger.fail(TlsError::PeerRecord(fault));
            Shut(ErrorKind::InvalidData)
        })?;
        self.given = 0;
        Ok(true)
    }
}

impl<T: Read + ReadReady + Write> Read for Gate<'_, T> {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, Shut> {
        if self.arrived < HEADER_LEN && !self.next()? {
            return Ok(0);
        }
        if self.given < HEADER_LEN {
            let len = octets.len().min(HEADER_LEN - self.given);
            octets[..len].copy_from_slice(&self.header[self.given..self.given + len]);
            self.given += len;
            return Ok(len);
        }
        let len = octets.len().min(self.left);
        let len = self.transport.read(&mut octets[..len]).map_err(|error| {
            // The library has forgotten the header: it would take the rest for another one.
            let shut = shut(error);
            self.ledger.fail(TlsError::Transport(shut.0));
            shut
        })?;
        self.left -= len;
        if self.left == 0 {
            self.arrived = 0;
        }
        Ok(len)
    }
}

impl<T: Write> Write for Gate<'_, T> {
    fn write(&mut self, octets: &[u8]) -> Result<usize, Shut> {
        let may_speak = self.ledger.stage.get() == Stage::Hello || self.ledger.is_proven();
        if !may_speak {
            self.ledger.fail(TlsError::PeerUnproven);
        }
        if self.ledger.fault().is_some() {
            return Err(Shut(ErrorKind::PermissionDenied));
        }
        self.has_said |= self.ledger.is_proven();
        self.transport.write(octets).map_err(shut)
    }

    /// To flush may be to wait for the server's acknowledgement. The library does it after each
    /// message of a flight; once, before the answer is waited for, is enough.
    fn flush(&mut self) -> Result<(), Shut> {
        if self.ledger.stage.get() != Stage::Open {
            self.is_unflushed = true;
            return Ok(());
        }
        self.is_unflushed = false;
        self.transport.flush().map_err(shut)
    }
}

impl<T: Write> Gate<'_, T> {
    /// Tells the server why we leave, in the clear, as long as nothing protected was said.
    pub(super) fn alert(&mut self, description: u8) {
        const FATAL: u8 = 2;
        if !self.has_said {
            let record = [kind::ALERT, 3, 3, 0, 2, FATAL, description];
            // A courtesy: whoever is not there to hear it misses nothing.
            let _heard = self.transport.write_all(&record).and_then(|()| self.transport.flush());
        }
    }
}

fn shut(error: impl embedded_io::Error) -> Shut {
    Shut(error.kind())
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const LEN_MAX: usize = 100;

    /// Says its parts one by one; an empty part is a timeout.
    struct Script {
        parts: Vec<Vec<u8>>,
        said: Vec<u8>,
        flushes: usize,
    }

    impl Script {
        fn new(parts: &[&[u8]]) -> Self {
            Self {
                parts: parts.iter().rev().map(|part| part.to_vec()).collect(),
                said: vec![],
                flushes: 0,
            }
        }
    }

    impl ErrorType for Script {
        type Error = ErrorKind;
    }

    impl Read for Script {
        fn read(&mut self, octets: &mut [u8]) -> Result<usize, ErrorKind> {
            let Some(mut part) = self.parts.pop() else { return Ok(0) };
            if part.is_empty() {
                return Err(ErrorKind::TimedOut);
            }
            let len = part.len().min(octets.len());
            octets[..len].copy_from_slice(&part[..len]);
            let rest = part.split_off(len);
            if !rest.is_empty() {
                self.parts.push(rest);
            }
            Ok(len)
        }
    }

    impl ReadReady for Script {
        fn read_ready(&mut self) -> Result<bool, ErrorKind> {
            Ok(self.parts.last().is_none_or(|part| !part.is_empty()))
        }
    }

    impl Write for Script {
        fn write(&mut self, octets: &[u8]) -> Result<usize, ErrorKind> {
            self.said.extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            self.flushes += 1;
            Ok(())
        }
    }

    fn record(kind: u8, len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [&[kind, 3, 3, high, low], &vec![9; len][..]].concat()
    }

    /// Reads everything at `stage`; the octets, and the fault that ended it.
    fn read_all(stage: Stage, parts: &[&[u8]]) -> (Vec<u8>, Option<TlsError>) {
        let ledger = Ledger::new();
        ledger.stage.set(stage);
        let mut gate = Gate::new(Script::new(parts), &ledger, LEN_MAX);
        let (mut all, mut part) = (vec![], [0; 7]);
        while let Ok(len @ 1..) = gate.read(&mut part) {
            all.extend_from_slice(&part[..len]);
        }
        (all, ledger.fault())
    }

    fn fault(fault: RecordFault) -> Option<TlsError> {
        Some(TlsError::PeerRecord(fault))
    }

    #[test]
    fn a_good_sequence_passes_unchanged_however_it_is_cut() {
        let sequence = [
            record(kind::HANDSHAKE, 90),
            record(kind::CHANGE_CIPHER_SPEC, 1),
            record(kind::APPLICATION_DATA, LEN_MAX),
            record(kind::APPLICATION_DATA, PROTECTED_LEN_MIN),
        ]
        .concat();
        for cut in 1..sequence.len() {
            let (first, second) = sequence.split_at(cut);
            assert_eq!(read_all(Stage::Hello, &[first, second]), (sequence.clone(), None));
        }
    }

    /// Goal: each record that RFC 8446 does not allow at a point is refused there, by its header.
    #[test]
    fn records_out_of_place_are_refused() {
        for (stage, kind) in [
            (Stage::Hello, kind::CHANGE_CIPHER_SPEC),
            (Stage::Hello, kind::APPLICATION_DATA),
            (Stage::Handshake, kind::ALERT),
            (Stage::Handshake, kind::HANDSHAKE),
            (Stage::Open, kind::ALERT),
            (Stage::Open, kind::CHANGE_CIPHER_SPEC),
            (Stage::Open, kind::HANDSHAKE),
            (Stage::Open, 0),
            (Stage::Hello, 24),
        ] {
            let (octets, found) = read_all(stage, &[&record(kind, 50)]);
            assert_eq!((octets, found), (vec![], fault(RecordFault::Unexpected { kind })));
        }
        let twice = [record(kind::CHANGE_CIPHER_SPEC, 1), record(kind::CHANGE_CIPHER_SPEC, 1)];
        let (octets, found) = read_all(Stage::Handshake, &[&twice[0], &twice[1]]);
        assert_eq!(octets, twice[0]);
        let kind = kind::CHANGE_CIPHER_SPEC;
        assert_eq!(found, fault(RecordFault::Unexpected { kind }));
    }

    #[test]
    fn records_of_a_length_that_cannot_be_are_refused() {
        for len in 0..PROTECTED_LEN_MIN {
            let (_, found) = read_all(Stage::Open, &[&record(kind::APPLICATION_DATA, len)]);
            assert_eq!(found, fault(RecordFault::Empty), "{len}");
        }
        for (stage, kind) in
            [(Stage::Open, kind::APPLICATION_DATA), (Stage::Hello, kind::HANDSHAKE)]
        {
            for found in [LEN_MAX + 1, 16_640, 65_535] {
                let (_, seen) = read_all(stage, &[&record(kind, found)]);
                let found = u16::try_from(found).unwrap();
                assert_eq!(seen, fault(RecordFault::TooLong { found }));
            }
        }
        let (_, found) = read_all(Stage::Hello, &[&record(kind::HANDSHAKE, 0)]);
        assert_eq!(found, fault(RecordFault::Empty));
    }

    /// Goal: a timeout in a header loses nothing; one in the content ends the connection, because
    /// the library could not go on.
    #[test]
    fn a_timeout_between_records_can_be_tried_again_and_one_inside_cannot() {
        let record = record(kind::APPLICATION_DATA, 20);
        for cut in 0..HEADER_LEN {
            let ledger = Ledger::new();
            ledger.stage.set(Stage::Open);
            let parts = [&record[..cut], &[], &record[cut..]];
            let parts: Vec<_> = parts.into_iter().skip(usize::from(cut == 0)).collect();
            let mut gate = Gate::new(Script::new(&parts), &ledger, LEN_MAX);
            let mut octets = [0; 25];
            gate.read(&mut octets).unwrap_err();
            assert_eq!(gate.read(&mut octets).unwrap(), HEADER_LEN);
            assert_eq!(gate.read(&mut octets[HEADER_LEN..]).unwrap(), 20);
            assert_eq!((&octets[..], ledger.fault()), (&record[..], None));
        }
        let (_, found) = read_all(Stage::Open, &[&record[..9], &[], &record[9..]]);
        assert_eq!(found, Some(TlsError::Transport(ErrorKind::TimedOut)));
    }

    #[test]
    fn an_impatient_reader_does_not_wait_for_a_record_to_begin() {
        let ledger = Ledger::new();
        ledger.stage.set(Stage::Open);
        ledger.set_impatient(true);
        let mut gate = Gate::new(Script::new(&[&[]]), &ledger, LEN_MAX);
        assert_eq!(gate.read(&mut [0; 5]).unwrap_err().0, ErrorKind::TimedOut);
        assert_eq!(gate.transport.parts.len(), 1, "the network was not read");
        assert_eq!(ledger.fault(), None);
    }

    /// Goal: a flight of several messages waits for the network once.
    #[test]
    fn a_flight_is_flushed_once_and_an_open_connection_each_time() {
        let ledger = Ledger::new();
        let answer = record(kind::HANDSHAKE, 1);
        let mut gate = Gate::new(Script::new(&[&answer]), &ledger, LEN_MAX);
        for _ in 0..3 {
            gate.write_all(b"message").unwrap();
            gate.flush().unwrap();
        }
        assert_eq!(gate.transport.flushes, 0);
        gate.read_exact(&mut [0; 6]).unwrap();
        assert_eq!(gate.transport.flushes, 1);
        ledger.set_open();
        gate.flush().unwrap();
        assert_eq!(gate.transport.flushes, 2);
    }

    #[test]
    fn nothing_is_said_to_a_server_that_has_not_proven_itself_but_why_we_leave() {
        let ledger = Ledger::new();
        let mut gate = Gate::new(Script::new(&[]), &ledger, LEN_MAX);
        gate.write_all(b"hello").unwrap();
        ledger.stage.set(Stage::Handshake);
        gate.write_all(b"secret").unwrap_err();
        assert_eq!(ledger.fault(), Some(TlsError::PeerUnproven));
        gate.alert(42);
        assert_eq!(gate.transport.said, b"hello\x15\x03\x03\x00\x02\x02\x2a");
    }

    #[test]
    fn nothing_is_said_after_a_fault_and_no_alert_in_the_clear_after_protected_words() {
        let ledger = Ledger::new();
        ledger.stage.set(Stage::Handshake);
        ledger.set_proven();
        let mut gate = Gate::new(Script::new(&[]), &ledger, LEN_MAX);
        gate.write_all(b"protected").unwrap();
        ledger.fail(TlsError::PeerProtocol);
        gate.write_all(b"more").unwrap_err();
        gate.alert(42);
        assert_eq!(gate.transport.said, b"protected");
    }
}
