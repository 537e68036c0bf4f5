//! What the firmware says, line by line, on the serial line: for people and for the rig.
//!
//! A line is `<milliseconds since the start> <level> <text>`. Nothing secret may be said: whoever
//! holds the cable reads along.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use log::{Log, Metadata, Record};

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
    /// This crate and those of the core speak; what drivers of others have to say is for those who
    /// write drivers.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fleetcert")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line(&self.serial);
        let (now_ms, level) = (self.clock.now_ms(), record.level().as_str());
        // A serial line takes everything: there is no error to tell.
        let _ = write!(line, "{now_ms:>7} {level:<5} {}\r\n", record.args());
    }

    fn flush(&self) {}
}

/// Says that the program has panicked; with the feature `panic-text`, where and why. Without it the
/// texts of all panics that there could be are not even linked, which is a tenth of the program.
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
