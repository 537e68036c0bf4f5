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
        match self.call(Code::Startup, &[], |command| {
            command.u16(TpmSu::Clear as u16);
        }) {
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
        let written = |command: &mut crate::command::Writer<'_>| {
            command.u16(TpmSu::Clear as u16);
        };
        self.call(Code::Shutdown, &[], written).map(drop)
    }

    /// Has the TPM test itself, wholly or what it has not tested. Part 3 §10.2.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn self_test(&mut self, whole: bool) -> Result<(), TpmError<T::Error>> {
        self.call(Code::SelfTest, &[], |command| {
            command.u8(u8::from(whole));
        })
        .map(drop)
    }

    /// Asks what the tests found. Answered in failure mode, too. Part 3 §10.4.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn test_result(&mut self) -> Result<SelfTest, TpmError<T::Error>> {
        let command = Code::GetTestResult;
        let answer = self.call(command, &[], |_| ())?;
        let mut reader = self.parameters(&answer);
        let result = reader.sized(usize::MAX).and_then(|_| reader.u32());
        let result = result.map_err(|_| TpmError::Malformed { command })?;
        Ok(match ResponseCode(result) {
            code if code.is_one_of(&[TpmRcBase::Success]) => SelfTest::Passed,
            code if code.is_one_of(&[TpmRcBase::NeedsTest, TpmRcBase::Testing]) => {
                SelfTest::Pending
            }
            code => SelfTest::Failed(code),
        })
    }
}
