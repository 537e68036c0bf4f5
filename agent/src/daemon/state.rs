//! What the retained birth message tells the fleet about this device.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::{SystemClock, timer};
use crate::context::Context;
use crate::link::{Link, LinkStatus};
use crate::status::Board;

/// Tells the session when the device's state has changed, and from time to time if so configured.
pub(super) struct Describer {
    board: Board,
    link: Rc<dyn Link>,
    told: RefCell<Map<String, Value>>,
}

impl Describer {
    pub(super) fn start(context: &Context, board: Board, link: Rc<dyn Link>) -> Rc<Self> {
        let describer = Rc::new(Self { board, link, told: RefCell::default() });
        let interval_s = context.config.mqtt.as_ref().map_or(0, |mqtt| mqtt.state_interval_s);
        if interval_s != 0 {
            let interval = Duration::from_secs(u64::from(interval_s));
            context.executor.spawn(Rc::clone(&describer).repeat(interval)).detach();
        }
        describer
    }

    /// Tells the state if it is another than was told last.
    pub(super) fn tell(&self) {
        let state = self.state();
        if *self.told.borrow() != state {
            self.told.replace(state.clone());
            self.link.describe(state);
        }
    }

    async fn repeat(self: Rc<Self>, interval: Duration) {
        loop {
            timer(interval).await;
            let mut state = self.state();
            let time = SystemClock.wall().map(|wall| wall.to_string());
            state.insert("reported_at".to_owned(), json!(time));
            self.link.describe(state);
        }
    }

    fn state(&self) -> Map<String, Value> {
        let Some(status) = self.board.status(SystemClock.mono(), LinkStatus::default()) else {
            return Map::new();
        };
        let identity = status.identity.as_ref();
        let facts = json!({
            "agent": env!("CARGO_PKG_VERSION"),
            "phase": status.phase,
            "serial": identity.map(|identity| &identity.serial),
            "not_after": identity.map(|identity| &identity.not_after),
            "renew_at": identity.and_then(|identity| identity.renew_at.as_ref()),
            "clock": status.clock.confidence,
            "failure": status.last_failure.map(|failure| failure.code),
            "key": status.key.backend,
        });
        match facts {
            Value::Object(facts) => facts,
            _ => Map::new(),
        }
    }
}
