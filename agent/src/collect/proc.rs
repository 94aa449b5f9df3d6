//! `/proc` and the firmware's inventory.

use super::{hardware_label, read_line};
use agent_api::Label;
use std::path::Path;

/// What makers leave in the asset tag when nobody sets it.
const ASSET_PLACEHOLDERS: [&str; 6] =
    ["Default-string", "No-Asset-Tag", "Not-Specified", "Asset-Tag", "None", "To-Be-Filled-By-O.E.M."];

pub(super) struct Memory {
    pub total: u64,
    pub available: u64,
}

pub(super) fn host_name(root: &Path) -> Label {
    let name = read_line(&root.join("proc/sys/kernel/hostname"));
    name.and_then(|text| hardware_label(&text)).unwrap_or_else(Label::unnamed)
}

/// The chassis' asset tag, when somebody has set one.
pub(super) fn asset_tag(root: &Path) -> Option<Label> {
    let tag = hardware_label(&read_line(&root.join("sys/class/dmi/id/chassis_asset_tag"))?)?;
    (!ASSET_PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(tag.as_str()))).then_some(tag)
}

pub(super) fn uptime_s(root: &Path) -> u64 {
    let text = read_line(&root.join("proc/uptime")).unwrap_or_default();
    text.split(['.', ' ']).next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

pub(super) fn load_1m(root: &Path) -> f64 {
    let text = read_line(&root.join("proc/loadavg")).unwrap_or_default();
    text.split_whitespace().next().and_then(|s| s.parse().ok()).filter(|load: &f64| load.is_finite()).unwrap_or(0.0)
}

pub(super) fn cpus(root: &Path) -> u32 {
    let text = read_line(&root.join("proc/cpuinfo")).unwrap_or_default();
    u32::try_from(text.lines().filter(|line| line.starts_with("processor")).count()).unwrap_or(u32::MAX)
}

/// Bytes; zero and zero when the kernel does not say.
pub(super) fn memory(root: &Path) -> Memory {
    let text = read_line(&root.join("proc/meminfo")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Memory { total: field("MemTotal").unwrap_or(0), available: field("MemAvailable").unwrap_or(0) }
}
