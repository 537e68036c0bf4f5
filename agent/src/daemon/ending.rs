//! What a run is for, and how it ended.

use fleetcert_core::event::{Failure, Operation};
use fleetcert_core::lifecycle::{Command, Machine, Phase};
use fleetcert_core::record::Serial;
use fleetcert_core::time::{Mono, Now};

use crate::link::LinkStatus;
use crate::status::Board;
use crate::tpm::TpmTrouble;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The device has ended its life in the fleet.
    Decommissioned,
    /// The device has an identity.
    Enrolled {
        /// Whether failures are waited out; otherwise the first one ends the run.
        patient: bool,
    },
    /// The device has another identity than at the start, or the first failure on the way.
    Renewed,
    /// Somebody stops it.
    Stopped,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The device has ended its life in the fleet; there is nothing to enroll or renew.
    Decommissioned,
    /// What it was for is reached.
    Done,
    /// An action failed; the next start goes on from there.
    Failed {
        /// Which.
        operation: Operation,
        /// Why.
        failure: Failure,
        /// More about it, where the port left any.
        cause: String,
        /// What is in the way of the TPM, if it was that.
        tpm: Option<Box<TpmTrouble>>,
    },
    /// Somebody stopped it.
    Stopped,
}

/// What a run started from.
#[derive(Clone, Debug)]
pub(super) struct Start {
    serial: Option<Serial>,
}

impl Start {
    pub(super) fn of(machine: &Machine) -> Self {
        Self { serial: serial(machine) }
    }
}

fn serial(machine: &Machine) -> Option<Serial> {
    machine.record().active_identity().map(|identity| identity.serial.clone())
}

impl Until {
    /// What the machine must be told to get there. Who asks for a certificate, having mended
    /// perhaps what was wrong, is not made to wait for what is left of an earlier failure.
    pub(super) const fn command(self, start: &Start) -> Option<Command> {
        match self {
            Self::Decommissioned => Some(Command::Decommission),
            Self::Renewed => Some(Command::Renew),
            Self::Enrolled { .. } if start.serial.is_none() => Some(Command::Renew),
            Self::Enrolled { .. } | Self::Stopped => None,
        }
    }

    /// Whether, and how, the run is over. The machine is idle: nothing is in flight.
    pub(super) fn ending(self, start: &Start, machine: &Machine, now: Now) -> Option<Ending> {
        let phase = machine.phase(now);
        let decommissioned = phase == Phase::Decommissioned;
        let reached = match self {
            Self::Decommissioned => decommissioned && machine.deadline().is_none(),
            Self::Enrolled { .. } => phase == Phase::Active,
            Self::Renewed => phase == Phase::Active && serial(machine) != start.serial,
            Self::Stopped => return None,
        };
        if reached && machine.is_durable() {
            return Some(Ending::Done);
        }
        if decommissioned && self != Self::Decommissioned {
            return Some(Ending::Decommissioned);
        }
        if self == (Self::Enrolled { patient: true }) {
            return None;
        }
        failure(machine)
    }
}

/// The failure that stands in the way. That nobody gives advice or time does not.
fn failure(machine: &Machine) -> Option<Ending> {
    let (operation, failure) = machine.last_failure()?;
    (*operation != Operation::Consult).then(|| Ending::Failed {
        operation: *operation,
        failure: failure.clone(),
        cause: failure.to_string(),
        tpm: None,
    })
}

impl Ending {
    /// The same with the particulars that the board has of the failure.
    pub(super) fn with_cause(self, board: &Board) -> Self {
        let status = board.status(Mono(0), LinkStatus::default());
        match (self, status.and_then(|status| status.last_failure)) {
            (Self::Failed { operation, failure, .. }, Some(found)) => {
                let trouble = board.keys().trouble();
                let tpm = trouble.filter(|_| failure == Failure::KeyUnavailable).map(Box::new);
                Self::Failed { operation, failure, cause: found.cause, tpm }
            }
            (ending, _) => ending,
        }
    }
}
