//! What the kernel says about a process: CPU time, memory, threads.

use std::fs;
use std::io;

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pid: u32,
}

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time, milliseconds.
    pub cpu_ms: u64,
    /// Resident memory now, KiB.
    pub rss_kib: u64,
    /// Resident memory at its peak, KiB.
    pub rss_peak_kib: u64,
    /// Threads now.
    pub threads: u64,
    /// Times it was woken up and went to sleep again of itself, over all threads.
    pub voluntary_switches: u64,
}

impl Watched {
    /// Watches a process.
    #[must_use]
    pub const fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Looks.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn usage(self) -> io::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(Usage {
            cpu_ms: cpu_ms(&stat).ok_or(io::ErrorKind::InvalidData)?,
            rss_kib: field(&status, "VmRSS:"),
            rss_peak_kib: field(&status, "VmHWM:"),
            threads: field(&status, "Threads:"),
            voluntary_switches: self.voluntary_switches()?,
        })
    }

    fn voluntary_switches(self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            sum += field(&status, "voluntary_ctxt_switches:");
        }
        Ok(sum)
    }
}

/// Fields 14 and 15 of proc(5) stat, in ticks of 10 ms; the name before them may hold blanks.
fn cpu_ms(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = ticks.next()?.parse().ok()?;
    let system: u64 = ticks.next()?.parse().ok()?;
    Some(10 * (user + system))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_ticks_are_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ms(stat), Some(170));
        assert_eq!(cpu_ms("7 (a) S 1"), None);
    }

    #[test]
    fn we_have_memory_threads_and_time_ourselves() {
        let usage = Watched::new(std::process::id()).usage().unwrap();
        assert!(usage.rss_kib > 0 && usage.rss_peak_kib >= usage.rss_kib && usage.threads > 0);
    }
}
