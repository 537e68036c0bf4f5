//! throwaway
use fleetcert_core::event::Event;
pub(super) fn code(e: &Event) -> &'static str {
    match e {
        Event::Adopted { .. } => "adopted",
        Event::CandidateDiscarded { .. } => "candidate-discarded",
        Event::ClockJudged { .. } => "clock-judged",
        Event::ClockRefused { .. } => "clock-refused",
        Event::Decommissioned => "decommissioned",
        Event::Enrolled { .. } => "enrolled",
        Event::Expired { .. } => "expired",
        Event::Failed { .. } => "failed",
        Event::Proven { .. } => "proven",
        Event::Quarantined => "quarantined",
        Event::Requested { .. } => "requested",
    }
}
