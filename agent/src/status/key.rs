//! Where the keys are, and how that stands.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::KeyBackend;
use crate::tpm::Standing;

/// The state of a TPM with which nothing is wrong.
pub const TPM_OK: &str = "ok";

/// The state of a TPM that was not asked yet.
const TPM_UNKNOWN: &str = "unknown";

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// The kind of key store; `auto` as long as no key was made.
    pub backend: KeyBackend,
    /// Whether the certificate in use was issued on a TPM's word that it has the key.
    pub attested: bool,
    /// The endorsement key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub ek_sha256: Option<String>,
    /// The attestation key's Name, hexadecimal.
    pub ak_name: Option<String>,
    /// The TPM; `None` if the keys are not in one.
    pub tpm: Option<TpmStatus>,
}

/// The TPM, when it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmStatus {
    /// `ok`, `unknown` before it was asked, or the name of what is in the way.
    pub state: String,
    /// What happened, what was found and expected.
    pub cause: Option<String>,
    /// What to do about it.
    pub what_to_do: Option<String>,
    /// Who made it: four letters.
    pub manufacturer: Option<String>,
    /// Its firmware's version.
    pub firmware: Option<String>,
    /// Its protection against guessing.
    pub lockout: Option<LockoutStatus>,
}

/// A TPM's protection against guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutStatus {
    /// Whether keys that are subject to it cannot be used. Those of this agent are not.
    pub locked: bool,
    /// Failed authorizations, and power cuts that count as such, not yet forgiven.
    pub counter: u32,
    /// How many lock the TPM.
    pub max_tries: u32,
    /// Seconds until one is forgiven.
    pub recovery_s: u32,
}

impl KeyStatus {
    /// Of keys in files.
    #[must_use]
    pub const fn software() -> Self {
        Self {
            backend: KeyBackend::Software,
            attested: false,
            ek_sha256: None,
            ak_name: None,
            tpm: None,
        }
    }

    /// Of keys that were not made yet.
    #[must_use]
    pub fn planned(backend: KeyBackend) -> Self {
        match backend {
            KeyBackend::Software => Self::software(),
            KeyBackend::Auto | KeyBackend::Tpm => {
                Self::in_tpm(backend, false, None, &Standing::default())
            }
        }
    }

    /// Of keys that are in a TPM, or may come to be; `names` are those of the endorsement key and
    /// of the attestation key.
    pub(crate) fn in_tpm(
        backend: KeyBackend,
        attested: bool,
        names: Option<(String, String)>,
        standing: &Standing,
    ) -> Self {
        let (ek_sha256, ak_name) = names.unzip();
        Self { backend, attested, ek_sha256, ak_name, tpm: Some(TpmStatus::of(standing)) }
    }

    /// Whether the keys are in a TPM that does not give them.
    #[must_use]
    pub fn is_out_of_reach(&self) -> bool {
        self.tpm.as_ref().is_some_and(|tpm| tpm.what_to_do.is_some())
    }
}

impl TpmStatus {
    fn of(standing: &Standing) -> Self {
        let Standing { facts, trouble } = standing;
        let state = match (trouble, facts) {
            (Some(trouble), _) => trouble.code(),
            (None, Some(_)) => TPM_OK,
            (None, None) => TPM_UNKNOWN,
        };
        Self {
            state: state.to_owned(),
            cause: trouble.as_ref().map(ToString::to_string),
            what_to_do: trouble.as_ref().map(|trouble| trouble.advice().to_owned()),
            manufacturer: facts.as_ref().map(|facts| facts.manufacturer.clone()),
            firmware: facts.as_ref().map(|facts| facts.firmware.clone()),
            lockout: facts.as_ref().map(|facts| LockoutStatus {
                locked: facts.is_locked,
                counter: facts.failures,
                max_tries: facts.failures_max,
                recovery_s: facts.recovery_s,
            }),
        }
    }
}

impl fmt::Display for KeyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.backend {
            KeyBackend::Auto => "not decided yet where",
            KeyBackend::Software => "in files",
            KeyBackend::Tpm if self.attested => "in the TPM, attested",
            KeyBackend::Tpm => "in the TPM, not attested",
        };
        writeln!(f, "keys      {place}")?;
        if let Some(ek) = &self.ek_sha256 {
            writeln!(f, "ek        {ek}")?;
        }
        self.tpm.as_ref().map_or(Ok(()), |tpm| tpm.fmt(f))
    }
}

impl fmt::Display for TpmStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tpm       {}", self.state)?;
        if let (Some(manufacturer), Some(firmware)) = (&self.manufacturer, &self.firmware) {
            write!(f, ", {manufacturer} firmware {firmware}")?;
        }
        if let Some(LockoutStatus { locked, counter, max_tries, .. }) = self.lockout {
            let locked = if locked { "LOCKED OUT, " } else { "" };
            write!(f, ", {locked}{counter} of {max_tries} failures")?;
        }
        writeln!(f)?;
        if let (Some(cause), Some(what_to_do)) = (&self.cause, &self.what_to_do) {
            writeln!(f, "trouble   TPM: {cause} ({})", self.state)?;
            writeln!(f, "to do     {what_to_do}")?;
        }
        Ok(())
    }
}
