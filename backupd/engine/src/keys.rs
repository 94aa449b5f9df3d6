//! Making a repository, opening its keyring, and writing a further keyring: another epoch, a slot more, a slot less.

use crate::candidate::put_whole;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{KEYRINGS, open_in_force, require_at};
use crate::store::NamedStore;
use backup_format::features::{Features, Purpose};
use backup_format::keyring::{Header, Keyring, seal};
use backup_format::{
    FormatError, MachineKey, ObjectHash, OpenKey, PaperKey, Passphrase, PrunerCredential, RepositoryId,
    RepositorySecrets, Share, Slot, SlotId, SlotKind, Unlock, WriterCredential,
};
use bytes::Bytes;

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
#[derive(Clone)]
pub enum UnlockWith {
    Passphrase(Passphrase),
    PaperKey(PaperKey),
    /// As many shares of one slot as it takes.
    Shares(Vec<Share>),
    /// A machine key, from a systemd credential.
    Machine(MachineKey),
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
    let made = make(env, options).await?;
    let name = keyring_name(1, &made.keyring);
    for store in stores {
        store.store.put(&name, made.keyring.clone()).await.map_err(|error| error.context(&store.name))?;
    }
    Ok(made)
}

async fn make(env: &Env, options: InitOptions) -> Result<Initialized> {
    let now = env.now_unix_ms();
    let paper_key = PaperKey::generate(&mut env.rng());
    let secrets = RepositorySecrets::generate(&mut env.rng(), now);
    let mut slots = vec![Slot::new(&mut env.rng(), &Unlock::Paper(&paper_key), now)?];
    if let Some(passphrase) = options.passphrase {
        slots.push(slot(env, UnlockWith::Passphrase(passphrase)).await?);
    }
    let keyring = Bytes::from(seal(&mut env.rng(), &secrets, 1, Features::default(), &slots)?);
    Ok(Initialized {
        repository: secrets.repository(),
        writer: WriterCredential::issue(&mut env.rng(), &secrets),
        open: secrets.open_key(),
        keyring,
        paper_key,
    })
}

/// A slot for a secret. A passphrase takes 64 MiB and most of a second, so not on the reactor.
async fn slot(env: &Env, with: UnlockWith) -> Result<Slot> {
    let (mut rng, now) = (env.rng(), env.now_unix_ms());
    env.blocking(move || Ok(Slot::new(&mut rng, &with.borrow()?, now)?)).await?
}

pub(crate) fn keyring_name(number: u64, bytes: &[u8]) -> String {
    format!("{KEYRINGS}{number:016x}-{}", ObjectHash::of(bytes))
}

/// Puts a keyring that was kept elsewhere back into a store that lost its own, or holds it damaged.
pub async fn put_back_keyring(store: &NamedStore, keyring: &Bytes) -> Result<()> {
    let name = keyring_name(Keyring::parse(keyring)?.header().number, keyring);
    put_whole(store, &name, keyring.clone(), true).await.map_err(|error| error.context(&store.name))
}

/// Which repository a keyring is of; needs no key.
pub fn repository_of(keyring: &[u8]) -> Result<RepositoryId> {
    Ok(Keyring::parse(keyring)?.repository())
}

/// Opens the repository's read key.
pub async fn unlock(env: &Env, store: &NamedStore, with: &UnlockWith) -> Result<OpenKey> {
    if let UnlockWith::OpenKeyFile(bytes) = with {
        let key = OpenKey::from_bytes(bytes)?;
        return match require_at(store, key.catalog(), Purpose::Read).await {
            Ok(_) => Ok(key),
            Err(error) => Err(match error.source_format() {
                Some(FormatError::OtherRepository { .. }) => {
                    Error::new(ErrorKind::Misconfigured, "the open key file belongs to another repository")
                }
                _ => error,
            }),
        };
    }
    let (_, secrets) = open_in_force(env, std::slice::from_ref(store), with, Purpose::Read).await?;
    Ok(secrets.open_key())
}

/// [`unlock`] with a keyring that the caller has, e.g. from a recovery kit where the store's own is damaged.
pub async fn unlock_by(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<OpenKey> {
    Ok(secrets(env, keyring, with, Purpose::Read).await?.open_key())
}

/// A new writer, for a machine that lost its own credential. The open key alone cannot make one.
pub async fn recover_writer(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<WriterCredential> {
    let secrets = secrets(env, keyring, with, Purpose::Read).await?;
    Ok(WriterCredential::issue(&mut env.rng(), &secrets))
}

/// A new pruner, for whoever maintains the stores. The open key alone cannot make one.
pub async fn issue_pruner(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<PrunerCredential> {
    let secrets = secrets(env, keyring, with, Purpose::Read).await?;
    Ok(PrunerCredential::issue(&mut env.rng(), &secrets))
}

impl UnlockWith {
    fn borrow(&self) -> Result<Unlock<'_>> {
        match self {
            Self::Passphrase(passphrase) => Ok(Unlock::Passphrase(passphrase)),
            Self::PaperKey(paper) => Ok(Unlock::Paper(paper)),
            Self::Shares(shares) => Ok(Unlock::Shares(shares)),
            Self::Machine(machine) => Ok(Unlock::Machine(machine)),
            Self::OpenKeyFile(_) => Err(Error::new(
                ErrorKind::Denied,
                "an open key file neither makes a writer nor changes the keyring: give a passphrase, the paper key, \
                 shares or the machine key",
            )),
        }
    }
}

pub(crate) async fn secrets(
    env: &Env,
    keyring: Bytes,
    with: &UnlockWith,
    purpose: Purpose,
) -> Result<RepositorySecrets> {
    opened(env, keyring, with, purpose).await.map(|(secrets, _)| secrets)
}

/// Opens a keyring; also which slot it was.
async fn opened(
    env: &Env,
    keyring: Bytes,
    with: &UnlockWith,
    purpose: Purpose,
) -> Result<(RepositorySecrets, SlotInfo)> {
    let with = with.clone();
    with.borrow()?;
    // A passphrase takes 64 MiB and most of a second: not on the reactor.
    let opened = env.blocking(move || {
        let ring = Keyring::parse(&keyring)?;
        ring.header().features.require(purpose)?;
        let (secrets, slot) = ring.open_slot(&with.borrow()?)?;
        Ok::<_, Error>((secrets, SlotInfo::of(slot)))
    });
    opened.await?.map_err(|error| match error.source_format() {
        Some(FormatError::Sealed { .. }) => {
            Error::new(ErrorKind::Denied, "the passphrase or key does not open this repository's keyring")
        }
        _ => error,
    })
}

/// A slot of the keyring, as `keys list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub id: SlotId,
    pub kind: SlotKind,
    pub made_unix_ms: i64,
    /// How many shares open it, and how many there are.
    pub shares: Option<(u8, u8)>,
}

impl SlotInfo {
    fn of(slot: &Slot) -> Self {
        Self { id: slot.id, kind: slot.kind, made_unix_ms: slot.made_unix_ms, shares: slot.shares() }
    }
}

/// Number, epoch and slots of a keyring. Needs no secret.
pub fn describe_keyring(keyring: &[u8]) -> Result<(Header, Vec<SlotInfo>)> {
    let ring = Keyring::parse(keyring)?;
    Ok((ring.header(), ring.slots().iter().map(SlotInfo::of).collect()))
}

/// Proves that a secret opens a keyring, changing nothing; says which slot it opened.
pub async fn rehearse(env: &Env, keyring: Bytes, with: &UnlockWith) -> Result<(RepositoryId, SlotInfo)> {
    let (secrets, slot) = opened(env, keyring, with, Purpose::Read).await?;
    Ok((secrets.repository(), slot))
}

/// A keyring with its secrets. The caller writes the credentials, each by an atomic replace; until it has, the old
/// ones go on working.
pub struct Rewritten {
    /// The keyring as it now stands in every store.
    pub keyring: Bytes,
    pub header: Header,
    secrets: RepositorySecrets,
}

impl Rewritten {
    /// The open key with all epochs.
    #[must_use]
    pub fn open_key(&self) -> OpenKey {
        self.secrets.open_key()
    }

    /// Another writer, for a machine whose credential is damaged: it begins chains of its own.
    #[must_use]
    pub fn new_writer(&self, env: &Env) -> WriterCredential {
        WriterCredential::issue(&mut env.rng(), &self.secrets)
    }

    /// The same writer, sealing to the newest epoch.
    pub fn renew(&self, writer: &WriterCredential) -> Result<WriterCredential> {
        if writer.repository() != self.secrets.repository() {
            return Err(Error::new(ErrorKind::Misconfigured, "the writer credential belongs to another repository"));
        }
        Ok(writer.renewed(&self.secrets))
    }
}

/// Begins a further epoch: new packs, index objects and snapshots are sealed to new keys. What is stored stays as it is
/// and opens with the old keys, which the keyring keeps; so this protects the future only.
pub async fn rotate(env: &Env, stores: &[NamedStore], with: &UnlockWith) -> Result<Rewritten> {
    let ring = Editable::open(env, stores, with).await?;
    let mut secrets = ring.secrets;
    secrets.begin_epoch(&mut env.rng(), env.now_unix_ms())?;
    publish(env, stores, (ring.number, ring.features), secrets, &ring.slots).await
}

/// The keyring in force, for key files that are to be made current. Nothing is written.
pub async fn in_force(env: &Env, stores: &[NamedStore], with: &UnlockWith) -> Result<Rewritten> {
    let (keyring, secrets) = open_in_force(env, stores, with, Purpose::Read).await?;
    let header = Keyring::parse(&keyring)?.header();
    Ok(Rewritten { keyring, header, secrets })
}

/// Adds a slot for a further secret.
pub async fn add_slot(
    env: &Env,
    stores: &[NamedStore],
    with: &UnlockWith,
    further: UnlockWith,
) -> Result<(Rewritten, SlotInfo)> {
    let mut ring = Editable::open(env, stores, with).await?;
    let slot = slot(env, further).await?;
    let info = SlotInfo::of(&slot);
    ring.slots.push(slot);
    let written = publish(env, stores, (ring.number, ring.features), ring.secrets, &ring.slots).await?;
    Ok((written, info))
}

/// Adds a slot for `total` shares, any `threshold` of which open it.
pub async fn add_shares(
    env: &Env,
    stores: &[NamedStore],
    with: &UnlockWith,
    (threshold, total): (u8, u8),
) -> Result<(Rewritten, SlotInfo, Vec<Share>)> {
    let mut ring = Editable::open(env, stores, with).await?;
    let (slot, shares) = Slot::new_shares(&mut env.rng(), threshold, total, env.now_unix_ms())?;
    let info = SlotInfo::of(&slot);
    ring.slots.push(slot);
    let written = publish(env, stores, (ring.number, ring.features), ring.secrets, &ring.slots).await?;
    Ok((written, info, shares))
}

/// Takes a slot out of the keyring in force. Refused for the last one that this release can open. An older keyring, of
/// which somebody may hold a copy, still opens with it: rotate afterwards when the secret is in wrong hands.
pub async fn remove_slot(env: &Env, stores: &[NamedStore], with: &UnlockWith, id: SlotId) -> Result<Rewritten> {
    let mut ring = Editable::open(env, stores, with).await?;
    let before = ring.slots.len();
    ring.slots.retain(|slot| slot.id != id);
    if ring.slots.len() == before {
        return Err(Error::new(ErrorKind::NotFound, format!("the keyring has no slot {id}: see `backupd keys list`")));
    }
    if !ring.slots.iter().any(|slot| !matches!(slot.kind, SlotKind::Unknown(_))) {
        return Err(Error::new(
            ErrorKind::Misconfigured,
            "this is the last slot: without it nobody could open the keyring again; add another slot first",
        ));
    }
    publish(env, stores, (ring.number, ring.features), ring.secrets, &ring.slots).await
}

/// The keyring in force, opened to be written anew.
struct Editable {
    secrets: RepositorySecrets,
    slots: Vec<Slot>,
    features: Features,
    /// The next keyring's.
    number: u64,
}

impl Editable {
    /// Every store must answer: a store that missed the new keyring would go on with the old one.
    async fn open(env: &Env, stores: &[NamedStore], with: &UnlockWith) -> Result<Self> {
        let opened = open_in_force(env, stores, with, Purpose::Write).await;
        let (bytes, secrets) = opened.map_err(|error| match error.kind() {
            ErrorKind::Unreachable => error.context("every store must answer"),
            _ => error,
        })?;
        let ring = Keyring::parse(&bytes)?;
        let (header, slots) = (ring.header(), ring.slots().to_vec());
        let number = header.number.checked_add(1);
        let number = number.ok_or_else(|| Error::new(ErrorKind::Damaged, "the keyring's number is at its end"))?;
        Ok(Self { secrets, slots, features: header.features, number })
    }
}

async fn publish(
    env: &Env,
    stores: &[NamedStore],
    (number, features): (u64, Features),
    secrets: RepositorySecrets,
    slots: &[Slot],
) -> Result<Rewritten> {
    let keyring = Bytes::from(seal(&mut env.rng(), &secrets, number, features, slots)?);
    let header = Keyring::parse(&keyring)?.header();
    let name = keyring_name(number, &keyring);
    for store in stores {
        store.store.put(&name, keyring.clone()).await.map_err(|error| {
            error.context(format!(
                "store {} did not take the new keyring; the old one and every key file go on working: try again",
                store.name
            ))
        })?;
    }
    Ok(Rewritten { keyring, header, secrets })
}
