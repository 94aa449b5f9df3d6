//! Long work on a thread of its own.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs a future to its end on a thread of the blocking pool. The engine's futures stay on one thread this way, and its
/// reading and sealing never delays an answer to a client. Such a task cannot be aborted: it has to watch its stop token.
pub fn offload<T, F>(make: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || handle.block_on(make()))
}
