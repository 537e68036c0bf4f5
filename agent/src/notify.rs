//! Telling the service manager that the agent is up, as sd_notify(3) does.
//!
//! One datagram to the socket in `NOTIFY_SOCKET`; without that variable nobody asked.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The agent is up: its state is loaded, its control socket answers.
    Ready,
    /// The agent is about to end.
    Stopping,
}

/// Tells the service manager, if there is one that wants to know.
pub fn tell(news: News) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(socket.as_bytes(), news) {
        log::warn!("the service manager was not told {news:?}: {error}");
    }
}

fn send(socket: &[u8], news: News) -> io::Result<()> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let message: &[u8] = match news {
        News::Ready => b"READY=1",
        News::Stopping => b"STOPPING=1",
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: both kinds of socket that a service manager may offer are reached.
    #[test]
    fn a_socket_in_a_directory_and_an_abstract_one_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("fleetcert-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (receiver, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().as_bytes().to_vec()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}").into()),
        ] {
            for (news, expected) in [(News::Ready, "READY=1"), (News::Stopping, "STOPPING=1")] {
                send(&name, news).unwrap();
                let mut buffer = [0; 32];
                let len = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], expected.as_bytes());
            }
        }
        assert!(send(b"/nowhere/notify", News::Ready).is_err());
    }
}
