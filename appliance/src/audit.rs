//! The audit: append-only, hash-chained, written in the same transaction as what it tells of.
//!
//! `hash[n] = BLAKE3(hash[n-1] || fields of entry n)`, each field preceded by its length, so that no change, removal or
//! insertion goes unnoticed by a walk from the first entry. `hash[0]` is a constant.

use crate::access::Actor;
use crate::db::{Connection, OptionalExtension, Row};
use crate::store::StoreError;
use appliance_api::AuditHead;

/// What happened. The words are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Read,
    Search,
    Create,
    Update,
    Delete,
    Attach,
    Download,
    Sign,
    Post,
    Login,
    Logout,
    Lock,
    UserChange,
    Import,
    Export,
    Start,
    /// A rule of the calendar was overruled, with a reason.
    Override,
    /// Something left for the outside: a reminder, a code, a message.
    Send,
    /// Somebody took emergency access.
    BreakGlass,
    /// Two records were linked as one person's, or that was undone.
    Merge,
    /// The records went on to a newer schema; the object is the one that they had.
    Upgrade,
    /// A patient's record was brought back from a snapshot, looked at beside today's, or copied from.
    LookBack,
}

impl Action {
    /// All words that stand in entries.
    pub const WORDS: [&str; 22] = [
        Action::Read.as_str(),
        Action::Search.as_str(),
        Action::Create.as_str(),
        Action::Update.as_str(),
        Action::Delete.as_str(),
        Action::Attach.as_str(),
        Action::Download.as_str(),
        Action::Sign.as_str(),
        Action::Post.as_str(),
        Action::Login.as_str(),
        Action::Logout.as_str(),
        Action::Lock.as_str(),
        Action::UserChange.as_str(),
        Action::Import.as_str(),
        Action::Export.as_str(),
        Action::Start.as_str(),
        Action::Override.as_str(),
        Action::Send.as_str(),
        Action::BreakGlass.as_str(),
        Action::Merge.as_str(),
        Action::Upgrade.as_str(),
        Action::LookBack.as_str(),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Search => "search",
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Attach => "attach",
            Action::Download => "download",
            Action::Sign => "sign",
            Action::Post => "post",
            Action::Login => "login",
            Action::Logout => "logout",
            Action::Lock => "lock",
            Action::UserChange => "user-change",
            Action::Import => "import",
            Action::Export => "export",
            Action::Start => "start",
            Action::Override => "override",
            Action::Send => "send",
            Action::BreakGlass => "break-glass",
            Action::Merge => "merge",
            Action::Upgrade => "upgrade",
            Action::LookBack => "look-back",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Denied,
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// One thing that happened, before it is chained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub action: Action,
    /// A resource type, `session`, `user` ...; never free text.
    pub kind: String,
    /// Logical id of the object; empty for a search.
    pub object: String,
    /// Logical id of the patient whose record was touched; empty for none or many.
    pub patient: String,
    pub outcome: Outcome,
    /// How many records a search returned; 1 otherwise.
    pub matches: u64,
}

impl Event {
    pub fn new(action: Action, kind: &str, object: &str) -> Event {
        let (kind, object) = (kind.to_owned(), object.to_owned());
        Event { action, kind, object, patient: String::new(), outcome: Outcome::Done, matches: 1 }
    }

    pub fn of_patient(self, patient: &str) -> Event {
        Event { patient: patient.to_owned(), ..self }
    }

    pub fn outcome(self, outcome: Outcome) -> Event {
        Event { outcome, ..self }
    }

    pub fn matches(self, matches: u64) -> Event {
        Event { matches, ..self }
    }
}

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub at_ms: i64,
    pub actor: String,
    pub actor_name: String,
    pub capacity: String,
    pub action: String,
    pub kind: String,
    pub object: String,
    pub patient: String,
    pub outcome: String,
    pub matches: u64,
    pub hash: [u8; 32],
}

/// Where the chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of entries; 0 for an empty chain.
    pub seq: u64,
    pub hash: [u8; 32],
}

const COLUMNS: &str = "seq, at_ms, actor, actor_name, capacity, action, kind, object, patient, outcome, matches, hash";

/// Appends `event` to the chain. Any failure is [`StoreError::Audit`]: the caller's transaction must not commit.
pub(crate) fn append(connection: &Connection, actor: &Actor, event: &Event, now_ms: i64) -> Result<(), StoreError> {
    let full = |error: StoreError| match error {
        StoreError::Full | StoreError::Unreachable | StoreError::Invalid { .. } => error,
        _ => StoreError::Audit,
    };
    let head = head(connection).map_err(full)?;
    let told = Told {
        seq: head.seq + 1,
        at_ms: now_ms,
        matches: event.matches,
        actor: [&actor.id, &actor.name, actor.capacity_str()],
        event: [event.action.as_str(), &event.kind, &event.object, &event.patient, event.outcome.as_str()],
    };
    insert(connection, &told, &told.chained(&head.hash)).map_err(|error| full(error.into()))
}

fn insert(connection: &Connection, told: &Told<'_>, hash: &[u8; 32]) -> crate::db::Result<()> {
    let sql = "INSERT INTO audit (seq, at_ms, actor, actor_name, capacity, action, kind, object, patient, outcome, \
               matches, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let ([actor, name, capacity], [action, kind, object, patient, outcome]) = (told.actor, told.event);
    let (seq, matches) = (told.seq.cast_signed(), told.matches.cast_signed());
    let parameters = crate::db::params![
        seq, told.at_ms, actor, name, capacity, action, kind, object, patient, outcome, matches, hash,
    ];
    connection.prepare_cached(sql)?.execute(parameters).map(|_| ())
}

/// The last entry's number and hash, without walking the chain.
pub fn head(connection: &Connection) -> Result<Head, StoreError> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let last = connection
        .prepare_cached(sql)?
        .query_row([], |row| Ok(Head { seq: row.get::<_, i64>(0)?.cast_unsigned(), hash: row.get(1)? }))
        .optional()?;
    Ok(last.unwrap_or(Head { seq: 0, hash: first() }))
}

/// Whether the chain has, or had, its end at `head`: an entry with this number and this hash is part of it.
pub fn contains(connection: &Connection, head: &AuditHead) -> Result<bool, StoreError> {
    if head.sequence == 0 {
        return Ok(head.hash == hex::encode(first()));
    }
    let Ok(seq) = i64::try_from(head.sequence) else { return Ok(false) };
    let sql = "SELECT hash FROM audit WHERE seq = ?1";
    let found: Option<[u8; 32]> = connection.prepare_cached(sql)?.query_row([seq], |row| row.get(0)).optional()?;
    Ok(found.is_some_and(|hash| hex::encode(hash) == head.hash))
}

/// Walks the whole chain and gives its head.
///
/// # Errors
/// [`StoreError::Damaged`] where an entry is missing, out of order or does not hash to what it says.
pub fn walk(connection: &Connection) -> Result<Head, StoreError> {
    follow(connection)?.map_err(|seq| {
        log::error!(entry = seq; "audit.broken");
        StoreError::Damaged("audit chain")
    })
}

/// The number of the first entry that does not follow from the one before it; `None` for an unbroken chain.
pub fn broken_at(connection: &Connection) -> Result<Option<u64>, StoreError> {
    Ok(follow(connection)?.err())
}

/// The chain's head, or the number of the entry where it breaks.
fn follow(connection: &Connection) -> Result<Result<Head, u64>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    let mut head = Head { seq: 0, hash: first() };
    while let Some(row) = rows.next()? {
        let entry = entry(&row)?;
        if entry.seq != head.seq + 1 || entry.hash != entry.told().chained(&head.hash) {
            return Ok(Err(head.seq + 1));
        }
        head = Head { seq: entry.seq, hash: entry.hash };
    }
    Ok(Ok(head))
}

/// Up to `count` entries older than `before` (`None` = from the newest), newest first.
pub(crate) fn page(connection: &Connection, before: Option<u64>, count: u32) -> Result<Vec<Entry>, StoreError> {
    search(connection, &Filter { before, ..Filter::default() }, count)
}

/// Which entries are looked for; an empty text and `None` fit all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this one.
    pub seq: Option<u64>,
    /// Older than this number.
    pub before: Option<u64>,
    pub actor: String,
    /// How the name begins with which somebody signed in, in small letters.
    pub name: String,
    pub patient: String,
    pub action: String,
    pub outcome: String,
    pub capacity: String,
    pub kind: String,
    pub object: String,
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
}

/// Up to `count` entries that fit, newest first.
pub fn search(connection: &Connection, filter: &Filter, count: u32) -> Result<Vec<Entry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM audit WHERE {FITS} ORDER BY seq DESC LIMIT ?13");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut values = filter.values();
    values.push(i64::from(count).into());
    let entries = statement.query_map(crate::db::params_from_iter(values), entry)?.collect::<Result<_, _>>()?;
    Ok(entries)
}

/// How many entries fit.
pub fn count(connection: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) FROM audit WHERE {FITS}");
    let values = crate::db::params_from_iter(filter.values());
    let count: i64 = connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

const FITS: &str = "seq < ?1 AND seq >= ?2 AND (?3 = '' OR actor = ?3) AND (?4 = '' OR patient = ?4) \
                    AND (?5 = '' OR action = ?5) AND (?6 = '' OR outcome = ?6) AND (?7 = '' OR capacity = ?7) \
                    AND (?8 = '' OR kind = ?8) AND (?9 = '' OR object = ?9) AND at_ms >= ?10 AND at_ms < ?11 \
                    AND (?12 = '' OR substr(lower(actor_name), 1, length(?12)) = ?12)";

impl Filter {
    /// The values of [`FITS`].
    fn values(&self) -> Vec<crate::db::Value> {
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let before = self.seq.map(|seq| seq.saturating_add(1)).into_iter().chain(self.before).min();
        let texts = [&self.actor, &self.patient, &self.action, &self.outcome, &self.capacity, &self.kind, &self.object];
        let mut values = vec![before.map_or(i64::MAX, number).into(), self.seq.map_or(0, number).into()];
        values.extend(texts.map(|text| text.clone().into()));
        let span = [self.from_ms.unwrap_or(i64::MIN), self.until_ms.unwrap_or(i64::MAX)];
        values.extend(span.map(crate::db::Value::from));
        values.push(self.name.clone().into());
        values
    }
}

fn first() -> [u8; 32] {
    *blake3::hash(b"holdfast appliance audit v1").as_bytes()
}

fn entry(row: &Row<'_>) -> crate::db::Result<Entry> {
    Ok(Entry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get(1)?,
        actor: row.get(2)?,
        actor_name: row.get(3)?,
        capacity: row.get(4)?,
        action: row.get(5)?,
        kind: row.get(6)?,
        object: row.get(7)?,
        patient: row.get(8)?,
        outcome: row.get(9)?,
        matches: row.get::<_, i64>(10)?.cast_unsigned(),
        hash: row.get(11)?,
    })
}

/// What an entry tells: all of it but its hash.
struct Told<'a> {
    seq: u64,
    at_ms: i64,
    matches: u64,
    /// Id, name, capacity.
    actor: [&'a str; 3],
    /// Action, kind, object, patient, outcome.
    event: [&'a str; 5],
}

impl Entry {
    fn told(&self) -> Told<'_> {
        Told {
            seq: self.seq,
            at_ms: self.at_ms,
            matches: self.matches,
            actor: [&self.actor, &self.actor_name, &self.capacity],
            event: [&self.action, &self.kind, &self.object, &self.patient, &self.outcome],
        }
    }
}

impl Told<'_> {
    fn chained(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(previous);
        for number in [self.seq.to_le_bytes(), self.at_ms.to_le_bytes(), self.matches.to_le_bytes()] {
            hasher.update(&number);
        }
        for text in self.actor.iter().chain(&self.event) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}
