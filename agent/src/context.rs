//! What the parts of the daemon share.
//!
//! The daemon makes one [`Context`], and from it the peers (`peers::Peers::new(context)`), which
//! give the daemon the session with the broker as `Rc<dyn `[`Link`](crate::link::Link)`>`
//! (`peers.link()`).

use std::rc::Rc;
use std::sync::Arc;

use fleetcert_core::lifecycle::Command;
use smol::LocalExecutor;
use smol::channel::Sender;

use crate::cause::Causes;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::keystore::KeyStore;

/// The executor of the one thread that everything runs on.
pub type Executor = Rc<LocalExecutor<'static>>;

/// Configuration, keys, clocks, and the ways to reach the shell. Clones share all of it.
#[derive(Clone, Debug)]
pub struct Context {
    /// What the operator decided.
    pub config: Arc<Config>,
    /// The key store; signers for TLS come from it.
    pub keys: KeyStore,
    /// The clocks.
    pub clock: SystemClock,
    /// Randomness.
    pub entropy: Entropy,
    /// Where background tasks are spawned.
    pub executor: Executor,
    /// Commands for the lifecycle machine, from wherever they come.
    pub commands: Sender<Command>,
    /// Where a port leaves the particulars of a failure before it answers.
    pub causes: Causes,
}
