//! Further candidates of an object. Where a store refuses to overwrite damaged bytes, the whole ones are written beside
//! them, under the object's name with a number behind it; readers try all.

use crate::error::{ErrorKind, Result};
use crate::store::{NamedStore, Store};
use crate::survey::hash_in_name;
use backup_format::ObjectHash;
use bytes::Bytes;

/// Candidates of one object at one store, itself apart.
pub(crate) const CANDIDATES_MAX: u32 = 8;

/// The name of candidate `number`, from 1.
pub(crate) fn candidate_name(name: &str, number: u32) -> String {
    format!("{name}.{number}")
}

/// The object of which a listed name is a further candidate.
#[must_use]
pub fn candidate_of(listed: &str) -> Option<&str> {
    let (name, number) = listed.rsplit_once('.')?;
    let plain = !number.starts_with(['0', '+']) && number.parse::<u32>().is_ok_and(|n| n <= CANDIDATES_MAX);
    (plain && hash_in_name(name).is_some()).then_some(name)
}

/// The first candidate whose bytes are what the name says, after the object itself was found damaged or gone.
pub(crate) async fn whole_candidate(store: &dyn Store, name: &str, hash: ObjectHash) -> Result<Option<Bytes>> {
    for number in 1..=CANDIDATES_MAX {
        match store.get(&candidate_name(name, number)).await {
            Ok(bytes) if ObjectHash::of(&bytes) == hash => return Ok(Some(bytes)),
            Ok(_) => {}
            // They are written in order.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Damaged => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Puts whole bytes to a store where the object is damaged, gone or not yet there: under its own name, or where that is
/// refused or changes nothing, as a further candidate. What was damaged is read again before it counts as whole.
pub(crate) async fn put_whole(store: &NamedStore, name: &str, bytes: Bytes, damaged: bool) -> Result<()> {
    let put = store.store.put(name, bytes.clone()).await;
    let refused = match put {
        Ok(()) if !damaged => return Ok(()),
        Ok(()) => None,
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced) => Some(error),
        Err(error) => return Err(error),
    };
    match store.store.get(name).await {
        Ok(there) if there == bytes => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        // It is not there, and may not be written: no candidate may either.
        Err(error) => return Err(refused.unwrap_or(error)),
    }
    put_candidate(store.store.as_ref(), name, bytes).await
}

/// Puts whole bytes where an object is damaged or gone that is not the engine's own, so that it is read whole again under
/// its name or as a further candidate.
pub async fn put_over_damage(store: &NamedStore, name: &str, bytes: Bytes) -> Result<()> {
    put_whole(store, name, bytes, true).await
}

/// Writes whole bytes as the next candidate, and reads them again.
pub(crate) async fn put_candidate<S: Store + ?Sized>(store: &S, name: &str, bytes: Bytes) -> Result<()> {
    for number in 1..=CANDIDATES_MAX {
        let candidate = candidate_name(name, number);
        match store.get(&candidate).await {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Damaged => continue,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => store.put(&candidate, bytes.clone()).await?,
        }
        if store.get(&candidate).await? == bytes {
            return Ok(());
        }
    }
    let what =
        format!("object {name} has {CANDIDATES_MAX} damaged candidates: the store does not keep what it is given");
    Err(crate::Error::new(ErrorKind::Damaged, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_told_from_objects() {
        let hash = ObjectHash([0xab; 32]);
        let name = format!("packs/ab/{hash}");
        assert_eq!(candidate_of(&candidate_name(&name, 1)), Some(name.as_str()));
        assert_eq!(candidate_of(&candidate_name(&name, 8)), Some(name.as_str()));
        for other in [name.clone(), format!("{name}.0"), format!("{name}.9"), format!("{name}.01"), format!("{name}.x")]
        {
            assert_eq!(candidate_of(&other), None, "{other}");
        }
        assert_eq!(candidate_of("log/checkpoint.1"), None);
        assert_eq!(hash_in_name(&candidate_name(&name, 1)), None, "older readers ignore it");
    }
}
