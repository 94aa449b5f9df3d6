//! Choices that depend on the seed alone.

/// A stream of numbers for one part of the practice: parts do not disturb each other, so patient 7 is the same in a
/// practice of 50 and of 5000.
pub struct Chooser(blake3::OutputReader);

impl Chooser {
    pub fn new(seed: u64, part: &str) -> Chooser {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"holdfast appliance seed v1").update(&seed.to_le_bytes()).update(part.as_bytes());
        Chooser(hasher.finalize_xof())
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// From 0 to below `end`; 0 where `end` is 0. The bias of the remainder is no matter here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).saturating_add(1).max(1).cast_unsigned();
        low.saturating_add(self.below(width).cast_signed())
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `all`; the default of its type when there is none.
    pub fn one<T: Copy + Default>(&mut self, all: &[T]) -> T {
        let at = self.below(all.len() as u64);
        usize::try_from(at).ok().and_then(|at| all.get(at)).copied().unwrap_or_default()
    }

    /// One of `all`, which then has it no more.
    pub fn take<T: Copy + Default>(&mut self, all: &mut Vec<T>) -> T {
        let at = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        if at < all.len() { all.swap_remove(at) } else { T::default() }
    }

    /// A logical id.
    pub fn id(&mut self) -> String {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}
