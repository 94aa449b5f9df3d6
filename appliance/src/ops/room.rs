//! Room on the staging disk.

use crate::store::StoreError;
use std::path::Path;

/// What staging leaves free at least, whichever is less: a tenth of the disk, or this.
const FREE_BYTES_MIN: u64 = 2_000_000_000;

/// Refuses with [`StoreError::Full`] when writing `bytes` under `folder` would leave too little.
pub fn check(folder: &Path, bytes: u64) -> Result<(), StoreError> {
    let stat = rustix::fs::statvfs(folder).map_err(|error| StoreError::io("staging folder")(error.into()))?;
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if leaves_enough(total, free, bytes) { Ok(()) } else { Err(StoreError::Full) }
}

fn leaves_enough(total: u64, free: u64, bytes: u64) -> bool {
    free.checked_sub(bytes).is_some_and(|left| left >= FREE_BYTES_MIN.min(total / 10))
}

#[cfg(test)]
mod tests {
    use super::leaves_enough;

    #[test]
    fn a_tenth_or_two_gigabytes_stay_free() {
        let gb = 1_000_000_000;
        assert!(leaves_enough(100 * gb, 12 * gb, 10 * gb));
        assert!(!leaves_enough(100 * gb, 12 * gb, 11 * gb));
        assert!(leaves_enough(10 * gb, 2 * gb, gb));
        assert!(!leaves_enough(10 * gb, 2 * gb, gb + 1));
        assert!(!leaves_enough(10 * gb, gb, 2 * gb));
    }
}
