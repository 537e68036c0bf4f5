//! The commands that carry a secret, each in a session of its own.

use core::fmt;

use tpm2_protocol::data::{TpmAlgId, TpmSe};
use zeroize::{Zeroize, Zeroizing};

use super::key::{copy, creation};
use super::{Answer, Tpm};
use crate::command::{Code, Handle, Hierarchy, Malformed, SessionAttributes, Writer};
use crate::ek::policy::{self, EkPolicy};
use crate::fault::TpmError;
use crate::hash::HashAlg;
use crate::name::Name;
use crate::session::{NONCE_LEN, POINT_LEN, Salt, Session};
use crate::transact::Transact;

/// Octets of a credential's secret, at most: the longest digest. TPM 2.0 Part 1 §24.4.
pub const SECRET_LEN_MAX: usize = 64;

/// What a sealed command is, and what its session encrypts.
#[derive(Clone, Copy)]
struct Sealed {
    code: Code,
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
        let mut session = self.start_salted(parent)?;
        let sealed = Sealed { code: Code::GetRandom, attributes: SessionAttributes::ENCRYPT };
        let answer = self.call_in(
            &mut session,
            sealed,
            &[],
            |_| (),
            |command| {
                command.u16(WANTED);
            },
        );
        let answer = self.ended(&session, answer)?;
        match self.take_secret(sealed.code, &answer)? {
            secret if secret.len == usize::from(WANTED) => Ok(secret),
            _ => Err(TpmError::Malformed { command: sealed.code }),
        }
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
        let mut session = self.start_salted(parent)?;
        let sealed = Sealed { code: Code::Create, attributes: SessionAttributes::DECRYPT };
        let objects = [Loaded { handle: parent.handle, name: parent.name }];
        let answer = self.call_in(
            &mut session,
            sealed,
            &objects,
            |_| (),
            |command| {
                creation(command, template);
            },
        );
        let answer = self.ended(&session, answer)?;
        let mut reader = self.parameters(&answer);
        let parts =
            reader.sized(usize::MAX).and_then(|private| Ok([reader.sized(usize::MAX)?, private]));
        let parts = parts.map_err(|_| TpmError::Malformed { command: sealed.code })?;
        let mut len = 0;
        for part in parts {
            let octets = u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
            for octets in [&octets[..], part] {
                len += copy(octets, out.get_mut(len..).unwrap_or_default())?;
            }
        }
        Ok(len)
    }

    /// Has the TPM open a credential that was made for `ek` and the Name of `ak`: its content is
    /// that of a `TPM2B_ID_OBJECT`, the encrypted secret's that of a `TPM2B_ENCRYPTED_SECRET`.
    /// `session` is a salted one; like the policy's it ends with a success, and is to be flushed
    /// after a failure. Part 3 §12.5.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub(crate) fn activate_credential(
        &mut self,
        session: &mut Session,
        [ak, ek]: [Loaded<'_>; 2],
        policy: Option<Handle>,
        [credential, encrypted_secret]: [&[u8]; 2],
    ) -> Result<Secret, TpmError<T::Error>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let sealed =
            Sealed { code: Code::ActivateCredential, attributes: SessionAttributes::ENCRYPT };
        let authorize_ek = |command: &mut Writer<'_>| {
            match policy {
                Some(policy) => command.authorization(policy, &nonce, SessionAttributes::ONCE),
                None => command.authorization(Handle::PASSWORD, &[], SessionAttributes::CONTINUE),
            }
            command.sized(&[]);
        };
        let answer = self.call_in(session, sealed, &[ak, ek], authorize_ek, |command| {
            command.sized(credential).sized(encrypted_secret);
        })?;
        self.take_secret(sealed.code, &answer)
    }

    /// Starts a session that satisfies the policy of an endorsement key, with the endorsement
    /// hierarchy's empty password.
    pub(crate) fn start_ek_policy(
        &mut self,
        policy: EkPolicy,
    ) -> Result<Handle, TpmError<T::Error>> {
        let session = self.start_policy(policy.alg())?;
        match self.satisfy(session, policy) {
            Ok(()) => Ok(session),
            Err(error) => {
                self.flush(session)?;
                Err(error)
            }
        }
    }

    /// Starts a policy session. Part 3 §11.1.
    fn start_policy(&mut self, alg: HashAlg) -> Result<Handle, TpmError<T::Error>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let null = Handle::NULL;
        let answer = self.call(Code::StartAuthSession, &[null, null], |command| {
            command.sized(&nonce).sized(&[]).u8(TpmSe::Policy as u8);
            command.u16(TpmAlgId::Null as u16).u16(alg.id());
        })?;
        Ok(answer.handle)
    }

    /// Part 3 §23.4 and §23.6.
    fn satisfy(&mut self, session: Handle, policy: EkPolicy) -> Result<(), TpmError<T::Error>> {
        let handles = [Hierarchy::Endorsement.handle(), session];
        self.call(Code::PolicySecret, &handles, |command| {
            let never_expires = 0;
            command.passwords(&[&[]]).sized(&[]).sized(&[]).sized(&[]).u32(never_expires);
        })?;
        let EkPolicy::B(alg) = policy else { return Ok(()) };
        let [a, c] = policy::branches(alg);
        self.call(Code::PolicyOr, &[session], |command| {
            command.u32(2).sized(a.as_bytes()).sized(c.as_bytes());
        })?;
        Ok(())
    }

    /// Starts a session salted to `parent`. Part 3 §11.1.
    pub(crate) fn start_salted(
        &mut self,
        parent: Parent<'_>,
    ) -> Result<Session, TpmError<T::Error>> {
        let salt = self.salt(parent.point)?;
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let code = Code::StartAuthSession;
        let answer = self.call(code, &[parent.handle, Handle::NULL], |command| {
            salt.write(command.sized(&nonce));
            command.u8(TpmSe::Hmac as u8);
            command.u16(TpmAlgId::Aes as u16).u16(128).u16(TpmAlgId::Cfb as u16);
            command.u16(TpmAlgId::Sha256 as u16);
        })?;
        let theirs = self.parameters(&answer).sized(usize::MAX).map_err(Malformed::from);
        let session = theirs.and_then(|theirs| Session::new(answer.handle, &salt, nonce, theirs));
        self.or_flush(code, answer.handle, session)
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

    /// Passes an answer on; without one the session is still there, and is flushed.
    fn ended(
        &mut self,
        session: &Session,
        answer: Result<Answer, TpmError<T::Error>>,
    ) -> Result<Answer, TpmError<T::Error>> {
        if answer.is_err() {
            // If that fails it is owed; the first failure is the one to tell.
            let _owed = self.flush(session.handle());
        }
        answer
    }

    /// Sends a command in a session that ends with its success. `objects` are what its handles stand for;
    /// `more` writes the authorizations behind the session's. What is answered is authentic and in
    /// the clear.
    fn call_in(
        &mut self,
        session: &mut Session,
        Sealed { code, attributes }: Sealed,
        objects: &[Loaded<'_>],
        more: impl FnOnce(&mut Writer<'_>),
        parameters: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Answer, TpmError<T::Error>> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy(&mut nonce)?;
        let (mut handles, mut names) = ([Handle::NULL; 2], [&[][..]; 2]);
        for (index, object) in objects.iter().enumerate() {
            (handles[index], names[index]) = (object.handle, object.name.as_bytes());
        }
        let len = self.write(code, &handles[..objects.len()], |command| {
            command.authorizations(|area| {
                session.authorize(area, nonce, attributes);
                more(area);
            });
            parameters(command);
        })?;
        let malformed = |Malformed| TpmError::Malformed { command: code };
        let names = &names[..objects.len()];
        let command = self.buffer.get_mut(..len).unwrap_or_default();
        session.seal(code, command, names).map_err(malformed)?;
        let answer = self.answer(code, len)?;
        let parts = self.buffer.split_at_mut_checked(answer.authorizations.start);
        let (head, authorizations) = parts.unwrap_or_default();
        let authorizations = authorizations.get(..answer.authorizations.len()).unwrap_or_default();
        let parameters = head.get_mut(answer.parameters.clone()).unwrap_or_default();
        let encrypted = attributes.has(SessionAttributes::ENCRYPT);
        let is_authentic = session.open(code, authorizations, parameters, encrypted);
        if is_authentic.map_err(malformed)? {
            Ok(answer)
        } else {
            Err(TpmError::Tampered { command: code })
        }
    }

    /// Takes the secret that an answer begins with out of the buffer.
    fn take_secret(
        &mut self,
        command: Code,
        answer: &Answer,
    ) -> Result<Secret, TpmError<T::Error>> {
        let mut secret = Secret { octets: [0; SECRET_LEN_MAX], len: 0 };
        let taken = self.copy_first(command, answer, &mut secret.octets);
        self.buffer.get_mut(answer.parameters.clone()).unwrap_or_default().zeroize();
        secret.len = taken?;
        Ok(secret)
    }
}
