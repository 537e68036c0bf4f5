//! RV32IMAC: "The RISC-V Instruction Set Manual", volume I, chapters "RV32I" and "C".

use super::{Reference, bits, signed};

/// The integer registers.
const REGISTERS: usize = 32;

/// The stack pointer.
const SP: usize = 2;

/// What is known of the registers while one function is read from its first instruction to its
/// last, as if it never jumped.
struct Reader {
    known: [Option<u32>; REGISTERS],
    found: Vec<Reference>,
}

/// The addresses that code names that begins at `start`.
pub(super) fn scan(code: &[u8], start: u32) -> Vec<Reference> {
    let mut reader = Reader { known: [None; REGISTERS], found: Vec::new() };
    let (mut rest, mut pc) = (code, start);
    while let [first, second, more @ ..] = rest {
        let half = u16::from_le_bytes([*first, *second]);
        if half & 3 == 3 {
            let [third, fourth, after @ ..] = more else { break };
            reader.full(pc, u32::from_le_bytes([*first, *second, *third, *fourth]));
            (rest, pc) = (after, pc.wrapping_add(4));
        } else {
            reader.compressed(pc, u32::from(half));
            (rest, pc) = (more, pc.wrapping_add(2));
        }
    }
    reader.found
}

impl Reader {
    /// Four octets.
    fn full(&mut self, pc: u32, word: u32) {
        let (rd, rs1) = (register(word, 7), register(word, 15));
        let based = |offset| self.known[rs1].map(|base| base.wrapping_add(offset));
        let immediate = signed(word >> 20, 12);
        let (named, result) = match word & 0x7f {
            // AUIPC, LUI
            0x17 => (None, Some(pc.wrapping_add(word & 0xffff_f000))),
            0x37 => (None, Some(word & 0xffff_f000)),
            // ADDI
            0x13 if bits(word, 12, 3) == 0 => (based(immediate), based(immediate)),
            // Loads, JALR
            0x03 | 0x67 => (based(immediate), None),
            0x6f => (Some(pc.wrapping_add(jump(word))), None),
            // What writes no register: stores, branches
            0x23 => return self.name(pc, based(store(word))),
            0x63 => return self.name(pc, Some(pc.wrapping_add(branch(word)))),
            _ => (None, None),
        };
        self.name(pc, named);
        self.known[rd] = result;
    }

    /// Two octets.
    fn compressed(&mut self, pc: u32, half: u32) {
        let (rd, rs2) = (register(half, 7), register(half, 2));
        let (rd_short, rs_short) = (8 + place(half, 2, 3), 8 + place(half, 7, 3));
        let has_bit_12 = bits(half, 12, 1) == 1;
        match (half & 3, half >> 13) {
            // C.JAL, C.J
            (1, 1 | 5) => self.name(pc, Some(pc.wrapping_add(compressed_jump(half)))),
            // C.BEQZ, C.BNEZ
            (1, 6 | 7) => self.name(pc, Some(pc.wrapping_add(compressed_branch(half)))),
            // C.ADDI
            (1, 0) => {
                let sum = self.known[rd].map(|base| base.wrapping_add(immediate(half)));
                self.name(pc, sum);
                self.known[rd] = sum;
            }
            // C.LUI; with the stack pointer it is another
            (1, 3) if rd != SP => self.known[rd] = Some(immediate(half) << 12),
            // C.LW
            (0, 2) => {
                let base = self.known[rs_short];
                self.name(pc, base.map(|base| base.wrapping_add(load(half))));
                self.known[rd_short] = None;
            }
            // C.ADDI4SPN
            (0, 0) => self.known[rd_short] = None,
            // Shifts and arithmetic on the short registers
            (1, 4) => self.known[rs_short] = None,
            // C.JR, C.JALR
            (2, 4) if rs2 == 0 => self.name(pc, self.known[rd]),
            // C.MV
            (2, 4) if !has_bit_12 => self.known[rd] = self.known[rs2],
            // C.LI, C.SLLI, C.LWSP, C.ADD
            (1 | 2, 2) | (2, 0 | 4) => self.known[rd] = None,
            _ => {}
        }
    }

    fn name(&mut self, from: u32, to: Option<u32>) {
        self.found.extend(to.map(|to| Reference { from, to }));
    }
}

/// The number of a register that stands at bit `low`.
const fn register(word: u32, low: u32) -> usize {
    place(word, low, 5)
}

/// As [`bits`], to count with.
const fn place(word: u32, low: u32, len: u32) -> usize {
    bits(word, low, len) as usize
}

/// The offset of JAL: format J.
const fn jump(word: u32) -> u32 {
    let offset = bits(word, 31, 1) << 20
        | bits(word, 12, 8) << 12
        | bits(word, 20, 1) << 11
        | bits(word, 21, 10) << 1;
    signed(offset, 21)
}

/// The offset of a branch: format B.
const fn branch(word: u32) -> u32 {
    let offset = bits(word, 31, 1) << 12
        | bits(word, 7, 1) << 11
        | bits(word, 25, 6) << 5
        | bits(word, 8, 4) << 1;
    signed(offset, 13)
}

/// The offset of a store: format S.
const fn store(word: u32) -> u32 {
    signed(bits(word, 25, 7) << 5 | bits(word, 7, 5), 12)
}

/// The offset of C.J and C.JAL: format CJ.
const fn compressed_jump(half: u32) -> u32 {
    let offset = bits(half, 12, 1) << 11
        | bits(half, 8, 1) << 10
        | bits(half, 9, 2) << 8
        | bits(half, 6, 1) << 7
        | bits(half, 7, 1) << 6
        | bits(half, 2, 1) << 5
        | bits(half, 11, 1) << 4
        | bits(half, 3, 3) << 1;
    signed(offset, 12)
}

/// The offset of C.BEQZ and C.BNEZ: format CB.
const fn compressed_branch(half: u32) -> u32 {
    let offset = bits(half, 12, 1) << 8
        | bits(half, 5, 2) << 6
        | bits(half, 2, 1) << 5
        | bits(half, 10, 2) << 3
        | bits(half, 3, 2) << 1;
    signed(offset, 9)
}

/// The immediate of C.ADDI and C.LUI: format CI.
const fn immediate(half: u32) -> u32 {
    signed(bits(half, 12, 1) << 5 | bits(half, 2, 5), 6)
}

/// The offset of C.LW: format CL.
const fn load(half: u32) -> u32 {
    bits(half, 5, 1) << 6 | bits(half, 10, 3) << 3 | bits(half, 6, 1) << 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the code of a test begins.
    const START: u32 = 0x8000_0000;

    /// What code names, without where.
    fn named(code: &[u8]) -> Vec<u32> {
        scan(code, START).into_iter().map(|reference| reference.to).collect()
    }

    /// Goal: each way to call, to jump, or to compute an address is read as an assembler wrote it.
    #[test]
    fn every_instruction_names_what_its_assembler_meant() {
        for (code, to) in [
            // jal 4096; c.jal -2048; c.j 2046; c.j -2048
            (&[0xef, 0x10, 0x00, 0x00][..], 0x8000_1000),
            (&[0x01, 0x30], 0x7fff_f800),
            (&[0xfd, 0xaf], 0x8000_07fe),
            (&[0x01, 0xb0], 0x7fff_f800),
            // beq a0, a1, -256; c.beqz a0, -256
            (&[0xe3, 0x00, 0xb5, 0xf0], 0x7fff_ff00),
            (&[0x01, 0xd1], 0x7fff_ff00),
            // auipc ra, 1; jalr 16(ra)
            (&[0x97, 0x10, 0x00, 0x00, 0xe7, 0x80, 0x00, 0x01], 0x8000_1010),
            // auipc a0, 18; c.addi a0, -4
            (&[0x17, 0x25, 0x01, 0x00, 0x71, 0x15], 0x8001_1ffc),
            // c.lui a4, 31; c.jr a4
            (&[0x7d, 0x67, 0x02, 0x87], 0x0001_f000),
            // lui a3, 0x80012; c.lw a3, 68(a3)
            (&[0xb7, 0x26, 0x01, 0x80, 0xf4, 0x42], 0x8001_2044),
            // lui s0, 0x80012; c.lw a0, 124(s0)
            (&[0x37, 0x24, 0x01, 0x80, 0x68, 0x5c], 0x8001_207c),
            // lui s0, 0x80012; sw a0, -4(s0)
            (&[0x37, 0x24, 0x01, 0x80, 0x23, 0x2e, 0xa4, 0xfe], 0x8001_1ffc),
        ] {
            assert_eq!(named(code), [to], "{code:02x?}");
        }
    }

    /// Goal: an address is followed from register to register, and forgotten where it is lost.
    #[test]
    fn an_address_is_known_as_long_as_a_register_holds_it() {
        // lui a1, 0x80012; c.addi a1, 16; c.mv a2, a1; addi a2, a2, 256
        let copied = [0xb7, 0x25, 0x01, 0x80, 0xc1, 0x05, 0x2e, 0x86, 0x13, 0x06, 0x06, 0x10];
        assert_eq!(named(&copied), [0x8001_2010, 0x8001_2110]);
        // lui s0, 0x80012; c.slli s0, 1; c.addi s0, 4
        assert!(named(&[0x37, 0x24, 0x01, 0x80, 0x06, 0x04, 0x11, 0x04]).is_empty());
        // lui a3, 0x80012; c.lw a3, 68(a3); c.addi a3, 1
        assert_eq!(named(&[0xb7, 0x26, 0x01, 0x80, 0xf4, 0x42, 0x85, 0x06]), [0x8001_2044]);
    }

    /// Goal: an instruction that is cut off ends the reading, and does not name anything.
    #[test]
    fn half_an_instruction_names_nothing() {
        assert!(named(&[0xef, 0x10]).is_empty());
        assert!(named(&[0xef]).is_empty());
        assert!(named(&[]).is_empty());
    }
}
