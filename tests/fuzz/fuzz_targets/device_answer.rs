#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fleetcert_fuzz::run("device_answer", input));
