//! Whom a Unix socket is believed. A name below a folder that everybody may write, as /tmp, is anybody's as soon as a cleaner
//! of old files has been there: a daemon binds only in a folder that nobody else can fill, and a client asks the kernel
//! who serves the socket before it believes a word.

use rustix::process::geteuid;
use std::fs::{DirBuilder, Metadata, metadata, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

const ROOT: u32 = 0;
/// Everybody may write.
const OTHERS_WRITE: u32 = 0o002;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    #[error("the folder of the socket cannot be made or looked at ({0})")]
    Folder(io::ErrorKind),
    #[error(
        "the folder of the socket belongs to another user, or everybody may write in it: remove it, or choose one that is this \
         user's alone"
    )]
    Shared,
    #[error(
        "user {0} listens there, who is neither this user nor root nor the one whom root gave the socket's folder: find out who \
         that is before anything else"
    )]
    Stranger(u32),
}

/// The folder that a daemon binds its socket in: made when absent, for this user alone. One that another user may have
/// prepared is refused.
///
/// # Errors
/// [`SocketError::Shared`], or why it cannot be made.
pub fn prepare_folder(socket: &Path) -> Result<(), SocketError> {
    let folder = folder_of(socket);
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(SocketError::Folder(error.kind())),
        _ => {}
    }
    // A link is followed where it is ours, too.
    let (name, behind) = (look(symlink_metadata(folder))?, look(metadata(folder))?);
    let ours = |found: &Metadata| is_ours(found.uid());
    if ours(&name) && ours(&behind) && behind.is_dir() && behind.mode() & OTHERS_WRITE == 0 {
        Ok(())
    } else {
        Err(SocketError::Shared)
    }
}

/// Whether a client may believe the server of a socket, whose user the kernel told (`SO_PEERCRED`): its own user, root, or the
/// user to whom root (or the client's user) gave a folder of its own for the socket, as a service manager does in /run.
///
/// # Errors
/// [`SocketError::Stranger`].
pub fn check_server(socket: &Path, server: u32) -> Result<(), SocketError> {
    if is_ours(server) {
        return Ok(());
    }
    let folder = folder_of(socket);
    let (behind, above) = (symlink_metadata(folder), metadata(folder_of(folder)));
    let place = |found: io::Result<Metadata>| found.ok().filter(Metadata::is_dir).map(|is| (is.uid(), is.mode()));
    if place(behind).zip(place(above)).is_some_and(|(folder, above)| was_given(server, folder, above)) {
        Ok(())
    } else {
        Err(SocketError::Stranger(server))
    }
}

/// Nobody but the server can have put the socket there, and nobody but root and this user the folder. Owners and modes.
fn was_given(server: u32, folder: (u32, u32), above: (u32, u32)) -> bool {
    let closed = |mode: u32| mode & OTHERS_WRITE == 0;
    folder.0 == server && closed(folder.1) && is_ours(above.0) && closed(above.1)
}

fn is_ours(user: u32) -> bool {
    user == ROOT || user == geteuid().as_raw()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

fn look(found: io::Result<Metadata>) -> Result<Metadata, SocketError> {
    found.map_err(|error| SocketError::Folder(error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Neither root nor whoever runs the tests.
    const OTHER: u32 = 4_000_000_001;

    #[test]
    fn a_folder_is_made_for_this_user_alone_and_an_open_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/s");
        prepare_folder(&socket).unwrap();
        let mode = || fs::metadata(dir.path().join("run")).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        prepare_folder(&socket).unwrap();
        assert_eq!(mode(), 0o750, "what a service manager made stays as it is");
        for open in [0o777, 0o1777] {
            fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(open)).unwrap();
            assert_eq!(prepare_folder(&socket), Err(SocketError::Shared));
        }
        symlink(dir.path().join("run"), dir.path().join("link")).unwrap();
        assert_eq!(
            prepare_folder(&dir.path().join("link/s")),
            Err(SocketError::Shared),
            "what is behind a link counts"
        );
        let deep = prepare_folder(&dir.path().join("no/where/s"));
        assert_eq!(deep, Err(SocketError::Folder(io::ErrorKind::NotFound)), "only the last folder is made");
    }

    #[test]
    fn a_server_is_believed_where_nobody_else_can_have_put_its_socket() {
        let own = geteuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        assert_eq!((check_server(&socket, own), check_server(&socket, ROOT)), (Ok(()), Ok(())));
        assert_eq!(check_server(&socket, OTHER), Err(SocketError::Stranger(OTHER)));
        assert_eq!(check_server(&dir.path().join("no/where/s"), OTHER), Err(SocketError::Stranger(OTHER)));
        assert!(was_given(OTHER, (OTHER, 0o750), (ROOT, 0o755)), "as a service manager gives it");
        assert!(was_given(OTHER, (OTHER, 0o700), (own, 0o700)));
        assert!(!was_given(OTHER, (OTHER, 0o700), (ROOT, 0o1777)), "anybody makes a folder in /tmp");
        assert!(!was_given(OTHER, (OTHER, 0o700), (OTHER, 0o755)), "nor below a folder of its own");
        assert!(!was_given(OTHER, (OTHER, 0o777), (ROOT, 0o755)));
        assert!(
            !was_given(OTHER, (OTHER + 1, 0o755), (ROOT, 0o755)) && !was_given(OTHER, (ROOT, 0o755), (ROOT, 0o755))
        );
    }
}
