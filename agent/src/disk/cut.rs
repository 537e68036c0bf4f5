//! A disk in memory whose power can be cut before, within and after any operation.
//!
//! What a real disk promises is promised here and no more: content is durable after `sync`, names
//! are durable after `sync_names`. Until then a cut may keep any part of unsynced content (all,
//! half, none, or other octets of that length), and any of the pending changes of names, each on
//! its own. What becomes of them is drawn from a *mood*, so that a test can try many.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{Content, Disk};

/// Moods that a test should try: each pending change both ways, each tear.
pub(crate) const MOODS: u64 = 24;

const USER: u32 = 1000;

#[derive(Clone, Debug, Default)]
struct Node {
    now: Vec<u8>,
    /// What is on the medium for certain; `None` until the first sync.
    durable: Option<Vec<u8>>,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Rename(String, String, usize),
    Unlink(String),
}

#[derive(Clone, Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Change>,
    operations: usize,
    cut_at: Option<usize>,
    fail_at: Option<usize>,
    off: bool,
    scrubbed: Vec<Vec<u8>>,
}

/// The disk. Cloning copies it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutDisk(RefCell<State>);

/// What an operation is to do, after counting it.
enum Turn {
    Go,
    /// The power goes while it runs.
    CutWithin,
}

fn power_is_off() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "power cut")
}

impl CutDisk {
    /// Cuts the power within the `n`-th changing operation from now, counted from 1.
    pub(crate) fn cut_at(&self, n: usize) {
        let mut state = self.0.borrow_mut();
        state.cut_at = Some(state.operations + n);
    }

    /// Lets the `n`-th changing operation from now fail with a full disk, without effect.
    pub(crate) fn fail_at(&self, n: usize) {
        let mut state = self.0.borrow_mut();
        state.fail_at = Some(state.operations + n);
    }

    /// Whether a cut happened.
    pub(crate) fn is_off(&self) -> bool {
        self.0.borrow().off
    }

    /// Changing operations so far.
    pub(crate) fn operations(&self) -> usize {
        self.0.borrow().operations
    }

    /// Power comes back: what was not durable becomes what the mood says.
    pub(crate) fn power_cycle(&self, mood: u64) {
        let mut state = self.0.borrow_mut();
        let mut draw = Draw(mood);
        let pending = std::mem::take(&mut state.pending);
        let mut names = std::mem::take(&mut state.durable_names);
        for change in pending {
            if draw.next(2) == 0 {
                apply(&mut names, change);
            }
        }
        for node in &mut state.nodes {
            node.now = node.durable.clone().unwrap_or_else(|| torn(&node.now, draw.next(4)));
            node.durable = Some(node.now.clone());
        }
        state.durable_names = names.clone();
        state.names = names;
        state.off = false;
        state.cut_at = None;
        state.fail_at = None;
    }

    /// Changes a file behind everybody's back, durably.
    pub(crate) fn tamper(&self, name: &str, content: Option<&[u8]>) {
        let mut state = self.0.borrow_mut();
        state.names.remove(name);
        state.durable_names.remove(name);
        if let Some(content) = content {
            let node = Node { now: content.into(), durable: Some(content.into()) };
            state.nodes.push(node);
            let index = state.nodes.len() - 1;
            state.names.insert(name.into(), index);
            state.durable_names.insert(name.into(), index);
        }
    }

    /// What a file holds now.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        state.names.get(name).map(|&node| state.nodes[node].now.clone())
    }

    /// What was scrubbed so far.
    pub(crate) fn scrubbed(&self) -> Vec<Vec<u8>> {
        self.0.borrow().scrubbed.clone()
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    fn turn(&self) -> io::Result<Turn> {
        let mut state = self.0.borrow_mut();
        if state.off {
            return Err(power_is_off());
        }
        state.operations += 1;
        if state.fail_at == Some(state.operations) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.off = state.cut_at == Some(state.operations);
        Ok(if state.off { Turn::CutWithin } else { Turn::Go })
    }

    fn node(&self, name: &str) -> io::Result<usize> {
        self.0.borrow().names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn change(&self, change: Change) {
        let mut state = self.0.borrow_mut();
        apply(&mut state.names, change.clone());
        state.pending.push(change);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: Change) {
    match change {
        Change::Link(name, node) => {
            names.insert(name, node);
        }
        Change::Rename(from, to, node) => {
            names.remove(&from);
            names.insert(to, node);
        }
        Change::Unlink(name) => {
            names.remove(&name);
        }
    }
}

/// What a cut makes of content that was never synced.
fn torn(content: &[u8], how: u64) -> Vec<u8> {
    match how {
        0 => content.into(),
        1 => content[..content.len() / 2].into(),
        2 => Vec::new(),
        _ => vec![0; content.len()],
    }
}

/// A small generator (splitmix64): moods must differ, that is all.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

impl Disk for CutDisk {
    fn read(&self, name: &str, len_max: usize) -> io::Result<Option<Content>> {
        if self.is_off() {
            return Err(power_is_off());
        }
        Ok(self.content(name).map(|mut octets| {
            octets.truncate(len_max);
            Content { octets: Zeroizing::new(octets), mode: 0o600, owner: USER }
        }))
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let turn = self.turn()?;
        if self.content(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let written =
            if matches!(turn, Turn::Go) { content } else { &content[..content.len() / 3] };
        let node = {
            let mut state = self.0.borrow_mut();
            state.nodes.push(Node { now: written.into(), durable: None });
            state.nodes.len() - 1
        };
        self.change(Change::Link(name.into(), node));
        answer(turn)
    }

    fn scrub(&self, name: &str) -> io::Result<()> {
        let Ok(node) = self.node(name) else { return Ok(()) };
        let turn = self.turn()?;
        let mut state = self.0.borrow_mut();
        let before = state.nodes[node].now.clone();
        state.nodes[node].now.fill(0);
        if matches!(turn, Turn::Go) {
            state.nodes[node].durable = Some(vec![0; before.len()]);
        }
        state.scrubbed.push(before);
        answer(turn)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let turn = self.turn()?;
        let node = self.node(name)?;
        if matches!(turn, Turn::Go) {
            let mut state = self.0.borrow_mut();
            state.nodes[node].durable = Some(state.nodes[node].now.clone());
        }
        answer(turn)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let turn = self.turn()?;
        let node = self.node(from)?;
        self.change(Change::Rename(from.into(), to.into(), node));
        answer(turn)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.node(name).is_err() {
            return if self.is_off() { Err(power_is_off()) } else { Ok(()) };
        }
        let turn = self.turn()?;
        self.change(Change::Unlink(name.into()));
        answer(turn)
    }

    fn sync_names(&self) -> io::Result<()> {
        let turn = self.turn()?;
        if matches!(turn, Turn::Go) {
            let mut state = self.0.borrow_mut();
            state.durable_names = state.names.clone();
            state.pending.clear();
        }
        answer(turn)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/state").join(name)
    }

    fn user(&self) -> u32 {
        USER
    }
}

fn answer(turn: Turn) -> io::Result<()> {
    match turn {
        Turn::Go => Ok(()),
        Turn::CutWithin => Err(power_is_off()),
    }
}
