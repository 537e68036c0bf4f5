//! The list of panics that may be in a firmware, each with its reason: `docs/panics.md`.
//!
//! **What it is.** A table with a row for each line of ours, and for each file of others, where the
//! code could panic. Ours are listed line by line, by their text: a line that moves is the same. Of
//! others the row has the numbers of the lines, in a file of one version: an update is looked at
//! anew.
//!
//! **What it must never do.** Let a list grow old: a row that nothing matches is as wrong as a panic
//! without a row. (One compiler leaves out a check that another leaves in, so of a file's lines one
//! has to be found, and of the standard library, which differs with each compiler, none. A row for
//! that says instead whose function it is that does not tell its own place.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use super::component;
use super::page;
use super::panics::{Place, Site};

/// The table's first line.
const HEAD: [&str; 3] = ["where", "what", "why it stays away"];

/// What a future does that is polled after its end, wherever it is.
pub const FUTURES: &str = "futures";

/// Stands where no number and no text is wanted.
const ANY: &str = "any";

/// The compiler's own libraries.
const LIBRARIES: [&str; 2] = ["alloc/", "core/"];

/// How a log record begins in the sources: its place is told to a logger, not to a panic.
const LOG_MACROS: [&str; 6] = ["debug!(", "error!(", "info!(", "log!(", "trace!(", "warn!("];

/// The reasons that are written down.
#[derive(Debug)]
pub struct Listing {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    at: String,
    what: String,
    reason: String,
}

/// What is found, as the table would have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Polling a finished future.
    Futures,
    /// A file of somebody else's.
    File(String),
    /// A function that refers to no place.
    Function(String),
    /// A file of the standard library, in a function of this component.
    Library { file: String, by: String },
    /// A line of ours.
    Line { file: String, text: String },
}

/// What is wrong with the list, or with the firmware.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    /// A row says nothing.
    NoReason {
        /// Its first cell.
        at: String,
    },
    /// A row for what is not there.
    Stale {
        /// Its first cell.
        at: String,
        /// Its second.
        what: String,
    },
    /// A panic without a row.
    Unlisted {
        /// The row that is missing.
        row: String,
        /// What there is, one line each.
        found: Vec<String>,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReason { at } => write!(f, "{at}: there is no reason"),
            Self::Stale { at, what } => write!(f, "{at}: {what}: listed, and not there"),
            Self::Unlisted { row, found } => {
                write!(f, "not listed: {row}")?;
                lines(f, found)
            }
        }
    }
}

fn lines(f: &mut fmt::Formatter<'_>, lines: &[String]) -> fmt::Result {
    lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
}

impl Listing {
    /// Reads the tables of a page.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let rows = page::tables(text)
            .into_iter()
            .filter(|table| table.head == HEAD)
            .flat_map(|table| table.rows)
            .filter_map(|row| {
                let [at, what, reason] = row.try_into().ok()?;
                let plain = |cell: &str| cell.trim_matches('`').to_owned();
                Some(Row { at: plain(&at), what: plain(&what), reason })
            })
            .collect();
        Self { rows }
    }

    /// Compares it with what was found in all firmware; `top` is where our sources are.
    #[must_use]
    pub fn judge(&self, sites: &BTreeSet<Site>, top: &Path) -> BTreeSet<Complaint> {
        let found = subjects(sites, top);
        let mut complaints = BTreeSet::new();
        for row in &self.rows {
            let at = row.at.clone();
            if row.reason.is_empty() {
                complaints.insert(Complaint::NoReason { at: at.clone() });
            }
            if !is_of_compiler(&row.at) && !found.keys().any(|subject| row.is_about(subject)) {
                complaints.insert(Complaint::Stale { at, what: row.what.clone() });
            }
        }
        complaints.extend(found.iter().filter_map(|(subject, found)| self.look_up(subject, found)));
        complaints
    }

    /// What of it is not listed.
    fn look_up(&self, subject: &Subject, found: &BTreeSet<Found>) -> Option<Complaint> {
        let row = self.rows.iter().find(|row| row.is_about(subject));
        let unlisted: Vec<&Found> = match row {
            Some(row) => found.iter().filter(|one| !row.has_line(one.line)).collect(),
            None => found.iter().collect(),
        };
        if unlisted.is_empty() {
            return None;
        }
        let row = subject.row(found);
        Some(Complaint::Unlisted {
            row,
            found: unlisted.into_iter().map(Found::to_string).collect(),
        })
    }
}

impl Row {
    /// Whether it is for all lines, or for this one.
    fn has_line(&self, line: u32) -> bool {
        let numbers: Option<Vec<u32>> =
            self.what.split(", ").map(|number| number.parse().ok()).collect();
        numbers.is_none_or(|numbers| numbers.contains(&line))
    }

    fn is_about(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Futures => self.at == FUTURES,
            Subject::File(file) => self.at == *file,
            Subject::Function(name) => self.at == *name,
            Subject::Library { file, by } => self.at == *file && self.what == *by,
            Subject::Line { file, text } => self.at == *file && self.what == *text,
        }
    }
}

impl Subject {
    /// The row that it wants, but for the reason.
    fn row(&self, found: &BTreeSet<Found>) -> String {
        match self {
            Self::Futures => format!("| {FUTURES} | {ANY} | |"),
            Self::File(file) => {
                let lines: BTreeSet<u32> = found.iter().map(|one| one.line).collect();
                let lines: Vec<String> = lines.iter().map(u32::to_string).collect();
                format!("| `{file}` | {} | |", lines.join(", "))
            }
            Self::Function(name) => format!("| `{name}` | {ANY} | |"),
            Self::Library { file, by } => format!("| `{file}` | `{by}` | |"),
            Self::Line { file, text } => format!("| `{file}` | `{text}` | |"),
        }
    }
}

/// A place, or a function, to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    line: u32,
    text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The standard library is another with each compiler.
fn is_of_compiler(file: &str) -> bool {
    LIBRARIES.iter().any(|library| file.starts_with(library))
}

/// What there is to give reasons for, and where.
fn subjects(sites: &BTreeSet<Site>, top: &Path) -> BTreeMap<Subject, BTreeSet<Found>> {
    let mut subjects = BTreeMap::<_, BTreeSet<_>>::new();
    for site in sites {
        let Some(subject) = subject(site, top) else { continue };
        let line = site.place.as_ref().map_or(0, |place| place.line);
        subjects.entry(subject).or_default().insert(Found { line, text: site.to_string() });
    }
    subjects
}

/// What a site is listed as; none for the place of a log record.
fn subject(site: &Site, top: &Path) -> Option<Subject> {
    let Some(place) = &site.place else {
        return Some(Subject::Function(site.function.clone()));
    };
    let file = place.file.clone();
    let Some(line) = line_of_ours(top, place) else {
        return Some(match site.is_resumption {
            true => Subject::Futures,
            false if is_of_compiler(&file) => {
                Subject::Library { file, by: component::of(&site.function) }
            }
            false => Subject::File(file),
        });
    };
    let from = usize::try_from(place.column - 1).ok().and_then(|column| line.get(column..));
    let from = from.unwrap_or_default().trim_start_matches("log::");
    if LOG_MACROS.iter().any(|name| from.starts_with(name)) {
        return None;
    }
    // The place of a future is where its body begins.
    if site.is_resumption || from.starts_with('{') || from.starts_with("async ") {
        return Some(Subject::Futures);
    }
    let text = line.trim().replace('|', "\\|");
    Some(Subject::Line { file, text })
}

/// The line of a file of ours; none for a file of somebody else's.
fn line_of_ours(top: &Path, place: &Place) -> Option<String> {
    let text = fs::read_to_string(top.join(&place.file)).ok()?;
    let number = usize::try_from(place.line - 1).ok()?;
    Some(text.lines().nth(number).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# Panics

| where | what | why it stays away |
|---|---|---|
| `ours/src/lib.rs` | `let last = all[len - 1];` | there is one |
| `theirs-1.0.0/src/lib.rs` | 7, 9 | lengths are checked |
| `theirs::end` | any | never called |
| futures | any | driven once |

| other | table |
|---|---|
| `theirs-1.0.0/src/lib.rs` | 9 |
";

    const HEAD_LINES: &str = "| where | what | why it stays away |\n|---|---|---|";

    const OURS: &str = "fn f() {\n    let last = all[len - 1];\n    info!(\"last: {last}\");\n}\n";

    fn site(file: &str, line: u32, column: u32) -> Site {
        let place = Place { file: file.to_owned(), line, column };
        Site { function: "f".to_owned(), place: Some(place), is_resumption: false }
    }

    fn all() -> BTreeSet<Site> {
        let end = Site { function: "theirs::end".to_owned(), place: None, is_resumption: false };
        BTreeSet::from([
            site("ours/src/lib.rs", 2, 16),
            site("ours/src/lib.rs", 3, 5),
            site("theirs-1.0.0/src/lib.rs", 7, 1),
            site("theirs-1.0.0/src/lib.rs", 9, 1),
            Site { is_resumption: true, ..site("theirs-1.0.0/src/future.rs", 1, 1) },
            end,
        ])
    }

    /// What the page says of these sites.
    fn judge(page: &str, sites: &BTreeSet<Site>) -> Vec<String> {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("ours/src")).unwrap();
        fs::write(top.path().join("ours/src/lib.rs"), OURS).unwrap();
        let complaints = Listing::parse(page).judge(sites, top.path());
        complaints.iter().map(Complaint::to_string).collect()
    }

    /// Goal: what has a reason is no complaint, and the place of a log record needs none.
    #[test]
    fn what_is_listed_is_not_complained_of() {
        assert_eq!(judge(PAGE, &all()), Vec::<String>::new());
        let elsewhere = Site { function: "g".to_owned(), ..site("theirs-1.0.0/src/lib.rs", 9, 1) };
        assert_eq!(judge(PAGE, &(&all() | &BTreeSet::from([elsewhere]))), Vec::<String>::new());
    }

    /// Goal: a panic that nobody has looked at is named, with the row that it wants.
    #[test]
    fn what_is_not_listed_is_named() {
        for (row, wanted) in [
            ("`ours/src/lib.rs`", "| `ours/src/lib.rs` | `let last = all[len - 1];` |"),
            ("`theirs-1.0.0/src/lib.rs`", "| `theirs-1.0.0/src/lib.rs` | 7, 9 |"),
            ("`theirs::end`", "| `theirs::end` | any |"),
            ("futures", "| futures | any |"),
        ] {
            let page: Vec<_> =
                PAGE.lines().filter(|line| !line.starts_with(&format!("| {row}"))).collect();
            let complaints = judge(&page.join("\n"), &all());
            assert!(
                matches!(&complaints[..], [one] if one.contains(wanted)),
                "{row}: {complaints:?}"
            );
        }
    }

    /// Goal: one place more in a file of others is a panic that nobody has looked at.
    #[test]
    fn a_place_more_is_named() {
        let more = &all() | &BTreeSet::from([site("theirs-1.0.0/src/lib.rs", 11, 1)]);
        let complaints = judge(PAGE, &more);
        let is_named = |one: &String| one.contains(":11:1") && !one.contains(":7:1");
        assert!(matches!(&complaints[..], [one] if is_named(one)), "{complaints:?}");
    }

    /// Goal: what one compiler has and another has not needs a row for the first.
    #[test]
    fn the_standard_library_may_differ() {
        let page = format!("{PAGE}\n{HEAD_LINES}\n| `core/src/fmt/num.rs` | `core` | digits |\n");
        assert_eq!(judge(&page, &all()), Vec::<String>::new());
        let function = "theirs::end".to_owned();
        let other = Site { function, ..site("core/src/fmt/mod.rs", 5, 1) };
        let other = &all() | &BTreeSet::from([other]);
        let complaints = judge(&page, &other);
        let wanted = "| `core/src/fmt/mod.rs` | `theirs` |";
        assert!(matches!(&complaints[..], [one] if one.contains(wanted)), "{complaints:?}");
    }

    /// Goal: a row that says nothing, or speaks of what is not there, fails too.
    #[test]
    fn a_stale_row_is_named() {
        let complaints = judge(PAGE, &BTreeSet::new());
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        let silent = PAGE.replace("driven once", "");
        assert_eq!(judge(&silent, &all()), ["futures: there is no reason"]);
        let changed = PAGE.replace("all[len - 1]", "all[len - 2]");
        assert_eq!(judge(&changed, &all()).len(), 2);
    }
}
