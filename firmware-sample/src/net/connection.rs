//! One TCP connection, as `embedded-io` has it.

use core::cell::Cell;
use core::fmt;

use embedded_io::{ErrorType, Read, ReadReady, Write};

use crate::board::{Clock, Link};

use super::{Net, NetError, Step};

/// A TCP connection. Dropping it breaks it off; [`Connection::close`] ends it in order.
pub struct Connection<'n, 'a, D: Link, C: Clock> {
    net: &'n Net<'a, D, C>,
    slot: usize,
    deadline: &'n Cell<u64>,
}

impl<'n, 'a, D: Link, C: Clock> Connection<'n, 'a, D, C> {
    pub(super) const fn new(net: &'n Net<'a, D, C>, slot: usize, deadline: &'n Cell<u64>) -> Self {
        Self { net, slot, deadline }
    }

    /// Until when whatever is read and written must be done, in milliseconds of the board's clock:
    /// for who gives the connection away, to TLS say, and still has to move its deadline.
    pub const fn deadline_ms(&self) -> &'n Cell<u64> {
        self.deadline
    }

    /// Until when whatever is read and written from now on must be done, in milliseconds of the
    /// board's clock.
    pub fn set_deadline_ms(&mut self, deadline_ms: u64) {
        self.deadline.set(deadline_ms);
    }

    /// Ends the connection in order: everything written is sent, then its end, and the peer has
    /// acknowledged that and ended its own side when this returns. Less would not do: a connection
    /// that is broken off may take from the peer what it has received and not yet read.
    ///
    /// # Errors
    ///
    /// [`NetError::Reset`] or [`NetError::TimedOut`]; the connection is broken off then.
    pub fn close(self) -> Result<(), NetError> {
        self.net.stack.try_borrow_mut().map_err(|_| NetError::Busy)?.close(self.slot);
        self.net.until(self.deadline.get(), Step::Close, |stack| stack.closed(self.slot))
    }
}

impl<D: Link, C: Clock> ErrorType for Connection<'_, '_, D, C> {
    type Error = NetError;
}

impl<D: Link, C: Clock> Read for Connection<'_, '_, D, C> {
    /// Waits for at least one octet; none at all is the end that the peer has sent.
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, NetError> {
        if octets.is_empty() {
            return Ok(0);
        }
        self.net.until(self.deadline.get(), Step::Read, |stack| stack.receive(self.slot, octets))
    }
}

impl<D: Link, C: Clock> ReadReady for Connection<'_, '_, D, C> {
    /// Serves the stack once, and says whether reading would return at once.
    fn read_ready(&mut self) -> Result<bool, NetError> {
        self.net.poll();
        Ok(self.net.stack.try_borrow_mut().map_err(|_| NetError::Busy)?.is_readable(self.slot))
    }
}

impl<D: Link, C: Clock> Write for Connection<'_, '_, D, C> {
    /// Waits until at least one octet fits into the buffer, from which it is sent meanwhile.
    fn write(&mut self, octets: &[u8]) -> Result<usize, NetError> {
        if octets.is_empty() {
            return Ok(0);
        }
        self.net.until(self.deadline.get(), Step::Write, |stack| stack.send(self.slot, octets))
    }

    /// Waits until the peer has acknowledged everything.
    fn flush(&mut self) -> Result<(), NetError> {
        self.net.until(self.deadline.get(), Step::Write, |stack| stack.sent(self.slot))
    }
}

impl<D: Link, C: Clock> Drop for Connection<'_, '_, D, C> {
    fn drop(&mut self) {
        // Borrowed is only who waits, and who waits has not dropped anything.
        if let Ok(mut stack) = self.net.stack.try_borrow_mut() {
            stack.release(self.slot, self.net.clock.now_ms());
        }
    }
}

impl<D: Link, C: Clock> fmt::Debug for Connection<'_, '_, D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("slot", &self.slot).finish_non_exhaustive()
    }
}
