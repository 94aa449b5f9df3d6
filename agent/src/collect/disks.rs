//! The disks that sit in the host, by device, serial number and bay.

use super::{hardware_label, names, read_line, read_number};
use agent_api::{Disk, Label};
use std::collections::BTreeMap;
use std::path::Path;

/// The kernel counts a disk's size in these, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// Page 0x80 of SCSI's vital product data: four bytes of head, then the serial number in ASCII.
const VPD_HEAD_BYTES: usize = 4;

/// All disks with a device behind them: no loop, memory, RAID or mapped devices.
pub(super) fn disks(root: &Path, inventory: &BTreeMap<Label, Label>) -> Vec<Disk> {
    let blocks = root.join("sys/block");
    names(&blocks).iter().filter_map(|name| disk(&blocks.join(name), name, inventory)).collect()
}

fn disk(block: &Path, name: &str, inventory: &BTreeMap<Label, Label>) -> Option<Disk> {
    let removable_drive = name.starts_with("sr") || name.starts_with("fd");
    if removable_drive || !block.join("device").exists() {
        return None;
    }
    let serial = serial(block);
    let bay = serial.as_ref().and_then(|serial| inventory.get(serial)).cloned();
    let sectors = read_number(&block.join("size")).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    Some(Disk { device: hardware_label(name)?, serial, bay, bytes: sectors.saturating_mul(SECTOR_BYTES) })
}

/// NVMe and virtio give the serial number as a file, SATA and SAS in a page of vital product data.
fn serial(block: &Path) -> Option<Label> {
    let text = read_line(&block.join("device/serial")).or_else(|| read_line(&block.join("serial")));
    if let Some(text) = text {
        return hardware_label(&text);
    }
    let page = std::fs::read(block.join("device/vpd_pg80")).ok()?;
    hardware_label(std::str::from_utf8(page.get(VPD_HEAD_BYTES..)?).ok()?)
}
