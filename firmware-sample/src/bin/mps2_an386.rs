//! The program of the board `mps2-an386`.
#![no_std]
#![no_main]

use fleetcert_firmware::board::mps2_an386::Mps2An386;
use fleetcert_firmware::{device, entry};

entry!(device::run::<Mps2An386>);
