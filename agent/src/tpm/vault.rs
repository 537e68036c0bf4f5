//! A real TPM: the sequences of `fleetcert-tpm` over a transport of ours.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use fleetcert_core::wire::EK_CERTIFICATES_LEN_MAX;
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::ek::EK_AREA_LEN_MAX;
use fleetcert_tpm::fault::{TpmError, Trouble};
use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::vault::{
    CERTIFIED_LEN_MAX, EkKey, KeyBlob, OWNER_AUTH_LEN_MAX, Options, Vault, VaultError,
};
use zeroize::Zeroizing;

use super::chip::{Chip, Credentials, Facts, Open, Statement, Witness};
use super::{EkId, TpmTrouble};
use crate::entropy::Entropy;
use crate::transport::{Address, Connect as _, Port, TransportError};

/// Opens the TPM of a configuration.
pub(super) struct Opener {
    address: Address,
    owner_auth_file: Option<PathBuf>,
    entropy: Entropy,
}

/// An open TPM.
struct VaultChip {
    vault: Vault<Port>,
    /// The endorsement key that was found last: finding it takes many commands.
    ek: Option<(EkId, EkKey)>,
}

impl Opener {
    pub(super) const fn new(
        address: Address,
        owner_auth_file: Option<PathBuf>,
        entropy: Entropy,
    ) -> Self {
        Self { address, owner_auth_file, entropy }
    }

    /// The owner hierarchy's password, read at each use; none is an empty one.
    fn owner_auth(&self) -> Result<Zeroizing<Vec<u8>>, TpmTrouble> {
        let Some(path) = &self.owner_auth_file else { return Ok(Zeroizing::default()) };
        let unreadable = |error: &dyn std::fmt::Display| TpmTrouble::OwnerAuthNeeded {
            reason: Some(format!("{}: {error}", path.display())),
        };
        // With its full capacity from the start, so that no copy is left behind by growing.
        let mut auth = Zeroizing::new(Vec::with_capacity(OWNER_AUTH_LEN_MAX + 2));
        let limit = OWNER_AUTH_LEN_MAX as u64 + 1;
        let read: io::Result<usize> =
            File::open(path).and_then(|file| file.take(limit).read_to_end(&mut auth));
        match read {
            Err(error) => Err(unreadable(&error)),
            Ok(len) if len > OWNER_AUTH_LEN_MAX => {
                Err(unreadable(&format_args!("longer than {OWNER_AUTH_LEN_MAX} octets")))
            }
            Ok(_) => Ok(auth),
        }
    }

    /// Says of a refused password which one it was.
    fn explain(&self, trouble: TpmTrouble) -> TpmTrouble {
        match (&self.owner_auth_file, trouble) {
            (Some(path), TpmTrouble::OwnerAuthNeeded { reason: None }) => {
                let reason = Some(format!("{} was not taken", path.display()));
                TpmTrouble::OwnerAuthNeeded { reason }
            }
            (_, trouble) => trouble,
        }
    }
}

impl VaultChip {
    /// How the endorsement key of this name is used.
    fn ek(&mut self, expected: EkId) -> Result<EkKey, TpmTrouble> {
        if self.ek.is_none_or(|(found, _)| found != expected) {
            self.endorsement()?;
        }
        match self.ek {
            Some((found, key)) if found == expected => Ok(key),
            Some((found, _)) => Err(TpmTrouble::Swapped { found, expected }),
            None => Err(TpmTrouble::NoEndorsementKey),
        }
    }
}

impl Open for Opener {
    fn open(&self, parent: Option<Name>) -> Result<Box<dyn Chip>, TpmTrouble> {
        let owner_auth = self.owner_auth()?;
        let wire = self.address.connect()?;
        let options = Options { parent, sharing: Sharing::Exclusive };
        let vault = Vault::open(Port::new(wire, self.entropy.clone()), options)?;
        let mut vault = vault
            .with_owner_auth(&owner_auth)
            .map_err(|error| TpmTrouble::OwnerAuthNeeded { reason: Some(error.to_string()) })?;
        // Nothing is asked of a TPM that is not the one that is expected.
        vault.parent().map_err(|error| self.explain(error.into()))?;
        Ok(Box::new(VaultChip { vault, ek: None }))
    }
}

impl Chip for VaultChip {
    fn facts(&mut self) -> Result<Facts, TpmTrouble> {
        let properties = self.vault.properties()?;
        let lockout = properties.lockout;
        Ok(Facts {
            manufacturer: properties.manufacturer().to_owned(),
            firmware: properties.firmware.to_string(),
            is_locked: lockout.is_locked,
            failures: lockout.counter,
            failures_max: lockout.max,
            recovery_s: lockout.recovery_s,
        })
    }

    fn parent(&mut self) -> Result<Name, TpmTrouble> {
        Ok(self.vault.parent()?)
    }

    fn endorsement(&mut self) -> Result<Credentials, TpmTrouble> {
        let mut room = vec![0; EK_CERTIFICATES_LEN_MAX + EK_AREA_LEN_MAX];
        let found = self.vault.endorsement(&mut room)?;
        let id = EkId::of_public_area(found.public_area).ok_or(TpmTrouble::NoEndorsementKey)?;
        self.ek = Some((id, found.key));
        Ok(Credentials {
            id,
            public: found.public_area.to_vec(),
            certificates: found.certificates.to_vec(),
        })
    }

    fn make(&mut self, template: Template) -> Result<KeyBlob, TpmTrouble> {
        Ok(self.vault.make(template)?)
    }

    fn probe(&mut self, key: &KeyBlob) -> Result<(), TpmTrouble> {
        Ok(self.vault.probe(key)?)
    }

    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32]) -> Result<[u8; 64], TpmTrouble> {
        Ok(self.vault.sign(key, digest)?)
    }

    fn vouch(&mut self, key: &KeyBlob, by: &Witness) -> Result<Statement, TpmTrouble> {
        let Witness { ek, ak, challenge, spki } = by;
        let ek = self.ek(*ek)?;
        let secret =
            self.vault.activate(&ek, ak, &challenge.credential, &challenge.encrypted_secret)?;
        let qualifying = qualifying_data(secret.as_bytes(), &challenge.id, &challenge.nonce, spki);
        let mut room = [0; CERTIFIED_LEN_MAX];
        let statement = self.vault.certify(key, ak, &qualifying, &mut room)?;
        Ok(Statement { attest: statement.attest.to_vec(), signature: statement.signature.to_vec() })
    }

    fn close(self: Box<Self>) {
        if let Err(error) = self.vault.close() {
            log::warn!("the TPM was not shut down in order: {error}");
        }
    }
}

impl From<VaultError<TransportError>> for TpmTrouble {
    fn from(error: VaultError<TransportError>) -> Self {
        let trouble = match error {
            VaultError::Tpm(TpmError::Transport(error)) => return error.into(),
            error => (error.trouble(), error),
        };
        match trouble {
            (Trouble::EndorsementAuthNeeded, _) => Self::EndorsementAuthNeeded,
            (Trouble::FailureMode, _) => Self::FailureMode,
            (Trouble::ForeignKey, _) => Self::ForeignKey,
            (Trouble::LockedOut { recovery_s }, _) => Self::LockedOut { recovery_s },
            (Trouble::NoEndorsementKey, _) => Self::NoEndorsementKey,
            (Trouble::NoSlots, _) => Self::NoSlots,
            (Trouble::OwnerAuthNeeded, _) => Self::OwnerAuthNeeded { reason: None },
            (Trouble::ParentChanged { found, expected }, _) => Self::Changed { found, expected },
            (Trouble::Refused { command, code }, _) => Self::Refused { command, code },
            (Trouble::Tampered { command }, _) => Self::Tampered { command },
            (Trouble::Unreachable, error) => Self::Wedged { reason: error.to_string() },
        }
    }
}
