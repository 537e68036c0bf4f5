//! The equation that a signature fulfils (FIPS 186-5 §6.4.2), for whoever multiplies points in a
//! way of their own.

use p256::ecdsa::Signature;
use p256::elliptic_curve::ops::{Invert as _, Reduce};
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::{FieldBytes, ProjectivePoint, Scalar, U256};

use super::SIGNATURE_LEN;

/// Whether `signature` over `digest` was made with the key of the point Q, where `combine` computes
/// u·G + v·Q of u and v. Nothing here is secret.
pub(super) fn holds(
    digest: &[u8; 32],
    signature: &[u8; SIGNATURE_LEN],
    combine: impl FnOnce(&Scalar, &Scalar) -> Option<ProjectivePoint>,
) -> bool {
    // Neither r nor s is zero, or not below the order.
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    let (r, s) = signature.split_scalars();
    let inverse = *s.invert_vartime();
    let (u, v) = (reduced(digest.into()) * inverse, *r * inverse);
    // At infinity x is zero, which r is not.
    combine(&u, &v).is_some_and(|sum| reduced(&sum.to_affine().x()) == *r)
}

/// A number modulo the order of the curve.
pub(super) fn reduced(number: &FieldBytes) -> Scalar {
    <Scalar as Reduce<U256>>::reduce_bytes(number)
}
