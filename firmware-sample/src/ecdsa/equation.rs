//! The equation that a signature fulfils (FIPS 186-5 §6.4.2), for whoever multiplies points in a
//! way of their own.

use p256::ProjectivePoint;
use p256::elliptic_curve::point::AffineCoordinates as _;

use super::SIGNATURE_LEN;
use super::order::Number;

/// Whether `signature` over `digest` was made with the key of the point Q, where `combine` computes
/// u·G + v·Q of u and v; v is never zero. Nothing here is secret.
pub(super) fn holds(
    digest: &[u8; 32],
    signature: &[u8; SIGNATURE_LEN],
    combine: impl FnOnce(Number, Number) -> Option<ProjectivePoint>,
) -> bool {
    // Neither r nor s is zero, or not below the order.
    let Some((r, s)) = numbers(signature) else { return false };
    let inverse = s.inverse_of_public();
    let (u, v) = (Number::reduced(digest) * inverse, r * inverse);
    // At infinity x is zero, which r is not.
    combine(u, v).is_some_and(|sum| Number::reduced(&sum.to_affine().x().into()) == r)
}

fn numbers(signature: &[u8; SIGNATURE_LEN]) -> Option<(Number, Number)> {
    let (r, s) = signature.split_first_chunk()?;
    Some((Number::in_range(r)?, Number::in_range(s.first_chunk()?)?))
}
