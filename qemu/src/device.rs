//! A device on the bench: a board with its flash and its TPM, and all that it has said.
//!
//! **What it is.** Hardware that can be given power and lose it, as often as the story wants. What
//! it lives by is in its folder: flash, the TPM's memory, the serial line's log.
//!
//! **What it must never do.** Know more of the device than one with a cable at it does: its state is
//! what it says on its serial line, boot by boot.
//!
//! **Why a cut is a cut.** Emulator and TPM are killed one right after the other, the emulator first:
//! a board that still runs while its TPM is gone would be another fault.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::RigError;
use crate::factory::Factory;
use crate::machine::{Board, Conditions, Flash, Machine};
use crate::process;
use crate::serial::Boot;
use crate::swtpm::Swtpm;
use crate::wait::Stop;

/// What firmware a device runs, and on what.
#[derive(Clone, Debug)]
pub struct Model {
    /// The board.
    pub board: Board,
    /// The ELF file that it is flashed with.
    pub firmware: PathBuf,
}

/// A device, with power or without.
#[derive(Debug)]
pub struct Device {
    id: String,
    model: Model,
    folder: PathBuf,
    flash: Flash,
    tpm: Option<Swtpm>,
    machine: Option<Machine>,
    past: Vec<Boot>,
    present: Boot,
}

impl Device {
    /// A new device with erased flash, in the new folder `folder`. The TPM, if it has one, is in no
    /// machine yet.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the folder or the flash cannot be made.
    pub fn make(
        id: &str,
        model: Model,
        folder: &Path,
        tpm: Option<Swtpm>,
    ) -> Result<Self, RigError> {
        DirBuilder::new().mode(0o700).create(folder).map_err(RigError::io(folder))?;
        let flash = Flash::blank(model.board, folder)?;
        Ok(Self {
            id: id.to_owned(),
            model,
            folder: folder.to_path_buf(),
            flash,
            tpm: tpm.map(Swtpm::for_machine),
            machine: None,
            past: Vec::new(),
            present: Boot::default(),
        })
    }

    /// Writes the factory's configuration into its flash.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`], and what [`Factory::block`] reports.
    pub fn configure(&self, factory: &Factory) -> Result<(), RigError> {
        self.flash.put(self.model.board.factory_offset(), &factory.block()?)
    }

    /// Gives it power, all of it; does nothing while it has.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn power_on(&mut self, stop: &Stop) -> Result<(), RigError> {
        self.power_on_under(Conditions::default(), stop)
    }

    /// As [`Device::power_on`], under conditions that are out of the ordinary.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn power_on_under(&mut self, conditions: Conditions, stop: &Stop) -> Result<(), RigError> {
        if self.machine.is_some() {
            return Ok(());
        }
        if let Some(tpm) = &mut self.tpm {
            tpm.restart(stop)?;
        }
        let (board, firmware) = (self.model.board, &self.model.firmware);
        let tpm = self.tpm.as_ref();
        self.machine = Some(Machine::start_under(conditions, board, firmware, &self.folder, tpm)?);
        Ok(())
    }

    /// As [`Device::power_on`], with a TPM whose memory cannot be written: its first command puts it
    /// into failure mode. [`Device::mend_tpm`] ends that. For a device with a TPM.
    ///
    /// # Errors
    ///
    /// What does not start, [`RigError::Io`] when the memory is away already.
    pub fn power_on_with_failing_tpm(&mut self, stop: &Stop) -> Result<(), RigError> {
        let held = Conditions { is_held: true, ..Conditions::default() };
        self.power_on_under(held, stop)?;
        if let (Some(machine), Some(tpm)) = (&self.machine, &self.tpm) {
            // The emulator has the TPM read its memory before it takes commands itself.
            machine.await_monitor(stop)?;
            tpm.take_memory_away()?;
            machine.go(stop)?;
        }
        Ok(())
    }

    /// Gives a failing TPM its memory back, for the next time that it gets power.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it is not away.
    pub fn mend_tpm(&self) -> Result<(), RigError> {
        self.tpm.as_ref().map_or(Ok(()), Swtpm::give_memory_back)
    }

    /// Takes its power away. What it has said until then is a boot of the past.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when its serial line cannot be read.
    pub fn cut_power(&mut self) -> Result<(), RigError> {
        let Some(machine) = self.machine.take() else { return Ok(()) };
        let said = machine.kill_and_read();
        if let Some(tpm) = &mut self.tpm {
            tpm.kill();
        }
        self.present = Boot::default();
        self.past.push(Boot::read(&said?));
        Ok(())
    }

    /// Hears what it has said since power came. A device without power is silent.
    ///
    /// # Errors
    ///
    /// [`RigError::Device`] when the emulator has ended by itself, or the firmware says that it broke.
    pub fn listen(&mut self) -> Result<(), RigError> {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        // In this order: what it said last is read after it has ended.
        let ended = machine.check();
        self.present = Boot::read(&machine.console()?);
        let broken = self.present.crash.clone().map(|found| RigError::Claim {
            claim: "the firmware never panics and never traps",
            found,
        });
        match broken.map_or(ended, Err) {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.blame(cause)),
        }
    }

    /// What it has said in this boot, as far as it was heard.
    #[must_use]
    pub const fn boot(&self) -> &Boot {
        &self.present
    }

    /// Its boots, oldest first; the present one, as far as it was heard, is the last.
    pub fn boots(&self) -> impl Iterator<Item = &Boot> {
        self.past.iter().chain(self.machine.as_ref().map(|_| &self.present))
    }

    /// How often it has said that it has no identity, though it had one.
    #[must_use]
    pub fn identities_lost(&self) -> u64 {
        let (mut had, mut lost) = (false, 0);
        for boot in self.boots() {
            lost += u64::from(had && boot.identity == Some(None));
            had |= boot.has_identity();
        }
        lost
    }

    /// The same error, with whose it is and what that device said last.
    #[must_use]
    pub fn blame(&self, cause: RigError) -> RigError {
        RigError::Device {
            id: self.id.clone(),
            cause: Box::new(cause),
            last_words: process::last_words(&self.console()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its flash, as a programmer sees it.
    #[must_use]
    pub const fn flash(&self) -> &Flash {
        &self.flash
    }

    /// Its TPM, to be taken away and put back, too.
    pub const fn tpm(&mut self) -> &mut Option<Swtpm> {
        &mut self.tpm
    }

    /// The log of its serial line, of all boots.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(boots: &[&str]) -> Device {
        let place = tempfile::tempdir().unwrap();
        let model = Model { board: Board::Mps2An386, firmware: "none".into() };
        let mut device = Device::make("d", model, &place.path().join("d"), None).unwrap();
        device.past = boots.iter().map(|said| Boot::read(said)).collect();
        device
    }

    /// Goal: an identity is lost when a boot says so after one that had it; silence says nothing.
    #[test]
    fn an_identity_is_lost_only_after_it_was_had() {
        let (none, some) = ("1 INFO  identity: none\n", "1 INFO  identity: 0a in slot A until x\n");
        let got = "1 INFO  identity: none\n2 INFO  event proven: certificate 0a is proven\n";
        for (boots, lost) in [
            (vec![none, none, got, some, some], 0),
            (vec![got, "", some], 0),
            (vec![none, got, none, none], 2),
            (vec![some, none], 1),
        ] {
            assert_eq!(device(&boots).identities_lost(), lost, "{boots:?}");
        }
    }

    /// Goal: the configuration lies where the board looks for it.
    #[test]
    fn the_configuration_lies_where_the_board_looks() {
        let place = tempfile::tempdir().unwrap();
        let model = Model { board: Board::Mps2An386, firmware: "none".into() };
        let device = Device::make("d", model, &place.path().join("d"), None).unwrap();
        let factory = Factory {
            device_id: "d".to_owned(),
            attested_only: false,
            decommission: false,
            provisioner: ("10.0.2.2".to_owned(), 1),
            server_root: vec![0x30, 0],
            token: None,
            broker: None,
        };
        device.configure(&factory).unwrap();
        let offset = Board::Mps2An386.factory_offset();
        assert_eq!(device.flash().read(offset, 4).unwrap(), b"FCFC");
    }
}
