//! Lines for whoever runs a command. That nobody reads them, or that the disk behind them is full, never ends the work.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: AtomicBool = AtomicBool::new(false);

/// A line of standard output.
#[macro_export]
macro_rules! say {
    () => { $crate::terminal::say(format_args!("")) };
    ($($words:tt)+) => { $crate::terminal::say(format_args!($($words)+)) };
}

/// A line of standard error.
#[macro_export]
macro_rules! tell {
    () => { $crate::terminal::tell(format_args!("")) };
    ($($words:tt)+) => { $crate::terminal::tell(format_args!($($words)+)) };
}

/// See [`say!`](crate::say).
pub fn say(line: Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout().lock(), "{line}") {
        // A reader that has gone (`| head`) has what it wanted.
        LOST.fetch_or(error.kind() != ErrorKind::BrokenPipe, Ordering::Relaxed);
    }
}

/// See [`tell!`](crate::tell).
pub fn tell(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether a line of standard output could not be written while somebody was there to read it.
pub fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}
