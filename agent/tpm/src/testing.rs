//! What the tests of the structures share: octets that TPMs and other programs wrote.

use std::string::String;
use std::vec::Vec;

/// What a software TPM answered, by name.
pub(crate) fn swtpm(name: &str) -> Vec<u8> {
    find(include_str!("../vectors/swtpm.txt"), name)
}

/// What tpm2-tools wrote, by name.
pub(crate) fn tools(name: &str) -> Vec<u8> {
    find(include_str!("../vectors/credential.txt"), name)
}

/// What went between a vault and a software TPM, by name.
pub(crate) fn bus(name: &str) -> Vec<u8> {
    find(include_str!("../vectors/vault.txt"), name)
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn find(text: &str, name: &str) -> Vec<u8> {
    let is_name = |line: &&str| line.strip_suffix(':') == Some(name);
    let lines = text.lines().skip_while(|line| !is_name(line)).skip(1);
    let digits: String = lines.take_while(|line| !line.ends_with(':')).collect();
    assert!(!digits.is_empty(), "no vector {name}");
    hex(&digits)
}
