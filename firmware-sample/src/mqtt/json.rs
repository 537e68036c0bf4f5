//! JSON (RFC 8259) as far as a device hears and says it: one object with a few members.
//!
//! **What it is.** A reader ([`members`]) that gives the values of the members that were asked for,
//! as they stand in the text, once all of it was found to be one object; and what such a value is:
//! [`string`], [`unsigned`], [`boolean`]. A string is what stands between its quotation marks,
//! escapes and all: what is compared has none, and what is said again is said as it came. And a
//! writer ([`Json`]), which adds member to member.
//!
//! **What it must never do.** Recurse, or read what is no JSON as if it were: a message is for this
//! device if *all* of it is well formed, not only the part that was of interest. Say what is no
//! JSON.
//!
//! **Why that is sound.** Every value is passed over in a loop that remembers each open bracket in
//! one bit, so that the stack does not grow with what a peer sends, and nesting has a limit.
//! Escapes are checked, and none is resolved, so that nothing is copied and nothing can turn out
//! longer than it is. Behind the end of the text the reader finds zeros, which may stand nowhere in
//! JSON. What is written into a string is looked at once more, and an object that is not sound, or
//! whole, is not given out.

use core::fmt::{Display, Write as _};

use heapless::String;

/// Octets of an object of ours, at most.
pub const JSON_LEN_MAX: usize = 384;

/// Arrays and objects within each other in a value, at most: the bits of [`Nesting`].
const NESTING_MAX: u32 = u32::BITS;

/// What is left of a text.
struct Reader<'j>(&'j [u8]);

/// Brackets that are open, the innermost one in the lowest bit; set for an object.
#[derive(Default)]
struct Nesting {
    kinds: u32,
    depth: u32,
}

/// Reads a text that is an object: the values of the members of these names, as they stand there.
/// Each must be there, and once: which of two would be meant? Others may be there, too.
pub(super) fn members<'j, const N: usize>(
    text: &'j [u8],
    names: [&[u8]; N],
) -> Option<[&'j [u8]; N]> {
    let mut values = [&[][..]; N];
    find(text, &names, &mut values)?;
    Some(values)
}

fn find<'j>(text: &'j [u8], names: &[&[u8]], values: &mut [&'j [u8]]) -> Option<()> {
    let mut reader = Reader(text);
    reader.expect(b'{')?;
    let mut is_over = reader.take(b'}');
    while !is_over {
        let name = reader.name()?;
        let value = reader.value()?;
        for (wanted, place) in names.iter().zip(&mut *values) {
            // No value is empty.
            if *wanted == name && !core::mem::replace(place, value).is_empty() {
                return None;
            }
        }
        is_over = !reader.take(b',');
        if is_over {
            reader.expect(b'}')?;
        }
    }
    reader.peek();
    let is_all = reader.0.is_empty() && !values.iter().any(|value| value.is_empty());
    is_all.then_some(())
}

/// What stands between the quotation marks of a string.
pub(super) fn string(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// A number that is whole, not negative, and written as such.
pub(super) fn unsigned(value: &[u8]) -> Option<u64> {
    value.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `true` or `false`.
pub(super) fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

impl<'j> Reader<'j> {
    /// Passes over a value of any kind, which is what it returns.
    fn value(&mut self) -> Option<&'j [u8]> {
        let mut nesting = Nesting::default();
        self.peek();
        let begin = self.0;
        loop {
            let is_open = match self.peek() {
                bracket @ (b'{' | b'[') => self.enter(&mut nesting, bracket == b'{')?,
                b'"' => self.string().map(|_| false)?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => self.number()?,
            };
            if !is_open && self.leave(&mut nesting)? {
                return begin.get(..begin.len() - self.0.len());
            }
        }
    }

    /// Goes into an array or object, up to its first value; whether there is one.
    fn enter(&mut self, nesting: &mut Nesting, is_object: bool) -> Option<bool> {
        self.octet();
        if self.take(closing(is_object)) {
            return Some(false);
        }
        nesting.push(is_object)?;
        if is_object {
            self.name()?;
        }
        Some(true)
    }

    /// Behind a value: goes on to the next one, out of what ends here; whether all is over.
    fn leave(&mut self, nesting: &mut Nesting) -> Option<bool> {
        while let Some(is_object) = nesting.innermost() {
            if self.take(b',') {
                if is_object {
                    self.name()?;
                }
                return Some(false);
            }
            self.expect(closing(is_object))?;
            nesting.pop();
        }
        Some(true)
    }

    /// A member's name, and the colon behind it.
    fn name(&mut self) -> Option<&'j [u8]> {
        let name = self.string()?;
        self.expect(b':')?;
        Some(name)
    }

    /// A string: what stands between its quotation marks.
    fn string(&mut self) -> Option<&'j [u8]> {
        self.expect(b'"')?;
        let begin = self.0;
        loop {
            let left = self.0.len();
            match self.octet() {
                b'"' => return begin.get(..begin.len() - left),
                b'\\' => self.escape()?,
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    /// What follows a backslash. §7: half of a surrogate pair is no character.
    fn escape(&mut self) -> Option<()> {
        match self.octet() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => return Some(()),
            b'u' => {}
            _ => return None,
        }
        let is_character = match self.four_digits()? & 0xfc00 {
            0xd800 if self.octet() == b'\\' && self.octet() == b'u' => {
                self.four_digits()? & 0xfc00 == 0xdc00
            }
            0xd800 | 0xdc00 => false,
            _ => true,
        };
        is_character.then_some(())
    }

    fn four_digits(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |value, _| Some(value << 4 | char::from(self.octet()).to_digit(16)?))
    }

    /// Passes over a number, behind which nothing is open.
    fn number(&mut self) -> Option<bool> {
        self.take_next(b'-');
        // What follows a zero in front is no part of the number.
        if !self.take_next(b'0') {
            self.digits()?;
        }
        if self.take_next(b'.') {
            self.digits()?;
        }
        if self.take_next(b'e') || self.take_next(b'E') {
            let _has_sign = self.take_next(b'+') || self.take_next(b'-');
            self.digits()?;
        }
        Some(false)
    }

    /// Passes over digits, one at least.
    fn digits(&mut self) -> Option<()> {
        let left = self.0.len();
        while let [b'0'..=b'9', rest @ ..] = self.0 {
            self.0 = rest;
        }
        (self.0.len() < left).then_some(())
    }

    /// Passes over a word, behind which nothing is open.
    fn literal(&mut self, word: &[u8]) -> Option<bool> {
        self.0 = self.0.strip_prefix(word)?;
        Some(false)
    }

    /// Takes this octet, which must be the next one that is no space.
    fn expect(&mut self, octet: u8) -> Option<()> {
        self.take(octet).then_some(())
    }

    /// Takes this octet, if it is the next one that is no space.
    fn take(&mut self, octet: u8) -> bool {
        self.peek();
        self.take_next(octet)
    }

    /// Takes this octet, if it is the next one.
    fn take_next(&mut self, octet: u8) -> bool {
        let is_next = self.0.first() == Some(&octet);
        if is_next {
            self.octet();
        }
        is_next
    }

    /// The next octet that is no space; what is before it is gone.
    fn peek(&mut self) -> u8 {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.0.first().copied().unwrap_or_default()
    }

    /// Takes the next octet.
    fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}

impl Nesting {
    fn push(&mut self, is_object: bool) -> Option<()> {
        if self.depth == NESTING_MAX {
            return None;
        }
        self.kinds = self.kinds << 1 | u32::from(is_object);
        self.depth += 1;
        Some(())
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.kinds & 1 == 1)
    }

    const fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth = self.depth.saturating_sub(1);
    }
}

const fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

/// An object of ours, schema 1, that is being written.
#[derive(Debug)]
pub struct Json {
    text: String<JSON_LEN_MAX>,
    /// Whether all that was written is there, and is JSON.
    is_sound: bool,
}

impl Json {
    /// An object that has its schema.
    pub(super) fn begin() -> Self {
        let mut json = Self { text: String::new(), is_sound: true };
        json.put(&r#"{"schema":1"#);
        json
    }

    /// The text of the object; empty if it is none, which no message of ours is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.is_sound { &self.text } else { "" }
    }

    /// Its octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }

    /// A member that is a string. What would have to be escaped is not to be said.
    pub(super) fn string(&mut self, name: &str, value: &dyn Display) {
        self.value(name, &"\"");
        let from = self.text.len();
        self.put(value);
        let written = self.text.as_bytes().get(from..).unwrap_or_default();
        self.is_sound &= !written.iter().any(|octet| matches!(octet, b'"' | b'\\' | 0..0x20));
        self.put(&"\"");
    }

    /// A member whose value is what `value` says.
    pub(super) fn value(&mut self, name: &str, value: &dyn Display) {
        self.put(&format_args!(",\"{name}\":{value}"));
    }

    /// Nothing follows.
    pub(super) fn end(mut self) -> Self {
        self.put(&"}");
        self
    }

    fn put(&mut self, what: &dyn Display) {
        self.is_sound &= write!(self.text, "{what}").is_ok();
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn is_object(text: &str) -> bool {
        members(text.as_bytes(), []).is_some()
    }

    /// The value of the one member.
    fn value(text: &str) -> Option<&[u8]> {
        members(text.as_bytes(), [b"a"]).map(|[value]| value)
    }

    #[test]
    fn what_is_json_is_passed_over() {
        for text in [
            "{}",
            " { } ",
            r#"{"":""}"#,
            "\t{\r\n\"a\" : [ ] , \"a\":{ }\n}",
            r#"{"a":[1,[2,{"b":[{},[]]}],"]}"],"c":{"d":{"e":null}},"f":true,"g":false}"#,
            r#"{"a":[0,-0,1,-12,0.5,1e9,1E+9,-1.25e-300,123456789012345678901234567890]}"#,
            r#"{"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀":1}"#,
        ] {
            assert!(is_object(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_malformed_wherever_it_stands() {
        let lines = r#"
            1 | [] | "a" | { | } | {}} | {} {} | {,} | {} // end | {/**/}
            {"a"} | {"a":} | {"a":1,} | {,"a":1} | {"a":1 "b":2} | {"a" 1} | {a:1} | {"a":1
            {"a":[} | {"a":[1}] | {"a":{"b":1]} | {"a":[1,]} | {"a":[,1]} | {"a":[1 2]}
            {"a":{"b"}} | {"a":{1:2}} | {"a":[]]} | {"a":{"b":1,}} | {"a":[{]}
            {"a":tru} | {"a":True} | {"a":nul} | {"a":nulll} | {"a":NaN} | {"a":'b'}
            {"a":+1} | {"a":01} | {"a":-} | {"a":-01} | {"a":.5} | {"a":1.} | {"a":1e} | {"a":1e+}
            {"a":1.e1} | {"a":0x1} | {"a":- 1} | {"a":1 .5} | {"a":1e 1}
            {"a":"b} | {"a":"b\"} | {"a":"\x"} | {"a":"\u12"} | {"a":"\u12g4"} | {"a":"\u+123"}
            {"a":"\ud800"} | {"a":"\ud800\u0041"} | {"a":"\ud800xx0041"} | {"a":"\udc00\ud800"}
        "#;
        let texts = lines.lines().flat_map(|line| line.split(" | "));
        let others = ["{\u{a0}}", "{\u{b}}", "\u{feff}{}", "{}\0", "{\"a\":\"\n\"}", "{\"\0\":1}"];
        for text in texts.chain(others) {
            assert!(!is_object(text), "{text}");
        }
    }

    /// Goal: a text cut anywhere is not taken for the whole one.
    #[test]
    fn a_text_that_is_cut_is_malformed() {
        let whole = r#" {"a":[1,{"b":"\u00e9\ud83d\ude00"},null,true],"c":-1.5e7}"#;
        assert!(is_object(whole));
        for cut in 0..whole.len() {
            assert!(!is_object(&whole[..cut]), "cut at {cut}");
        }
    }

    /// Goal: a peer cannot make the stack or a loop grow: nesting ends at its limit, at any depth
    /// of anything.
    #[test]
    fn nesting_has_a_limit() {
        let limit = usize::try_from(NESTING_MAX).unwrap();
        let nested = |open: &str, close: &str, depth: usize| {
            format!(r#"{{"a":{}0{}}}"#, open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("[", "]"), (r#"{"b":"#, "}"), (r#"[1,{"b":"#, "}]")] {
            let per_turn = close.len();
            assert!(is_object(&nested(open, close, limit / per_turn)));
            assert!(!is_object(&nested(open, close, limit / per_turn + 1)));
        }
        assert!(!is_object(&nested("[", "", 1_000_000)));
    }

    #[test]
    fn strings_are_what_stands_between_quotation_marks() {
        for inside in
            ["", " a ", r#"\"\\\/"#, r"\b\f\n\r\t", r"\u0041\u00E9", r"\uD83D\udE00", "é😀\u{7f}"]
        {
            let text = format!(r#"{{"a" : "{inside}" }}"#);
            assert_eq!(value(&text).and_then(string), Some(inside.as_bytes()));
        }
        for other in [r#"{"a":1}"#, r#"{"a":["b"]}"#, r#"{"a":null}"#] {
            assert_eq!(value(other).and_then(string), None);
        }
    }

    #[test]
    fn numbers_are_whole_and_in_range_or_malformed() {
        let unsigned = |text: &str| value(&format!(r#"{{"a": {text} }}"#)).and_then(unsigned);
        assert_eq!(unsigned("0"), Some(0));
        assert_eq!(unsigned("18446744073709551615"), Some(u64::MAX));
        let others = ["18446744073709551616", "-1", "-0", "1.0", "1e0", "01", "\"1\"", "null", ""];
        for text in others {
            assert_eq!(unsigned(text), None, "{text}");
        }
    }

    #[test]
    fn booleans_are_read_and_nothing_else_as_one() {
        let boolean = |text: &str| value(&format!(r#"{{"a":{text}}}"#)).and_then(boolean);
        assert_eq!([boolean("true"), boolean(" false ")], [Some(true), Some(false)]);
        for text in ["1", "null", "truefalse", "\"true\"", "tru"] {
            assert!(boolean(text).is_none(), "{text}");
        }
    }

    #[test]
    fn values_are_given_as_they_stand_and_each_of_them_once() {
        let text = br#" {"x":7, "id" : {"a":[1, {} ]} ,"":[2],"x":"id","schema":1.50 } "#;
        let found = members(text, [b"schema", b"", b"id"]).unwrap();
        assert_eq!(found, [&b"1.50"[..], b"[2]", br#"{"a":[1, {} ]}"#]);
        assert_eq!(members(text, [b"x"]), None, "there are two");
        assert_eq!(members(text, [b"schema", b"a"]), None, "there is none");
    }

    /// Goal: nothing that is cut off, or would leave its string, is given out.
    #[test]
    fn what_was_written_is_sound_or_not_there() {
        let written = |value: &str| {
            let mut json = Json::begin();
            json.string("a", &value);
            json.value("b", &7);
            json.end()
        };
        assert_eq!(written("c").as_str(), r#"{"schema":1,"a":"c","b":7}"#);
        let room = JSON_LEN_MAX - written("").as_str().len();
        assert_eq!(written(&"c".repeat(room)).as_bytes().len(), JSON_LEN_MAX);
        for value in [&"c".repeat(room + 1), "\"", "\\", "\n", "\0", "\u{1f}"] {
            assert_eq!(written(value).as_str(), "", "{value:?}");
        }
    }
}
