//! The steps, one function each.

use core::fmt;

use embedded_io::{Read, Write as _};
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

/// `TPM2_Startup(TPM_SU_CLEAR)`. TPM 2.0 Part 3 §9.3
const STARTUP_CLEAR: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0];

/// `TPM2_GetRandom(16)`. TPM 2.0 Part 3 §16.1
const GET_RANDOM: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 16];

/// Octets of an answer to [`GET_RANDOM`]: header, length, and what was asked for.
const RANDOM_ANSWER_LEN: usize = 10 + 2 + 16;

/// `TPM_RC_INITIALIZE`: somebody else has started it. TPM 2.0 Part 2 §6.6.3
const ALREADY_STARTED: u32 = 0x100;

/// What a test found wrong; the step has said the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    FlashErase,
    FlashEraseAgain,
    /// Flash is not empty after it was erased.
    FlashErased,
    FlashRead,
    FlashSectors,
    FlashSize,
    FlashWrite,
    /// Flash does not hold what was written.
    FlashWritten,
    Net(NetError),
    /// The peer's answer ends before the line does.
    PeerLine,
    /// The peer has said another line.
    PeerOther,
    SignaturesSign,
    SignaturesVerify,
    TpmMalformed,
    TpmRandom,
    /// The TPM draws the same octets twice.
    TpmRepeats,
    TpmSilent,
    TpmStartup,
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
        return Err(Trouble::SignaturesVerify);
    }
    if !B::Keys::is_sound() {
        return Err(Trouble::SignaturesSign);
    }
    info(format_args!("signatures: as in the known examples"));
    Ok(())
}

/// Erases, writes, reads, and erases the last sector, unless there is something in it.
pub(super) fn flash<F: NorFlash>(flash: &mut F) -> Result<(), Trouble> {
    let end = u32::try_from(flash.capacity()).map_err(|_| Trouble::FlashSize)?;
    let sector_len = u32::try_from(F::ERASE_SIZE).map_err(|_| Trouble::FlashSectors)?;
    let start = end.checked_sub(sector_len).ok_or(Trouble::FlashSize)?;
    if !holds(flash, start, &|_| 0xff)? {
        info(format_args!("flash: last sector in use"));
        return Ok(());
    }
    let pattern = |at: usize| u8::try_from(at).unwrap_or(0) ^ 0x5a;
    let written: [u8; PATTERN_LEN] = core::array::from_fn(pattern);
    block_on(flash.erase(start, end)).map_err(|_| Trouble::FlashErase)?;
    block_on(flash.write(start, &written)).map_err(|_| Trouble::FlashWrite)?;
    if !holds(flash, start, &pattern)? {
        return Err(Trouble::FlashWritten);
    }
    block_on(flash.erase(start, end)).map_err(|_| Trouble::FlashEraseAgain)?;
    if !holds(flash, start, &|_| 0xff)? {
        return Err(Trouble::FlashErased);
    }
    info(format_args!("flash: {end} octets in {sector_len} for keys; erases, writes, reads"));
    Ok(())
}

/// Whether the octets from `start` on are what `octet` says of each.
fn holds<F: NorFlash>(
    flash: &mut F,
    start: u32,
    octet: &dyn Fn(usize) -> u8,
) -> Result<bool, Trouble> {
    let mut content = [0; PATTERN_LEN];
    block_on(flash.read(start, &mut content)).map_err(|_| Trouble::FlashRead)?;
    Ok((0..).map(octet).zip(content).all(|(expected, found)| expected == found))
}

pub(super) fn tpm<T: Transact<Error: fmt::Display>>(tpm: &mut T) -> Result<(), Trouble> {
    let mut answer = [0; RANDOM_ANSWER_LEN];
    if !matches!(command(tpm, &STARTUP_CLEAR, &mut answer)?, 0 | ALREADY_STARTED) {
        return Err(Trouble::TpmStartup);
    }
    let mut before = answer;
    for _ in 0..2 {
        before = answer;
        if command(tpm, &GET_RANDOM, &mut answer)? != 0 {
            return Err(Trouble::TpmRandom);
        }
    }
    if answer == before {
        return Err(Trouble::TpmRepeats);
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
        Trouble::TpmSilent
    })?;
    match answer {
        [_, _, _, _, _, _, a, b, c, d, ..] if len >= 10 => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(Trouble::TpmMalformed),
    }
}

/// Sends `fleetcert <device id>` and expects the same line back.
pub(super) fn network<D: Link, C: Clock>(
    net: &Net<'_, D, C>,
    factory: &Factory<'_>,
) -> Result<(), Trouble> {
    let clock = net.clock();
    let lease = net.wait_for_lease(clock.now_ms().saturating_add(LEASE_WAIT_MS_MAX))?;
    let ([a, b, c, d], prefix_len) = (lease.address.address().octets(), lease.address.prefix_len());
    info(format_args!("network: {a}.{b}.{c}.{d}/{prefix_len}"));
    let deadline_ms = clock.now_ms().saturating_add(ANSWER_WAIT_MS_MAX);
    let server = factory.provisioner;
    let address = net.resolve(server.host(), deadline_ms)?;
    let mut connection = net.connect(address, server.port(), deadline_ms)?;
    let line = ["fleetcert ", factory.device_id.as_str(), "\n"];
    for part in line {
        connection.write_all(part.as_bytes())?;
    }
    connection.flush()?;
    for part in line {
        hear(&mut connection, part)?;
    }
    connection.close()?;
    info(format_args!("network: {}:{} answers", server.host(), server.port()));
    Ok(())
}

/// Expects to read this.
fn hear(connection: &mut impl Read<Error = NetError>, text: &str) -> Result<(), Trouble> {
    for expected in text.bytes() {
        let mut octet = [0];
        if connection.read(&mut octet)? == 0 {
            return Err(Trouble::PeerLine);
        }
        if octet != [expected] {
            return Err(Trouble::PeerOther);
        }
    }
    Ok(())
}

impl Trouble {
    /// A stable name, as `docs/serial.md` has it; that of the network is its own.
    const fn code(self) -> &'static str {
        match self {
            Self::FlashErase => "flash.erase",
            Self::FlashEraseAgain => "flash.erase-again",
            Self::FlashErased => "flash.not-erased",
            Self::FlashRead => "flash.read",
            Self::FlashSectors => "flash.sectors",
            Self::FlashSize => "flash.size",
            Self::FlashWrite => "flash.write",
            Self::FlashWritten => "flash.written-wrong",
            Self::Net(_) => "",
            Self::PeerLine => "peer.no-line",
            Self::PeerOther => "peer.other-line",
            Self::SignaturesSign => "signatures.sign",
            Self::SignaturesVerify => "signatures.verify",
            Self::TpmMalformed => "tpm.malformed",
            Self::TpmRandom => "tpm.random",
            Self::TpmRepeats => "tpm.random-repeats",
            Self::TpmSilent => "tpm.silent",
            Self::TpmStartup => "tpm.startup",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(error) => error.fmt(f),
            _ => show_code(f, "test", self.code()),
        }
    }
}
