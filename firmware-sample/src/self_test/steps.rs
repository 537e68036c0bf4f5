//! The steps, one function each.

use core::fmt;

use embedded_io::{Read, Write};
use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_tpm::transact::Transact;

use crate::blocking::block_on;
use crate::board::{Board, Clock, Link};
use crate::console::{error, info, show_code};
use crate::ecdsa;
use crate::factory::Factory;
use crate::keystore::KeyStore as _;
use crate::net::{Net, NetError};

/// Octets written to flash and read back: a multiple of every common word length.
const PATTERN_LEN: usize = 256;

/// From the start to an address: three questions of a DHCP client.
const LEASE_WAIT_MS_MAX: u64 = 15_000;

/// From the question to the whole answer of the peer.
const ANSWER_WAIT_MS_MAX: u64 = 10_000;

/// Octets of the peer's line, at most.
const LINE_LEN_MAX: usize = 80;

/// `TPM2_Startup(TPM_SU_CLEAR)`. TPM 2.0 Part 3 §9.3
const STARTUP_CLEAR: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0];

/// `TPM2_GetRandom(16)`. TPM 2.0 Part 3 §16.1
const GET_RANDOM: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16];

/// Octets of an answer to [`GET_RANDOM`]: header, length, and what was asked for.
const RANDOM_ANSWER_LEN: usize = 10 + 2 + 16;

/// `TPM_RC_INITIALIZE`: somebody else has started it. TPM 2.0 Part 2 §6.6.3
const ALREADY_STARTED: u32 = 0x100;

/// What a test found wrong; the step has said the rest.
#[derive(Debug)]
pub(super) enum Trouble {
    Flash(&'static str),
    Net(NetError),
    Peer(&'static str),
    Signatures(&'static str),
    Tpm(&'static str),
}

impl From<NetError> for Trouble {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

pub(super) fn factory(factory: &Factory<'_>) {
    let (device_id, provisioner) = (factory.device_id.as_str(), factory.provisioner);
    info(format_args!(
        "factory: {device_id}, provisioner {}:{}",
        provisioner.host(),
        provisioner.port()
    ));
}

/// Has the board's arithmetic verify what is known, and sign where keys are in software.
pub(super) fn signatures<B: Board>() -> Result<(), Trouble> {
    if !ecdsa::can_verify(&B::Ecdsa::default()) {
        return Err(Trouble::Signatures("verify"));
    }
    if !B::Keys::is_sound() {
        return Err(Trouble::Signatures("sign"));
    }
    info(format_args!("signatures: as in the known examples"));
    Ok(())
}

/// Erases, writes, reads, and erases the last sector, unless there is something in it.
pub(super) fn flash<F: NorFlash>(flash: &mut F) -> Result<(), Trouble> {
    let end = u32::try_from(flash.capacity()).map_err(|_| Trouble::Flash("size"))?;
    let sector_len = u32::try_from(F::ERASE_SIZE).map_err(|_| Trouble::Flash("sectors"))?;
    let start = end.checked_sub(sector_len).ok_or(Trouble::Flash("size"))?;
    if content(flash, start)? != [0xff; PATTERN_LEN] {
        info(format_args!("flash: last sector in use"));
        return Ok(());
    }
    let pattern = core::array::from_fn(|i| u8::try_from(i & 0xff).unwrap_or(0) ^ 0x5a);
    block_on(flash.erase(start, end)).map_err(|_| Trouble::Flash("erase"))?;
    block_on(flash.write(start, &pattern)).map_err(|_| Trouble::Flash("write"))?;
    if content(flash, start)? != pattern {
        return Err(Trouble::Flash("written-wrong"));
    }
    block_on(flash.erase(start, end)).map_err(|_| Trouble::Flash("erase-again"))?;
    if content(flash, start)? != [0xff; PATTERN_LEN] {
        return Err(Trouble::Flash("not-erased"));
    }
    info(format_args!(
        "flash: {} octets in {sector_len} for keys; erases, writes, reads",
        flash.capacity()
    ));
    Ok(())
}

fn content<F: NorFlash>(flash: &mut F, start: u32) -> Result<[u8; PATTERN_LEN], Trouble> {
    let mut content = [0; PATTERN_LEN];
    block_on(flash.read(start, &mut content)).map_err(|_| Trouble::Flash("read"))?;
    Ok(content)
}

pub(super) fn tpm<T: Transact<Error: fmt::Display>>(tpm: &mut T) -> Result<(), Trouble> {
    let mut answer = [0; RANDOM_ANSWER_LEN];
    let started = command(tpm, &STARTUP_CLEAR, &mut answer)?;
    if !matches!(started, 0 | ALREADY_STARTED) {
        return Err(Trouble::Tpm("startup"));
    }
    let mut draw = || match command(tpm, &GET_RANDOM, &mut answer)? {
        0 => Ok(answer),
        _ => Err(Trouble::Tpm("random")),
    };
    if draw()? == draw()? {
        return Err(Trouble::Tpm("random-repeats"));
    }
    info(format_args!("tpm: starts, and draws random octets"));
    Ok(())
}

/// The response code of a command.
fn command<T: Transact<Error: fmt::Display>>(
    tpm: &mut T,
    command: &[u8],
    answer: &mut [u8; RANDOM_ANSWER_LEN],
) -> Result<u32, Trouble> {
    let len = tpm.transact(command, answer).map_err(|why| {
        error(format_args!("TPM: {why}"));
        Trouble::Tpm("silent")
    })?;
    match answer {
        [_, _, _, _, _, _, a, b, c, d, ..] if len >= 10 => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(Trouble::Tpm("malformed")),
    }
}

/// Sends `fleetcert <device id>` and expects the same line back.
pub(super) fn network<D: Link, C: Clock>(
    net: &Net<'_, D, C>,
    factory: &Factory<'_>,
) -> Result<(), Trouble> {
    let clock = net.clock();
    let lease = net.wait_for_lease(clock.now_ms().saturating_add(LEASE_WAIT_MS_MAX))?;
    info(format_args!("network: {}", lease.address));
    let deadline_ms = clock.now_ms().saturating_add(ANSWER_WAIT_MS_MAX);
    let server = factory.provisioner;
    let address = net.resolve(server.host(), deadline_ms)?;
    let mut connection = net.connect(address, server.port(), deadline_ms)?;
    for part in ["fleetcert ", factory.device_id.as_str(), "\n"] {
        connection.write_all(part.as_bytes())?;
    }
    connection.flush()?;
    let mut line = [0; LINE_LEN_MAX];
    let line = read_line(&mut connection, &mut line)?;
    let echo = line.strip_prefix("fleetcert ");
    if echo != Some(factory.device_id.as_str()) {
        return Err(Trouble::Peer("other-line"));
    }
    connection.close()?;
    info(format_args!("network: {}:{} answers", server.host(), server.port()));
    Ok(())
}

/// What comes before the first line feed.
fn read_line<'b>(
    connection: &mut impl Read<Error = NetError>,
    buffer: &'b mut [u8; LINE_LEN_MAX],
) -> Result<&'b str, Trouble> {
    let mut len = 0;
    loop {
        let room = buffer.get_mut(len..).filter(|room| !room.is_empty());
        let read = connection.read(room.ok_or(Trouble::Peer("long-line"))?)?;
        let end = len + read;
        let fresh = buffer.get(len..end).unwrap_or_default();
        if let Some(at) = fresh.iter().position(|octet| *octet == b'\n') {
            let line = buffer.get(..len + at).unwrap_or_default();
            return str::from_utf8(line).map_err(|_| Trouble::Peer("no-text"));
        }
        if read == 0 {
            return Err(Trouble::Peer("no-line"));
        }
        len = end;
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, code) = match self {
            Self::Net(error) => return error.fmt(f),
            Self::Flash(code) => ("test.flash", code),
            Self::Peer(code) => ("test.peer", code),
            Self::Signatures(code) => ("test.signatures", code),
            Self::Tpm(code) => ("test.tpm", code),
        };
        show_code(f, part, code)
    }
}
