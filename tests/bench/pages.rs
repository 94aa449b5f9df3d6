//! How fast the pages of a practice are: the release programs as quickstart starts them, 64 clients over HTTPS, once without a
//! snapshot, once while snapshots follow each other, and once without a pause between requests.
//!
//! Every client has a connection of its own and thinks for 250 to 500 ms before each request (a closed loop: a client waits for
//! its answer). Half of them share a clinician's session, half the front desk's. A booking is what a browser does: the form, a
//! request that keeps the chosen free time, the form sent. In the end every booking is looked for in the records, and none
//! may overlap another appointment of its practitioner.
//!
//! usage: pages [PATIENTS [SECONDS [CLIENTS]]]                   2000 patients, 60 s, 64 clients
//! `HOLDFAST_BIN_DIR` names the folder of the programs, else they lie beside this one.

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Datelike};
use holdfast_tests::http::{Visitor, hidden, unix_s};
use holdfast_tests::{Practice, cpu_s, steady_now};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is measured, and the floor of its 99th percentile in milliseconds.
const KINDS: [(&str, u32); 8] = [
    ("chart, clinician", 100),
    ("chart, front desk", 100),
    ("calendar, list of a day", 80),
    ("calendar, day", 80),
    ("calendar, week", 80),
    ("booking, form with free times", 50),
    ("booking, time kept", 50),
    ("booking, sent", 50),
];
// Places in it. The front desk's charts come after the clinician's, other calendars after the list.
const CHART: usize = 0;
const CALENDAR: usize = 2;
const FORM: usize = 5;
const HOLD: usize = 6;
const BOOK: usize = 7;
/// Of 100 things that a clinician does, and the front desk: charts, calendar pages; the rest are bookings.
const SHARES: [(u64, u64); 2] = [(70, 25), (30, 40)];
const THINK_MS: (u64, u64) = (250, 500);
/// Calendar pages are of days around today, bookings of working days after tomorrow: the first day, and how many.
const DAYS_SHOWN: (i64, u64) = (-7, 37);
const DAYS_BOOKED: (i64, u64) = (2, 180);
/// What a booking's reason says, to find it again.
const REASON: &str = "Blood pressure check, asked for by the bench";
const WARM_UP: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let usage = "usage: pages [PATIENTS [SECONDS [CLIENTS]]]";
    let args = std::env::args().skip(1).map(|arg| arg.parse().context(usage)).collect::<Result<Vec<u32>>>()?;
    let of = |at: usize, or: u32| args.get(at).copied().unwrap_or(or);
    let (patients, span, count) = (of(0, 2000), Duration::from_secs(of(1, 60).into()), of(2, 64));
    let began = steady_now();
    let practice = Practice::start(patients)?;
    println!("{patients} made-up patients, first snapshot and drills: {:.0} s.", began.elapsed().as_secs_f64());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (world, mut windows) = runtime.block_on(enter(&practice, count))?;
    let bench = Bench { practice, runtime, world };
    bench.phase(&mut windows, WARM_UP, Some(THINK_MS), false)?;
    let quiet = bench.phase(&mut windows, span, Some(THINK_MS), false)?;
    let busy = bench.phase(&mut windows, span, Some(THINK_MS), true)?;
    let most = bench.phase(&mut windows, span / 4, None, true)?;
    println!("\n{count} clients, {} to {} ms of thinking before each request:\n", THINK_MS.0, THINK_MS.1);
    table(&[("no snapshot", &quiet), ("snapshots", &busy)], true);
    println!("\nThe same clients without a pause, snapshots too (how much this machine gives; no floor):\n");
    table(&[("no pause", &most)], false);
    let booked = bench.runtime.block_on(bench.world.check())?;
    println!("\n{booked} bookings stand in the records, and none overlaps another appointment of its practitioner.");
    let wrong: Vec<&String> = [&quiet, &busy, &most].iter().flat_map(|phase| &phase.seen.wrong).collect();
    ensure!(wrong.is_empty(), "{} requests failed; the first: {}", wrong.len(), wrong[0]);
    Ok(())
}

/// What clients know of the practice, and what they have done and seen.
struct World {
    desk: Visitor,
    patients: Vec<String>,
    practitioners: Vec<String>,
    think: Cell<Option<(u64, u64)>>,
    seen: RefCell<Seen>,
    /// Practitioner and start of each booking that was accepted.
    booked: RefCell<BTreeSet<(String, i64)>>,
}

#[derive(Default)]
struct Seen {
    taken: [Vec<Duration>; KINDS.len()],
    /// Bookings that the calendar refused because somebody was first, and days without a free time.
    refused: u32,
    full: u32,
    wrong: Vec<String>,
}

/// One window of somebody who works with the EMR.
struct Window {
    world: Rc<World>,
    client: Client,
    /// Of [`SHARES`].
    role: usize,
    chance: u64,
}

struct Phase {
    seen: Seen,
    span_s: f64,
    /// CPU seconds of the EMR.
    cpu_s: f64,
    /// The machine's, at the end.
    load: String,
    /// Time and write stall of each snapshot, ms.
    snapshots: Vec<(f64, f64)>,
}

/// Signs in both roles and opens the windows.
async fn enter(practice: &Practice, count: u32) -> Result<(Rc<World>, Vec<Window>)> {
    let ca = practice.ca()?;
    let doctor = Visitor::sign_in(&ca, &practice.user("doctor")?).await?;
    let desk = Visitor::sign_in(&ca, &practice.user("desk")?).await?;
    let ids = |all: Vec<Value>| all.iter().filter_map(|found| found["id"].as_str().map(str::to_owned)).collect();
    let patients: Vec<String> = ids(desk.fhir_all("Patient?_count=500").await?);
    let practitioners: Vec<String> = ids(desk.fhir_all("Practitioner?_count=500").await?);
    ensure!(!patients.is_empty() && !practitioners.is_empty(), "the practice is empty");
    let appointments = desk.fhir_all("Appointment?_count=500").await?.len();
    println!("{} patients, {} practitioners, {appointments} appointments.", patients.len(), practitioners.len());
    let (think, seen, booked) = (Cell::default(), RefCell::default(), RefCell::default());
    let world = Rc::new(World { desk, patients, practitioners, think, seen, booked });
    let window = |at: u32| {
        let (role, visitor) = if at.is_multiple_of(2) { (0, &doctor) } else { (1, &world.desk) };
        Ok(Window { world: Rc::clone(&world), client: visitor.window()?, role, chance: u64::from(at) + 1 })
    };
    let windows = (0..count).map(window).collect::<Result<_>>()?;
    Ok((world, windows))
}

struct Bench {
    practice: Practice,
    runtime: tokio::runtime::Runtime,
    world: Rc<World>,
}

impl Bench {
    /// Lets every window work for a while.
    fn phase(
        &self,
        all: &mut Vec<Window>,
        span: Duration,
        think: Option<(u64, u64)>,
        snapshots: bool,
    ) -> Result<Phase> {
        let (practice, over) = (&self.practice, &AtomicBool::new(!snapshots));
        let emr = practice.pid("appliance serve")?;
        self.world.think.set(think);
        std::thread::scope(|scope| {
            let taker = scope.spawn(move || take_snapshots(practice, over));
            let (cpu, began) = (cpu_s(emr)?, steady_now());
            let worked = self.runtime.block_on(work(all, span));
            let (cpu_s, span_s) = (cpu_s(emr)? - cpu, began.elapsed().as_secs_f64());
            over.store(true, Ordering::Relaxed);
            worked?;
            let snapshots = taker.join().map_err(|_| anyhow::anyhow!("the thread of the snapshots"))??;
            let load = std::fs::read_to_string("/proc/loadavg")?;
            let load = load.split(' ').next().unwrap_or_default().to_owned();
            Ok(Phase { seen: self.world.seen.take(), span_s, cpu_s, load, snapshots })
        })
    }
}

/// One snapshot after another.
fn take_snapshots(practice: &Practice, over: &AtomicBool) -> Result<Vec<(f64, f64)>> {
    let mut taken = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let lines = practice.backupd(&["snapshot"])?;
        let done = lines.iter().find(|line| line["event"] == "snapshot-done").context("no snapshot was taken")?;
        let number = |name: &str| done[name].as_f64().with_context(|| name.to_owned());
        taken.push((number("duration_ms")?, number("write_stall_us")? / 1e3));
    }
    Ok(taken)
}

async fn work(windows: &mut Vec<Window>, span: Duration) -> Result<()> {
    let (local, began) = (tokio::task::LocalSet::new(), steady_now());
    let go_on = |mut window: Window| async move {
        while began.elapsed() < span {
            if let Err(error) = window.act().await {
                window.world.seen.borrow_mut().wrong.push(format!("{error:#}"));
            }
        }
        window
    };
    let tasks: Vec<_> = windows.drain(..).map(|window| local.spawn_local(go_on(window))).collect();
    local.await;
    for task in tasks {
        windows.push(task.await?);
    }
    Ok(())
}

impl Window {
    /// A number below `below` (SplitMix64).
    fn any(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn one(&mut self, of: &[String]) -> String {
        of[self.any(of.len() as u64) as usize].clone()
    }

    fn day(&mut self, (first, count): (i64, u64), working: bool) -> Result<String> {
        let ahead = first + self.any(count).cast_signed();
        let at = DateTime::from_timestamp(unix_s().cast_signed() + ahead * 86_400, 0).context("a day")?;
        let weekend = i64::from(at.weekday().num_days_from_monday()) - 4;
        let on = if working && weekend > 0 { 3 - weekend } else { 0 };
        Ok((at.date_naive() + chrono::Duration::days(on)).to_string())
    }

    async fn act(&mut self) -> Result<()> {
        let (world, (charts, calendars)) = (Rc::clone(&self.world), SHARES[self.role]);
        let (what, patient) = (self.any(100), self.one(&world.patients));
        if what >= charts + calendars {
            return self.book(&patient).await;
        }
        let (day, who) = (self.day(DAYS_SHOWN, false)?, self.one(&world.practitioners));
        let (kind, path, mark) = match self.any(3) {
            _ if what < charts => (CHART + self.role, format!("/patients/{patient}"), "<h1>Chart</h1>"),
            0 => (CALENDAR, format!("/schedule?day={day}"), "id=\"day\""),
            1 => (CALENDAR + 1, format!("/schedule/grid?view=day&day={day}"), "id=\"cal-status\""),
            _ => {
                let path = format!("/schedule/grid?view=week&day={day}&practitioner=Practitioner/{who}");
                (CALENDAR + 2, path, "class=\"calendar\"")
            }
        };
        let (status, page) = self.ask(kind, &path, None).await?;
        ensure!(status.is_success() && page.contains(mark), "{}: {status}", KINDS[kind].0);
        Ok(())
    }

    /// Sends one request after some thinking; the time until its answer is whole counts.
    async fn ask(&mut self, kind: usize, path: &str, form: Option<&Form>) -> Result<(StatusCode, String)> {
        if let Some((least, most)) = self.world.think.get() {
            tokio::time::sleep(Duration::from_millis(least + self.any(most - least))).await;
        }
        let url = format!("{}{path}", self.world.desk.url);
        let request = match form {
            Some(form) => self.client.post(url).form(form),
            None => self.client.get(url),
        };
        let asked = steady_now();
        let answer = request.send().await?;
        let (status, page) = (answer.status(), answer.text().await?);
        self.world.seen.borrow_mut().taken[kind].push(asked.elapsed());
        Ok((status, page))
    }

    /// A booking as the form makes it, at one of the free times that it shows.
    async fn book(&mut self, patient: &str) -> Result<()> {
        let world = Rc::clone(&self.world);
        let (day, who) = (self.day(DAYS_BOOKED, true)?, format!("Practitioner/{}", self.one(&world.practitioners)));
        let path = format!("/schedule/book?patient={patient}&day={day}&practitioner={who}");
        let (status, page) = self.ask(FORM, &path, None).await?;
        let (_, sheet) = page.split_once("id=\"booking\"").with_context(|| format!("no form: {status}"))?;
        let slots = sheet.split("name=\"slot\" value=\"").skip(1).filter_map(|rest| rest.split_once('"'));
        let slots: Vec<String> = slots.map(|(slot, _)| slot.to_owned()).collect();
        if slots.is_empty() {
            world.seen.borrow_mut().full += 1;
            return Ok(());
        }
        let slot = self.one(&slots);
        let mut form = hidden(sheet);
        let fields = [("practitioner", &*who), ("day", &*day), ("slot", &*slot), ("minutes", "30"), ("reason", REASON)];
        form.extend(fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let (status, page) = self.ask(HOLD, "/schedule/hold", Some(&form)).await?;
        if page.contains("was just taken") {
            world.seen.borrow_mut().refused += 1;
            return Ok(());
        }
        ensure!(status.is_success() && page.contains("is kept for you"), "{}: {status}", KINDS[HOLD].0);
        match self.ask(BOOK, "/schedule/book", Some(&form)).await?.0 {
            StatusCode::SEE_OTHER => {
                let fresh = world.booked.borrow_mut().insert((who, slot.parse()?));
                ensure!(fresh, "a time was given twice");
            }
            // The patient may have another appointment at this time.
            StatusCode::CONFLICT => world.seen.borrow_mut().refused += 1,
            status => bail!("{}: {status}", KINDS[BOOK].0),
        }
        Ok(())
    }
}

type Form = BTreeMap<String, String>;

impl World {
    /// Every booking that was accepted stands in the records, and none overlaps another appointment of its practitioner.
    async fn check(&self) -> Result<usize> {
        let mut calendars: BTreeMap<String, Vec<(i64, i64, bool)>> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for appointment in self.desk.fhir_all("Appointment?_count=500").await? {
            if !matches!(appointment["status"].as_str(), Some("booked" | "pending" | "arrived" | "fulfilled")) {
                continue;
            }
            let second = |name: &str| {
                let at = DateTime::parse_from_rfc3339(appointment[name].as_str().context("a time")?)?;
                Ok::<_, anyhow::Error>(at.timestamp())
            };
            let (from, until, ours) = (second("start")?, second("end")?, appointment["description"] == REASON);
            let actors = appointment["participant"].as_array().into_iter().flatten();
            let actors = actors.filter_map(|actor| actor["actor"]["reference"].as_str());
            for who in actors.filter(|who| who.starts_with("Practitioner/")) {
                calendars.entry(who.to_owned()).or_default().push((from, until, ours));
                ensure!(!ours || found.insert((who.to_owned(), from)), "two bookings at one time");
            }
        }
        let accepted = self.booked.borrow();
        ensure!(found == *accepted, "{} bookings stand, {} were accepted", found.len(), accepted.len());
        for mut calendar in calendars.into_values() {
            calendar.sort_unstable();
            let clash = |two: &[(i64, i64, bool)]| two[1].0 < two[0].1 && (two[0].2 || two[1].2);
            ensure!(!calendar.windows(2).any(clash), "a booking overlaps another appointment");
        }
        Ok(found.len())
    }
}

/// Times of each kind in each phase; whether the last phase met the floors.
fn table(phases: &[(&str, &Phase)], floors: bool) {
    let heads: String =
        phases.iter().map(|(name, _)| format!(" {name}: number | p50 ms | p99 ms | max ms |")).collect();
    println!("| |{heads}{}", if floors { " p99 below, ms | |" } else { "" });
    println!("|---|{}{}", "---|---|---|---|".repeat(phases.len()), if floors { "---|---|" } else { "" });
    for (kind, (name, floor)) in KINDS.iter().enumerate() {
        let (mut row, mut p99) = (format!("| {name} |"), f64::NAN);
        for (_, phase) in phases {
            let mut taken: Vec<f64> = phase.seen.taken[kind].iter().map(|taken| taken.as_secs_f64() * 1e3).collect();
            taken.sort_by(f64::total_cmp);
            // The nearest rank: as many as the percentile says are not slower.
            let at = |part: usize| taken.get((taken.len() * part).div_ceil(100).saturating_sub(1)).copied();
            let at = |part: usize| at(part).unwrap_or(f64::NAN);
            p99 = at(99);
            row += &format!(" {} | {:.1} | {p99:.1} | {:.1} |", taken.len(), at(50), at(100));
        }
        let verdict = if p99 < f64::from(*floor) { "met" } else { "missed" };
        println!("{row}{}", if floors { format!(" {floor} | {verdict} |") } else { String::new() });
    }
    println!();
    for (name, Phase { seen, span_s, cpu_s, load, snapshots }) in phases {
        let number = seen.taken.iter().map(Vec::len).sum::<usize>() as f64;
        print!(
            "- {name}: {number} requests, {:.0} a second, {:.2} ms of the EMR's CPU each",
            number / span_s,
            cpu_s * 1e3 / number
        );
        print!("; {} bookings refused, {} days full; load {load}", seen.refused, seen.full);
        let (whole, count) = (snapshots.iter().map(|taken| taken.0).sum::<f64>(), snapshots.len());
        let stall = snapshots.iter().map(|taken| taken.1).fold(0.0, f64::max);
        match count {
            0 => println!(),
            _ => println!("; {count} snapshots of {:.0} ms, write stall at most {stall:.1} ms", whole / count as f64),
        }
    }
}
