//! HTTP/1.1 as a client needs it, over byte slices (RFC 9110, RFC 9112).
//!
//! **What it is.** [`RequestWriter`] lays one request out in a caller's buffer. [`ResponseReader`]
//! takes what the peer sends, in whatever pieces, into another, and gives the response when it is
//! whole. The same bytes leave a daemon and firmware.
//!
//! **What it must never do.** Guess where a message ends. Two lengths, a length beside chunks, a
//! folded header, an octet after the end, an end before the length: each is an error, since what
//! one party guesses another guesses differently (RFC 9112 §11.2).
//!
//! **Why that is sound.** Each octet of a head either may stand where it does or ends the reading;
//! each length is compared with a named limit and with the buffer before it is used. A peer that
//! sends slowly is the caller's affair, who has the clock.

mod chunked;
mod date;
mod head;
mod request;
mod response;

pub use self::date::parse_date;
pub use self::request::{Method, RequestError, RequestWriter};
pub use self::response::{Progress, Response, ResponseError, ResponseHead, ResponseReader};

/// Octets of a response's head, at most: status line and headers.
pub const HEADER_LEN_MAX: usize = 16 * 1024;

/// Headers of a response, at most.
pub const HEADERS_MAX: usize = 32;

/// Octets of a response's body, at most.
pub const BODY_LEN_MAX: usize = 64 * 1024;

/// Interim responses (1xx) before the final one, at most.
pub const INTERIM_MAX: u8 = 8;

/// Octets of a line that gives the size of a chunk, at most, with its extensions.
pub const CHUNK_LINE_LEN_MAX: usize = 256;
