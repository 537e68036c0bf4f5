//! The TPM of this device: one thread owns it, everybody else asks.
//!
//! **What it is.** `Tpm` is the way to the thread (`thread`) that opens the TPM when it is first
//! needed, does one thing after the other with it, and opens it again when it broke. What can be
//! asked is `chip::Chip`; what can be in the way is [`TpmTrouble`].
//!
//! **What it must never do.** Hold the executor up: a signature takes a discrete chip a fifth of a
//! second, and a hanging one for ever. Work with a TPM that is not the one whose keys are expected.
//! Leave the TPM without TPM2_Shutdown at an orderly end.
//!
//! **Why that is sound.** No other thread has a `chip::Chip`. Each time the TPM is opened, its
//! storage primary is compared with the one that was recorded, before anything is asked of it;
//! whether another one means that this TPM was cleared, or that it is another TPM, its endorsement
//! key says, which clearing does not change.

pub(crate) mod chip;
mod ek;
#[cfg(test)]
pub(crate) mod fake;
mod thread;
mod trouble;
mod vault;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetcert_tpm::name::{Name, NameHead};

use crate::clock::within;
use crate::config;
use crate::entropy::Entropy;
use crate::transport::MAKING_MAX;

pub use self::ek::EkId;
pub use self::trouble::TpmTrouble;

use self::chip::{Chip, Facts, Open};
use self::thread::{Ending, Fault as _, Keep, Owner};
use self::vault::Opener;

/// A TPM that takes this long for each command is slow, and works: deadlines leave room for it.
pub const SLOW_COMMAND: Duration = Duration::from_millis(500);

/// Commands that a signature takes, at most, the opening of the TPM before it included.
pub const SIGN_COMMANDS_MAX: u32 = 20;

/// A signature comes within this, from a slow TPM too.
pub const SIGN_MAX: Duration = SLOW_COMMAND.saturating_mul(SIGN_COMMANDS_MAX);

/// Commands of the longest work that is asked for in one piece, at most: finding an endorsement key
/// among everything that makers leave in a TPM, and solving a challenge with it.
const WORK_COMMANDS_MAX: u32 = 60;

/// Who waits for a piece of work gives it up after this: all its commands are slow, one makes an
/// RSA key, and a piece of the same length came before it.
const WORK_MAX: Duration =
    SLOW_COMMAND.saturating_mul(2 * WORK_COMMANDS_MAX).saturating_add(MAKING_MAX);

/// At an orderly end the TPM has so long to finish what it is doing and to be shut down.
pub const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Who asks a running agent how the TPM stands waits for a fresh answer so long, which is plenty
/// for a TPM with nothing else to do; then they get the last.
pub const LOOK_MAX: Duration = Duration::from_millis(100);

/// The name of the thread.
const THREAD: &str = "fleetcert-tpm";

/// The way to the thread; signing threads have one, too.
pub(crate) type Way = Owner<Keeper>;

/// The TPM that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Its storage primary's Name.
    pub(crate) parent: Name,
    /// Its endorsement key.
    pub(crate) ek: EkId,
}

/// The TPM of this device. Nothing is started or opened before something is asked.
pub(crate) struct Tpm {
    open: Arc<dyn Open>,
    shared: Arc<Mutex<Shared>>,
    running: RefCell<Option<(Way, Rc<Ending>)>>,
    looking: Arc<AtomicBool>,
}

/// Somebody looks; until this is dropped nobody else needs to.
struct Looking(Arc<AtomicBool>);

/// How the TPM stood when it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it says of itself.
    pub(crate) facts: Option<Facts>,
    /// What is in the way.
    pub(crate) trouble: Option<TpmTrouble>,
}

/// What the thread and the executor both see.
#[derive(Debug, Default)]
struct Shared {
    expected: Option<Expected>,
    standing: Standing,
    /// The work at hand is but a look.
    is_look: bool,
}

/// What the thread does with the TPM.
pub(crate) struct Keeper {
    open: Arc<dyn Open>,
    shared: Arc<Mutex<Shared>>,
}

impl Tpm {
    /// The TPM of a configuration.
    pub(crate) fn new(key: &config::Key, entropy: Entropy) -> Self {
        let owner_auth_file: Option<PathBuf> = key.owner_auth_file.clone();
        Self::over(Arc::new(Opener::new(key.tpm.clone(), owner_auth_file, entropy)))
    }

    pub(crate) fn over(open: Arc<dyn Open>) -> Self {
        let (shared, looking) = (Arc::default(), Arc::default());
        Self { open, shared, running: RefCell::default(), looking }
    }

    /// Works from now on with no other TPM than this, or with any.
    pub(crate) fn expect(&self, expected: Option<Expected>) {
        lock(&self.shared).expected = expected;
    }

    /// Has the TPM do `work`.
    ///
    /// # Errors
    ///
    /// [`TpmTrouble`].
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Chip) -> Result<T, TpmTrouble> + Send + 'static,
    ) -> Result<T, TpmTrouble> {
        let mut work = work;
        let way = self.way()?;
        let outcome = way.ask(move |chip: &mut Box<dyn Chip>| work(&mut **chip));
        within(WORK_MAX, outcome).await.unwrap_or_else(|| {
            let reason = format!("no outcome within {} ms", WORK_MAX.as_millis());
            Err(TpmTrouble::Wedged { reason })
        })
    }

    /// The way to the thread, which is started if it does not run.
    pub(crate) fn way(&self) -> Result<Way, TpmTrouble> {
        let mut running = self.running.borrow_mut();
        if let Some((way, _)) = &*running {
            return Ok(way.clone());
        }
        let keeper = Keeper { open: Arc::clone(&self.open), shared: Arc::clone(&self.shared) };
        let (way, ending) = Owner::start(THREAD, keeper)
            .map_err(|error| TpmTrouble::Wedged { reason: format!("no thread: {error}") })?;
        *running = Some((way.clone(), ending));
        Ok(way)
    }

    /// Asks the TPM how it stands, and waits for no longer than `limit`; [`Tpm::standing`] tells.
    /// Nobody's asking keeps the thread from work: one question waits in its queue at a time.
    pub(crate) async fn look(&self, limit: Duration) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (looking, shared) = (Looking(Arc::clone(&self.looking)), Arc::clone(&self.shared));
        let looked = self.ask(move |chip| {
            let _until_done = &looking;
            lock(&shared).is_look = true;
            let facts = chip.facts()?;
            lock(&shared).standing.facts = Some(facts);
            Ok(())
        });
        if within(limit, looked).await.is_none() {
            log::debug!("the TPM did not say in time how it stands");
        }
    }

    /// How the TPM stood when it was last seen.
    pub(crate) fn standing(&self) -> Standing {
        lock(&self.shared).standing.clone()
    }

    /// Finishes what it is doing, shuts the TPM down and ends the thread. What is asked afterwards
    /// starts another one.
    pub(crate) async fn close(&self) {
        let Some((way, ending)) = self.running.take() else { return };
        way.close();
        if !ending.wait(CLOSE_MAX).await {
            log::warn!("the TPM did not end its work in time and was not shut down");
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Each write is one assignment: a thread that panicked has left nothing half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// The same TPM with other keys, or another TPM? Its endorsement key knows.
    fn explain(&self, found: NameHead, expected: Expected) -> TpmTrouble {
        let ek = self.open.open(None).and_then(|mut chip| {
            let ek = chip.endorsement()?.id;
            chip.close();
            Ok(ek)
        });
        match ek {
            Ok(ek) if ek == expected.ek => {
                TpmTrouble::Cleared { found, expected: expected.parent.head() }
            }
            Ok(ek) => TpmTrouble::Swapped { found: ek, expected: expected.ek },
            Err(trouble) => trouble,
        }
    }
}

impl Keep for Keeper {
    type Thing = Box<dyn Chip>;
    type Fault = TpmTrouble;

    fn open(&mut self) -> Result<Box<dyn Chip>, TpmTrouble> {
        let expected = lock(&self.shared).expected;
        let opened = self.open.open(expected.map(|expected| expected.parent));
        let mut chip = match (opened, expected) {
            (Err(TpmTrouble::Changed { found, .. }), Some(expected)) => {
                return Err(self.explain(found, expected));
            }
            (opened, _) => opened?,
        };
        let facts = chip.facts()?;
        log::debug!("TPM opened: {facts}");
        lock(&self.shared).standing = Standing { facts: Some(facts), trouble: None };
        Ok(chip)
    }

    fn heard(&mut self, chip: Option<&mut Box<dyn Chip>>, trouble: Option<&TpmTrouble>) {
        // About a key, and not about the TPM.
        let trouble = trouble.filter(|trouble| !trouble.is_plain_refusal());
        if let (Some(chip), Some(TpmTrouble::LockedOut { .. })) = (chip, trouble)
            && let Ok(facts) = chip.facts()
        {
            lock(&self.shared).standing.facts = Some(facts);
        }
        let mut shared = lock(&self.shared);
        let is_look = std::mem::take(&mut shared.is_look);
        let past = shared.standing.trouble.as_ref();
        if is_look && trouble.is_none() && past.is_some_and(|past| !past.is_break()) {
            // That it answers does not say that it gives the keys.
            return;
        }
        if shared.standing.trouble.as_ref() != trouble {
            match trouble {
                Some(trouble) => {
                    log::warn!("TPM {}: {trouble}; {}", trouble.code(), trouble.advice())
                }
                None => log::info!("TPM ok again"),
            }
        }
        shared.standing.trouble = trouble.cloned();
    }

    fn close(&mut self, chip: Box<dyn Chip>) {
        chip.close();
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").field("shared", &self.shared).finish_non_exhaustive()
    }
}
