//! Free loopback ports.
//!
//! The kernel is asked for a port, which is released again at once for the program that needs its
//! number in a configuration file. Somebody else could take it in between; the program then fails
//! to bind and the rig says so. The listeners are held until all numbers are known, so that two
//! of ours are never the same.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use crate::error::RigError;

/// Loopback ports that nobody listens on, all different.
///
/// # Errors
///
/// [`RigError::Io`] when the kernel has none.
pub fn free<const N: usize>() -> Result<[u16; N], RigError> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let place = Path::new("127.0.0.1:0");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(RigError::io(place))?;
        *port = listener.local_addr().map_err(RigError::io(place))?.port();
        held.push(listener);
    }
    Ok(ports)
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

    /// Goal: a listener is seen.
    #[test]
    fn a_listener_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(accepts(listener.local_addr().unwrap().port()));
    }
}
