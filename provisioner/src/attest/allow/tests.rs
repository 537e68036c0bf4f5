use super::*;

fn ek(seed: u8) -> EkId {
    EkId([seed; 32])
}

fn entries(list: &str) -> Vec<(String, EkId)> {
    let found = parse(list.as_bytes()).unwrap();
    found.into_iter().map(|(device, ek)| (device.to_string(), ek)).collect()
}

fn error(list: &str) -> AllowError {
    parse(list.as_bytes()).unwrap_err()
}

fn fault_in(line: usize, list: &str) -> AllowFault {
    let AllowError { line: found, fault } = error(list);
    assert_eq!(found, Some(line), "{list:?}");
    fault
}

fn two() -> Vec<(String, EkId)> {
    vec![("gw-1".into(), ek(1)), ("gw-2".into(), ek(2))]
}

// Goal: what spreadsheets and scripts write is read, with and without their decoration.
#[test]
fn csv_is_read_in_every_usual_form() {
    let (one, two_) = (ek(1), ek(2));
    let capital = two_.to_string().to_uppercase();
    for list in [
        format!("gw-1,{one}\ngw-2,{two_}"),
        format!("device_id,ek_sha256\ngw-1,{one}\ngw-2,{two_}\n"),
        format!("device_id,ek_sha256,place\r\ngw-1,{one},Hall 1\r\ngw-2,{two_},\"a, b\"\r\n"),
        format!("\u{feff}\"device_id\",\"ek_sha256\"\n\"gw-1\",\"{one}\"\n\n gw-2 , {capital} \n"),
    ] {
        assert_eq!(entries(&list), two(), "{list}");
    }
}

// Goal: JSON lines, with members in any order, further ones, and escapes.
#[test]
fn json_lines_are_read_in_every_usual_form() {
    let (one, two_) = (ek(1), ek(2));
    for list in [
        format!(
            "{{\"device_id\":\"gw-1\",\"ek_sha256\":\"{one}\"}}\n\
             {{\"ek_sha256\": \"{two_}\", \"place\": [1], \"device_id\": \"gw\\u002d2\"}}"
        ),
        format!(
            "\u{feff}\n\n  {{\"device_id\":\"gw-1\",\"ek_sha256\":\"{one}\"}}\r\n\n\
             {{\"device_id\":\"gw-2\",\"ek_sha256\":\"{two_}\"}}\n"
        ),
    ] {
        assert_eq!(entries(&list), two(), "{list}");
    }
}

// Goal: only the first line may be a header, and only with these names.
#[test]
fn a_header_stands_in_the_first_line_or_nowhere() {
    let one = ek(1);
    let digit = |found| AllowFault::EkId(HexError::Digit { found });
    assert_eq!(fault_in(2, &format!("gw-1,{one}\ndevice_id,ek_sha256\n")), digit('k'));
    assert_eq!(fault_in(1, &format!("ek_sha256,device_id\n{one},gw-1\n")), digit('v'));
    assert_eq!(fault_in(1, &format!("device_id,hash\ngw-1,{one}\n")), digit('h'));
    let header = "device_id,ek_sha256\n";
    assert_eq!(fault_in(2, &[header, header].concat()), digit('k'));
}

// Goal: an empty list is a mistake: somebody named the wrong file.
#[test]
fn a_list_without_an_entry_is_refused() {
    for list in ["", "\n\r\n  \n", "device_id,ek_sha256\n", "\u{feff}"] {
        assert_eq!(error(list), AllowError { line: None, fault: AllowFault::Empty });
    }
}

// Goal: each line that cannot be read is told with its number and what should be there.
#[test]
fn lines_that_cannot_be_read_are_told_by_number() {
    let one = ek(1);
    let good = format!("gw-1,{one}\n");
    let slash = AllowFault::DeviceId(DeviceIdError::Character { found: '/', at: 1 });
    for (line, fault) in [
        ("gw-2", AllowFault::Columns),
        ("a/b,00", slash),
        (",00", AllowFault::DeviceId(DeviceIdError::Empty)),
        ("gw-2,", AllowFault::EkId(HexError::Length { found: 0 })),
        ("gw-2,00", AllowFault::EkId(HexError::Length { found: 2 })),
        ("gw-2,0x", AllowFault::EkId(HexError::Digit { found: 'x' })),
        ("\"gw-2,00", AllowFault::DeviceId(DeviceIdError::Character { found: '"', at: 0 })),
    ] {
        assert_eq!(fault_in(3, &format!("{good}\n{line}\n")), fault, "{line}");
    }
    let odd = format!("gw-2,{one}0");
    let fault = AllowFault::EkId(HexError::Length { found: 65 });
    assert_eq!(fault_in(2, &format!("{good}{odd}")), fault);
}

// Goal: the same for JSON, with the place in the line.
#[test]
fn lines_of_json_that_cannot_be_read_are_told_by_number_and_place() {
    let good = format!("{{\"device_id\":\"gw-1\",\"ek_sha256\":\"{}\"}}\n", ek(1));
    for (line, column) in [
        ("gw-2,00", 1),
        ("{\"device_id\":\"gw-2\"}", 20),
        ("{\"device_id\":\"gw-2\",\"ek_sha256\":1}", 33),
        ("{\"device_id\":\"gw-2\",", 20),
    ] {
        let fault = fault_in(2, &format!("{good}{line}\n"));
        assert_eq!(fault, AllowFault::Json { column }, "{line}");
    }
    let line = "{\"device_id\":\"a/b\",\"ek_sha256\":\"\"}";
    let slash = AllowFault::DeviceId(DeviceIdError::Character { found: '/', at: 1 });
    assert_eq!(fault_in(2, &format!("{good}{line}")), slash);
}

// Goal: a list that contradicts itself is refused with both lines.
#[test]
fn contradictions_and_repetitions_name_the_line_before() {
    let list = |device: &str, seed: u8| {
        format!("device_id,ek_sha256\ngw-1,{}\ngw-2,{}\n{device},{}\n", ek(1), ek(2), ek(seed))
    };
    let device = DeviceId::parse("gw-1").unwrap();
    for (last, fault) in [
        (list("gw-1", 1), AllowFault::Repeated { first_line: 2 }),
        (list("gw-1", 3), AllowFault::DeviceAgain { device: device.clone(), first_line: 2 }),
        (list("gw-1", 2), AllowFault::DeviceAgain { device, first_line: 2 }),
        (list("gw-3", 2), AllowFault::EkAgain { ek: ek(2), first_line: 3 }),
    ] {
        assert_eq!(fault_in(4, &last), fault, "{last}");
    }
}

// Goal: octets that are no text are found where they are.
#[test]
fn what_is_no_utf8_is_told_by_its_line() {
    let list = [format!("gw-1,{}\n\n", ek(1)).as_bytes(), b"gw-\xff"].concat();
    let expected = AllowError { line: Some(3), fault: AllowFault::Utf8 };
    assert_eq!(parse(&list).unwrap_err(), expected);
}

// Goal: lists are limited in octets, exactly, before they are looked at.
#[test]
fn the_length_of_a_list_is_limited() {
    let mut list = format!("gw-1,{},", ek(1)).into_bytes();
    list.resize(LIST_LEN_MAX, b'x');
    assert_eq!(parse(&list).unwrap().len(), 1);
    list.push(b'x');
    let fault = AllowFault::TooLong { found_len: LIST_LEN_MAX + 1 };
    assert_eq!(parse(&list).unwrap_err(), AllowError { line: None, fault });
}

// Goal: lists are limited in entries, exactly.
#[test]
fn the_number_of_entries_is_limited() {
    let mut list = String::new();
    for at in 0..ENTRIES_MAX {
        list += &format!("{at},{at:064x}\n");
    }
    assert_eq!(parse(list.as_bytes()).unwrap().len(), ENTRIES_MAX);
    list += &format!("one-more,{:064x}\n", ENTRIES_MAX);
    let expected = AllowError { line: Some(ENTRIES_MAX + 1), fault: AllowFault::TooMany };
    assert_eq!(parse(list.as_bytes()).unwrap_err(), expected);
}

// Goal: errors say where, what, and what was expected.
#[test]
fn errors_read_as_text() {
    let device = DeviceId::parse("gw-1").unwrap();
    let hash = "01".repeat(32);
    for (fault, text) in [
        (AllowFault::Columns, "one column only, expected device_id,ek_sha256".into()),
        (
            AllowFault::DeviceAgain { device, first_line: 2 },
            "device gw-1 has another endorsement key in line 2".into(),
        ),
        (AllowFault::DeviceId(DeviceIdError::Empty), DeviceIdError::Empty.to_string()),
        (
            AllowFault::EkAgain { ek: ek(1), first_line: 2 },
            format!("endorsement key {hash} belongs to another device in line 2"),
        ),
        (
            AllowFault::EkId(HexError::Digit { found: 'x' }),
            "the endorsement key's SHA-256: 'x' is in it, expected 64 hexadecimal digits".into(),
        ),
        (
            AllowFault::EkId(HexError::Length { found: 2 }),
            "the endorsement key's SHA-256: it has 2 digits, expected 64 hexadecimal digits".into(),
        ),
        (
            AllowFault::Json { column: 5 },
            "at character 5: expected {\"device_id\": \"…\", \"ek_sha256\": \"64 hexadecimal \
             digits\"}"
                .into(),
        ),
        (AllowFault::Repeated { first_line: 2 }, "it says the same as line 2".into()),
        (AllowFault::TooMany, format!("the list has more than {ENTRIES_MAX} entries")),
        (AllowFault::Utf8, "it is no UTF-8 text".into()),
    ] {
        let error = AllowError { line: Some(7), fault };
        assert_eq!(error.to_string(), format!("line 7: {text}"));
    }
    let whole = |fault| AllowError { line: None, fault }.to_string();
    assert_eq!(
        whole(AllowFault::Empty),
        "the list is empty, expected lines of device_id,ek_sha256 or of JSON objects with these \
         members"
    );
    assert_eq!(
        whole(AllowFault::TooLong { found_len: LIST_LEN_MAX + 1 }),
        format!("the list has {} octets, at most {LIST_LEN_MAX} may be", LIST_LEN_MAX + 1)
    );
}
