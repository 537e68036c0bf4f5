//! Flash and RAM by who takes them.
//!
//! **What it is.** Every octet of a program belongs to a component: the crate that its function or
//! variable is named after, and of our own crates the room. Code of the standard library that was
//! made for somebody's types is somebody's. A constant without a name belongs to who refers to it
//! first.
//!
//! **What it cannot see.** A function that has been inlined is its caller's: the table says where
//! octets are, and only by and large who has written them.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Image, Kind, Symbol};
use super::page::{Table, octets};
use super::reference;

/// Crates that come with the compiler.
const STANDARD: [&str; 3] = ["alloc", "core", "compiler_builtins"];

/// What the crates of ours are called, up to their last word.
const OURS: &str = "fleetcert_";

/// What is called by bare names of the C library, or of a compiler's run time.
const BUILTINS: &str = "compiler_builtins";

/// How the compiler calls what it has cut out of several functions, to have it once.
const OUTLINED: &str = "OUTLINED_FUNCTION_";

/// Whose that is.
const SHARED: &str = "cut out of several";

/// Whoever cannot be told: start-up code in assembly, and octets between pieces.
const OTHER: &str = "start-up code, padding";

/// What takes as much, in flash or in RAM, has its own line in a table. Octets.
const LINE_LEN_MIN: u32 = 1024;

/// What a component takes, in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Instructions, in flash.
    pub code: u32,
    /// Constants and initial values, in flash.
    pub constants: u32,
    /// Variables, in RAM.
    pub ram: u32,
}

impl Share {
    /// All that is in flash.
    #[must_use]
    pub const fn flash(&self) -> u32 {
        self.code + self.constants
    }

    const fn is_large(&self) -> bool {
        self.flash() >= LINE_LEN_MIN || self.ram >= LINE_LEN_MIN
    }

    fn add(&mut self, kind: Kind, len: u32) {
        match kind {
            Kind::Code => self.code += len,
            Kind::Constant => self.constants += len,
            Kind::Initialised => {
                self.constants += len;
                self.ram += len;
            }
            Kind::Zeroed => self.ram += len,
            Kind::Dma | Kind::Stack => {}
        }
    }
}

/// The components of programs side by side, flash and RAM of each. What is small in all of them is
/// put together; the last line is the sum.
#[must_use]
pub fn table(programs: &[(&str, &Image)]) -> Table {
    let programs: Vec<_> = programs.iter().map(|(name, image)| (*name, shares(image))).collect();
    let each = |name: &str| -> Vec<Share> {
        programs.iter().map(|(_, shares)| shares.get(name).copied().unwrap_or_default()).collect()
    };
    let sum = |names: &[&str]| {
        names.iter().map(|name| each(name)).fold(vec![Share::default(); programs.len()], add)
    };
    let all: BTreeSet<&str> =
        programs.iter().flat_map(|(_, shares)| shares.keys().map(String::as_str)).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let is_large = |name: &&str| each(name).iter().any(|share| share.is_large());
    let (large, small): (Vec<&str>, Vec<&str>) = all.iter().partition(|name| is_large(name));
    let mut rows: Vec<_> = large.iter().map(|name| row(name, &each(name))).collect();
    rows.extend([row("what is smaller", &sum(&small)), row("all", &sum(&all))]);
    let heads = programs.iter().flat_map(|(name, _)| [format!("{name}: flash"), "RAM".to_owned()]);
    Table { head: ["component".to_owned()].into_iter().chain(heads).collect(), rows }
}

fn add(sums: Vec<Share>, more: Vec<Share>) -> Vec<Share> {
    let add = |(one, other): (Share, Share)| Share {
        code: one.code + other.code,
        constants: one.constants + other.constants,
        ram: one.ram + other.ram,
    };
    sums.into_iter().zip(more).map(add).collect()
}

fn row(name: &str, shares: &[Share]) -> Vec<String> {
    let cells = shares.iter().flat_map(|share| [octets(share.flash()), octets(share.ram)]);
    [name.to_owned()].into_iter().chain(cells).collect()
}

/// What each component of a program takes. The sums are [`Image::sizes`].
#[must_use]
pub fn shares(image: &Image) -> BTreeMap<String, Share> {
    let owners = owners(image);
    let mut shares = BTreeMap::<String, Share>::new();
    let mut rest = image.lens();
    for symbol in image.symbols() {
        let owner = owners.get(&symbol.address).map_or(OTHER, String::as_str);
        shares.entry(owner.to_owned()).or_default().add(symbol.kind, symbol.len);
        *rest.entry(symbol.kind).or_default() -= symbol.len;
    }
    for (kind, len) in rest {
        shares.entry(OTHER.to_owned()).or_default().add(kind, len);
    }
    shares
}

/// Who owns each piece, by its address.
fn owners(image: &Image) -> BTreeMap<u32, String> {
    let mut owners: BTreeMap<u32, String> = image
        .symbols()
        .iter()
        .filter(|symbol| symbol.is_named())
        .map(|symbol| (symbol.address, of(&symbol.name)))
        .collect();
    let mut links = Vec::new();
    for function in image.functions() {
        let named = reference::of(image, function);
        links.extend(named.iter().filter_map(|one| Some((function, image.at(one.to)?))));
    }
    for (at, word) in image.words() {
        links.extend(image.at(at).zip(image.at(word)));
    }
    // A constant that only constants refer to has an owner when they have.
    while adopt(&mut owners, &links) {}
    owners
}

/// Gives what has no owner that of who refers to it; whether there was any.
fn adopt(owners: &mut BTreeMap<u32, String>, links: &[(&Symbol, &Symbol)]) -> bool {
    let before = owners.len();
    for (from, to) in links {
        if let Some(owner) = owners.get(&from.address).cloned() {
            owners.entry(to.address).or_insert(owner);
        }
    }
    owners.len() > before
}

/// The component that a symbol is named after.
#[must_use]
pub fn of(name: &str) -> String {
    let is_of_path = |octet: char| octet.is_ascii_alphanumeric() || matches!(octet, '_' | ':');
    let mut paths = name
        .split(|octet| !is_of_path(octet))
        .filter_map(|path| path.split_once("::"))
        .filter(|(krate, _)| !krate.is_empty());
    let Some((first, _)) = paths.clone().next() else {
        let component = match name {
            _ if name.starts_with(OUTLINED) => SHARED,
            _ if name.starts_with("__") || name.starts_with("mem") => BUILTINS,
            _ => OTHER,
        };
        return component.to_owned();
    };
    let Some((krate, rest)) = paths.find(|(krate, _)| !STANDARD.contains(krate)) else {
        return first.to_owned();
    };
    let room = rest.split("::").next().unwrap_or_default();
    let is_room = krate.starts_with(OURS) && room.starts_with(|octet: char| octet.is_lowercase());
    if is_room { format!("{krate}::{room}") } else { krate.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a symbol counts for who has written it, whichever way the compiler spells it.
    #[test]
    fn a_symbol_is_named_after_its_component() {
        for (name, component) in [
            ("smoltcp::wire::tcp::Repr::parse", "smoltcp"),
            ("<smoltcp::wire::ip::Protocol as core::convert::From<u8>>::from", "smoltcp"),
            ("<&mut [smoltcp::A] as fleetcert_core::x::Y>::z", "smoltcp"),
            ("<fleetcert_firmware::net::Net<D,C>>::wait", "fleetcert_firmware::net"),
            ("fleetcert_tpm::tpm::Tpm<T>::start", "fleetcert_tpm::tpm"),
            ("core::ptr::drop_in_place<fleetcert_core::est::Body>", "fleetcert_core::est"),
            ("<u8 as core::fmt::Debug>::fmt", "core"),
            ("core::slice::index::slice_index_fail", "core"),
            ("<core::option::Option<T> as embedded_io::Read>::read", "embedded_io"),
            ("memcpy", "compiler_builtins"),
            ("__udivdi3", "compiler_builtins"),
            ("OUTLINED_FUNCTION_12", SHARED),
            ("_start", OTHER),
        ] {
            assert_eq!(of(name), component, "{name}");
        }
    }
}
