//! The catalog of faults, by the numbers that the reliability plan gives them. What is not here is not the engine's or the
//! stores' own, or needs real processes: F25 (the engine asks for no ETag), F39 and F50 (real processes: `kill` and
//! `fidelity` of the system tests), F42 (golden repositories), F46 (a full disk behind the words of a program: `cli` of the
//! system tests; behind the log of reports: `log_disk`).

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $name:ident = $number:literal,)+) => {
        /// What goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[doc = $what])+ $name,)+
        }

        impl Fault {
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its number in the catalog.
            pub fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)+
                }
            }
        }
    };
}

faults! {
    /// A program is killed at any of its requests.
    Kill = 1,
    /// A power cut: what the local state never synced is gone.
    PowerCut = 2,
    /// A file of the local state ends in the middle.
    TornState = 3,
    /// A later file of the local state outlives a power cut, an earlier one does not.
    ReorderedState = 4,
    /// The local state cannot sync.
    SyncFails = 5,
    /// The local state's disk is full.
    StateFull = 6,
    /// A source file cannot be read: input/output error.
    ReadFails = 7,
    /// Short and interrupted reads of a source file.
    ShortRead = 8,
    /// A bit flips at rest, in a store or in the local state.
    BitFlip = 9,
    /// A store writes an object's bytes under another one's name.
    MisdirectedWrite = 10,
    /// A store acknowledges an object and forgets it; the local state goes back to an earlier one.
    LostWrite = 11,
    /// A rename in the local state did not last: the file is as it was before.
    RenameLost = 12,
    /// A directory of the source lists an entry less.
    EntryLost = 13,
    /// A file vanishes during the walk.
    Vanishes = 14,
    /// A file grows, shrinks or changes while it is read.
    ChangesWhileRead = 15,
    /// Permission denied, a loop of links, a name too long.
    Refused = 16,
    /// Holes, attributes, hard links, fifos, sockets.
    OddKinds = 17,
    /// The local state is gone, or nothing in it makes sense.
    StateLost = 18,
    /// A disk or store that is a thousand times slower.
    Slow = 19,
    /// The local state's disk is read-only.
    StateReadOnly = 20,
    /// 503 and 429 for a while.
    Storm = 21,
    /// The answer is lost after the object was stored.
    AmbiguousPut = 22,
    /// A download ends early.
    TruncatedBody = 23,
    /// A download holds wrong bytes.
    WrongBytes = 24,
    /// A listing lacks keys or has some twice.
    StaleList = 26,
    /// A name that is there already is put again: the store takes it.
    PutNotConditional = 27,
    /// Leftovers of uploads that never ended are listed.
    Leftovers = 28,
    /// The credentials expire in the middle of a run.
    CredentialsExpire = 29,
    /// A store refuses to overwrite or delete what is locked.
    Locked = 30,
    /// Somebody deletes or overwrites objects.
    Tampered = 31,
    /// A whole store is lost.
    StoreLost = 32,
    /// A store is set back to what it was earlier.
    RolledBack = 33,
    /// Two writers see different stores.
    Diverged = 34,
    /// A store's clock is a day off.
    StoreClock = 35,
    /// A store does not answer.
    NoAnswer = 36,
    /// A store takes a thousand bytes in a second.
    Throttled = 37,
    /// A store has no room left.
    Quota = 38,
    /// Two daemons use one local state.
    TwoDaemons = 40,
    /// The clock jumps by ten years.
    ClockJump = 41,
    /// The clock was never set: it drifts.
    ClockDrifts = 43,
    /// A machine is copied, or set back to an earlier copy, with its local state.
    MachineCopied = 44,
    /// A slot leaves the keyring while others work.
    SlotRemoved = 45,
    /// A prune deletes while backups, catch-up or readers are at work.
    PrunedBeside = 47,
    /// A writer sleeps for a week in the middle of its snapshot, and plans come and go.
    WriterSleeps = 47,
    /// The verifier dies.
    VerifierDies = 48,
    /// Power ends in sixty seconds.
    PowerWarning = 49,
}
