use super::*;

// Goal: one key has one name, whatever zeros stand before its numbers.
#[test]
fn zeros_before_the_numbers_do_not_change_the_name_of_a_key() {
    let mut modulus = vec![0xc5; 256];
    let plain = Key::rsa(&modulus, 65_537).unwrap();
    modulus.insert(0, 0);
    assert_eq!(Key::rsa(&modulus, 65_537).unwrap().ek_id(), plain.ek_id());
}
