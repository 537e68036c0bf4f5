//! How much of a board's memory a firmware takes, by the section headers of its ELF file.
//!
//! Flash is what has to be programmed: every section that has its place in memory and its content in
//! the file. RAM is what the firmware may write, without two sections that the boards' linker scripts
//! name: the stack, whose peak is measured while it runs, and the pages that devices read and write
//! by themselves.

use std::fs;
use std::path::Path;

use object::elf::{SHF_ALLOC, SHF_WRITE, SHT_NOBITS};
use object::read::elf::{ElfFile32, SectionHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _};

use crate::error::RigError;

/// Not counted as RAM: its peak is.
const STACK: &str = ".stack";

/// Not counted as RAM: how much a device needs for its frames is the device's affair.
const DMA: &str = ".dma";

/// Octets of a firmware in a board's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Code, constants, and the initial content of what may be written.
    pub flash_len: u64,
    /// What may be written, without stack and frames.
    pub ram_len: u64,
}

impl Footprint {
    /// Reads the section headers of the firmware at `path`.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`]; [`RigError::Answer`] when it is no ELF file for a 32-bit board.
    pub fn of(path: &Path) -> Result<Self, RigError> {
        let octets = fs::read(path).map_err(RigError::io(path))?;
        Self::read(&octets).map_err(|why| RigError::Answer {
            from: "the firmware's file",
            found: format!("{}: {why}", path.display()),
            expected: "an ELF file for a 32-bit little-endian processor",
        })
    }

    fn read(octets: &[u8]) -> object::Result<Self> {
        let file = ElfFile32::<LittleEndian>::parse(octets)?;
        let mut found = Self::default();
        for section in file.sections() {
            let (header, endian) = (section.elf_section_header(), file.endian());
            let has = |flag| header.sh_flags(endian).0 & flag != 0;
            if !has(SHF_ALLOC.0) || [STACK, DMA].contains(&section.name()?) {
                continue;
            }
            if header.sh_type(endian) != SHT_NOBITS {
                found.flash_len += section.size();
            }
            if has(SHF_WRITE.0) {
                found.ram_len += section.size();
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of a file's header, and of a section's.
    const HEADER_LEN: usize = 52;
    const SECTION_LEN: usize = 40;

    const PROGBITS: u32 = 1;
    const STRTAB: u32 = 3;
    const NOBITS: u32 = 8;
    const WRITE: u32 = 1;
    const ALLOC: u32 = 2;

    /// An ELF file with these sections (name, type, flags, octets) and their names, and nothing in
    /// them.
    fn elf(sections: &[(&str, u32, u32, u32)]) -> Vec<u8> {
        let names: String = sections.iter().map(|(name, ..)| format!("{name}\0")).collect();
        let names = format!("\0{names}");
        let count = u16::try_from(sections.len() + 2).unwrap();
        let sections_at = u32::try_from(HEADER_LEN + names.len()).unwrap();
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
        file.extend([0; 8]);
        file.extend(sections_at.to_le_bytes());
        file.extend([0; 4]);
        for field in [52, 0, 0, u16::try_from(SECTION_LEN).unwrap(), count, count - 1] {
            file.extend(field.to_le_bytes());
        }
        file.extend(names.as_bytes());
        file.extend([0; SECTION_LEN]);
        let mut name_at = 1;
        for (name, kind, flags, len) in sections {
            section(&mut file, [name_at, *kind, *flags, 0, *len]);
            name_at += u32::try_from(name.len()).unwrap() + 1;
        }
        let names_len = u32::try_from(names.len()).unwrap();
        section(&mut file, [0, STRTAB, 0, u32::try_from(HEADER_LEN).unwrap(), names_len]);
        file
    }

    fn section(file: &mut Vec<u8>, [name, kind, flags, offset, len]: [u32; 5]) {
        for field in [name, kind, flags, 0, offset, len, 0, 0, 1, 0] {
            file.extend(field.to_le_bytes());
        }
    }

    /// Goal: what is programmed and what may be written are counted, initial content twice; stack,
    /// frames and what never reaches the board are not.
    #[test]
    fn flash_and_ram_are_counted_as_boards_have_them() {
        let file = elf(&[
            (".vectors", PROGBITS, ALLOC, 64),
            (".text", PROGBITS, ALLOC, 1000),
            (".stack", NOBITS, ALLOC, 4096),
            (".data", PROGBITS, ALLOC | WRITE, 8),
            (".bss", NOBITS, ALLOC | WRITE, 300),
            (".dma", NOBITS, ALLOC | WRITE, 8192),
            (".comment", PROGBITS, 0, 5000),
        ]);
        let found = Footprint::read(&file).unwrap();
        assert_eq!(found, Footprint { flash_len: 64 + 1000 + 8, ram_len: 8 + 300 });
    }

    /// Goal: what is no firmware is named, with what was expected.
    #[test]
    fn what_is_no_firmware_is_named() {
        let error = Footprint::of(&std::env::current_exe().unwrap()).unwrap_err();
        assert!(error.to_string().contains("32-bit little-endian"), "{error}");
    }
}
