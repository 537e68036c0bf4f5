//! What a path means. A pure function of the request line: it looks nothing up.
//!
//! A path that is not listed here does not exist, and a method that is not listed for a path is
//! refused with the one that is. Percent-encoding is not decoded: no path of ours needs it, and
//! what is never decoded cannot be decoded twice.

use hyper::Method;

use fleetcert_core::wire::{CHALLENGE_PATH, CRL_PATH, RENEWAL_INFO_PATH, WHOAMI_PATH};

/// Where EST lives (RFC 7030 §3.2.2).
const EST_PATH: &str = "/.well-known/est/";

/// Where load balancers look.
const HEALTH_PATH: &str = "/healthz";

/// Octets of a path, at most. The longest of ours is an EST operation with a label.
pub(crate) const PATH_LEN_MAX: usize = 512;

/// Octets of a query, at most: `nonce=` and 32 digits, and room for a stranger's habits.
pub(crate) const QUERY_LEN_MAX: usize = 512;

/// What is asked of EST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Est {
    /// The current CA certificates (RFC 7030 §4.1).
    CaCerts,
    /// What a CSR should contain (RFC 7030 §4.5).
    CsrAttrs,
    /// A first certificate (RFC 7030 §4.2.1).
    SimpleEnroll,
    /// A next certificate (RFC 7030 §4.2.2).
    SimpleReenroll,
}

/// What a request is for; text borrows from the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// What a TPM has to solve.
    Challenge,
    /// The revocation list of the authority with this key identifier, in hexadecimal.
    Crl(&'a str),
    /// An EST operation, at a label or at none (RFC 7030 §3.2.2).
    Est(Option<&'a str>, Est),
    /// Whether the service and its database work.
    Health,
    /// When to renew the certificate of this identifier (RFC 9773 §4.1).
    RenewalInfo(&'a str),
    /// Which certificate we see.
    WhoAmI,
}

impl<'a> Route<'a> {
    /// The route of a path, if it is one of ours.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        if path.len() > PATH_LEN_MAX {
            return None;
        }
        if let Some(rest) = path.strip_prefix(EST_PATH) {
            return est(rest);
        }
        if let Some(id) = path.strip_prefix(RENEWAL_INFO_PATH) {
            return is_renewal_id(id).then_some(Self::RenewalInfo(id));
        }
        if let Some(file) = path.strip_prefix(CRL_PATH) {
            let aki = file.strip_suffix(".crl")?;
            return is_hex(aki).then_some(Self::Crl(aki));
        }
        match path {
            CHALLENGE_PATH => Some(Self::Challenge),
            HEALTH_PATH => Some(Self::Health),
            WHOAMI_PATH => Some(Self::WhoAmI),
            _ => None,
        }
    }

    /// The one method that this route answers; `HEAD` is not among them: nobody needs it.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Challenge | Self::Est(_, Est::SimpleEnroll | Est::SimpleReenroll) => Method::POST,
            _ => Method::GET,
        }
    }
}

fn est(rest: &str) -> Option<Route<'_>> {
    let (label, operation) = match rest.split_once('/') {
        Some((label, operation)) if is_label(label) => (Some(label), operation),
        Some(_) => return None,
        None => (None, rest),
    };
    let operation = match operation {
        "cacerts" => Est::CaCerts,
        "csrattrs" => Est::CsrAttrs,
        "simpleenroll" => Est::SimpleEnroll,
        "simplereenroll" => Est::SimpleReenroll,
        _ => return None,
    };
    Some(Route::Est(label, operation))
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_renewal_id(text: &str) -> bool {
    let is_base64url =
        |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.split_once('.').is_some_and(|(aki, serial)| is_base64url(aki) && is_base64url(serial))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: every operation of EST is found, with and without a label.
    #[test]
    fn est_operations_are_found_with_and_without_a_label() {
        for (name, operation) in [
            ("cacerts", Est::CaCerts),
            ("csrattrs", Est::CsrAttrs),
            ("simpleenroll", Est::SimpleEnroll),
            ("simplereenroll", Est::SimpleReenroll),
        ] {
            let bare = format!("/.well-known/est/{name}");
            assert_eq!(Route::of(&bare), Some(Route::Est(None, operation)));
            let labelled = format!("/.well-known/est/line-1/{name}");
            assert_eq!(Route::of(&labelled), Some(Route::Est(Some("line-1"), operation)));
        }
    }

    // Goal: nothing near a route is one.
    #[test]
    fn paths_beside_ours_do_not_exist() {
        for path in [
            "",
            "/",
            "*",
            "/healthz/",
            "/.well-known/est",
            "/.well-known/est/",
            "/.well-known/est//cacerts",
            "/.well-known/est/a/b/cacerts",
            "/.well-known/est/../cacerts%00",
            "/.well-known/est/%6cine/cacerts",
            "/.well-known/est/cacerts/",
            "/.well-known/est/serverkeygen",
            "/.well-known/est/fullcmc",
            "/.well-known/fleetcert/crl/.crl",
            "/.well-known/fleetcert/crl/../x.crl",
            "/.well-known/fleetcert/renewal-info/",
            "/.well-known/fleetcert/renewal-info/ab",
            "/.well-known/fleetcert/renewal-info/a.b.c",
            "/.well-known/fleetcert/whoami/x",
            "/.well-known/fleetcert/challenge/",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
        assert_eq!(Route::of(&format!("{CRL_PATH}{}.crl", "a".repeat(PATH_LEN_MAX))), None);
    }

    // Goal: only enrollment and what comes before it changes anything, so only these are POSTs.
    #[test]
    fn only_enrollment_and_its_challenge_are_posted() {
        let of = |path| Route::of(path).map(Route::method);
        assert_eq!(of("/.well-known/est/simpleenroll"), Some(Method::POST));
        assert_eq!(of(CHALLENGE_PATH), Some(Method::POST));
        assert_eq!(of("/.well-known/est/cacerts"), Some(Method::GET));
        assert_eq!(of(WHOAMI_PATH), Some(Method::GET));
        assert_eq!(of("/.well-known/fleetcert/crl/0aF1.crl"), Some(Method::GET));
    }
}
