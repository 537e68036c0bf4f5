//! The program of the board `riscv32-virt`.
#![no_std]
#![no_main]

use fleetcert_firmware::board::riscv32_virt::Riscv32Virt;
use fleetcert_firmware::{device, entry};

entry!(device::run::<Riscv32Virt>);
