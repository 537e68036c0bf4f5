//! JSON (RFC 8259) as far as a device hears it: one object with a few members that are known.
//!
//! **What it is.** A reader over octets, member by member: the caller asks for the next name and
//! then for a value of the kind that it expects, or passes over it. A string is what stands between
//! its quotation marks, escapes and all: what is compared has none, and what is said again is said
//! as it came.
//!
//! **What it must never do.** Recurse, or read what is no JSON as if it were: a message is for this
//! device if *all* of it is well formed, not only the part that was of interest.
//!
//! **Why that is sound.** Values of no interest are checked in a loop that remembers each open
//! bracket in one bit, so that the stack does not grow with what a peer sends, and nesting has a
//! limit. Escapes are checked, too, and none is resolved, so that nothing is copied and nothing
//! can turn out longer than it is.

/// Arrays and objects within each other in a value that is passed over, at most: the bits of
/// [`Nesting`].
const NESTING_MAX: u32 = u32::BITS;

/// It is not JSON, or not a value of the kind that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// An object that is being read.
pub(super) struct Object<'j> {
    rest: &'j [u8],
    is_begun: bool,
}

/// Brackets that are open, the innermost one in the lowest bit; set for an object.
#[derive(Default)]
struct Nesting {
    kinds: u32,
    depth: u32,
}

impl<'j> Object<'j> {
    /// Begins to read a text that is an object.
    pub(super) fn open(text: &'j [u8]) -> Result<Self, Malformed> {
        let mut object = Self { rest: text, is_begun: false };
        object.expect(b'{')?;
        Ok(object)
    }

    /// The next member's name, the value of which must be read then; `None` at the end of the
    /// object, behind which nothing may follow.
    pub(super) fn next_name(&mut self) -> Result<Option<&'j [u8]>, Malformed> {
        if self.take(b'}') {
            return if self.peek().is_none() { Ok(None) } else { Err(Malformed) };
        }
        if core::mem::replace(&mut self.is_begun, true) {
            self.expect(b',')?;
        }
        self.name().map(Some)
    }

    /// Reads a string: what stands between its quotation marks.
    pub(super) fn string(&mut self) -> Result<&'j [u8], Malformed> {
        self.expect(b'"')?;
        let begin = self.rest;
        loop {
            let left = self.rest.len();
            match self.octet()? {
                b'"' => return begin.get(..begin.len() - left).ok_or(Malformed),
                b'\\' => self.escape()?,
                0..0x20 => return Err(Malformed),
                _ => {}
            }
        }
    }

    /// Reads a number that is whole, not negative, and written as such.
    pub(super) fn unsigned(&mut self) -> Result<u64, Malformed> {
        self.number()?.ok_or(Malformed)
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, Malformed> {
        let is_true = self.peek() == Some(b't');
        self.literal(if is_true { b"true" } else { b"false" })?;
        Ok(is_true)
    }

    /// Passes over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut nesting = Nesting::default();
        loop {
            let is_open = match self.peek().ok_or(Malformed)? {
                b'{' => self.enter(&mut nesting, true)?,
                b'[' => self.enter(&mut nesting, false)?,
                b'"' => self.string().map(|_| false)?,
                b't' | b'f' => self.boolean().map(|_| false)?,
                b'n' => self.literal(b"null").map(|()| false)?,
                _ => self.number().map(|_| false)?,
            };
            if !is_open && self.leave(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// Goes into an array or object, up to its first value; whether there is one.
    fn enter(&mut self, nesting: &mut Nesting, is_object: bool) -> Result<bool, Malformed> {
        self.octet()?;
        if self.take(closing(is_object)) {
            return Ok(false);
        }
        nesting.push(is_object)?;
        if is_object {
            self.name()?;
        }
        Ok(true)
    }

    /// Behind a value: goes on to the next one, out of what ends here; whether all is over.
    fn leave(&mut self, nesting: &mut Nesting) -> Result<bool, Malformed> {
        while let Some(is_object) = nesting.innermost() {
            if self.take(b',') {
                if is_object {
                    self.name()?;
                }
                return Ok(false);
            }
            self.expect(closing(is_object))?;
            nesting.pop();
        }
        Ok(true)
    }

    /// A member's name, and the colon behind it.
    fn name(&mut self) -> Result<&'j [u8], Malformed> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// What follows a backslash. §7: half of a surrogate pair is no character.
    fn escape(&mut self) -> Result<(), Malformed> {
        match self.octet()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => return Ok(()),
            b'u' => {}
            _ => return Err(Malformed),
        }
        match self.four_digits()? & 0xfc00 {
            0xd800 if self.octet()? == b'\\' && self.octet()? == b'u' => {
                let is_pair = self.four_digits()? & 0xfc00 == 0xdc00;
                if is_pair { Ok(()) } else { Err(Malformed) }
            }
            0xd800 | 0xdc00 => Err(Malformed),
            _ => Ok(()),
        }
    }

    fn four_digits(&mut self) -> Result<u32, Malformed> {
        (0..4).try_fold(0, |value, _| {
            let digit = char::from(self.octet()?).to_digit(16).ok_or(Malformed)?;
            Ok(value << 4 | digit)
        })
    }

    /// Reads a number: `None` if it is negative, has a fraction or an exponent, or is too large.
    fn number(&mut self) -> Result<Option<u64>, Malformed> {
        let is_negative = self.take(b'-');
        let begins_with_zero = self.rest.first() == Some(&b'0');
        let (mut value, count) = self.digits()?;
        if begins_with_zero && count > 1 {
            return Err(Malformed);
        }
        if self.take_next(b'.') {
            self.digits()?;
            value = None;
        }
        if self.take_next(b'e') || self.take_next(b'E') {
            let _has_sign = self.take_next(b'+') || self.take_next(b'-');
            self.digits()?;
            value = None;
        }
        Ok(value.filter(|_| !is_negative))
    }

    /// Reads digits, one at least: their value, unless it is too large, and how many.
    fn digits(&mut self) -> Result<(Option<u64>, usize), Malformed> {
        let (mut value, mut count) = (Some(0_u64), 0);
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            let digit = u64::from(digit - b'0');
            value = value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
            self.rest = rest;
            count += 1;
        }
        if count > 0 { Ok((value, count)) } else { Err(Malformed) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Malformed> {
        self.peek();
        self.rest = self.rest.strip_prefix(word).ok_or(Malformed)?;
        Ok(())
    }

    /// Takes this octet, which must be the next one that is no space.
    fn expect(&mut self, octet: u8) -> Result<(), Malformed> {
        if self.take(octet) { Ok(()) } else { Err(Malformed) }
    }

    /// Takes this octet, if it is the next one that is no space.
    fn take(&mut self, octet: u8) -> bool {
        self.peek();
        self.take_next(octet)
    }

    /// Takes this octet, if it is the next one.
    fn take_next(&mut self, octet: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == octet => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// The next octet that is no space; what is before it is gone.
    fn peek(&mut self) -> Option<u8> {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }
}

impl Nesting {
    const fn push(&mut self, is_object: bool) -> Result<(), Malformed> {
        if self.depth == NESTING_MAX {
            return Err(Malformed);
        }
        self.kinds = self.kinds << 1 | is_object as u32;
        self.depth += 1;
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    /// Passes over every member.
    fn is_object(text: &str) -> bool {
        let walk = || {
            let mut object = Object::open(text.as_bytes())?;
            while object.next_name()?.is_some() {
                object.skip()?;
            }
            Ok::<_, Malformed>(())
        };
        walk().is_ok()
    }

    fn first<'j, T>(
        text: &'j str,
        read: impl FnOnce(&mut Object<'j>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let mut object = Object::open(text.as_bytes())?;
        object.next_name()?;
        let value = read(&mut object)?;
        if object.next_name()?.is_none() { Ok(value) } else { Err(Malformed) }
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
            let found = first(&format!(r#"{{"a" : "{inside}" }}"#), |object| {
                object.string().map(|octets| String::from_utf8_lossy(octets).to_string())
            });
            assert_eq!(found.as_deref(), Ok(inside));
        }
        assert!(first(r#"{"a":1}"#, |object| object.string().map(|_| ())).is_err());
    }

    #[test]
    fn numbers_are_whole_and_in_range_or_malformed() {
        let unsigned = |text: &str| first(&format!(r#"{{"a": {text} }}"#), Object::unsigned);
        assert_eq!(unsigned("0"), Ok(0));
        assert_eq!(unsigned("18446744073709551615"), Ok(u64::MAX));
        let others = ["18446744073709551616", "-1", "-0", "1.0", "1e0", "01", "\"1\"", "null", ""];
        for text in others {
            assert_eq!(unsigned(text), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn booleans_are_read_and_nothing_else_as_one() {
        let boolean = |text: &str| first(&format!(r#"{{"a":{text}}}"#), Object::boolean);
        assert_eq!([boolean("true"), boolean(" false ")], [Ok(true), Ok(false)]);
        for text in ["1", "null", "truefalse", "\"true\"", "tru"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_given_in_order() {
        let mut object = Object::open(br#"{"schema":1,"":[2],"id":"3","id":{}}"#).unwrap();
        let mut names = Vec::new();
        while let Some(name) = object.next_name().unwrap() {
            object.skip().unwrap();
            names.push(name);
        }
        assert_eq!(names, [&b"schema"[..], b"", b"id", b"id"]);
    }
}
