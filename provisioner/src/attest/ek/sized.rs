//! Where RFC 5280 writes SIZE (1..MAX), something has to be there.
//!
//! A parser takes an empty SEQUENCE for a list of nothing: an extKeyUsage that permits nothing, a
//! subjectAltName that names nobody. Which of them is harmless differs from reader to reader, so a
//! certificate with one is refused as a whole, under a code that says what is wrong with it.
//!
//! The grammar is a table of [`Shape`]s, and one function walks it. It looks at nothing but sizes,
//! and skips what the table does not name.

use der::asn1::ObjectIdentifier;

use super::refusal::Flaw;
use crate::authority::der::{SEQUENCE, content, elements};

/// What is to be looked at in an element.
enum Shape {
    /// Nothing.
    Any,
    /// The elements in its content, if there are any.
    List(&'static Self),
    /// Itself, if it has that tag.
    Only(u8, &'static Self),
    /// The elements in its content, one of which there has to be.
    Some(&'static Self),
    /// Several things at once.
    Together(&'static [Self]),
}

const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_2: u8 = 0xa2;
const CONTEXT_4: u8 = 0xa4;

/// `Name` (RFC 5280 §4.1.2.4): it may be empty, the sets in it may not.
const NAME: Shape = Shape::List(&RELATIVE_NAME);
const RELATIVE_NAME: Shape = ONE_OR_MORE;

/// `GeneralNames` (RFC 5280 §4.2.1.6). Of the choices, directoryName (`[4] EXPLICIT Name`) alone
/// has such places.
const GENERAL_NAMES: Shape = Shape::Some(&Shape::Only(CONTEXT_4, &Shape::List(&NAME)));

/// `CRLDistributionPoints` (RFC 5280 §4.2.1.13).
const DISTRIBUTION_POINTS: Shape = Shape::Some(&Shape::List(&Shape::Together(&[
    Shape::Only(CONTEXT_0, &Shape::List(&Shape::Only(CONTEXT_0, &GENERAL_NAMES))),
    Shape::Only(CONTEXT_0, &Shape::List(&Shape::Only(CONTEXT_1, &RELATIVE_NAME))),
    Shape::Only(CONTEXT_2, &GENERAL_NAMES),
])));

/// `CertificatePolicies` (RFC 5280 §4.2.1.4): the policies, and the qualifiers of each.
const POLICIES: Shape = Shape::Some(&Shape::List(&Shape::Only(SEQUENCE, &ONE_OR_MORE)));

/// `SubjectDirectoryAttributes` (RFC 5280 §4.2.1.8): the attributes, and the values of each.
const ATTRIBUTES: Shape = Shape::Some(&Shape::List(&Shape::Only(SET, &ONE_OR_MORE)));

/// `NameConstraints` (RFC 5280 §4.2.1.10): permitted and excluded subtrees.
const NAME_CONSTRAINTS: Shape = Shape::List(&ONE_OR_MORE);

/// `AuthorityKeyIdentifier` (RFC 5280 §4.2.1.1): the issuer's names.
const AUTHORITY_KEY: Shape = Shape::List(&Shape::Only(CONTEXT_1, &GENERAL_NAMES));

const ONE_OR_MORE: Shape = Shape::Some(&Shape::Any);

/// The extensions of RFC 5280 §4.2 that have such places: name and shape of the value.
const EXTENSIONS: [(&str, &str, Shape); 12] = [
    ("2.5.29.9", "subjectDirectoryAttributes", ATTRIBUTES),
    ("2.5.29.17", "subjectAltName", GENERAL_NAMES),
    ("2.5.29.18", "issuerAltName", GENERAL_NAMES),
    ("2.5.29.30", "nameConstraints", NAME_CONSTRAINTS),
    ("2.5.29.31", "cRLDistributionPoints", DISTRIBUTION_POINTS),
    ("2.5.29.32", "certificatePolicies", POLICIES),
    ("2.5.29.33", "policyMappings", ONE_OR_MORE),
    ("2.5.29.35", "authorityKeyIdentifier", AUTHORITY_KEY),
    ("2.5.29.37", "extKeyUsage", ONE_OR_MORE),
    ("2.5.29.46", "freshestCRL", DISTRIBUTION_POINTS),
    ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess", ONE_OR_MORE),
    ("1.3.6.1.5.5.7.1.11", "subjectInfoAccess", ONE_OR_MORE),
];

/// Checks a `Name`.
///
/// # Errors
///
/// [`Flaw::EmptySequence`], or [`Flaw::Malformed`] if it is none.
pub(super) fn check_name(field: &'static str, name: &[u8]) -> Result<(), Flaw> {
    walk(&NAME, field, name)
}

/// Checks the value of an extension.
///
/// # Errors
///
/// [`Flaw::EmptySequence`], or [`Flaw::Malformed`] if it is not of the shape it should be.
pub(super) fn check_extension(extension: ObjectIdentifier, value: &[u8]) -> Result<(), Flaw> {
    let known = EXTENSIONS.iter().find(|(oid, ..)| ObjectIdentifier::new(oid) == Ok(extension));
    known.map_or(Ok(()), |(_, field, shape)| walk(shape, field, value))
}

fn walk(shape: &Shape, field: &'static str, element: &[u8]) -> Result<(), Flaw> {
    let inner = || {
        let tag = *element.first()?;
        elements(content(tag, element)?)
    };
    match shape {
        Shape::Any => Ok(()),
        Shape::List(shape) => {
            let found = inner().ok_or(Flaw::Malformed)?;
            found.into_iter().try_for_each(|element| walk(shape, field, element))
        }
        Shape::Only(tag, shape) if element.starts_with(&[*tag]) => walk(shape, field, element),
        Shape::Only(..) => Ok(()),
        Shape::Some(shape) => match &inner().ok_or(Flaw::Malformed)?[..] {
            [] => Err(Flaw::EmptySequence { field }),
            found => found.iter().try_for_each(|element| walk(shape, field, element)),
        },
        Shape::Together(shapes) => shapes.iter().try_for_each(|shape| walk(shape, field, element)),
    }
}
