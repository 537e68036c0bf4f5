//! The commands that carry a secret, each in a session of its own.

use core::fmt;

use tpm2_protocol::data::{TpmAlgId, TpmSe};
use zeroize::{Zeroize, Zeroizing};

use super::Tpm;
use super::key::creation;
use crate::command::{Code, Handle, Hierarchy, SessionAttributes, TooLong, Writer};
use crate::ek::policy::{self, EkPolicy};
use crate::fault::TpmError;
use crate::hash::HashAlg;
use crate::name::Name;
use crate::session::{NONCE_LEN, POINT_LEN, Salt, Session, Unopened};
use crate::transact::Transact;

/// Octets of a credential's secret, at most: the longest digest. TPM 2.0 Part 1 §24.4.
pub const SECRET_LEN_MAX: usize = 64;

/// What a sealed command is about, and what its session encrypts.
#[derive(Clone, Copy)]
struct Sealed<'a> {
    /// What its handles stand for.
    objects: &'a [Loaded<'a>],
    attributes: SessionAttributes,
}

/// Draws of 32 random octets until one is a scalar of P-256; one in four thousand million is not.
const SCALAR_DRAWS_MAX: u32 = 4;

/// The key that sessions are salted to, loaded, with its public point (`04 ‖ x ‖ y`).
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Where it is loaded.
    pub handle: Handle,
    /// Its Name, compared with the one that was recorded.
    pub name: &'a Name,
    /// Its public point.
    pub point: &'a [u8; POINT_LEN],
}

/// A loaded key and its Name.
#[derive(Clone, Copy, Debug)]
pub struct Loaded<'a> {
    /// Where it is loaded.
    pub handle: Handle,
    /// Its Name.
    pub name: &'a Name,
}

/// A secret that a credential gave up. Wiped when it goes.
pub struct Secret {
    octets: [u8; SECRET_LEN_MAX],
    len: usize,
}

impl Secret {
    /// None yet.
    pub(crate) const fn empty() -> Self {
        Self { octets: [0; SECRET_LEN_MAX], len: 0 }
    }

    /// The secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.len)
    }
}

impl<T: Transact> Tpm<T> {
    /// 32 random octets of the TPM's that nobody saw on the bus. Part 3 §16.1.
    ///
    /// # Errors
    ///
    /// [`TpmError`]. A TPM that gives fewer is [`TpmError::Malformed`].
    pub fn random(&mut self, parent: Parent<'_>) -> Result<Secret, TpmError<T::Error>> {
        const WANTED: u16 = 32;
        let mut session = Session::none();
        self.start_salted(parent, &mut session)?;
        let drawn = self.draw_in(&mut session, WANTED);
        self.unless_failed(session.handle(), drawn)
    }

    fn draw_in(
        &mut self,
        session: &mut Session,
        wanted: u16,
    ) -> Result<Secret, TpmError<T::Error>> {
        let sealed = Sealed { objects: &[], attributes: SessionAttributes::ENCRYPT };
        let mut command = self.begin_in(session, Code::GetRandom, sealed)?;
        let command = command.authorized().u16(wanted).end();
        self.call_in(session, sealed, command)?;
        let mut secret = Secret::empty();
        self.take_secret(&mut secret)?;
        self.expect(secret.len == usize::from(wanted))?;
        Ok(secret)
    }

    /// Makes a key under `parent` by a template (`TPMT_PUBLIC`); writes `TPM2B_PUBLIC ‖
    /// TPM2B_PRIVATE` to the front of `out` and returns their octets. The session's HMAC says that
    /// the key is in the TPM of the parent: nobody on the bus has put in another one.
    /// Part 3 §12.1.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn create(
        &mut self,
        parent: Parent<'_>,
        template: &[u8],
        out: &mut [u8],
    ) -> Result<usize, TpmError<T::Error>> {
        let mut session = Session::none();
        self.start_salted(parent, &mut session)?;
        let made = self.create_in(&mut session, parent, template);
        self.unless_failed(session.handle(), made)?;
        let mut parts = self.parameters();
        let (private, public) = (parts.sized(), parts.sized());
        self.expect(parts.is_whole())?;
        let needed = 2 * size_of::<u16>() + public.len() + private.len();
        let too_small = TpmError::too_small(needed, out.len());
        Writer::new(out).sized(public).sized(private).finish().map_err(|TooLong| too_small)
    }

    fn create_in(
        &mut self,
        session: &mut Session,
        parent: Parent<'_>,
        template: &[u8],
    ) -> Result<(), TpmError<T::Error>> {
        let objects = &[Loaded { handle: parent.handle, name: parent.name }];
        let sealed = Sealed { objects, attributes: SessionAttributes::DECRYPT };
        let mut command = self.begin_in(session, Code::Create, sealed)?;
        let command = creation(command.authorized(), template).end();
        self.call_in(session, sealed, command)
    }

    /// Has the TPM open a credential that was made for `ek` and the Name of `ak`: its content is
    /// that of a `TPM2B_ID_OBJECT`, the encrypted secret's that of a `TPM2B_ENCRYPTED_SECRET`.
    /// `session` is a salted one; like the policy's it ends with a success, and is to be flushed
    /// after a failure. What it opens is `secret`. Part 3 §12.5.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub(crate) fn activate_credential(
        &mut self,
        session: &mut Session,
        objects: &[Loaded<'_>; 2],
        policy: Option<Handle>,
        [credential, encrypted_secret]: [&[u8]; 2],
        secret: &mut Secret,
    ) -> Result<(), TpmError<T::Error>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let sealed = Sealed { objects, attributes: SessionAttributes::ENCRYPT };
        let mut command = self.begin_in(session, Code::ActivateCredential, sealed)?;
        match policy {
            Some(policy) => command.authorization(policy, &nonce, SessionAttributes::ONCE),
            None => command.authorization(Handle::PASSWORD, &[], SessionAttributes::CONTINUE),
        };
        command.sized(&[]).authorized().sized(credential).sized(encrypted_secret);
        let command = command.end();
        self.call_in(session, sealed, command)?;
        self.take_secret(secret)
    }

    /// Starts a session that satisfies the policy of an endorsement key, with the endorsement
    /// hierarchy's empty password.
    pub(crate) fn start_ek_policy(
        &mut self,
        policy: EkPolicy,
    ) -> Result<Handle, TpmError<T::Error>> {
        let session = self.start_policy(policy.alg())?;
        let satisfied = self.satisfy(session, policy);
        self.unless_failed(session, satisfied)?;
        Ok(session)
    }

    /// Starts a policy session. Part 3 §11.1.
    fn start_policy(&mut self, alg: HashAlg) -> Result<Handle, TpmError<T::Error>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let mut command = self.command(Code::StartAuthSession, &[Handle::NULL; 2]);
        command.sized(&nonce).sized(&[]).u8(TpmSe::Policy as u8);
        let command = command.u16(TpmAlgId::Null as u16).u16(alg.id()).end();
        self.call(command)
    }

    /// Part 3 §23.4 and §23.6.
    fn satisfy(&mut self, session: Handle, policy: EkPolicy) -> Result<(), TpmError<T::Error>> {
        let handles = [Hierarchy::Endorsement.handle(), session];
        let (no_password, never_expires) = (&[][..], 0);
        let mut command = self.command(Code::PolicySecret, &handles);
        command.passwords(&[no_password]).sized(&[]).sized(&[]).sized(&[]).u32(never_expires);
        let command = command.end();
        self.call(command)?;
        let EkPolicy::B(alg) = policy else { return Ok(()) };
        let [a, c] = policy::branches(alg);
        let mut command = self.command(Code::PolicyOr, &[session]);
        let command = command.u32(2).sized(a).sized(c).end();
        self.call(command).map(drop)
    }

    /// Starts a session salted to `parent`. Part 3 §11.1.
    #[inline(never)]
    pub(crate) fn start_salted(
        &mut self,
        parent: Parent<'_>,
        session: &mut Session,
    ) -> Result<(), TpmError<T::Error>> {
        let salt = self.salt(parent.point)?;
        self.entropy(session.fresh_nonce())?;
        let handles = [parent.handle, Handle::NULL];
        let mut command = self.command(Code::StartAuthSession, &handles);
        salt.write(command.sized(session.fresh_nonce()));
        command.u8(TpmSe::Hmac as u8);
        command.u16(TpmAlgId::Aes as u16).u16(128).u16(TpmAlgId::Cfb as u16);
        let command = command.u16(TpmAlgId::Sha256 as u16).end();
        let handle = self.call(command)?;
        let mut parts = self.parameters();
        let nonce = parts.sized();
        let is_begun = parts.is_whole() && session.begin(handle, &salt, nonce).is_some();
        let begun = self.expect(is_begun);
        self.unless_failed(handle, begun)
    }

    /// Agrees on a salt with the key at `point`.
    fn salt(&mut self, point: &[u8; POINT_LEN]) -> Result<Salt, TpmError<T::Error>> {
        let mut scalar = Zeroizing::new([0; 32]);
        for _ in 0..SCALAR_DRAWS_MAX {
            self.entropy(&mut scalar[..])?;
            if let Some(salt) = Salt::agree(point, &scalar) {
                return Ok(salt);
            }
        }
        Err(TpmError::WeakEntropy)
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), TpmError<T::Error>> {
        self.transport.entropy(out).map_err(TpmError::Transport)
    }

    /// Begins a command in a session that ends with its success. What the caller appends first is
    /// further authorizations, and the end of them.
    fn begin_in(
        &mut self,
        session: &mut Session,
        code: Code,
        Sealed { objects, attributes }: Sealed<'_>,
    ) -> Result<Writer<'_>, TpmError<T::Error>> {
        self.entropy(session.fresh_nonce())?;
        let mut handles = [Handle::NULL; 2];
        for (handle, object) in handles.iter_mut().zip(objects) {
            *handle = object.handle;
        }
        let handles = handles.get(..objects.len()).unwrap_or_default();
        let mut command = self.command(code, handles);
        session.authorize(command.authorizations(), attributes);
        Ok(command)
    }

    /// Seals the command in the first `len` octets of the buffer and sends it. What is answered is
    /// authentic and in the clear.
    fn call_in(
        &mut self,
        session: &mut Session,
        Sealed { objects, attributes }: Sealed<'_>,
        len: usize,
    ) -> Result<(), TpmError<T::Error>> {
        let mut names = [&[][..]; 2];
        for (name, object) in names.iter_mut().zip(objects) {
            *name = object.name.as_bytes();
        }
        let code = self.code;
        let too_long = TpmError::CommandTooLong { command: code };
        let command = self.buffer.get_mut(..len).ok_or(too_long)?;
        let is_sealed = session.seal(code, command, names, attributes).is_some();
        self.expect(is_sealed)?;
        self.call(len)?;
        let (parameters, end) = (self.parameters.clone(), self.end);
        let parts = self.buffer.split_at_mut_checked(parameters.end);
        let (head, authorizations) = parts.unwrap_or_default();
        let authorizations = authorizations.get(..end - parameters.end).unwrap_or_default();
        let parameters = head.get_mut(parameters.start..).unwrap_or_default();
        match session.open(code, authorizations, parameters, attributes) {
            Ok(()) => Ok(()),
            Err(Unopened::Malformed) => Err(self.malformed()),
            Err(Unopened::Tampered) => Err(TpmError::Tampered { command: code }),
        }
    }

    /// Takes the secret that an answer begins with out of the buffer.
    fn take_secret(&mut self, secret: &mut Secret) -> Result<(), TpmError<T::Error>> {
        let taken = self.copy_first(&mut secret.octets);
        self.buffer.get_mut(self.parameters.clone()).unwrap_or_default().zeroize();
        secret.len = taken?;
        Ok(())
    }
}
