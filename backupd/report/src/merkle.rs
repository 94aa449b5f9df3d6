//! The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, inclusion and consistency proofs, and their checking
//! as RFC 9162, section 2.1.3.2 and 2.1.4.2, says.

use sha2::{Digest as _, Sha256};

/// A node's hash.
pub type Hash = [u8; 32];

/// The hash of a leaf: `SHA-256(0x00 || bytes)`.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree of these leaf hashes; of none, `SHA-256("")`.
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The largest power of two below `n`, for `n` of 2 or more.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// The siblings on the way from leaf `index` to the root; `None` when there is no such leaf.
pub fn inclusion_path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut leaves, mut index, mut path) = (leaves, index, Vec::new());
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(root_of(right));
            leaves = left;
        } else {
            path.push(root_of(left));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    Some(path)
}

/// The proof that the tree of the first `old` leaves is the beginning of the tree of all; `None` when `old` is 0 or
/// more than there are.
pub fn consistency_path(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let (mut leaves, mut old, mut whole, mut path) = (leaves, old, true, Vec::new());
    while old < leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            path.push(root_of(right));
            leaves = left;
        } else {
            path.push(root_of(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        path.push(root_of(leaves));
    }
    path.reverse();
    Some(path)
}

/// Whether the leaf stands at `index` in the tree of `size` leaves with this root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `old_size` leaves is the beginning of the tree of `new_size` leaves.
pub fn verify_consistency(old_size: u64, old_root: &Hash, new_size: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old_size == 0 || old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // A power of two: the old root itself is the first node.
    let (first, rest) = match path {
        _ if old_size.is_power_of_two() => (old_root, path),
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves and values of the Certificate Transparency reference implementation (`merkle_tree_test.cc`).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    const EMPTY_ROOT: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// (index, size, path)
    const INCLUSION: [(usize, usize, &[&str]); 4] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    ];
    /// (old, new, path)
    const CONSISTENCY: [(usize, usize, &[&str]); 3] = [
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];

    fn hash(text: &str) -> Hash {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    fn reference_leaves() -> Vec<Hash> {
        LEAVES.iter().map(|l| leaf_hash(&hex::decode(l).unwrap())).collect()
    }

    #[test]
    fn agrees_with_the_reference_implementation() {
        let leaves = reference_leaves();
        assert_eq!(root_of(&[]), hash(EMPTY_ROOT));
        for (n, root) in ROOTS.iter().enumerate() {
            assert_eq!(root_of(&leaves[..=n]), hash(root), "size {}", n + 1);
        }
        for (index, size, path) in INCLUSION {
            let path: Vec<Hash> = path.iter().map(|h| hash(h)).collect();
            assert_eq!(inclusion_path(&leaves[..size], index).unwrap(), path, "leaf {index} of {size}");
        }
        for (old, new, path) in CONSISTENCY {
            let path: Vec<Hash> = path.iter().map(|h| hash(h)).collect();
            assert_eq!(consistency_path(&leaves[..new], old).unwrap(), path, "{old} to {new}");
        }
    }

    #[test]
    fn every_proof_up_to_forty_leaves_holds_and_no_other_is_taken() {
        let leaves: Vec<Hash> = (0..40u8).map(|i| leaf_hash(&[i])).collect();
        for size in 1..=leaves.len() {
            let tree = &leaves[..size];
            let root = root_of(tree);
            for index in 0..size {
                let path = inclusion_path(tree, index).unwrap();
                let holds = |leaf: &Hash, i, n, p: &[Hash]| verify_inclusion(leaf, i, n, p, &root);
                let (i, n) = (index as u64, size as u64);
                assert!(holds(&tree[index], i, n, &path));
                for other in (0..size).filter(|o| *o != index) {
                    assert!(!holds(&tree[other], i, n, &path), "another leaf");
                    assert!(!holds(&tree[index], other as u64, n, &path), "another place");
                }
                assert!(!holds(&leaf_hash(b"x"), i, n, &path));
                assert!(!holds(&tree[index], i, n, &[path.as_slice(), &[root]].concat()), "a longer path");
                for cut in 0..path.len() {
                    assert!(!holds(&tree[index], i, n, &path[..cut]), "a shorter path");
                    let mut bent = path.clone();
                    bent[cut][31] ^= 1;
                    assert!(!holds(&tree[index], i, n, &bent), "a bent path");
                }
            }
            assert!(inclusion_path(tree, size).is_none());
            for old in 1..=size {
                consistency_holds(tree, old, &root);
            }
            assert!(consistency_path(tree, 0).is_none() && consistency_path(tree, size + 1).is_none());
        }
    }

    fn consistency_holds(tree: &[Hash], old: usize, root: &Hash) {
        let (old_root, n, m) = (root_of(&tree[..old]), tree.len() as u64, old as u64);
        let path = consistency_path(tree, old).unwrap();
        assert!(verify_consistency(m, &old_root, n, root, &path), "{old} to {}", tree.len());
        assert!(!verify_consistency(m, &leaf_hash(b"other"), n, root, &path));
        assert!(!verify_consistency(m, &old_root, n, &leaf_hash(b"other"), &path));
        assert!(!verify_consistency(m, &old_root, n, root, &[path.as_slice(), &[*root]].concat()));
        for cut in 0..path.len() {
            let mut bent = path.clone();
            bent[cut][0] ^= 1;
            assert!(!verify_consistency(m, &old_root, n, root, &bent));
            assert!(!verify_consistency(m, &old_root, n, root, &path[..cut]));
        }
    }
}
