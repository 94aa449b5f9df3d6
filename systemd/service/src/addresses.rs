//! Open connections by address: how many one address has, and which of them waits for a request the longest.

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// In place of a turn: a request is being answered.
const BUSY: u64 = u64::MAX;

#[derive(Default)]
pub struct Addresses {
    open: Mutex<HashMap<IpAddr, Vec<Arc<Line>>>>,
    /// Counts what begins to wait: the least number has waited longest, without a clock.
    turns: AtomicU64,
}

struct Line {
    waits_since: AtomicU64,
    leave: Notify,
}

impl Addresses {
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<Arc<Line>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the address has as many as it may have, the one that waits longest for a request makes room: a program that
    /// only holds connections open shuts out nobody who shares its address. `None`: all of them are being answered.
    pub fn enter(self: &Arc<Self>, address: IpAddr, max: u32) -> Option<Entered> {
        let line = Arc::new(Line { waits_since: AtomicU64::new(self.next_turn()), leave: Notify::new() });
        let mut open = self.open();
        let lines = open.entry(address).or_default();
        if lines.len() >= max.max(1) as usize {
            let waits = lines.iter().map(|line| line.waits_since.load(Ordering::Relaxed)).enumerate();
            let (longest, _) = waits.filter(|(_, since)| *since != BUSY).min_by_key(|(_, since)| *since)?;
            lines.swap_remove(longest).leave.notify_one();
        }
        lines.push(Arc::clone(&line));
        Some(Entered { addresses: Arc::clone(self), address, line })
    }
}

/// One connection of an address, until it is dropped.
pub struct Entered {
    addresses: Arc<Addresses>,
    address: IpAddr,
    line: Arc<Line>,
}

impl Entered {
    /// Resolves when this connection must make room for a new one.
    pub async fn leave(&self) {
        self.line.leave.notified().await;
    }

    pub fn is_busy(&self) -> bool {
        self.line.waits_since.load(Ordering::Relaxed) == BUSY
    }

    /// A request has come: the connection is busy until what is returned is dropped.
    pub fn turn(&self) -> Turn {
        self.line.waits_since.store(BUSY, Ordering::Relaxed);
        Turn { addresses: Arc::clone(&self.addresses), line: Arc::clone(&self.line) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(lines) = open.get_mut(&self.address) {
            lines.retain(|line| !Arc::ptr_eq(line, &self.line));
            if lines.is_empty() {
                open.remove(&self.address);
            }
        }
    }
}

pub struct Turn {
    addresses: Arc<Addresses>,
    line: Arc<Line>,
}

impl Turn {
    /// The turn lasts until `body` is sent or given up.
    pub fn until_sent(self, body: Body) -> Body {
        Body::new(Sending { body, _turn: self })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.waits_since.store(self.addresses.next_turn(), Ordering::Relaxed);
    }
}

struct Sending {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
