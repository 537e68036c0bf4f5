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
/// It takes nothing that could end a line: who gives a header cannot give two.
#[derive(Debug)]
pub struct RequestWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
    method: Method,
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
    /// Begins a request for `path` (which may have a query) on `host` (a name or address, and a
    /// port if it is not 443).
    ///
    /// # Errors
    ///
    /// [`RequestError`] if host or path could be mistaken, or the buffer is too small.
    pub fn new(
        method: Method,
        host: &str,
        path: &str,
        buffer: &'b mut [u8],
    ) -> Result<Self, RequestError> {
        let is_printable = |octet: u8| octet.is_ascii_graphic() && octet != b'#';
        if !path.starts_with('/') || !path.bytes().all(is_printable) {
            return Err(RequestError::Path);
        }
        let is_authority = |octet: u8| octet.is_ascii_alphanumeric() || b".-_:[]".contains(&octet);
        if host.is_empty() || !host.bytes().all(is_authority) {
            return Err(RequestError::Host);
        }
        let mut writer = Self { buffer, len: 0, method };
        for part in [method.name(), path, " HTTP/1.1\r\nHost: ", host, "\r\n"] {
            writer.put(part.as_bytes())?;
        }
        Ok(writer)
    }

    /// Adds a header.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if name or value are not those of one header, or the buffer is too small.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, RequestError> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(RequestError::HeaderName);
        }
        let is_text = |octet: u8| octet.is_ascii_graphic() || matches!(octet, b' ' | b'\t');
        if value.trim_ascii() != value || !value.bytes().all(is_text) {
            return Err(RequestError::HeaderValue);
        }
        for part in [name, ": ", value, "\r\n"] {
            self.put(part.as_bytes())?;
        }
        Ok(self)
    }

    /// Adds `Authorization: Basic`, encoded where it stands: no copy of the password is made.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if user or password are not what HTTP Basic can carry, or the buffer is
    /// too small.
    pub fn basic(mut self, user: &str, password: &str) -> Result<Self, RequestError> {
        let is_control = |octet: u8| octet.is_ascii_control();
        let is_bad_user = user.contains(':') || user.bytes().any(is_control);
        if is_bad_user || password.bytes().any(is_control) {
            return Err(RequestError::Secret);
        }
        self.put(b"Authorization: Basic ")?;
        let start = self.len;
        for part in [user, ":", password] {
            self.put(part.as_bytes())?;
        }
        let len = core::mem::replace(&mut self.len, start) - start;
        let digits = len.div_ceil(3) * 4;
        self.fill(digits, |out| {
            base64::encode_in_place(out, len);
            Some(digits)
        })?;
        self.put(b"\r\n")?;
        Ok(self)
    }

    /// Ends a request without a body.
    ///
    /// # Errors
    ///
    /// [`RequestError::Buffer`] if the buffer is too small.
    pub fn finish(self) -> Result<&'b [u8], RequestError> {
        self.finish_with(0, |_| Some(0))
    }

    /// Ends a request with a body of `len` octets, which `fill` writes where it stands; `fill`
    /// says how many it wrote, and `len` is what it must say.
    ///
    /// # Errors
    ///
    /// [`RequestError::Buffer`] if the buffer is too small, or `fill` wrote another length.
    pub fn finish_with(
        mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<&'b [u8], RequestError> {
        if self.method == Method::Post {
            self.put(b"Content-Length: ")?;
            self.put_decimal(len)?;
            self.put(b"\r\n")?;
        }
        self.put(b"\r\n")?;
        self.fill(len, fill)?;
        let too_small = RequestError::Buffer { found: self.buffer.len() };
        self.buffer.get(..self.len).ok_or(too_small)
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), RequestError> {
        let too_small = RequestError::Buffer { found: self.buffer.len() };
        let free = self.buffer.get_mut(self.len..).ok_or(too_small)?;
        free.get_mut(..octets.len()).ok_or(too_small)?.copy_from_slice(octets);
        self.len += octets.len();
        Ok(())
    }

    fn put_decimal(&mut self, number: usize) -> Result<(), RequestError> {
        if number >= 10 {
            self.put_decimal(number / 10)?;
        }
        let digit = u8::try_from(number % 10).unwrap_or_default();
        self.put(&[b'0' + digit])
    }

    fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), RequestError> {
        let too_small = RequestError::Buffer { found: self.buffer.len() };
        let end = self.len.checked_add(len).ok_or(too_small)?;
        let out = self.buffer.get_mut(self.len..end).ok_or(too_small)?;
        if fill(out) != Some(len) {
            return Err(too_small);
        }
        self.len = end;
        Ok(())
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
        RequestWriter::new(Method::Get, "a", "/", buffer).unwrap()
    }

    fn post(buffer: &mut [u8]) -> Result<&[u8], RequestError> {
        RequestWriter::new(Method::Post, "a", "/", buffer)?
            .basic("Aladdin", "open sesame")?
            .finish_with(12, |out| {
                out.copy_from_slice(b"hello, world");
                Some(12)
            })
    }

    #[test]
    fn a_get_is_written_octet_by_octet_without_a_length() {
        let mut buffer = [0; 256];
        let request = RequestWriter::new(Method::Get, "[::1]:8443", "/a?b=c", &mut buffer);
        let request = request.unwrap().header("X-1", "a b\tc").unwrap();
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
        let request = RequestWriter::new(Method::Post, "a", "/", &mut buffer).unwrap();
        let expected = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(request.finish().unwrap(), expected);
    }

    #[test]
    fn every_length_is_written_in_decimal() {
        for len in [1, 9, 10, 11, 99, 100, 909, 1000] {
            let mut buffer = [0; 2000];
            let request = RequestWriter::new(Method::Post, "a", "/", &mut buffer).unwrap();
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
            let path = RequestWriter::new(Method::Get, "a", &text, &mut buffer).unwrap_err();
            assert_eq!(path, RequestError::Path);
            let host = RequestWriter::new(Method::Get, &text[1..], "/", &mut buffer).unwrap_err();
            assert_eq!(host, RequestError::Host);
            let value = begin(&mut buffer).header("A", &text).unwrap_err();
            assert_eq!(value, RequestError::HeaderValue);
            let name = begin(&mut buffer).header(&text[1..], "a").unwrap_err();
            assert_eq!(name, RequestError::HeaderName);
        }
        for bad in ["\r", "\n", "\0", "\x7f"] {
            let mut buffer = [0; 256];
            let user = begin(&mut buffer).basic(bad, "a").unwrap_err();
            assert_eq!(user, RequestError::Secret);
            let password = begin(&mut buffer).basic("a", bad).unwrap_err();
            assert_eq!(password, RequestError::Secret);
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        let mut buffer = [0; 256];
        for path in ["", "a", "/a b", "/a#b", "http://a/"] {
            let error = RequestWriter::new(Method::Get, "a", path, &mut buffer).unwrap_err();
            assert_eq!(error, RequestError::Path);
        }
        for host in ["", "a/b", "a b", "u@a"] {
            let error = RequestWriter::new(Method::Get, host, "/", &mut buffer).unwrap_err();
            assert_eq!(error, RequestError::Host);
        }
        for name in ["", "a:", "a b", "(a)"] {
            let error = begin(&mut buffer).header(name, "a").unwrap_err();
            assert_eq!(error, RequestError::HeaderName);
        }
        for value in [" a", "a ", "\ta"] {
            let error = begin(&mut buffer).header("a", value).unwrap_err();
            assert_eq!(error, RequestError::HeaderValue);
        }
        assert!(begin(&mut buffer).header("!#$%&'*+-.^_`|~09azAZ", "").is_ok());
    }

    #[test]
    fn a_colon_may_be_in_a_password_and_not_in_a_user() {
        let mut buffer = [0; 256];
        assert_eq!(begin(&mut buffer).basic("a:b", "c").unwrap_err(), RequestError::Secret);
        let request = begin(&mut buffer).basic("a", "b:c").unwrap().finish().unwrap();
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
