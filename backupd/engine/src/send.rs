//! Sending to every store at once: bounded memory, and a dead or slow store never stops the others.

use crate::error::{Error, ErrorKind, Result};
use crate::store::{NamedStore, Store};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Objects waiting for one store.
const QUEUE: usize = 1;
/// Objects on their way to one store.
const IN_FLIGHT: usize = 2;

/// Packs in memory: what each of the stores but one holds on to if it hangs; and for that one what is on its way and the next,
/// which is being sealed.
pub(crate) fn packs_in_memory(stores: usize) -> usize {
    (QUEUE + IN_FLIGHT) * stores.saturating_sub(1) + IN_FLIGHT + 1
}

/// How long the others wait once for a store whose queue is full, when the quorum can do without it.
const PATIENCE: Duration = Duration::from_secs(5);

struct Job {
    name: String,
    bytes: Bytes,
    /// Put only after everything before it is durable.
    after_all: bool,
}

enum Command {
    Put(Job),
    Drained(oneshot::Sender<()>),
}

#[derive(Default)]
struct Shared {
    sent: Mutex<HashSet<String>>,
    bytes: AtomicU64,
    error: Mutex<Option<Error>>,
}

/// The way to one store.
pub(crate) struct Lane {
    /// The failure domain in which the store counts for the quorum.
    counts_in: Option<String>,
    queue: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    /// Some objects were not sent: they are copied from another store at the end.
    lagging: bool,
}

impl Lane {
    /// Starts sending to a reachable store.
    pub(crate) fn open(store: &NamedStore) -> Self {
        let (queue, commands) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        tokio::spawn(serve(Arc::clone(&store.store), commands, Arc::clone(&shared)));
        Self { counts_in: store.counts_in().map(str::to_owned), queue, shared, lagging: false }
    }

    pub(crate) fn sent(&self, name: &str) -> bool {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    fn healthy(&self) -> bool {
        !self.lagging && !self.queue.is_closed()
    }

    /// Notes an object that reached the store on another way.
    pub(crate) fn note_sent(&self, name: &str, bytes: u64) {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        self.shared.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Waits until everything queued is durable.
    pub(crate) async fn drained(&self) -> Result<()> {
        let (done, finished) = oneshot::channel();
        let asked = self.queue.send(Command::Drained(done)).await.is_ok();
        let answered = async {
            tokio::select! {
                biased;
                answer = finished => answer.is_ok(),
                // What was queued in the moment in which sending ended is neither answered nor dropped while this end is held.
                () = self.queue.closed() => false,
            }
        };
        if !asked || !answered.await {
            let error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(error.unwrap_or_else(|| Error::new(ErrorKind::Retry, "sending to the store ended early")));
        }
        Ok(())
    }
}

async fn serve(store: Arc<dyn Store>, mut commands: mpsc::Receiver<Command>, shared: Arc<Shared>) {
    let mut under_way = FuturesUnordered::new();
    let put = |job: Job| {
        let (store, shared) = (Arc::clone(&store), Arc::clone(&shared));
        async move {
            let size = job.bytes.len() as u64;
            store.put(&job.name, job.bytes).await?;
            shared.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(job.name);
            shared.bytes.fetch_add(size, Ordering::SeqCst);
            Ok::<(), Error>(())
        }
    };
    loop {
        let result = tokio::select! {
            biased;
            Some(result) = under_way.next(), if !under_way.is_empty() => result,
            command = commands.recv(), if under_way.len() < IN_FLIGHT => match command {
                None => return,
                Some(Command::Put(job)) if !job.after_all => {
                    under_way.push(put(job));
                    Ok(())
                }
                Some(command) => {
                    let mut result = Ok(());
                    while let Some(done) = under_way.next().await {
                        result = result.and(done);
                    }
                    match (result, command) {
                        (Ok(()), Command::Put(job)) => put(job).await,
                        (Ok(()), Command::Drained(done)) => {
                            // The asker may have given up waiting.
                            let _ = done.send(());
                            Ok(())
                        }
                        (Err(error), _) => Err(error),
                    }
                }
            },
        };
        if let Err(error) = result {
            shared.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            return;
        }
    }
}

/// All lanes; `None` for a store that could not be reached at the start.
pub(crate) struct Fleet {
    pub(crate) lanes: Vec<Option<Lane>>,
    quorum: usize,
}

impl Fleet {
    pub(crate) fn new(lanes: Vec<Option<Lane>>, quorum: u32) -> Self {
        Self { lanes, quorum: quorum as usize }
    }

    /// Queues an object at every store that keeps up.
    pub(crate) async fn send(&mut self, name: &str, bytes: &Bytes, after_all: bool) {
        for at in 0..self.lanes.len() {
            let dispensable = self.dispensable(at);
            let Some(Some(lane)) = self.lanes.get_mut(at) else { continue };
            if !lane.healthy() {
                continue;
            }
            let job = Job { name: name.to_owned(), bytes: bytes.clone(), after_all };
            let queued = lane.queue.send(Command::Put(job));
            if dispensable {
                // A store that misses one object gets no later ones from here: index follows packs, always.
                lane.lagging = tokio::time::timeout(PATIENCE, queued).await.is_err();
            } else {
                // A failed store shows when it is drained.
                let _ = queued.await;
            }
        }
    }

    /// Whether the others that keep up are enough for the quorum, or at least one.
    fn dispensable(&self, at: usize) -> bool {
        let others = self.lanes.iter().enumerate().filter(|(other, _)| *other != at);
        let healthy: Vec<&Lane> = others.filter_map(|(_, lane)| lane.as_ref()).filter(|lane| lane.healthy()).collect();
        let counting: BTreeSet<&String> = healthy.iter().filter_map(|lane| lane.counts_in.as_ref()).collect();
        !healthy.is_empty() && counting.len() >= self.quorum
    }
}

/// Lets stores pass together once enough of them have come this far, or none that has not can come any more. Those that
/// wait go on in the order in which they came.
pub(crate) struct Gate {
    /// The failure domains of counting stores that have arrived, and how many have arrived or failed.
    settled: Mutex<(BTreeSet<String>, usize)>,
    changed: Notify,
    quorum: usize,
    stores: usize,
}

impl Gate {
    pub(crate) fn new(quorum: u32, stores: usize) -> Self {
        Self { settled: Mutex::default(), changed: Notify::new(), quorum: quorum as usize, stores }
    }

    /// A store has arrived or has failed (`None`).
    pub(crate) fn settle(&self, arrived: Option<&NamedStore>) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.0.extend(arrived.and_then(NamedStore::counts_in).map(str::to_owned));
        settled.1 += 1;
        drop(settled);
        self.changed.notify_waiters();
    }

    fn is_open(&self) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.0.len() >= self.quorum.max(1) || settled.1 >= self.stores
    }

    pub(crate) async fn pass(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.is_open() {
                return;
            }
            changed.await;
        }
    }
}
