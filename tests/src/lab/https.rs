//! curl: HTTPS as others speak it.

use std::path::PathBuf;
use std::process::Command;

use super::OrFail;
use super::by_hand::{Credential, text};
use super::run;

/// Seconds that a request may take; the service's own limits are shorter.
const REQUEST_S_MAX: &str = "20";

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Https {
    url: String,
    server_root: PathBuf,
    arguments: Vec<String>,
}

/// A server's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The header fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Https {
    pub(super) fn new(url: &str, server_root: PathBuf) -> Self {
        Self { url: url.to_owned(), server_root, arguments: Vec::new() }
    }

    /// With HTTP Basic (RFC 7617).
    #[must_use]
    pub fn basic(self, user: &str, password: &str) -> Self {
        self.with(&["--user", &format!("{user}:{password}")])
    }

    /// With a client certificate.
    #[must_use]
    pub fn identity(self, Credential { certificate, key }: &Credential) -> Self {
        self.with(&["--cert", text(certificate), "--key", text(key)])
    }

    /// With a header field.
    #[must_use]
    pub fn field(self, name: &str, value: &str) -> Self {
        self.with(&["--header", &format!("{name}: {value}")])
    }

    /// With more of curl's arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    /// POST of a certification request, or of what a `Content-Type` field says.
    #[track_caller]
    pub fn post(&self, path: &str, body: &[u8]) -> Reply {
        self.send("POST", path, Some(body))
    }

    /// Any method, with or without a body.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Reply {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--http1.1", "--path-as-is"]);
        command.args(["--max-time", REQUEST_S_MAX, "--cacert", text(&self.server_root)]);
        if method == "HEAD" {
            command.arg("--head");
        } else {
            command.args(["--request", method]);
        }
        if body.is_some() {
            command.args(["--data-binary", "@-", "--header", "Expect:"]);
            if !self.arguments.iter().any(|argument| argument.starts_with("Content-Type:")) {
                command.args(["--header", "Content-Type: application/pkcs10"]);
            }
        }
        command.args(&self.arguments).arg(format!("{}{path}", self.url));
        let outcome = run::run(command, body.unwrap_or_default());
        Reply::read(&outcome.octets).or_fail(&outcome.text())
    }
}

impl Reply {
    /// Reads an answer as it came: head and body, with nothing around them.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = str::from_utf8(&octets[..end]).ok()?;
        let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let fields = rest.split("\r\n").filter_map(|line| line.split_once(':'));
        let fields =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Self { status, fields: fields.collect(), body: octets[end + 4..].to_vec() })
    }

    /// A header field; its name in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The provisioner's reason code; empty where it gave none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.field("fleetcert-reason").unwrap_or_default()
    }

    /// Status and reason code.
    #[must_use]
    pub fn verdict(&self) -> (u16, &str) {
        (self.status, self.reason())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
