//! The program of the board `riscv32-virt`.
#![no_std]
#![no_main]

use fleetcert_firmware::board::riscv32_virt::Riscv32Virt;
use fleetcert_firmware::{entry, self_test};

entry!(self_test::run::<Riscv32Virt>);
