//! The status as text: a line for each thing, the most important first.

use std::fmt;

use super::{FailureStatus, IdentityStatus, MqttStatus, Next, Status};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = if self.running { "" } else { " (no agent is running)" };
        writeln!(f, "device    {}: {}{running}", self.device_id, self.phase)?;
        match &self.identity {
            Some(identity) => identity.fmt(f)?,
            None => writeln!(f, "identity  none")?,
        }
        if let Some(next) = &self.next {
            writeln!(f, "next      {next}")?;
        }
        let wall = self.clock.wall.as_deref().unwrap_or("no believable time");
        writeln!(f, "clock     {wall}, {}, floor {}", self.clock.confidence, self.clock.floor)?;
        self.key.fmt(f)?;
        if let Some(mqtt) = &self.mqtt {
            writeln!(f, "mqtt      {mqtt}")?;
            mqtt.last_failure.as_ref().map_or(Ok(()), |failure| failure.fmt(f))?;
        }
        if let Some(failure) = &self.last_failure {
            failure.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for IdentityStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judgement = match (self.expired, self.expiring) {
            (Some(true), _) => ", EXPIRED",
            (_, Some(true)) => ", about to expire",
            _ => "",
        };
        writeln!(f, "identity  {}, serial {}, slot {}", self.subject, self.serial, self.slot)?;
        writeln!(f, "validity  {} to {}{judgement}", self.not_before, self.not_after)
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        match &self.at {
            Some(at) => write!(f, " at {at} (in {} s)", self.in_s),
            None => write!(f, " in {} s", self.in_s),
        }
    }
}

impl fmt::Display for MqttStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.connected { "connected" } else { "not connected" };
        write!(f, "{}: {state}", self.broker)?;
        if let Some(since) = &self.since {
            write!(f, " since {since}")?;
        }
        if let Some(gap_ms) = self.gap_ms_last {
            write!(f, ", last identity switch took {gap_ms} ms")?;
        }
        Ok(())
    }
}

impl fmt::Display for FailureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "trouble   {}: {} ({})", self.operation, self.cause, self.code)?;
        writeln!(f, "to do     {}; tried again in {} s", self.what_to_do, self.retry_in_s)
    }
}
