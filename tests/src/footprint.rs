//! What a board's firmware takes, and where it could panic: read from the ELF file that is flashed.
//!
//! **What it is.** An [`image`] is the program as it lies in the board's memory. [`component`] says
//! who takes which octets; [`panics`] finds every way into a panic, by what the instructions refer to
//! ([`mod@reference`]); [`listing`] wants a reason for each. [`page`] reads the tables of the pages in
//! `docs/` that have the limits and the reasons.
//!
//! **What it must never do.** Ask the compiler: what it was told to do is not what it did. Nothing
//! here builds or runs anything.

pub mod component;
pub mod image;
pub mod listing;
pub mod page;
pub mod panics;
pub mod reference;
