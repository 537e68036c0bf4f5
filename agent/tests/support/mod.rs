//! What tests against real and fake peers share: certificates, brokers, provisioners, devices.

pub(crate) mod broker;
pub(crate) mod device;
pub(crate) mod pki;
pub(crate) mod server;
pub(crate) mod swtpm;

use std::future::Future;
use std::time::Duration;

use fleetcert_agent::clock::within;
use fleetcert_agent::context::Executor;
use fleetcert_core::time::{Confidence, Reading, Wall};

/// Everything that a test waits for happens within this, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A time inside the validity of the usual certificates: 2027-01-15.
pub(crate) const NOW: Wall = Wall(1_800_000_000);

/// A clock that is trusted.
pub(crate) const TRUSTED: Reading =
    Reading { wall: Some(NOW), confidence: Confidence::Trusted, floor: Wall(1_700_000_000) };

/// Runs a test on the executor of its device, and fails it when it hangs.
pub(crate) fn run<T>(executor: &Executor, test: impl Future<Output = T>) -> T {
    smol::block_on(executor.run(within(4 * SOON, test))).expect("the test hangs")
}

/// What comes within [`SOON`].
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(SOON, future).await.expect("nothing came in time")
}

/// Waits until a condition holds; other tasks run meanwhile.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            smol::future::yield_now().await;
        }
    })
    .await;
}
