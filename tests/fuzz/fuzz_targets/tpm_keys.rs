#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fleetcert_fuzz::run("tpm_keys", input));
