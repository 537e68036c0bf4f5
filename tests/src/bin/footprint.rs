//! Says what firmware takes in a board's memory, where it could panic, and where it did.
//!
//! Exit codes: 0 it was said, and no panic is without a reason in `docs/panics.md`; 1 there is one, or
//! a reason for what is not there, or no function at the address; 2 the command line makes no sense
//! or a file is no firmware.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use fleetcert_tests::footprint::component;
use fleetcert_tests::footprint::image::{Image, Kind};
use fleetcert_tests::footprint::listing::Listing;
use fleetcert_tests::footprint::page::octets;
use fleetcert_tests::footprint::panics;

const USAGE: u8 = 2;

/// Says what firmware takes in a board's memory.
#[derive(Debug, Parser)]
#[command(name = "footprint", version)]
struct Options {
    /// What boards are flashed with, as firmware-sample/build says it
    #[arg(required = true, value_name = "ELF")]
    firmware: Vec<PathBuf>,
    /// So many of the largest functions of each, too
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    largest: usize,
    /// Instead, the function around an address that a board has said
    #[arg(long, conflicts_with = "panics", value_parser = address, value_name = "ADDRESS")]
    at: Option<u32>,
    /// Instead, what could panic and has no reason in docs/panics.md, under TOP
    #[arg(long, value_name = "TOP")]
    panics: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let said = match (&options.panics, options.at) {
        (Some(top), _) => panics(&options, top),
        (None, Some(address)) => around(&options, address),
        (None, None) => sizes(&options).map(|text| (text, true)),
    };
    match said {
        Ok((text, is_well)) => {
            let _gone = io::stdout().write_all(text.as_bytes());
            if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            let _gone = writeln!(io::stderr(), "footprint: {why}");
            ExitCode::from(USAGE)
        }
    }
}

/// A number as boards say it.
fn address(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").ok_or("expected hexadecimal digits after 0x")?;
    u32::from_str_radix(digits, 16).map_err(|why| why.to_string())
}

fn images(options: &Options) -> Result<Vec<(String, Image)>, Box<dyn std::error::Error>> {
    let image = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, Image::read(path)?))
    };
    options.firmware.iter().map(image).collect()
}

fn sizes(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let images = images(options)?;
    let named: Vec<_> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
    let mut text = component::table(&named).to_string();
    for (name, image) in named {
        let mut functions: Vec<_> = image.functions().collect();
        functions.sort_by_key(|function| std::cmp::Reverse(function.len));
        for function in functions.iter().take(options.largest) {
            text += &format!("{name}: {:>8}  {}\n", octets(function.len), function.name);
        }
    }
    Ok(text)
}

/// The function of each program, and whether all have one there.
fn around(options: &Options, at: u32) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let (mut text, mut is_in_all) = (String::new(), true);
    for (name, image) in images(options)? {
        let found = image.at(at).filter(|symbol| symbol.kind == Kind::Code);
        is_in_all &= found.is_some();
        text += &match found {
            Some(found) => format!("{name}: {} + {:#x}\n", found.name, at - found.address),
            None => format!("{name}: no function\n"),
        };
    }
    Ok((text, is_in_all))
}

/// What is to be said, and whether nothing is wrong.
fn panics(options: &Options, top: &Path) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let mut sites = BTreeSet::new();
    for (_, image) in images(options)? {
        sites.extend(panics::sites(&image)?);
    }
    let listing = Listing::parse(&fs::read_to_string(top.join("docs/panics.md"))?);
    let complaints = listing.judge(&sites, top);
    let text = complaints.iter().map(|complaint| format!("{complaint}\n")).collect();
    Ok((text, complaints.is_empty()))
}
