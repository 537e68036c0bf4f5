//! Free loopback ports.
//!
//! A server that is stopped and started again needs its port back, and whoever looks for it
//! meanwhile must not find somebody else there. So ports are taken from below those that the kernel
//! hands out by itself (32768 and above on Linux), to clients, too; and each is reserved, for as
//! long as this process lives, under a name that all processes of ours see. The reservation is an
//! abstract Unix socket: it leaves nothing behind, however the process ends.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process;
use std::sync::{Mutex, PoisonError};

use crate::error::RigError;

/// The lowest port that is given out.
const FIRST: u16 = 20_000;

/// How many follow it.
const COUNT: u16 = 12_000;

/// A prime, so that processes with neighbouring numbers begin far apart.
const STRIDE: u32 = 1_009;

/// What this process has reserved.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Loopback ports that nobody listens on, all different, and given to no other process of ours
/// while this one lives.
///
/// # Errors
///
/// [`RigError::Io`] when there are none.
pub fn free<const N: usize>() -> Result<[u16; N], RigError> {
    let mut ports = [0; N];
    let start = process::id().wrapping_mul(STRIDE);
    let mut candidates = (0..u32::from(COUNT))
        .filter_map(|n| u16::try_from(start.wrapping_add(n) % u32::from(COUNT)).ok());
    for port in &mut ports {
        let found = candidates.by_ref().map(|offset| FIRST + offset).find(|port| take(*port));
        *port = found.ok_or_else(|| {
            RigError::io(Path::new("127.0.0.1"))(io::ErrorKind::AddrNotAvailable.into())
        })?;
    }
    Ok(ports)
}

/// Reserves a port, if nobody has and nobody listens on it.
fn take(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("fleetcert-port-{port}"));
    let Ok(reservation) = name.and_then(|name| UnixListener::bind_addr(&name)) else {
        return false;
    };
    let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    if is_free {
        RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
    }
    is_free
}

/// Whether somebody accepts connections on a loopback port.
#[must_use]
pub fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: two ports of one request never collide, and nobody listens on them.
    #[test]
    fn ports_are_distinct_and_free() {
        let [a, b] = free::<2>().unwrap();
        assert_ne!(a, b);
        assert!(!accepts(a) && !accepts(b));
    }

    /// Goal: a port that was given out is not given out again, though nobody listens on it yet.
    #[test]
    fn a_port_is_given_out_once() {
        let [first] = free::<1>().unwrap();
        let others: [u16; 8] = free().unwrap();
        assert!(!others.contains(&first));
        assert!(!take(first));
    }

    /// Goal: somebody else's port is left alone.
    #[test]
    fn a_port_with_a_listener_is_not_given_out() {
        let [port] = free::<1>().unwrap();
        let other = (FIRST..FIRST + COUNT).rev().find(|other| *other != port).unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, other)).unwrap();
        assert!(!take(other));
    }

    /// Goal: a listener is seen.
    #[test]
    fn a_listener_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(accepts(listener.local_addr().unwrap().port()));
    }
}
