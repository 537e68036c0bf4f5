//! Lays a board's binary out by the linker script of that board.

use std::env;
use std::path::PathBuf;

/// Binary, its feature as cargo spells it, the architecture it is for, and its linker script.
const BOARDS: [(&str, &str, &str, &str); 2] = [
    ("mps2-an386", "CARGO_FEATURE_MPS2_AN386", "arm", "src/board/mps2_an386/link.ld"),
    ("riscv32-virt", "CARGO_FEATURE_RISCV32_VIRT", "riscv32", "src/board/riscv32_virt/link.ld"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    for (binary, feature, of, script) in BOARDS {
        println!("cargo::rerun-if-changed={script}");
        if architecture == of && env::var_os(feature).is_some() {
            let script = here.join(script);
            println!("cargo::rustc-link-arg-bin={binary}=-T{}", script.display());
        }
    }
}
