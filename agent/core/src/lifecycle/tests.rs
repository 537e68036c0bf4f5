//! The machine against a scripted shell: each test says what must hold and plays one story.

mod candidate;
mod clock;
mod ending;
mod names;
mod rig;
mod trouble;
mod usual;
