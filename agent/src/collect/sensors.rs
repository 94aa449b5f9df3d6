//! Sensors that an unprivileged user can read. A kind that is not found, or that only root could ask (SMART, IPMI), is
//! reported as absent.

use super::{names, read_line, read_number};
use agent_api::{Sensor, SensorKind, SensorState};
use std::path::Path;

/// Where a chip names no limit of its own, degrees Celsius.
const CELSIUS_WARNING: f64 = 75.0;
const CELSIUS_CRITICAL: f64 = 90.0;
/// Below this much charge a UPS will not carry an orderly shutdown.
const UPS_PERCENT_CRITICAL: f64 = 30.0;

/// One entry for every kind.
pub(super) fn sensors(root: &Path) -> Vec<Sensor> {
    let kinds = [
        (SensorKind::Temperature, temperature(root)),
        (SensorKind::Smart, None),
        (SensorKind::Array, array(root)),
        (SensorKind::Ups, ups(root)),
        (SensorKind::Ipmi, None),
        (SensorKind::Watchdog, watchdog(root)),
    ];
    kinds
        .into_iter()
        .map(|(kind, found)| match found {
            Some((state, value)) => Sensor { kind, state, value },
            None => Sensor { kind, state: SensorState::Absent, value: None },
        })
        .collect()
}

type Found = Option<(SensorState, Option<f64>)>;

/// The worst of all temperatures, and the highest value among those in that state.
fn temperature(root: &Path) -> Found {
    let chips = root.join("sys/class/hwmon");
    let mut worst: Option<(SensorState, f64)> = None;
    for chip in names(&chips) {
        for file in names(&chips.join(&chip)) {
            let Some(channel) = file.strip_suffix("_input").filter(|channel| channel.starts_with("temp")) else {
                continue;
            };
            let celsius = |what: &str| {
                let value = read_number(&chips.join(&chip).join(format!("{channel}_{what}")))?;
                // Thousandths of a degree; chips without a limit report nonsense far outside of this.
                (-100_000..=200_000).contains(&value).then(|| f64::from(i32::try_from(value).unwrap_or(0)) / 1000.0)
            };
            let Some(value) = celsius("input") else { continue };
            let critical = celsius("crit").filter(|limit| *limit > 0.0).unwrap_or(CELSIUS_CRITICAL);
            let warning = celsius("max").filter(|limit| *limit > 0.0).unwrap_or(CELSIUS_WARNING.min(critical));
            let state = match value {
                v if v >= critical => SensorState::Critical,
                v if v >= warning => SensorState::Warning,
                _ => SensorState::Ok,
            };
            let worse = worst.is_none_or(|(s, v)| (severity(state), value) > (severity(s), v));
            worst = if worse { Some((state, value)) } else { worst };
        }
    }
    worst.map(|(state, value)| (state, Some(value)))
}

/// Software RAID: the value counts the members that are missing.
fn array(root: &Path) -> Found {
    let text = read_line(&root.join("proc/mdstat"))?;
    let (mut arrays, mut missing, mut inactive, mut rebuilding) = (0, 0_u32, false, false);
    for line in text.lines() {
        if line.starts_with("md") {
            arrays += 1;
            inactive |= !line.contains(": active") || line.contains("(F)");
        }
        rebuilding |= ["recovery =", "reshape =", "resync ="].iter().any(|word| line.contains(word));
        // The map of members at the end of a line: U is up, _ is not.
        let map = line.rsplit_once('[').map(|(_, map)| map.trim_end().trim_end_matches(']')).unwrap_or_default();
        if !map.is_empty() && map.bytes().all(|b| matches!(b, b'U' | b'_')) {
            missing += u32::try_from(map.matches('_').count()).unwrap_or(u32::MAX);
        }
    }
    let state = match (missing, inactive, rebuilding) {
        (0, false, false) => SensorState::Ok,
        (0, false, true) => SensorState::Warning,
        _ => SensorState::Critical,
    };
    (arrays > 0).then_some((state, Some(f64::from(missing))))
}

/// A UPS that the kernel knows as a power supply; the value is its charge in per cent.
fn ups(root: &Path) -> Found {
    let supplies = root.join("sys/class/power_supply");
    let supply = names(&supplies)
        .into_iter()
        .map(|name| supplies.join(name))
        .find(|supply| read_line(&supply.join("type")).as_deref() == Some("UPS"))?;
    let percent = read_number(&supply.join("capacity")).filter(|n| (0..=100).contains(n));
    let percent = percent.and_then(|n| u8::try_from(n).ok()).map(f64::from);
    let state = match read_line(&supply.join("status")).as_deref() {
        _ if percent.is_some_and(|p| p < UPS_PERCENT_CRITICAL) => SensorState::Critical,
        Some("Full" | "Charging" | "Not charging") => SensorState::Ok,
        // On battery, or it does not say.
        _ => SensorState::Warning,
    };
    Some((state, percent))
}

/// A hardware watchdog counts only when somebody feeds it.
fn watchdog(root: &Path) -> Found {
    let devices = root.join("sys/class/watchdog");
    let name = names(&devices).into_iter().next()?;
    match read_line(&devices.join(name).join("state")).as_deref() {
        Some("active") => Some((SensorState::Ok, None)),
        _ => Some((SensorState::Warning, None)),
    }
}

fn severity(state: SensorState) -> u8 {
    match state {
        SensorState::Absent => 0,
        SensorState::Ok => 1,
        SensorState::Warning => 2,
        SensorState::Critical => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::fake_root;

    fn state(files: &[(&str, &str)], kind: SensorKind) -> (SensorState, Option<f64>) {
        let root = fake_root(files);
        let sensor = sensors(root.path()).into_iter().find(|s| s.kind == kind).unwrap();
        (sensor.state, sensor.value)
    }

    #[test]
    fn temperatures_follow_the_chips_own_limits() {
        let chip =
            |input, crit| [("sys/class/hwmon/hwmon0/temp1_input", input), ("sys/class/hwmon/hwmon0/temp1_crit", crit)];
        let kind = SensorKind::Temperature;
        assert_eq!(state(&chip("49850", "80000"), kind), (SensorState::Ok, Some(49.85)));
        assert_eq!(state(&chip("81000", "80000"), kind), (SensorState::Critical, Some(81.0)));
        assert_eq!(state(&chip("76000", "-273150"), kind), (SensorState::Warning, Some(76.0)));
        assert_eq!(state(&chip("broken", "80000"), kind), (SensorState::Absent, None));
    }

    #[test]
    fn arrays_are_as_good_as_their_members() {
        let mdstat = |body: &str| format!("Personalities : [raid1]\n{body}\nunused devices: <none>\n");
        let of = |body: &str| state(&[("proc/mdstat", &mdstat(body))], SensorKind::Array);
        let good = "md0 : active raid1 sdb1[1] sda1[0]\n      1046528 blocks super 1.2 [2/2] [UU]\n";
        let degraded = "md0 : active raid1 sdb1[1](F) sda1[0]\n      1046528 blocks super 1.2 [2/1] [U_]\n";
        let checking =
            "md0 : active raid1 sdb1[1] sda1[0]\n  9 blocks [2/2] [UU]\n  [=>..]  resync = 9.1% (1/9) finish=1min\n";
        assert_eq!(of(good), (SensorState::Ok, Some(0.0)));
        assert_eq!(of(degraded), (SensorState::Critical, Some(1.0)));
        assert_eq!(of(checking), (SensorState::Warning, Some(0.0)));
        assert_eq!(of("md1 : inactive sdc[0](S)\n"), (SensorState::Critical, Some(0.0)));
        assert_eq!(of(""), (SensorState::Absent, None));
    }

    #[test]
    fn a_ups_on_battery_is_a_warning() {
        let ups = |status, capacity| {
            [
                ("sys/class/power_supply/u/type", "UPS"),
                ("sys/class/power_supply/u/status", status),
                ("sys/class/power_supply/u/capacity", capacity),
            ]
        };
        assert_eq!(state(&ups("Full", "100"), SensorKind::Ups), (SensorState::Ok, Some(100.0)));
        assert_eq!(state(&ups("Discharging", "80"), SensorKind::Ups), (SensorState::Warning, Some(80.0)));
        assert_eq!(state(&ups("Discharging", "20"), SensorKind::Ups), (SensorState::Critical, Some(20.0)));
        assert_eq!(
            state(&[("sys/class/power_supply/b/type", "Battery")], SensorKind::Ups),
            (SensorState::Absent, None)
        );
    }

    #[test]
    fn a_watchdog_that_nobody_feeds_is_no_watchdog() {
        let kind = SensorKind::Watchdog;
        assert_eq!(state(&[("sys/class/watchdog/watchdog0/state", "active")], kind).0, SensorState::Ok);
        assert_eq!(state(&[("sys/class/watchdog/watchdog0/state", "inactive")], kind).0, SensorState::Warning);
    }
}
