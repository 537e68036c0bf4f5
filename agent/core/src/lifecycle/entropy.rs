//! A stream of random numbers from a seed that the shell drew.
//!
//! SHA-256 in counter mode. Good enough for what the core needs: names of requests that do not
//! collide, and jitter. Keys and nonces are the key store's and the shell's.

use crate::record::RequestId;
use crate::sha256::{SHA256_LEN, sha256};
use crate::wire::REQUEST_ID_LEN;

#[derive(Clone)]
pub(super) struct Entropy {
    seed: [u8; 32],
    drawn: u64,
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Entropy").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Entropy {
    pub(super) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    pub(super) fn request_id(&mut self) -> RequestId {
        let mut id = [0; REQUEST_ID_LEN];
        id.copy_from_slice(&self.block()[..REQUEST_ID_LEN]);
        RequestId(id)
    }

    pub(super) fn uniform(&mut self) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.block()[..8]);
        u64::from_be_bytes(number)
    }

    fn block(&mut self) -> [u8; SHA256_LEN] {
        self.drawn = self.drawn.wrapping_add(1);
        sha256(&[&self.seed, &self.drawn.to_be_bytes()])
    }
}
