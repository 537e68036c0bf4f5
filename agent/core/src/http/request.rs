use core::fmt;

use super::head::is_token;
use crate::est::base64;

/// What is asked for; the two that EST knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`, which has no body.
    Get,
    /// `POST`, which has one.
    Post,
}

/// Why a request cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The caller's buffer is too small.
    Buffer {
        /// The octets it has.
        found: usize,
    },
    /// The name of a header is no token (RFC 9110 §5.6.2).
    HeaderName,
    /// The value of a header holds a control character, is no ASCII, or begins or ends with a
    /// blank (RFC 9110 §5.5).
    HeaderValue,
    /// The host is empty or holds what no authority has (RFC 9110 §7.2).
    Host,
    /// The path does not begin with `/`, or holds a blank, `#` or what is not printable ASCII.
    Path,
    /// The user of HTTP Basic holds a colon or a control character, or the password a control
    /// character (RFC 7617 §2).
    Secret,
}

/// One request in a caller's buffer, from its first line to its last octet.
///
/// It takes nothing that could end a line: who gives a header cannot give two. What is wrong is
/// remembered, and said at the end.
#[derive(Debug)]
pub struct RequestWriter<'b> {
    buffer: &'b mut [u8],
    /// Octets written: more than there is room for once it did not fit.
    len: usize,
    method: Method,
    fault: Option<RequestError>,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET ",
            Self::Post => "POST ",
        }
    }
}

impl<'b> RequestWriter<'b> {
    /// Begins a request for `path` (which is given in parts, and may have a query) on `host` (a name
    /// or address, and a port if it is not 443).
    pub fn new(method: Method, host: &str, path: &[&str], buffer: &'b mut [u8]) -> Self {
        let mut writer = Self { buffer, len: 0, method, fault: None };
        let is_printable = |octet: u8| octet.is_ascii_graphic() && octet != b'#';
        let begins = path.first().is_some_and(|part| part.starts_with('/'));
        if !begins || !path.iter().all(|part| part.bytes().all(is_printable)) {
            writer.fail(RequestError::Path);
        }
        let is_mark = |octet: u8| matches!(octet, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        let is_authority = |octet: u8| octet.is_ascii_alphanumeric() || is_mark(octet);
        if host.is_empty() || !host.bytes().all(is_authority) {
            writer.fail(RequestError::Host);
        }
        writer.put(&[method.name()]);
        writer.put(path);
        writer.put(&[" HTTP/1.1\r\nHost: ", host, "\r\n"]);
        writer
    }

    /// Adds a header.
    pub fn header(&mut self, name: &str, value: &str) {
        if name.is_empty() || !name.bytes().all(is_token) {
            self.fail(RequestError::HeaderName);
        }
        let is_text = |octet: u8| octet.is_ascii_graphic() || matches!(octet, b' ' | b'\t');
        if value.trim_ascii() != value || !value.bytes().all(is_text) {
            self.fail(RequestError::HeaderValue);
        }
        self.put(&[name, ": ", value, "\r\n"]);
    }

    /// Adds `Authorization: Basic`, encoded where it stands: no copy of the password is made.
    pub fn basic(&mut self, user: &str, password: &str) {
        let is_control = |octet: u8| octet.is_ascii_control();
        if user.bytes().any(|octet| octet == b':')
            || [user, password].iter().any(|text| text.bytes().any(is_control))
        {
            self.fail(RequestError::Secret);
        }
        self.put(&["Authorization: Basic "]);
        let (start, len) = (self.len, user.len() + 1 + password.len());
        let end = start.saturating_add(len.div_ceil(3) * 4);
        // Nothing of it is written that would not be sent.
        if self.fault.is_none() && end <= self.buffer.len() {
            self.put(&[user, ":", password]);
            let place = self.buffer.get_mut(start..end).unwrap_or_default();
            base64::encode_in_place(place, len);
        }
        self.len = end;
        self.put(&["\r\n"]);
    }

    /// Ends a request without a body.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: what was wrong first with what was given, or that the buffer is too small.
    pub fn finish(self) -> Result<&'b [u8], RequestError> {
        self.finish_with(0, |_| Some(0))
    }

    /// Ends a request with a body of `len` octets, which `fill` writes where it stands; `fill`
    /// says how many it wrote, and `len` is what it must say.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish); [`RequestError::Buffer`] too if `fill` wrote another length.
    pub fn finish_with(
        mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<&'b [u8], RequestError> {
        let start = self.end_head(len);
        let too_small = RequestError::Buffer { found: self.buffer.len() };
        let body = self.buffer.get_mut(start..self.len).ok_or(too_small);
        let written = body.map(|body| fill(body) == Some(len));
        match (self.fault, written) {
            (Some(fault), _) | (None, Err(fault)) => Err(fault),
            (None, Ok(true)) => self.buffer.get(..self.len).ok_or(too_small),
            (None, Ok(false)) => Err(too_small),
        }
    }

    /// Makes room for a body, and says where it begins.
    fn end_head(&mut self, len: usize) -> usize {
        if self.method == Method::Post {
            self.put(&["Content-Length: "]);
            self.put_decimal(len);
            self.put(&["\r\n"]);
        }
        self.put(&["\r\n"]);
        let start = self.len;
        self.len = start.saturating_add(len);
        start
    }

    fn fail(&mut self, fault: RequestError) {
        self.fault = self.fault.or(Some(fault));
    }

    #[inline(never)]
    fn put(&mut self, parts: &[&str]) {
        for part in parts {
            let rest = self.buffer.get_mut(self.len..).unwrap_or_default();
            if let Some(place) = rest.get_mut(..part.len()) {
                place.copy_from_slice(part.as_bytes());
            }
            self.len = self.len.saturating_add(part.len());
        }
    }

    fn put_decimal(&mut self, number: usize) {
        if number >= 10 {
            self.put_decimal(number / 10);
        }
        const DIGITS: &str = "0123456789";
        let digit = number % 10;
        self.put(&[DIGITS.get(digit..=digit).unwrap_or_default()]);
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buffer { found } => write!(f, "request does not fit into {found} octets"),
            Self::HeaderName => f.write_str("header name is no token"),
            Self::HeaderValue => f.write_str("header value is not one line of printable ASCII"),
            Self::Host => f.write_str("host is no name or address with a port"),
            Self::Path => f.write_str("path does not begin with '/' or is not printable ASCII"),
            Self::Secret => f.write_str("user or password cannot be sent with HTTP Basic"),
        }
    }
}

impl core::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;
    use std::vec;

    use super::{Method, RequestError, RequestWriter};

    const GET: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: [::1]:8443\r\nX-1: a b\tc\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \
        QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\nContent-Length: 12\r\n\r\nhello, world";

    fn begin(buffer: &mut [u8]) -> RequestWriter<'_> {
        RequestWriter::new(Method::Get, "a", &["/"], buffer)
    }

    fn header<'b>(buffer: &'b mut [u8], name: &str, value: &str) -> Result<&'b [u8], RequestError> {
        let mut request = begin(buffer);
        request.header(name, value);
        request.finish()
    }

    /// Goal: what is refused, for its size or its form, has left no password behind.
    #[test]
    fn a_refused_request_holds_no_password() {
        let password = "open-sesame";
        let holds = |buffer: &[u8]| {
            buffer.windows(password.len()).any(|window| window == password.as_bytes())
        };
        let mut refused = 0;
        for len in 0..100 {
            let mut buffer = vec![b'#'; len];
            refused += usize::from(basic(&mut buffer, "gw-1", password).is_err());
            assert!(!holds(&buffer), "{len} octets");
        }
        assert!((60..100).contains(&refused), "{refused}");
        let mut buffer = [b'#'; 200];
        assert_eq!(basic(&mut buffer, "gw:1", password), Err(RequestError::Secret));
        let untouched = buffer.iter().filter(|octet| **octet == b'#').count();
        assert!(!holds(&buffer) && untouched > 100);
    }

    fn basic<'b>(
        buffer: &'b mut [u8],
        user: &str,
        password: &str,
    ) -> Result<&'b [u8], RequestError> {
        let mut request = begin(buffer);
        request.basic(user, password);
        request.finish()
    }

    fn post(buffer: &mut [u8]) -> Result<&[u8], RequestError> {
        let mut request = RequestWriter::new(Method::Post, "a", &["/"], buffer);
        request.basic("Aladdin", "open sesame");
        request.finish_with(12, |out| {
            out.copy_from_slice(b"hello, world");
            Some(12)
        })
    }

    #[test]
    fn a_get_is_written_octet_by_octet_without_a_length() {
        let mut buffer = [0; 256];
        let path = ["/a", "?b=", "c"];
        let mut request = RequestWriter::new(Method::Get, "[::1]:8443", &path, &mut buffer);
        request.header("X-1", "a b\tc");
        assert_eq!(
            request.finish().unwrap().escape_ascii().to_string(),
            GET.escape_ascii().to_string()
        );
    }

    /// The secret is the example of RFC 7617 §2.
    #[test]
    fn a_post_is_written_octet_by_octet_with_its_length() {
        assert_eq!(post(&mut [0; 256]).unwrap(), POST);
    }

    #[test]
    fn an_empty_post_says_that_it_is_empty() {
        let mut buffer = [0; 256];
        let request = RequestWriter::new(Method::Post, "a", &["/"], &mut buffer);
        let expected = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(request.finish().unwrap(), expected);
    }

    #[test]
    fn every_length_is_written_in_decimal() {
        for len in [1, 9, 10, 11, 99, 100, 909, 1000] {
            let mut buffer = [0; 2000];
            let request = RequestWriter::new(Method::Post, "a", &["/"], &mut buffer);
            let request = request.finish_with(len, |_| Some(len)).unwrap();
            let line = format!("\r\nContent-Length: {len}\r\n\r\n");
            assert!(request[..request.len() - len].ends_with(line.as_bytes()));
        }
    }

    #[test]
    fn a_buffer_too_small_by_any_number_of_octets_is_refused_and_the_exact_one_does() {
        for found in 0..POST.len() {
            let error = post(&mut vec![0; found]).map(<[u8]>::len);
            assert_eq!(error, Err(RequestError::Buffer { found }));
        }
        assert_eq!(post(&mut vec![0; POST.len()]).unwrap(), POST);
        let mut buffer = [0; 64];
        let huge = begin(&mut buffer).finish_with(usize::MAX, |_| Some(usize::MAX));
        assert_eq!(huge, Err(RequestError::Buffer { found: 64 }));
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_refused() {
        for wrote in [Some(2), Some(4), None] {
            let mut buffer = [0; 64];
            let error = begin(&mut buffer).finish_with(3, |_| wrote);
            assert_eq!(error, Err(RequestError::Buffer { found: 64 }));
        }
    }

    #[test]
    fn what_would_end_a_line_is_refused_everywhere() {
        for bad in ["\r", "\n", "\0", "\x7f", "é"] {
            let text = ["/a", bad, "b"].concat();
            let mut buffer = [0; 256];
            let path = RequestWriter::new(Method::Get, "a", &[&text], &mut buffer);
            assert_eq!(path.finish(), Err(RequestError::Path));
            let path = RequestWriter::new(Method::Get, "a", &["/", &text], &mut buffer);
            assert_eq!(path.finish(), Err(RequestError::Path));
            let host = RequestWriter::new(Method::Get, &text[1..], &["/"], &mut buffer);
            assert_eq!(host.finish(), Err(RequestError::Host));
            assert_eq!(header(&mut buffer, "A", &text), Err(RequestError::HeaderValue));
            assert_eq!(header(&mut buffer, &text[1..], "a"), Err(RequestError::HeaderName));
        }
        for bad in ["\r", "\n", "\0", "\x7f"] {
            let mut buffer = [0; 256];
            assert_eq!(basic(&mut buffer, bad, "a"), Err(RequestError::Secret));
            assert_eq!(basic(&mut buffer, "a", bad), Err(RequestError::Secret));
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        let mut buffer = [0; 256];
        for path in ["", "a", "/a b", "/a#b", "http://a/"] {
            let request = RequestWriter::new(Method::Get, "a", &[path], &mut buffer);
            assert_eq!(request.finish(), Err(RequestError::Path));
        }
        let request = RequestWriter::new(Method::Get, "a", &[], &mut buffer);
        assert_eq!(request.finish(), Err(RequestError::Path));
        for host in ["", "a/b", "a b", "u@a"] {
            let request = RequestWriter::new(Method::Get, host, &["/"], &mut buffer);
            assert_eq!(request.finish(), Err(RequestError::Host));
        }
        for name in ["", "a:", "a b", "(a)"] {
            assert_eq!(header(&mut buffer, name, "a"), Err(RequestError::HeaderName));
        }
        for value in [" a", "a ", "\ta"] {
            assert_eq!(header(&mut buffer, "a", value), Err(RequestError::HeaderValue));
        }
        assert!(header(&mut buffer, "!#$%&'*+-.^_`|~09azAZ", "").is_ok());
    }

    /// Goal: what was wrong first is said, whatever comes behind it.
    #[test]
    fn the_first_fault_is_said() {
        let mut buffer = [0; 256];
        let mut request = begin(&mut buffer);
        request.header("a", "b");
        request.header("", "b");
        request.basic("a:b", "c");
        request.header("a", " b");
        assert_eq!(request.finish(), Err(RequestError::HeaderName));
    }

    #[test]
    fn a_colon_may_be_in_a_password_and_not_in_a_user() {
        let mut buffer = [0; 256];
        assert_eq!(basic(&mut buffer, "a:b", "c"), Err(RequestError::Secret));
        let request = basic(&mut buffer, "a", "b:c").unwrap();
        assert!(request.ends_with(b"Authorization: Basic YTpiOmM=\r\n\r\n"));
    }

    #[test]
    fn errors_read_as_text() {
        for (error, text) in [
            (RequestError::Buffer { found: 9 }, "request does not fit into 9 octets"),
            (RequestError::HeaderName, "header name is no token"),
            (RequestError::HeaderValue, "header value is not one line of printable ASCII"),
            (RequestError::Host, "host is no name or address with a port"),
            (RequestError::Path, "path does not begin with '/' or is not printable ASCII"),
            (RequestError::Secret, "user or password cannot be sent with HTTP Basic"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
