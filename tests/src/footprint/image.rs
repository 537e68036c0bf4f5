//! An ELF file as a board is flashed with it: sections, symbols, octets.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::read::File;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};

/// The section that holds the stack, by the linker scripts of the boards.
const STACK: &str = ".stack";

/// The section that devices read and write by themselves.
const DMA: &str = ".dma";

/// How the compiler calls variables that it has put together; each has a symbol of its own, too.
const GROUP: &str = ".L_MergedGlobals";

/// What stands before the name of a function that has a table of values.
const TABLE: &str = ".Lswitch.table.";

/// How the compiler calls a constant that has no name in the source.
const NAMELESS: &str = ".L";

/// What the firmware is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 32-bit RISC-V with compressed instructions.
    Riscv32,
    /// Arm's Thumb-2, as on Cortex-M.
    Thumb,
}

/// A program as it lies in a board's memory.
#[derive(Debug)]
pub struct Image {
    /// What it is compiled for.
    pub architecture: Architecture,
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
    /// Where data begins in the midst of code, and where code begins again, by address.
    marks: Vec<Mark>,
}

/// A part of memory.
#[derive(Debug)]
struct Section {
    kind: Kind,
    address: u32,
    len: u32,
    /// Nothing where the section has no content of its own.
    octets: Vec<u8>,
}

/// What a part of memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Instructions, in flash.
    Code,
    /// What never changes, in flash.
    Constant,
    /// Variables that begin with a value: in RAM, and the value in flash.
    Initialised,
    /// Variables that begin as zero, in RAM.
    Zeroed,
    /// The stack, in RAM.
    Stack,
    /// What devices read and write by themselves, in RAM.
    Dma,
}

/// A named piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As the compiler's source spells it, without its hash.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its first octet.
    pub address: u32,
    /// Its octets.
    pub len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    address: u32,
    is_data: bool,
}

/// What a program takes, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Code, constants, and what is copied to RAM at the start.
    pub flash: u32,
    /// Variables, without the stack and without what devices read and write by themselves.
    pub ram: u32,
    /// What devices read and write by themselves.
    pub dma: u32,
    /// What the linker script gives to the stack.
    pub stack: u32,
}

/// Why a file is no firmware.
#[derive(Debug)]
pub enum ImageError {
    /// It is an ELF file of another kind.
    Foreign {
        /// What it is for.
        architecture: object::Architecture,
    },
    /// It is not a whole ELF file.
    Malformed(object::Error),
    /// It has an address or a length beyond 32 bits.
    TooLarge {
        /// The number.
        value: u64,
    },
    /// It cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { architecture } => {
                write!(f, "expected code for 32-bit RISC-V or Arm, found {architecture:?}")
            }
            Self::Malformed(why) => write!(f, "not a whole ELF file: {why}"),
            Self::TooLarge { value } => write!(f, "expected 32 bits, found {value:#x}"),
            Self::Unreadable { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for ImageError {}

impl From<object::Error> for ImageError {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error)
    }
}

impl Kind {
    /// Whether it takes flash.
    #[must_use]
    pub const fn is_in_flash(self) -> bool {
        matches!(self, Self::Code | Self::Constant | Self::Initialised)
    }

    /// Whether it takes RAM that a budget counts: not the stack, of which the peak counts, and not
    /// the pages that hardware asks for.
    #[must_use]
    pub const fn is_in_ram(self) -> bool {
        matches!(self, Self::Initialised | Self::Zeroed)
    }
}

impl Symbol {
    /// Whether the source has a name for it.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.name.starts_with(NAMELESS)
    }

    /// One past its last octet.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.address.saturating_add(self.len)
    }
}

impl Image {
    /// Reads an ELF file.
    ///
    /// # Errors
    ///
    /// [`ImageError`] says what it is instead of a board's firmware.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let octets = fs::read(path)
            .map_err(|source| ImageError::Unreadable { path: path.to_path_buf(), source })?;
        let file = File::parse(&*octets)?;
        let architecture = match file.architecture() {
            object::Architecture::Arm => Architecture::Thumb,
            object::Architecture::Riscv32 => Architecture::Riscv32,
            architecture => return Err(ImageError::Foreign { architecture }),
        };
        let sections = sections(&file)?;
        let (symbols, marks) = symbols(&file, architecture, &sections)?;
        Ok(Self { architecture, sections, symbols, marks })
    }

    /// Octets of each kind.
    #[must_use]
    pub fn lens(&self) -> BTreeMap<Kind, u32> {
        let mut lens = BTreeMap::new();
        for section in &self.sections {
            *lens.entry(section.kind).or_default() += section.len;
        }
        lens
    }

    /// What it takes.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let lens = self.lens();
        let sum = |wanted: fn(Kind) -> bool| {
            lens.iter().filter(|(kind, _)| wanted(**kind)).map(|(_, len)| len).sum()
        };
        Sizes {
            flash: sum(Kind::is_in_flash),
            ram: sum(Kind::is_in_ram),
            dma: sum(|kind| kind == Kind::Dma),
            stack: sum(|kind| kind == Kind::Stack),
        }
    }

    /// Its named pieces, by address. No two overlap.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// Its functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.kind == Kind::Code)
    }

    /// The piece in which an address lies.
    #[must_use]
    pub fn at(&self, address: u32) -> Option<&Symbol> {
        let after = self.symbols.partition_point(|symbol| symbol.address <= address);
        let found = self.symbols.get(after.checked_sub(1)?)?;
        (address < found.end()).then_some(found)
    }

    /// The function that begins at an address, or at the address less the bit that says Thumb.
    #[must_use]
    pub fn entered(&self, address: u32) -> Option<&Symbol> {
        let first = match self.architecture {
            Architecture::Riscv32 => address,
            Architecture::Thumb => address & !1,
        };
        self.at(first).filter(|found| found.kind == Kind::Code && found.address == first)
    }

    /// Octets that are in flash.
    #[must_use]
    pub fn octets(&self, address: u32, len: u32) -> Option<&[u8]> {
        let holds = |section: &&Section| {
            address >= section.address && address - section.address < section.len
        };
        let section = self.sections.iter().find(holds)?;
        let start = usize::try_from(address - section.address).ok()?;
        section.octets.get(start..)?.get(..usize::try_from(len).ok()?)
    }

    /// A word that is in flash.
    #[must_use]
    pub fn word(&self, address: u32) -> Option<u32> {
        let octets = self.octets(address, 4)?;
        octets.try_into().ok().map(u32::from_le_bytes)
    }

    /// Addresses and words of constants and initial values, at every place where a pointer can be.
    pub fn words(&self) -> impl Iterator<Item = (u32, u32)> {
        let with_words =
            |section: &&Section| matches!(section.kind, Kind::Constant | Kind::Initialised);
        self.sections.iter().filter(with_words).flat_map(|section| {
            let words = section.octets.as_chunks().0.iter().copied().map(u32::from_le_bytes);
            (section.address..).step_by(4).zip(words)
        })
    }

    /// Whether there is data at an address in the midst of code, as far as the linker says so.
    #[must_use]
    pub fn is_data(&self, address: u32) -> bool {
        let after = self.marks.partition_point(|mark| mark.address <= address);
        after.checked_sub(1).and_then(|last| self.marks.get(last)).is_some_and(|mark| mark.is_data)
    }
}

/// The sections that a board has in its memory.
fn sections(file: &File<'_>) -> Result<Vec<Section>, ImageError> {
    let mut sections = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let is = |flag| sh_flags.contains(flag);
        if !is(elf::SHF_ALLOC) || section.size() == 0 {
            continue;
        }
        let octets = section.data()?.to_vec();
        let kind = match section.name()? {
            STACK => Kind::Stack,
            DMA => Kind::Dma,
            _ if is(elf::SHF_EXECINSTR) => Kind::Code,
            _ if !is(elf::SHF_WRITE) => Kind::Constant,
            _ if octets.is_empty() => Kind::Zeroed,
            _ => Kind::Initialised,
        };
        let (address, len) = (narrow(section.address())?, narrow(section.size())?);
        sections.push(Section { kind, address, len, octets });
    }
    Ok(sections)
}

/// The named pieces, and where code and data change places.
fn symbols(
    file: &File<'_>,
    architecture: Architecture,
    sections: &[Section],
) -> Result<(Vec<Symbol>, Vec<Mark>), ImageError> {
    let (mut symbols, mut marks) = (Vec::new(), Vec::new());
    for symbol in file.symbols() {
        let address = narrow(symbol.address())?;
        let name = symbol.name()?;
        if let Some(is_data) = marked(name) {
            marks.push(Mark { address, is_data });
            continue;
        }
        let place = |section: &&Section| {
            address >= section.address && address - section.address < section.len
        };
        let Some(section) = sections.iter().find(place) else { continue };
        let is_code = section.kind == Kind::Code;
        let is_label = is_code && name.starts_with(".L") || !is_code && symbol.size() == 0;
        let is_group = name.starts_with(GROUP);
        if name.is_empty() || is_label || is_group || symbol.section_index().is_none() {
            continue;
        }
        // The lowest bit of a Thumb function's address says that it is one.
        let is_thumb = architecture == Architecture::Thumb && is_code;
        let name = name.strip_prefix(TABLE).unwrap_or(name);
        symbols.push(Symbol {
            name: format!("{:#}", rustc_demangle::demangle(name)),
            kind: section.kind,
            address: if is_thumb { address & !1 } else { address },
            len: narrow(symbol.size())?,
        });
    }
    marks.sort_unstable();
    // Of several names for one piece the longest piece comes first, and stays.
    symbols.sort_by_key(|symbol| (symbol.address, Reverse(symbol.len)));
    symbols.dedup_by_key(|symbol| symbol.address);
    give_lengths(&mut symbols, sections);
    Ok((symbols, marks))
}

/// What has been written in assembly has no length of its own: it reaches to the next.
fn give_lengths(symbols: &mut [Symbol], sections: &[Section]) {
    for at in 0..symbols.len() {
        let next = symbols.get(at + 1).map_or(u32::MAX, |next| next.address);
        let symbol = &mut symbols[at];
        let end = sections
            .iter()
            .map(|section| section.address.saturating_add(section.len))
            .filter(|end| *end > symbol.address)
            .fold(next, u32::min);
        let room = end - symbol.address;
        symbol.len = if symbol.len == 0 { room } else { symbol.len.min(room) };
    }
}

/// Whether a symbol says that data, or that code, begins here; none where it says neither.
/// "ELF for the Arm Architecture" §5.5.5; "RISC-V ELF psABI" §8.2 (mapping symbols).
fn marked(name: &str) -> Option<bool> {
    match name.strip_prefix('$')?.get(..1)? {
        "d" => Some(true),
        "t" | "x" | "a" => Some(false),
        _ => None,
    }
}

/// An address of a board.
fn narrow(value: u64) -> Result<u32, ImageError> {
    u32::try_from(value).map_err(|_| ImageError::TooLarge { value })
}
