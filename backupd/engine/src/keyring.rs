//! Which keyring is in force. Whoever may write into a store can put one there with any number: only the signature of the
//! repository's own authority, which a holder of a key or of a secret checks, tells which one counts.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{UnlockWith, keyring_name, secrets};
use crate::store::NamedStore;
use crate::survey::{View, fetch_any, views};
use backup_format::features::Purpose;
use backup_format::keyring::{Header, Keyring};
use backup_format::{CatalogKey, FormatError, RepositorySecrets};
use bytes::Bytes;

/// Folder of the keyrings: `keyring/<16 hex digits>-<hash>`, the highest number is the one in force.
pub(crate) const KEYRINGS: &str = "keyring/";

/// The keyrings that the stores hold together, the one in force first.
fn newest_first<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<String> = names.filter(|name| name.starts_with(KEYRINGS)).cloned().collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    found
}

fn none_at(stores: &[NamedStore]) -> Error {
    let names: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
    let names = names.join(", ");
    Error::new(
        ErrorKind::NotFound,
        format!(
            "store {names} holds no keyring, so no repository: check its place, put the keyring back, or begin a new one there with `backupd init`"
        ),
    )
}

/// The keyring in force at a store.
pub async fn keyring(_env: &Env, store: &NamedStore) -> Result<Bytes> {
    newest_keyring(std::slice::from_ref(store)).await
}

/// The keyring in force at stores that all answer, as far as it can be known without a secret: one that somebody else put there
/// may be taken for it. What cannot be a keyring is passed over.
pub async fn newest_keyring(stores: &[NamedStore]) -> Result<Bytes> {
    let views = all_views(stores).await?;
    let mut last = none_at(stores);
    for name in names(&views) {
        match read(stores, &views, &name).await {
            Err(error) if is_no_keyring(&error) => last = error,
            found => return found,
        }
    }
    Err(last)
}

/// The keyring in force at stores that all answer, as the holder of a secret finds it: see [`open_in_force`].
pub async fn keyring_for(env: &Env, stores: &[NamedStore], with: &UnlockWith) -> Result<Bytes> {
    open_in_force(env, stores, with, Purpose::Read).await.map(|(bytes, _)| bytes)
}

/// Opens the keyring in force. Only one that was opened tells who wrote the others: so the newest that the secret opens says
/// which is in force, and one that somebody else put into a store is passed over, whatever its number. The repository's own that the
/// secret does not open is not passed over: an older one would bring back a slot that was taken out.
pub(crate) async fn open_in_force(
    env: &Env,
    stores: &[NamedStore],
    with: &UnlockWith,
    purpose: Purpose,
) -> Result<(Bytes, RepositorySecrets)> {
    let views = all_views(stores).await?;
    let (mut refused, mut last) = (None, none_at(stores));
    for name in names(&views) {
        let bytes = match read(stores, &views, &name).await {
            Err(error) if is_no_keyring(&error) => {
                last = error;
                continue;
            }
            found => found?,
        };
        match secrets(env, bytes.clone(), with, purpose).await {
            Err(error) => _ = refused.get_or_insert(error),
            Ok(secrets) => {
                let (_, in_force) = signed(stores, &views, secrets.open_key().catalog()).await?;
                if in_force == bytes {
                    return Ok((bytes, secrets));
                }
                break;
            }
        }
    }
    Err(refused.unwrap_or(last))
}

/// Names of keyrings in one store that the repository's own authority did not write. They are passed over; a person should
/// know that somebody else writes into the store.
pub async fn foreign_keyrings(catalog: &CatalogKey, store: &NamedStore) -> Result<Vec<String>> {
    let stores = std::slice::from_ref(store);
    let views = all_views(stores).await?;
    let mut foreign = Vec::new();
    for name in names(&views) {
        if is_foreign(stores, &views, catalog, &name).await {
            foreign.push(name);
        }
    }
    Ok(foreign)
}

async fn all_views(stores: &[NamedStore]) -> Result<Vec<View>> {
    let views = views(stores, KEYRINGS).await;
    for (store, view) in stores.iter().zip(&views) {
        if let Err(error) = &view.listing {
            return Err(error.duplicate().context(&store.name));
        }
    }
    Ok(views)
}

fn names(views: &[View]) -> Vec<String> {
    newest_first(views.iter().filter_map(View::objects).flat_map(|objects| objects.keys()))
}

async fn read(stores: &[NamedStore], views: &[View], name: &str) -> Result<Bytes> {
    let bytes = fetch_any(stores, views, name).await?;
    check_name(name, &bytes)?;
    Ok(bytes)
}

/// Whether it cannot be a keyring of this repository, or nobody can read it: a store may list what it does not have. One of a
/// newer version can.
fn is_no_keyring(error: &Error) -> bool {
    let foreign = matches!(
        error.source_format(),
        Some(FormatError::NotThis { .. } | FormatError::OtherRepository { .. } | FormatError::Signature { .. })
    );
    foreign || matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

/// Whether a keyring object was read and is not the repository's own.
pub(crate) async fn is_foreign(stores: &[NamedStore], views: &[View], catalog: &CatalogKey, name: &str) -> bool {
    let read = fetch_any(stores, views, name).await;
    let checked = read.and_then(|bytes| Ok(Keyring::parse(&bytes)?.check(catalog)?));
    checked.is_err_and(|error| is_no_keyring(&error))
}

fn check_name(name: &str, bytes: &[u8]) -> Result<()> {
    if name == keyring_name(Keyring::parse(bytes)?.header().number, bytes) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Damaged, "a keyring stands under another's name"))
    }
}

/// Reads the header of the keyring in force at one store and refuses what this release does not know. A keyring that is
/// damaged or gone does not stop a holder of the open key, who reads without it.
pub(crate) async fn require_at(store: &NamedStore, catalog: &CatalogKey, purpose: Purpose) -> Result<()> {
    let stores = std::slice::from_ref(store);
    let views = views(stores, KEYRINGS).await;
    if let Some(Err(error)) = views.first().map(|view| &view.listing) {
        return Err(error.duplicate());
    }
    match require(stores, &views, catalog, purpose).await {
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
            log::warn!(store = store.name.as_str(), error:% = error; "keyring.unreadable");
            Ok(())
        }
        found => found.map(drop),
    }
}

/// The same over all reachable stores, from their listings. Keyrings that the repository's own authority did not write
/// are passed over: a store must not stop a backup by a forged one.
pub(crate) async fn require(
    stores: &[NamedStore],
    views: &[View],
    catalog: &CatalogKey,
    purpose: Purpose,
) -> Result<Header> {
    let (header, _) = signed(stores, views, catalog).await?;
    header.features.require(purpose)?;
    Ok(header)
}

/// The keyring in force at those of the stores that answer. One that the repository's own authority did not write is passed
/// over, whatever its number.
pub async fn signed_keyring(catalog: &CatalogKey, stores: &[NamedStore]) -> Result<Bytes> {
    let views = views(stores, KEYRINGS).await;
    if !views.iter().any(|view| view.listing.is_ok())
        && let Some((store, Err(error))) = stores.iter().zip(views.iter().map(|view| &view.listing)).next()
    {
        return Err(error.duplicate().context(&store.name));
    }
    signed(stores, &views, catalog).await.map(|(_, bytes)| bytes)
}

/// Whether a name in a listing is a keyring's.
#[must_use]
pub fn is_keyring(name: &str) -> bool {
    name.starts_with(KEYRINGS)
}

async fn signed(stores: &[NamedStore], views: &[View], catalog: &CatalogKey) -> Result<(Header, Bytes)> {
    let mut last = none_at(stores);
    for name in names(views) {
        let read = fetch_any(stores, views, &name).await.and_then(|bytes| {
            let keyring = Keyring::parse(&bytes)?;
            keyring.check(catalog)?;
            Ok((keyring.header(), bytes.clone()))
        });
        match read {
            Ok(found) => return Ok(found),
            Err(error) if is_no_keyring(&error) => {
                log::warn!(object = name.as_str(), error:% = error; "keyring.passed-over");
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
