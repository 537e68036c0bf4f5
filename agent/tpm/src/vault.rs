//! The keys of one device, in its TPM.
//!
//! **What it is.** What an agent or a firmware does with a TPM: make a key, sign, state that a key
//! is in the TPM, open a credential. Each call is a sequence of commands that begins with nothing
//! loaded and ends so.
//!
//! **What it must never do.** Leave a key in the TPM, use a persistent handle, or take the word of
//! another TPM for that of ours. The storage primary is made from its template whenever it is
//! needed, which gives the same key until the TPM is cleared; its Name is compared with the one
//! that the caller recorded, and with the first one seen, so that a cleared or exchanged TPM is
//! noticed ([`Trouble::ParentChanged`]) before anything is made in it.
//!
//! **What it does about trouble by itself.** A TPM that was reset between two calls has forgotten
//! every saved context: those are dropped, the primary is made anew, and the call is tried once
//! more from its beginning. So is a call that found the TPM full of what an earlier life of ours
//! left there, after a sweep. Everything else is told ([`VaultError::trouble`]).
//!
//! **What a signature costs.** Three commands when the key's context is saved: load, sign, flush.
//! `CONTEXTS` is how many contexts of 1 KiB there is room for: with 1 only the parent's, and a
//! signature takes five; with 0 the parent is made for every call.

mod blob;
mod contexts;
mod endorsement;
mod password;

use core::fmt;

use crate::command::{Code, Handle, Hierarchy};
use crate::fault::{ResponseCode, TpmError, Trouble};
use crate::name::Name;
use crate::session::POINT_LEN;
use crate::template::{TEMPLATE_LEN_MAX, Template};
use crate::tpm::{Certified, Lockout, Parent, Properties, Secret, SelfTest, Sharing, Tpm};
use crate::transact::Transact;

use self::contexts::Contexts;
use self::password::Password;

pub use self::blob::{KEY_BLOB_LEN_MAX, KeyBlob, KeyBlobError, KeyRoom};
pub use self::endorsement::{EkKey, Endorsement};
pub use self::password::{OWNER_AUTH_LEN_MAX, PasswordTooLong};

/// Octets that hold a statement and its signature.
pub const CERTIFIED_LEN_MAX: usize = 384;

/// Octets of a P-256 key's public area, at most.
const AREA_LEN_MAX: usize = TEMPLATE_LEN_MAX + 64;

/// How a [`Vault`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The Name that the storage primary had before; `None` where none was recorded yet.
    pub parent: Option<Name>,
    /// Who else uses the TPM.
    pub sharing: Sharing,
}

/// A statement of an attestation key about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The `TPMS_ATTEST`.
    pub attest: &'a [u8],
    /// The `TPMT_SIGNATURE` over it.
    pub signature: &'a [u8],
}

/// The keys of a device behind the transport `T`, with room for `CONTEXTS` saved contexts.
#[derive(Debug)]
pub struct Vault<T, const CONTEXTS: usize = 3> {
    tpm: Tpm<T>,
    /// The storage primary that was made last; it is the expected one, or nothing is done with it.
    parent: Option<Primary>,
    expected: Option<Name>,
    contexts: Contexts<CONTEXTS>,
    owner_auth: Password,
}

/// The storage primary, as it was when it was made.
#[derive(Clone, Copy, Debug)]
struct Primary {
    name: Name,
    point: [u8; POINT_LEN],
}

/// Why a call of a [`Vault`] failed. `E` is the transport's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultError<E> {
    /// A command failed.
    Tpm(TpmError<E>),
    /// The TPM, or the key, is in a state that has a name.
    Trouble(Trouble),
}

/// Why a step of a sequence failed: what a [`VaultError`] is made from at the end of it, in the two
/// words of a [`TpmError`], for it is passed on from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault<E> {
    /// A command failed.
    Tpm(TpmError<E>),
    /// The state of this name.
    State(State),
}

/// A state in which a sequence ends. [`Trouble`] says more of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    EndorsementAuthNeeded,
    FailureMode,
    ForeignKey,
    NoEndorsementKey,
    OwnerAuthNeeded,
    /// The Name that was found is in the vault.
    ParentChanged,
    /// A sequence was not as it should be.
    Unreachable,
}

/// Something that is done with a vault; what comes of it is kept by whoever does it.
type Work<'w, V, E> = &'w mut dyn FnMut(&mut V) -> Result<(), Fault<E>>;

/// The same with what is loaded as a handle.
type Use<'w, V, E> = &'w mut dyn FnMut(&mut V, Handle) -> Result<(), Fault<E>>;

impl<E> From<TpmError<E>> for Fault<E> {
    fn from(error: TpmError<E>) -> Self {
        Self::Tpm(error)
    }
}

impl<E> Fault<E> {
    fn is(&self, what: impl FnOnce(ResponseCode) -> bool) -> bool {
        matches!(self, Self::Tpm(error) if error.is(what))
    }

    /// A refused authorization of `hierarchy` is one that its owner has to give.
    fn of_hierarchy(error: TpmError<E>, hierarchy: Hierarchy) -> Self {
        if !error.is(ResponseCode::is_authorization) {
            return Self::Tpm(error);
        }
        Self::State(match hierarchy {
            Hierarchy::Endorsement => State::EndorsementAuthNeeded,
            Hierarchy::Owner => State::OwnerAuthNeeded,
        })
    }
}

impl<E> From<TpmError<E>> for VaultError<E> {
    fn from(error: TpmError<E>) -> Self {
        Self::Tpm(error)
    }
}

impl<E> From<Trouble> for VaultError<E> {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl<E> VaultError<E> {
    /// The state that it tells of.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Trouble(trouble) => *trouble,
            Self::Tpm(TpmError::Refused { command, code }) => {
                if code.is_full() {
                    Trouble::NoSlots
                } else {
                    Trouble::Refused { command: *command, code: *code }
                }
            }
            Self::Tpm(TpmError::Tampered { command }) => Trouble::Tampered { command: *command },
            Self::Tpm(_) => Trouble::Unreachable,
        }
    }
}

impl<E: fmt::Display> fmt::Display for VaultError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error) => error.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for VaultError<E> {}

impl<T: Transact, const CONTEXTS: usize> Vault<T, CONTEXTS> {
    /// A vault of which nothing has been opened and to which nothing has been sent: a constant, so
    /// that it can be made where it stays. On the stack it takes as much as its contexts, and
    /// [`BUFFER_LEN`](crate::tpm::BUFFER_LEN) more.
    pub const fn new(transport: T, options: Options) -> Self {
        Self {
            tpm: Tpm::new(transport, options.sharing),
            parent: None,
            expected: options.parent,
            contexts: Contexts::new(),
            owner_auth: Password::EMPTY,
        }
    }

    /// [`Vault::new`] and [`Vault::start`], where there is stack enough.
    ///
    /// # Errors
    ///
    /// Those of [`Vault::start`].
    pub fn open(transport: T, options: Options) -> Result<Self, VaultError<T::Error>> {
        let mut vault = Self::new(transport, options);
        vault.start()?;
        Ok(vault)
    }

    /// Opens the TPM: starts it if nobody has, and asks what it found out about itself. What an
    /// earlier life of ours left in it is flushed, where the TPM is ours alone. Every other call
    /// finds out itself that this is needed; it is here that the reason is told.
    ///
    /// # Errors
    ///
    /// [`VaultError`], [`Trouble::FailureMode`] among them.
    pub fn start(&mut self) -> Result<(), VaultError<T::Error>> {
        let started = self.start_clean();
        started.map_err(|fault| self.explain(fault))
    }

    fn start_clean(&mut self) -> Result<(), Fault<T::Error>> {
        self.start_up()?;
        if self.tpm.sharing() == Sharing::Exclusive {
            self.tpm.sweep()?;
        }
        Ok(())
    }

    /// The same with the password of the owner hierarchy, where one is set. It goes to the TPM as it
    /// is, each time that the storage primary is made.
    ///
    /// # Errors
    ///
    /// [`PasswordTooLong`] if no hierarchy can have it.
    pub fn with_owner_auth(mut self, password: &[u8]) -> Result<Self, PasswordTooLong> {
        self.owner_auth = Password::new(password)?;
        Ok(self)
    }

    /// Works from now on with the storage primary of this Name only, or with the first that is
    /// seen; what is known of another is forgotten.
    pub fn expect(&mut self, parent: Option<Name>) {
        (self.expected, self.parent) = (parent, None);
        self.contexts.clear();
    }

    fn start_up(&mut self) -> Result<(), Fault<T::Error>> {
        self.tpm.startup()?;
        match self.tpm.test_result()? {
            SelfTest::Failed(_) => Err(Fault::State(State::FailureMode)),
            SelfTest::Passed | SelfTest::Pending => Ok(()),
        }
    }

    /// Prepares the TPM for the loss of its power and gives the transport back. For a TPM that is
    /// ours alone: whatever uses it afterwards undoes this.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn close(mut self) -> Result<T, VaultError<T::Error>> {
        self.shutdown()?;
        Ok(self.tpm.into_transport())
    }

    /// Prepares the TPM for the loss of its power, as [`Vault::close`] does.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn shutdown(&mut self) -> Result<(), VaultError<T::Error>> {
        self.tpm.settle()?;
        Ok(self.tpm.shutdown()?)
    }

    /// The commands below, for what a vault does not do.
    pub const fn tpm(&mut self) -> &mut Tpm<T> {
        &mut self.tpm
    }

    /// Who made the TPM, and how it stands.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn properties(&mut self) -> Result<Properties, VaultError<T::Error>> {
        let mut found = None;
        self.attempt(&mut |vault| {
            found = Some(vault.tpm.properties()?);
            Ok(())
        })?;
        // It is there: what went well has left it.
        found.ok_or(VaultError::Trouble(Trouble::Unreachable))
    }

    /// The Name of the storage primary: to be recorded with the first key made under it.
    ///
    /// # Errors
    ///
    /// [`VaultError`], [`Trouble::ParentChanged`] and [`Trouble::OwnerAuthNeeded`] among them.
    pub fn parent(&mut self) -> Result<Name, VaultError<T::Error>> {
        self.with_parent(&mut |_, _| Ok(()))?;
        let primary = self.parent.as_ref();
        Ok(primary.ok_or(VaultError::Trouble(Trouble::Unreachable))?.name)
    }

    /// 32 random octets that only the TPM and we know.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn random(&mut self) -> Result<Secret, VaultError<T::Error>> {
        let mut secret = Secret::empty();
        self.with_parent(&mut |vault, handle| {
            vault.use_parent(handle, |tpm, parent| {
                secret = tpm.random(parent)?;
                Ok(())
            })
        })?;
        Ok(secret)
    }

    /// Makes a key.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn make(&mut self, template: Template) -> Result<KeyBlob, VaultError<T::Error>> {
        Ok(self.make_in(template, &mut KeyRoom::new())?.clone())
    }

    /// Makes a key where it stays, as [`Vault::make`] does.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn make_in<'k>(
        &mut self,
        template: Template,
        room: &'k mut KeyRoom,
    ) -> Result<&'k KeyBlob, VaultError<T::Error>> {
        let mut octets = [0; TEMPLATE_LEN_MAX];
        let len = template.write(&mut octets).unwrap_or_default();
        let template = octets.get(..len).unwrap_or_default();
        self.with_parent(&mut |vault, handle| {
            vault.use_parent(handle, |tpm, parent| {
                room.write(|out| tpm.create(parent, template, out))
            })
        })?;
        Ok(room.checked().map_err(|_| TpmError::Malformed { command: Code::Create })?)
    }

    /// Whether `key` is one of this TPM's: loads and flushes it.
    ///
    /// # Errors
    ///
    /// [`VaultError`], [`Trouble::ForeignKey`] among them.
    pub fn probe(&mut self, key: &KeyBlob) -> Result<(), VaultError<T::Error>> {
        self.with_key(key, &mut |_, _| Ok(()))
    }

    /// Signs a digest with a device key: r ‖ s, each of 32 octets.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn sign(
        &mut self,
        key: &KeyBlob,
        digest: &[u8; 32],
    ) -> Result<[u8; 64], VaultError<T::Error>> {
        let mut signature = [0; 64];
        self.with_key(key, &mut |vault, key| Ok(vault.tpm.sign(key, digest, &mut signature)?))?;
        Ok(signature)
    }

    /// Has `ak` state that `key` is in this TPM. The statement and its signature are written to
    /// `out`, for which [`CERTIFIED_LEN_MAX`] octets are enough.
    ///
    /// # Errors
    ///
    /// [`VaultError`].
    pub fn certify<'a>(
        &mut self,
        key: &KeyBlob,
        ak: &KeyBlob,
        qualifying: &[u8; 32],
        out: &'a mut [u8],
    ) -> Result<Statement<'a>, VaultError<T::Error>> {
        let mut certified = Certified { attest_len: 0, signature_len: 0 };
        self.with_key(key, &mut |vault, key| {
            let ak = vault.load(ak)?;
            let outcome = vault.tpm.certify(key, ak, qualifying, out);
            let outcome = outcome.map(|parts| certified = parts);
            vault.flushed(ak, outcome.map_err(Fault::Tpm))
        })?;
        let Certified { attest_len, signature_len } = certified;
        let parts = out.split_at_checked(attest_len).and_then(|(attest, rest)| {
            Some(Statement { attest, signature: rest.get(..signature_len)? })
        });
        Ok(parts.ok_or(TpmError::Malformed { command: Code::Certify })?)
    }

    /// Has the storage primary loaded for `work`.
    fn with_parent(&mut self, work: Use<'_, Self, T::Error>) -> Result<(), VaultError<T::Error>> {
        self.attempt(&mut |vault| {
            let handle = vault.load_parent()?;
            let outcome = work(vault, handle);
            vault.flushed(handle, outcome)
        })
    }

    /// Has `work` use the storage primary, which is loaded as `handle`.
    fn use_parent(
        &mut self,
        handle: Handle,
        work: impl FnOnce(&mut Tpm<T>, Parent<'_>) -> Result<(), TpmError<T::Error>>,
    ) -> Result<(), Fault<T::Error>> {
        let Some(Primary { name, point }) = &self.parent else {
            return Err(Fault::State(State::Unreachable));
        };
        work(&mut self.tpm, Parent { handle, name, point }).map_err(Fault::Tpm)
    }

    /// Has `key` loaded for `work`.
    fn with_key(
        &mut self,
        key: &KeyBlob,
        work: Use<'_, Self, T::Error>,
    ) -> Result<(), VaultError<T::Error>> {
        self.attempt(&mut |vault| {
            let handle = vault.load(key)?;
            let outcome = work(vault, handle);
            vault.flushed(handle, outcome)
        })
    }

    /// Passes `outcome` on, with what is loaded as `handle` flushed, whatever came of it.
    fn flushed(
        &mut self,
        handle: Handle,
        outcome: Result<(), Fault<T::Error>>,
    ) -> Result<(), Fault<T::Error>> {
        let flushed = self.tpm.flush(handle);
        outcome?;
        Ok(flushed?)
    }

    /// Has `work` done from its beginning, and once more if the TPM was reset or was full of what
    /// is ours. Begins with nothing of ours loaded.
    fn attempt(&mut self, work: Work<'_, Self, T::Error>) -> Result<(), VaultError<T::Error>> {
        self.tpm.settle()?;
        if let Err(fault) = work(self) {
            self.mend(fault)?;
            work(self).map_err(|fault| self.explain(fault))?;
        }
        Ok(())
    }

    /// Does what lets another attempt succeed where this one failed, or tells of the failure.
    fn mend(&mut self, fault: Fault<T::Error>) -> Result<(), VaultError<T::Error>> {
        let mended = if fault.is(ResponseCode::is_stale) {
            self.contexts.clear();
            self.start_up()
        } else if fault.is(ResponseCode::is_full) && self.tpm.sharing() == Sharing::Exclusive {
            self.tpm.sweep().map_err(Fault::Tpm)
        } else {
            Err(fault)
        };
        mended.map_err(|fault| self.explain(fault))
    }

    /// Finds out what an answer alone does not say: how long a lockout lasts; and whether the TPM
    /// is in failure mode or has only failed at this command, as swtpm does with what its
    /// cryptographic library cannot decrypt.
    #[inline(never)]
    fn explain(&mut self, fault: Fault<T::Error>) -> VaultError<T::Error> {
        let error = match fault {
            Fault::Tpm(error) => error,
            Fault::State(state) => return VaultError::Trouble(self.trouble(state)),
        };
        if error.is(ResponseCode::is_lockout) {
            match self.tpm.lockout() {
                Ok(Lockout { recovery_s, .. }) => Trouble::LockedOut { recovery_s }.into(),
                Err(error) => error.into(),
            }
        } else if error.is(ResponseCode::is_failure_mode)
            && !matches!(self.tpm.test_result(), Ok(SelfTest::Passed | SelfTest::Pending))
        {
            Trouble::FailureMode.into()
        } else {
            error.into()
        }
    }

    /// What a state is called outside.
    fn trouble(&mut self, state: State) -> Trouble {
        match state {
            State::EndorsementAuthNeeded => Trouble::EndorsementAuthNeeded,
            State::FailureMode => Trouble::FailureMode,
            State::ForeignKey => Trouble::ForeignKey,
            State::NoEndorsementKey => Trouble::NoEndorsementKey,
            State::OwnerAuthNeeded => Trouble::OwnerAuthNeeded,
            State::ParentChanged => match (self.parent.take(), &self.expected) {
                (Some(Primary { name: found, .. }), Some(expected)) => {
                    Trouble::ParentChanged { found: found.head(), expected: expected.head() }
                }
                _ => Trouble::Unreachable,
            },
            State::Unreachable => Trouble::Unreachable,
        }
    }

    /// Loads a key: from its context, or from its blob.
    #[inline(never)]
    fn load(&mut self, key: &KeyBlob) -> Result<Handle, Fault<T::Error>> {
        let name = key.name();
        if let Some(handle) = self.load_context(&name)? {
            return Ok(handle);
        }
        let parent = self.load_parent()?;
        let loaded = self.tpm.load(parent, key.parts()).map_err(|error| {
            if error.is(ResponseCode::is_integrity) {
                Fault::State(State::ForeignKey)
            } else {
                Fault::Tpm(error)
            }
        });
        let handle = self.without(parent, loaded)?;
        let kept = self.contexts.put(&name, |out| self.tpm.context_save(handle, out));
        self.tpm.unless_failed(handle, kept.or_else(only_lost_time))?;
        Ok(handle)
    }

    /// Loads what was saved under `name`; `None` if nothing was, or the TPM knows it no more.
    fn load_context(&mut self, name: &Name) -> Result<Option<Handle>, Fault<T::Error>> {
        let Some(context) = self.contexts.find(name) else { return Ok(None) };
        let outdated = |code: ResponseCode| code.is_integrity() || code.is_stale();
        match self.tpm.context_load(context) {
            Ok(handle) => Ok(Some(handle)),
            Err(error) if error.is(ResponseCode::is_startup) || !error.is(outdated) => {
                Err(error.into())
            }
            Err(_) => {
                self.contexts.forget(name);
                Ok(None)
            }
        }
    }

    /// Loads the storage primary: from its context, or made anew and compared.
    #[inline(never)]
    fn load_parent(&mut self) -> Result<Handle, Fault<T::Error>> {
        if let Some(Primary { name, .. }) = self.parent
            && let Some(handle) = self.load_context(&name)?
        {
            return Ok(handle);
        }
        let handle = self.make_parent()?;
        let kept = self.keep_parent(handle);
        self.tpm.unless_failed(handle, kept)?;
        Ok(handle)
    }

    /// Flushes `parent`, and passes on the handle of what was loaded with its help; that is flushed,
    /// too, if the parent's flush is a failure.
    fn without(
        &mut self,
        parent: Handle,
        loaded: Result<Handle, Fault<T::Error>>,
    ) -> Result<Handle, Fault<T::Error>> {
        let flushed = self.tpm.flush(parent);
        let handle = loaded?;
        self.tpm.unless_failed(handle, flushed)?;
        Ok(handle)
    }

    /// Saves the storage primary's context, if it is the one that was recorded, or seen first.
    fn keep_parent(&mut self, handle: Handle) -> Result<(), Fault<T::Error>> {
        let Some(Primary { name, .. }) = &self.parent else {
            return Err(TpmError::Malformed { command: Code::CreatePrimary }.into());
        };
        if name != self.expected.get_or_insert(*name) {
            return Err(Fault::State(State::ParentChanged));
        }
        let kept = self.contexts.put_parent(name, |out| self.tpm.context_save(handle, out));
        kept.or_else(only_lost_time)
    }

    /// Makes the storage primary; it is `None` for a key that is not of the template.
    fn make_parent(&mut self) -> Result<Handle, Fault<T::Error>> {
        let (mut area, owner) = ([0; AREA_LEN_MAX], Hierarchy::Owner);
        let len = Template::StoragePrimary.write(&mut area).unwrap_or_default();
        self.parent = None;
        let made = self.tpm.create_primary(owner, self.owner_auth.as_bytes(), &mut area, len);
        let (handle, len) = made.map_err(|error| Fault::of_hierarchy(error, owner))?;
        let area = area.get(..len).unwrap_or_default();
        self.parent = Primary::of(area);
        Ok(handle)
    }
}

impl Primary {
    /// `None` if it is not of the template.
    fn of(area: &[u8]) -> Option<Self> {
        let point = blob::point(area, Template::StoragePrimary)?;
        Some(Self { name: Name::of_public_area(area).ok()?, point })
    }
}

/// A context that was not saved costs time, later: the key is loaded from its blob again. Only a
/// transport that failed is told.
fn only_lost_time<E>(error: TpmError<E>) -> Result<(), Fault<E>> {
    match error {
        TpmError::Transport(_) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
