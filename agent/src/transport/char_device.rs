//! The kernel's character devices, `/dev/tpmrm0` and `/dev/tpm0`.
//!
//! A command is one write, its response one read: a second write before the read is refused, and
//! what a read leaves behind may be lost. The device is opened so that the kernel works while we
//! wait for it to be readable; kernels before 4.20 answer within the write, which comes to the same
//! but for the limit.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{
    Address, Deadline, HEAD_LEN, RESPONSE_LEN_MAX, TransportError, Wire, announced, refused,
};

/// An open device.
#[derive(Debug)]
pub(super) struct CharDevice {
    file: File,
}

impl CharDevice {
    pub(super) fn open(path: &Path) -> Result<Self, TransportError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| refused(Address::Device(path.into()), source))?;
        Ok(Self { file })
    }

    fn send(&mut self, command: &[u8]) -> Result<(), TransportError> {
        let written = self.file.write(command).map_err(TransportError::of("write to the TPM"))?;
        if written == command.len() { Ok(()) } else { Err(TransportError::Ended) }
    }

    fn await_response(&self, deadline: Deadline) -> Result<(), TransportError> {
        loop {
            let rest = Timespec::try_from(deadline.rest()?).map_err(|_| deadline.missed())?;
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&rest)) {
                Ok(0) => return Err(deadline.missed()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(TransportError::Io {
                        act: "wait for the TPM",
                        source: errno.into(),
                    });
                }
            }
        }
    }
}

impl Wire for CharDevice {
    fn exchange(
        &mut self,
        command: &[u8],
        response: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, TransportError> {
        self.send(command)?;
        self.await_response(deadline)?;
        // With the kernel's own room, so that one read takes everything whatever the caller has.
        let mut room = [0; RESPONSE_LEN_MAX];
        let len = self.file.read(&mut room).map_err(TransportError::of("read from the TPM"))?;
        let head = room.first_chunk::<HEAD_LEN>().filter(|_| len >= HEAD_LEN);
        let announced = announced(*head.ok_or(TransportError::Ended)?)?;
        if announced != len {
            return Err(TransportError::Length { found: len, max: announced });
        }
        let found = TransportError::Length { found: len, max: response.len() };
        response.get_mut(..len).ok_or(found)?.copy_from_slice(&room[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);
    const RESPONSE: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];

    /// A device, and the end on which a test is its kernel: like a device, each write is one
    /// message, and each read takes one.
    fn device() -> (CharDevice, File) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs): (OwnedFd, OwnedFd) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (CharDevice { file: ours.into() }, theirs.into())
    }

    // Goal: one write, one read, the whole response, and the next command likewise.
    #[test]
    fn a_command_is_one_write_and_its_response_one_read() {
        let (mut device, mut kernel) = device();
        for command in [&b"first"[..], b"second"] {
            kernel.write_all(&RESPONSE).unwrap();
            let mut response = [0; 64];
            let len = device.exchange(command, &mut response, Deadline::after(SOON)).unwrap();
            assert_eq!(response[..len], RESPONSE);
            let mut seen = [0; 64];
            let len = kernel.read(&mut seen).unwrap();
            assert_eq!(&seen[..len], command);
        }
    }

    // Goal: a silent device is given up in time, and a gone one at once.
    #[test]
    fn silence_ends_at_the_deadline_and_the_end_at_once() {
        let (mut device, kernel) = device();
        let mut response = [0; 64];
        let soon = Deadline::after(Duration::from_millis(5));
        let late = device.exchange(b"command", &mut response, soon).unwrap_err();
        assert!(matches!(late, TransportError::Late { .. }), "{late}");
        drop(kernel);
        let ended = device.exchange(b"command", &mut response, Deadline::after(SOON)).unwrap_err();
        assert!(matches!(ended, TransportError::Io { .. } | TransportError::Ended), "{ended}");
    }

    // Goal: a response that is not what its head says, or does not fit, is none.
    #[test]
    fn responses_of_a_wrong_length_are_refused() {
        for (response, room) in [
            (&RESPONSE[..11], 64),
            (&[0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, 7, 8][..], 64),
            (&RESPONSE[..9], 64),
            (&RESPONSE[..], 11),
        ] {
            let (mut device, mut kernel) = device();
            kernel.write_all(response).unwrap();
            let mut out = vec![0; room];
            let error = device.exchange(b"command", &mut out, Deadline::after(SOON)).unwrap_err();
            let is_expected =
                matches!(error, TransportError::Length { .. } | TransportError::Ended);
            assert!(is_expected, "{error}");
            assert_eq!(out, vec![0; room], "nothing of it is handed out");
        }
    }
}
