//! Beginning and beginning again: keys and stores of a new practice, the recovery kit, and a practice brought back from it.

mod back;
mod choose;
mod ended;
mod init;
mod keys;
mod kit;
mod layout;
mod note;
mod unlock;

pub use back::{RecoverArgs, recover};
pub use init::{InitArgs, init};
pub use keys::{KeysArgs, keys};
pub use note::{Fit, KitNote};
pub use unlock::{PASSPHRASE_VARIABLE, UnlockArgs};
