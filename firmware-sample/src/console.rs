//! What the firmware says, line by line, on the serial line: for people and for the rig.
//!
//! A line is `<milliseconds since the start> <level> <text>`. What went wrong is a code, with a
//! number where one helps: `docs/serial.md` says of each what it means and what to do, so that the
//! sentences take no flash. Nothing secret may be said: whoever holds the cable reads along.
//!
//! Lines go straight to the logger that the board has set. The macros of `log` would take some forty
//! octets more at each place, for names of modules and filters that nobody sets here, and have what
//! drivers of others say linked: to those they are off.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use embedded_storage_async::nor_flash::NorFlashErrorKind;
use log::{Level, Log, Metadata, Record};

use crate::board::{Clock, Serial};

/// The logger of a board; there is one, in a `static` of its module.
#[derive(Debug)]
pub struct Console<S, C> {
    serial: S,
    clock: C,
}

impl<S: Serial, C: Clock> Console<S, C> {
    /// A console on a serial line.
    #[must_use]
    pub const fn new(serial: S, clock: C) -> Self {
        Self { serial, clock }
    }
}

impl<S: Serial + Send, C: Clock + Send + Sync> Log for Console<S, C> {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = Line(&self.serial);
        let now_ms = self.clock.now_ms();
        // Of equal length; what is less than told is told by nobody here.
        let level = match record.level() {
            Level::Error => "ERROR",
            Level::Warn => "WARN ",
            _ => "INFO ",
        };
        // A serial line takes everything: there is no error to tell.
        let _ = write!(line, "{now_ms:>7} {level} {}\r\n", record.args());
    }

    fn flush(&self) {}
}

/// Says what is as it should be.
pub fn info(text: fmt::Arguments<'_>) {
    say(Level::Info, text);
}

/// Says what is not as it should be, and passes or is got over.
pub fn warn(text: fmt::Arguments<'_>) {
    say(Level::Warn, text);
}

/// Says what people have to mend.
pub fn error(text: fmt::Arguments<'_>) {
    say(Level::Error, text);
}

#[inline(never)]
fn say(level: Level, text: fmt::Arguments<'_>) {
    let record = Record::builder().level(level).target(env!("CARGO_CRATE_NAME")).args(text).build();
    log::logger().log(&record);
}

/// What a flash says of itself, as `docs/serial.md` has it, in the room `flash`.
#[must_use]
pub const fn flash_code(kind: NorFlashErrorKind) -> &'static str {
    match kind {
        NorFlashErrorKind::NotAligned => "not-aligned",
        NorFlashErrorKind::OutOfBounds => "out-of-bounds",
        _ => "fault",
    }
}

/// Shows a code as `room.code`.
///
/// # Errors
///
/// Those of `f`.
pub fn show_code(f: &mut fmt::Formatter<'_>, room: &str, code: &str) -> fmt::Result {
    f.write_str(room)?;
    f.write_str(".")?;
    f.write_str(code)
}

/// Says that the program has panicked; with the feature `panic-text`, where and why. Without it the
/// texts of all panics that there could be are not even linked.
pub fn tell_panic<S: Serial>(serial: &S, info: &PanicInfo<'_>) {
    #[cfg(feature = "panic-text")]
    {
        // A serial line takes everything: there is no error to tell.
        let _ = write!(Line(serial), "{info}\r\n");
    }
    #[cfg(not(feature = "panic-text"))]
    {
        let _unread = info;
        serial.write(b"panicked at some place: the feature panic-text tells where\r\n");
    }
}

/// A serial line, for `write!`.
pub struct Line<'a, S>(pub &'a S);

impl<S: Serial> Write for Line<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl<S> fmt::Debug for Line<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}
