//! The store in memory: the same semantics, for simulations and tests.
//!
//! Its futures are ready at the first poll: nothing in here waits for anything.

/// A store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {}
