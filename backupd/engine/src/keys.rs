//! Making a repository, opening its keyring, making a further writer.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::store::NamedStore;
use backup_format::keyring::{Keyring, Unlock};
use backup_format::{ObjectHash, OpenKey, PaperKey, Passphrase, RepositoryId, RepositorySecrets, WriterCredential};
use bytes::Bytes;

/// Folder of the keyrings: `keyring/<16 hex digits>-<hash>`, the highest number is the one in force.
pub(crate) const KEYRINGS: &str = "keyring/";

/// How a repository is made.
#[derive(Default)]
pub struct InitOptions {
    /// A passphrase slot beside the paper key's; without one the paper key alone opens the keyring.
    pub passphrase: Option<Passphrase>,
}

/// What `init` made. The caller writes the files: writer credential and open key with mode 0600, apart.
pub struct Initialized {
    pub repository: RepositoryId,
    pub writer: WriterCredential,
    pub open: OpenKey,
    /// The wrapped keyring, as stored in every store; also for the recovery kit.
    pub keyring: Bytes,
    pub paper_key: PaperKey,
}

/// What unlocks a keyring.
pub enum UnlockWith {
    Passphrase(Passphrase),
    PaperKey(PaperKey),
    /// The bytes of an open key file: no keyring is read, but it must be of the store's repository.
    OpenKeyFile(zeroize::Zeroizing<Vec<u8>>),
}

/// Makes a repository in every store. Refused where a store already holds one.
pub async fn init(env: &Env, stores: &[NamedStore], options: InitOptions) -> Result<Initialized> {
    if stores.is_empty() {
        return Err(Error::new(ErrorKind::Misconfigured, "no store is given: name at least one"));
    }
    for store in stores {
        let found = match store.store.list(KEYRINGS).await {
            // A folder that does not exist yet is made by the first put.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            found => found.map_err(|error| error.context(&store.name))?,
        };
        if !found.is_empty() {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                format!("store {} already holds a repository: choose an empty place", store.name),
            ));
        }
    }
    let made = make(env, &options)?;
    let name = keyring_name(1, &made.keyring);
    for store in stores {
        store.store.put(&name, made.keyring.clone()).await.map_err(|error| error.context(&store.name))?;
    }
    Ok(made)
}

fn make(env: &Env, options: &InitOptions) -> Result<Initialized> {
    let mut rng = env.rng();
    let secrets = RepositorySecrets::generate(&mut rng);
    let paper_key = PaperKey::generate(&mut rng);
    let mut slots = vec![Unlock::Paper(&paper_key)];
    slots.extend(options.passphrase.as_ref().map(Unlock::Passphrase));
    let keyring = Bytes::from(backup_format::keyring::seal(&mut rng, &secrets, &slots)?);
    Ok(Initialized {
        repository: secrets.repository(),
        writer: WriterCredential::issue(&mut rng, &secrets),
        open: secrets.open_key(),
        keyring,
        paper_key,
    })
}

fn keyring_name(number: u64, bytes: &[u8]) -> String {
    format!("{KEYRINGS}{number:016x}-{}", ObjectHash::of(bytes))
}

/// The keyring in force at a store.
pub async fn keyring(_env: &Env, store: &NamedStore) -> Result<Bytes> {
    let listed = store.store.list(KEYRINGS).await?;
    let newest = listed.iter().map(|object| object.name.as_str()).max().ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("store {} holds no repository: run init, or check its place", store.name),
        )
    })?;
    store.store.get(newest).await
}

/// Which repository a keyring is of; needs no key.
pub fn repository_of(keyring: &[u8]) -> Result<RepositoryId> {
    Ok(Keyring::parse(keyring)?.repository())
}

/// Opens the repository's read key.
pub async fn unlock(env: &Env, store: &NamedStore, with: &UnlockWith) -> Result<OpenKey> {
    let keyring = keyring(env, store).await?;
    if let UnlockWith::OpenKeyFile(bytes) = with {
        let key = OpenKey::from_bytes(bytes)?;
        let repository = Keyring::parse(&keyring)?.repository();
        return if key.repository() == repository {
            Ok(key)
        } else {
            Err(Error::new(ErrorKind::Misconfigured, "the open key file belongs to another repository"))
        };
    }
    Ok(secrets(env, keyring, with).await?.open_key())
}

/// A new writer, for a machine that lost its own credential. The open key alone cannot make one.
pub async fn recover_writer(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<WriterCredential> {
    let secrets = secrets(env, keyring, with).await?;
    Ok(WriterCredential::issue(&mut env.rng(), &secrets))
}

async fn secrets(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<RepositorySecrets> {
    let refused = |error| match error {
        backup_format::FormatError::Sealed { .. } => {
            Error::new(ErrorKind::Denied, "the passphrase or paper key does not open this repository's keyring")
        }
        other => Error::from(other),
    };
    match with {
        UnlockWith::OpenKeyFile(_) => Err(Error::new(
            ErrorKind::Denied,
            "an open key file cannot make a writer: give the passphrase or the paper key",
        )),
        UnlockWith::Passphrase(passphrase) => {
            let passphrase = passphrase.clone();
            // 64 MiB and a second of work: not on the reactor.
            env.blocking(move || Keyring::parse(&keyring)?.open(&Unlock::Passphrase(&passphrase)))
                .await?
                .map_err(refused)
        }
        UnlockWith::PaperKey(paper) => {
            Keyring::parse(&keyring).and_then(|ring| ring.open(&Unlock::Paper(paper))).map_err(refused)
        }
    }
}
