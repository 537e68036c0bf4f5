//! Who is revoked gets no certificate, and never reconnects once the broker has the CRL.
//!
//! The broker refuses serial numbers that its CRL lists. Were a revoked device issued another
//! certificate, the broker would let it in: the second half of the rule watches the provisioner.

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact};

#[derive(Clone, Copy, Debug, Default)]
struct State {
    revoked: bool,
    barred: bool,
}

/// The checker.
#[derive(Debug, Default)]
pub struct Revoked {
    devices: PerDevice<State>,
}

impl Check for Revoked {
    const NAME: &'static str = "revoked";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        match (entry.device, entry.fact) {
            (None, Fact::CrlReached) => {
                for state in self.devices.all() {
                    state.barred = state.revoked;
                }
            }
            (Some(device), Fact::Revoked) => self.devices.of(device).revoked = true,
            (Some(device), Fact::Connected { serial }) if self.devices.of(device).barred => {
                return Err(format!("connected with {serial:?} after the CRL reached the broker"));
            }
            (Some(device), Fact::Issued { leaf, .. }) if self.devices.of(device).revoked => {
                return Err(format!("was issued {:?} after it was revoked", leaf.serial));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Revoked;
    use crate::check::Check;
    use crate::check::made_up::{judge, leaf};
    use crate::event_log::{Entry, Fact, Mark};
    use crate::sim::clock::At;

    const CONNECTED: Fact = Fact::Connected { serial: Mark(1) };
    const CRL: Entry = Entry { at: At(0), device: None, fact: Fact::CrlReached };

    #[test]
    fn a_connection_before_the_crl_came_passes() {
        let mut checker = Revoked::default();
        assert_eq!(judge(&mut checker, &[CONNECTED, Fact::Revoked, CONNECTED]), Ok(()));
    }

    #[test]
    fn a_connection_after_the_crl_came_is_seen() {
        let mut checker = Revoked::default();
        assert_eq!(judge(&mut checker, &[Fact::Revoked]), Ok(()));
        assert_eq!(checker.see(&CRL), Ok(()));
        assert!(judge(&mut checker, &[CONNECTED]).is_err());
    }

    #[test]
    fn a_certificate_for_a_revoked_device_is_seen() {
        let issued = Fact::Issued { request: Mark(1), leaf: leaf(2, 3) };
        assert_eq!(judge(&mut Revoked::default(), &[issued, Fact::Revoked]), Ok(()));
        assert!(judge(&mut Revoked::default(), &[Fact::Revoked, issued]).is_err());
    }
}
