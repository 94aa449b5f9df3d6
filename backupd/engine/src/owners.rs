//! Names of users and groups: tree pages hold numbers, the inner manifest says once what the machine called them.

use crate::env::OwnerNames;
use backup_format::manifest::Owners;
use std::collections::{BTreeMap, BTreeSet};

/// The names of the owners that a walk met.
pub(crate) fn named(names: &dyn OwnerNames, users: &BTreeSet<u32>, groups: &BTreeSet<u32>) -> Owners {
    let find = |numbers: &BTreeSet<u32>, name: &dyn Fn(u32) -> Option<Vec<u8>>| -> BTreeMap<u32, Vec<u8>> {
        numbers.iter().filter_map(|number| Some((*number, name(*number)?))).collect()
    };
    Owners { users: find(users, &|uid| names.user(uid)), groups: find(groups, &|gid| names.group(gid)) }
}
