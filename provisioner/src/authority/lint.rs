//! Reads a certificate-to-be back and compares every field with the policy it was built from.

/// The first field that is not what the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It cannot be read at all.
    Malformed,
    /// A field differs.
    Field {
        /// Its name in RFC 5280.
        name: &'static str,
    },
}
