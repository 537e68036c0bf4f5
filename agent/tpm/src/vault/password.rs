//! The password of the owner hierarchy, where its owner has set one and told us.

use core::fmt;

use zeroize::Zeroize;

/// Octets of a password, at most: the longest digest. TPM 2.0 Part 1 §19.6.4.
pub const OWNER_AUTH_LEN_MAX: usize = 64;

/// A password. Wiped when it goes, never shown.
pub(super) struct Password {
    octets: [u8; OWNER_AUTH_LEN_MAX],
    len: usize,
}

/// A password that no hierarchy can have: it is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordTooLong {
    /// Octets found; [`OWNER_AUTH_LEN_MAX`] are allowed.
    pub found: usize,
}

impl Password {
    /// That of a hierarchy for which none is set.
    pub(super) const EMPTY: Self = Self { octets: [0; OWNER_AUTH_LEN_MAX], len: 0 };

    pub(super) fn new(octets: &[u8]) -> Result<Self, PasswordTooLong> {
        let found = octets.len();
        let mut password = Self::EMPTY;
        let place = password.octets.get_mut(..found).ok_or(PasswordTooLong { found })?;
        place.copy_from_slice(octets);
        password.len = found;
        Ok(password)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Display for PasswordTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "password of {} octets, at most {OWNER_AUTH_LEN_MAX}", self.found)
    }
}

impl core::error::Error for PasswordTooLong {}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    /// Goal: a password is kept whole or refused, and shows nowhere.
    #[test]
    fn passwords_are_whole_or_refused() {
        for len in 0..=OWNER_AUTH_LEN_MAX {
            let octets = [7; OWNER_AUTH_LEN_MAX];
            let password = Password::new(&octets[..len]).unwrap();
            assert_eq!(password.as_bytes(), &octets[..len]);
            assert_eq!(format!("{password:?}"), "Password(..)");
        }
        assert_eq!(Password::new(&[7; 65]).unwrap_err(), PasswordTooLong { found: 65 });
    }
}
