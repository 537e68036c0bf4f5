//! From a configuration to a running shell.
//!
//! **What it is.** [`Daemon::prepare`] opens what one agent alone may open: state directory, lock,
//! record, keys. [`Daemon::run`] gives the core's shell its ports and lets it run until somebody
//! says stop, or until the one thing is done that a command line asked for.
//!
//! **What it must never do.** Run without the lock, start from a record that is not certainly the
//! newest, or leave a core dump with keys in it.
//!
//! **Why a stop needs no care.** It drops the shell wherever it stands, in the middle of an action
//! if need be. The record was made to survive a power cut at that very place; a stop is a gentler
//! one that says good-bye to the broker first.

mod ending;
mod shown;
mod start;
mod state;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use fleetcert_core::lifecycle::{Command, Machine};
use fleetcert_core::port;
use fleetcert_core::shell::{Flow, Ports};
use fleetcert_core::time::Wall;
use futures_lite::StreamExt;
use smol::channel::{Receiver, bounded};
use smol::future::or;

use crate::cause::Causes;
use crate::clock::{SystemClock, Waiter, within};
use crate::config::Config;
use crate::context::{Context, Executor};
use crate::control::{Desk, Socket};
use crate::disk::{Lock, StateDir};
use crate::entropy::Entropy;
use crate::keystore::KeyStore;
use crate::link::Link;
use crate::notify::{self, News};
use crate::reports::Reporter;
use crate::status::{Board, View};
use crate::store::Store;

pub use ending::{Ending, Until};
pub use start::{StartError, leave_no_core_dumps};

use shown::Shown;
use state::Describer;

/// Commands that wait for the machine, at most.
const COMMANDS_MAX: usize = 16;

/// The broker has so long to take our good-bye.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// The time that this release is certainly younger than; the floor of a clock that knows nothing.
pub const BUILD_TIME: Wall = start::build_time(option_env!("SOURCE_DATE_EPOCH"));

/// An agent that holds its state directory and is ready to run.
#[derive(Debug)]
pub struct Daemon {
    context: Context,
    state: Rc<StateDir>,
    store: Store,
    machine: Machine,
    commands: Receiver<Command>,
    _lock: Lock,
}

impl Daemon {
    /// Takes the state directory into possession and loads the record.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing was changed but damaged or outdated copies of the record.
    pub fn prepare(config: Config) -> Result<Self, StartError> {
        let state = Rc::new(StateDir::make(&config.state_dir).map_err(StartError::StateDir)?);
        let lock = Lock::take(&state).map_err(StartError::Lock)?;
        let (causes, entropy) = (Causes::default(), Entropy::system());
        let store = Store::new(state.clone(), causes.clone());
        let record = start::load(&store, &config)?;
        let keys =
            KeyStore::open(state.clone(), &config.key, &record, entropy.clone(), causes.clone())
                .map_err(StartError::Home)?;
        let seed = entropy.octets().map_err(|_| StartError::Entropy)?;
        let policy = config.policy(BUILD_TIME);
        let machine =
            Machine::new(policy, config.device_id.clone(), record, seed, SystemClock.read());
        let (sender, commands) = bounded(COMMANDS_MAX);
        let context = Context {
            config: Arc::new(config),
            keys,
            clock: SystemClock,
            entropy,
            executor: Executor::default(),
            commands: sender,
            causes,
        };
        Ok(Self { context, state, store, machine, commands, _lock: lock })
    }

    /// What the peers are made from.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Runs on this thread until stopped by a signal, or until what `until` names is reached.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the kernel refuses a timer, a socket or the signals, or if machine and
    /// shell disagree.
    pub fn run<P: port::Peers>(
        self,
        peers: P,
        link: Rc<dyn Link>,
        until: Until,
    ) -> Result<Ending, StartError> {
        let executor = Rc::clone(&self.context.executor);
        smol::block_on(executor.run(self.drive(peers, link, until)))
    }

    async fn drive<P: port::Peers>(
        mut self,
        peers: P,
        link: Rc<dyn Link>,
        until: Until,
    ) -> Result<Ending, StartError> {
        let Context { config, executor, commands, causes, .. } = self.context.clone();
        let board = Board::new(config.device_id.clone(), self.context.keys.clone());
        let mut stops =
            Signals::new([Signal::Term, Signal::Int]).map_err(StartError::of("catch signals"))?;
        let wait =
            Waiter::new(self.commands.clone()).map_err(StartError::of("make kernel timers"))?;
        let socket = Socket::bind(&self.state).map_err(StartError::Socket)?;
        let desk = Rc::new(Desk::new(board.clone(), Rc::clone(&link), commands.clone()));
        let served = executor.spawn(socket.serve(desk, Rc::clone(&executor)));
        let describer = Describer::start(&self.context, board.clone(), Rc::clone(&link));
        let device = config.device_id.clone();
        let reports =
            Reporter::new(device, board.clone(), causes.clone(), Rc::clone(&link), executor);
        let mut ports = Ports {
            clock: self.context.clock,
            storage: self.store,
            keys: self.context.keys.clone(),
            peers: Shown { peers, board: board.clone() },
            reports,
            wait,
        };
        let start = ending::Start::of(&self.machine);
        if let Some(command) = until.command(&start) {
            // The queue was made a moment ago and is empty.
            let _room = commands.try_send(command);
        }
        // The first action may take as long as a silent peer lets it; people ask at once.
        board.show(View::of(&self.machine, port::Clock::now(&mut ports.clock)));
        let mut ending = None;
        let observe = |machine: &Machine, now| {
            board.show(View::of(machine, now));
            describer.tell();
            link.judge(machine.reading(now));
            ending = until.ending(&start, machine, now);
            if ending.is_some() { Flow::End } else { Flow::Continue }
        };
        notify::tell(News::Ready);
        let stopped = async {
            stops.next().await;
            log::info!("asked to stop");
            Ok(())
        };
        let outcome = or(stopped, ports.run(&mut self.machine, observe)).await;
        notify::tell(News::Stopping);
        if within(CLOSE_MAX, link.close()).await.is_none() {
            log::warn!("the broker did not take our good-bye in time");
        }
        served.cancel().await;
        self.context.keys.close().await;
        outcome.map_err(StartError::Unexpected)?;
        Ok(ending.unwrap_or(Ending::Stopped).with_cause(&board))
    }
}

#[cfg(test)]
mod tests;
