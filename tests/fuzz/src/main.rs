//! The coverage-guided form of the fuzz targets: `HOLDFAST_FUZZ_TARGET` names the target, libFuzzer's own options follow.
#![no_main]

#[path = "../targets.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn target() -> fn(&[u8]) -> bool {
    static TARGET: OnceLock<fn(&[u8]) -> bool> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("HOLDFAST_FUZZ_TARGET").expect("HOLDFAST_FUZZ_TARGET names a target");
        let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("there is no target {wanted}")).1
    })
}

fuzz_target!(|bytes: &[u8]| {
    target()(bytes);
});
