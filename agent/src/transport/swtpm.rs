//! swtpm's data socket: raw commands over a stream.
//!
//! A response ends where its head says. swtpm serves one connection at a time and lets others wait
//! without a word, so a first command that is not answered may mean that another program holds it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Address, Deadline, HEAD_LEN, TransportError, Wire, announced, refused};

/// A connection on loopback is made within this.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A connected socket of either kind.
trait Stream: Read + Write + Send {
    /// Reads and writes take no longer than this from now on.
    fn limit(&self, rest: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self, rest: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(rest))?;
        self.set_write_timeout(Some(rest))
    }
}

impl Stream for UnixStream {
    fn limit(&self, rest: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(rest))?;
        self.set_write_timeout(Some(rest))
    }
}

/// A connection to swtpm.
pub(super) struct Swtpm {
    stream: Box<dyn Stream>,
}

impl Swtpm {
    pub(super) fn connect(address: &Address) -> Result<Self, TransportError> {
        let connected = match address {
            Address::Tcp(socket) => tcp(*socket),
            Address::Device(path) | Address::Socket(path) => {
                UnixStream::connect(path).map(|stream| Box::new(stream) as Box<dyn Stream>)
            }
        };
        let stream = connected.map_err(|source| refused(address.clone(), source))?;
        Ok(Self { stream })
    }

    /// Fills `out` from the connection.
    fn fill(&mut self, mut out: &mut [u8], deadline: Deadline) -> Result<(), TransportError> {
        while !out.is_empty() {
            self.limit(deadline)?;
            match self.stream.read(out) {
                Ok(0) => return Err(TransportError::Ended),
                Ok(len) => out = out.get_mut(len..).unwrap_or_default(),
                Err(error) => after(deadline, "read from swtpm", error)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, mut command: &[u8], deadline: Deadline) -> Result<(), TransportError> {
        while !command.is_empty() {
            self.limit(deadline)?;
            match self.stream.write(command) {
                Ok(0) => return Err(TransportError::Ended),
                Ok(len) => command = command.get(len..).unwrap_or_default(),
                Err(error) => after(deadline, "write to swtpm", error)?,
            }
        }
        Ok(())
    }

    fn limit(&self, deadline: Deadline) -> Result<(), TransportError> {
        self.stream.limit(deadline.rest()?).map_err(TransportError::of("limit swtpm's socket"))
    }
}

fn tcp(socket: std::net::SocketAddr) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect_timeout(&socket, CONNECT_MAX)?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// What an error of the socket means; an interrupted call is begun anew.
fn after(deadline: Deadline, act: &'static str, error: io::Error) -> Result<(), TransportError> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(deadline.missed()),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(TransportError::Ended),
        _ => Err(TransportError::Io { act, source: error }),
    }
}

impl Wire for Swtpm {
    fn exchange(
        &mut self,
        command: &[u8],
        response: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, TransportError> {
        self.send(command, deadline)?;
        let mut head = [0; HEAD_LEN];
        self.fill(&mut head, deadline)?;
        let len = announced(head)?;
        let short = TransportError::Length { found: len, max: response.len() };
        let (front, rest) = response
            .get_mut(..len)
            .and_then(|whole| whole.split_at_mut_checked(HEAD_LEN))
            .ok_or(short)?;
        self.fill(rest, deadline)?;
        front.copy_from_slice(&head);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);
    const RESPONSE: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];

    fn pair() -> (Swtpm, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Swtpm { stream: Box::new(ours) }, theirs)
    }

    // Goal: a response may come in any pieces, and the next one is not touched.
    #[test]
    fn a_response_is_read_to_its_end_and_no_further() {
        let (mut swtpm, mut peer) = pair();
        let two = [RESPONSE, RESPONSE].concat();
        let sender = std::thread::spawn(move || {
            let mut command = [0; 7];
            peer.read_exact(&mut command).unwrap();
            for octet in two {
                peer.write_all(&[octet]).unwrap();
            }
            command
        });
        let mut response = [0; 64];
        for command in [&b"command"[..], b""] {
            let len = swtpm.exchange(command, &mut response, Deadline::after(SOON)).unwrap();
            assert_eq!(response[..len], RESPONSE);
        }
        assert_eq!(&sender.join().unwrap(), b"command");
    }

    // Goal: silence, an end in the middle and lengths that cannot be are each an error of its own.
    #[test]
    fn what_is_no_response_is_told_apart() {
        let (mut swtpm, mut peer) = pair();
        let mut response = [0; 64];
        peer.write_all(&RESPONSE[..11]).unwrap();
        let soon = Deadline::after(Duration::from_millis(5));
        let late = swtpm.exchange(b"command", &mut response, soon).unwrap_err();
        assert!(matches!(late, TransportError::Late { .. }), "{late}");

        let (mut swtpm, mut peer) = pair();
        peer.write_all(&RESPONSE[..11]).unwrap();
        drop(peer);
        let ended = swtpm.exchange(b"", &mut response, Deadline::after(SOON)).unwrap_err();
        assert!(matches!(ended, TransportError::Ended), "{ended}");
        let ended = swtpm.exchange(b"command", &mut response, Deadline::after(SOON)).unwrap_err();
        assert!(matches!(ended, TransportError::Ended), "{ended}");

        for (len, room) in [(u32::MAX, 64), (4097, 64), (9, 64), (12, 11), (10, 9)] {
            let (mut swtpm, mut peer) = pair();
            peer.write_all(&[&[0x80, 1][..], &len.to_be_bytes(), &[0; 6]].concat()).unwrap();
            let error = swtpm.exchange(b"", &mut vec![0; room], Deadline::after(SOON)).unwrap_err();
            assert!(matches!(error, TransportError::Length { .. }), "{len} octets: {error}");
        }
    }

    // Goal: both kinds of socket are reached, and a place where nobody listens is an absent TPM.
    #[test]
    fn both_kinds_of_socket_are_reached_and_an_empty_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swtpm.sock");
        let address = Address::Socket(path.clone());
        let error = Swtpm::connect(&address).err().unwrap();
        assert!(matches!(error, TransportError::Absent { .. }), "{error}");
        let listener = UnixListener::bind(&path).unwrap();
        Swtpm::connect(&address).unwrap();
        drop(listener);
        let error = Swtpm::connect(&address).err().unwrap();
        assert!(matches!(error, TransportError::Absent { .. }), "{error}");

        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        Swtpm::connect(&address).unwrap();
        drop(listener);
        let error = Swtpm::connect(&address).err().unwrap();
        assert!(matches!(error, TransportError::Absent { .. }), "{error}");
    }
}
