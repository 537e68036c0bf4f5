//! Attestation, from the device's side and against it: each check that the provisioner makes of a
//! TPM, of what it stated and of who comes with it, is a test here that fails if the check is gone.
//!
//! Every TPM is an swtpm with keys of its own, every provisioner the real one. What a TPM would not
//! do is done with its bytes afterwards (`fleetcert_tests::lab::claimant`). A test says in its name
//! what somebody tries, and in its body what he gets: status and reason code. Where one code has
//! several ways to it they share a test, a provisioner and a TPM; the honest answer to the same
//! challenge then shows that nothing but the forgery was refused.

mod attribute;
mod bench;
mod bindings;
mod certificates;
mod challenge_rows;
mod challenged_keys;
mod chip;
mod device_keys;
mod enrollment;
mod lists;
mod messages;
mod policies;
mod renewals;
mod statements;
mod tls;
mod vectors;
