//! Every way into a panic that the flashed code has.
//!
//! **What it is.** A panic begins with a call: of the panic handler, or of a function of the standard
//! library that ends there (a *door*). Each call carries the place in the sources that the message
//! will name, a `core::panic::Location` among the constants. So the functions that refer to a door,
//! and the places that they refer to, are all the panics there are; [`sites`] finds them, and
//! [`super::listing`] wants a reason for each.
//!
//! **What it must never do.** Leave one out. Doors are found from the handler backwards, by no list
//! of names; a place that a function refers to counts even if it is for another purpose; a function
//! that refers to a door and to no place is named itself.
//!
//! **What it cannot see.** Exceptions of the processor, which end in the board's trap handler, and
//! sums that wrap: a release build does not check them.

use std::collections::BTreeSet;
use std::fmt;

use super::image::{Image, Symbol};
use super::reference;

/// What every panic ends in; the compiler gives it this name.
const HANDLER: &str = "__rustc::rust_begin_unwind";

/// Functions of the standard library begin with one of these.
const STANDARD: [&str; 4] = ["<alloc::", "<core::", "alloc::", "core::"];

/// Where doors lie that only a future takes that is polled after its end.
const RESUMED: &str = "core::panicking::panic_const::panic_const_async_";

/// Octets of a word, and of what a place in the sources is made of: pointer and length of a text,
/// line, column.
const WORD_LEN: u32 = 4;

/// A path is shorter.
const PATH_LEN_MAX: u32 = 512;

/// What stands before a file of the standard library that came compiled: a commit follows.
const COMPILED: &str = "/rustc/";

/// What stands before its name in it.
const LIBRARY: &str = "/library/";

/// A way into a panic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The function that calls.
    pub function: String,
    /// What the message would name. None where the function refers to no place.
    pub place: Option<Place>,
    /// Whether it is only taken when a future is polled after its end.
    pub is_resumption: bool,
}

/// A place in the sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From the top of our sources, from a crate's name and version, or from `core`.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column } = self;
        write!(f, "{file}:{line}:{column}")
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place} in {}", self.function),
            None => f.write_str(&self.function),
        }
    }
}

/// There is no panic handler in the image, so nothing can be said of ways to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHandler;

impl fmt::Display for NoHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a function {HANDLER}, found none: is the image stripped?")
    }
}

impl std::error::Error for NoHandler {}

/// A function, and what it refers to.
struct Caller<'a> {
    function: &'a Symbol,
    /// First addresses of functions.
    calls: BTreeSet<u32>,
    places: BTreeSet<Place>,
}

/// All ways into a panic.
///
/// # Errors
///
/// [`NoHandler`].
pub fn sites(image: &Image) -> Result<BTreeSet<Site>, NoHandler> {
    let handler = image.functions().find(|one| one.name == HANDLER).ok_or(NoHandler)?;
    let callers: Vec<_> = image.functions().map(|one| caller(image, one)).collect();
    let mut doors = BTreeSet::from([handler.address]);
    // What panics in its caller's name is a door, too.
    while callers.iter().any(|one| {
        let is_door = one.is_standard() && one.places.is_empty() && one.enters(&doors);
        is_door && doors.insert(one.function.address)
    }) {}
    let mut sites = BTreeSet::new();
    for caller in &callers {
        if caller.enters(&doors) && !doors.contains(&caller.function.address) {
            caller.tell(image, &doors, &mut sites);
        }
    }
    sites.extend(through_tables(image, &doors));
    Ok(sites)
}

fn caller<'a>(image: &Image, function: &'a Symbol) -> Caller<'a> {
    let (mut calls, mut places) = (BTreeSet::new(), BTreeSet::new());
    for reference in reference::of(image, function) {
        let target = image.entered(reference.to).filter(|to| to.address != function.address);
        calls.extend(target.map(|to| to.address));
        places.extend(place(image, reference.to));
    }
    Caller { function, calls, places }
}

impl Caller<'_> {
    fn is_standard(&self) -> bool {
        STANDARD.iter().any(|krate| self.function.name.starts_with(krate))
    }

    fn enters(&self, doors: &BTreeSet<u32>) -> bool {
        !self.calls.is_disjoint(doors)
    }

    /// What is known of its ways through doors.
    fn tell(&self, image: &Image, doors: &BTreeSet<u32>, sites: &mut BTreeSet<Site>) {
        let is_resumption = self.calls.intersection(doors).all(|door| {
            image.entered(*door).is_some_and(|function| function.name.starts_with(RESUMED))
        });
        let function = self.function.name.clone();
        let site = |place| Site { function: function.clone(), place, is_resumption };
        if self.places.is_empty() {
            sites.insert(site(None));
        }
        sites.extend(self.places.iter().cloned().map(|place| site(Some(place))));
    }
}

/// Doors that lie in a table, to be called by whoever has the table.
fn through_tables(image: &Image, doors: &BTreeSet<u32>) -> impl Iterator<Item = Site> {
    image.words().filter_map(|(at, word)| {
        let door = image.entered(word).filter(|door| doors.contains(&door.address))?;
        let function = format!("the word at {at:#x}, which is {}", door.name);
        Some(Site { function, place: None, is_resumption: false })
    })
}

/// The place in the sources that a constant is.
fn place(image: &Image, at: u32) -> Option<Place> {
    let word = |number| image.word(at.checked_add(number * WORD_LEN)?);
    let (text, len, line, column) = (word(0)?, word(1)?, word(2)?, word(3)?);
    if !at.is_multiple_of(WORD_LEN) || len > PATH_LEN_MAX || line == 0 || column == 0 {
        return None;
    }
    let path = std::str::from_utf8(image.octets(text, len)?).ok()?.trim_end_matches('\0');
    let is_source = path.strip_suffix(".rs").is_some_and(|stem| !stem.contains('\0'));
    is_source.then(|| Place { file: short(path).to_owned(), line, column })
}

/// A path without the compiler's version.
fn short(path: &str) -> &str {
    let library = path.strip_prefix(COMPILED).and_then(|path| path.split_once(LIBRARY));
    library.map_or(path, |(_, file)| file)
}
