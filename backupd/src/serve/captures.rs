//! How the last capture of each source went. It is remembered over a restart: until the next snapshot nothing else knows that the
//! records are damaged or that the EMR gives no copy, and not to know must not look like health.

use super::Daemon;
use crate::sources::SourceError;
use agent_api::Pause;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The jobs' note of it.
const NOTE: &str = "captures";

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Capture {
    damaged: bool,
    unreachable: bool,
}

impl Daemon {
    /// Whether the original is damaged, or why nothing was captured.
    pub(super) fn note_capture(&self, source: &str, told: Result<bool, &SourceError>) {
        let mut view = self.view();
        let (damaged, unreachable) = match told {
            Ok(damaged) => (damaged, false),
            Err(error) if error.is_damage() => (true, view.sources_unreachable.contains(source)),
            Err(_) => (view.sources_damaged.contains(source), true),
        };
        view.set_capture(source, Capture { damaged, unreachable });
        if told.is_err() {
            view.paused = Some(Pause::SourceUnreachable);
        }
        let seen = view.sources_seen.iter();
        let all: BTreeMap<&String, Capture> = seen.map(|source| (source, view.capture(source))).collect();
        let text = serde_json::to_string(&all).unwrap_or_default();
        drop(view);
        if let Err(error) = self.jobs().set_note(NOTE, &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Takes over what was so before this start.
    pub(super) fn recall_captures(&self) {
        let note = self.jobs().note(NOTE).ok().flatten();
        let all: BTreeMap<String, Capture> = note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let mut view = self.view();
        for source in &self.settings.sources {
            if let Some(capture) = all.get(&source.name) {
                view.set_capture(&source.name, *capture);
            }
        }
        if !view.sources_unreachable.is_empty() {
            view.paused = Some(Pause::SourceUnreachable);
        }
    }
}

impl super::view::View {
    fn set_capture(&mut self, source: &str, capture: Capture) {
        let mut set = |is: bool, known: fn(&mut Self) -> &mut std::collections::BTreeSet<String>| match is {
            true => known(self).insert(source.to_owned()),
            false => known(self).remove(source),
        };
        set(capture.damaged, |view| &mut view.sources_damaged);
        set(capture.unreachable, |view| &mut view.sources_unreachable);
        // What a drill found of an earlier snapshot is older than this.
        set(true, |view| &mut view.sources_seen);
    }

    fn capture(&self, source: &str) -> Capture {
        Capture {
            damaged: self.sources_damaged.contains(source),
            unreachable: self.sources_unreachable.contains(source),
        }
    }
}
