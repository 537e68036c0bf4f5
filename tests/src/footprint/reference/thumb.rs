//! Thumb-2: "Armv7-M Architecture Reference Manual", chapters A5 and A7.7.

use super::{Reference, bits, signed};

/// The registers.
const REGISTERS: usize = 16;

/// The program counter reads as the address of the instruction, and this.
const PC_AHEAD: u32 = 4;

/// What is known of the registers while one function is read from its first instruction to its
/// last, as if it never jumped: the lower half, between MOVW and MOVT.
struct Reader {
    low: [Option<u32>; REGISTERS],
    found: Vec<Reference>,
}

/// The addresses that code names that begins at `start`; `is_data` tells where it is none.
pub(super) fn scan(code: &[u8], start: u32, is_data: &dyn Fn(u32) -> bool) -> Vec<Reference> {
    let mut reader = Reader { low: [None; REGISTERS], found: Vec::new() };
    let (mut rest, mut pc) = (code, start);
    while let [first, second, more @ ..] = rest {
        let half = u32::from(u16::from_le_bytes([*first, *second]));
        let next = more.first_chunk().map(|next| u32::from(u16::from_le_bytes(*next)));
        let is_long = match next {
            Some(next) if is_data(pc) => reader.literal(pc, next << 16 | half),
            Some(next) if half >> 11 > 0b11100 => reader.full(pc, half, next),
            _ if is_data(pc) => false,
            _ => reader.narrow(pc, half),
        };
        let len = if is_long { 4 } else { 2 };
        (rest, pc) = (rest.get(len..).unwrap_or_default(), pc.wrapping_add(len as u32));
    }
    reader.found
}

impl Reader {
    /// A word of data: only at an address that is a multiple of four can it be a pointer.
    fn literal(&mut self, pc: u32, word: u32) -> bool {
        let is_aligned = pc.is_multiple_of(4);
        if is_aligned {
            self.name(pc, word);
        }
        is_aligned
    }

    /// Two octets. B, T1 and T2.
    fn narrow(&mut self, pc: u32, half: u32) -> bool {
        let offset = match half >> 12 {
            // The conditions 14 and 15 are UDF and SVC.
            0b1101 if bits(half, 9, 3) != 0b111 => signed(half << 1 & 0x1ff, 9),
            0b1110 if bits(half, 11, 1) == 0 => signed(half << 1 & 0xfff, 12),
            _ => return false,
        };
        self.name(pc, pc.wrapping_add(PC_AHEAD).wrapping_add(offset));
        false
    }

    /// Four octets.
    fn full(&mut self, pc: u32, first: u32, second: u32) -> bool {
        let rd = bits(second, 8, 4) as usize;
        match (bits(first, 4, 12), second >> 15) {
            (opcode, 1) if opcode >> 7 == 0b11110 => {
                if let Some(offset) = branch(first, second) {
                    self.name(pc, pc.wrapping_add(PC_AHEAD).wrapping_add(offset));
                }
            }
            // MOVW, T3
            (opcode, 0) if opcode & 0xfbf == 0xf24 => {
                self.low[rd] = Some(half_of(first, second));
            }
            // MOVT, T1
            (opcode, 0) if opcode & 0xfbf == 0xf2c => {
                if let Some(low) = self.low[rd].take() {
                    self.name(pc, half_of(first, second) << 16 | low);
                }
            }
            _ => {}
        }
        true
    }

    fn name(&mut self, from: u32, to: u32) {
        self.found.push(Reference { from, to });
    }
}

/// The offset of BL (T1), B (T3 and T4); none of what looks like them.
const fn branch(first: u32, second: u32) -> Option<u32> {
    let (sign, j1, j2) = (bits(first, 10, 1), bits(second, 13, 1), bits(second, 11, 1));
    let low = bits(second, 0, 11) << 1;
    if bits(second, 12, 1) == 1 {
        let (i1, i2) = (1 ^ j1 ^ sign, 1 ^ j2 ^ sign);
        let offset = sign << 24 | i1 << 23 | i2 << 22 | bits(first, 0, 10) << 12 | low;
        return Some(signed(offset, 25));
    }
    if bits(second, 14, 1) == 1 || bits(first, 7, 3) == 0b111 {
        return None;
    }
    Some(signed(sign << 20 | j2 << 19 | j1 << 18 | bits(first, 0, 6) << 12 | low, 21))
}

/// The sixteen bits of MOVW and MOVT.
const fn half_of(first: u32, second: u32) -> u32 {
    bits(first, 0, 4) << 12
        | bits(first, 10, 1) << 11
        | bits(second, 12, 3) << 8
        | bits(second, 0, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the code of a test begins.
    const START: u32 = 0x0001_0000;

    /// What code names, without where.
    fn named(code: &[u8]) -> Vec<u32> {
        scan(code, START, &|_| false).into_iter().map(|reference| reference.to).collect()
    }

    /// Goal: each way to call, to jump, or to compute an address is read as an assembler wrote it.
    #[test]
    fn every_instruction_names_what_its_assembler_meant() {
        for (code, to) in [
            // bl 4096; bl -256; bl 4194304
            (&[0x01, 0xf0, 0x00, 0xf8][..], 0x0001_1004),
            (&[0xff, 0xf7, 0x80, 0xff], 0x0000_ff04),
            (&[0x00, 0xf0, 0x00, 0xf0], 0x0041_0004),
            // b.w 8192; b.w -8192; beq.w 4096; bne.w -4096
            (&[0x02, 0xf0, 0x00, 0xb8], 0x0001_2004),
            (&[0xfe, 0xf7, 0x00, 0xb8], 0x0000_e004),
            (&[0x01, 0xf0, 0x00, 0x80], 0x0001_1004),
            (&[0x7f, 0xf4, 0x00, 0xa8], 0x0000_f004),
            // b 256; beq -32
            (&[0x80, 0xe0], 0x0001_0104),
            (&[0xf0, 0xd0], 0x0000_ffe4),
            // movw r0, 0x1234; movt r0, 0x2000, and once more, which has no lower half
            (&[0x41, 0xf2, 0x34, 0x20, 0xc2, 0xf2, 0, 0, 0xc2, 0xf2, 0, 0], 0x2000_1234),
            // movw r12, 0xffff; movt r12, 1
            (&[0x4f, 0xf6, 0xff, 0x7c, 0xc0, 0xf2, 0x01, 0x0c], 0x0001_ffff),
        ] {
            assert_eq!(named(code), [to], "{code:02x?}");
        }
    }

    /// Goal: what only looks like a branch names nothing.
    #[test]
    fn other_instructions_name_nothing() {
        // mrs r0, apsr; dmb sy; udf 0; svc 0; nop; half a bl
        let others = [
            0xef, 0xf3, 0x00, 0x80, 0xbf, 0xf3, 0x5f, 0x8f, 0x00, 0xde, 0x00, 0xdf, 0x00, 0xbf,
            0x01, 0xf0,
        ];
        assert!(named(&others).is_empty());
    }

    /// Goal: words in the midst of code are read as words, and code after them as code.
    #[test]
    fn a_word_of_data_is_an_address() {
        // nop; half a word; the address of a function; bl 4096
        let code = [0x00, 0xbf, 0xff, 0xff, 0x35, 0x12, 0x00, 0x00, 0x01, 0xf0, 0x00, 0xf8];
        let is_data = |at| (START + 2..START + 8).contains(&at);
        let found = scan(&code, START, &is_data);
        let word = Reference { from: START + 4, to: 0x1235 };
        let call = Reference { from: START + 8, to: START + 8 + 0x1004 };
        assert_eq!(found, [word, call]);
    }
}
