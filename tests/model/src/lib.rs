//! Commit, prune and lock extension as a model, of which every state is visited: stores, writers, one pruner, time, and one
//! crash of each program. It says of the protocol of SPEC.md section 7.1 what the simulation says of the code.
//!
//! One chunk lies in an old pack, which only a snapshot that is to go reaches. Each writer takes a snapshot that holds the
//! chunk too: it rests on the old pack or brings a pack of its own. The first writer has a chain that the pruner knows, the
//! others come for the first time. Numbers of heads and packs: writer * 2 + attempt; `OLD` is the snapshot that goes.

use stateright::{Model, Property};

const STORES_MAX: usize = 3;
const OLD: u8 = 6;
const ALL_PACKS: u8 = 0x7f;
/// Two turns of time between two runs of maintenance, and one more.
const LOCK_TURNS: u8 = 2;

/// What the protocol does; each rule can be left out, to see that it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A writer lists the plans once more after its head.
    pub looks_after_the_head: bool,
    /// The pruner waits until each chain that it knows has named the plan.
    pub waits_for_writers: bool,
    /// The pruner marks anew before it deletes.
    pub marks_anew: bool,
    /// What one store shows fences a writer's head at all of them.
    pub fences_everywhere: bool,
    /// A writer takes what a plan names for absent.
    pub counts_condemned_as_absent: bool,
    /// Heads above the counter of a retirement are late.
    pub retirement_makes_late: bool,
    /// Maintenance extends locks before they end.
    pub extends_locks: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        looks_after_the_head: true,
        waits_for_writers: true,
        marks_anew: true,
        fences_everywhere: true,
        counts_condemned_as_absent: true,
        retirement_makes_late: false,
        extends_locks: true,
    };
}

pub struct Protocol {
    pub stores: usize,
    pub writers: usize,
    pub quorum: u32,
    /// How often a writer begins, 1 or 2.
    pub attempts: u8,
    /// Each program may crash once.
    pub crashes: bool,
    /// Time passes, and locks end.
    pub locks: bool,
    /// One store is once set back to before the plan. Every store then answers its writer: where only the one that was set
    /// back does, nobody can know (the stated limit of SPEC.md section 7.1).
    pub sets_back: bool,
    /// An announced plan may be ended.
    pub withdraws: bool,
    pub rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Store {
    heads: u8,
    packs: u8,
    plan: bool,
    order: bool,
    retirement: bool,
    /// Turns that the old pack is still locked.
    lock: u8,
    /// Maintenance has not been here since time passed.
    due: bool,
}

/// What a writer found when it listed the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Known {
    plan: bool,
    order: bool,
    retirement: bool,
}

/// How far a writer's commit is at one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    Unreachable,
    Begun,
    Packs,
    Looked,
    Head,
    Durable,
    Fenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Begins,
    Committing { known: Known, at: [At; STORES_MAX] },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Writer {
    attempt: u8,
    doing: Doing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pruning {
    Idle,
    /// Lists heads for a plan, or for an order.
    Marking {
        order: bool,
        listed: u8,
        heads: u8,
        retired: bool,
    },
    /// Puts the plan, a retirement or the order to one store after the other.
    Publishing {
        what: Notice,
        next: u8,
    },
    Deleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Notice {
    Plan,
    Retirement,
    Order,
}

/// What of the plan is really taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Order {
    covers: u8,
    late: u8,
    old_head: bool,
    old_pack: bool,
}

/// What a sealed head says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sealed {
    saw_the_plan: bool,
    old_chain: bool,
    own_pack: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    stores: [Store; STORES_MAX],
    writers: Vec<Writer>,
    pruner: Pruning,
    sealed: [Option<Sealed>; OLD as usize],
    /// The heads of the old chain up to which it was retired.
    retired: Option<u8>,
    order: Option<Order>,
    /// Stores at which a writer was told that its snapshot is durable, by head.
    told: [u8; OLD as usize],
    crashed: u8,
    was_set_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A writer lists the stores, of which one may not answer, reads its source and seals.
    List {
        writer: usize,
        silent: Option<usize>,
    },
    Go {
        writer: usize,
        store: usize,
    },
    End {
        writer: usize,
    },
    Crash {
        writer: usize,
    },
    Prune,
    MarkAt {
        store: usize,
    },
    Retire,
    /// The plan ends, and nothing of it is taken out.
    Withdraw,
    Publish,
    Delete {
        store: usize,
    },
    PrunerCrashes,
    TimePasses,
    Extend {
        store: usize,
    },
    SetBack {
        store: usize,
    },
}

fn bit(number: u8) -> u8 {
    1 << number
}

impl Protocol {
    fn every(&self) -> u8 {
        bit(self.stores as u8) - 1
    }

    fn at<'s>(&self, state: &'s State) -> &'s [Store] {
        state.stores.get(..self.stores).unwrap_or_default()
    }

    fn is_retired(&self, state: &State) -> bool {
        self.at(state).iter().any(|store| store.retirement)
    }

    /// Whether a head that stands in a store does not count.
    fn is_late(&self, state: &State, head: u8) -> bool {
        let Some(sealed) = state.sealed.get(head as usize).copied().flatten() else { return false };
        let above = state.retired.is_some_and(|upto| sealed.old_chain && upto & bit(head) == 0);
        if self.rules.retirement_makes_late && above && self.is_retired(state) {
            return true;
        }
        let order = state.order.filter(|_| self.at(state).iter().any(|store| store.order));
        order.is_some_and(|order| !sealed.saw_the_plan && order.covers & bit(head) == 0)
    }

    fn steps_of_writer(&self, state: &State, number: usize, steps: &mut Vec<Step>) {
        let Some(writer) = state.writers.get(number) else { return };
        match writer.doing {
            Doing::Begins => {
                let silent = (0..self.stores).map(Some).filter(|_| !self.sets_back).chain([None]);
                steps.extend(silent.map(|silent| Step::List { writer: number, silent }));
            }
            Doing::Committing { at, .. } => {
                let of = |wanted: At| at.iter().take(self.stores).filter(|at| **at == wanted).count() as u32;
                let with_packs = at.iter().take(self.stores).filter(|at| **at >= At::Packs).count() as u32;
                for (store, at) in at.iter().enumerate().take(self.stores) {
                    let may = match at {
                        At::Begun | At::Looked | At::Head => true,
                        At::Packs => with_packs >= self.quorum,
                        At::Unreachable | At::Durable | At::Fenced => false,
                    };
                    if may {
                        steps.push(Step::Go { writer: number, store });
                    }
                }
                let open = of(At::Begun) + of(At::Packs) + of(At::Looked) + of(At::Head);
                if open == 0 || of(At::Durable) >= self.quorum && !self.sets_back {
                    steps.push(Step::End { writer: number });
                }
            }
            Doing::Done => return,
        }
        if self.crashes && state.crashed & bit(number as u8) == 0 {
            steps.push(Step::Crash { writer: number });
        }
    }

    fn steps_of_pruner(&self, state: &State, steps: &mut Vec<Step>) {
        match state.pruner {
            Pruning::Idle => steps.push(Step::Prune),
            Pruning::Marking { listed, order, heads, retired } if listed == self.every() => {
                if order && self.withdraws {
                    steps.push(Step::Withdraw);
                }
                if order && self.waits_for_a_writer(state, heads, retired) {
                    steps.push(Step::Retire);
                }
                steps.push(Step::Prune);
            }
            Pruning::Marking { listed, .. } => {
                let open = (0..self.stores).filter(|store| listed & bit(*store as u8) == 0);
                steps.extend(open.map(|store| Step::MarkAt { store }));
            }
            Pruning::Publishing { .. } => steps.push(Step::Publish),
            Pruning::Deleting => {
                let gone = self.gone(state);
                let left = |store: &Store| store.heads & gone.0 != 0 || store.packs & gone.1 != 0;
                let open = self.at(state).iter().enumerate().filter(|(_, store)| left(store));
                steps.extend(open.map(|(store, _)| Step::Delete { store }));
            }
        }
        let idle = matches!(state.pruner, Pruning::Idle);
        if self.crashes && !idle && state.crashed & bit(7) == 0 {
            steps.push(Step::PrunerCrashes);
        }
    }

    /// Heads and packs that the order takes out.
    fn gone(&self, state: &State) -> (u8, u8) {
        let Some(order) = state.order else { return (0, 0) };
        let old = |goes: bool| if goes { bit(OLD) } else { 0 };
        (old(order.old_head) | order.late, old(order.old_pack))
    }

    /// Whether the newest head of the old chain has not named the plan.
    fn waits_for_a_writer(&self, state: &State, heads: u8, retired: bool) -> bool {
        if !self.rules.waits_for_writers || retired {
            return false;
        }
        let of_chain = (0..OLD).rev().find(|head| heads & bit(*head) != 0 && self.sealed(state, *head).old_chain);
        of_chain.is_none_or(|head| !self.sealed(state, head).saw_the_plan)
    }

    fn sealed(&self, state: &State, head: u8) -> Sealed {
        let none = Sealed { saw_the_plan: false, old_chain: false, own_pack: false };
        state.sealed.get(head as usize).copied().flatten().unwrap_or(none)
    }

    fn list(&self, state: &mut State, number: usize, silent: Option<usize>) {
        let mut known = Known::default();
        let mut old_pack = false;
        for (_, store) in self.at(state).iter().enumerate().filter(|(at, _)| Some(*at) != silent) {
            known.plan |= store.plan;
            known.order |= store.order;
            known.retirement |= store.retirement;
            old_pack |= store.packs & bit(OLD) != 0;
        }
        let named = match state.order.filter(|_| known.order) {
            Some(order) => order.old_pack,
            None => known.plan,
        };
        let Some(writer) = state.writers.get_mut(number) else { return };
        let rests = old_pack && !(named && self.rules.counts_condemned_as_absent);
        let again = writer.attempt > 0 && silent.is_some();
        let sealed = Sealed {
            saw_the_plan: known.plan || known.order,
            old_chain: number == 0 && !known.retirement && !again,
            own_pack: !rests,
        };
        let begun = |store: usize| if Some(store) == silent { At::Unreachable } else { At::Begun };
        writer.doing = Doing::Committing { known, at: std::array::from_fn(begun) };
        let head = number * 2 + usize::from(writer.attempt);
        if let Some(slot) = state.sealed.get_mut(head) {
            *slot = Some(sealed);
        }
    }

    /// One request of a commit.
    fn go(&self, state: &mut State, number: usize, at_store: usize) {
        let (Some(writer), Some(store)) = (state.writers.get_mut(number), state.stores.get_mut(at_store)) else {
            return;
        };
        let head = (number * 2) as u8 + writer.attempt;
        let own_pack = state.sealed.get(head as usize).copied().flatten().is_some_and(|sealed| sealed.own_pack);
        let Doing::Committing { known, at } = &mut writer.doing else { return };
        let Some(at) = at.get_mut(at_store) else { return };
        let new = store.plan && !known.plan || store.order && !known.order || store.retirement && !known.retirement;
        let looked = |next: At| if new { At::Fenced } else { next };
        *at = match *at {
            At::Begun => {
                store.packs |= if own_pack { bit(head) } else { 0 };
                At::Packs
            }
            At::Packs => looked(At::Looked),
            At::Looked => {
                store.heads |= bit(head);
                if self.rules.looks_after_the_head { At::Head } else { At::Durable }
            }
            At::Head => looked(At::Durable),
            done => done,
        };
    }

    fn end(&self, state: &mut State, number: usize) {
        let Some(writer) = state.writers.get_mut(number) else { return };
        let Doing::Committing { at, .. } = writer.doing else { return };
        let durable = (0..self.stores).filter(|store| at.get(*store) == Some(&At::Durable));
        let durable: u8 = durable.map(|store| bit(store as u8)).sum();
        let head = number * 2 + usize::from(writer.attempt);
        let fenced = self.rules.fences_everywhere && at.contains(&At::Fenced);
        if durable.count_ones() >= self.quorum && !fenced {
            if let Some(told) = state.told.get_mut(head) {
                *told = durable;
            }
            writer.doing = Doing::Done;
        } else if at.contains(&At::Fenced) && writer.attempt + 1 < self.attempts {
            *writer = begins(writer.attempt + 1);
        } else {
            writer.doing = Doing::Done;
        }
    }

    /// The pruner begins, or goes on from what it has listed.
    fn prune(&self, state: &mut State) {
        state.pruner = match state.pruner {
            Pruning::Marking { order, heads, retired, .. } => self.marked(state, order, heads, retired),
            _ if self.at(state).iter().any(|store| store.order) => Pruning::Publishing { what: Notice::Order, next: 0 },
            _ if self.at(state).iter().all(|store| store.plan) => {
                Pruning::Marking { order: true, listed: 0, heads: 0, retired: self.is_retired(state) }
            }
            _ if self.at(state).iter().any(|store| store.plan) => Pruning::Publishing { what: Notice::Plan, next: 0 },
            _ => Pruning::Marking { order: false, listed: 0, heads: 0, retired: false },
        };
    }

    /// Whether a snapshot that stays has the chunk, and no pack that lies everywhere gives it.
    fn is_old_pack_needed(&self, state: &State, heads: u8) -> bool {
        let packs = self.at(state).iter().fold(ALL_PACKS, |packs, store| packs & store.packs);
        heads & !bit(OLD) != 0 && packs & !bit(OLD) == 0
    }

    fn late(&self, state: &State, heads: u8) -> u8 {
        (0..OLD).filter(|head| heads & bit(*head) != 0 && self.is_late(state, *head)).map(bit).sum()
    }

    fn marked(&self, state: &mut State, order: bool, heads: u8, retired: bool) -> Pruning {
        let late = self.late(state, heads);
        let needed = self.is_old_pack_needed(state, heads & !late);
        if !order {
            // Whatever the old snapshot alone reaches goes with it; else there is nothing to see here.
            return if needed { Pruning::Idle } else { Pruning::Publishing { what: Notice::Plan, next: 0 } };
        }
        if self.waits_for_a_writer(state, heads, retired) {
            return Pruning::Idle;
        }
        let old_pack = !(needed && self.rules.marks_anew);
        state.order = Some(Order { covers: heads, late, old_head: true, old_pack });
        Pruning::Publishing { what: Notice::Order, next: 0 }
    }

    fn publish(&self, state: &mut State) {
        let Pruning::Publishing { what, next } = state.pruner else { return };
        if let Some(store) = state.stores.get_mut(next as usize) {
            match what {
                Notice::Plan => store.plan = true,
                Notice::Retirement => store.retirement = true,
                Notice::Order => store.order = true,
            }
        }
        let everywhere = usize::from(next) + 1 == self.stores;
        state.pruner = match what {
            Notice::Order if everywhere => Pruning::Deleting,
            _ if everywhere => Pruning::Idle,
            _ => Pruning::Publishing { what, next: next + 1 },
        };
    }

    fn delete(&self, state: &mut State, store: usize) {
        let (heads, packs) = self.gone(state);
        if let Some(store) = state.stores.get_mut(store) {
            if store.heads & heads != 0 {
                store.heads &= !heads;
            } else if store.lock == 0 {
                store.packs &= !packs;
            }
        }
    }

    /// Time passes at all stores, once between two runs of maintenance.
    fn may_time_pass(&self, state: &State) -> bool {
        let due = self.at(state).iter().any(|store| store.due && self.rules.extends_locks);
        self.locks && !due && self.at(state).iter().any(|store| store.lock > 0)
    }

    /// Every snapshot that somebody was told is durable counts, and comes back from where it was told so.
    fn keeps_its_word(&self, state: &State) -> bool {
        let told = || state.told.iter().enumerate().filter(|(_, stores)| **stores != 0);
        told().all(|(head, stores)| {
            let head = head as u8;
            let back = |store: &Store| store.heads & bit(head) != 0 && store.packs != 0;
            let stores = self.at(state).iter().enumerate().filter(|(at, _)| stores & bit(*at as u8) != 0);
            !self.is_late(state, head) && stores.map(|(_, store)| store).all(back)
        })
    }

    /// Where somebody was told that a snapshot is durable and it rests on the old pack, a lock keeps that.
    fn keeps_its_locks(&self, state: &State) -> bool {
        let told = state.told.iter().fold(0, |all, stores| all | stores);
        let rests = |at: usize, store: &Store| store.packs == bit(OLD) && told & bit(at as u8) != 0;
        !self.locks || self.at(state).iter().enumerate().all(|(at, store)| !rests(at, store) || store.lock > 0)
    }
}

fn begins(attempt: u8) -> Writer {
    Writer { attempt, doing: Doing::Begins }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let lock = if self.locks { LOCK_TURNS } else { 0 };
        let store = Store { heads: bit(OLD), packs: bit(OLD), lock, ..Store::default() };
        let state = State {
            stores: [store; STORES_MAX],
            writers: vec![begins(0); self.writers],
            pruner: Pruning::Idle,
            sealed: [None; OLD as usize],
            retired: None,
            order: None,
            told: [0; OLD as usize],
            crashed: 0,
            was_set_back: false,
        };
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        (0..self.writers).for_each(|writer| self.steps_of_writer(state, writer, steps));
        self.steps_of_pruner(state, steps);
        if self.may_time_pass(state) {
            steps.push(Step::TimePasses);
        }
        let due = self.at(state).iter().enumerate().filter(|(_, store)| store.due && self.rules.extends_locks);
        steps.extend(due.map(|(store, _)| Step::Extend { store }));
        if self.sets_back && !state.was_set_back {
            steps.extend((0..self.stores).map(|store| Step::SetBack { store }));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = last.clone();
        let state = &mut next;
        match step {
            Step::List { writer, silent } => self.list(state, writer, silent),
            Step::Go { writer, store } => self.go(state, writer, store),
            Step::End { writer } => self.end(state, writer),
            Step::Crash { writer } => {
                state.crashed |= bit(writer as u8);
                if let Some(writer) = state.writers.get_mut(writer) {
                    let again = writer.attempt + 1 < self.attempts;
                    *writer = if again { begins(writer.attempt + 1) } else { Writer { doing: Doing::Done, ..*writer } };
                }
            }
            Step::Prune => self.prune(state),
            Step::MarkAt { store } => {
                let there = state.stores.get(store).map_or(0, |store| store.heads);
                if let Pruning::Marking { listed, heads, .. } = &mut state.pruner {
                    *listed |= bit(store as u8);
                    *heads |= there;
                }
            }
            Step::Retire => {
                let Pruning::Marking { heads, .. } = state.pruner else { return None };
                state.retired = Some(heads);
                state.pruner = Pruning::Publishing { what: Notice::Retirement, next: 0 };
            }
            Step::Withdraw => {
                let Pruning::Marking { heads, .. } = state.pruner else { return None };
                let late = self.late(state, heads);
                state.order = Some(Order { covers: heads, late, old_head: false, old_pack: false });
                state.pruner = Pruning::Publishing { what: Notice::Order, next: 0 };
            }
            Step::Publish => self.publish(state),
            Step::Delete { store } => self.delete(state, store),
            Step::PrunerCrashes => {
                state.crashed |= bit(7);
                state.pruner = Pruning::Idle;
            }
            Step::TimePasses => {
                for store in &mut state.stores {
                    store.lock = store.lock.saturating_sub(1);
                    store.due = true;
                }
            }
            Step::Extend { store } => {
                let condemned = last.order.is_some_and(|order| order.old_pack);
                let condemned = condemned && self.at(last).iter().any(|store| store.order);
                let store = state.stores.get_mut(store)?;
                store.due = false;
                store.lock = if condemned { store.lock } else { LOCK_TURNS };
            }
            Step::SetBack { store } => {
                state.was_set_back = true;
                let store = state.stores.get_mut(store)?;
                (store.plan, store.order, store.retirement) = (false, false, false);
            }
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is durable stays durable", |model: &Self, state: &State| {
                model.keeps_its_word(state)
            }),
            Property::always("what stays is locked", |model: &Self, state: &State| model.keeps_its_locks(state)),
            Property::sometimes("a snapshot is durable after a deletion", |model: &Self, state: &State| {
                state.told.iter().any(|stores| *stores != 0)
                    && model.at(state).iter().all(|store| store.packs & bit(OLD) == 0)
            }),
            Property::sometimes("a pack is struck from the order", |_, state: &State| {
                state.order.is_some_and(|order| !order.old_pack)
            }),
            Property::sometimes(
                "a plan is withdrawn and a snapshot rests on its pack",
                |model: &Self, state: &State| {
                    let withdrawn = state.order.is_some_and(|order| !order.old_head);
                    let rests = |sealed: &Sealed| !sealed.own_pack;
                    let told = state.told.iter().zip(&state.sealed).filter(|(stores, _)| **stores != 0);
                    !model.withdraws || withdrawn && told.filter_map(|(_, sealed)| sealed.as_ref()).any(rests)
                },
            ),
            Property::sometimes("a head comes late", |model: &Self, state: &State| {
                let there = model.at(state).iter().fold(0, |heads, store| heads | store.heads);
                (0..OLD).any(|head| there & bit(head) != 0 && model.is_late(state, head))
            }),
            Property::sometimes("a writer is refused", |_, state: &State| {
                let refused = |at: &[At; STORES_MAX]| at.contains(&At::Fenced);
                let at = |writer: &Writer| matches!(&writer.doing, Doing::Committing { at, .. } if refused(at));
                state.writers.iter().any(at)
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateright::{Checker, Expectation, HasDiscoveries};

    /// Visits every state; gives how many there are, and which properties do not hold.
    fn explore(model: Protocol) -> (usize, Vec<&'static str>) {
        let name = format!(
            "{} stores, {} writers, {} attempts, crashes {}, locks {}, withdraws {}, {:?}",
            model.stores, model.writers, model.attempts, model.crashes, model.locks, model.withdraws, model.rules
        );
        let checked = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let mut broken: Vec<&'static str> = Vec::new();
        for property in checked.model().properties() {
            let found = checked.discovery(property.name);
            let holds = found.is_some() == (property.expectation == Expectation::Sometimes);
            if !holds {
                broken.push(property.name);
            }
        }
        println!(
            "extra: {} states, depth {}, broken {broken:?}: {name}",
            checked.unique_state_count(),
            checked.max_depth()
        );
        (checked.unique_state_count(), broken)
    }

    const SMALL: Protocol = Protocol {
        stores: 2,
        writers: 2,
        quorum: 2,
        attempts: 1,
        crashes: false,
        locks: false,
        sets_back: false,
        withdraws: true,
        rules: Rules::ALL,
    };
    const SET_BACK: Protocol = Protocol { writers: 1, quorum: 1, attempts: 2, sets_back: true, ..SMALL };

    #[test]
    fn no_state_of_the_protocol_breaks_a_promise() {
        let crashing = Protocol { writers: 1, attempts: 2, crashes: true, ..SMALL };
        let locked = Protocol { locks: true, withdraws: false, ..crashing };
        for model in [SMALL, crashing, locked, SET_BACK] {
            assert_eq!(explore(model).1, Vec::<&str>::new());
        }
    }

    #[test]
    fn every_rule_of_the_protocol_is_needed() {
        let promise = "what is durable stays durable";
        let all = Rules::ALL;
        for rules in [
            Rules { looks_after_the_head: false, ..all },
            Rules { marks_anew: false, ..all },
            Rules { counts_condemned_as_absent: false, ..all },
            Rules { retirement_makes_late: true, ..all },
        ] {
            assert!(explore(Protocol { rules, ..SMALL }).1.contains(&promise), "{rules:?}");
        }
        let rules = Rules { fences_everywhere: false, ..all };
        assert!(explore(Protocol { rules, ..SET_BACK }).1.contains(&promise), "{rules:?}");
        let rules = Rules { extends_locks: false, ..all };
        assert!(explore(Protocol { writers: 1, locks: true, rules, ..SMALL }).1.contains(&"what stays is locked"));
    }

    /// The nightly run asks for it: minutes, and some gigabytes of memory.
    #[test]
    #[ignore = "it takes minutes: tests/nightly.d/26-model runs it"]
    fn three_stores_two_writers_and_a_crash_of_each_break_no_promise() {
        let crashing = Protocol { stores: 3, crashes: true, ..SMALL };
        let locked = Protocol { attempts: 2, locks: true, withdraws: false, ..crashing };
        for model in [locked, Protocol { writers: 1, ..crashing }] {
            assert_eq!(explore(model).1, Vec::<&str>::new());
        }
    }
}
