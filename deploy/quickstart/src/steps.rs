//! What the person at the terminal sees while things happen: a spinner a step on a terminal, one line a step elsewhere.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Steps {
    terminal: bool,
}

/// A step that is in work. Dropped without `done`, it leaves its last message.
pub struct Step {
    bar: ProgressBar,
    terminal: bool,
}

impl Steps {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    pub fn begin(self, text: &str) -> Step {
        let bar = if self.terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_message(text.to_owned());
        } else {
            output::note(&format!("  .. {text}"));
        }
        Step { bar, terminal: self.terminal }
    }
}

impl Step {
    /// Shows a bar of bytes, once a total is known.
    pub fn bytes(&self, text: &str, done: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| *total > 0)
            && self.bar.length() != Some(total)
        {
            self.bar.set_length(total);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}") {
                self.bar.set_style(style);
            }
        }
        self.bar.set_position(done);
        self.bar.set_message(text.to_owned());
    }

    pub fn done(self, text: &str) {
        self.bar.finish_and_clear();
        output::note(&format!("  ok {text}"));
    }

    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.terminal {
            self.bar.finish_and_clear();
        }
    }
}
