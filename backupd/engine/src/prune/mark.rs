//! What the snapshots that stay reach.

use crate::descend::{Descent, Extents, Reached};
use crate::error::{Error, ErrorKind, Result};
use crate::heads::{SnapshotInfo, read_manifest};
use crate::read::Reader;
use backup_format::ChunkId;
use backup_format::tree::{Extent, NodeKind};

/// What a snapshot reaches that no older one does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    /// Bytes of new chunks of files.
    pub(super) plain: u64,
    /// What they take, compressed and sealed.
    pub(super) sealed: u64,
}

/// The mark.
pub(super) struct Mark {
    pub(super) reached: Reached,
    /// Oldest first.
    pub(super) growth: Vec<Growth>,
}

impl Mark {
    /// Follows the trees of these snapshots, oldest first. Whatever cannot be followed ends the mark: a chunk that is not
    /// seen would be deleted.
    pub(super) async fn of(reader: &Reader<'_>, snapshots: &[&SnapshotInfo]) -> Result<Self> {
        let mut descent = Descent::new(reader);
        descent.reached = Some(Reached::new(&reader.locations));
        let mut growth = Vec::new();
        for info in snapshots {
            let open = reader.open;
            let (outer, _) = read_manifest(open.catalog(), None, info.id, reader.store).await?;
            descent.enter(&[(0, outer.root)]);
            let mut grown = Growth { plain: 0, sealed: 0 };
            while let Some((_, nodes)) = descent.next().await? {
                for node in nodes {
                    match node.kind {
                        NodeKind::Directory { root } => descent.enter(&[(0, root)]),
                        NodeKind::File { size, content } => {
                            follow(reader, Extents::new(size, content), &mut descent.reached, &mut grown).await?;
                        }
                        _ => {}
                    }
                }
            }
            growth.push(grown);
        }
        let reached = descent.reached.take().unwrap_or_else(|| Reached::new(&reader.locations));
        if reached.unknown > 0 {
            let message = "no index object names a chunk that a snapshot needs: heal before pruning";
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        Ok(Self { reached, growth })
    }
}

async fn follow(
    reader: &Reader<'_>,
    mut extents: Extents,
    reached: &mut Option<Reached>,
    grown: &mut Growth,
) -> Result<()> {
    while let Some(extents) = extents.next(reader, reached).await? {
        for extent in extents {
            if let (Extent::Data { id, len }, Some(reached)) = (extent, reached.as_mut())
                && reached.reach(&reader.locations, &id)
            {
                grown.plain += u64::from(len);
                grown.sealed += sealed_share(reader, &id, len);
            }
        }
    }
    Ok(())
}

/// A chunk's share of its sealed segment.
fn sealed_share(reader: &Reader<'_>, id: &ChunkId, len: u32) -> u64 {
    let locations = &reader.locations;
    let copy = locations.copies(id).next();
    let segment = copy.and_then(|copy| locations.segment(locations.segment_of(copy)));
    segment.map_or(0, |segment| u64::from(len) * u64::from(segment.sealed_len) / u64::from(segment.plain_len.max(1)))
}
