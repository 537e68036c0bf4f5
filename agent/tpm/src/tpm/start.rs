//! Beginning and end.

use tpm2_protocol::data::{TpmRcBase, TpmSu};

use super::Tpm;
use crate::command::Code;
use crate::fault::{ResponseCode, TpmError};
use crate::transact::Transact;

/// What the TPM's tests of itself found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// A test failed; the code says more, if the maker does.
    Failed(ResponseCode),
    /// All tests were passed.
    Passed,
    /// Some are still to be made; the TPM makes them when it needs what they test.
    Pending,
}

impl<T: Transact> Tpm<T> {
    /// Starts the TPM after a reset, with everything that was loaded gone. Firmware and operating
    /// systems do it before us: a TPM that was started already is fine. Part 3 §9.3.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn startup(&mut self) -> Result<(), TpmError<T::Error>> {
        let command = self.command(Code::Startup, &[]).u16(TpmSu::Clear as u16).end();
        match self.call(command) {
            Err(error) if !error.is(ResponseCode::is_startup) => Err(error),
            _ => Ok(()),
        }
    }

    /// Prepares the TPM for the loss of its power. Part 3 §9.4.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn shutdown(&mut self) -> Result<(), TpmError<T::Error>> {
        let command = self.command(Code::Shutdown, &[]).u16(TpmSu::Clear as u16).end();
        self.call(command).map(drop)
    }

    /// Has the TPM test itself, wholly or what it has not tested. Part 3 §10.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn self_test(&mut self, whole: bool) -> Result<(), TpmError<T::Error>> {
        let command = self.command(Code::SelfTest, &[]).u8(u8::from(whole)).end();
        self.call(command).map(drop)
    }

    /// Asks what the tests found. Answered in failure mode, too. Part 3 §10.4.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn test_result(&mut self) -> Result<SelfTest, TpmError<T::Error>> {
        let command = self.command(Code::GetTestResult, &[]).end();
        self.call(command)?;
        let mut parts = self.parameters();
        let (_makers, result) = (parts.sized(), parts.u32());
        self.expect(parts.is_whole())?;
        Ok(match ResponseCode(result) {
            code if code.is_one_of(&[TpmRcBase::Success]) => SelfTest::Passed,
            code if code.is_one_of(&[TpmRcBase::NeedsTest, TpmRcBase::Testing]) => {
                SelfTest::Pending
            }
            code => SelfTest::Failed(code),
        })
    }
}
