//! The simulated world: devices around the real machine, and what they live in.
//!
//! `docs/design/simulator.md` says what is real in it, what is modelled, and how a run is replayed.

pub mod authority;
pub mod clock;
pub mod device;
pub mod disk;
pub mod exchange;
pub mod faults;
pub mod keys;
pub mod net;
pub mod random;
pub mod world;
