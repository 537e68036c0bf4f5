//! The endorsement key: finding it, and having it open a credential.
//!
//! An endorsement key is found by its certificate. Where the key of a certificate is kept loaded
//! at the usual persistent handle it is used there; but anything may lie at that handle, so that
//! only a key which is the certificate's counts. Otherwise it is made: from what the maker left
//! beside the certificate, from the profile's template, and from the same with the other range's
//! unique field, until the certificate's key comes out. To use it again takes its Name, by which
//! it is found in the same order.
//!
//! It is used by its policy, which takes the endorsement hierarchy's consent. Keys of the high
//! range have a password besides, an empty one; but whatever asks for a key's own password is
//! subject to lockout, so that it is used only where the policy cannot be satisfied: where it is
//! one of the maker's own, and where the hierarchy has a password that we do not know.

use crate::command::{Handle, Hierarchy};
use crate::ek::policy::EkPolicy;
use crate::ek::{CHAIN, EK_AREA_LEN_MAX, EkTemplate, FIRST_INDEX, Outline, certificate};
use crate::fault::{ResponseCode, TpmError, Trouble};
use crate::name::Name;
use crate::session::Session;
use crate::tpm::{Loaded, Secret};
use crate::transact::Transact;
use crate::vault::{Fault, KeyBlob, State, Vault, VaultError};

/// NV indices asked for at once: more than both ranges of the profile have.
const INDICES_MAX: usize = 32;

/// Octets of a template that leave room for the longest nonce behind them: RSA-2048 takes 314.
const NONCE_AT: usize = EK_AREA_LEN_MAX - 256;

/// An endorsement key, as it is needed to use it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EkKey {
    /// The profile's template that it follows.
    pub template: EkTemplate,
    /// Its Name.
    pub name: Name,
}

/// An endorsement key with what is told about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endorsement<'a> {
    /// How to use it again.
    pub key: EkKey,
    /// Its public area, a `TPMT_PUBLIC`.
    pub public_area: &'a [u8],
    /// Its certificate and those of issuers that lie in the TPM, DER, one behind the other; empty
    /// where the TPM has none.
    pub certificates: &'a [u8],
}

/// What an endorsement key is made from, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipe {
    /// The template and the nonce that the maker left in the TPM; what is not there is the
    /// profile's.
    Maker,
    /// The profile's template, where the maker left something.
    Profile,
    /// The profile's template with the other range's unique field.
    OtherUnique,
}

/// Where in the caller's buffer the parts of an [`Endorsement`] are: certificates, then the area.
struct Found {
    template: EkTemplate,
    certificates_len: usize,
    area_len: usize,
}

/// An endorsement key that can be used.
struct Usable {
    handle: Handle,
    consent: Consent,
}

/// A credential that is to be opened.
#[derive(Clone, Copy)]
struct Sealed<'a> {
    ek: &'a EkKey,
    ak: Loaded<'a>,
    credential: &'a [u8],
    encrypted_secret: &'a [u8],
}

/// What the use of an endorsement key takes.
#[derive(Clone, Copy)]
struct Consent {
    /// Its policy; `None` for one that the profile does not have.
    policy: Option<EkPolicy>,
    /// Its empty password will do.
    has_password: bool,
}

impl Consent {
    fn of(area: &[u8]) -> Self {
        let area = Outline::of(area);
        Self {
            policy: area.as_ref().and_then(EkPolicy::of),
            has_password: area.is_some_and(|area| area.has_password()),
        }
    }
}

impl<T: Transact, const CONTEXTS: usize> Vault<T, CONTEXTS> {
    /// Finds the endorsement key: one with a certificate before one without, in the order of
    /// [`EkTemplate::ALL`]. Its certificates and its public area are written to `out`; 4 KiB are
    /// enough for most makers' chains. Issuers' certificates that do not fit are left out, all of
    /// them: the provisioner may have them, and a part of a chain is worth nothing.
    ///
    /// # Errors
    ///
    /// [`VaultError`], [`Trouble::NoEndorsementKey`] and [`Trouble::EndorsementAuthNeeded`] among
    /// them.
    pub fn endorsement<'a>(
        &mut self,
        out: &'a mut [u8],
    ) -> Result<Endorsement<'a>, VaultError<T::Error>> {
        self.endorsement_of(&EkTemplate::ALL, out)
    }

    /// Finds the endorsement key among those of these templates, as [`Vault::endorsement`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Vault::endorsement`].
    pub fn endorsement_of<'a>(
        &mut self,
        templates: &[EkTemplate],
        out: &'a mut [u8],
    ) -> Result<Endorsement<'a>, VaultError<T::Error>> {
        let mut found = Found { template: EkTemplate::P256, certificates_len: 0, area_len: 0 };
        self.attempt(&mut |vault| {
            found = vault.find_endorsement(templates, out)?;
            Ok(())
        })?;
        let parts = out.split_at_checked(found.certificates_len);
        let (certificates, rest) = parts.unwrap_or_default();
        let public_area = rest.get(..found.area_len).unwrap_or_default();
        let name = Name::of_public_area(public_area);
        let name = name.map_err(|_| VaultError::Trouble(Trouble::NoEndorsementKey))?;
        let key = EkKey { template: found.template, name };
        Ok(Endorsement { key, public_area, certificates })
    }

    /// Whether this is the endorsement key of the TPM, or one of its endorsement keys: a TPM that was
    /// cleared has the same ones, and another TPM has others.
    ///
    /// # Errors
    ///
    /// [`VaultError`]: it was not found out.
    pub fn recognises(&mut self, ek: &EkKey) -> Result<bool, VaultError<T::Error>> {
        let mut is_there = false;
        self.attempt(&mut |vault| {
            // Whatever an attempt before this one has found.
            is_there = false;
            match vault.load_endorsement(ek) {
                Ok(Usable { handle, .. }) => {
                    is_there = true;
                    vault.released(handle, Ok(()))
                }
                Err(Fault::State(State::NoEndorsementKey)) => Ok(()),
                Err(fault) => Err(fault),
            }
        })?;
        Ok(is_there)
    }

    /// Has the TPM open a credential that was made for this endorsement key and the Name of `ak`;
    /// `credential` is the content of a `TPM2B_ID_OBJECT`, `encrypted_secret` that of a
    /// `TPM2B_ENCRYPTED_SECRET`. The secret crosses the bus encrypted.
    ///
    /// # Errors
    ///
    /// [`VaultError`]. A credential for another key or another TPM is [`Trouble::Refused`].
    pub fn activate(
        &mut self,
        ek: &EkKey,
        ak: &KeyBlob,
        credential: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Secret, VaultError<T::Error>> {
        let mut secret = Secret::empty();
        let name = ak.name();
        self.with_key(ak, &mut |vault, handle| {
            let ak = Loaded { handle, name: &name };
            vault.open_sealed(&Sealed { ek, ak, credential, encrypted_secret }, &mut secret)
        })?;
        Ok(secret)
    }

    fn find_endorsement(
        &mut self,
        templates: &[EkTemplate],
        out: &mut [u8],
    ) -> Result<Found, Fault<T::Error>> {
        let mut defined = [Handle::NULL; INDICES_MAX];
        let count = self.tpm.handles(FIRST_INDEX, &mut defined)?;
        let defined = defined.get(..count).unwrap_or_default();
        let has_certificate = |template: &&EkTemplate| defined.contains(&template.certificate());
        for &template in templates.iter().filter(has_certificate) {
            if let Some(found) = self.find_certified(template, out)? {
                return Ok(found);
            }
        }
        for &template in templates {
            if let Some((handle, area_len)) = self.make_endorsement(template, out, &|_| true)? {
                self.tpm.flush(handle)?;
                return Ok(Found { template, certificates_len: 0, area_len });
            }
        }
        Err(Fault::State(State::NoEndorsementKey))
    }

    /// Reads a certificate and finds its key; `None` if there is no certificate after all, or its
    /// key does not come out of any template.
    fn find_certified(
        &mut self,
        template: EkTemplate,
        out: &mut [u8],
    ) -> Result<Option<Found>, Fault<T::Error>> {
        let len = present(self.tpm.nv_read(template.certificate(), out))?.unwrap_or_default();
        let leaf_len = out.get_mut(..len).map_or(0, certificate::gather);
        if leaf_len == 0 {
            return Ok(None);
        }
        let (leaf, rest) = out.split_at_mut_checked(leaf_len).unwrap_or_default();
        let Some(area_len) = self.find_key_of(leaf, template, rest)? else { return Ok(None) };
        let chain_len = self.read_chain(rest.get_mut(area_len..).unwrap_or_default());
        let chain_len = chain_len.or_else(no_room)?;
        rest[..area_len + chain_len].rotate_left(area_len);
        Ok(Some(Found { template, certificates_len: leaf_len + chain_len, area_len }))
    }

    /// Writes the public area of the certificate's key to the front of `area`; returns its octets.
    fn find_key_of(
        &mut self,
        certificate: &[u8],
        template: EkTemplate,
        area: &mut [u8],
    ) -> Result<Option<usize>, Fault<T::Error>> {
        let about = |area: &[u8]| certificate::is_about(certificate, area);
        if let Some(len) = present(self.tpm.read_public(template.persistent(), area))?
            && area.get(..len).and_then(about) == Some(true)
        {
            return Ok(Some(len));
        }
        // A certificate that we cannot read is the provisioner's to judge: the first key is it.
        let matches = |area: &[u8]| about(area).unwrap_or(true);
        let Some((handle, len)) = self.make_endorsement(template, area, &matches)? else {
            return Ok(None);
        };
        self.tpm.flush(handle)?;
        Ok(Some(len))
    }

    /// Reads the certificates of issuers to the front of `out`; returns their octets.
    fn read_chain(&mut self, out: &mut [u8]) -> Result<usize, TpmError<T::Error>> {
        let (mut first, last) = CHAIN;
        let mut len = 0;
        loop {
            let mut indices = [Handle::NULL; INDICES_MAX];
            let count = self.tpm.handles(first, &mut indices)?;
            let indices = indices.get(..count).unwrap_or_default();
            for &index in indices.iter().take_while(|&&index| index <= last) {
                let room = out.get_mut(len..).unwrap_or_default();
                len += present(self.tpm.nv_read(index, room))?.unwrap_or_default();
            }
            match indices.last() {
                Some(&highest) if count == INDICES_MAX && highest < last => {
                    first = Handle(highest.0 + 1);
                }
                _ => return Ok(out.get_mut(..len).map_or(0, certificate::gather)),
            }
        }
    }

    /// Makes the endorsement key of a template whose public area `is_wanted`, and leaves it
    /// loaded; its area is written to the front of `area`. `None` if the TPM makes no such key.
    fn make_endorsement(
        &mut self,
        template: EkTemplate,
        area: &mut [u8],
        is_wanted: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Option<(Handle, usize)>, Fault<T::Error>> {
        let too_small = TpmError::too_small(EK_AREA_LEN_MAX, area.len());
        let area = area.first_chunk_mut().ok_or(too_small)?;
        let mut is_makers = false;
        for recipe in [Recipe::Maker, Recipe::Profile, Recipe::OtherUnique] {
            if recipe == Recipe::Profile && !is_makers {
                continue;
            }
            let (len, from_nv) = self.write_template(template, recipe, area)?;
            is_makers |= from_nv;
            let hierarchy = Hierarchy::Endorsement;
            match self.tpm.create_primary(hierarchy, &[], area, len) {
                Ok((handle, len)) if area.get(..len).is_some_and(is_wanted) => {
                    return Ok(Some((handle, len)));
                }
                Ok((handle, _)) => self.tpm.flush(handle)?,
                Err(error) if error.is(ResponseCode::is_unsupported) => (),
                Err(error) => return Err(Fault::of_hierarchy(error, hierarchy)),
            }
        }
        Ok(None)
    }

    /// Writes the template that a recipe gives to the front of `area`; returns its octets, and
    /// whether any of them are the maker's.
    fn write_template(
        &mut self,
        template: EkTemplate,
        recipe: Recipe,
        area: &mut [u8; EK_AREA_LEN_MAX],
    ) -> Result<(usize, bool), TpmError<T::Error>> {
        let unique = match recipe {
            Recipe::Maker | Recipe::Profile => template.unique(),
            Recipe::OtherUnique => template.other_unique(),
        };
        if recipe != Recipe::Maker {
            return Ok((template.write(unique, area), false));
        }
        let theirs = self.left_behind(template.template(), area)?;
        let len = theirs.unwrap_or_else(|| template.write(unique, area));
        let Some(index) = template.nonce() else { return Ok((len, theirs.is_some())) };
        let (area, rest) = area.split_at_mut(NONCE_AT);
        let Some(nonce_len) = self.left_behind(index, rest)? else {
            return Ok((len, theirs.is_some()));
        };
        let nonce = rest.get(..nonce_len).unwrap_or_default();
        let with_nonce = template.write_nonce(nonce, area, len);
        Ok((with_nonce.unwrap_or(len), true))
    }

    /// Reads the template or the nonce that a maker left in the TPM. What is longer than any of them
    /// is none.
    fn left_behind(
        &mut self,
        index: Handle,
        out: &mut [u8],
    ) -> Result<Option<usize>, TpmError<T::Error>> {
        match present(self.tpm.nv_read(index, out)) {
            Err(TpmError::BufferTooSmall { .. }) => Ok(None),
            outcome => outcome,
        }
    }

    /// In a session salted to the storage primary.
    fn open_sealed(
        &mut self,
        sealed: &Sealed<'_>,
        secret: &mut Secret,
    ) -> Result<(), Fault<T::Error>> {
        let mut session = Session::none();
        self.start_session(&mut session)?;
        let opened = self.open_in(&mut session, sealed, secret);
        self.tpm.unless_failed(session.handle(), opened)
    }

    fn start_session(&mut self, session: &mut Session) -> Result<(), Fault<T::Error>> {
        let handle = self.load_parent()?;
        let started = self.use_parent(handle, |tpm, parent| tpm.start_salted(parent, session));
        self.without(handle, started.map(|()| session.handle())).map(drop)
    }

    fn open_in(
        &mut self,
        session: &mut Session,
        sealed: &Sealed<'_>,
        secret: &mut Secret,
    ) -> Result<(), Fault<T::Error>> {
        let Usable { handle, consent } = self.load_endorsement(sealed.ek)?;
        let opened = self.open_with(session, handle, consent, sealed, secret);
        self.released(handle, opened)
    }

    /// By the key's policy rather than by its password, which is subject to lockout.
    fn open_with(
        &mut self,
        session: &mut Session,
        ek: Handle,
        consent: Consent,
        sealed: &Sealed<'_>,
        secret: &mut Secret,
    ) -> Result<(), Fault<T::Error>> {
        if let Some(policy) = consent.policy {
            match self.tpm.start_ek_policy(policy) {
                Ok(policy) => {
                    let opened = self.activate_by(session, ek, Some(policy), sealed, secret);
                    return Ok(self.tpm.unless_failed(policy, opened)?);
                }
                Err(error) => match Fault::of_hierarchy(error, Hierarchy::Endorsement) {
                    Fault::State(_) if consent.has_password => (),
                    fault => return Err(fault),
                },
            }
        }
        self.activate_by(session, ek, None, sealed, secret)?;
        // Once a password that is subject to lockout was asked for, the TPM takes the next loss of
        // its power for a wrong one, unless it was shut down in between. It works on after that;
        // without it a power cut counts, and only that.
        let _prepared = self.tpm.shutdown();
        Ok(())
    }

    fn activate_by(
        &mut self,
        session: &mut Session,
        ek: Handle,
        policy: Option<Handle>,
        sealed: &Sealed<'_>,
        secret: &mut Secret,
    ) -> Result<(), TpmError<T::Error>> {
        let objects = [sealed.ak, Loaded { handle: ek, name: &sealed.ek.name }];
        let parts = [sealed.credential, sealed.encrypted_secret];
        self.tpm.activate_credential(session, &objects, policy, parts, secret)
    }

    /// Has the key of this Name at hand: where the maker keeps it, or made anew.
    // The area is not kept on the stack while the key is used.
    #[inline(never)]
    fn load_endorsement(&mut self, ek: &EkKey) -> Result<Usable, Fault<T::Error>> {
        let mut area = [0; EK_AREA_LEN_MAX];
        let is_it = |area: &[u8]| Name::of_public_area(area) == Ok(ek.name);
        let persistent = ek.template.persistent();
        let (handle, len) = match present(self.tpm.read_public(persistent, &mut area))? {
            Some(len) if area.get(..len).is_some_and(is_it) => (persistent, len),
            _ => self
                .make_endorsement(ek.template, &mut area, &is_it)?
                .ok_or(Fault::State(State::NoEndorsementKey))?,
        };
        Ok(Usable { handle, consent: Consent::of(area.get(..len).unwrap_or_default()) })
    }

    /// Passes `outcome` on, with the endorsement key flushed unless its maker keeps it loaded.
    fn released(
        &mut self,
        handle: Handle,
        outcome: Result<(), Fault<T::Error>>,
    ) -> Result<(), Fault<T::Error>> {
        if handle.kind() == Handle::TRANSIENT.kind() {
            self.flushed(handle, outcome)
        } else {
            outcome
        }
    }
}

/// A chain that does not fit is none.
fn no_room<E>(error: TpmError<E>) -> Result<usize, TpmError<E>> {
    match error {
        TpmError::BufferTooSmall { .. } => Ok(0),
        error => Err(error),
    }
}

/// `None` for something that is not in the TPM, or that it does not let us read.
fn present<E>(outcome: Result<usize, TpmError<E>>) -> Result<Option<usize>, TpmError<E>> {
    match outcome {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.is(ResponseCode::is_unreadable) => Ok(None),
        Err(error) => Err(error),
    }
}
