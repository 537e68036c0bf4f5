//! At most one certificate for each request of a device, and each for one request only.
//!
//! A request may be served many times (its answer was lost, it was doubled, power failed); what it
//! gets is always the same serial number.

use std::collections::BTreeMap;

use super::Check;
use crate::event_log::{Entry, Fact, Mark};

/// The checker.
#[derive(Debug, Default)]
pub struct OneCertificate {
    serials: BTreeMap<(u32, Mark), Mark>,
    requests: BTreeMap<Mark, (u32, Mark)>,
}

impl Check for OneCertificate {
    const NAME: &'static str = "one_certificate";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let (Some(device), Fact::Issued { request, leaf }) = (entry.device, entry.fact) else {
            return Ok(());
        };
        let first = *self.serials.entry((device, request)).or_insert(leaf.serial);
        if first != leaf.serial {
            return Err(format!("request {request:?} got {first:?} and then {:?}", leaf.serial));
        }
        let owner = *self.requests.entry(leaf.serial).or_insert((device, request));
        if owner != (device, request) {
            return Err(format!("serial number {:?} was issued twice", leaf.serial));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::OneCertificate;
    use crate::check::made_up::{judge, leaf};
    use crate::event_log::{Fact, Mark};

    fn issued(request: u64, serial: u64) -> Fact {
        Fact::Issued { request: Mark(request), leaf: leaf(serial, 1) }
    }

    #[test]
    fn the_same_certificate_again_passes() {
        let facts = [issued(1, 7), issued(1, 7), issued(2, 8)];
        assert_eq!(judge(&mut OneCertificate::default(), &facts), Ok(()));
    }

    #[test]
    fn a_second_certificate_for_a_request_is_seen() {
        assert!(judge(&mut OneCertificate::default(), &[issued(1, 7), issued(1, 8)]).is_err());
    }

    #[test]
    fn a_serial_number_that_comes_twice_is_seen() {
        assert!(judge(&mut OneCertificate::default(), &[issued(1, 7), issued(2, 7)]).is_err());
    }
}
